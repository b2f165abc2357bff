"""Claims about what went wrong: files that are not what was made, members that were away, a credential taken back."""

from __future__ import annotations

from typing import Any, Final

from comity.protocol.outcome import Mode
from demo_audit.artefacts import AuditError
from demo_audit.event_logs import LoggedRun
from demo_audit.evidence import (
    Evidence,
    causes_of,
    failed_with,
    id_of,
    inputs_of,
    later_under,
    made_by,
    made_nothing,
    modes_of,
    permits_of,
    sound_refusal,
    supports,
)
from demo_audit.findings import Finding, any_of
from demo_audit.stores import AnyRecord, Store

DRAFT: Final = "drafts/events_by_ecog"
DRAFT_JOB: Final = "make_events_by_ecog"


def _released(evidence: Evidence) -> str:
    return f"{evidence.cast.south.member}/released"


def _generations(evidence: Evidence, asset: str) -> dict[bytes, AnyRecord]:
    """The promoted actuations of an asset that the institute holds, by the digest of what was made."""
    return {
        record.body.content.digest: record
        for record in evidence.requester.of_kind("actuation")
        if record.body.asset == asset and record.header.outcome == "promoted"
    }


def tampered_input_refused(evidence: Evidence) -> Finding:
    def look(found: tuple[LoggedRun, AnyRecord]) -> Finding:
        run, intent = found
        said = run.failure()
        made = later_under(evidence, run, "enrolment")
        genuine = _generations(evidence, _released(evidence))
        seen = {
            "nothing was made": made_nothing(run),
            "of that very input": said.get("comity/input") == _released(evidence),
            "nobody made those bytes": id_of(said.get("comity/digest")) not in genuine,
            "then the same intent": made.intent.id == intent.id,
            "from what its maker made": not inputs_of(intent).isdisjoint(r.id for r in genuine.values()),
        }
        return Finding(seen, made.records(), {"refused": run.id, "restored": made.run.id})

    found = failed_with(evidence, "make_enrolment", "refuse", "comity/causes", "content_changed")
    return any_of(found, look)


def replayed_input_refused(evidence: Evidence) -> Finding:
    def look(found: tuple[LoggedRun, AnyRecord]) -> Finding:
        run, intent = found
        said = run.failure()
        made = later_under(evidence, run, "enrolment")
        genuine = _generations(evidence, _released(evidence))
        older = genuine.get(id_of(said.get("comity/digest")))
        if older is None:
            raise AuditError("the bytes that were read are none that their maker ever made")
        read = [record for record in genuine.values() if record.id in inputs_of(intent)]
        seen = {
            "nothing was made": made_nothing(run),
            "of that very input": said.get("comity/input") == _released(evidence),
            "genuine bytes of before": [record.body.generation > older.body.generation for record in read]
            == [True],
            "then the same intent": made.intent.id == intent.id,
        }
        records = {"older": older.id.hex(), "newest": read[0].id.hex() if read else "", **made.records()}
        return Finding(seen, records, {"refused": run.id, "restored": made.run.id})

    found = failed_with(evidence, "make_enrolment", "refuse", "comity/causes", "lineage_of_another")
    return any_of(found, look)


def _own_votes(store: Store) -> list[AnyRecord]:
    """A member's own votes, by the time that they are on."""
    own = (vote for vote in store.of_kind("vote") if vote.member == store.member)
    return sorted(own, key=lambda vote: vote.body.t)


def _others(evidence: Evidence, *away: str) -> set[str]:
    return {each.member for each in evidence.cast.organizations} - set(away)


def decided_with_one_member_down(evidence: Evidence) -> Finding:
    cast = evidence.cast
    board = cast.board.member
    times = [vote.body.t for vote in _own_votes(evidence.store(cast.board))]
    runs = evidence.runs(cast.institute, "make_enrolment")

    def look(run: LoggedRun) -> Finding:
        (made,) = made_by(evidence.requester, [run], "enrolment")
        t = made.ask.body.t
        votes = evidence.votes_on(made.ask.id)
        seen = {
            "nobody holds a vote of the board on it": board not in votes,
            "the others decided": set(votes) == _others(evidence, board),
            "the board voted before and after": bool(times) and min(times) < t < max(times),
        }
        records = made.records() | {f"vote_{member}": vote.id.hex() for member, vote in votes.items()}
        return Finding(seen, records, {"decided": run.id})

    return any_of([run for run in runs if run.succeeded], look)


def _deferred_for_owner(evidence: Evidence) -> list[tuple[LoggedRun, AnyRecord]]:
    return failed_with(evidence, "make_enrolment", "defer", "comity/needs", "consent")


def live_owner_deferred(evidence: Evidence) -> Finding:
    owner = evidence.cast.north.member

    def look(found: tuple[LoggedRun, AnyRecord]) -> Finding:
        run, intent = found
        needs = [need for need in run.failure().get("comity/needs", []) if need["code"] == "consent"]
        votes = _last_votes_before(evidence, intent, run)
        others = _others(evidence, owner)
        seen = {
            "nothing was made": made_nothing(run),
            "the owner is named": [need["parameters"].get("member") for need in needs] == [owner],
            "its vote is missing": owner not in votes,
            "all others support it": set(votes) == others and all(map(supports, votes.values())),
            "each says that the owner has to be heard": all(
                owner in judgement.live for vote in votes.values() for judgement in vote.body.judgements
            ),
        }
        records = {"intent": intent.id.hex()} | {f"vote_{m}": vote.id.hex() for m, vote in votes.items()}
        return Finding(seen, records, {"deferred": run.id})

    return any_of(_deferred_for_owner(evidence), look)


def _last_votes_before(evidence: Evidence, intent: AnyRecord, run: LoggedRun) -> dict[str, AnyRecord]:
    """Every vote on the first ask of an intent that was made for a run.

    Raises:
        AuditError: the institute asked nobody.
    """
    asks = [ask for ask in evidence.asks_of(intent.id) if ask.body.t >= int(run.at)]
    if not asks:
        raise AuditError(f"no ask of intent {intent.id.hex()[:16]} is as late as run {run.id}")
    return dict(evidence.votes_on(asks[0].id))


def owner_back_executed(evidence: Evidence) -> Finding:
    owner = evidence.cast.north.member

    def look(found: tuple[LoggedRun, AnyRecord]) -> Finding:
        run, intent = found
        made = later_under(evidence, run, "enrolment")
        voters = {evidence.requester.find(i, "vote").member for i in made.permit.body.votes}
        seen = {
            "the same intent": made.intent.id == intent.id,
            "no permit while it was away": len(permits_of(evidence.requester, intent.id)) == 1,
            "the owner voted for it": owner in voters,
            # A run waits for the decision on what it asks itself.
            "it was permitted before it was run again": made.ask.body.t < int(made.run.at),
        }
        return Finding(seen, made.records(), {"deferred": run.id, "executed": made.run.id})

    return any_of(_deferred_for_owner(evidence), look)


def held_then_executed(evidence: Evidence) -> Finding:
    cast = evidence.cast
    away = {cast.north.member, cast.board.member}

    def look(found: tuple[LoggedRun, AnyRecord]) -> Finding:
        run, intent = found
        said: dict[str, Any] = run.failure().get("comity/votes", {})
        votes = _last_votes_before(evidence, intent, run)
        made = later_under(evidence, run, DRAFT)
        quorum = evidence.requester.epochs[made.permit.body.epoch].quorum
        seen = {
            "nothing was made": made_nothing(run),
            "it names the two": {member for member, mode in said.items() if mode == "silent"} == away,
            "nobody holds a vote of theirs on it": set(votes) == _others(evidence, *away),
            "these are no quorum": len(votes) < quorum,
            "the same intent": made.intent.id == intent.id,
            "it was permitted before it was run again": made.ask.body.t < int(made.run.at),
        }
        return Finding(seen, made.records(), {"held": run.id, "executed": made.run.id})

    return any_of(failed_with(evidence, DRAFT_JOB, "held", "comity/causes", "no_quorum"), look)


def revocation_refused(evidence: Evidence) -> Finding:
    store = evidence.requester

    def look(found: tuple[LoggedRun, AnyRecord]) -> Finding:
        run, intent = found
        credential = store.find(intent.body.credential, "credential")
        revocations = store.about(credential.id, "revocation")
        permits = permits_of(store, intent.id)
        if not revocations or not permits:
            raise AuditError("the store has no genuine revocation, or no permit that came before it")
        revocation, permit = revocations[0], permits[-1]
        at = revocation.header.at
        refusal = sound_refusal(store, intent.id)
        votes = [store.find(i, "vote") for i in refusal.body.votes]
        seen = {
            "by who delegated it": revocation.authority is not None
            and revocation.authority == credential.authority,
            "a permit was in force when it came": permit.body.t <= at < permit.body.expires,
            "nothing was begun under it": not store.about(permit.id, "start"),
            "the same intent is refused afterwards": refusal.body.t >= at,
            "every vote names the revocation": all(revocation.id in vote.body.adverse for vote in votes),
            "and refuses for it": all(
                modes_of(vote) == {Mode.REFUSE} and "credential_revoked" in dict(causes_of(vote))
                for vote in votes
            ),
            "nothing was made": made_nothing(run),
            "nothing was permitted under it since": not _permitted_since(store, credential.id, at),
        }
        records = {
            "intent": intent.id.hex(),
            "permit": permit.id.hex(),
            "revocation": revocation.id.hex(),
            "refusal": refusal.id.hex(),
        }
        return Finding(seen, records, {"refused": run.id})

    return any_of(failed_with(evidence, DRAFT_JOB, "refuse", "comity/causes", "credential_revoked"), look)


def _permitted_since(store: Store, credential: bytes, at: int) -> list[AnyRecord]:
    """Permits of later than a time for intents under a credential."""
    return [
        permit
        for intent in store.of_kind("intent")
        if intent.body.credential == credential
        for permit in permits_of(store, intent.id)
        if permit.body.t > at
    ]


def _governed_until(store: Store, t: int) -> frozenset[bytes]:
    """The records of the governance logs that were signed until a time, and the epochs."""
    return frozenset(
        i for i in store.governance if (found := store.records.get(i)) is None or found.header.at <= t
    )


def caught_up(evidence: Evidence) -> Finding:
    board = evidence.store(evidence.cast.board)
    own = _own_votes(board)

    def look(revocation: AnyRecord) -> Finding:
        before = [vote for vote in own if vote.body.t < revocation.header.at]
        after = [vote for vote in own if vote.body.t >= revocation.header.at]
        if not before or not after:
            raise AuditError("the board has not voted before it was published, or not after")
        first, t_left, t_back = after[0], before[-1].body.t, after[0].body.t
        missed = [
            ask
            for ask in evidence.requester.of_kind("ask")
            if t_left < ask.body.t < t_back and board.member not in evidence.votes_on(ask.id)
        ]
        decided = {
            permit.body.ask for kind in ("permit", "refusal") for permit in evidence.requester.of_kind(kind)
        }
        named = [
            vote
            for ask in missed
            for vote in evidence.votes_on(ask.id).values()
            if revocation.id in vote.body.adverse
        ]
        # What is published later says nothing of what it had missed.
        held = {_governed_until(store, t_back) for store in evidence.stores.values()}
        seen = {
            "the others decided while it was away": any(ask.id in decided for ask in missed),
            "and knew what it did not": bool(named),
            "it held it before it voted": board.rows[revocation.id] < board.rows[first.id],
            "its first vote names it": revocation.id in first.body.adverse,
            "it holds what the others hold": len(held) == 1 and revocation.id in board.governance,
        }
        records = {
            "revocation": revocation.id.hex(),
            "first_vote": first.id.hex(),
            "last_vote": before[-1].id.hex(),
        }
        return Finding(seen, records)

    return any_of(board.of_kind("revocation"), look)
