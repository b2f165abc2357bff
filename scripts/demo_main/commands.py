"""The `comity` command, as the organizations and people give it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from demo_main.accounts import Account
from demo_main.processes import DemoError, Finished, Supervisor

COMMAND_S: Final = 120.0
"""One command, with every other program of the demo running beside it."""


def program(name: str) -> str:
    """The path of a program of this environment."""
    return str(Path(sys.executable).with_name(name))


class Commands:
    """Gives commands and reads their answers. May be used from several threads."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def comity(self, account: Account, cwd: Path, *arguments: str | Path) -> Any:
        """Give a command with `--json` and return its answer.

        Raises:
            DemoError: it ends with another status than 0, or does not answer with JSON.
        """
        done = self.run(account, cwd, "comity", *arguments, "--json")
        shown = " ".join(["comity", *map(str, arguments)])
        if done.status != 0:
            raise DemoError(f"{shown}\nended with status {done.status}:\n{done.errors or done.output}")
        try:
            return json.loads(done.output)
        except ValueError as exc:
            raise DemoError(f"{shown}\ndid not answer with JSON:\n{done.output}") from exc

    def run(
        self, account: Account, cwd: Path, name: str, *arguments: str | Path, timeout_s: float = COMMAND_S
    ) -> Finished:
        """Run a program of this environment to its end."""
        return self._supervisor.run(
            [program(name), *map(str, arguments)],
            account,
            {
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "HOME": str(cwd),
                "NO_COLOR": "1",
            },
            cwd,
            timeout_s,
        )
