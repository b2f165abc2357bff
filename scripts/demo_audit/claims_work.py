"""Claims about the work: homes, what was executed, restricted, deferred and estimated, and what the agent did."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Final

import pandas as pd
from pyarrow.lib import ArrowException

from comity.attestation.engine import engine_id
from comity.attestation.offline import verify_bundle
from comity.attestation.roots import parse_roots
from comity.node.home import Home
from comity.node.keystore import load_public
from comity.protocol.bundle import decode_bundle
from comity.protocol.errors import DecodeError, VerificationError
from comity.protocol.outcome import Mode
from demo_audit.artefacts import AuditError, files_below, read_file, unlinked
from demo_audit.claims_launch import approval_of, deferred_at_first
from demo_audit.event_logs import LoggedRun
from demo_audit.evidence import (
    BUNDLE,
    ROOTS,
    Evidence,
    Made,
    causes_of,
    failed_with,
    inputs_of,
    keys_below,
    made_by,
    made_in,
    made_nothing,
    permits_of,
    sound_refusal,
    taken_back,
)
from demo_audit.findings import Finding, any_of, together
from demo_audit.stores import AnyRecord
from demo_main.organizations import Organization
from demo_main.patients import (
    NORTH,
    SOUTH,
    STUDIED,
    all_patients,
    clinic_patients,
    fit_directly,
    fits_of_table,
    greatest_difference,
    released_directly,
)

EQUAL: Final = 1e-9
OFFICER_CLASS: Final = "data-protection-officer"
DRAFT: Final = "drafts/events_by_ecog"
REGISTERED: Final = frozenset({"inst", "time", "status", "sex", "ph.ecog", "age"})
"""Columns of a registry that what is released is computed from."""
ESTIMATED: Final = frozenset({"statistic", "of", "time", "value"})
"""Columns of survival."""


def homes_private(evidence: Evidence) -> Finding:
    cast = evidence.cast
    try:
        owners = {each.name: unlinked(each.place).stat().st_uid for each in cast.organizations}
        closed = [path for each in cast.organizations for path in (each.place, each.home)]
        closed += [subject.place for subject in cast.subjects]
        modes = {unlinked(path).stat().st_mode & 0o777 for path in closed}
        shares = {each.name: unlinked(cast.exchange / each.member).stat() for each in cast.organizations}
        keys = [
            path for each in cast.organizations for path in files_below(each.home) if path.suffix == ".pem"
        ]
        key_modes = {path.stat().st_mode & 0o777 for path in keys}
    except OSError as exc:
        raise AuditError(f"{exc.filename}: {exc.strerror}") from exc
    seen = {
        "homes of mode 0700": modes == {0o700},
        "private keys of mode 0600": key_modes == {0o600},
        "each writes in its own part of the exchange alone": all(
            (share.st_uid, share.st_mode & 0o022) == (owners[name], 0) for name, share in shares.items()
        ),
        # One for all, or one for each: as the demo was started.
        "owners of their own": len(set(owners.values())) in (1, len(owners)),
    }
    return Finding(seen)


def _content(path: Path, made: Made) -> bytes:
    """A file that is what was made. Nothing else is parsed.

    Raises:
        AuditError: there is none, or it is not what was made.
    """
    data = read_file(path)
    if (hashlib.sha256(data).digest(), len(data)) != (made.content.digest, made.content.size):
        raise AuditError(f"{path} is not what {made.actuation.member} made")
    return data


def _table(path: Path, made: Made) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(_content(path, made)))
    except (ArrowException, ValueError, OSError) as exc:
        raise AuditError(f"{path}: no table: {exc}") from exc


def _registry(clinic: Organization) -> pd.DataFrame:
    """A clinic's own registry, which nobody has signed."""
    path = clinic.place / "registry" / "patients.csv"
    try:
        registry = pd.read_csv(io.BytesIO(read_file(path)))
    except ValueError as exc:
        raise AuditError(f"{path}: no table: {exc}") from exc
    numbers = set(registry.select_dtypes("number").columns)
    if not numbers >= REGISTERED:
        raise AuditError(f"{path}: no numbers in {', '.join(sorted(REGISTERED - numbers))}")
    return registry


def executed(evidence: Evidence) -> Finding:
    def of_clinic(clinic: Organization) -> Finding:
        store = evidence.store(clinic)
        all_made = made_by(store, evidence.runs(clinic, "release"), "patients")
        if not all_made:
            raise AuditError(f"{clinic.title} has no run that made patients")
        newest = all_made[-1]
        whole = _content(clinic.assets / "patients.parquet", newest)
        away = [path.name for path in files_below(evidence.cast.exchange) if path.name.startswith("patients")]
        seen = {
            "permitted whole": all(made.claim.mode is Mode.EXECUTE for made in all_made),
            "all rows": all(made.content.rows == len(_registry(clinic)) for made in all_made),
            "the file at home is what was made": bool(whole),
            "at home only": not away,
        }
        return Finding(seen, newest.records(clinic.name), {clinic.name: newest.run.id})

    return together(of_clinic(clinic) for clinic in (evidence.cast.north, evidence.cast.south))


def restricted(evidence: Evidence) -> Finding:
    def of_clinic(clinic: Organization) -> Finding:
        store = evidence.store(clinic)
        all_made = made_by(store, evidence.runs(clinic, "release"), "released")
        if not all_made:
            raise AuditError(f"{clinic.title} has no run that made released")
        standing = [made for made in all_made if not taken_back(store, made.actuation)]
        if not standing:
            raise AuditError(f"{clinic.title} has taken back all that it made of released")
        newest = standing[-1]
        path = evidence.cast.exchange / clinic.member / "released.parquet"
        table, registry = _table(path, newest), _registry(clinic)
        expected = released_directly(registry).reset_index(drop=True)
        kept_out = [
            row for row in store.withheld if (row.intent, row.asset) == _slot(newest) and row.column == "inst"
        ]
        seen = {
            "permitted in part": all(made.claim.mode is Mode.RESTRICT for made in all_made),
            "the studied columns": all(made.content.columns == STUDIED for made in all_made),
            "the right rows in the file that partners read": table.equals(expected),
            "what is withheld": sum(row.rows for row in kept_out)
            == newest.said.get("comity/rows_withheld")
            == len(registry) - len(expected),
        }
        return Finding(seen, newest.records(clinic.name), {clinic.name: newest.run.id})

    return together(of_clinic(clinic) for clinic in (evidence.cast.north, evidence.cast.south))


def _slot(made: Made) -> tuple[bytes, str]:
    return made.intent.id, made.actuation.body.asset


def deferred_then_executed(evidence: Evidence) -> Finding:
    cast, store = evidence.cast, evidence.requester

    def look(made: Made) -> Finding:
        approval = approval_of(evidence, made)
        credential = store.find(approval.authority or b"", "credential")
        seen = {
            "every vote on what was asked first defers it": deferred_at_first(evidence, made),
            "no permit before the approval": all(
                permit.body.t >= approval.header.at for permit in permits_of(store, made.intent.id)
            ),
            "approved by another organization": approval.member == cast.officer.organization.member,
            "by its officer": credential.body.subject == cast.officer.spiffe
            and OFFICER_CLASS in credential.body.classes
            and "approve" in credential.body.actions,
            # It lies with the officer, or in the officer's browser.
            "by a key that lies at no organization's": not any(
                approval.header.key in keys_below(each.place) for each in cast.organizations
            ),
        }
        records = {"approval": approval.id.hex(), **made.records("pooled")}
        return Finding(seen, records, {"executed": made.run.id})

    return any_of(made_by(store, evidence.runs(cast.institute, "make_pooled"), "pooled"), look)


def _survival(evidence: Evidence) -> list[Made]:
    return made_by(evidence.requester, evidence.runs(evidence.cast.institute, "make_survival"), "survival")


def curves_equal(evidence: Evidence) -> Finding:
    path = evidence.cast.institute.assets / "survival.parquet"

    def look(made: Made) -> Finding:
        table = _table(path, made)
        if not set(table.columns) >= ESTIMATED:
            raise AuditError(f"{path}: no table of estimates")
        fits = fits_of_table(table)
        patients = all_patients()
        rows = pd.concat([released_directly(clinic_patients(patients, own)) for own in (NORTH, SOUTH)])
        seen = {
            "equal to 1e-9": greatest_difference(fits, fit_directly(rows)) <= EQUAL,
        }
        return Finding(seen, made.records("survival"), {"survival": made.run.id})

    return any_of(reversed(_survival(evidence)), look)


def owners_released(evidence: Evidence) -> Finding:
    cast, store = evidence.cast, evidence.requester
    clinics = {cast.north.member, cast.south.member}

    def look(made: Made) -> Finding:
        read = sorted(inputs_of(made.intent))
        if len(read) != 1:
            raise AuditError(f"survival was made from {len(read)} inputs, not from pooled alone")
        pooled = store.find(read[0], "actuation")
        state = pooled.header.governance
        released = {
            record.member: record.id.hex()
            for i in made.ask.body.relied
            if (record := store.records.get(i)) is not None and record.header.kind == "transition"
        }
        seen = {
            "the clinics owned pooled": state is not None and clinics <= set(state.owners),
            "both have signed a transition that the decision relied on": clinics <= set(released),
            "survival is the institute's": made.owners == (cast.institute.member,),
        }
        records = {"pooled_actuation": pooled.id.hex(), "survival_actuation": made.actuation.id.hex()}
        records |= {f"transition_{member}": record for member, record in released.items()}
        return Finding(seen, records, {"survival": made.run.id})

    return any_of(_survival(evidence), look)


def agent_admitted(evidence: Evidence) -> Finding:
    cast, store = evidence.cast, evidence.requester

    def look(run: LoggedRun) -> Finding:
        made = made_in(store, run, DRAFT)
        link = store.find(made.intent.body.credential, "credential")
        delegation = store.find(link.authority or b"", "credential")
        tickets = [
            record
            for i in made.ask.body.relied
            if (record := store.records.get(i)) is not None and record.header.kind == "launch_ticket"
        ]
        seen = {
            "asked by the agent": made.intent.body.requester == link.body.subject == cast.agent.spiffe,
            "by its own key": link.body.key == load_public(unlinked(cast.agent.public)),
            "it signed for this very run": [(t.authority, t.body.run) for t in tickets]
            == [(link.id, run.id)],
            "delegated by the operator": delegation.body.subject == cast.operator.spiffe,
        }
        records = {
            "credential": link.id.hex(),
            "delegation": delegation.id.hex(),
            **made.records("draft"),
        }
        if tickets:
            records["ticket"] = tickets[0].id.hex()
        return Finding(seen, records, {"admitted": run.id})

    runs = evidence.runs(cast.institute, "make_events_by_ecog")
    return any_of([run for run in runs if run.succeeded], look)


def agent_refused(evidence: Evidence) -> Finding:
    cast, store = evidence.cast, evidence.requester
    wanted = f"{cast.institute.member}/survival"

    def bounds(vote: AnyRecord) -> list[tuple[Any, Any]]:
        return [
            (p.get("bound"), p.get("wanted")) for code, p in causes_of(vote) if code == "credential_bound"
        ]

    def look(found: tuple[LoggedRun, AnyRecord]) -> Finding:
        run, intent = found
        refusal = sound_refusal(store, intent.id)
        votes = [store.find(i, "vote") for i in refusal.body.votes]
        seen = {
            "asked by the agent": intent.body.requester == cast.agent.spiffe,
            "every vote names the bound": all(("assets", wanted) in bounds(vote) for vote in votes),
            "nothing was made": made_nothing(run) and not permits_of(store, intent.id),
        }
        records = {"intent": intent.id.hex(), "refusal": refusal.id.hex()}
        return Finding(seen, records, {"refused": run.id})

    return any_of(failed_with(evidence, "make_survival", "refuse", "comity/causes", "credential_bound"), look)


def _roots_in(home: Path, epoch: int) -> bytes:
    """The roots in a home that pin an epoch: its newest, or where others joined since, those that it has kept."""
    newest = read_file(home / "roots.toml")
    if parse_roots(newest, "roots.toml").epoch_number == epoch:
        return newest
    return read_file(Home(home).roots_of(epoch))


def bundle_verified(evidence: Evidence) -> Finding:
    place = evidence.cast.place
    data = read_file(place / BUNDLE)
    report = verify_bundle(data, evidence.roots, engine_id())
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    try:
        verify_bundle(bytes(changed), evidence.roots, engine_id())
        found = False
    except (DecodeError, VerificationError):
        found = True
    roots = read_file(place / ROOTS)
    targets = decode_bundle(data).targets
    of_all = all(
        _roots_in(each.home, evidence.roots.epoch_number) == roots for each in evidence.cast.organizations
    )

    def look(made: Made) -> Finding:
        seen = {
            "judged again": report.level == "re-judged",
            "of what the run of survival made": targets == (made.actuation.id,),
            "a changed bit is found": found,
            "under the roots of all four": of_all,
        }
        return Finding(seen, made.records("survival"), {"survival": made.run.id})

    return any_of(_survival(evidence), look)
