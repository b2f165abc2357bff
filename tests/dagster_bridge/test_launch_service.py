"""The gate before a run with Dagster's own webserver and daemon, a real node, and an agent with a key of its own."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from api_calls import equip, submit_record
from comity.node.credentialing import Wish, issued
from comity.node.keystore import companion, create_key
from comity.node.orchestrator_http import TICKET_TAG
from dagster_service import Service, service
from houses import RunningHouse, found, hand_of, short_folder, street
from world import NORTH, RULES, policy_body

TICKETED = """
@id("asked-for") @mode("defer") @reason("nobody_asked") @needs("launch_ticket(subject=agent)")
forbid(principal, action == Action::"materialize", resource in DataClass::"aggregate")
unless { context.ticket };
"""

DEFINITIONS = """
import dagster as dg
from comity.dagster_bridge import govern

@dg.asset(key=["plain", "a"])
def a() -> None: ...

@dg.asset(key=["forbidden", "x"])
def x() -> None: ...

@dg.asset
def pooled() -> None: ...

@dg.asset
def survival() -> None: ...

@dg.schedule(job=dg.define_asset_job("ticking", selection=["forbidden/x"]), cron_schedule="* * * * *",
             default_status=dg.DefaultScheduleStatus.STOPPED)
def every_minute(): return {}

defs = govern(
    dg.Definitions(assets=[a, x, pooled, survival], schedules=[every_minute]),
    home="HOME", unbound_writes="allow", code_root="ROOT",
)
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dagster_service")]


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@asynccontextmanager
async def serving(
    place: Path, tmp_path: Path, **settings: Any
) -> AsyncGenerator[tuple[RunningHouse, Service, Any]]:
    homes = found(place, (NORTH,), policy=policy_body(RULES + TICKETED))
    file = tmp_path / "definitions.py"
    text = textwrap.dedent(DEFINITIONS).replace("HOME", str(homes[NORTH].path)).replace("ROOT", str(tmp_path))
    file.write_text(text)
    async with street() as here:
        house = await here.start(homes[NORTH])
        await equip(house)
        stack = service(tmp_path / "dagster", file, homes[NORTH].path, **settings)
        made = await trio.to_thread.run_sync(stack.__enter__)
        try:
            yield house, made, here
        finally:
            await trio.to_thread.run_sync(stack.__exit__, None, None, None)


async def apart(function: Any, *args: Any, **kwargs: Any) -> Any:
    return await trio.to_thread.run_sync(partial(function, *args, **kwargs))


async def test_runs_of_a_webserver_and_a_daemon_are_permitted_refused_and_narrowed(
    place: Path, tmp_path: Path
) -> None:
    async with serving(place, tmp_path) as (house, dagster, _):
        good = await apart(dagster.launch, "plain/a")
        bad = await apart(dagster.launch, "forbidden/x")
        both = await apart(dagster.launch, "plain/a", "forbidden/x")
        await apart(dagster.run_until, good, "SUCCESS", outcome="execute", launch="handed")
        await apart(dagster.run_until, bad, "FAILURE", outcome="refuse", reason="forbidden_class")
        state = await apart(dagster.run_until, both, "CANCELED", outcome="restrict")
        child = state.tags["comity/narrowed_to"]
        await apart(dagster.run_until, child, "SUCCESS", continues=both)
        (event,) = await apart(dagster.metadata, bad)
        assert "comity/table" in event["metadata"]
        assert "comity/votes" in event["metadata"]
        # One decision for each step: the launch has asked for what the step has used.
        intents = await house.ask(lambda client: client.intents(), "reader")
        assert len(intents) == 4
        starts = [each for each in intents if each["run"] == good]
        assert len(starts) == 1


async def test_a_run_is_held_over_restarts_of_daemon_and_node_and_released(
    place: Path, tmp_path: Path
) -> None:
    async with serving(place, tmp_path) as (house, dagster, here):
        held = await apart(dagster.launch, "pooled")
        state = await apart(dagster.run_until, held, "QUEUED", hold="held")
        assert "data-protection-officer" in state.tags["comity/needs"]
        await apart(dagster.end, "daemon", kill=True)
        await house.end()
        await apart(dagster.begin, "daemon")
        other = await apart(dagster.launch, "plain/a")
        # The node is down, and it may govern it.
        await apart(dagster.run_until, other, "QUEUED", hold="held", reason="node_not_running")
        back = await here.start(house.home)
        await apart(dagster.run_until, other, "SUCCESS", hold="released")
        assert (await apart(dagster.web.state, held)).status == "QUEUED"
        await approve(back, state.tags["comity/intent"])
        await apart(dagster.run_until, held, "SUCCESS", hold="released")
        events = await apart(dagster.metadata, held)
        assert [event["message"].partition("] ")[2] for event in events] == ["Comity: permitted"]


async def test_an_agent_launches_by_graphql_with_its_own_key_and_once(place: Path, tmp_path: Path) -> None:
    async with serving(place, tmp_path) as (house, dagster, _):
        # A click, a schedule or a sensor asks for nobody: policy wants somebody's ticket.
        clicked = await apart(dagster.launch, "survival")
        await apart(dagster.run_until, clicked, "QUEUED", hold="held", reason="nobody_asked")
        launched = await launched_by_agent(house, dagster, "--wait", "100")
        assert (launched["status"], launched["tags"]["comity/outcome"]) == ("SUCCESS", "execute")
        state = await apart(dagster.web.state, launched["run"])
        tags = {TICKET_TAG: state.tags[TICKET_TAG]}
        # Whoever sees the ticket in the tags launches nothing with it.
        again = await apart(dagster.launch, "survival", tags=tags)
        await apart(dagster.run_until, again, "FAILURE", outcome="refuse", reason="ticket_used")
        other = await apart(dagster.launch, "plain/a", tags=tags)
        await apart(dagster.run_until, other, "FAILURE", outcome="refuse")
        lineage = await house.ask(lambda client: client.why(f"{NORTH}/survival"), "reader")
        assert lineage


async def person(house: RunningHouse, wish: Wish) -> Any:
    path = house.home.path / f"{wish.subject.rpartition('/')[2]}.pem"
    create_key(path)
    credential, _ = issued(hand_of(house.home), dataclasses.replace(wish, public=companion(path)))
    await submit_record(house, credential)
    return hand_of(house.home).holder(path, credential)


async def launched_by_agent(house: RunningHouse, dagster: Service, *more: str) -> Any:
    """`comity launch`, with no more than the agent's key, its credential as a file, and the webserver's address."""
    wish = Wish("operator/agent", "person", ("data-steward",), assets=("survival",))
    holder = await person(house, wish)
    record = (await house.ask(lambda client: client.record(holder.authority.hex()), "reader"))["record"]
    credential = house.home.path / "agent.credential"
    credential.write_bytes(base64.b64decode(record))
    words = ["launch", "__ASSET_JOB", "--select", "survival", "--key", str(house.home.path / "agent.pem")]
    words += ["--credential", str(credential), "--url", dagster.web.url, "--json", *more]
    run = await apart(
        subprocess.run, [sys.executable, "-m", "comity.node.cli", *words], capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    return json.loads(run.stdout)


async def approve(house: RunningHouse, intent: str) -> None:
    from comity.node.asking import approval
    from comity.protocol.envelope import decode_record

    wish = Wish("operator/dpo", "person", ("data-protection-officer",), actions=("approve",), assets=("**",))
    officer = await person(house, wish)
    record = (await house.ask(lambda client: client.record(intent), "reader"))["record"]
    await submit_record(house, approval(officer, decode_record(base64.b64decode(record)), hours=1))
