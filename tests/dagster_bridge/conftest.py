"""A node of one organization, and a Dagster instance, for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from fake_node import FakeNode, fake_home


@pytest.fixture(autouse=True)
def quiet_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    """No telemetry, and no node but the test's own."""
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.delenv("COMITY_HOME", raising=False)
    monkeypatch.delenv("COMITY_TICKET", raising=False)


@pytest.fixture
def home() -> Iterator[Path]:
    with fake_home() as home:
        yield home


@pytest.fixture
def node(home: Path) -> Iterator[FakeNode]:
    with FakeNode(home).running() as node:
        yield node


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
