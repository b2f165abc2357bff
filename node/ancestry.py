"""Lineage: from what was made back through its inputs, and the bundle that proves it.

Functions of the core, run in its thread. What other members hold is named as missing, so that the service can
fetch it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from comity.attestation.aftermath import against, taken_back
from comity.attestation.exporting import export_bundle
from comity.attestation.holdings import Holdings
from comity.node.core import Core
from comity.node.drafts import asset_id
from comity.node.heads import standing_heads
from comity.node.problems import Refused
from comity.node.revocations import marks_of
from comity.node.store import Head
from comity.node.terms import obligation_form
from comity.node.views import governance_form
from comity.protocol.bundle import close
from comity.protocol.errors import VerificationError
from comity.protocol.execution import Actuation, Intent, Permit
from comity.protocol.identifiers import DIGEST_BYTES
from comity.protocol.outcome import indices_of
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

ANCESTORS_MAX: Final = 2_000
"""Actuations of one lineage that are shown; a bundle holds them all."""
ID_DIGITS_MIN: Final = 6
"""Digits of an id that are its beginning at least."""
IDS_LISTED_MAX: Final = 8
"""Records of equal beginning that are named: two suffice to ask for more digits."""
PARTITIONS_NAMED_MAX: Final = 16
"""Partitions that a refusal names."""
_HEX: Final = frozenset("0123456789abcdef")


def ids_from(core: Core, beginning: str) -> Any:
    """The records that are held whose id begins so, a few at most: `id` and `kind` of each.

    Raises:
        Refused: `form_invalid`: it is no beginning of an id.
    """
    digits = 2 * DIGEST_BYTES
    if not ID_DIGITS_MIN <= len(beginning) <= digits or not _HEX.issuperset(beginning):
        raise Refused("form_invalid", f"an id is {digits} hex digits, its beginning {ID_DIGITS_MIN}", 422)
    first, last = (bytes.fromhex(beginning.ljust(digits, filler)) for filler in "0f")
    return [{"id": i.hex(), "kind": kind} for i, kind in core.store.ids(first, last, IDS_LISTED_MAX)]


def slots_of(core: Core, name: str) -> list[Head]:
    """The newest promoted actuations of an asset, one for each partition; none where it is no such asset."""
    return standing_heads(core.store, core.holdings, asset_id(core, name))


def target_of(core: Core, name: str, partition: str | None = None) -> bytes:
    """The record that a text names: an asset's newest promoted actuation, or an id, whole or its beginning.

    Args:
        partition: of the asset; None where it has only one.

    Raises:
        Refused: `not_found`, or `partition_missing` where there are several and none is named.
    """
    slots = slots_of(core, name)
    if not slots and partition is None and "/" not in name:
        found = _by_id(core, name)
        if found is not None:
            return found
    asset = asset_id(core, name)
    chosen = [slot for slot in slots if partition in (None, slot.partition)]
    if len(chosen) == 1:
        return chosen[0].actuation
    listed = ", ".join(repr(slot.partition) for slot in slots[:PARTITIONS_NAMED_MAX])
    more = ", ..." if len(slots) > PARTITIONS_NAMED_MAX else ""
    if chosen:
        what = f"{asset} has {len(slots)} partitions here: {listed}{more}"
        raise Refused("partition_missing", what, 409, "name the one that is meant: --partition KEY")
    if slots:
        what = f"nothing of the partition {partition!r} of {asset} is known here"
        raise Refused("not_found", what, 404, f"known are {listed}{more}")
    raise Refused(
        "not_found", f"no promoted actuation of {asset} is known here", 404, _hint(core, name, asset)
    )


def _by_id(core: Core, name: str) -> bytes | None:
    """The record whose id a text is, or begins; None where it is no such text, or nothing held begins so."""
    if len(name) == 2 * DIGEST_BYTES and _HEX.issuperset(name):
        return bytes.fromhex(name)
    if not _is_beginning(name):
        return None
    found = ids_from(core, name)
    if len(found) > 1:
        kinds = ", ".join(sorted({each["kind"] for each in found}))
        raise Refused("not_found", f"several ids begin with {name}, of {kinds}", 404, "give more digits")
    return bytes.fromhex(found[0]["id"]) if found else None


def _is_beginning(text: str) -> bool:
    return ID_DIGITS_MIN <= len(text) <= 2 * DIGEST_BYTES and _HEX.issuperset(text)


def _hint(core: Core, name: str, asset: str) -> str:
    if core.holdings.epoch.writer_of(name) is None:
        tried = "no record that is held here has an id that begins so; " if _is_beginning(name) else ""
        return (
            f"{tried}it was never made under a decision, or is a partner's: name that with its member, e.g."
            " clinic-north.example/released"
        )
    if core.holdings.epoch.writer_of(asset) == core.identity.member:
        return "it was never made under a decision"
    return "its maker's node holds it, and whose code has read it: ask there, or have a step read it here"


def partitions(core: Core, slots: list[Head]) -> Any:
    """What is known of an asset with several partitions: of each the newest actuation."""
    rows: list[Any] = []
    for slot in slots:
        made = core.holdings.get(slot.actuation)
        rows.append(
            {
                "partition": slot.partition,
                "actuation": slot.actuation.hex(),
                "generation": slot.generation,
                "made_at": made.header.at if made is not None else 0,
            }
        )
    return {"asset": slots[0].asset, "partitions": rows}


def missing_ancestors(core: Core, target: bytes) -> tuple[bytes, ...]:
    """Ids of the records that a proof of the target needs and that are not here."""
    return close((target,), core.holdings.get)[1]


def lineage(core: Core, target: bytes) -> Any:
    """The chain of actuations behind a target, what was made last first.

    Raises:
        Refused: `not_found`: the target is no actuation that is held here.
    """
    first = core.holdings.get(target)
    if first is None or not isinstance(first.body, Actuation):
        what = f"no actuation {target.hex()[:16]} is held here"
        if first is not None:
            what = f"{target.hex()[:16]} is of kind {first.header.kind}, and lineage is that of an actuation"
        raise Refused("not_found", what, 404)
    rows: list[Any] = []
    missing: list[str] = []
    queue, seen = [target], {target}
    while queue and len(rows) < ANCESTORS_MAX:
        wanted = queue.pop(0)
        made = core.holdings.get(wanted)
        if made is None or not isinstance(made.body, Actuation):
            missing.append(wanted.hex())
            continue
        rows.append(_row(core.holdings, made))
        for input_id in made.body.inputs:
            if input_id not in seen:
                seen.add(input_id)
                queue.append(input_id)
    return {
        "target": target.hex(),
        "asset": first.body.asset,
        "partition": first.body.partition,
        "actuations": rows,
        "missing": sorted(missing),
        "complete": not missing and not queue,
    }


def _row(holdings: Holdings, made: VerifiedRecord[Actuation]) -> Any:
    body, state = made.body, made.header.governance
    permit, intent = holdings.get(body.permit), holdings.get(body.intent)
    row: dict[str, Any] = {
        "actuation": made.id.hex(),
        "asset": body.asset,
        "partition": body.partition,
        "generation": body.generation,
        "member": made.member,
        "state": min(taken_back(holdings, made), default=made.header.outcome),
        "against": sorted(_codes_against(holdings, made)),
        "made_at": made.header.at,
        "digest": body.content.digest.hex(),
        "size": body.content.size,
        "rows": body.content.rows,
        "columns": list(body.content.columns),
        "media_type": body.content.media_type,
        "intent": body.intent.hex(),
        "permit": body.permit.hex(),
        "inputs": [input_id.hex() for input_id in body.inputs],
    }
    if state is not None:
        form = governance_form(state)
        row["governance"] = {
            "tier": form.tier,
            "realm": form.realm,
            "owners": form.owners,
            "purpose": form.purpose,
            "weight": form.weight,
            "data_classes": form.data_classes,
            "restrictions": [
                {"code": each.code, "parameters": each.parameters, "message": each.message}
                for each in form.restrictions
            ],
        }
    if permit is not None and isinstance(permit.body, Permit):
        row["voters"] = sorted(_voters(holdings, permit.body.votes))
        if intent is not None and isinstance(intent.body, Intent):
            row |= _permitted(permit.body, intent.body, body)
    if intent is not None and isinstance(intent.body, Intent):
        row |= {"requester": intent.body.requester, "run": intent.body.run.run, "step": intent.body.run.step}
        row["marks"] = marks_of(holdings, intent, made)
    return row


def _codes_against(holdings: Holdings, made: VerifiedRecord[Actuation]) -> frozenset[str]:
    """Why a version may not be used, by what is held; nothing where nothing was said of it."""
    if not holdings.adverse_about({made.id}) and not holdings.slot_rivals(made):
        return frozenset()
    found = against(holdings, made)
    return found.codes if found is not None else frozenset()


def _permitted(permit: Permit, intent: Intent, made: Actuation) -> dict[str, Any]:
    """How the permit allowed it: the mode, the declared columns that it withholds, the obligations."""
    for claim in permit.claims:
        group = intent.classes[claim.index]
        permitted = (group.items[i].partition for i in indices_of(claim.extent.items))
        if group.asset != made.asset or made.partition not in permitted:
            continue
        kept = set(indices_of(claim.extent.columns))
        return {
            "mode": str(claim.mode),
            "columns_withheld": [name for i, name in enumerate(group.columns) if i not in kept],
            "obligations": [
                {"code": each.code, "parameters": each.parameters, "rule": "", "message": each.message}
                for each in map(obligation_form, claim.obligations)
            ],
        }
    return {}


def _voters(holdings: Holdings, votes: Iterable[bytes]) -> set[str]:
    return {vote.member for i in votes if (vote := holdings.get(i)) is not None}


def bundle(core: Core, target: bytes) -> bytes:
    """The bundle that a stranger verifies.

    Raises:
        Refused: `not_found`, or `lineage_incomplete` where something that the target depends on is not held.
    """
    if core.holdings.get(target) is None:
        raise Refused("not_found", f"no record {target.hex()[:16]} is held here", 404)
    try:
        return export_bundle((target,), core.holdings).encoded()
    except VerificationError as exc:
        raise Refused(
            "lineage_incomplete",
            str(exc),
            409,
            "the nodes that hold the missing records have to be up: `comity node status` shows who is",
        ) from exc
