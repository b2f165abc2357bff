"""Everything that the parts of the demo act on, and what is read back from the nodes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from comity.node.client import NodeUnreachableError
from demo_main.commands import Commands
from demo_main.nodes import Node
from demo_main.officer import OfficersBrowser
from demo_main.orchestrators import Orchestrator
from demo_main.organizations import Cast, Organization, Subject
from demo_main.patients import Fits
from demo_main.processes import DemoError, Supervisor
from demo_main.runs import RUN_S, Run, Worker, environment_of
from demo_main.story import Story


@dataclass(slots=True)
class Stage:
    """The running demo.

    Attributes:
        patients: everybody of the study, for the direct fits.
        decisions: rows of the permits and refusals that were seen at the nodes, by id.
        services: Dagster as a service, by the organization's name.
        browser: where the officer approves; None where there is none.
        credentials: ids of the people's and the agent's credentials, by their path.
        transitions: ids of the clinics' transitions, by member.
        launched: the run that Clinic North's steward has launched.
        registry_before, released_before: Clinic South's registry before its correction, and what it then released.
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
    services: dict[str, Orchestrator] = field(default_factory=dict[str, Orchestrator])
    browser: OfficersBrowser | None = None
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    credentials: dict[str, str] = field(default_factory=dict[str, str])
    transitions: dict[str, str] = field(default_factory=dict[str, str])
    rows_released: int = 0
    launched: str = ""
    registry_before: bytes = b""
    released_before: str = ""
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

    def service(self, organization: Organization) -> Orchestrator:
        return self.services[organization.name]

    def ticket(self, who: Subject, job: str, *assets: str, run: str = "") -> Path:
        """A launch ticket that a person or the agent signs with an own key, handed to the organization.

        Args:
            run: the run that it is for; otherwise it is for one, the first that comes with it.
        """
        name = f"{run or job}.ticket"
        credential = self.credentials[who.path]
        held = who.place / "agent.credential"
        self.commands.comity(
            who.account,
            who.place,
            *("ticket", "--key", who.key, "--job", job, "--out", who.place / name, "--force"),
            *(("--credential", held) if held.exists() else ("--credential", credential)),
            *(() if held.exists() else ("--home", who.organization.home)),
            *(part for asset in assets for part in ("--asset", f"{who.organization.member}/{asset}")),
            *(("--run", run) if run else ()),
        )
        organization = who.organization
        return organization.account.file(organization.place / name, (who.place / name).read_bytes())

    def make(self, job: str, run: str | None = None, **env: str) -> Run:
        """A run of the institute."""
        return self.worker(self.cast.institute).run(job, env, run)

    def withheld(self, organization: Organization) -> list[dict[str, Any]]:
        """What obligations kept out, as the organization's own node has stored it."""
        done = self.supervisor.run(
            [sys.executable, "-P", "-m", "demo_main.withheld", str(organization.home / "store.sqlite3")],
            organization.account,
            environment_of(organization, self.cast.exchange),
            organization.place,
            RUN_S,
        )
        if done.status != 0:
            raise DemoError(f"what {organization.title} has withheld cannot be read:\n{done.errors}")
        found: list[dict[str, Any]] = json.loads(done.output)
        return found

    def requester(self, organization: Organization, run: Run) -> str:
        """Who asked for what a run has made, by the intents that it names."""
        named = {said["comity/intent"] for said in run.made.values()}
        (who,) = {self.record(organization, intent)["body"]["requester"] for intent in named}
        return str(who)

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
