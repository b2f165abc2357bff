"""Who may speak against what, and what of it was taken back.

A report is an adverse record that says an outcome: a failed check, a dispute, a quarantine. What an organization
or its node says is the organization's word. A person or an agent speaks within its credential and no further, and
what it said falls with its authority: else one key that was lost could bar an asset for ever.

Spec: docs/spec/decision.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from comity.attestation.credentials import read_chain
from comity.attestation.epochs import EpochState
from comity.attestation.findings import Finding
from comity.protocol.execution import Actuation, Intent
from comity.protocol.governance import Credential, Taxonomy
from comity.protocol.identifiers import pattern_matches
from comity.protocol.limits import CHAIN_MAX
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]


@dataclass(frozen=True, slots=True)
class Speakers:
    """By what a report is measured.

    Attributes:
        observers: members whose reports policy admits for assets that are not theirs.
        links: the credentials above the keys of persons and agents that report, by id.
    """

    epoch: EpochState
    taxonomy: Taxonomy
    observers: frozenset[str] = frozenset()
    links: Mapping[bytes, AnyRecord] = field(default_factory=dict[bytes, AnyRecord])


def is_report(record: AnyRecord) -> bool:
    """Whether a record is adverse by its outcome. A revocation has none."""
    return record.header.outcome is not None and record.is_adverse()


def links_above(
    records: Iterable[AnyRecord], find: Callable[[bytes], AnyRecord | None]
) -> dict[bytes, AnyRecord]:
    """The credentials above the keys of the persons and agents among those who report, by id.

    They verified before what they vouch for, so whoever holds a report holds them.
    """
    return credentials_above((r for r in records if is_report(r) and r.role == "subject"), find)


def credentials_above(
    records: Iterable[AnyRecord], find: Callable[[bytes], AnyRecord | None]
) -> dict[bytes, AnyRecord]:
    """The credentials above the keys of the authors of records, by id, as far as they are held."""
    links: dict[bytes, AnyRecord] = {}
    for record in records:
        wanted = record.authority
        for _ in range(CHAIN_MAX):
            if wanted is None or wanted in links:
                break
            link = find(wanted)
            if link is None or not isinstance(link.body, Credential):
                break
            links[wanted] = link
            wanted = link.authority
    return links


def way_up(report: AnyRecord, links: Mapping[bytes, AnyRecord]) -> tuple[AnyRecord, ...]:
    """A report and the credentials that it rests on. An organization's and a node's rest on nothing here."""
    way = [report]
    while report.role == "subject" and len(way) <= CHAIN_MAX:
        link = links.get(way[-1].authority or b"")
        if link is None:
            break
        way.append(link)
    return tuple(way)


def may_report(record: AnyRecord, target: AnyRecord, speakers: Speakers) -> bool:
    """Whether a report counts against a record: by whose it is, and within its author's credential."""
    entitled = {target.member} | speakers.observers
    state = target.header.governance
    if isinstance(target.body, Actuation) and state is not None:
        entitled |= set(state.owners)
    if record.member not in entitled:
        return False
    return record.role != "subject" or _is_within_credential(record, target, speakers)


def _is_within_credential(record: AnyRecord, target: AnyRecord, speakers: Speakers) -> bool:
    """Whether the author's chain was sound when the report says it was made, and covers what it is about.

    Whoever may observe or make all assets that are concerned may report on them; whoever signed a record itself may
    always take its own word back.
    """
    if record.authority is None:
        return False
    chain = read_chain(record.authority, speakers.links, speakers.epoch, speakers.taxonomy, record.header.at)
    if isinstance(chain, Finding):
        return False
    if record.header.key == target.header.key:
        return True
    assets = _assets_of(target)
    actions = ("observe", "materialize") if assets else ("observe",)
    return any(action in chain.own.actions for action in actions) and all(
        any(pattern_matches(pattern, asset) for pattern in chain.own.assets) for asset in assets
    )


def _assets_of(target: AnyRecord) -> tuple[str, ...]:
    """The assets that a record is about: what was made, or all that an intent would make."""
    if isinstance(target.body, Actuation):
        return (target.body.asset,)
    return tuple(group.asset for group in target.body.classes) if isinstance(target.body, Intent) else ()
