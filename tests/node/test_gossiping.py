"""What gossip adds: news from whom there is no connection, and a new version before anybody asks for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio

from comity.gossip.gossip import interval_s
from comity.node import service as service_module
from comity.node.notices import PENDING_MAX, Pending, lacking
from comity.node.outgoing import News
from comity.protocol.errors import DecodeError
from comity.protocol.identifiers import sha256
from comity.protocol.limits import NOTICE_BYTES_MAX, NOTICE_HEADS_MAX, NOTICE_RECORDS_MAX
from comity.protocol.notices import Notice, SlotHead, decode_notice, encode_notice
from nodes import RunningNode, running, until
from stepping import make, step, submit
from world import BOARD, INSTITUTE, NORTH, SOUTH, World

FAR_S = 10_000.0
"""Longer than any test: the pull of every few seconds does not come."""


@pytest.fixture
def autojump(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


@pytest.fixture
def no_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "PULL_EVERY_S", FAR_S)


@asynccontextmanager
async def four() -> AsyncGenerator[tuple[World, dict[str, RunningNode]]]:
    world = World()
    async with running(world) as nodes:
        await until(lambda: all(len(node.service.connected()) == 3 for node in nodes.values()))
        yield world, nodes


async def apart(nodes: dict[str, RunningNode], left: str, *rights: str) -> None:
    """Take the connections of one node to some others."""
    network = nodes[left].network
    for right in rights:
        network.separate(nodes[left].peer, nodes[right].peer)
    await until(lambda: not nodes[left].service.connected() & set(rights))


def tells(world: World, nodes: dict[str, RunningNode], name: str) -> bytes:
    """A member takes back a credential of its own. Returns the revocation's id."""
    revocation = world[name].revoke(world[name].credentials["automation/main"][1].id)
    nodes[name].core.publish([revocation])
    return revocation.id


def holds(node: RunningNode, record: bytes) -> bool:
    return node.core.holdings.peek(record) is not None


async def test_news_reach_a_node_without_a_connection_to_their_author(
    autojump: object, no_pull: None
) -> None:
    async with four() as (world, nodes):
        await apart(nodes, NORTH, SOUTH, INSTITUTE)
        said = tells(world, nodes, NORTH)
        await nodes[NORTH].service.call(lambda: None)
        await until(lambda: all(holds(node, said) for node in nodes.values()), 5)


async def test_news_that_no_offer_brought_are_pulled(autojump: object, no_pull: None) -> None:
    async with four() as (world, nodes):
        revocation = world[NORTH].revoke(world[NORTH].credentials["automation/main"][1].id)
        # As `publish` does it, without the offer: of a lost one nobody hears again.
        nodes[NORTH].core.admit([revocation], own=True)
        await nodes[NORTH].service.call(lambda: None)
        await until(lambda: all(holds(node, revocation.id) for node in nodes.values()), 5)


async def test_without_gossip_the_next_pull_brings_them(
    autojump: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.GOSSIP", False)
    async with four() as (world, nodes):
        await apart(nodes, NORTH, SOUTH, INSTITUTE)
        said = tells(world, nodes, NORTH)
        await nodes[NORTH].service.call(lambda: None)
        await until(lambda: all(holds(node, said) for node in nodes.values()), 30)


async def test_a_consumer_hears_of_a_new_version_before_it_asks(autojump: object, no_pull: None) -> None:
    async with four() as (world, nodes):
        asset = "clinic-north.example/plain/a"

        def generation(node: RunningNode) -> int:
            heads = node.store.heads(asset, "", coalition=node.core.coalition)
            return heads[0].generation if heads else 0

        # Of an asset that it knows nothing of it pulls the first that it hears of; of one that it knows, each newer.
        for number in (1, 2):
            answer = await submit(nodes[NORTH], world, step("plain/a", run=f"run-{number}"))
            await make(nodes[NORTH], answer, b"version %d" % number)
            await until(lambda number=number: generation(nodes[BOARD]) == number, 5)  # type: ignore[misc]


async def test_who_lacks_nothing_asks_nobody(autojump: object, no_pull: None) -> None:
    async with four() as (world, nodes):
        said = tells(world, nodes, NORTH)
        south = nodes[SOUTH]
        south.core.admit([nodes[NORTH].core.holdings.peek(said).record])  # type: ignore[union-attr]
        notice = encode_notice(Notice(south.core.coalition, (said,)))
        assert lacking(south.core, NORTH, notice).records == ()
        other = encode_notice(Notice(south.core.coalition, (said, sha256(b"other"))))
        assert lacking(south.core, NORTH, other).records == (sha256(b"other"),)


async def test_a_notice_of_another_coalition_says_nothing(autojump: object) -> None:
    async with four() as (_, nodes):
        core = nodes[SOUTH].core
        head = SlotHead("clinic-north.example/patients", 0, sha256(b"it"))
        assert lacking(core, NORTH, encode_notice(Notice(core.coalition, heads=(head,)))).heads
        foreign = encode_notice(Notice(sha256(b"other"), (sha256(b"it"),), (head,)))
        assert lacking(core, NORTH, foreign) == lacking(core, NORTH, encode_notice(Notice(core.coalition)))
        stranger = encode_notice(Notice(core.coalition, (sha256(b"it"),), (head,)))
        assert lacking(core, "stranger.example", stranger).records == ()


async def test_a_head_is_told_of_by_its_writer_only(autojump: object) -> None:
    async with four() as (_, nodes):
        core = nodes[BOARD].core
        head = SlotHead("clinic-north.example/patients", 7, sha256(b"it"))
        notice = encode_notice(Notice(core.coalition, heads=(head,)))
        assert lacking(core, NORTH, notice).heads == (("clinic-north.example/patients", ""),)
        assert lacking(core, SOUTH, notice).heads == ()


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xc0", b"\x81\xa6notice\xa5heads", b"x" * 20_000])
async def test_garbage_is_no_notice_and_harms_nobody(autojump: object, data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_notice(data)
    async with four() as (world, nodes):
        if len(data) <= NOTICE_BYTES_MAX:
            nodes[SOUTH].transport.gossip.publish(data)
        said = tells(world, nodes, NORTH)
        await nodes[NORTH].service.call(lambda: None)
        await until(lambda: all(holds(node, said) for node in nodes.values()))


async def test_names_that_nobody_has_cost_one_request(autojump: object, no_pull: None) -> None:
    async with four() as (world, nodes):
        invented = tuple(sha256(bytes([i])) for i in range(NOTICE_RECORDS_MAX))
        nodes[SOUTH].transport.gossip.publish(encode_notice(Notice(nodes[SOUTH].core.coalition, invented)))
        said = tells(world, nodes, NORTH)
        await nodes[NORTH].service.call(lambda: None)
        await until(lambda: all(holds(node, said) for node in nodes.values()), 20)


def test_what_waits_is_told_in_the_order_in_which_it_came() -> None:
    pending = Pending(sha256(b"genesis"))
    ids = tuple(sha256(i.to_bytes(2, "big")) for i in range(3 * NOTICE_RECORDS_MAX // 2))
    pending.add(News(ids, ()))
    first, second = decode_notice(pending.take()), decode_notice(pending.take())
    assert first.records + second.records == ids
    assert not pending


def test_of_a_slot_the_newest_head_is_told() -> None:
    pending = Pending(sha256(b"genesis"))
    old, new = (SlotHead("north.example/a", number, sha256(bytes([number]))) for number in (1, 2))
    pending.add(News((), (old,)))
    pending.add(News((), (new,)))
    assert decode_notice(pending.take()).heads == (new,)


def test_a_notice_fits_its_bound_however_long_the_names() -> None:
    pending = Pending(sha256(b"genesis"))
    name = "north.example/" + "a" * 120 + "/" + "b" * 120
    heads = [SlotHead(name, 0, sha256(bytes([i])), f"{i:0255}") for i in range(4 * NOTICE_HEADS_MAX)]
    pending.add(News(tuple(sha256(bytes([i])) for i in range(NOTICE_RECORDS_MAX)), tuple(heads)))
    told: list[SlotHead] = []
    while pending:
        data = pending.take()
        assert len(data) <= NOTICE_BYTES_MAX
        told += decode_notice(data).heads
    assert told == heads


def test_what_waits_is_bounded() -> None:
    pending = Pending(sha256(b"genesis"))
    ids = tuple(sha256(i.to_bytes(2, "big")) for i in range(PENDING_MAX + 5))
    pending.add(News(ids, ()))
    told: list[bytes] = []
    while pending:
        told += decode_notice(pending.take()).records
    assert tuple(told) == ids[5:]


async def test_nobody_tells_faster_than_the_pace(autojump: object, no_pull: None) -> None:
    async with four() as (_, nodes):
        times: list[float] = []
        real = nodes[NORTH].transport.gossip.publish

        def counted(payload: bytes) -> None:
            times.append(trio.current_time())
            real(payload)

        nodes[NORTH].transport.gossip.publish = counted  # type: ignore[method-assign]
        for index in range(5):
            with trio.move_on_after(0.001):
                await trio.sleep_forever()
            nodes[NORTH].core.outbox.append(News((sha256(bytes([index])),), ()))
            await nodes[NORTH].service.call(lambda: None)
        await until(lambda: len(times) >= 2)
        with trio.move_on_after(2):
            await trio.sleep_forever()
        gaps = [after - before for before, after in pairwise(times)]
        assert 2 <= len(times) < 5
        assert min(gaps) >= interval_s(4) - 1e-9
