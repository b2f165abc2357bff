"""Everything that a claim is computed from, and the few questions that claims have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from comity.attestation.lineage import actuation_problem, claim_for
from comity.attestation.roots import Roots, parse_roots
from comity.attestation.signing import key_id
from comity.attestation.tally import permit_problem, refusal_problem
from comity.node.keystore import companion, load_public
from comity.protocol.execution import Actuation, Claim, Intent, Permit
from comity.protocol.identifiers import DIGEST_BYTES
from comity.protocol.outcome import Mode
from demo_audit.artefacts import AuditError, files_below, read_file
from demo_audit.event_logs import LoggedRun, read_runs
from demo_audit.stores import AnyRecord, Store, read_store
from demo_main.accounts import Account
from demo_main.organizations import ACCOUNTS, Cast, Organization

ROOTS: Final = "results/roots.toml"
BUNDLE: Final = "results/survival.bundle"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a kept demo left behind.

    Attributes:
        cast: where everybody's files lie.
        stores: by member.
        logs: Dagster's runs by the organization's name, the oldest first.
        votes: votes in any store, by ask and member.
    """

    cast: Cast
    roots: Roots
    stores: Mapping[str, Store]
    logs: Mapping[str, tuple[LoggedRun, ...]]
    votes: Mapping[bytes, Mapping[str, AnyRecord]] = field(init=False)

    def __post_init__(self) -> None:
        votes: dict[bytes, dict[str, AnyRecord]] = {}
        for store in self.stores.values():
            for vote in store.of_kind("vote"):
                votes.setdefault(vote.body.ask, {})[vote.member] = vote
        object.__setattr__(self, "votes", votes)

    def store(self, organization: Organization) -> Store:
        return self.stores[organization.member]

    @property
    def requester(self) -> Store:
        """The store of the institute, which asks for everything but what the clinics release."""
        return self.store(self.cast.institute)

    def runs(self, organization: Organization, job: str) -> list[LoggedRun]:
        """An organization's runs of a job, the oldest first."""
        return [run for run in self.logs[organization.name] if run.job == job]

    def votes_on(self, ask: bytes) -> Mapping[str, AnyRecord]:
        """Every vote on an ask that any member holds, by its author."""
        return self.votes.get(ask, {})

    def asks_of(self, intent: bytes) -> list[AnyRecord]:
        """The asks of an intent of the institute, by their time."""
        return sorted(self.requester.about(intent, "ask"), key=lambda ask: ask.body.t)


@dataclass(frozen=True, slots=True)
class Made:
    """Something that was made under a sound permit: the certificate was checked as a reader checks it."""

    run: LoggedRun
    said: Mapping[str, Any]
    actuation: AnyRecord
    permit: AnyRecord
    intent: AnyRecord
    ask: AnyRecord
    claim: Claim

    @property
    def content(self) -> Any:
        return self.actuation.body.content

    @property
    def owners(self) -> tuple[str, ...]:
        state = self.actuation.header.governance
        return state.owners if state is not None else ()

    def records(self, name: str = "") -> dict[str, str]:
        """The ids of its records, for who wants to look."""
        pairs = (("intent", self.intent), ("permit", self.permit), ("actuation", self.actuation))
        return {f"{name}_{what}".removeprefix("_"): record.id.hex() for what, record in pairs}


def read_evidence(place: Path) -> Evidence:
    """Read what a demo left in a folder.

    Raises:
        AuditError: something that everything else rests on is missing or unreadable.
        ConfigError: the roots are none.
    """
    place = place.resolve()
    cast = Cast.at(place, dict.fromkeys(ACCOUNTS, Account()))
    roots = parse_roots(read_file(place / ROOTS), ROOTS)
    return Evidence(
        cast,
        roots,
        {each.member: read_store(each.member, each.home, roots) for each in cast.organizations},
        {each.name: read_runs(each.dagster_home) for each in cast.workers},
    )


def id_of(text: object) -> bytes:
    """The id of a record that a log names.

    Raises:
        AuditError: it is none.
    """
    try:
        value = bytes.fromhex(str(text))
    except ValueError:
        value = b""
    if len(value) != DIGEST_BYTES:
        raise AuditError(f"an event log names {str(text)[:80]!r} where the id of a record stands")
    return value


def made_in(store: Store, run: LoggedRun, asset: str) -> Made:
    """What a run made of an asset of the store's member: the log names the records, and these are sound.

    Raises:
        AuditError: it made nothing, or what it names does not carry it.
    """
    said = run.made.get(asset)
    if said is None:
        raise AuditError(f"run {run.id} of {run.job} made no {asset}")
    actuation = store.find(id_of(said.get("comity/record")), "actuation")
    body: Actuation = actuation.body
    permit, intent = store.find(body.permit, "permit"), store.find(body.intent, "intent")
    problem = actuation_problem(actuation, permit, intent, store.records, store.epochs)
    if problem is not None:
        raise AuditError(f"{asset} of run {run.id}: {problem.cause.code}")
    named = (id_of(said.get("comity/intent")), id_of(said.get("comity/permit")), f"{store.member}/{asset}")
    if named != (intent.id, permit.id, body.asset) or actuation.header.outcome != "promoted":
        raise AuditError(f"{asset} of run {run.id}: the event log names other records than its actuation")
    claim = claim_for(permit.body, intent.body, body)
    if claim is None or str(said.get("comity/outcome")) != str(claim.mode):
        raise AuditError(f"{asset} of run {run.id}: the event log says another outcome than the permit")
    return Made(run, said, actuation, permit, intent, store.find(permit.body.ask, "ask"), claim)


def made_by(store: Store, runs: Iterable[LoggedRun], asset: str) -> list[Made]:
    """What those of the runs that succeeded made of an asset.

    Raises:
        AuditError: as `made_in`.
    """
    return [made_in(store, run, asset) for run in runs if run.succeeded]


def later_under(evidence: Evidence, run: LoggedRun, asset: str) -> Made:
    """What a later run made of an asset under the very intent that a run of the institute failed with.

    Raises:
        AuditError: none did, or as `made_in`.
    """
    intent = str(run.failure().get("comity/intent"))
    for each in evidence.runs(evidence.cast.institute, run.job):
        if each.at > run.at and each.succeeded and each.made.get(asset, {}).get("comity/intent") == intent:
            return made_in(evidence.requester, each, asset)
    raise AuditError(f"no later run of {run.job} made {asset} under the intent of run {run.id}")


def failed_with(
    evidence: Evidence, job: str, outcome: str, key: str, code: str
) -> list[tuple[LoggedRun, AnyRecord]]:
    """Runs of the institute that failed with an outcome, and among whose causes or needs a code is; with the intent.

    Raises:
        AuditError: there is none.
    """
    found = [
        (run, evidence.requester.find(id_of(run.failure().get("comity/intent")), "intent"))
        for run in evidence.runs(evidence.cast.institute, job)
        if run.failure().get("comity/outcome") == outcome and code in run.codes(key)
    ]
    if not found:
        raise AuditError(f"no run of {job} failed with {outcome} for {code}")
    return found


def made_nothing(run: LoggedRun) -> bool:
    return run.status == "FAILURE" and not run.made


def sound_refusal(store: Store, intent: bytes) -> AnyRecord:
    """The newest refusal of an intent, its certificate checked.

    Raises:
        AuditError: there is none.
    """
    asked = store.find(intent, "intent")
    found = store.about(intent, "refusal")
    for refusal in reversed(found):
        epoch = store.epochs.get(refusal.body.epoch)
        if epoch is not None and refusal_problem(refusal, asked, store.records, epoch) is None:
            return refusal
    raise AuditError(f"the store of {store.member} has no sound refusal of intent {intent.hex()[:16]}")


def modes_of(vote: AnyRecord) -> set[Mode]:
    return {judgement.outcome.mode for judgement in vote.body.judgements}


def supports(vote: AnyRecord) -> bool:
    """Whether a vote lets every class be made, at least in part."""
    return all(mode.rank >= Mode.RESTRICT.rank for mode in modes_of(vote))


def causes_of(vote: AnyRecord) -> list[tuple[str, Mapping[str, Any]]]:
    """Code and parameters of everything that a vote holds against an intent."""
    return [(c.code, c.parameters) for judgement in vote.body.judgements for c in judgement.outcome.causes]


def inputs_of(intent: AnyRecord) -> frozenset[bytes]:
    """The actuations that an intent reads."""
    body: Intent = intent.body
    named = {i for group in body.classes for i in group.inputs}
    return frozenset(named | {i for group in body.classes for item in group.items for i in item.inputs})


def keys_below(folder: Path) -> set[bytes]:
    """Ids of the private keys that lie below a folder.

    Raises:
        AuditError, ConfigError: they cannot be read.
    """
    return {key_id(load_public(companion(path))) for path in files_below(folder) if path.suffix == ".pem"}


def claim_of(store: Store, permit: AnyRecord, intent: AnyRecord, wrote: AnyRecord) -> Claim:
    """The claim of a sound permit for something that was written, whatever is in it.

    Raises:
        AuditError: the permit is none for it.
    """
    epoch = store.epochs.get(permit.body.epoch)
    problem = "epoch_unknown"
    if epoch is not None:
        found = permit_problem(permit, intent, store.records, epoch)
        problem = found.cause.code if found is not None else ""
    claim = claim_for(permit.body, intent.body, wrote.body)
    if problem or claim is None or wrote.member != intent.member:
        raise AuditError(
            f"{wrote.body.asset} was written under no sound permit: {problem or 'not_permitted'}"
        )
    return claim


def taken_back(store: Store, version: AnyRecord) -> list[AnyRecord]:
    """The records by which the maker of a version has taken it back."""
    return [
        record
        for record in store.about(version.id, "actuation")
        if record.header.outcome in ("rolled_back", "quarantined") and record.member == version.member
    ]


def tickets_of(store: Store, ask: AnyRecord) -> list[AnyRecord]:
    """The launch tickets that an ask relies on."""
    relied = (store.records.get(i) for i in ask.body.relied)
    return [record for record in relied if record is not None and record.header.kind == "launch_ticket"]


def permits_of(store: Store, intent: bytes) -> list[AnyRecord]:
    found = [r for r in store.about(intent, "permit") if isinstance(r.body, Permit)]
    return sorted(found, key=lambda permit: permit.body.t)
