"""The processes of `comity dev`: each node its own, as anywhere else, so that one can be stopped and looked for.

Each ends with this process, however this one ends: its standard input is the rope (`comity.node.lifeline`).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from comity.node.client import NodeClient, NodeUnreachableError
from comity.node.dev import DevFolder
from comity.node.lifeline import END_S, signal_group
from comity.protocol.errors import ComityError

READY_S: Final = 90.0
"""Importing libp2p and opening the store, on a slow machine."""
MEET_S: Final = 60.0
"""Until all are connected and vote: they dial again after a few seconds, and vote some seconds after their start."""
POLL_S: Final = 0.05
"""How often is asked what nothing announces."""
LINE_BYTES_MAX: Final = 65_536
TAIL_LINES: Final = 12
TAIL_BYTES: Final = 8_192


class ProcessEndedError(ComityError):
    """A process that was started did not do what it was started for."""


@dataclass(slots=True)
class Child:
    """A process that was started here, as the head of a group of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    _read: bytes = field(default=b"")

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> IO[bytes]:
        """Its standard output, where that is no log."""
        if self.process.stdout is None:
            raise ProcessEndedError(f"{self.name} writes into its log")
        return self.process.stdout

    def line(self, within_s: float) -> bytes:
        """The next line of its output.

        Raises:
            ProcessEndedError: it ended, or says nothing in time.
        """
        deadline = time.monotonic() + within_s
        while b"\n" not in self._read:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.output], [], [], left)[0]:
                raise ProcessEndedError(f"{self.name} says nothing within {within_s:g} s{self.tail()}")
            data = os.read(self.output.fileno(), LINE_BYTES_MAX)
            self._read += data
            if not data or len(self._read) > LINE_BYTES_MAX:
                raise ProcessEndedError(f"{self.name} has ended{self.tail()}")
        line, _, self._read = self._read.partition(b"\n")
        return line

    def tell(self, line: str) -> None:
        """Write a line to its input. One that has ended is told nothing."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.write(line.encode() + b"\n")
                self.process.stdin.flush()

    def tail(self) -> str:
        """The end of its log, to be put behind a sentence."""
        return tail_of(self.log)

    def let_go(self) -> None:
        """Let go of the rope: the process ends by itself."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def end(self, deadline: float) -> None:
        """Wait until it has ended, and end what is left of its group.

        Args:
            deadline: until when it may end by itself, by the monotonic clock.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        signal_group(self.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def tail_of(log: Path) -> str:
    """The last lines of a log, to be put behind a sentence; empty where it has none."""
    try:
        lines = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").splitlines()[-TAIL_LINES:]
    except OSError:
        return ""
    return f"; the end of {log}:\n  " + "\n  ".join(lines) if lines else ""


@dataclass(slots=True)
class Household:
    """All processes of one `comity dev`."""

    folder: DevFolder
    nodes: dict[str, Child] = field(default_factory=dict[str, Child])
    others: list[Child] = field(default_factory=list[Child])

    def start_nodes(self) -> None:
        """Start the three nodes, and wait until each answers.

        Raises:
            ProcessEndedError: one does not.
        """
        for each in self.folder.members:
            words = (*comity_words(), "node", "start", "--home", str(each.home.path), "--json", "--until-eof")
            self.nodes[each.member] = _start(
                f"the node of {each.member}", words, each.log, environment(), speaks=True
            )
        for child in self.nodes.values():
            _require_ready(child)

    def start(self, name: str, words: Sequence[str], log: Path, env: Mapping[str, str]) -> Child:
        """Start another process that ends with this one: it, or `lifeline` before it, looks at its input.

        What it says goes to its log.
        """
        child = _start(name, words, log, env, speaks=False)
        self.others.append(child)
        return child

    def wait_until_voting(self, look: Callable[[], None]) -> None:
        """Wait until all three are connected and vote.

        Args:
            look: is called meanwhile; what it raises ends the waiting.

        Raises:
            ProcessEndedError: they are not in time, or one has ended.
        """
        for each in self.folder.members:
            client = NodeClient.of_home(each.home.path, "reader")
            deadline = time.monotonic() + MEET_S
            while not _votes(client):
                look()
                for child in self.nodes.values():
                    if child.process.poll() is not None:
                        raise ProcessEndedError(f"{child.name} has ended{child.tail()}")
                if time.monotonic() > deadline:
                    raise ProcessEndedError(f"waited {MEET_S:g} s for the node of {each.member} to vote")
                time.sleep(POLL_S)

    def end(self) -> None:
        """End every process: what asks the nodes first, then the nodes; who does not end in time is ended."""
        for group in (self.others, list(self.nodes.values())):
            for child in group:
                child.let_go()
            deadline = time.monotonic() + 2 * END_S
            for child in group:
                child.end(deadline)


def _start(name: str, words: Sequence[str], log: Path, env: Mapping[str, str], *, speaks: bool) -> Child:
    """Start a process with a rope, its errors in a log.

    Args:
        speaks: its output is read here, and not logged.

    Raises:
        ProcessEndedError: it cannot be started.
    """
    try:
        with log.open("ab") as errors:
            process = subprocess.Popen(  # noqa: S603  the words are ours
                list(words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if speaks else errors,
                stderr=errors,
                env=dict(env),
                # Ctrl-C in a terminal reaches this process alone, which ends the others in order.
                start_new_session=True,
            )
    except OSError as exc:
        raise ProcessEndedError(f"{name} cannot be started: {exc.strerror}") from exc
    return Child(name, process, log)


def comity_words() -> tuple[str, ...]:
    """How `comity` is called with this very Python, whatever is on the path."""
    return (sys.executable, "-P", "-m", "comity.node.cli")


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that is started here: nothing of other homes or tickets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COMITY_")}
    return kept | more


def _require_ready(child: Child) -> None:
    try:
        said: Any = json.loads(child.line(READY_S))
    except ValueError as exc:
        raise ProcessEndedError(f"{child.name} says something else than that it is ready") from exc
    if not said.get("ready"):
        message = said.get("error", {}).get("message", "")
        raise ProcessEndedError(f"{child.name} does not start: {message}")


def _votes(client: NodeClient) -> bool:
    try:
        said: Any = client.status()
    except NodeUnreachableError:
        return False
    return bool(said["votes"] and said["governance_complete"] and said["reachable"] == len(said["members"]))
