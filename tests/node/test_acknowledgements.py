"""Revocations are acknowledged by every node that holds them on disk, and effective once a quorum has."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from comity.attestation import acknowledged as acknowledged_module
from comity.attestation.acknowledging import acknowledge, reach_of
from comity.attestation.authoring import NO_SALT
from comity.attestation.epochs import quorum_of
from comity.node import ancestry, revocations
from comity.node.problems import Refused
from comity.protocol.envelope import SignedRecord
from comity.protocol.governance import Acknowledgement
from comity.protocol.limits import ADVERSE_PER_SUBJECT_MAX, SUBJECTS_MAX
from comity.protocol.verified import VerifiedRecord
from nodes import RunningNode, running, until
from stepping import make, step, submit
from world import BOARD, INSTITUTE, NORTH, SOUTH, START, YEAR, World

pytestmark = pytest.mark.usefixtures("gossip")


@pytest.fixture
def autojump(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


@asynccontextmanager
async def four(**options: object) -> AsyncGenerator[tuple[World, dict[str, RunningNode]]]:
    world = World()
    async with running(world, **options) as nodes:  # type: ignore[arg-type]
        await until(lambda: all(len(node.service.connected()) == 3 for node in nodes.values()))
        yield world, nodes


def automation(world: World, name: str) -> SignedRecord:
    return world[name].credentials["automation/main"][1]


async def publish(node: RunningNode, record: SignedRecord) -> None:
    await node.service.call(lambda: node.core.publish([record]))


def row(node: RunningNode, record: SignedRecord) -> object:
    return next(
        (each for each in revocations.revocations(node.core) if each["record"] == record.id.hex()), None
    )


def effective(node: RunningNode, record: SignedRecord) -> bool:
    found = row(node, record)
    return found is not None and bool(found["effective"])  # type: ignore[index]


async def test_a_revocation_is_effective_when_a_quorum_has_acknowledged_it(autojump: object) -> None:
    async with four() as (world, nodes):
        await nodes[BOARD].stop()
        await nodes[SOUTH].stop()
        revocation = world[NORTH].revoke(automation(world, NORTH).id)
        await publish(nodes[NORTH], revocation)
        await until(lambda: len(reach_of(nodes[NORTH].core.holdings, revocation.id, START).acknowledged) == 2)
        reach = reach_of(nodes[NORTH].core.holdings, revocation.id, START)
        assert (reach.acknowledged, reach.missing) == ((NORTH, INSTITUTE), (SOUTH, BOARD))
        assert (reach.quorum, reach.effective) == (3, False)
        # Two of four is no quorum: with the others' votes and a liar's it could still be relied on.
        async with trio.open_nursery() as nursery:
            back = nodes[SOUTH].reborn()
            back.transport.set_peers([n.peer for n in nodes.values() if n.name != SOUTH])
            await nursery.start(back.run)
            await until(lambda: effective(nodes[NORTH], revocation))
            nursery.cancel_scope.cancel()
        reach = reach_of(nodes[NORTH].core.holdings, revocation.id, START)
        assert reach.missing == (BOARD,)


async def test_what_is_effective_gains_no_permit_any_more(autojump: object) -> None:
    async with four() as (world, nodes):
        revocation = world[NORTH].revoke(automation(world, NORTH).id)
        # The requester itself has not heard of it; a quorum has.
        await publish(nodes[BOARD], revocation)
        await until(lambda: effective(nodes[BOARD], revocation))
        answer = await submit(nodes[NORTH], world, step("plain/a"))
        assert answer.outcome == "refuse"


async def test_each_node_acknowledges_once_also_after_a_restart(autojump: object) -> None:
    async with four() as (world, nodes):
        revocation = world[NORTH].revoke(automation(world, NORTH).id)
        await publish(nodes[NORTH], revocation)
        await until(lambda: all(effective(node, revocation) for node in nodes.values()))
        await until(lambda: all(len(said(node)) == 4 for node in nodes.values()))
        await nodes[SOUTH].stop()
        # In the same second it would write the same record.
        with trio.move_on_after(5):
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            again = nodes[SOUTH].reborn()
            again.transport.set_peers([n.peer for n in nodes.values() if n.name != SOUTH])
            await nursery.start(again.run)
            await until(lambda: again.core.voter.votes(again.core.clock.now()))
            await again.service.call(lambda: None)
            assert len(said(again)) == 4
            nursery.cancel_scope.cancel()


def said(node: RunningNode) -> list[object]:
    return list(node.core.holdings.state.of_kind("acknowledgement"))


async def test_what_its_author_may_not_take_back_is_not_acknowledged(autojump: object) -> None:
    async with four() as (world, nodes):
        foreign = world[SOUTH].revoke(automation(world, NORTH).id)
        nothing = world[SOUTH].revoke(b"\x07" * 32)
        for record in (foreign, nothing):
            await publish(nodes[SOUTH], record)
        await until(lambda: all(row(node, nothing) for node in nodes.values()))
        for node in nodes.values():
            await node.service.call(lambda: None)
            assert said(node) == []
        shown = row(nodes[NORTH], foreign)
        assert shown["takes_back"][0]["counts"] is False  # type: ignore[index]
        # And the credential is not shown as revoked.
        assert revocations.state_of(nodes[NORTH].core, held(nodes[NORTH], automation(world, NORTH))) == ""


def held(node: RunningNode, record: SignedRecord) -> VerifiedRecord[Any]:
    found = node.core.holdings.get(record.id)
    assert found is not None
    return found


async def test_a_revocation_that_comes_before_what_it_takes_back_is_acknowledged_then(
    autojump: object,
) -> None:
    world = World()
    credential = world[NORTH].credential("agent/late", kind="agent")
    revocation = world[NORTH].revoke(credential.id)
    holdings, author = world[SOUTH].holdings, world[SOUTH].node
    holdings.admit([revocation])
    assert acknowledge(holdings, author, START) == ()
    holdings.admit([credential])
    (acknowledgement,) = acknowledge(holdings, author, START)
    assert acknowledgement.header.subject == (revocation.id,)
    holdings.admit([acknowledgement])
    assert acknowledge(holdings, author, START) == ()


async def test_a_delegators_revocation_is_acknowledged_and_shown(autojump: object) -> None:
    async with four() as (world, nodes):
        north = world[NORTH]
        north.credential("operator/lead", delegations=2)
        agent = north.credential("agent/a1", kind="agent", under="operator/lead", delegations=0)
        for record in (north.credentials["operator/lead"][1], agent):
            await publish(nodes[NORTH], record)
        revocation = north.revoke(agent.id, by=north.credentials["operator/lead"][0])
        await publish(nodes[NORTH], revocation)
        await until(lambda: effective(nodes[SOUTH], revocation))
        shown = row(nodes[SOUTH], revocation)
        assert shown["takes_back"][0]["counts"] is True  # type: ignore[index]
        assert revocations.state_of(nodes[SOUTH].core, held(nodes[SOUTH], agent)) == "revoked"


async def test_many_are_acknowledged_together(autojump: object) -> None:
    world = World()
    holdings, author = world[SOUTH].holdings, world[SOUTH].node
    count = SUBJECTS_MAX + 3
    other = world[NORTH].credential("operator/other")
    holdings.admit([other])
    # Of one key about one record no more than a vote looks at would be acknowledged.
    about = (automation(world, NORTH).id, other.id)
    for number in range(count):
        holdings.admit([world[NORTH].suspend(about[number % 2], START + 100 + number)])
    records = acknowledge(holdings, author, START)
    assert [len(record.header.subject) for record in records] == [SUBJECTS_MAX, 3]


async def test_what_is_waited_for_is_bounded_for_each_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledged_module, "WAITING_PER_MEMBER_MAX", 8)
    world = World()
    holdings, author = world[SOUTH].holdings, world[SOUTH].node
    credential = world[NORTH].credential("operator/late")
    revocation = world[NORTH].revoke(credential.id)
    holdings.admit([revocation])
    assert acknowledge(holdings, author, START) == ()
    for number in range(50):
        holdings.admit([world[INSTITUTE].revoke(bytes([number]) * 32)])
        assert acknowledge(holdings, author, START) == ()
    assert len(holdings.acknowledged._waiting) == 1 + 8
    # What one member says of records that nobody has does not make this node forget another's word.
    holdings.admit([credential])
    (said,) = acknowledge(holdings, author, START)
    assert said.header.subject == (revocation.id,)


async def test_no_more_is_acknowledged_than_is_looked_at(autojump: object) -> None:
    world = World()
    holdings, author = world[SOUTH].holdings, world[SOUTH].node
    credential = automation(world, NORTH).id
    for number in range(ADVERSE_PER_SUBJECT_MAX + 20):
        holdings.admit([world[NORTH].suspend(credential, START + 100 + number)])
    named = [subject for record in acknowledge(holdings, author, START) for subject in record.header.subject]
    assert sorted(named) == [record.id for record in holdings.adverse_about((credential,))]
    assert len(named) == ADVERSE_PER_SUBJECT_MAX


async def test_a_member_has_acknowledged_when_each_of_its_nodes_has(autojump: object) -> None:
    async with four() as (world, nodes):
        second = world[SOUTH].certify("n2")
        await publish(nodes[SOUTH], second)
        revocation = world[NORTH].revoke(automation(world, NORTH).id)
        await publish(nodes[NORTH], revocation)
        await until(lambda: effective(nodes[NORTH], revocation))
        reach = reach_of(nodes[NORTH].core.holdings, revocation.id, START)
        # The second node may vote, and has said nothing.
        assert reach.missing == (SOUTH,)
        author = world[SOUTH].node_author("n2", second)
        body = Acknowledgement(salt=NO_SALT)
        await publish(nodes[SOUTH], author.write("acknowledgement", body, START, subject=(revocation.id,)))
        await until(lambda: reach_of(nodes[NORTH].core.holdings, revocation.id, START).missing == ())


async def test_what_was_made_under_a_credential_that_was_revoked_is_marked(autojump: object) -> None:
    async with four() as (world, nodes):
        north = nodes[NORTH]
        answer = await submit(north, world, step("plain/a"))
        await make(north, answer, b"made")
        target = ancestry.target_of(north.core, "plain/a", None)
        (made,) = ancestry.lineage(north.core, target)["actuations"]
        assert made["marks"] == []
        foreign = world[SOUTH].revoke(automation(world, NORTH).id)
        revocation = world[NORTH].revoke(automation(world, NORTH).id)
        await publish(north, foreign)
        await publish(north, revocation)
        (made,) = ancestry.lineage(north.core, target)["actuations"]
        # It stands, and says since what; a stranger to the credential marks nothing.
        assert [mark["record"] for mark in made["marks"]] == [revocation.id.hex()]
        assert made["marks"][0]["of"] == automation(world, NORTH).id.hex()


async def test_an_unstarted_permit_is_judged_again_when_its_input_is_marked(autojump: object) -> None:
    async with four() as (world, nodes):
        north, institute = nodes[NORTH], nodes[INSTITUTE]
        await publish(north, world[NORTH].owner_policy(plain=("standing", START + YEAR)))
        await make(north, await submit(north, world, step("plain/a")), b"made")
        form = step("plain/b", f"{NORTH}/plain/a")
        answer = await submit(institute, world, form)
        assert answer.outcome == "execute"
        revocation = world[NORTH].revoke(automation(world, NORTH).id)
        await publish(north, revocation)
        await until(lambda: row(institute, revocation) is not None)
        with pytest.raises(Refused, match="speaks against it") as refused:
            await make(institute, answer, b"used")
        assert refused.value.code == "adverse_held"
        # It stands all the same: with the mark named, it is permitted again, in a round of a later second.
        with trio.move_on_after(2):
            await trio.sleep_forever()
        again = await submit(institute, world, form)
        assert (again.outcome, again.intent) == ("execute", answer.intent)
        await make(institute, again, b"used")


def test_a_quorum_that_knows_leaves_none_that_does_not() -> None:
    for n in range(1, 40):
        q, f = quorum_of(n), (n - 1) // 3
        # Those who have not acknowledged, and those who lie about it.
        assert (n - q) + f < q
