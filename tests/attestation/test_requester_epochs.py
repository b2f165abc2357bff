"""What waits is looked at anew when the coalition changes its rules."""

from __future__ import annotations

import msgspec

from comity.attestation.requester import NewsArrived, SendAsk
from comity.attestation.signing import add_signature
from comity.protocol.encoding import encode
from comity.protocol.envelope import SignedRecord
from comity.protocol.identifiers import sha256
from world import NORTH, START, World, key, policy_body, write_exact

WITHOUT_APPROVALS = """
@id("base") permit(principal, action == Action::"materialize", resource);
@id("base-columns") permit(principal, action == Action::"include", resource);
"""


def next_epoch(world: World, rules: str, started: int) -> tuple[SignedRecord, SignedRecord]:
    """An epoch with other rules, signed by everybody, and its policy."""
    policy = policy_body(rules)
    state = world[NORTH].holdings.epoch
    body = msgspec.structs.replace(
        state.body, previous=state.id, started=started, policies=(sha256(encode(policy)),)
    )
    author = world[NORTH].owner
    record = author.write_exact("epoch", body, started, number=state.number + 1)
    for name in world.members:
        record = add_signature(record, key(name))
    return record, write_exact(author, "policy", policy)


def test_an_intent_that_waits_is_asked_again_under_the_next_epoch() -> None:
    world = World()
    north = world[NORTH]
    intent = north.intent("pooled")
    assert world.decide(intent).standing == "deferred"
    assert north.requester.handle(START + 10, NewsArrived()) == ()
    epoch, policy = next_epoch(world, WITHOUT_APPROVALS, START + 15)
    for member in world.members.values():
        member.holdings.adopt(epoch)
    world.tell(policy)
    effects = north.requester.handle(START + 20, NewsArrived())
    assert any(isinstance(effect, SendAsk) for effect in effects)
    world.carry(north.requester, effects, START + 20, frozenset())
    pursuit = north.requester.pursuit(intent.id)
    assert pursuit is not None
    assert pursuit.standing == "permitted"
