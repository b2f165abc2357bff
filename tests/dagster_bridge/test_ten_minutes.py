"""`docs/dagster.md` from an existing project to a governed one: typed as it stands, by real programs."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from houses import short_folder
from terminal import Terminal
from transcripts import Written, steps_of

PAGE = Path(__file__).parents[2] / "docs" / "dagster.md"
SECTION = re.compile(r"^## In ten minutes\n(.*?)^## ", re.MULTILINE | re.DOTALL)


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in taken]


@pytest.mark.slow
def test_from_a_project_to_a_governed_one(place: Path) -> None:
    section = SECTION.search(PAGE.read_text())
    assert section is not None
    ports = dict(zip(("4101", "3000"), free_ports(2), strict=True))
    terminal = Terminal(place)
    typed = 0
    try:
        for step in steps_of(section[1]):
            if isinstance(step, Written):
                (place / step.name).write_text(step.text)
                continue
            command = step.command
            for word, port in ports.items():
                command = re.sub(rf"\b{word}\b", port, command)
            step.require_shown(terminal.type(command))
            typed += 1
    finally:
        terminal.close()
    assert typed > 20
