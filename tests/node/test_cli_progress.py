"""Progress on long work: on a terminal only, on the error output only, and gone at the end."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from rich.console import Console

from comity.node import cli_progress
from comity.node.cli_progress import work
from houses import environment, found, inhabited, short_folder
from world import NORTH, SOUTH

WITHIN = "1.5"
COMITY = (sys.executable, "-P", "-m", "comity.node.cli")


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


class Screen(io.StringIO):
    """A terminal that says when something stands on it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str, /) -> int:
        if "judging" in text:
            self.written.set()
        return super().write(text)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_progress, "SHOWN_AFTER_S", 0.0)


def on(screen: io.StringIO) -> Console:
    return Console(file=screen, force_terminal=True, width=80)


@pytest.mark.usefixtures("at_once")
def test_what_is_done_is_shown_and_taken_away() -> None:
    screen = Screen()
    with work("reading", as_json=False, console=on(screen)) as shown:
        shown.told("judging\x1b[2J[red]votes", 3, 12)
        assert screen.written.wait(20)
    text = screen.getvalue()
    assert r"judging\x1b[2J[red]votes: 3 of 12" in text
    # The cursor is back, and the line is erased.
    assert text.endswith("\x1b[2K")
    assert "\x1b[?25h" in text


@pytest.mark.usefixtures("at_once")
def test_programs_see_nothing_of_it() -> None:
    screen = io.StringIO()
    with work("judging", as_json=True, console=on(screen)) as shown:
        shown.told("judging votes again", 1, 2)
    assert screen.getvalue() == ""


def test_what_is_quick_shows_nothing() -> None:
    screen = io.StringIO()
    with work("judging", as_json=False, console=on(screen)) as shown:
        shown.told("judging votes again", 1, 2)
    assert screen.getvalue() == ""


@pytest.mark.usefixtures("at_once")
def test_an_error_takes_it_away_too() -> None:
    screen = Screen()

    def fail() -> None:
        with work("judging", as_json=False, console=on(screen)):
            assert screen.written.wait(20)
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        fail()
    assert screen.getvalue().endswith("\x1b[2K")


@pytest.mark.usefixtures("at_once")
def test_a_file_is_no_terminal_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with work("judging", as_json=False):
        pass
    assert capsys.readouterr() == ("", "")


def command(home: Path, *options: str) -> list[str]:
    return [*COMITY, "node", "status", "--home", str(home), "--until", "all", "--within", WITHIN, *options]


def on_terminal(home: Path, *options: str) -> tuple[int, str, str]:
    """The command with a terminal for its errors: its status, its output, and what stood on the terminal."""
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def look() -> None:
        # Where the other end was closed, Linux answers with an error.
        try:
            while data := os.read(ours, 4_096):
                seen.append(data)
        except OSError:
            return

    looker = threading.Thread(target=look)
    looker.start()
    environ = environment(TERM="xterm")
    said = subprocess.run(
        command(home, *options), stdout=subprocess.PIPE, stderr=theirs, env=environ, timeout=60, check=False
    )
    os.close(theirs)
    looker.join(20)
    os.close(ours)
    return said.returncode, said.stdout.decode(), b"".join(seen).decode()


def on_none(home: Path) -> tuple[int, str, str]:
    said = subprocess.run(command(home), capture_output=True, env=environment(), timeout=60, check=False)
    return said.returncode, said.stdout.decode(), said.stderr.decode()


async def test_a_command_that_waits_says_for_what_on_a_terminal_alone(place: Path) -> None:
    homes = found(place, (NORTH, SOUTH))
    async with inhabited(homes) as houses:
        await houses[SOUTH].end()
        await houses[NORTH].until(lambda said: said["reachable"] == 1)
        home = homes[NORTH].path
        status, output, terminal = await trio.to_thread.run_sync(on_terminal, home)
        assert status == 1
        assert "waiting: 1 members in reach, wanted are 2" in terminal
        assert "waiting:" not in output
        plain = await trio.to_thread.run_sync(on_none, home)
        assert (plain[0], plain[2]) == (1, "")
        assert re.sub(r"\d", "", plain[1]) == re.sub(r"\d", "", output)
        status, output, terminal = await trio.to_thread.run_sync(lambda: on_terminal(home, "--json"))
        assert (status, terminal) == (1, "")
        assert output.startswith("{")
