"""A node's process is killed (SIGKILL) at every effect boundary of a decision, and comes back on the same home.

The store is SQLite on a disk, the road is libp2p, the kill is the system's. Three other members' nodes run in this
process; `mortal_node` runs the victim.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

import mortal_node
from api_calls import equip, step
from comity.node.client import ActuationForm, NodeError, StartForm
from comity.node.home import Home
from comity.node.run import Ready, read_house, run_node
from comity.node.store_sqlite import SqliteStore
from comity.protocol.identifiers import sha256
from comity.protocol.records import decode_body
from houses import EarlierClock, RunningHouse, draft, environment, join, make_member, short_folder, sign
from ports import free_ports
from world import BOARD, FOUR, INSTITUTE, NORTH, SOUTH

pytestmark = [pytest.mark.slow]

READY_S = 60.0
DECIDED_S = 60.0
COMMITS = [f"{when} the commit of {kind}" for kind in mortal_node.COMMITS for when in ("before", "after")]
MESSAGES = ["before ask 1", "before ask 2", "before ask 3", "after answer 1", "after answer 2"]
# Between the commit of a vote and its answer nothing takes effect.
VOTES = ["before the commit of vote", "before the answer"]


@dataclass
class Victim:
    """The member whose process dies, and the program that runs it."""

    home: Home
    program: subprocess.Popen[bytes]
    pid: int = 0

    async def heard(self, word: str) -> Any:
        """The next line that the program prints, which has to be of that."""
        assert self.program.stdout is not None
        with trio.fail_after(READY_S):
            await trio.lowlevel.wait_readable(self.program.stdout.fileno())
            line = self.program.stdout.readline()
        said = json.loads(line)
        assert word in said, said
        return said[word]

    async def start(self) -> RunningHouse:
        assert self.program.stdin is not None
        self.program.stdin.write(json.dumps({"home": str(self.home.path)}).encode() + b"\n")
        self.program.stdin.flush()
        self.pid = await self.heard("ready")
        ready = Ready("", "", "", 0, (), self.home.socket)
        return RunningHouse(self.home, ready, trio.Event(), trio.Event())

    def dies(self, boundary: str) -> None:
        mortal_node.doom(self.home.path).write_text(boundary)

    async def dead(self) -> None:
        """Wait until the boundary was reached."""
        assert await self.heard("ended") == -signal.SIGKILL

    async def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        await self.dead()


@dataclass
class Site:
    homes: dict[str, Home]
    victim: Victim
    nodes: dict[str, RunningHouse]


def start_program() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(mortal_node.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=environment(),
        start_new_session=True,
    )


@asynccontextmanager
async def site(member: str, *others: str) -> AsyncGenerator[Site]:
    """Others' nodes over libp2p in this process, and a program in which the victim's runs."""
    with short_folder() as place:
        homes = {
            name: make_member(place, name, listen=f"127.0.0.1:{port}")
            for name, port in zip(FOUR, free_ports(len(FOUR)), strict=True)
        }
        file = draft(list(homes.values()))
        for home in homes.values():
            file = sign(file, home)
        for home in homes.values():
            join(file, home)
        program = start_program()
        try:
            async with trio.open_nursery() as nursery:
                nodes: dict[str, RunningHouse] = {}
                for name in others:
                    nodes[name] = await beside(nursery, homes[name])
                victim = Victim(homes[member], program)
                yield Site(homes, victim, nodes)
                await victim.kill()
                for node in nodes.values():
                    await node.end()
        finally:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
            for pipe in (program.stdin, program.stdout):
                if pipe is not None:
                    pipe.close()
        check({name: homes[name] for name in (member, *others)}, member)


async def beside(nursery: trio.Nursery, home: Home) -> RunningHouse:
    """A node of this process."""
    stop, ended = trio.Event(), trio.Event()

    async def run(*, task_status: trio.TaskStatus[Ready]) -> None:
        try:
            await run_node(read_house(home), ready=task_status.started, clock=EarlierClock(), stop=stop)
        finally:
            ended.set()

    return RunningHouse(home, await nursery.start(run), stop, ended)


async def made(house: RunningHouse, run: str) -> bool:
    """Run a step as an orchestrator does. Returns whether it is made; not where the node dies on the way."""
    try:
        answer = await house.ask(lambda client: client.submit_step(step("plain/a", run=run, wait_s=15.0)))
        if answer.outcome != "execute":
            return False
        (output,) = answer.outputs
        started = await house.ask(lambda client: client.start(StartForm(answer.intent, output.asset)))
        content = sha256(f"{run} {started.start}".encode()).hex()
        form = ActuationForm(answer.intent, started.start, output.asset, content, 1, "text/csv")
        await house.ask(lambda client: client.actuate(form))
    except NodeError as exc:
        # Recorded before the kill.
        return exc.code in ("permit_used", "slot_taken")
    return True


async def until_made(house: RunningHouse, run: str) -> None:
    with trio.fail_after(DECIDED_S):
        while not await made(house, run):
            await trio.lowlevel.checkpoint()


def check(homes: dict[str, Home], victim: str) -> None:
    """No author says two things, and what reached others is in the victim's own store."""
    said: dict[tuple[Any, ...], bytes] = {}
    stores = {
        name: SqliteStore(read_house(home).config.store_path(home.path)) for name, home in homes.items()
    }
    reached: set[bytes] = set()
    try:
        for name, store in stores.items():
            for kind, place in PLACES.items():
                for record in store.of_kind(kind):
                    key = (kind, record.header.key, *place(decode_body(record)))
                    assert said.setdefault(key, record.id) == record.id, f"two of one {kind}: {key}"
                    if record.header.member == victim and name != victim:
                        reached.add(record.id)
            assert store.of_kind("misbehaviour") == []
        for run in {row.run for row in stores[victim].intents()}:
            # It goes on under its id. Only where the work was recorded and nobody heard of it, the run makes it anew.
            intents = len(stores[victim].intents(run=run))
            assert intents == 1 + (run == "after the commit of actuation"), f"{intents} intents of {run}"
        assert reached
        assert reached == stores[victim].holds(reached), "it holds not all that it sent"
    finally:
        for store in stores.values():
            store.close()


PLACES: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "vote": lambda body: (body.intent, body.t),
    "ask": lambda body: (body.intent, body.t),
    "start": lambda body: (body.permit, body.asset, body.partition, body.attempt),
    "actuation": lambda body: (body.asset, body.partition, body.generation),
}


@pytest.mark.parametrize(
    "boundaries",
    [
        pytest.param(COMMITS[:4], marks=pytest.mark.xdist_group("killed-1"), id="ask"),
        pytest.param(COMMITS[4:], marks=pytest.mark.xdist_group("killed-2"), id="use"),
        pytest.param(MESSAGES, marks=pytest.mark.xdist_group("killed-1"), id="messages"),
    ],
)
async def test_a_requesters_process_is_killed_at_each_boundary(boundaries: list[str]) -> None:
    async with site(NORTH, SOUTH, INSTITUTE, BOARD) as here:
        house = await here.victim.start()
        await equip(house)
        for boundary in boundaries:
            await house.until(lambda said: said["reachable"] == 4)
            here.victim.dies(boundary)
            assert not await made(house, boundary), f"it lives on {boundary}"
            await here.victim.dead()
            house = await here.victim.start()
            # The same run is gone on with.
            await until_made(house, boundary)
        heads = await house.ask(lambda client: client.lineage("plain/a"), "reader")
        assert heads["actuations"]


@pytest.mark.xdist_group("killed-2")
async def test_a_voters_process_is_killed_at_each_boundary() -> None:
    """With one member down nothing is decided without it."""
    async with site(SOUTH, NORTH, INSTITUTE) as here:
        house = await here.victim.start()
        north = here.nodes[NORTH]
        await equip(north)
        for boundary in (*VOTES, "after the answer"):
            await house.until(lambda said: said["reachable"] == 3)
            if boundary in VOTES:
                here.victim.dies(boundary)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(until_made, north, boundary)
                    await here.victim.dead()
                    house = await here.victim.start()
            else:
                await until_made(north, boundary)
                await here.victim.kill()
                await here.victim.start()
