"""Four organizations as they really are: a process each, over libp2p, founded and used by the commands."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from comity.node.client import (
    ActuationForm,
    ContextForm,
    InputForm,
    NodeClient,
    OutputForm,
    StartForm,
    StepAnswer,
    StepForm,
)
from comity.node.keystore import companion
from comity.protocol.identifiers import sha256
from command_line import comity
from houses import environment, short_folder
from ports import free_ports
from world import FOUR, INSTITUTE, NORTH, SOUTH

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

READY_S = 60.0
END_S = 20.0
DIGEST = sha256(b"code").hex()
POLICY = """
rules = "policy.cedar"

[[assets]]
pattern = "*/released"
data_class = "released"

[[assets]]
pattern = "*/pooled"
data_class = "pooled"

[[assets]]
pattern = "*/plain/**"
data_class = "plain"

[[purposes]]
name = "study"
"""
RULES = """
@id("base") permit(principal, action == Action::"materialize", resource is Asset);
@id("columns") permit(principal, action == Action::"include", resource is Column);

@id("officer") @mode("defer") @reason("approval_missing") @needs("approval(class=data-protection-officer)")
forbid(principal, action == Action::"materialize", resource in DataClass::"pooled")
unless { context.approvals.contains("data-protection-officer") };

@id("measured") @mode("defer") @reason("context_not_measured") @needs("tier(at_least=1)")
forbid(principal, action == Action::"materialize", resource is Asset) when { context.tier < 1 };
"""


@dataclass
class Organization:
    """One member: its home and, while it runs, its node's process."""

    member: str
    home: Path
    process: subprocess.Popen[str] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.home.parent / f"{self.home.name}.log"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "comity.node.cli", "node", "start", "--json"),
                *("--home", str(self.home), "--log-file", str(self.log)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )

    def ready(self) -> Any:
        """The line that a node prints when it answers."""
        assert self.process is not None
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], READY_S)[0], f"{self.member} says nothing"
        line = self.process.stdout.readline()
        assert line, (self.process.wait(), self.log.read_text())
        return json.loads(line)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        status = self.process.wait(END_S)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return status

    def comity(self, *words: str | Path, status: int = 0) -> Any:
        return comity(*words, "--home", self.home, "--json", status=status).json

    def step(self, output: str, *inputs: str, wait_s: float = 10.0) -> StepAnswer:
        form = StepForm(
            orchestrator="dagster",
            run=f"run-{output}",
            step=output,
            job="study",
            code=DIGEST,
            outputs=[OutputForm(output, media_type="text/csv")],
            inputs=[InputForm(name) for name in inputs],
            purpose="study",
            context=ContextForm("cpython-3.11.7", "linux-x86_64", DIGEST, 3, DIGEST, 1),
            wait_s=wait_s,
        )
        return NodeClient.of_home(self.home).submit_step(form)

    def make(self, answer: StepAnswer) -> None:
        (output,) = answer.outputs
        client = NodeClient.of_home(self.home)
        started = client.start(StartForm(answer.intent, output.asset))
        content = output.asset.encode()
        client.actuate(
            ActuationForm(
                answer.intent, started.start, output.asset, sha256(content).hex(), len(content), "text/csv"
            )
        )


@pytest.fixture(params=[True, False], ids=["gossip", "no-gossip"])
def coalition(request: pytest.FixtureRequest) -> Iterator[dict[str, Organization]]:
    """Four organizations, founded by the commands, with their nodes running: nothing depends on gossip."""
    with short_folder() as place, contextlib.ExitStack() as stack:
        members = {member: Organization(member, place / member.partition(".")[0]) for member in FOUR}
        for each, port in zip(members.values(), free_ports(len(FOUR)), strict=True):
            comity("node", "init", "--member", each.member, "--listen", f"127.0.0.1:{port}", each.home)
            settings = each.home / "node.toml"
            text = settings.read_text()
            assert "gossip = true" in text
            settings.write_text(text if request.param else text.replace("gossip = true", "gossip = false"))
            stack.callback(each.kill)
        comity("policy", "template", place / "site")
        (place / "site/policy.toml").write_text(POLICY)
        (place / "site/policy.cedar").write_text(RULES)
        file = place / "coalition.toml"
        drafter, *others = members.values()
        cards = [word for each in members.values() for word in ("--card", each.home / "card.toml")]
        comity(
            *("coalition", "new", "--name", "study", "--home", drafter.home, "--out", file, *cards),
            *("--taxonomy", place / "site/taxonomy.toml", "--policy", place / "site/policy.toml"),
        )
        for each in others:
            comity("coalition", "sign", file, "--home", each.home)
        for each in members.values():
            comity("coalition", "join", file, "--home", each.home)
            each.start()
        for each in members.values():
            assert each.ready()["ready"] is True
        yield members


def test_four_processes_decide_together(coalition: dict[str, Organization]) -> None:
    north, south, institute = (coalition[member] for member in (NORTH, SOUTH, INSTITUTE))
    for each in coalition.values():
        said = each.comity("node", "status", "--until", "all", "--within", "30")
        assert (said["reachable"], said["quorum"]) == (4, 3)
    for each in (north, south, institute):
        each.comity(
            *("credential", "issue", "--subject", "node/n1", "--kind", "automation", "--node-key"),
            *("--class", "data-steward"),
        )
    south.comity("owner-policy", "publish", "--consent", "*=standing:30")
    for each in (north, south):
        answer = each.step("released")
        assert answer.outcome == "execute", answer
        each.make(answer)

    # A deferral, explained, approved by a person's own key in another home, and gone on with.
    inputs = (f"{NORTH}/released", f"{SOUTH}/released")
    deferred = institute.step("pooled", *inputs, wait_s=1.0)
    assert deferred.outcome == "defer"
    (waiting,) = institute.comity("waiting")
    assert waiting["needs"][0]["parameters"] == {"class": "data-protection-officer"}
    explained = institute.comity(
        *("intent", "explain", "--asset", "pooled", "--input", inputs[0], "--purpose", "study"), status=1
    )
    assert explained["outcome"] == "defer"
    assert [{need["code"] for need in lift} for lift in explained["lifts"]] == [{"approval"}]
    key, credential = an_officer(south)
    approved = south.comity(
        "approve", deferred.intent, "--key", key, "--credential", credential[:16], "--yes"
    )
    assert approved["told"] == [INSTITUTE]
    decided = NodeClient.of_home(institute.home).step(deferred.intent, 20.0)
    assert (decided.outcome, decided.intent) == ("execute", deferred.intent)
    institute.make(decided)
    shown = institute.comity("decision", "show", deferred.intent)
    assert (shown["decision"], len(shown["votes"]) >= 3) == (decided.permit, True)

    a_stranger_verifies(institute, north.home / "roots.toml", inputs)

    # One member's process is killed: the others decide without its vote, except where it is a live owner.
    north.kill()
    answer = south.step("plain/a")
    assert (answer.outcome, answer.votes[NORTH]) == ("execute", "silent")
    answer = until_named(institute, inputs[0])
    assert [(c.code, c.parameters) for c in answer.causes] == [("owner_silent", {"member": NORTH})]
    (waiting,) = institute.comity("waiting")
    assert (waiting["intent"], waiting["goes_on_by_itself"]) == (answer.intent, True)

    # Asked to stop, a node stops, and its socket is gone.
    began = time.monotonic()
    assert south.kill(signal.SIGTERM) == 0
    assert time.monotonic() - began < END_S
    assert not (south.home / "node.sock").exists()
    said = comity("node", "status", "--home", south.home, "--json", status=3).json
    assert said["error"]["code"] == "node_not_running"
    for each in coalition.values():
        assert "Traceback" not in each.log.read_text()


def an_officer(organization: Organization) -> tuple[Path, str]:
    """The key of somebody who may approve, and the credential for it."""
    key = organization.home.parent / "officer.pem"
    comity("key", "new", key)
    issued = organization.comity(
        *(
            "credential",
            "issue",
            "--subject",
            "operator/dpo1",
            "--kind",
            "person",
            "--public",
            companion(key),
        ),
        *("--class", "data-protection-officer", "--action", "approve", "--asset", "*/pooled"),
    )
    return key, issued["credential"]


def a_stranger_verifies(institute: Organization, roots: Path, inputs: tuple[str, ...]) -> None:
    bundle = institute.home.parent / "pooled.bundle"
    institute.comity("lineage", "export", "pooled", "--out", bundle)
    report = comity("verify", bundle, "--roots", roots, "--json").json
    assert (report["level"], report["kinds"]["actuation"]) == ("re-judged", 3)
    lineage = institute.comity("lineage", "show", "pooled")
    assert {each["asset"] for each in lineage["actuations"]} == {*inputs, f"{INSTITUTE}/pooled"}


def until_named(institute: Organization, name: str) -> StepAnswer:
    """Wait until the votes of those who are up are in and only the live owner's is missing."""
    deadline = time.monotonic() + 30
    answer = institute.step("plain/b", name, wait_s=8.0)
    while not answer.causes or answer.causes[0].code != "owner_silent":
        assert time.monotonic() < deadline, answer
        answer = NodeClient.of_home(institute.home).step(answer.intent, 2.0)
    return answer
