"""What a requester names in an ask: every favourable record at hand that may help its intent.

Naming more than is needed is harmless; the judgement looks only at what fits. The bound of an ask holds: what
is most needed comes first, and of what others said everybody has a share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from comity.attestation.holdings import Holdings
from comity.protocol.execution import Actuation, Attestation, Intent, Observation, Permit, Transition
from comity.protocol.governance import ReferenceValues
from comity.protocol.identifiers import pattern_matches
from comity.protocol.limits import CHAIN_MAX, RELIED_MAX
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]


def gather(
    intent: VerifiedRecord[Intent], holdings: Holdings, offered: Iterable[AnyRecord] = ()
) -> dict[bytes, AnyRecord]:
    """The records to rely on, by id, at most `RELIED_MAX`.

    Args:
        offered: records that came with the intent: a launch ticket, evidence.
    """
    chosen: dict[bytes, AnyRecord] = {}

    def take(record: AnyRecord | None) -> None:
        if record is not None and len(chosen) < RELIED_MAX and not record.is_adverse():
            chosen.setdefault(record.id, record)

    for link in chain_of(intent.body.credential, holdings):
        take(link)
        if link.body.previous is not None:
            take(holdings.get(link.body.previous))
    for record in offered:
        take(record)
    owners: set[str] = set()
    input_ids = sorted({i for group in intent.body.classes for i in _inputs_of(group)})
    for actuation_id in input_ids:
        for record in certificate_of(actuation_id, holdings):
            take(record)
            if record.header.governance is not None:
                owners.update(record.header.governance.owners)
    for record in holdings.state.of_kind("owner_policy"):
        if record.member in owners and not holdings.state.successors(record):
            take(record)
    for record in _in_fair_shares(
        _helpful(intent, input_ids, owners, chosen, holdings), len(chosen), holdings
    ):
        take(record)
    return chosen


def _helpful(
    intent: VerifiedRecord[Intent],
    input_ids: list[bytes],
    owners: set[str],
    chosen: Mapping[bytes, AnyRecord],
    holdings: Holdings,
) -> list[AnyRecord]:
    """What others said that may help, the most likely first."""
    about = _observations((intent.id,), holdings)
    transitions = transitions_in(holdings, intent.body)
    return [
        *(r for r in about if r.body.claim == "approval" and r.body.shown == intent.header.body.digest),
        *(r for r in transitions if r.member in owners),
        *_reference_values(chosen, holdings),
        *about,
        *_observations(input_ids, holdings),
        *transitions,
    ]


def _in_fair_shares(records: Iterable[AnyRecord], taken: int, holdings: Holdings) -> list[AnyRecord]:
    """The records with the chains above their keys: of every member at first as many as leave room for the others'.

    So nobody who publishes much keeps what another says out of the ask.
    """
    share = max(1, (RELIED_MAX - taken) // max(1, len(holdings.epoch.members)))
    used: dict[str, int] = {}
    first: list[AnyRecord] = []
    later: list[AnyRecord] = []
    for record in {record.id: record for record in records}.values():
        whole = [record]
        if record.authority is not None and record.role == "subject":
            whole += chain_of(record.authority, holdings)
        used[record.member] = used.get(record.member, 0) + len(whole)
        (first if used[record.member] <= share else later).extend(whole)
    return [*first, *later]


def _reference_values(chosen: Mapping[bytes, AnyRecord], holdings: Holdings) -> list[AnyRecord]:
    """Those of the epoch's publishers that speak of a context measured in the evidence at hand."""
    contexts = [record.body.context for record in chosen.values() if isinstance(record.body, Attestation)]
    publishers = holdings.epoch.body.publishers
    return [
        record
        for record in holdings.state.of_kind("reference_values")
        if record.member in publishers
        and isinstance(record.body, ReferenceValues)
        and any(c.distributions in record.body.distributions and c.code in record.body.code for c in contexts)
    ]


def _inputs_of(group: Any) -> set[bytes]:
    return set(group.inputs) | {i for item in group.items for i in item.inputs}


def chain_of(credential: bytes, holdings: Holdings) -> list[AnyRecord]:
    """A credential and the links above it, as far as they are held."""
    links: list[AnyRecord] = []
    wanted: bytes | None = credential
    while wanted is not None and len(links) < CHAIN_MAX:
        link = holdings.get(wanted)
        if link is None or link.header.kind != "credential":
            break
        links.append(link)
        wanted = link.authority
    return links


def certificate_of(actuation_id: bytes, holdings: Holdings) -> list[AnyRecord]:
    """An actuation with the permit that it was made under, the permit's intent and votes, as far as held."""
    actuation = holdings.get(actuation_id)
    if actuation is None or not isinstance(actuation.body, Actuation):
        return []
    body = actuation.body
    records = [actuation, *(holdings.get(i) for i in (body.permit, body.intent, body.start))]
    permit = records[1]
    if permit is not None and isinstance(permit.body, Permit):
        records.extend(holdings.get(vote) for vote in permit.body.votes)
    return [record for record in records if record is not None]


def transitions_in(holdings: Holdings, intent: Intent) -> list[AnyRecord]:
    """Transitions that speak of one of the intent's outputs."""
    return [
        record
        for record in holdings.state.of_kind("transition")
        if isinstance(record.body, Transition)
        and any(pattern_matches(record.body.asset, group.asset) for group in intent.classes)
    ]


def _observations(subjects: Iterable[bytes], holdings: Holdings) -> list[VerifiedRecord[Observation]]:
    return [
        record
        for subject in subjects
        for record in holdings.about(subject)
        if isinstance(record.body, Observation) and not record.is_adverse()
    ]
