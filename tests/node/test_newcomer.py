"""From help texts alone to a coalition of two with credentials: `newcomer.md` is typed again, by real programs."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer

from comity.node.cli import app
from command_line import comity
from houses import short_folder
from terminal import Terminal
from transcripts import Typed, steps_of

PAGE = Path(__file__).with_name("newcomer.md")
STATUS = re.compile(r"\[status (\d)\]")
FINGERPRINT = re.compile(r"to compare by another road: ([0-9a-f]{64})")
CHOSEN = frozenset(
    {"north", "south", "clinic-south.example", "127.0.0.1:4101", "127.0.0.1:4102", "site", "study", "op.pem"}
)
"""What a newcomer chooses; everything else has to be on the screen before it is typed."""
MISTYPED = frozenset({"data-stewart"})


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@dataclass
class Screen:
    """What somebody has read so far, line breaks aside."""

    text: str = ""
    helped: dict[str, str] = field(default_factory=dict[str, str])

    def read(self, text: str) -> None:
        self.text += f" {' '.join(text.replace('│', ' ').split())} "

    def read_group(self, command: str, said: str) -> None:
        """Help of a group lists its commands by their own names alone."""
        for name in re.findall(r"^│ ([a-z-]+) ", said, re.MULTILINE):
            self.read(f"{command} {name}")

    def help_of(self, command: str) -> str:
        """The help of a command, which whoever types it looks at first."""
        if command not in self.helped:
            self.helped[command] = comity(*command.split()[1:], "--help").output
        return self.helped[command]

    def require_known(self, words: list[str]) -> None:
        """Check that help and output were enough to type this."""
        command = command_of(words)
        assert command == "comity" or command in self.text, f"nothing has named `{command}` yet"
        helped = self.help_of(command)
        self.read(helped)
        for word in words[len(command.split()) :]:
            if word.startswith("-"):
                assert re.search(rf"{re.escape(word)}(?![\w-])", helped), f"`{command} --help` has no {word}"
            elif word not in CHOSEN | MISTYPED:
                assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.text), (
                    f"nothing has said {word!r} yet"
                )


def command_of(words: list[str]) -> str:
    """The words that name a command: of a group and of one in it."""
    group = typer.main.get_command(app)
    named = [words[0]]
    for word in words[1:]:
        commands = getattr(group, "commands", {})
        if word not in commands:
            break
        group = commands[word]
        named.append(word)
    return " ".join(named)


def free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in taken]


@pytest.mark.slow
def test_a_coalition_of_two_from_help_texts_alone(place: Path) -> None:
    terminal, screen = Terminal(place), Screen()
    filled: dict[str, str] = dict(zip(("4101", "4102"), free_ports(2), strict=True))
    try:
        for step in steps_of(PAGE.read_text()):
            assert isinstance(step, Typed)
            screen.require_known(shlex.split(step.command))
            command = step.command
            for word, value in filled.items():
                command = command.replace(word, value)
            status = next((int(found[1]) for line in step.shown if (found := STATUS.fullmatch(line))), 0)
            said = terminal.type(command, status)
            shown = tuple(line for line in step.shown if not STATUS.fullmatch(line))
            Typed(step.who, step.command, shown).require_shown(said)
            screen.read(said)
            if step.command.endswith(" --help"):
                screen.read_group(step.command.removesuffix(" --help"), said)
            fingerprint = FINGERPRINT.search(said)
            if fingerprint is not None:
                filled["FINGERPRINT"] = fingerprint[1]
    finally:
        terminal.close()


def test_what_nobody_has_said_is_noticed() -> None:
    screen = Screen()
    screen.require_known(["comity", "--help"])
    for typed, problem in (
        ("comity taxonomy check taxonomy.toml", "nothing has named `comity taxonomy check`"),
        ("comity node init --membre clinic-north.example", "has no --membre"),
        ("comity node init --member clinic-west.example", "nothing has said 'clinic-west.example'"),
    ):
        with pytest.raises(AssertionError, match=problem):
            screen.require_known(typed.split())
