"""Whole nodes as people have them: homes with real files, run by the product's composition root.

Only the road is another one: nodes of one test meet in an in-memory network. The local API is the real server
on a real Unix socket, and the clock is the machine's, with a start that lies a minute back, so that the first
vote need not wait.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import trio

from comity.attestation.roots import format_roots
from comity.attestation.signing import SigningKey
from comity.gossip.transport import Handler
from comity.gossip.transport_memory import MemoryNetwork, MemoryTransport
from comity.node.cards import Card, read_card
from comity.node.client import NodeClient
from comity.node.clock import SystemClock
from comity.node.coalition_file import CoalitionFile, write_coalition
from comity.node.coalitions import NamedPolicy, draft_genesis, require_joinable, sign_draft
from comity.node.config import read_config, write_config
from comity.node.home import Home
from comity.node.node_home import NewHome, make_home
from comity.node.owner_files import PUBLIC, write_file
from comity.node.run import House, Ready, read_house, run_node
from comity.node.signing_hand import Hand, passphrase_from
from comity.protocol.governance import Policy, Taxonomy
from world import FOUR, policy_body, taxonomy_body

T = TypeVar("T")
DEADLINE_S = 20.0
DRAFTED = int(time.time()) - 120
"""When tests draft: before the present that a test module took when it was read, however long the tests run."""


class EarlierClock(SystemClock):
    """The machine's clock, of a process that began a minute ago."""

    @property
    def started(self) -> int:
        return super().started - 60


@contextmanager
def short_folder() -> Generator[Path]:
    """A folder with a short name: the path of a Unix socket has little room, and pytest's are long."""
    place = Path(tempfile.mkdtemp(prefix="cy", dir="/tmp"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def no_passphrase(key: Path) -> bytes:
    raise AssertionError(f"{key} is not encrypted")


def make_member(place: Path, member: str, **changes: Any) -> Home:
    """A home that belongs to no coalition yet."""
    home = Home(place / member.partition(".")[0])
    wanted = NewHome(member=member, node="n1", listen="127.0.0.1:0", purpose="care")
    make_home(home, NewHome(**{**_fields(wanted), **changes}), no_passphrase)
    return home


def _fields(wanted: NewHome) -> dict[str, Any]:
    return {name: getattr(wanted, name) for name in NewHome.__slots__}


def hand_of(home: Home) -> Hand:
    return Hand(home, passphrase_from(None))


def card_of(home: Home) -> Card:
    return read_card(home.card)


def draft(
    homes: Sequence[Home], policy: Policy | None = None, taxonomy: Taxonomy | None = None, **options: Any
) -> CoalitionFile:
    """A genesis, signed by its first member alone."""
    author = hand_of(homes[0]).organization(None, None)
    return draft_genesis(
        "test coalition",
        [card_of(home) for home in homes],
        taxonomy or taxonomy_body(),
        [NamedPolicy("main", policy or policy_body())],
        author,
        DRAFTED,
        **options,
    )


def sign(file: CoalitionFile, home: Home, now: int | None = None) -> CoalitionFile:
    author = hand_of(home).organization(None, file.coalition)
    return sign_draft(file, author, card_of(home), int(time.time()) if now is None else now)


def join(file: CoalitionFile, home: Home) -> None:
    require_joinable(file, card_of(home), int(time.time()))
    write_coalition(home.coalition, file)
    write_file(home.roots, format_roots(file.roots()).encode(), mode=PUBLIC)


def found(place: Path, members: Sequence[str] = FOUR, **options: Any) -> dict[str, Home]:
    """The homes of a founded coalition."""
    homes = {member: make_member(place, member) for member in members}
    file = draft(list(homes.values()), **options)
    for home in homes.values():
        file = sign(file, home)
    for home in homes.values():
        join(file, home)
    return homes


class LocalTransport(MemoryTransport):
    """A node's end of the in-memory network, which listens nowhere."""

    @property
    def addresses(self) -> tuple[str, ...]:
        return ()


@dataclass
class RunningHouse:
    """One node that runs."""

    home: Home
    ready: Ready
    stop: trio.Event
    ended: trio.Event

    def client(self, role: Any = "bridge") -> NodeClient:
        return NodeClient.of_home(self.home.path, role)

    async def ask(self, call: Callable[[NodeClient], T], role: Any = "bridge") -> T:
        """Call the node's API as a program does, beside this thread."""
        client = self.client(role)
        return await trio.to_thread.run_sync(lambda: call(client))

    async def until(self, condition: Callable[[Any], bool], role: Any = "reader") -> Any:
        """Ask how the node is until that is as expected."""
        with trio.fail_after(DEADLINE_S):
            while True:
                said = await self.ask(lambda client: client.status(), role)
                if condition(said):
                    return said

    async def end(self) -> None:
        self.stop.set()
        await self.ended.wait()


@dataclass
class Street:
    """Where houses run."""

    nursery: trio.Nursery
    network: MemoryNetwork = field(default_factory=lambda: MemoryNetwork(Random(1)))

    async def start(self, home: Home, **options: Any) -> RunningHouse:
        """Run a node until it is stopped, or the street is left."""
        house = read_house(home)
        stop, ended = trio.Event(), trio.Event()

        def transport(house: House, handler: Handler) -> LocalTransport:
            key = SigningKey.from_seed(house.transport_seed).public.value
            return LocalTransport(self.network, key, handler)

        async def run(*, task_status: trio.TaskStatus[Ready]) -> None:
            arguments: dict[str, Any] = {
                "clock": EarlierClock(),
                "make_transport": transport,
                "stop": stop,
                **options,
            }
            try:
                await run_node(house, ready=task_status.started, **arguments)
            finally:
                ended.set()

        return RunningHouse(home, await self.nursery.start(run), stop, ended)


@asynccontextmanager
async def street() -> AsyncGenerator[Street]:
    """Houses run inside of it, and are stopped at its end."""
    async with trio.open_nursery() as nursery:
        yield Street(nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def inhabited(homes: dict[str, Home], *members: str) -> AsyncGenerator[dict[str, RunningHouse]]:
    """The nodes of some members, or of all, connected with each other."""
    async with street() as here:
        wanted = members or tuple(homes)
        houses = {member: await here.start(homes[member]) for member in wanted}
        for house in houses.values():
            await house.until(lambda said: said["reachable"] == len(wanted))
        yield houses


def without_gossip(home: Home) -> None:
    """Set a node not to gossip, before it runs."""
    config = read_config(home.config)
    write_config(home.config, replace(config, gossip=False), replace=True)


def environment(**more: str) -> dict[str, str]:
    """The environment of a program that a test starts: nothing of the own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COMITY_")}
    return kept | more
