"""Which actuations are heads: the newest of their slots, as this node goes by them.

A head decides which generation is asked for next and what partners are seen to publish. An actuation that no
permit carries must not become one, whoever signed it. Generations only go up: where the newest version was rolled
back, an earlier one stands in its place, and the next that is made is of the generation after the highest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

from comity.attestation.aftermath import standing_version
from comity.attestation.holdings import Holdings
from comity.node.store import Head, Store
from comity.protocol.execution import Actuation, Intent, Permit
from comity.protocol.identifiers import PRODUCTION
from comity.protocol.verified import VerifiedRecord
from comity.protocol.ways import APART

AnyRecord: TypeAlias = VerifiedRecord[Any]


def heads_among(holdings: Holdings, coalition: bytes, arrived: Iterable[AnyRecord]) -> Iterator[Head]:
    """The heads that records raise as they arrive.

    An actuation whose permit or intent is not here waits, and is raised when they come.
    """
    seen: set[bytes] = set()
    for record in arrived:
        for actuation in _actuations_of(holdings, record):
            if actuation.id not in seen and _is_carried(holdings, coalition, actuation):
                seen.add(actuation.id)
                body: Actuation = actuation.body
                asset = filed_as(body.asset, actuation.header.realm)
                yield Head(coalition, asset, body.partition, body.generation, actuation.id)


def filed_as(asset: str, realm: str) -> str:
    """The name under which the head of an asset is kept: what is made apart has heads of its own, seen by nobody else.

    No asset is called so.
    """
    return f"{realm}\0{asset}" if realm in APART else asset


def is_for_all(head: Head) -> bool:
    """Whether a head is that of an asset as everybody sees it."""
    return "\0" not in head.asset


def generation_made(store: Store, coalition: bytes, asset: str, partition: str) -> int:
    """The highest generation of a slot that was promoted, in whatever realm; 0 where none was."""
    names = (asset, *(filed_as(asset, realm) for realm in sorted(APART)))
    heads = (head for name in names for head in store.heads(name, partition, coalition=coalition))
    return max((head.generation for head in heads), default=0)


def standing_heads(
    store: Store, holdings: Holdings, asset: str, partition: str | None = None, realm: str = PRODUCTION
) -> list[Head]:
    """The versions that count as the newest of the slots of an asset, by partition.

    Neither what was rolled back, nor what was made apart in another realm than that of whoever asks.
    """
    coalition = holdings.epoch.coalition
    newest = {head.partition: head for head in store.heads(asset, partition, coalition=coalition)}
    for head in store.heads(filed_as(asset, realm), partition, coalition=coalition) if realm in APART else ():
        before = newest.get(head.partition)
        if before is None or before.generation < head.generation:
            newest[head.partition] = replace(head, asset=asset)
    found = (standing(holdings, newest[key]) for key in sorted(newest))
    return [stands for stands in found if stands is not None]


def standing(holdings: Holdings, head: Head) -> Head | None:
    """The version that stands in a slot, by the newest one made; None where there is none."""
    version = standing_version(holdings, head.actuation)
    if version == head.actuation:
        return head
    made = holdings.get(version) if version is not None else None
    if made is None or not isinstance(made.body, Actuation):
        return None
    return Head(head.coalition, head.asset, head.partition, made.body.generation, made.id)


def _actuations_of(holdings: Holdings, record: AnyRecord) -> list[AnyRecord]:
    """The actuations that a record may decide about: itself, those under a permit, those of an intent."""
    body = record.body
    if isinstance(body, Actuation):
        return [record]
    if isinstance(body, Permit):
        return [found for found in holdings.about(record.id) if isinstance(found.body, Actuation)]
    if isinstance(body, Intent):
        permits = [found for found in holdings.about(record.id) if isinstance(found.body, Permit)]
        return [each for permit in permits for each in _actuations_of(holdings, permit)]
    return []


def _is_carried(holdings: Holdings, coalition: bytes, record: VerifiedRecord[Actuation]) -> bool:
    """Whether an actuation is its writer's, promoted, under a permit of its writer in an epoch of this coalition.

    The votes under the permit are looked at where the lineage is used.
    """
    body = record.body
    if record.header.outcome != "promoted" or record.header.coalition != coalition:
        return False
    if holdings.epoch.writer_of(body.asset) != record.member:
        return False
    permit, intent = holdings.get(body.permit), holdings.get(body.intent)
    if permit is None or intent is None:
        return False
    said, asked = permit.body, intent.body
    if not isinstance(said, Permit) or not isinstance(asked, Intent):
        return False
    slots = (
        (group.asset, item.partition, item.generation) for group in asked.classes for item in group.items
    )
    return (
        permit.member == intent.member == record.member
        and said.intent == intent.id
        and said.epoch in holdings.epochs
        and (body.asset, body.partition, body.generation) in slots
    )
