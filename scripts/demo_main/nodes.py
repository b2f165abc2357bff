"""The organizations' nodes as processes: started by the command, asked over their local API, killed."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from comity.node.client import NodeClient, NodeError
from demo_main.organizations import Organization
from demo_main.processes import DemoError, Running, Supervisor

READY_S: Final = 90.0
"""Importing libp2p and opening the store, on a slow machine with everything else going on."""
MEET_S: Final = 60.0
"""Until nodes that are up are connected: they dial again after a few seconds."""
LOOK_EVERY_S: Final = 0.1
"""How often a condition is looked at that nothing announces."""


def program_environment(organization: Organization) -> dict[str, str]:
    """The environment of the commands that an organization gives."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(organization.place),
        "NO_COLOR": "1",
    }


class Node:
    """One organization's node."""

    def __init__(self, supervisor: Supervisor, organization: Organization) -> None:
        self.organization = organization
        self._supervisor = supervisor
        self._running: Running | None = None
        self._starts = 0

    def start(self) -> None:
        """Start the process. It is ready when `wait_until_ready` returns."""
        organization = self.organization
        self._starts += 1
        self._running = self._supervisor.start(
            f"the node of {organization.title}",
            [
                str(Path(sys.executable).with_name("comity")),
                "node",
                "start",
                "--home",
                str(organization.home),
                "--json",
            ],
            organization.account,
            program_environment(organization),
            organization.place,
            organization.logs / f"node-{self._starts}.log",
        )

    def wait_until_ready(self) -> dict[str, Any]:
        """Wait for the line that says that it answers and listens.

        Raises:
            DemoError: it does not come up.
        """
        assert self._running is not None
        said: dict[str, Any] = json.loads(self._running.line(READY_S))
        if not said.get("ready"):
            raise DemoError(f"{self._running.name} is not ready: {said}\n{self._running.tail()}")
        return said

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    @property
    def up(self) -> bool:
        return self._running is not None and self._running.process.poll() is None

    def kill(self) -> None:
        """End the process as a loss of power would: with SIGKILL, at once."""
        if self._running is not None:
            self._supervisor.kill(self._running)
            self._running = None

    def client(self, role: Literal["reader", "operator", "bridge"] = "reader") -> NodeClient:
        """A client of its local API."""
        return NodeClient.of_home(self.organization.home, role)

    def wait_until_connected(self, *members: str) -> None:
        """Wait until this node is connected to these members.

        Raises:
            DemoError: it is not in time.
        """

        def connected() -> bool:
            rows = self.client().status()["members"]
            return set(members) <= {row["member"] for row in rows if row["connected"]}

        until(connected, MEET_S, f"the node of {self.organization.title} to reach {', '.join(members)}")

    def wait_until_voting(self) -> None:
        """Wait until a node that was started again votes.

        What it may have forgotten lies then in the past, and it has gone through what a quorum's others hold.

        Raises:
            DemoError: it does not in time.
        """

        def votes() -> bool:
            return bool(self.client().status()["votes"])

        until(votes, MEET_S, f"the node of {self.organization.title} to vote")


def until(holds: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait until a condition holds that nothing announces.

    Raises:
        DemoError: it does not in time.
    """
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while True:
        try:
            if holds():
                return
        except NodeError as exc:
            if time.monotonic() > deadline:
                raise DemoError(f"waited {within_s:g} s for {what}: {exc}") from exc
        if time.monotonic() > deadline:
            raise DemoError(f"waited {within_s:g} s for {what}")
        pause.wait(LOOK_EVERY_S)
