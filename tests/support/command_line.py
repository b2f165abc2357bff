"""`comity` as people type it, in this process."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

import typer.main
from typer.testing import CliRunner

from comity.node.cli import app
from comity.node.cli_terminal import _USAGE_ERROR


@dataclass(frozen=True)
class Said:
    """What a command did: its exit status, and what it printed."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


def comity(*arguments: object, status: int | None = 0) -> Said:
    """Run a command. `status` is what it has to end with; None allows any."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COMITY_HOME": None})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    said = Said(result.exit_code, result.stdout, result.stderr)
    assert status is None or said.status == status, (arguments, said)
    return said


PLACEHOLDERS = {
    "DAYS": "90",
    "HEX": "0" * 64,
    "MINUTES": "5",
    "N": "1",
    "TIER": "0",
}
"""What stands for a number in an example; other placeholders are words."""


def problem_of(line: str) -> str:
    """Why a command line is none that `comity` takes; empty where it is one."""
    program, *words = shlex.split(line)
    if program != "comity":
        return f"{line}: no command of comity"
    if words == ["--version"]:
        return ""
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        if name not in command.commands:
            return f"{line}: there is no {name}"
        command = command.commands[name]
    if hasattr(command, "commands"):
        return f"{line}: a group of commands"
    arguments = [PLACEHOLDERS.get(word, word) for word in words]
    try:
        command.make_context(command.name, arguments)
    except _USAGE_ERROR as exc:
        return f"{line}: {exc}"
    return ""
