"""The coalition is founded, the nodes start, and everybody says who may do what.

All of it with the commands that any organization would give, each at its own place; what travels between
organizations (cards, the coalition file) is carried here, as people would send it to each other.
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from comity.node.config import read_config, write_config
from demo_main.nodes import Node
from demo_main.orchestrators import Orchestrator
from demo_main.organizations import Organization, Subject
from demo_main.preparing import SITE, intrusions
from demo_main.processes import DemoError
from demo_main.runs import Worker
from demo_main.stage import Stage

CONFIG: Final = "node.toml"
COALITION: Final = "survival study"
PURPOSE: Final = "survival_study"
STANDING_DAYS: Final = 30
AT_ONCE: Final = 4
"""Commands that run side by side: as many as there are organizations."""


def found(stage: Stage) -> None:
    """From empty homes to a coalition of running nodes with credentials, consents and transitions."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        _make_homes(stage, pool)
        # Clinic North's Dagster is a service; the two others have a process that makes runs and reads their logs.
        for organization in (stage.cast.south, stage.cast.institute):
            stage.workers[organization.name] = Worker(stage.supervisor, organization, stage.cast.exchange)
        _found_coalition(stage, pool)
        _start_nodes(stage)
        start_service(stage, stage.cast.north, _free_ports(1)[0])
        _publish(stage, pool)
        for worker in stage.workers.values():
            worker.wait_until_ready()


def start_service(stage: Stage, organization: Organization, port: int = 0) -> None:
    """Start an organization's Dagster as a service; with a webserver where there is a port for it."""
    service = Orchestrator(stage.supervisor, organization, stage.cast, port)
    stage.services[organization.name] = service
    service.start()


def _free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _make_homes(stage: Stage, pool: ThreadPoolExecutor) -> None:
    cast, story = stage.cast, stage.story
    with story.phase(
        "homes", "Each organization makes its node's home, and people and an agent their own keys"
    ):
        done = [
            pool.submit(
                stage.comity,
                organization,
                *("node", "init", "--member", organization.member),
                *("--listen", f"/ip4/127.0.0.1/tcp/{port}", organization.home),
            )
            for organization, port in zip(
                cast.organizations, _free_ports(len(cast.organizations)), strict=True
            )
        ]
        done += [
            pool.submit(stage.commands.comity, subject.account, subject.place, "key", "new", subject.key)
            for subject in cast.subjects
            # The officer's is made in the browser, where there is one.
            if stage.browser is None or subject is not cast.officer
        ]
        for each in done:
            each.result()
        _give_page(cast.officer.organization, _free_ports(1)[0])
        modes = {organization.home.stat().st_mode & 0o777 for organization in cast.organizations}
        seen = {"mode 0700": modes == {0o700}}
        if cast.north.account.uid is not None:
            tried, problems = intrusions(cast)
            story.say(
                f"{tried} attempts to look into another organization's home, or to write into its part of the "
                f"shared folder: {tried - len(problems)} failed"
            )
            seen["no intrusion"] = not problems
        else:
            story.say(
                "all homes have mode 0700. One user has them all here, so nobody tries to look into another's: that "
                "is tried where each organization has a user of its own"
            )
        story.claim("homes_private", seen)


def _give_page(organization: Organization, port: int) -> None:
    """Have an organization's node serve the page for people."""
    config = organization.home / CONFIG
    write_config(config, replace(read_config(config), page_listen=f"127.0.0.1:{port}"), replace=True)
    organization.account.give(config, 0o600)


def _found_coalition(stage: Stage, pool: ThreadPoolExecutor) -> None:
    """The institute drafts; everybody signs with the organization's key; everybody joins."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "found", "The institute drafts a coalition; all four sign it with their own keys, and join"
    ):
        drafter = cast.institute
        cards = [
            drafter.account.file(
                drafter.place / f"card-{each.name}.toml", (each.home / "card.toml").read_bytes()
            )
            for each in cast.organizations
        ]
        for name in ("policy.cedar", "policy.toml", "taxonomy.toml"):
            drafter.account.file(drafter.place / name, (SITE / name).read_bytes())
        file = drafter.place / "coalition.toml"
        stage.comity(
            drafter,
            *("coalition", "new", "--name", COALITION, "--home", drafter.home, "--out", file),
            *(part for card in cards for part in ("--card", card)),
            *("--taxonomy", drafter.place / "taxonomy.toml", "--policy", drafter.place / "policy.toml"),
        )
        carried = file.read_bytes()
        for organization in cast.organizations:
            if organization is not drafter:
                copy = organization.account.file(organization.place / "coalition.toml", carried)
                stage.comity(organization, "coalition", "sign", copy, "--home", organization.home)
                carried = copy.read_bytes()

        def join(organization: Organization) -> Any:
            copy = organization.account.file(organization.place / "coalition.toml", carried)
            return stage.comity(organization, "coalition", "join", copy, "--home", organization.home)

        joined = list(pool.map(join, cast.organizations))
        if not all(each["complete"] for each in joined):
            raise DemoError(f"the coalition is not complete: {joined}")
        story.say(f"{joined[0]['tolerance']}; coalition {joined[0]['coalition'][:16]}")


def _start_nodes(stage: Stage) -> None:
    """Four processes, which meet over libp2p."""
    cast, story = stage.cast, stage.story
    with story.phase("nodes", "Four node processes start and meet"):
        for organization in cast.organizations:
            stage.nodes[organization.name] = Node(stage.supervisor, organization)
            stage.nodes[organization.name].start()
        for node in stage.nodes.values():
            said = node.wait_until_ready()
            story.say(
                f"{node.organization.title}: process {node.pid}"
                + (
                    f", user {node.organization.account.uid}"
                    if node.organization.account.uid is not None
                    else ""
                )
                + f", {said['address']}"
            )
        everybody = [organization.member for organization in cast.organizations]
        for node in stage.nodes.values():
            node.wait_until_connected(*everybody)


def _publish(stage: Stage, pool: ThreadPoolExecutor) -> None:
    """Who may do what, how owners consent, and what they release."""
    cast, story = stage.cast, stage.story
    with story.phase("authority", "Credentials, consents, and what the clinics release"):
        automations = [pool.submit(_issue_automation, stage, each) for each in cast.workers]
        _make_officers_key(stage)
        people = [
            *(pool.submit(_issue, stage, each, "--class", "data-steward",
                          "--asset", f"{each.organization.member}/**", "--purpose", PURPOSE)
              for each in cast.stewards.values()),
            pool.submit(_issue, stage, cast.officer, "--class", "data-protection-officer", "--action", "approve",
                        "--asset", f"{cast.institute.member}/pooled", "--purpose", PURPOSE),
            pool.submit(_issue, stage, cast.operator, "--class", "analyst", "--class", "analyst/agent",
                        "--asset", f"{cast.institute.member}/**", "--purpose", PURPOSE, "--delegations", "1"),
        ]  # fmt: skip
        consents: list[tuple[Organization, str]] = [
            (cast.north, "*=live"),
            (cast.south, f"*=standing:{STANDING_DAYS}"),
        ]
        own = [
            pool.submit(
                stage.comity, each, "owner-policy", "publish", "--consent", consent, "--home", each.home
            )
            for each, consent in consents
        ]
        transitions = {each.member: pool.submit(_release, stage, each) for each, _ in consents}
        for each in (*automations, *people, *own):
            each.result()
        stage.transitions = {member: each.result() for member, each in transitions.items()}
        _delegate(stage)
        story.say(
            "; ".join(f"{each.title}: consent {consent.removeprefix('*=')}" for each, consent in consents)
        )
        story.say(
            f"{cast.operator.spiffe} delegates drafts to {cast.agent.spiffe}; both clinics sign that they release "
            "their say over the institute's survival, and over nothing else"
        )


def _issue_automation(stage: Stage, organization: Organization) -> None:
    """What a code location does that nobody asked for: held by the node's own key."""
    stage.comity(
        organization,
        *("credential", "issue", "--subject", "automation/dagster", "--kind", "automation", "--node-key"),
        *("--class", "data-steward", "--purpose", PURPOSE, "--home", organization.home),
    )


def _make_officers_key(stage: Stage) -> None:
    """The officer makes a key in the page of the own clinic's node; its public half is what a file holds."""
    officer = stage.cast.officer
    if stage.browser is None:
        return
    organization = officer.organization
    link = stage.comity(organization, "page", "--home", organization.home)["link"]
    officer.account.file(officer.public, stage.browser.make_key(link).encode())


def _issue(stage: Stage, subject: Subject, *more: str) -> None:
    """A person's credential, signed by the organization's key."""
    organization = subject.organization
    public = organization.account.file(
        organization.place / f"{subject.place.name}.pub.json", subject.public.read_bytes()
    )
    done = stage.comity(
        organization,
        *("credential", "issue", "--subject", subject.path, "--kind", "person", "--public", public),
        *more,
        *("--home", organization.home),
    )
    stage.credentials[subject.path] = done["credential"]


def _delegate(stage: Stage) -> None:
    """The agent's credential, signed by the operator's own key, and handed to the agent."""
    cast = stage.cast
    agent, operator = cast.agent, cast.operator
    public = operator.account.file(operator.place / f"{agent.place.name}.pub.json", agent.public.read_bytes())
    out = operator.place / "agent.credential"
    done = stage.commands.comity(
        operator.account,
        operator.place,
        *("credential", "issue", "--subject", agent.path, "--kind", "agent", "--public", public),
        *("--class", "analyst/agent", "--asset", f"{cast.institute.member}/drafts/**", "--purpose", PURPOSE),
        *("--under", stage.credentials[operator.path], "--key", operator.key, "--days", "7"),
        *("--home", operator.organization.home, "--out", out, "--publish"),
    )
    stage.credentials[agent.path] = done["credential"]
    agent.account.file(agent.place / out.name, out.read_bytes())


def _release(stage: Stage, organization: Organization) -> str:
    asset = f"{stage.cast.institute.member}/survival"
    done = stage.comity(
        organization,
        *("transition", "publish", "--asset", asset, "--purpose", PURPOSE, "--home", organization.home),
    )
    record: str = done["record"]
    return record
