"""Claims about what was wrong: a write beyond its permit, and a version that was found wrong after it was used."""

from __future__ import annotations

import hashlib
from typing import Final

from comity.protocol.outcome import indices_of
from demo_audit.artefacts import AuditError, read_file
from demo_audit.event_logs import LoggedRun
from demo_audit.evidence import Evidence, claim_of, made_by, made_nothing, permits_of, taken_back
from demo_audit.findings import Finding, any_of
from demo_audit.stores import AnyRecord

AGAIN_JOB: Final = "release_again"
READER_JOB: Final = "follow"


def staged_write_discarded(evidence: Evidence) -> Finding:
    south = evidence.cast.south
    store = evidence.store(south)
    file = evidence.cast.exchange / south.member / "released.parquet"

    def look(run: LoggedRun) -> Finding:
        staged = [
            record
            for record in store.of_kind("actuation")
            if record.header.outcome == "staged"
            and record.body.intent.hex() == run.failure().get("comity/intent")
        ]
        if not staged:
            raise AuditError(f"the store has no genuine record of what run {run.id} has staged")
        wrote = staged[0]
        permit, intent = store.find(wrote.body.permit, "permit"), store.find(wrote.body.intent, "intent")
        claim = claim_of(store, permit, intent, wrote)
        group = intent.body.classes[claim.index]
        allowed = {group.columns[i] for i in indices_of(claim.extent.columns)}
        failed = [r for r in store.about(wrote.id, "verification") if r.header.outcome == "failed"]
        codes = {cause.code for record in failed for cause in record.body.checks}
        seen = {
            "it was permitted in part": permit.id in {p.id for p in permits_of(store, intent.id)},
            "it was begun": store.find(wrote.body.start, "start").member == store.member,
            "the permit leaves columns out": allowed < set(group.columns),
            # Of what was wrong the record tells nothing more: no partner learns of it by a discard.
            "found and said by who wrote it": "staged_column_not_permitted" in codes
            and {record.member for record in failed} == {store.member},
            "nothing was made": made_nothing(run) and not _promoted_of(evidence, intent),
            "no partner reads those bytes": hashlib.sha256(read_file(file)).digest()
            != wrote.body.content.digest,
        }
        records = {"intent": intent.id.hex(), "permit": permit.id.hex(), "staged": wrote.id.hex()}
        if failed:
            records["verification"] = failed[0].id.hex()
        return Finding(seen, records, {"discarded": run.id})

    return any_of(evidence.runs(south, AGAIN_JOB), look)


def _promoted_of(evidence: Evidence, intent: AnyRecord) -> list[AnyRecord]:
    return [
        record
        for store in evidence.stores.values()
        for record in store.of_kind("actuation")
        if record.body.intent == intent.id and record.header.outcome == "promoted"
    ]


def _wrong(evidence: Evidence) -> list[tuple[AnyRecord, AnyRecord]]:
    """Versions of Clinic South's that it has taken back itself, each with the record that says so.

    Raises:
        AuditError: there is none.
    """
    store = evidence.store(evidence.cast.south)
    asset = f"{store.member}/released"
    found = [
        (version, report)
        for version in store.of_kind("actuation")
        if version.header.outcome == "promoted" and version.body.asset == asset
        for report in taken_back(store, version)
        if report.header.outcome == "rolled_back"
    ]
    if not found:
        raise AuditError(f"{store.member} has rolled back no version of {asset}")
    return found


def rolled_back(evidence: Evidence) -> Finding:
    south = evidence.cast.south
    store = evidence.store(south)
    file = evidence.cast.exchange / south.member / "released.parquet"

    def look(found: tuple[AnyRecord, AnyRecord]) -> Finding:
        version, report = found
        failed = [r for r in store.about(version.id, "verification") if r.header.outcome == "failed"]
        if not failed:
            raise AuditError("nobody has said that the version is wrong")
        before = store.find(version.body.previous or b"", "actuation")
        readers = made_by(
            store, [run for run in evidence.runs(south, READER_JOB) if run.succeeded], "follow_up"
        )
        read = [made for made in readers if set(made.actuation.body.inputs) == {before.id}]
        seen = {
            "found wrong by who made it": {record.member for record in failed} == {store.member},
            "every member knows that it is taken back": all(
                report.id in each.records for each in evidence.stores.values()
            ),
            "the one before was made as a genuine version": before.header.outcome == "promoted"
            and before.body.generation < version.body.generation
            and not taken_back(store, before),
            "its bytes are back in place": hashlib.sha256(read_file(file)).digest()
            == before.body.content.digest,
            "and are what is read since": bool(read)
            and all(made.actuation.header.at >= report.header.at for made in read),
        }
        records = {
            "version": version.id.hex(),
            "verification": failed[0].id.hex(),
            "report": report.id.hex(),
            "stands": before.id.hex(),
        }
        return Finding(seen, records, {"read": read[0].run.id} if read else {})

    return any_of(_wrong(evidence), look)


def descendant_marked(evidence: Evidence) -> Finding:
    store = evidence.requester

    def look(found: tuple[AnyRecord, AnyRecord]) -> Finding:
        version, report = found
        made = [
            record
            for record in store.of_kind("actuation")
            if version.id in record.body.inputs
            and record.member == store.member
            and record.header.outcome == "promoted"
        ]
        if not made:
            raise AuditError("the institute has made nothing from it")
        marks = {
            record.id: [
                mark
                for mark in store.about(record.id, "observation")
                if (mark.body.claim, mark.header.outcome) == ("ancestor_failed", "disputed")
                and mark.body.parameters.get("input") == version.id.hex()[:16]
            ]
            for record in made
        }
        newest = max(made, key=lambda record: record.body.generation)
        seen = {
            "all that was made from it is marked": all(marks.values()),
            "by who made it": any(mark.member == store.member for mark in marks[newest.id]),
            "after it was found wrong": all(
                mark.header.at >= report.header.at - 1 for found in marks.values() for mark in found
            ),
            "what was made stands": not taken_back(store, newest),
        }
        records = {"version": version.id.hex(), "descendant": newest.id.hex()}
        records |= {f"mark_{mark.member}": mark.id.hex() for mark in marks[newest.id]}
        return Finding(seen, records)

    return any_of(_wrong(evidence), look)
