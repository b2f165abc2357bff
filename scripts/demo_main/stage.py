"""Everything that the parts of the demo act on, and what is read back from the nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from comity.node.client import NodeUnreachableError
from demo_main.commands import Commands
from demo_main.nodes import Node
from demo_main.organizations import Cast, Organization
from demo_main.patients import Fits
from demo_main.processes import Supervisor
from demo_main.runs import Run, Worker
from demo_main.story import Story


@dataclass(slots=True)
class Stage:
    """The running demo.

    Attributes:
        patients: everybody of the study, for the direct fits.
        decisions: rows of the permits and refusals that were seen at the nodes, by id.
        credentials: ids of the people's and the agent's credentials, by their path.
        transitions: ids of the clinics' transitions, by member.
        survival: the actuation of `survival`.
        revocation: the record that takes the agent's credential back.
        held: the intent that no quorum was in reach for.
        direct, fits: the estimates made without Comity, and through it.
    """

    cast: Cast
    story: Story
    supervisor: Supervisor
    commands: Commands
    nodes: dict[str, Node]
    workers: dict[str, Worker]
    patients: pd.DataFrame
    results: Path
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    credentials: dict[str, str] = field(default_factory=dict[str, str])
    transitions: dict[str, str] = field(default_factory=dict[str, str])
    rows_released: int = 0
    survival: str = ""
    revocation: str = ""
    held: str = ""
    direct: Fits = field(default_factory=dict[tuple[str, str, float], float])
    fits: Fits = field(default_factory=dict[tuple[str, str, float], float])

    def node(self, organization: Organization) -> Node:
        return self.nodes[organization.name]

    def worker(self, organization: Organization) -> Worker:
        return self.workers[organization.name]

    def comity(self, organization: Organization, *arguments: str | Path) -> Any:
        """A command that an organization gives at its own place."""
        return self.commands.comity(organization.account, organization.place, *arguments)

    def make(self, job: str, run: str | None = None, **env: str) -> Run:
        """A run of the institute."""
        return self.worker(self.cast.institute).run(job, env, run)

    def record(self, organization: Organization, record: str) -> dict[str, Any]:
        """A record, decoded, as an organization's node holds it."""
        found: dict[str, Any] = self.node(organization).client().record(record)
        return found

    def intent(self, intent: str) -> dict[str, Any]:
        """Where an intent of the institute stands, as its node says."""
        found: dict[str, Any] = self.node(self.cast.institute).client().intent(intent)
        return found

    def decision(self, organization: Organization, decision: str) -> dict[str, Any]:
        """A permit or refusal with its votes, as an organization's node holds it."""
        found: dict[str, Any] = self.node(organization).client().decision(decision)
        return found

    def look_at_decisions(self) -> None:
        """Take note of every decision that the nodes hold which are up."""
        for node in self.nodes.values():
            if node.up:
                try:
                    rows = node.client().decisions()
                except NodeUnreachableError:
                    continue
                self.decisions.update({row["decision"]: row for row in rows})
