"""The edges of a vote: when a voter answers, and what it says instead."""

from __future__ import annotations

from typing import Any

import pytest

from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.case import Fault
from comity.attestation.holdings import Holdings
from comity.attestation.voter import AskArrived, Decline, SendVote, StoreRecords, StoreVote, Voter
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Ask, ScopeEpoch
from comity.protocol.identifiers import sha256
from comity.protocol.limits import ASK_AHEAD_S, ASK_PAST_S, FETCH_IDS_MAX, START_MARGIN_S
from comity.protocol.outcome import Mode
from world import ENGINE, NORTH, SOUTH, START, World

OTHER = sha256(b"another")


class Door:
    """North asks South."""

    def __init__(self) -> None:
        self.world = World()
        self.north, self.south = self.world[NORTH], self.world[SOUTH]
        self.intent = self.north.intent("plain/a")
        self.credential = self.north.credentials["automation/main"][1]

    def ask(self, t: int = START, *, author: Author | None = None, **changes: Any) -> SignedRecord:
        genesis = self.world.genesis.id
        fields: dict[str, Any] = {
            "intent": self.intent.id,
            "epochs": (ScopeEpoch(scope=genesis, epoch=genesis),),
            "relied": (self.credential.id,),
            **changes,
        }
        return (author or self.north.node).write("ask", Ask(salt=NO_SALT, t=t, **fields), t)

    def effects(self, ask: SignedRecord, now: int = START, *attached: SignedRecord) -> tuple[Any, ...]:
        return self.south.voter.handle(now, AskArrived(ask, attached or (self.intent,)))

    def answer(self, ask: SignedRecord, now: int = START) -> str:
        """The code of a decline, or `vote`."""
        effects = self.effects(ask, now)
        declines = [effect for effect in effects if isinstance(effect, Decline)]
        if declines:
            assert not any(isinstance(effect, SendVote | StoreVote) for effect in effects)
            assert declines[0].ask == ask.id
            return declines[0].code
        assert [type(effect) for effect in effects if not isinstance(effect, StoreRecords)] == [
            StoreVote,
            SendVote,
        ]
        return "vote"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (START + ASK_PAST_S, "vote"),
        (START + ASK_PAST_S + 1, "clock"),
        (START - ASK_AHEAD_S, "vote"),
        (START - ASK_AHEAD_S - 1, "clock"),
    ],
)
def test_t_lies_around_the_voters_clock_to_the_second(now: int, said: str) -> None:
    door = Door()
    assert door.answer(door.ask(), now) == said


def test_a_decline_says_how_far_t_is_from_the_clock() -> None:
    door = Door()
    (said,) = [e for e in door.effects(door.ask(), START + 40) if isinstance(e, Decline)]
    assert said.detail == "t is -40 s from this clock"


@pytest.mark.parametrize(("after", "said"), [(START_MARGIN_S, "starting"), (START_MARGIN_S + 1, "vote")])
def test_no_vote_on_a_t_from_before_the_process_began(after: int, said: str) -> None:
    door = Door()
    door.south.voter = Voter(door.south.node, door.south.holdings, START - after)
    assert door.answer(door.ask()) == said


def test_one_round_has_one_ask_and_one_answer() -> None:
    door = Door()
    ask = door.ask()
    assert door.answer(ask) == "vote"
    (first,) = [e for e in door.effects(ask) if isinstance(e, SendVote)]
    (again,) = [e for e in door.effects(ask, START + 1) if isinstance(e, SendVote)]
    assert first == again
    assert door.answer(door.ask(relied=())) == "asked_twice"
    assert door.answer(door.ask(START + 1)) == "vote"


def test_what_is_new_is_stored_before_the_vote() -> None:
    door = Door()
    ask = door.ask()
    effects = door.effects(ask)
    assert isinstance(effects[0], StoreRecords)
    assert {record.id for record in effects[0].records} == {ask.id, door.intent.id}
    assert not any(isinstance(effect, StoreRecords) for effect in door.effects(ask))


def test_what_is_no_ask_is_unreadable() -> None:
    door = Door()
    assert door.answer(door.intent) == "ask_unreadable"


def test_an_ask_under_a_key_that_nobody_vouches_for_yet_names_who_could() -> None:
    door = Door()
    certificate = door.north.certify("n2")
    ask = door.ask(author=door.north.node_author("n2", certificate))
    (said,) = [e for e in door.effects(ask) if isinstance(e, Decline)]
    assert (said.code, said.missing) == ("records_missing", (certificate.id,))
    answered = door.effects(ask, START, certificate, door.intent)
    assert any(isinstance(effect, SendVote) for effect in answered)


def test_an_ask_whose_signature_is_wrong_is_unreadable() -> None:
    door = Door()
    mine = Author(NORTH, door.south.node.signer, bytes(32), door.north.certificate.id, door.world.genesis.id)
    assert door.answer(door.ask(author=mine)) == "ask_unreadable"


def test_without_taxonomy_or_policies_there_is_no_vote() -> None:
    door = Door()
    for lacking in ("taxonomy", "policy"):
        holdings = Holdings(ENGINE)
        holdings.adopt(door.world.genesis)
        holdings.admit([r for r in door.world.common if r.header.kind != lacking])
        door.south.voter = Voter(door.south.node, holdings, START - 3_600)
        assert door.answer(door.ask()) == "governance_missing"


def test_the_ask_names_the_epoch_in_force_for_its_scope() -> None:
    door = Door()
    genesis = door.world.genesis.id
    right = ScopeEpoch(scope=genesis, epoch=genesis)
    assert door.answer(door.ask(epochs=(ScopeEpoch(scope=genesis, epoch=OTHER),))) == "epoch_other"
    assert door.answer(door.ask(epochs=(ScopeEpoch(scope=OTHER, epoch=genesis),))) == "epoch_other"
    crossed = (ScopeEpoch(scope=genesis, epoch=OTHER), ScopeEpoch(scope=OTHER, epoch=genesis))
    assert door.answer(door.ask(epochs=crossed)) == "epoch_other"
    ask = door.ask(epochs=(right, ScopeEpoch(scope=OTHER, epoch=OTHER)))
    (vote,) = [e.vote for e in door.effects(ask) if isinstance(e, SendVote)]
    door.north.holdings.admit([vote])
    held = door.north.holdings.get(vote.id)
    assert held is not None
    outcome = held.body.judgements[0].outcome
    assert (outcome.mode, {cause.code for cause in outcome.causes}) == (Mode.REFUSE, {"scope_wrong"})


def test_what_is_not_held_is_named_within_a_bound() -> None:
    door = Door()
    (said,) = [
        e
        for e in door.effects(door.ask(relied=tuple(sorted((OTHER, door.credential.id)))))
        if isinstance(e, Decline)
    ]
    assert (said.code, said.missing) == ("records_missing", (OTHER,))
    many = tuple(sorted(sha256(b"%d" % n) for n in range(FETCH_IDS_MAX)))
    (said,) = [e for e in door.effects(door.ask(intent=OTHER, relied=many)) if isinstance(e, Decline)]
    assert len(said.missing) == FETCH_IDS_MAX
    assert said.missing[0] == OTHER


def test_an_intent_is_an_intent() -> None:
    door = Door()
    assert door.answer(door.ask(intent=door.credential.id)) == "ask_unreadable"


def test_a_fault_of_the_judgement_is_no_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 4: whoever cannot judge abstains, and abstention supports nothing."""
    door = Door()
    fault = Fault("policy_fault", "policy_rule_error")
    monkeypatch.setattr("comity.attestation.voter.judge", lambda case: fault)
    assert door.answer(door.ask()) == "policy_fault"


@pytest.mark.parametrize("members", [1, 2, 3, 4, 7])
def test_a_voter_that_catches_up_goes_through_all_but_its_own_of_a_quorum(members: int) -> None:
    world = World([f"m{number}.example" for number in range(members)])
    own, *others = sorted(world.members)
    voter = Voter(world[own].node, world[own].holdings, START - 3_600, catches_up=True)
    due = world[own].holdings.epoch.quorum - 1
    for name in others[:due]:
        assert not voter.votes(START)
        voter.caught_up_with(own)
        voter.caught_up_with("stranger.example")
        voter.caught_up_with(name)
        voter.caught_up_with(name)
    assert voter.votes(START)
    assert not voter.votes(START - 3_600)
