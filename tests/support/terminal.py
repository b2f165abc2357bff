"""A person's terminal: commands as they are typed, by the real programs, in a folder and with what was exported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from houses import environment

COMMAND_S = 180.0
"""One command; a Dagster run is the longest."""
READY_S = 90.0
ENDS_S = 30.0
STARTS = {"comity node start": "is ready", "dagster dev": "Serving dagster-webserver"}
"""What stays in the foreground, and what it says when it is ready: whoever types it leaves that terminal to it."""


@dataclass
class Terminal:
    """A shell, as far as people notice. `nodes` run until `close`.

    `within` is what stands before every command: a program that runs it as somebody else.
    """

    folder: Path
    within: str = ""
    exported: list[str] = field(default_factory=list[str])
    nodes: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])
    listeners: list[threading.Thread] = field(default_factory=list[threading.Thread])

    def type(self, command: str, status: int = 0) -> str:
        """Give a command, and return what it says.

        Args:
            status: what it has to end with.
        """
        if command.startswith("export "):
            self.exported.append(command)
            return ""
        ready = next((said for start, said in STARTS.items() if command.startswith(start)), "")
        if ready and status == 0:
            return self._start(command, ready)
        done = subprocess.run(
            self._shell(command),
            cwd=self.folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_S,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{command}\nended with status {done.returncode}:\n{said}"
        return said

    def _start(self, command: str, ready: str) -> str:
        """Start a program, and wait until it says that it is ready. What it says later goes to its log."""
        with (self.folder / "node.log").open("a") as log:
            node = subprocess.Popen(
                self._shell(f"exec {command}"),
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.nodes.append(node)
        said: list[str] = []
        told = threading.Event()

        def listen() -> None:
            assert node.stdout is not None
            with node.stdout, (self.folder / "node.log").open("a") as log:
                for line in node.stdout:
                    log.write(line)
                    if not told.is_set():
                        said.append(line)
                        if ready in line:
                            told.set()
            # It has ended, or closed its output.
            told.set()

        self.listeners.append(threading.Thread(target=listen, daemon=True))
        self.listeners[-1].start()
        told.wait(READY_S)
        assert said, f"{command}\nsays nothing"
        assert ready in said[-1], (command, said)
        return "".join(said)

    def _shell(self, command: str) -> list[str]:
        typed = f"{self.within} {command}" if self.within else command
        return ["bash", "-c", "\n".join(["set -eu", *self.exported, typed])]

    def close(self) -> None:
        """End the nodes as Ctrl-C does.

        `dagster dev` gives each of its processes a minute to end: what of it is left after `ENDS_S` is ended hard.
        """
        for node in self.nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGINT)
        for node in self.nodes:
            try:
                node.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait(ENDS_S)
                assert "exec dagster " in str(node.args), "it does not end as Ctrl-C asks"
        for listener in self.listeners:
            listener.join(30)


def _environment() -> dict[str, str]:
    """Of the own settings nothing but where programs are: those of this environment first."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return environment(PATH=path, COLUMNS="200", NO_COLOR="1", DAGSTER_DISABLE_TELEMETRY="1")
