"""What a bundle says of where its target comes from: actuations, their inputs, decisions and approvals.

The picture and the demo's summary are made from this, so from the very bytes that a stranger verifies.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.node.sentences import obligation_sentence
from comity.protocol.bundle import decode_bundle
from comity.protocol.execution import Actuation, Ask, Intent, Permit
from comity.protocol.outcome import Mode
from comity.protocol.records import decode_body


@dataclass(frozen=True, slots=True)
class Made:
    """One actuation of a lineage."""

    id: str
    asset: str
    rows: int
    columns: tuple[str, ...]
    mode: str
    inputs: tuple[str, ...]
    owners: tuple[str, ...]
    intent: str
    permit: str
    requester: str
    voters: tuple[str, ...]
    obligations: tuple[str, ...]
    approvals: tuple[str, ...]
    transitions: tuple[str, ...]

    @property
    def member(self) -> str:
        return self.asset.partition("/")[0]

    @property
    def name(self) -> str:
        return self.asset.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Lineage:
    """A bundle, read: how many records under how many epochs. `made` begins with what was made from nothing else."""

    records: int
    epochs: int
    kinds: dict[str, int]
    made: tuple[Made, ...]


def read_lineage(bundle: Path) -> Lineage:
    """Read a bundle's lineage. It verifies nothing: `comity verify` does that."""
    decoded = decode_bundle(bundle.read_bytes())
    records = {record.id: record for record in (*decoded.epochs, *decoded.records)}
    bodies: dict[bytes, Any] = {record_id: decode_body(record) for record_id, record in records.items()}
    made: dict[bytes, Made] = {}
    for record_id, body in bodies.items():
        if not isinstance(body, Actuation):
            continue
        permit, intent = bodies[body.permit], bodies[body.intent]
        assert isinstance(permit, Permit)
        assert isinstance(intent, Intent)
        ask = bodies[permit.ask]
        assert isinstance(ask, Ask)
        claim = next(c for c in permit.claims if intent.classes[c.index].asset == body.asset)
        relied = {i: records[i].header for i in ask.relied if i in records}
        state = records[record_id].header.governance
        made[record_id] = Made(
            id=record_id.hex(),
            asset=body.asset,
            rows=body.content.rows,
            columns=body.content.columns,
            mode="execute" if claim.mode is Mode.EXECUTE else "restrict",
            inputs=tuple(i.hex() for i in body.inputs),
            owners=state.owners if state is not None else (),
            intent=body.intent.hex(),
            permit=body.permit.hex(),
            requester=intent.requester,
            voters=tuple(sorted(records[vote].header.member for vote in permit.votes)),
            obligations=tuple(_spelled(obligation) for obligation in claim.obligations),
            approvals=_members(relied, "observation", "approved", body.intent),
            transitions=tuple(sorted(h.member for h in relied.values() if h.kind == "transition")),
        )
    kinds = Counter(record.header.kind for record in decoded.records)
    return Lineage(len(decoded.records), len(decoded.epochs), dict(sorted(kinds.items())), _in_order(made))


def _members(relied: dict[bytes, Any], kind: str, outcome: str, subject: bytes) -> tuple[str, ...]:
    return tuple(
        sorted(
            h.member
            for h in relied.values()
            if h.kind == kind and h.outcome == outcome and subject in h.subject
        )
    )


def _spelled(term: Any) -> str:
    """An obligation in words, or by its code and parameters where it has none."""
    inside = ", ".join(f"{name}={value}" for name, value in sorted(term.parameters.items()))
    return obligation_sentence(term.code, term.parameters) or (
        f"{term.code}({inside})" if inside else term.code
    )


def _in_order(made: dict[bytes, Made]) -> tuple[Made, ...]:
    """Inputs before what was made of them; among equals by the name of the asset."""
    left = sorted(made.values(), key=lambda each: each.asset)
    done: list[Made] = []
    known: set[str] = set()
    while left:
        ready = [each for each in left if all(i in known for i in each.inputs)]
        done += ready
        known.update(each.id for each in ready)
        left = [each for each in left if each.id not in known]
        if not ready:
            raise ValueError("a lineage in which something was made from itself")
    return tuple(done)
