"""Which nodes members have: by the certificates that are in force, and that nobody who may has taken back."""

from __future__ import annotations

from comity.attestation.adverse import takes_back
from comity.attestation.holdings import Holdings
from comity.protocol.governance import NodeCertificate
from comity.protocol.verified import VerifiedRecord


def certificates_in_force(holdings: Holdings, now: int) -> list[VerifiedRecord[NodeCertificate]]:
    """The certificates of members' nodes that are in force at `now` and not taken back, the newest first.

    Only the organization's own key takes its certificate back. What others say of it, or its agents, cuts nobody off.
    """
    found: list[VerifiedRecord[NodeCertificate]] = []
    for record in holdings.state.of_kind("node_certificate"):
        body = record.body
        if not isinstance(body, NodeCertificate):
            continue
        if record.member not in holdings.epoch.members or not body.not_before <= now < body.not_after:
            continue
        if not any(takes_back(said, record, {}, now) for said in holdings.state.adverse_about({record.id})):
            found.append(record)
    return sorted(found, key=lambda r: (r.header.at, r.header.number, r.id), reverse=True)


def nodes_of_members(holdings: Holdings, now: int) -> dict[str, dict[str, VerifiedRecord[NodeCertificate]]]:
    """By member, and by the name of the node, the newest certificate in force."""
    nodes: dict[str, dict[str, VerifiedRecord[NodeCertificate]]] = {}
    for record in certificates_in_force(holdings, now):
        nodes.setdefault(record.member, {}).setdefault(record.body.node, record)
    return nodes
