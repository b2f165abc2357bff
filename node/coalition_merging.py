"""Copies of one coalition file that members signed side by side, put together again.

A draft need not go from hand to hand: each member may sign a copy of its own. What is put together is what any
of the copies says; it is verified like any coalition file, and no order of the copies makes another one of it
but for who is asked first where it says the same twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comity.attestation.signing import merge_signatures
from comity.node.coalition_file import CoalitionFile, MemberEntry, NodeEntry
from comity.node.coalitions import completed, verified
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ConfigError
from comity.protocol.governance import NodeCertificate
from comity.protocol.records import decode_body


@dataclass(frozen=True, slots=True)
class Copy:
    """A coalition file, and what errors call it."""

    source: str
    file: CoalitionFile


def merge_copies(copies: Sequence[Copy]) -> CoalitionFile:
    """One file with the epochs, signatures, nodes and records of all copies.

    Raises:
        ConfigError: they are not copies of one coalition, they hold different drafts, or one does not verify;
            the message names the files.
    """
    if not copies:
        raise ConfigError("no coalition file is given")
    for copy in copies:
        if copy.file.coalition is None:
            raise ConfigError(f"{copy.source}: holds no epoch yet; `comity coalition new` drafts one")
        try:
            verified(copy.file)
        except ConfigError as exc:
            raise ConfigError(f"{copy.source}: {exc}") from exc
        _require_same_coalition(copies[0], copy)
    epochs = _epochs(copies)
    chain = [epochs[number] for number in sorted(epochs)]
    first = copies[0].file
    merged = CoalitionFile(
        name=first.name,
        made=max(copy.file.made for copy in copies),
        members=_members(copies),
        records=(*chain[:-1], *_governing(copies)),
        # The newest counts as a draft until it is seen that nobody's signature is missing.
        draft=chain[-1],
    )
    return completed(merged)


def _require_same_coalition(first: Copy, other: Copy) -> None:
    if other.file.coalition == first.file.coalition:
        return
    if first.file.epochs or other.file.epochs:
        raise ConfigError(f"{other.source} is of another coalition than {first.source}")
    raise ConfigError(
        f"{other.source} holds another draft than {first.source}: whoever drafts anew, or changes a draft, makes"
        " another coalition; agree on one file, and have everyone sign copies of that one"
    )


def _epochs(copies: Sequence[Copy]) -> dict[int, SignedRecord]:
    """The epoch records of all copies by their number, drafts among them, each with everybody's signatures."""
    found: dict[int, tuple[str, SignedRecord]] = {}
    for copy in copies:
        drafts = (copy.file.draft,) if copy.file.draft is not None else ()
        for record in (*copy.file.epochs, *drafts):
            number = record.header.number
            source, known = found.get(number, (copy.source, record))
            if known.id != record.id:
                raise ConfigError(
                    f"{copy.source} holds another epoch {number} than {source}: agree on one draft, and have"
                    " everyone sign copies of that one"
                )
            found[number] = (source, merge_signatures(known, record))
    return {number: record for number, (_, record) in found.items()}


def _governing(copies: Sequence[Copy]) -> list[SignedRecord]:
    """Every other record once. Of two that were numbered alike the one with the smaller id stays.

    A member that signs two copies certifies its node in both. Both records say the same, and neither would count
    beside the other.
    """
    kept: dict[tuple[str, str, str, int], SignedRecord] = {}
    for record in sorted((r for copy in copies for r in copy.file.records), key=lambda r: r.id):
        if record.header.kind != "epoch":
            header = record.header
            kept.setdefault((header.member, header.kind, header.name, header.number), record)
    for copy in copies:
        for record in copy.file.of_kind("node_certificate"):
            header = record.header
            other = kept[header.member, header.kind, header.name, header.number]
            if _certified(other) != _certified(record):
                raise ConfigError(
                    f"{copy.source} certifies other keys of {header.name} under number {header.number} than"
                    f" another file: {header.member} says which file holds, and signs that one again"
                )
    return list(kept.values())


def _certified(record: SignedRecord) -> tuple[Any, ...]:
    body: Any = decode_body(record)
    return (body.node, body.key, body.transport_key) if isinstance(body, NodeCertificate) else ()


def _members(copies: Sequence[Copy]) -> tuple[MemberEntry, ...]:
    """Every member once, with the nodes that any copy lists."""
    found: dict[str, MemberEntry] = {}
    for copy in copies:
        for entry in copy.file.members:
            known = found.get(entry.id, entry)
            if (known.keys, known.namespaces) != (entry.keys, entry.namespaces):
                raise ConfigError(
                    f"{copy.source} lists {entry.id} with other keys or namespaces than another file"
                )
            nodes = {node.node: node for node in known.nodes}
            for node in entry.nodes:
                nodes[node.node] = _joined(copy.source, nodes.get(node.node, node), node)
            found[entry.id] = MemberEntry(entry.id, entry.keys, entry.namespaces, tuple(nodes.values()))
    return tuple(found.values())


def _joined(source: str, known: NodeEntry, node: NodeEntry) -> NodeEntry:
    """A node with the addresses of both entries."""
    if (known.key, known.transport_key) != (node.key, node.transport_key):
        raise ConfigError(f"{source} lists {node.node} with other keys than another file")
    addresses = tuple(dict.fromkeys((*known.addresses, *node.addresses)))
    return NodeEntry(node.node, node.key, node.transport_key, addresses)
