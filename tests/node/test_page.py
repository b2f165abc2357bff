"""The people's page, in a real browser at nodes that run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from browser import Browsers, browsers
from houses import short_folder
from page_visits import approve, ask_for_pooled, enter, four, look_at, officer
from world import NORTH, SOUTH

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def at() -> Iterator[Browsers]:
    with browsers() as found:
        yield found


async def test_an_officer_approves_in_the_browser(place: Path, at: Browsers) -> None:
    with at.screen() as screen:
        async with four(place) as houses:
            asked = await ask_for_pooled(houses[NORTH])
            await enter(screen, houses[SOUTH])
            await officer(screen, houses[SOUTH], place)
            await screen.do(lambda page: look_at(page, asked.intent))
            shown = await houses[SOUTH].ask(lambda client: client.record(asked.intent), "reader")
            assert (
                await screen.do(lambda page: page.locator("#digest").inner_text())
                == shown["header"]["body"]["digest"]
            )
            await screen.do(approve)
            said = await screen.do(lambda page: page.locator("#outcome").inner_text())
            assert said == f"Your approval was handed in, and told to {NORTH}."
            decided = await houses[NORTH].ask(lambda client: client.step(asked.intent, 10.0))
            assert decided.outcome == "execute"
            assert screen.errors == []


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()
