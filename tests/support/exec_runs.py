"""`comity exec` as a process of its own, on a folder with an intent file and programs that write what tests want."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.dagster_bridge.files import NEXT_FOLDER
from houses import environment

END_S = 60.0
INTENT = """
step = "release"
purpose = "survival_study"
code = ["work.py"]

[inputs.patients]
asset = "patients"
file = "own/patients.csv"

[outputs.released]
asset = "released"
file = "own/released.csv"
format = "csv"
"""
WORK = """
import os, pathlib
rows = pathlib.Path(os.environ["COMITY_INPUT_PATIENTS"]).read_text()
pathlib.Path(os.environ["COMITY_OUTPUT_RELEASED"]).write_text(rows)
"""
PATIENTS = "time,sex\n1,1\n2,1\n3,2\n"


@dataclass
class Done:
    """How a run ended, and what it said."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


class Bench:
    """A folder with an intent file and a program, and the home of a node."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.own = folder / "own"
        self.own.mkdir(parents=True)
        self.intent = folder / "release.toml"
        self.intent.write_text(INTENT)
        self.work = folder / "work.py"
        self.work.write_text(WORK)
        self.released = self.own / "released.csv"
        self.patients = self.own / "patients.csv"
        self.patients.write_text(PATIENTS)

    def words(self, *options: object, command: tuple[object, ...] = ()) -> list[str]:
        run = command or (sys.executable, self.work)
        given = ["exec", "--home", self.home, "--intent", self.intent, *options, "--", *run]
        return [sys.executable, "-P", "-m", "comity.node.cli", *map(str, given)]

    def start(self, *options: object, command: tuple[object, ...] = ()) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.words(*options, command=command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def run(self, *options: object, command: tuple[object, ...] = ()) -> Done:
        return ended(self.start(*options, command=command))

    def left_over(self) -> list[Path]:
        """What lies in staging."""
        folder = self.own / NEXT_FOLDER
        return sorted(folder.iterdir()) if folder.is_dir() else []


def ended(process: subprocess.Popen[str]) -> Done:
    output, errors = process.communicate(timeout=END_S)
    return Done(process.returncode, output, errors)
