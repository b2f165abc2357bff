"""Lineage: from what was made back through its inputs, and the bundle that proves it.

Functions of the core, run in its thread. What other members hold is named as missing, so that the service can
fetch it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from comity.attestation.exporting import export_bundle
from comity.attestation.holdings import Holdings
from comity.node.core import Core
from comity.node.problems import Refused
from comity.node.views import governance_form
from comity.protocol.bundle import close
from comity.protocol.errors import VerificationError
from comity.protocol.execution import Actuation, Intent, Permit
from comity.protocol.identifiers import DIGEST_BYTES
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

ANCESTORS_MAX: Final = 2_000
"""Actuations of one lineage that are shown; a bundle holds them all."""


def target_of(core: Core, name: str) -> bytes:
    """The record that a text names: an id in hex, or an asset's newest promoted actuation.

    Raises:
        Refused: `not_found`.
    """
    if len(name) == 2 * DIGEST_BYTES and "/" not in name:
        try:
            return bytes.fromhex(name)
        except ValueError:
            pass
    asset = name if core.holdings.epoch.writer_of(name) is not None else f"{core.identity.member}/{name}"
    heads = core.store.heads(asset, coalition=core.coalition)
    if not heads:
        raise Refused(
            "not_found",
            f"no promoted actuation of {asset} is known here",
            404,
            "name the asset with its member, e.g. clinic-north.example/released, or a record by its id",
        )
    return heads[0].actuation


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
        raise Refused("not_found", f"no actuation {target.hex()[:16]} is held here", 404)
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
        "state": made.header.outcome,
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
        row |= {"requester": intent.body.requester, "run": intent.body.run.run, "step": intent.body.run.step}
    return row


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
