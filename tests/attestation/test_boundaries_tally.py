"""The edges of counting votes: every condition of a vote, a permit and a refusal, each violated alone."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from altered import headed
from comity.attestation.authoring import NO_SALT
from comity.attestation.tally import (
    Permitted,
    Refused,
    Undecided,
    countable,
    permit_problem,
    refusal_problem,
    tally,
    vote_problem,
)
from comity.protocol.execution import Ask, Claim, ClassJudgement, Permit, Refusal, ScopeEpoch, Vote
from comity.protocol.governance import Member
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import sha256
from comity.protocol.limits import LEASE_S
from comity.protocol.outcome import Cause, Extent, Mode, Need, Obligation, Outcome
from comity.protocol.verified import VerifiedRecord
from world import BOARD, ENGINE, FOUR, INSTITUTE, NORTH, SOUTH, START, YEAR, World, key

STATE = GovernanceState(tier=0, realm="production", owners=(NORTH,), purpose="care", weight=500_000)
WHOLE = Extent(items=((0, 0),), columns=((0, 3),))
COLUMNS = ("a", "b", "c", "d")
ROWS = Obligation(code="min_group_rows", parameters={"rows": 5})


def says(
    mode: Mode = Mode.EXECUTE,
    columns: tuple[tuple[int, int], ...] = ((0, 3),),
    *obligations: Obligation,
    live: tuple[str, ...] = (),
    state: GovernanceState = STATE,
    cause: str = "",
    need: str = "",
) -> ClassJudgement:
    below = mode.rank < Mode.RESTRICT.rank
    outcome = Outcome(
        mode=mode,
        extent=Extent() if below else Extent(items=((0, 0),), columns=columns),
        obligations=obligations,
        causes=(Cause(code=cause),) if cause else (),
        needs=(Need(code=need),) if need else (),
    )
    return ClassJudgement(outcome=outcome, weight=500_000, state=state, live=live)


REFUSES = says(Mode.REFUSE, cause="forbidden_class")
DEFERS = says(Mode.DEFER, cause="tier_low", need="tier")
ALLOWS = says()


class Count:
    """An intent of North's with some classes, its ask, and votes as each member would cast them."""

    def __init__(self, classes: int = 1, t: int = START, members: tuple[str, ...] = FOUR) -> None:
        self.world = World(members)
        self.north = self.world[NORTH]
        self.epoch = self.north.holdings.epoch
        assets = [f"plain/{number}" for number in range(classes)]
        self.intent = self.verified(self.north.intent(*assets, columns=COLUMNS))
        body = Ask(
            salt=NO_SALT,
            intent=self.intent.id,
            t=t,
            epochs=(ScopeEpoch(scope=self.epoch.coalition, epoch=self.epoch.id),),
            relied=(),
        )
        self.t = t
        self.ask = self.verified(self.north.node.write("ask", body, START, subject=(self.intent.id,)))

    def verified(self, record: Any) -> VerifiedRecord[Any]:
        self.north.holdings.admit([record])
        held = self.north.holdings.get(record.id)
        assert held is not None
        return held

    def vote(self, member: str, *judgements: ClassJudgement, author: Any = None, **changes: Any) -> Any:
        body = Vote(
            salt=NO_SALT,
            intent=self.intent.id,
            ask=self.ask.id,
            t=self.t,
            scope=self.epoch.coalition,
            epoch=self.epoch.id,
            engine=ENGINE,
            expires=self.t + 600,
            judgements=judgements or (ALLOWS,),
            working=sha256(b"working"),
        )
        author = author or self.world[member].node
        return self.verified(author.write("vote", msgspec.structs.replace(body, **changes), START))

    def tally(self, *votes: Any) -> Any:
        return tally(votes, self.ask, self.intent, self.epoch)

    def problem(self, vote: Any, **changes: Any) -> str | None:
        found = vote_problem(vote, self.ask.id, self.intent, self.t, changes.get("epoch", self.epoch))
        return found.cause.code if found is not None else None

    def permit(self, *votes: Any, **changes: Any) -> str | None:
        """What is wrong with a permit that rests on these votes."""
        claim = Claim(index=0, mode=Mode.EXECUTE, extent=WHOLE, state=STATE)
        body = Permit(
            salt=NO_SALT,
            intent=self.intent.id,
            ask=self.ask.id,
            t=self.t,
            scope=self.epoch.coalition,
            epoch=self.epoch.id,
            claims=(claim,),
            votes=tuple(sorted(vote.id for vote in votes)),
            expires=self.t + 600,
        )
        author = changes.pop("author", self.north.node)
        held = changes.pop("held", {vote.id: vote for vote in votes})
        record = self.verified(author.write("permit", msgspec.structs.replace(body, **changes), START))
        found = permit_problem(record, self.intent, held, self.epoch)
        return found.cause.code if found is not None else None

    def refusal(self, *votes: Any, **changes: Any) -> str | None:
        body = Refusal(
            salt=NO_SALT,
            intent=self.intent.id,
            ask=self.ask.id,
            t=self.t,
            scope=self.epoch.coalition,
            epoch=self.epoch.id,
            votes=tuple(sorted(vote.id for vote in votes)),
        )
        held = changes.pop("held", {vote.id: vote for vote in votes})
        record = self.verified(
            self.north.node.write("refusal", msgspec.structs.replace(body, **changes), START)
        )
        found = refusal_problem(record, self.intent, held, self.epoch)
        return found.cause.code if found is not None else None


# One vote

OTHER = sha256(b"another")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"ask": OTHER}, "vote_spliced"),
        ({"intent": OTHER}, "vote_spliced"),
        ({"t": START + 1}, "vote_spliced"),
        ({"epoch": OTHER}, "vote_of_another_epoch"),
        ({"scope": OTHER}, "vote_of_another_epoch"),
        ({"engine": OTHER}, "engine_unknown"),
        ({"expires": START}, "vote_wrong"),
        ({"expires": START + LEASE_S + 1}, "vote_wrong"),
        ({"judgements": (ALLOWS, ALLOWS)}, "vote_wrong"),
    ],
)
def test_a_vote_is_for_one_round_epoch_and_engine(changes: dict[str, Any], code: str | None) -> None:
    count = Count()
    vote = count.vote(SOUTH, **changes)
    assert count.problem(vote) == code
    others = [count.vote(name) for name in (NORTH, BOARD)]
    assert isinstance(count.tally(vote, *others), Permitted if code is None else Undecided)
    assert count.permit(vote, *others) == code
    refusing = {**changes, "judgements": (REFUSES,) * len(changes.get("judgements", (ALLOWS,)))}
    against = [count.vote(SOUTH, **refusing), *(count.vote(name, REFUSES) for name in (NORTH, BOARD))]
    assert isinstance(count.tally(*against), Refused if code is None else Undecided)
    assert count.refusal(*against) == code


def test_a_vote_lasts_at_least_a_second() -> None:
    count = Count()
    assert count.problem(count.vote(SOUTH, expires=START + 1)) is None


def test_only_a_vote_is_a_vote() -> None:
    count = Count()
    assert count.problem(count.intent) == "vote_wrong"


def test_a_vote_whose_header_is_of_another_coalition() -> None:
    count = Count()
    vote = count.vote(SOUTH)
    moved = headed(vote, coalition=OTHER)
    assert count.problem(moved) == "vote_of_another_epoch"


@pytest.mark.parametrize(("t", "code"), [(START - YEAR - 1, "vote_before_epoch"), (START - YEAR, None)])
def test_an_epoch_decides_from_its_first_second(t: int, code: str | None) -> None:
    count = Count(t=t)
    assert count.problem(count.vote(SOUTH)) == code


def test_a_vote_counts_under_the_keys_that_the_epoch_lists() -> None:
    count = Count()
    vote = count.vote(SOUTH)
    members = dict(count.epoch.members)
    left = replace(count.epoch, members=MappingProxyType({m: b for m, b in members.items() if m != SOUTH}))
    assert count.problem(vote, epoch=left) == "vote_by_stranger"
    members[SOUTH] = Member(SOUTH, (key("another key of South").public,), (SOUTH,))
    rekeyed = replace(count.epoch, members=MappingProxyType(members))
    assert count.problem(vote, epoch=rekeyed) == "vote_key_not_in_force"


@pytest.mark.parametrize(
    ("times", "code"),
    [
        ({"not_before": START}, None),
        ({"not_before": START + 1}, "vote_key_not_in_force"),
        ({"not_after": START + 1}, None),
        ({"not_after": START}, "vote_key_not_in_force"),
    ],
)
def test_a_vote_counts_while_its_key_is_in_force(times: dict[str, int], code: str | None) -> None:
    count = Count()
    south = count.world[SOUTH]
    certificate = south.certify("n2", **times)
    count.verified(certificate)
    assert count.problem(count.vote(SOUTH, author=south.node_author("n2", certificate))) == code


# Several votes


def test_of_one_members_votes_the_one_with_the_smallest_id_counts() -> None:
    count = Count()
    votes = [count.vote(SOUTH, expires=START + 100 + n) for n in range(5)]
    first = min(votes, key=lambda v: v.id)
    for order in (votes, votes[::-1]):
        assert countable(order, count.ask, count.intent, count.epoch) == (first,)


def test_a_vote_that_does_not_count_hides_none_that_does() -> None:
    count = Count()
    wrong = [count.vote(SOUTH, ask=sha256(b"%d" % n)) for n in range(5)]
    right = count.vote(SOUTH)
    assert countable([*wrong, right], count.ask, count.intent, count.epoch) == (right,)
    assert count.tally(*wrong).votes == ()


def test_votes_that_count_are_in_the_order_of_their_members() -> None:
    count = Count()
    votes = [count.vote(name) for name in FOUR]
    found = countable(votes, count.ask, count.intent, count.epoch)
    assert [vote.member for vote in found] == sorted(FOUR)


def test_two_votes_of_one_member_are_no_two_voters() -> None:
    """Neither under one key, nor under the keys of two of its nodes."""
    count = Count()
    south = count.world[SOUTH]
    certificate = south.certify("n2")
    count.verified(certificate)
    second = south.node_author("n2", certificate)
    for twice in (count.vote(SOUTH, expires=START + 500), count.vote(SOUTH, author=second)):
        votes = (count.vote(NORTH), count.vote(SOUTH), twice)
        assert isinstance(count.tally(*votes), Undecided)
        assert count.permit(*votes) == "vote_twice"
    again = count.vote(SOUTH, REFUSES), count.vote(SOUTH, REFUSES, expires=START + 500)
    assert count.refusal(count.vote(NORTH, REFUSES), *again) == "vote_twice"
    nodes = count.vote(SOUTH, REFUSES), count.vote(SOUTH, REFUSES, author=second)
    assert count.refusal(count.vote(NORTH, REFUSES), *nodes) == "no_quorum"


def test_one_key_under_two_names_is_one_voter() -> None:
    count = Count()
    votes = [count.vote(name) for name in (NORTH, SOUTH, BOARD)]
    shared = headed(votes[2], key=votes[1].header.key)
    given = [*votes[:2], shared]
    assert len(countable(given, count.ask, count.intent, count.epoch)) == 2
    assert isinstance(count.tally(*given), Undecided)
    assert count.permit(*given) == "vote_twice"
    refusing = [count.vote(name, REFUSES) for name in (NORTH, SOUTH)]
    bent = headed(count.vote(BOARD, REFUSES), key=refusing[1].header.key)
    assert count.refusal(*refusing, bent) == "vote_twice"


# What is decided


def test_a_quorum_refuses_and_its_causes_are_told() -> None:
    count = Count()
    votes = [count.vote(name, REFUSES) for name in (NORTH, SOUTH, BOARD)]
    found = count.tally(*votes, count.vote(INSTITUTE, ALLOWS))
    assert isinstance(found, Refused)
    assert {vote.member for vote in found.votes} == {NORTH, SOUTH, BOARD}
    assert {cause.code for cause in found.causes} == {"forbidden_class"}
    assert isinstance(count.tally(*votes[:2], count.vote(INSTITUTE, ALLOWS)), Undecided)


def test_who_refuses_one_class_refuses_not_all() -> None:
    count = Count(classes=2)
    votes = [count.vote(name, REFUSES, ALLOWS) for name in (NORTH, SOUTH, BOARD)]
    found = count.tally(*votes)
    assert isinstance(found, Permitted)
    assert [claim.index for claim in found.claims] == [1]
    assert count.refusal(*votes) == "claim_unsupported"


def test_who_defers_does_not_refuse() -> None:
    count = Count()
    votes = [count.vote(name, DEFERS) for name in (NORTH, SOUTH, BOARD)]
    found = count.tally(*votes)
    assert isinstance(found, Undecided)
    assert {cause.code for cause in found.causes} == {"tier_low"}
    assert {need.code for need in found.needs} == {"tier"}
    assert count.refusal(*votes) == "claim_unsupported"


def test_fewer_than_a_quorum_is_held_and_says_how_many() -> None:
    count = Count()
    votes = [count.vote(name) for name in (NORTH, SOUTH)]
    found = count.tally(*votes)
    assert isinstance(found, Undecided)
    assert [cause.parameters for cause in found.causes if cause.code == "no_quorum"] == [
        {"votes": 2, "quorum": 3}
    ]
    split = [count.vote(NORTH), count.vote(SOUTH), count.vote(BOARD, DEFERS)]
    assert "no_quorum" not in {cause.code for cause in count.tally(*split).causes}


def test_the_claim_of_agreeing_votes_is_carried_by_owners_and_the_first_names() -> None:
    count = Count()
    votes = [count.vote(name, says(live=(SOUTH,))) for name in FOUR]
    found = count.tally(*votes)
    assert isinstance(found, Permitted)
    assert {vote.member for vote in found.votes} == {SOUTH, *sorted(set(FOUR) - {SOUTH})[:2]}
    assert found.claims[0].live == (SOUTH,)
    assert [vote.id for vote in found.votes] == sorted(vote.id for vote in found.votes)


def test_as_many_votes_carry_a_claim_as_there_are_live_owners() -> None:
    """Live owners beyond a quorum are all among the voters; those that are silent make it no claim."""
    count = Count()
    everybody = tuple(sorted(FOUR))
    votes = [count.vote(name, says(live=everybody)) for name in FOUR]
    found = count.tally(*votes)
    assert isinstance(found, Permitted)
    assert len(found.votes) == 4
    silent = count.tally(*votes[:3])
    assert isinstance(silent, Undecided)
    missing = votes[3].member
    assert [c.parameters for c in silent.causes if c.code == "owner_silent"] == [{"member": missing}]
    assert [n.parameters for n in silent.needs if n.code == "consent"] == [{"member": missing}]


def test_an_owner_of_any_class_is_among_the_voters() -> None:
    count = Count(classes=2)
    votes = [count.vote(name, ALLOWS, says(live=(SOUTH,))) for name in FOUR]
    found = count.tally(*votes)
    assert isinstance(found, Permitted)
    assert SOUTH in {vote.member for vote in found.votes}
    assert [claim.index for claim in found.claims] == [0, 1]


def test_the_claim_of_votes_that_differ_is_the_most_that_a_quorum_supports() -> None:
    """Three of four that allow all carry it; the fourth, that allows less, is left out."""
    count = Count()
    less = count.vote(BOARD, says(Mode.RESTRICT, ((0, 1),)))
    allowing = [count.vote(name) for name in (NORTH, SOUTH, INSTITUTE)]
    found = count.tally(less, *allowing)
    assert isinstance(found, Permitted)
    assert found.claims[0].mode is Mode.EXECUTE
    assert {vote.member for vote in found.votes} == {NORTH, SOUTH, INSTITUTE}
    narrow = count.tally(less, *allowing[:2])
    assert isinstance(narrow, Permitted)
    assert (narrow.claims[0].mode, narrow.claims[0].extent.columns) == (Mode.RESTRICT, ((0, 1),))


@pytest.mark.parametrize("odd", FOUR)
@pytest.mark.parametrize(
    "worse",
    [
        says(Mode.RESTRICT, ((0, 2),)),
        says(Mode.RESTRICT, ((0, 3),), ROWS),
        REFUSES,
        DEFERS,
    ],
    ids=["columns", "obligation", "refuses", "defers"],
)
def test_one_that_allows_less_does_not_lessen_what_the_others_allow(odd: str, worse: ClassJudgement) -> None:
    count = Count()
    votes = [count.vote(name, worse if name == odd else ALLOWS) for name in FOUR]
    found = count.tally(*votes)
    assert isinstance(found, Permitted)
    assert (found.claims[0].mode, found.claims[0].extent, found.claims[0].obligations) == (
        Mode.EXECUTE,
        WHOLE,
        (),
    )


def test_more_columns_before_fewer_obligations() -> None:
    count = Count()
    wide = says(Mode.RESTRICT, ((0, 3),), ROWS)
    narrow = says(Mode.RESTRICT, ((0, 1),))
    found = count.tally(
        count.vote(NORTH, wide), count.vote(SOUTH, wide), count.vote(BOARD, narrow), count.vote(INSTITUTE)
    )
    assert isinstance(found, Permitted)
    assert {vote.member for vote in found.votes} == {NORTH, SOUTH, INSTITUTE}


def test_where_a_quorum_needs_all_votes_all_are_tried() -> None:
    """The set of all votes is one of the sets: an owner in it may be live for some voter only."""
    count = Count()
    votes = [count.vote(name, says(live=(FOUR[(n + 1) % 4],))) for n, name in enumerate(FOUR)]
    found = count.tally(*votes)
    assert isinstance(found, Permitted)
    assert len(found.votes) == 4
    assert found.claims[0].live == tuple(sorted(FOUR))


def test_votes_that_differ_in_the_state_carry_no_claim_together() -> None:
    count = Count()
    milder = msgspec.structs.replace(STATE, owners=(BOARD,))
    votes = [count.vote(NORTH), count.vote(SOUTH), count.vote(BOARD, says(state=milder))]
    assert isinstance(count.tally(*votes), Undecided)
    assert count.permit(*votes) == "claim_unsupported"


def test_a_claim_ends_with_its_first_vote() -> None:
    count = Count()
    votes = [count.vote(name, expires=START + 600 - n) for n, name in enumerate((NORTH, SOUTH, BOARD))]
    found = count.tally(*votes)
    assert isinstance(found, Permitted)
    assert found.expires == START + 598
    assert count.permit(*votes, expires=START + 598) is None
    assert count.permit(*votes, expires=START + 599) == "permit_wrong"


def test_of_equal_claims_the_smallest_certificate_is_kept() -> None:
    """What voters weighed differently makes no other claim."""
    count = Count()
    judgements = [msgspec.structs.replace(ALLOWS, weight=400_000 + n) for n in range(4)]
    votes = [count.vote(name, judgement) for name, judgement in zip(sorted(FOUR), judgements, strict=True)]
    found = count.tally(*votes)
    assert isinstance(found, Permitted)
    assert {vote.id for vote in found.votes} == {vote.id for vote in votes[:3]}


def test_owners_that_are_no_voters_make_a_certificate_no_larger() -> None:
    count = Count(classes=2)
    gone = says(live=(BOARD, NORTH, SOUTH, "gone.example"))
    found = count.tally(*(count.vote(name, ALLOWS, gone) for name in FOUR))
    assert isinstance(found, Permitted)
    assert [claim.index for claim in found.claims] == [0]
    assert {vote.member for vote in found.votes} == {BOARD, NORTH, SOUTH}


def test_who_is_alone_decides_alone() -> None:
    count = Count(members=(NORTH,))
    assert isinstance(count.tally(count.vote(NORTH)), Permitted)
    assert isinstance(count.tally(), Undecided)
    assert count.permit(count.vote(NORTH)) is None
    assert isinstance(count.tally(count.vote(NORTH, REFUSES)), Refused)


# A permit, read again


def claim(index: int = 0, mode: Mode = Mode.EXECUTE, extent: Extent = WHOLE, **fields: Any) -> Claim:
    given: dict[str, Any] = {"state": STATE, **fields}
    return Claim(index=index, mode=mode, extent=extent, **given)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"intent": OTHER}, "permit_foreign"),
        ({"scope": OTHER}, "permit_of_another_epoch"),
        ({"epoch": OTHER}, "permit_of_another_epoch"),
        ({"ask": OTHER}, "vote_spliced"),
        ({"t": START + 1}, "vote_spliced"),
        ({"expires": START + 599}, None),
        ({"expires": START + 601}, "permit_wrong"),
        ({"claims": (claim(1),)}, "claim_unsupported"),
        ({"claims": (claim(), claim())}, "permit_wrong"),
        ({"claims": (claim(live=(INSTITUTE,)),)}, "owner_silent"),
        ({"claims": (claim(live=(NORTH,)),)}, None),
        ({"claims": (claim(mode=Mode.RESTRICT),)}, None),
        ({"claims": (claim(mode=Mode.DEFER),)}, "claim_unsupported"),
        ({"claims": (claim(extent=Extent(items=((0, 0),), columns=((0, 4),))),)}, "claim_unsupported"),
        ({"claims": (claim(extent=Extent(items=((0, 1),), columns=((0, 3),))),)}, "claim_unsupported"),
        ({"claims": (claim(state=msgspec.structs.replace(STATE, tier=1)),)}, "claim_unsupported"),
    ],
)
def test_a_permit_says_what_its_votes_say(changes: dict[str, Any], code: str | None) -> None:
    count = Count()
    votes = [count.vote(name) for name in (NORTH, SOUTH, BOARD)]
    assert count.permit(*votes, **changes) == code


def test_a_permit_is_its_requesters() -> None:
    count = Count()
    votes = [count.vote(name) for name in (NORTH, SOUTH, BOARD)]
    assert count.permit(*votes, author=count.world[SOUTH].node) == "permit_foreign"


def test_a_permit_whose_header_is_of_another_coalition() -> None:
    count = Count()
    votes = [count.vote(name) for name in (NORTH, SOUTH, BOARD)]
    body = Permit(
        salt=NO_SALT,
        intent=count.intent.id,
        ask=count.ask.id,
        t=START,
        scope=count.epoch.coalition,
        epoch=count.epoch.id,
        claims=(claim(),),
        votes=tuple(sorted(vote.id for vote in votes)),
        expires=START + 600,
    )
    record = count.verified(count.north.node.write("permit", body, START))
    held = {vote.id: vote for vote in votes}
    assert permit_problem(record, count.intent, held, count.epoch) is None
    moved = headed(record, coalition=OTHER)
    found = permit_problem(moved, count.intent, held, count.epoch)
    assert found is not None
    assert found.cause.code == "permit_of_another_epoch"


def test_each_vote_supports_each_claim() -> None:
    count = Count(classes=2)
    votes = [count.vote(name, ALLOWS, ALLOWS) for name in (NORTH, SOUTH)]
    last = count.vote(BOARD, ALLOWS, REFUSES)
    assert count.permit(*votes, last) is None
    assert count.permit(*votes, last, claims=(claim(0), claim(1))) == "claim_unsupported"
    whole = count.vote(BOARD, ALLOWS, ALLOWS)
    assert count.permit(*votes, whole, claims=(claim(0), claim(1))) is None
    assert count.permit(*votes, whole, claims=(claim(1), claim(0))) == "permit_wrong"


def test_an_obligation_or_an_owner_of_one_vote_is_in_the_claim() -> None:
    count = Count()
    votes = [count.vote(NORTH), count.vote(SOUTH)]
    obliging = count.vote(BOARD, says(Mode.RESTRICT, ((0, 3),), ROWS))
    assert count.permit(*votes, obliging, claims=(claim(mode=Mode.RESTRICT),)) == "claim_unsupported"
    kept = (claim(mode=Mode.RESTRICT, obligations=(ROWS,)),)
    assert count.permit(*votes, obliging, claims=kept) is None
    listening = count.vote(BOARD, says(live=(SOUTH,)))
    assert count.permit(*votes, listening) == "claim_unsupported"
    assert count.permit(*votes, listening, claims=(claim(live=(SOUTH,)),)) is None


@pytest.mark.parametrize(("voters", "code"), [(2, "no_quorum"), (3, None), (4, None)])
def test_a_certificate_has_a_quorum(voters: int, code: str | None) -> None:
    count = Count()
    assert count.permit(*(count.vote(name) for name in FOUR[:voters])) == code
    assert count.refusal(*(count.vote(name, REFUSES) for name in FOUR[:voters])) == code


def test_a_vote_that_is_not_at_hand_is_missing() -> None:
    count = Count()
    votes = [count.vote(name) for name in FOUR]
    held = {vote.id: vote for vote in votes[:3]}
    assert count.permit(*votes, held=held) == "vote_missing"
    against = [count.vote(name, REFUSES) for name in FOUR]
    assert count.refusal(*against, held={vote.id: vote for vote in against[:3]}) == "vote_missing"


@pytest.mark.parametrize("field", ["intent", "scope", "epoch"])
def test_a_refusal_is_of_one_intent_scope_and_epoch(field: str) -> None:
    count = Count()
    votes = [count.vote(name, REFUSES) for name in (NORTH, SOUTH, BOARD)]
    assert count.refusal(*votes) is None
    assert count.refusal(*votes, **{field: OTHER}) == "refusal_foreign"
