"""Claims about launching: what a daemon launched under a permit, what was held and went on, and what never began.

Of when a run was put into a queue and when it began, the organization's own event log tells, and nothing else does.
What was asked, voted and permitted is in the stores.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from comity.node.keystore import load_public
from comity.protocol.envelope import decode_record
from comity.protocol.errors import DecodeError
from comity.protocol.outcome import Mode
from demo_audit.artefacts import AuditError, unlinked
from demo_audit.event_logs import LoggedRun
from demo_audit.evidence import (
    Evidence,
    Made,
    causes_of,
    made_by,
    made_in,
    modes_of,
    permits_of,
    sound_refusal,
    tickets_of,
)
from demo_audit.findings import Finding, any_of
from demo_audit.stores import AnyRecord
from demo_main.organizations import Organization

ENQUEUED: Final = "PIPELINE_ENQUEUED"
BEGAN: Final = "PIPELINE_START"
HANDED: Final = "handed"
TICKET: Final = "comity/ticket"
TICKET_CHARS_MAX: Final = 1_048_576
"""Characters of a tag that is taken for a ticket."""
_LAUNCHED: Final = ("patients", "released")


def _began(run: LoggedRun) -> float:
    """When a run began, as its log says.

    Raises:
        AuditError: it did not.
    """
    at = run.events.get(BEGAN)
    if at is None:
        raise AuditError(f"run {run.id} of {run.job} did not begin")
    return at


def _north(evidence: Evidence) -> Organization:
    return evidence.cast.north


def _launched(evidence: Evidence, run: LoggedRun) -> list[Made]:
    return [made_in(evidence.store(_north(evidence)), run, asset) for asset in _LAUNCHED]


def launched_by_daemon(evidence: Evidence) -> Finding:
    steward = evidence.cast.stewards["north"]

    def look(run: LoggedRun) -> Finding:
        store = evidence.store(_north(evidence))
        first, released = _launched(evidence, run)
        began = _began(run)
        link = store.find(first.intent.body.credential, "credential")
        tickets = tickets_of(store, first.ask)
        starts = [store.find(made.actuation.body.start, "start") for made in (first, released)]
        seen = {
            "it came through the queue": run.events.get(ENQUEUED, began) < began,
            "handed on by the governed launcher": run.tags.get("comity/launch") == HANDED,
            "permitted before it began": first.permit.body.t <= began,
            "the work was begun after": all(start.header.at >= int(began) for start in starts),
            "all of it for this very run": {made.intent.body.run.run for made in (first, released)}
            == {run.id},
            "asked for by the steward": first.intent.body.requester == link.body.subject == steward.spiffe,
            "by an own key": link.body.key == load_public(unlinked(steward.public)),
            "with one ticket": [ticket.authority for ticket in tickets] == [link.id],
        }
        records = first.records("patients") | released.records("released")
        if tickets:
            records["ticket"] = tickets[0].id.hex()
        return Finding(seen, records, {"launched": run.id})

    runs = evidence.runs(_north(evidence), "release")
    return any_of([run for run in runs if run.succeeded], look)


def _refused_before(evidence: Evidence, code: str) -> list[LoggedRun]:
    """Clinic North's runs that were refused before they began, for a cause.

    Raises:
        AuditError: there is none.
    """
    found = [
        run
        for run in evidence.runs(_north(evidence), "release")
        if run.tags.get("comity/outcome") == "refuse"
        and code in run.tags.get("comity/reason", "").split(", ")
    ]
    if not found:
        raise AuditError(f"no run of release was refused for {code} before it began")
    return found


def _never_began(run: LoggedRun) -> bool:
    return run.status == "FAILURE" and BEGAN not in run.events and not run.made


def ticket_required(evidence: Evidence) -> Finding:
    store = evidence.store(_north(evidence))

    def look(run: LoggedRun) -> Finding:
        intents = [r for r in store.of_kind("intent") if r.body.run.run == run.id]
        if len(intents) != 1:
            raise AuditError(
                f"of run {run.id} the store of {store.member} has {len(intents)} intents, not one"
            )
        (intent,) = intents
        refusal = sound_refusal(store, intent.id)
        ask = store.find(refusal.body.ask, "ask")
        votes = [store.find(i, "vote") for i in refusal.body.votes]
        with_ticket = made_by(
            store, [r for r in evidence.runs(_north(evidence), "release") if r.succeeded], "released"
        )
        seen = {
            "it never began": _never_began(run),
            "asked for with no ticket": not tickets_of(store, ask),
            "every vote refuses it for that": all(
                modes_of(vote) == {Mode.REFUSE} and "nobody_asked" in dict(causes_of(vote)) for vote in votes
            ),
            "with a ticket it was permitted": any(tickets_of(store, made.ask) for made in with_ticket),
        }
        records = {"intent": intent.id.hex(), "refusal": refusal.id.hex()}
        records |= {f"vote_{vote.member}": vote.id.hex() for vote in votes}
        return Finding(seen, records, {"clicked": run.id})

    return any_of(_refused_before(evidence, "nobody_asked"), look)


def second_run_refused(evidence: Evidence) -> Finding:
    north = _north(evidence)
    store = evidence.store(north)

    def look(run: LoggedRun) -> Finding:
        ticket = _ticket_in(run)
        first = [
            each
            for each in evidence.runs(north, "release")
            if each.succeeded and each.id != run.id and _uses(evidence, each, ticket)
        ]
        if not first:
            raise AuditError("no other run has made anything with the ticket in its tags")
        asked = [r for s in evidence.stores.values() for r in s.of_kind("intent") if r.body.run.run == run.id]
        seen = {
            "it never began": _never_began(run),
            "a genuine ticket": ticket in store.records,
            "nobody was asked for it": not asked,
            "nothing was made with it by another run": all(
                made.intent.body.run.run == first[0].id
                for made in made_by(
                    store, [r for r in evidence.runs(north, "release") if r.succeeded], "released"
                )
                if ticket in made.ask.body.relied
            ),
        }
        return Finding(seen, {"ticket": ticket.hex()}, {"first": first[0].id, "second": run.id})

    return any_of(_refused_before(evidence, "ticket_used"), look)


def _ticket_in(run: LoggedRun) -> bytes:
    """The id of the ticket that a run carries in its tags.

    Raises:
        AuditError: it carries none.
    """
    text = run.tags.get(TICKET, "")
    try:
        if len(text) > TICKET_CHARS_MAX:
            raise AuditError(f"the ticket of run {run.id} is longer than {TICKET_CHARS_MAX} characters")
        record = decode_record(base64.b64decode(text, validate=True))
    except (binascii.Error, DecodeError, ValueError) as exc:
        raise AuditError(f"run {run.id} carries no ticket: {exc}") from exc
    return record.id


def _uses(evidence: Evidence, run: LoggedRun, ticket: bytes) -> bool:
    return any(ticket in made.ask.body.relied for made in _launched(evidence, run))


def held_run_released(evidence: Evidence) -> Finding:
    cast, store = evidence.cast, evidence.requester

    def look(run: LoggedRun) -> Finding:
        made = made_in(store, run, "pooled")
        approval = approval_of(evidence, made)
        link = store.find(made.intent.body.credential, "credential")
        enqueued, began = run.events.get(ENQUEUED, _began(run)), _began(run)
        seen = {
            "a sensor asked for it, and no person": bool(run.tags.get("dagster/sensor_name"))
            and link.body.subject_kind == "automation"
            and not tickets_of(store, made.ask),
            "it was held": run.tags.get("comity/hold") == "released",
            "in the queue before the approval": int(enqueued) <= approval.header.at,
            "every vote on what it asked first defers it": deferred_at_first(evidence, made),
            "no permit before the approval": all(
                permit.body.t >= approval.header.at for permit in permits_of(store, made.intent.id)
            ),
            "it began after": began >= approval.header.at,
            "under the same intent": made.intent.id.hex() in run.tags.get("comity/intent", ""),
        }
        records = {"approval": approval.id.hex(), **made.records("pooled")}
        return Finding(seen, records, {"released": run.id})

    return any_of([run for run in evidence.runs(cast.institute, "make_pooled") if run.succeeded], look)


def deferred_at_first(evidence: Evidence, made: Made) -> bool:
    """Whether a quorum's votes on the first ask of an intent all defer it for an approval."""
    asks = evidence.asks_of(made.intent.id)
    if not asks:
        return False
    votes = evidence.votes_on(asks[0].id).values()
    quorum = evidence.requester.epochs[made.permit.body.epoch].quorum
    return len(votes) >= quorum and all(
        modes_of(vote) == {Mode.DEFER} and "approval" in _needs_of(vote) for vote in votes
    )


def _needs_of(vote: AnyRecord) -> set[str]:
    return {need.code for judgement in vote.body.judgements for need in judgement.outcome.needs}


def approval_of(evidence: Evidence, made: Made) -> Any:
    """The approval that the decision on something rests on.

    Raises:
        AuditError: it rests on none that is genuine.
    """
    for i in made.ask.body.relied:
        record = evidence.requester.records.get(i)
        if (
            record is not None
            and (record.header.kind, record.header.outcome) == ("observation", "approved")
            and made.intent.id in record.header.subject
        ):
            return record
    raise AuditError("the ask of the permit relies on no genuine approval of the intent")
