"""`comity` as people type it, in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from comity.node.cli import app


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
