"""The composition root: what a node needs to begin, how it says that something is wrong, and how it ends."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from comity.gossip.transport import Handler
from comity.node.clock import ManualClock
from comity.node.coalition_file import read_coalition, write_coalition
from comity.node.coalitions import DAY_S
from comity.node.home import NODE_KEY, Home
from comity.node.run import House, build_core, read_house
from comity.node.socket_server import open_socket
from comity.node.store import Store
from comity.node.store_memory import MemoryStore
from comity.node.store_sqlite import SqliteStore
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ComityError, ConfigError, StoreError
from houses import LocalTransport, RunningHouse, Street, found, make_member, short_folder, sign, street
from world import NORTH, SOUTH

SOLO = (NORTH,)


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


async def begin(home: Home, **options: Any) -> None:
    """Start a node and stop it again; what it raises is unwrapped."""
    try:
        async with street() as here:
            house = await here.start(home, **options)
            await house.end()
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group


async def test_a_home_without_a_coalition_says_how_to_join(place: Path) -> None:
    home = make_member(place, NORTH)
    with pytest.raises(ConfigError, match="comity coalition join"):
        read_house(home)


async def test_a_coalition_that_is_not_founded_does_not_run(place: Path) -> None:
    from houses import draft

    homes = [make_member(place, member) for member in (NORTH, SOUTH)]
    write_coalition(homes[0].coalition, sign(draft(homes), homes[0]))
    with pytest.raises(ConfigError, match="not founded yet"):
        await begin(homes[0])


async def test_keys_that_others_can_read_are_refused(place: Path) -> None:
    home = found(place, SOLO)[NORTH]
    home.key(NODE_KEY).chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_house(home)


async def test_a_home_that_others_can_look_into_is_refused(place: Path) -> None:
    home = found(place, SOLO)[NORTH]
    home.path.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        read_house(home)


async def test_a_key_without_certificate_says_who_has_to_sign(place: Path) -> None:
    home = found(place, SOLO)[NORTH]
    file = read_coalition(home.coalition)
    write_coalition(
        home.coalition,
        replace(file, records=tuple(r for r in file.records if r.header.kind != "node_certificate")),
    )
    with pytest.raises(ConfigError, match="comity coalition sign"):
        await begin(home)


@pytest.mark.parametrize("wrong", [-400 * DAY_S, 400 * DAY_S])
async def test_a_wrong_clock_is_said(place: Path, wrong: int) -> None:
    home = found(place, SOLO)[NORTH]
    with pytest.raises(ConfigError, match="by this machine's clock"):
        await begin(home, clock=ManualClock(int(time.time()) + wrong))


async def test_a_clock_before_the_epoch_is_said(place: Path) -> None:
    """Within the hour that a certificate holds from, but before the epoch that all have signed."""
    home = found(place, SOLO)[NORTH]
    with pytest.raises(ConfigError, match="before epoch 0 was signed"):
        await begin(home, clock=ManualClock(int(time.time()) - 1_800))


async def test_one_process_holds_a_store(place: Path) -> None:
    home = found(place, SOLO)[NORTH]
    async with street() as here:
        await here.start(home)
        with pytest.raises(StoreError, match="in use by process"):
            await begin(home)


async def test_a_socket_that_answers_is_not_taken(place: Path) -> None:
    home = found(place, SOLO)[NORTH]
    listener = open_socket(home.socket)
    try:
        with pytest.raises(ConfigError, match="answers on"):
            await begin(home)
    finally:
        listener.close()


async def test_a_socket_that_was_left_behind_is_replaced(place: Path) -> None:
    home = found(place, SOLO)[NORTH]
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(home.socket))
    left.close()
    async with street() as here:
        house = await here.start(home)
        assert (await house.until(lambda said: True))["member"] == NORTH


async def test_a_file_in_the_place_of_the_socket_is_not_removed(place: Path) -> None:
    home = found(place, SOLO)[NORTH]
    home.socket.write_text("precious")
    with pytest.raises(ConfigError, match="is no socket"):
        await begin(home)
    assert home.socket.read_text() == "precious"


async def test_a_port_in_use_ends_the_node_with_a_sentence(place: Path) -> None:
    from comity.node.run import libp2p_transport

    home = found(place, SOLO)[NORTH]
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    text = home.config.read_text()
    home.config.write_text(text.replace("/tcp/0", f"/tcp/{port}"))
    try:
        with pytest.raises(ConfigError, match="in use"):
            await begin(home, make_transport=libp2p_transport)
    finally:
        taken.close()


class FailingStore(MemoryStore):
    """A disk that fails when it is told to."""

    failing = False

    def put(
        self, records: Iterable[SignedRecord], *, durable: bool = False, own: bool = False
    ) -> tuple[bytes, ...]:
        if self.failing:
            raise StoreError("the disk failed")
        return super().put(records, durable=durable, own=own)


async def test_a_node_whose_disk_fails_stops(place: Path) -> None:
    home = found(place, SOLO)[NORTH]
    store = FailingStore()

    async def fail() -> None:
        async with street() as here:
            house = await here.start(home, make_store=lambda path: store)
            store.failing = True
            await provoke(house)
            await trio.sleep_forever()

    with trio.fail_after(10), pytest.raises(BaseExceptionGroup) as excinfo:
        await fail()
    assert excinfo.group_contains(StoreError, match="the disk failed")


async def provoke(house: RunningHouse) -> None:
    """Hand in a record that has to be stored; the answer does not matter."""
    from comity.node.publications import owner_policy_record
    from houses import hand_of

    author = hand_of(house.home).organization(None, bytes.fromhex(house.ready.coalition))
    record = owner_policy_record(author, ["*=live"], None)

    def submit() -> None:
        with contextlib.suppress(ComityError):
            house.client("operator").submit_record(record.encoded())

    await trio.to_thread.run_sync(submit, abandon_on_cancel=True)


async def test_the_store_of_another_coalition_is_refused(place: Path) -> None:
    one = found(place / "one", SOLO)[NORTH]
    await begin(one)
    two = found(place / "two", SOLO)[NORTH]
    # The same home with another coalition file: its epoch 0 is another one. Stores keep coalitions apart.
    kept = read_coalition(one.coalition)
    other = read_coalition(two.coalition)
    assert kept.coalition != other.coalition
    write_coalition(one.coalition, other)
    with pytest.raises(ConfigError, match="no certificate"):
        await begin(one)


def store_counting(opened: list[SqliteStore]) -> Callable[[Path], Store]:
    def make(path: Path) -> Store:
        store = SqliteStore(path)
        opened.append(store)
        return store

    return make


async def test_the_store_is_given_back_however_a_node_ends(place: Path) -> None:
    home = found(place, SOLO)[NORTH]

    def broken(house: House, handler: Handler) -> LocalTransport:
        raise ConfigError("no road")

    with pytest.raises(ConfigError, match="no road"):
        await begin(home, make_transport=broken)
    # Nobody holds the lock any more.
    opened: list[SqliteStore] = []
    await begin(home, make_store=store_counting(opened))
    assert len(opened) == 1


async def test_a_node_goes_on_where_it_was(place: Path) -> None:
    """A restart keeps what was decided: intents, and the epoch that was adopted while it ran."""
    homes = found(place)
    async with street() as here:
        await restart_and_compare(here, homes)


async def restart_and_compare(here: Street, homes: dict[str, Home]) -> None:
    from comity.node.credentialing import Wish, issued
    from comity.node.forms import OutputForm, StepForm
    from comity.protocol.identifiers import sha256
    from houses import hand_of

    houses = {member: await here.start(home) for member, home in homes.items()}
    north = houses[NORTH]
    await north.until(lambda said: said["reachable"] == 4)
    record, _ = issued(hand_of(homes[NORTH]), Wish("node/n1", "automation", ("agent",), node_key=True))
    await north.ask(lambda client: client.submit_record(record.encoded()), "operator")
    form = StepForm(
        orchestrator="dagster",
        run="run-1",
        step="pooled",
        job="study",
        code=sha256(b"code").hex(),
        outputs=[OutputForm("pooled")],
        wait_s=5.0,
    )
    deferred = await north.ask(lambda client: client.submit_step(replace(form, wait_s=0.5)))
    permitted = await north.ask(
        lambda client: client.submit_step(replace(form, step="a", outputs=[OutputForm("plain/a")]))
    )
    assert (deferred.outcome, permitted.outcome) == ("defer", "execute")
    await north.end()
    again = await here.start(homes[NORTH])
    await again.until(lambda said: said["reachable"] == 4)
    answer = await again.ask(lambda client: client.step(permitted.intent))
    assert (answer.outcome, answer.permit) == ("execute", permitted.permit)
    assert (await again.ask(lambda client: client.step(deferred.intent))).outcome in ("defer", "held")
    waiting = await again.ask(lambda client: client.waiting(), "reader")
    assert [row["intent"] for row in waiting] == [deferred.intent]


@pytest.mark.parametrize("members", [SOLO, (NORTH, SOUTH)])
def test_a_node_that_begins_votes_after_it_has_caught_up(place: Path, members: tuple[str, ...]) -> None:
    house = read_house(found(place, members)[NORTH])
    clock = ManualClock(int(time.time()))
    core = build_core(house, MemoryStore(), clock)
    clock.advance(3_600)
    assert core.voter.votes(clock.now()) is (len(members) == 1)
    core.voter.caught_up_with(SOUTH)
    assert core.voter.votes(clock.now())
