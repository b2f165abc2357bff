"""The demo as somebody leaves it running: `scripts/demo --serve`, from its start to its last line.

It is the one without a browser: there the officer approves by the command.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPT = str(Path(__file__).parents[2] / "scripts/demo")
SERVED = "Each organization's files are under"
"""Said when everything is there and the nodes are left running."""


@dataclass
class ServedDemo:
    """The demo's process. `told` is what it has said so far."""

    place: Path
    process: subprocess.Popen[str]
    told: list[str] = field(default_factory=list[str])
    output: str = ""

    @classmethod
    def started(cls) -> ServedDemo:
        """Start it, and wait until it serves. Its folder can be reached by other users, and its path is short."""
        folder = Path(tempfile.mkdtemp(prefix="demo-test-", dir="/tmp"))
        folder.chmod(0o755)
        place = folder / "kept"
        demo = cls(
            place,
            subprocess.Popen(
                [SCRIPT, "--json", "--serve", "--no-browser", "--keep", str(place)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ),
        )
        assert demo.process.stderr is not None
        for line in demo.process.stderr:
            demo.told.append(line)
            if SERVED in line:
                return demo
        demo.end()
        raise AssertionError("".join(demo.told))

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def end(self) -> int:
        """Interrupt it, as Ctrl-C does, and return its exit status."""
        if self.process.stdout is None or self.process.stdout.closed:
            return self.process.wait()
        if self.running:
            self.process.send_signal(signal.SIGINT)
        self.output, errors = self.process.communicate(timeout=60)
        self.told.append(errors)
        return self.process.returncode

    def said(self) -> Any:
        """Its last line, for programs, once it has ended."""
        return json.loads(self.output)

    def remove(self) -> None:
        self.end()
        shutil.rmtree(self.place.parent, ignore_errors=True)
