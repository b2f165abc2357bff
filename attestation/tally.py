"""From votes to a decision: a permit's claim, a refusal, or neither.

A permit is a claim with a quorum of votes that each support all of it; a refusal is a quorum of votes that
each refuse every class. Whoever assembles a permit may pick the votes and gains nothing, for each by itself
approves the claim. What is neither is deferred: an absence, which has no certificate.

Spec: docs/spec/decision.md section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

from comity.attestation.epochs import EpochState
from comity.attestation.findings import Finding, refuse, short
from comity.protocol.encoding import encode
from comity.protocol.execution import Ask, Claim, Intent, Permit, Refusal, Vote
from comity.protocol.governance_state import GovernanceState
from comity.protocol.limits import LEASE_S, OWNERS_MAX, TERMS_MAX
from comity.protocol.outcome import (
    Cause,
    Extent,
    Mode,
    Need,
    Obligation,
    Outcome,
    execute,
    full_extent,
    meet,
    ranges_count,
    supports,
    union,
)
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
VoteRecord: TypeAlias = VerifiedRecord[Vote]


@dataclass(frozen=True, slots=True)
class Permitted:
    """A claim and the votes that carry it."""

    claims: tuple[Claim, ...]
    votes: tuple[VoteRecord, ...]
    expires: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A quorum refuses all of it."""

    votes: tuple[VoteRecord, ...]
    causes: tuple[Cause, ...]


@dataclass(frozen=True, slots=True)
class Undecided:
    """Neither: what the votes in hand say, and what would help."""

    votes: tuple[VoteRecord, ...]
    causes: tuple[Cause, ...]
    needs: tuple[Need, ...]


Tally: TypeAlias = Permitted | Refused | Undecided


def full_extents(intent: Intent) -> tuple[Extent, ...]:
    return tuple(full_extent(len(group.items), len(group.columns)) for group in intent.classes)


def countable(
    votes: Sequence[VoteRecord], ask: VerifiedRecord[Ask], intent: VerifiedRecord[Intent], epoch: EpochState
) -> tuple[VoteRecord, ...]:
    """The votes that may count for an ask: one per organization and per key, well-formed, in force at t.

    Of an organization's votes the one with the smallest id is taken; a second is a proof of misbehaviour.
    """
    counted: dict[str, VoteRecord] = {}
    for vote in sorted(votes, key=lambda v: v.id):
        if vote_problem(vote, ask.id, intent, ask.body.t, epoch) is None:
            counted.setdefault(vote.member, vote)
    unique: dict[bytes, VoteRecord] = {}
    for vote in counted.values():
        unique.setdefault(vote.header.key, vote)
    return tuple(sorted(unique.values(), key=lambda v: v.member))


def vote_problem(
    vote: AnyRecord, ask: bytes, intent: VerifiedRecord[Intent], t: int, epoch: EpochState
) -> Finding | None:
    """Why a record is no vote for this ask under this epoch, or None."""
    body = vote.body
    if not isinstance(body, Vote):
        return refuse("vote_wrong", id=short(vote.id))
    if body.ask != ask or body.intent != intent.id or body.t != t:
        return refuse("vote_spliced", id=short(vote.id), member=vote.member)
    problem = _epoch_problem(vote, epoch)
    if problem is not None:
        return problem
    if body.engine not in epoch.body.engines:
        return refuse("engine_unknown", member=vote.member)
    if len(body.judgements) != len(intent.body.classes):
        return refuse("vote_wrong", id=short(vote.id), member=vote.member)
    if not t < body.expires <= t + LEASE_S:
        return refuse("vote_wrong", id=short(vote.id), member=vote.member)
    return None


def is_cast_under(vote: VoteRecord, epoch: EpochState) -> bool:
    """Whether a vote is one of a member under an epoch, whatever it says."""
    return _epoch_problem(vote, epoch) is None


def _epoch_problem(vote: VoteRecord, epoch: EpochState) -> Finding | None:
    body, t = vote.body, vote.body.t
    if body.epoch != epoch.id or body.scope != epoch.coalition or vote.header.coalition != epoch.coalition:
        return refuse("vote_of_another_epoch", id=short(vote.id), member=vote.member)
    if t < epoch.body.started:
        return refuse("vote_before_epoch", id=short(vote.id), member=vote.member)
    if vote.member not in epoch.members:
        return refuse("vote_by_stranger", member=vote.member)
    if vote.root_key not in epoch.organization_keys(vote.member) or not vote.in_force(t):
        return refuse("vote_key_not_in_force", member=vote.member)
    return None


def tally(
    votes: Sequence[VoteRecord],
    ask: VerifiedRecord[Ask],
    intent: VerifiedRecord[Intent],
    epoch: EpochState,
    discounted: frozenset[str] = frozenset(),
) -> Tally:
    """Decide what the votes in hand allow. Deterministic in the set of votes.

    Args:
        discounted: members shown to have cast two votes. A permit carries a quorum of others' votes, so that nobody who
            holds the proof stops it; what they have to say as owners is heard.
    """
    counted = countable(votes, ask, intent, epoch)
    refusing = [v for v in counted if all(j.outcome.mode is Mode.REFUSE for j in v.body.judgements)]
    if len(refusing) >= epoch.quorum:
        causes = union(*(j.outcome.causes for v in refusing for j in v.body.judgements))
        return Refused(tuple(refusing), causes)
    best = _best_claim(counted, intent.body, epoch.quorum, discounted=discounted)
    if best is not None:
        return best
    return Undecided(counted, *_unmet(counted, epoch, discounted))


def could_be_more(
    permitted: Permitted,
    votes: Sequence[VoteRecord],
    ask: VerifiedRecord[Ask],
    intent: VerifiedRecord[Intent],
    epoch: EpochState,
    silent: frozenset[str],
    discounted: frozenset[str] = frozenset(),
) -> bool:
    """Whether the votes of members that have not answered could carry a better claim than the one in hand.

    Without this the first quorum decides, and one liar that answers quickly narrows what everybody else would
    have permitted in full.
    """
    counted = countable(votes, ask, intent, epoch)
    sure = len(silent - discounted)
    best = _best_claim(counted, intent.body, max(epoch.quorum - sure, 1), silent, discounted)
    return sure >= epoch.quorum or (best is not None and _rank(best) > _rank(permitted))


def _best_claim(
    votes: tuple[VoteRecord, ...],
    intent: Intent,
    quorum: int,
    silent: frozenset[str] = frozenset(),
    discounted: frozenset[str] = frozenset(),
) -> Permitted | None:
    """The most permissive claim that some quorum supports.

    Args:
        quorum: how many of these votes are needed.
        silent: members that are supposed to support whatever is claimed.
        discounted: members whose votes are not among the needed.
    """
    if len(votes) < quorum:
        return None
    fulls = full_extents(intent)
    alike: dict[bytes, list[VoteRecord]] = {}
    for vote in votes:
        alike.setdefault(encode_judgements(vote.body), []).append(vote)
    # Votes that say the same are tried together: honest voters mostly agree, and each liar adds one sort.
    sorts = [alike[said] for said in sorted(alike, key=lambda said: (-len(alike[said]), said))]
    found: Permitted | None = None
    rank: tuple[int, ...] | None = None
    for count in range(1, len(sorts) + 1):
        for chosen in combinations(sorts, count):
            together = [vote for sort in chosen for vote in sort]
            if sum(vote.member not in discounted for vote in together) < quorum:
                continue
            claim = _claim(together, [sort[0] for sort in chosen], fulls, quorum, silent, discounted)
            if claim is not None and (rank is None or _rank(claim) > rank):
                found, rank = claim, _rank(claim)
    return found


def encode_judgements(vote: Vote) -> bytes:
    """The judgements of a vote in canonical bytes: equal where voters agree."""
    return b"".join(encode(judgement) for judgement in vote.judgements)


def _claim(
    votes: Sequence[VoteRecord],
    sorts: Sequence[VoteRecord],
    fulls: tuple[Extent, ...],
    quorum: int,
    silent: frozenset[str],
    discounted: frozenset[str],
) -> Permitted | None:
    """What all of these votes support together.

    Args:
        sorts: one vote of each sort among them.
    """
    voters = {vote.member for vote in votes} | silent
    claims: list[Claim] = []
    for index, full in enumerate(fulls):
        judgements = [vote.body.judgements[index] for vote in sorts]
        first = judgements[0]
        if any(judgement.state != first.state for judgement in judgements):
            continue
        # Whoever one supporter wants heard is heard.
        live = tuple(sorted({owner for judgement in judgements for owner in judgement.live}))
        if not set(live) <= voters or len(live) > OWNERS_MAX:
            continue
        outcome = execute(full)
        for judgement in judgements:
            outcome = meet(outcome, judgement.outcome, full)
        if restrictions_overflow(first.state, outcome.obligations):
            # Each vote has room for its own obligations, and what is made has none for those of all.
            continue
        if outcome.mode.rank >= Mode.RESTRICT.rank:
            claims.append(_claim_of(index, outcome, first.state, live))
    if not claims:
        return None
    # As few votes as carry it: the owners that are to be heard, then those that hold longest, then by name.
    heard = {owner for claim in claims for owner in claim.live} - silent
    ordered = sorted(votes, key=lambda v: (v.member not in heard, -v.body.expires, v.member))
    needed = [vote for vote in ordered if vote.member in heard or vote.member not in discounted]
    carrying = [v for v in needed if v.member in heard]
    sure = sum(vote.member not in discounted for vote in carrying)
    carrying += needed[len(carrying) : len(carrying) + max(quorum - sure, 0)]
    expires = min(vote.body.expires for vote in carrying)
    return Permitted(tuple(claims), tuple(sorted(carrying, key=lambda v: v.id)), expires)


def restrictions_overflow(state: GovernanceState, obligations: tuple[Obligation, ...]) -> bool:
    """Whether what is made under these obligations has more restrictions than a governance state can carry."""
    if len(state.restrictions) + len(obligations) <= TERMS_MAX:
        return False
    return len(union(state.restrictions, obligations)) > TERMS_MAX


def _claim_of(index: int, outcome: Outcome, state: GovernanceState, live: tuple[str, ...]) -> Claim:
    return Claim(
        index=index,
        mode=outcome.mode,
        extent=outcome.extent,
        state=state,
        obligations=outcome.obligations,
        live=live,
    )


def _rank(permitted: Permitted) -> tuple[int, ...]:
    """More items, then higher modes, then more columns, then fewer obligations, then a later end."""
    return (
        sum(ranges_count(claim.extent.items) for claim in permitted.claims),
        sum(claim.mode.rank for claim in permitted.claims),
        sum(ranges_count(claim.extent.columns) for claim in permitted.claims),
        -sum(len(claim.obligations) for claim in permitted.claims),
        permitted.expires,
    )


def _unmet(
    votes: tuple[VoteRecord, ...], epoch: EpochState, discounted: frozenset[str]
) -> tuple[tuple[Cause, ...], tuple[Need, ...]]:
    judgements = [j for vote in votes for j in vote.body.judgements]
    causes = union(*(j.outcome.causes for j in judgements))
    needs = union(*(j.outcome.needs for j in judgements))
    voters = {vote.member for vote in votes}
    silent = sorted({owner for j in judgements for owner in j.live} - voters)
    here = [member for member in silent if member in epoch.members]
    causes = union(causes, tuple(Cause(code="owner_silent", parameters={"member": m}) for m in here))
    needs = union(needs, tuple(Need(code="consent", parameters={"member": m}) for m in here))
    # Who has left has no vote to be waited for: only as a member can it be heard again.
    gone = [member for member in silent if member not in epoch.members]
    causes = union(causes, tuple(Cause(code="owner_departed", parameters={"member": m}) for m in gone))
    needs = union(needs, tuple(Need(code="membership", parameters={"member": m}) for m in gone))
    if _oblige_to_too_much(votes):
        causes = union(causes, (Cause(code="classes_many", parameters={"classes_max": TERMS_MAX}),))
    doubtful = doubtful_voters(votes, epoch, discounted)
    causes = union(causes, tuple(Cause(code="voted_twice", parameters={"member": m}) for m in doubtful))
    needs = union(needs, tuple(Need(code="epoch", parameters={"member": m}) for m in doubtful))
    if len(votes) < epoch.quorum:
        parameters: dict[str, int | str] = {"votes": len(votes), "quorum": epoch.quorum}
        causes = union(causes, (Cause(code="no_quorum", parameters=parameters),))
    return causes, needs


def _oblige_to_too_much(votes: tuple[VoteRecord, ...]) -> bool:
    """Whether votes that permit a class have, all together, more obligations than its state can carry."""
    for index in range(max((len(vote.body.judgements) for vote in votes), default=0)):
        permitting = [
            judgement
            for vote in votes
            for judgement in vote.body.judgements[index : index + 1]
            if judgement.outcome.mode.rank >= Mode.RESTRICT.rank
        ]
        obligations = union(*(judgement.outcome.obligations for judgement in permitting))
        if any(restrictions_overflow(judgement.state, obligations) for judgement in permitting):
            return True
    return False


def doubtful_voters(
    votes: Sequence[VoteRecord], epoch: EpochState, discounted: frozenset[str]
) -> tuple[str, ...]:
    """The members shown to have cast two votes without whom a permit has no quorum; none where it has one.

    It is valid for all that (docs/spec/decision.md section 7): who holds the proof does not start under it.
    """
    voters = {vote.member for vote in votes}
    return tuple(sorted(voters & discounted)) if len(voters - discounted) < epoch.quorum else ()


def permit_problem(
    permit: VerifiedRecord[Permit],
    intent: VerifiedRecord[Intent],
    held: Mapping[bytes, AnyRecord],
    epoch: EpochState,
    successor: EpochState | None = None,
) -> Finding | None:
    """Why a permit's certificate does not carry its claim, or None (docs/spec/decision.md section 5).

    Args:
        successor: the epoch after that of the permit, where it is known.
    """
    body = permit.body
    if body.intent != intent.id or permit.member != intent.member:
        return refuse("permit_foreign", id=short(permit.id))
    if permit.header.coalition != epoch.coalition or body.scope != epoch.coalition or body.epoch != epoch.id:
        return refuse("permit_of_another_epoch", id=short(permit.id))
    voters: dict[str, VoteRecord] = {}
    keys: set[bytes] = set()
    for vote_id in body.votes:
        vote = held.get(vote_id)
        if vote is None:
            return refuse("vote_missing", id=short(vote_id))
        problem = vote_problem(vote, body.ask, intent, body.t, epoch)
        if problem is not None:
            return problem
        if vote.member in voters or vote.header.key in keys:
            return refuse("vote_twice", member=vote.member)
        problem = _claims_problem(body, vote)
        if problem is not None:
            return problem
        voters[vote.member] = vote
        keys.add(vote.header.key)
    if len(voters) < epoch.quorum:
        return refuse("no_quorum", votes=len(voters), quorum=epoch.quorum)
    return _claim_problem(permit, voters) or _superseded_problem(permit, successor)


def _claim_problem(permit: VerifiedRecord[Permit], voters: Mapping[str, VoteRecord]) -> Finding | None:
    """What is wrong with the claims by themselves, whoever supports them."""
    body = permit.body
    indices = [claim.index for claim in body.claims]
    if indices != sorted(set(indices)):
        return refuse("permit_wrong", id=short(permit.id))
    for claim in body.claims:
        silent = sorted(set(claim.live) - set(voters))
        if silent:
            return refuse("owner_silent", member=silent[0])
    if body.expires > min(vote.body.expires for vote in voters.values()):
        return refuse("permit_wrong", id=short(permit.id))
    if any(restrictions_overflow(claim.state, claim.obligations) for claim in body.claims):
        return refuse("classes_many", classes_max=TERMS_MAX)
    return None


def _superseded_problem(permit: VerifiedRecord[Permit], successor: EpochState | None) -> Finding | None:
    """Votes are used for `LEASE_S`: so long after the next epoch began nobody honest votes under this one."""
    if successor is not None and permit.body.t > successor.body.started + LEASE_S:
        return refuse("permit_superseded", id=short(permit.id))
    return None


def _claims_problem(permit: Permit, vote: VoteRecord) -> Finding | None:
    for claim in permit.claims:
        if claim.index >= len(vote.body.judgements):
            return refuse("claim_unsupported", member=vote.member, index=claim.index)
        judgement = vote.body.judgements[claim.index]
        agreed = judgement.state == claim.state and set(judgement.live) <= set(claim.live)
        if not (agreed and supports(judgement.outcome, claim.outcome())):
            return refuse("claim_unsupported", member=vote.member, index=claim.index)
    return None


def refusal_problem(
    refusal: VerifiedRecord[Refusal],
    intent: VerifiedRecord[Intent],
    held: Mapping[bytes, AnyRecord],
    epoch: EpochState,
) -> Finding | None:
    """Why a refusal's certificate does not carry it, or None."""
    body = refusal.body
    if body.intent != intent.id or body.scope != epoch.coalition or body.epoch != epoch.id:
        return refuse("refusal_foreign", id=short(refusal.id))
    voters: set[str] = set()
    keys: set[bytes] = set()
    for vote_id in body.votes:
        vote = held.get(vote_id)
        if vote is None:
            return refuse("vote_missing", id=short(vote_id))
        problem = vote_problem(vote, body.ask, intent, body.t, epoch)
        if problem is not None:
            return problem
        if any(judgement.outcome.mode is not Mode.REFUSE for judgement in vote.body.judgements):
            return refuse("claim_unsupported", member=vote.member)
        if vote.header.key in keys:
            return refuse("vote_twice", member=vote.member)
        voters.add(vote.member)
        keys.add(vote.header.key)
    if len(voters) < epoch.quorum:
        return refuse("no_quorum", votes=len(voters), quorum=epoch.quorum)
    return None
