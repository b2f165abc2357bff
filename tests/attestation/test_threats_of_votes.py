"""Attacks by one vote among honest ones: it neither shortens nor narrows what a quorum without it carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from comity.attestation.authoring import NO_SALT
from comity.attestation.requester import NEWS_GAP_S, NewsArrived, SendAsk
from comity.attestation.tally import vote_problem
from comity.attestation.voter import AskArrived, SendVote
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Vote
from comity.protocol.governance import ReferenceValues
from comity.protocol.identifiers import sha256
from comity.protocol.limits import LEASE_S
from comity.protocol.outcome import Cause, Extent, Mode, Obligation
from comity.protocol.records import decode_body
from world import BOARD, COLUMNS, INSTITUTE, NORTH, SOUTH, START, World

Lie = Callable[[Vote], Vote]


def lying(world: World, name: str, lie: Lie) -> None:
    """Have a member sign other votes than it arrives at."""
    organization = world[name]
    honest = organization.voter.handle

    def handle(now: int, event: AskArrived) -> tuple[Any, ...]:
        said: list[Any] = []
        for effect in honest(now, event):
            if isinstance(effect, SendVote):
                body: Any = decode_body(effect.vote)
                said.append(SendVote(effect.ask, _signed(organization, lie(body), now)))
            else:
                said.append(effect)
        return tuple(said)

    organization.voter.handle = handle  # type: ignore[method-assign]


def _signed(organization: Any, body: Vote, now: int) -> SignedRecord:
    record: SignedRecord = organization.node.write("vote", body, at=now, subject=(body.intent,))
    return record


def judged(**changes: Any) -> Lie:
    """A lie about the outcome of every class."""

    def lie(vote: Vote) -> Vote:
        return msgspec.structs.replace(
            vote,
            judgements=tuple(
                msgspec.structs.replace(j, outcome=msgspec.structs.replace(j.outcome, **changes))
                for j in vote.judgements
            ),
        )

    return lie


def expiring(expires: int) -> Lie:
    return lambda vote: msgspec.structs.replace(vote, expires=expires)


TINY = Extent(items=((0, 0),), columns=((0, 0),))


@pytest.mark.parametrize("expires", [START + 1, START + 2, START, 0, START + LEASE_S + 1])
def test_a_vote_whose_end_is_a_lie(expires: int) -> None:
    """It counts for nothing, or no other's permit ends with it."""
    world = World()
    lying(world, SOUTH, expiring(expires))
    pursuit = world.decide(world[INSTITUTE].intent("plain/x"))
    assert pursuit.standing == "permitted"
    assert pursuit.permit is not None
    assert pursuit.permit.body.expires == START + LEASE_S
    holdings = world[INSTITUTE].holdings
    assert SOUTH not in {
        vote.member for i in pursuit.permit.body.votes if (vote := holdings.get(i)) is not None
    }


@pytest.mark.parametrize(
    ("expires", "code"),
    [(START, "vote_wrong"), (START + 1, None), (START + LEASE_S, None), (START + LEASE_S + 1, "vote_wrong")],
)
def test_the_end_of_a_vote_lies_within_the_lease(expires: int, code: str | None) -> None:
    world = World()
    north = world[NORTH]
    pursuit = world.decide(north.intent("plain/x"))
    assert pursuit.ask is not None
    vote = pursuit.votes[NORTH]
    record = _signed(north, msgspec.structs.replace(vote.body, expires=expires), START)
    north.holdings.admit([record])
    held = north.holdings.get(record.id)
    assert held is not None
    problem = vote_problem(held, pursuit.ask.id, pursuit.intent, START, north.holdings.epoch)
    assert (problem.cause.code if problem else None) == code


@pytest.mark.parametrize(
    "lie",
    [
        judged(mode=Mode.RESTRICT, extent=TINY, causes=(Cause(code="x"),)),
        judged(mode=Mode.RESTRICT, obligations=(Obligation(code="unknown"),), causes=(Cause(code="x"),)),
        expiring(START + 1),
    ],
    ids=["tiny", "obligation", "short"],
)
@pytest.mark.parametrize("quick", [0, 1, 2])
def test_a_liar_that_answers_quickly_narrows_no_permit(lie: Lie, quick: int) -> None:
    """With a lie among the first quorum the requester waits for who has not answered yet, and takes the best."""
    world = World()
    institute = world[INSTITUTE]
    lying(world, SOUTH, lie)
    intent = institute.intent("plain/x", columns=COLUMNS)
    order = [INSTITUTE, NORTH, BOARD]
    order.insert(quick, SOUTH)
    standing = carried_in_order(world, intent, order)
    pursuit = institute.requester.pursuit(intent.id)
    assert standing == ["asking"] * 3 + ["permitted"]
    assert pursuit is not None
    assert pursuit.permit is not None
    (claim,) = pursuit.permit.body.claims
    assert (claim.mode, claim.extent.columns, claim.obligations) == (
        Mode.EXECUTE,
        ((0, len(COLUMNS) - 1),),
        (),
    )
    assert pursuit.permit.body.expires == START + LEASE_S


def test_a_quorum_that_agrees_is_enough() -> None:
    """Nothing better can come where the silent member could only agree: nobody waits for it."""
    world = World()
    intent = world[INSTITUTE].intent("plain/x", columns=COLUMNS)
    assert carried_in_order(world, intent, [INSTITUTE, NORTH, BOARD]) == ["asking", "asking", "permitted"]
    restricted = world[NORTH].intent("released", columns=COLUMNS, purpose="survival_study")
    assert carried_in_order(world, restricted, [NORTH, BOARD, SOUTH]) == ["asking", "asking", "permitted"]


def carried_in_order(world: World, intent: SignedRecord, order: list[str]) -> list[str]:
    """File an intent and deliver the members' votes one by one. Returns the standing after each."""
    from comity.attestation.requester import IntentFiled, VoteArrived

    requester = world[intent.header.member].requester
    effects = requester.handle(START, IntentFiled(intent))
    (asked,) = [effect for effect in effects if isinstance(effect, SendAsk)]
    standing: list[str] = []
    for name in order:
        for effect in world[name].voter.handle(START, AskArrived(asked.ask, asked.attached)):
            if isinstance(effect, SendVote):
                requester.handle(START, VoteArrived(asked.ask.id, effect.vote))
        pursuit = requester.pursuit(intent.id)
        assert pursuit is not None
        standing.append(pursuit.standing)
    return standing


def test_a_trickle_of_news_uses_up_no_asks() -> None:
    """Fifty small records of a liar would else end every intent that waits; the approval still lifts it."""
    world = World(publishers=(SOUTH,))
    north, south, board = world[NORTH], world[SOUTH], world[BOARD]
    world.tell(
        board.credential(
            "operator/dpo", classes=("data-protection-officer",), actions=("approve",), assets=("*/**",)
        )
    )
    intent = north.intent("pooled")
    pursuit = world.decide(intent)
    assert (pursuit.standing, pursuit.asks) == ("deferred", 1)
    now = START
    for number in range(60):
        now += int(NEWS_GAP_S) + 1
        body = ReferenceValues(salt=NO_SALT, code=(sha256(str(number).encode()),))
        world.tell(south.owner.write("reference_values", body, START, name=f"n{number}"))
        world.tell(south.observe(intent.id, "passed", claim=f"check_{number}"))
        world.carry(north.requester, north.requester.handle(now, NewsArrived()), now, frozenset())
    assert (pursuit.standing, pursuit.asks) == ("deferred", 1)
    world.tell(board.approve("operator/dpo", intent))
    world.carry(north.requester, north.requester.handle(now + 9, NewsArrived()), now + 9, frozenset())
    assert pursuit.standing == "permitted"
