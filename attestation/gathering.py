"""What a requester names in an ask: every favourable record at hand that may help its intent.

Naming more than is needed is harmless; the judgement looks only at what fits. The bound of an ask holds: what
is most needed comes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from comity.attestation.holdings import Holdings
from comity.protocol.execution import Actuation, Intent, Permit, Transition
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
    for record in holdings.state.of_kind("reference_values"):
        take(record)
    for record in (*transitions_in(holdings, intent.body), *_observations(intent.id, input_ids, holdings)):
        take(record)
        if record.authority is not None and record.role == "subject":
            for link in chain_of(record.authority, holdings):
                take(link)
    return chosen


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


def _observations(intent_id: bytes, input_ids: list[bytes], holdings: Holdings) -> list[AnyRecord]:
    return [
        record
        for subject in (intent_id, *input_ids)
        for record in holdings.about(subject)
        if record.header.kind == "observation" and not record.is_adverse()
    ]
