"""What a home keeps of its coalition: the file with its records, and the roots of every epoch.

Whoever joins writes them, and a running node brings them up to date: what a home hands out is never older than what
its node decides by. Roots of earlier epochs stay, for bundles that end before the newest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comity.attestation.roots import format_roots
from comity.node.coalition_file import (
    NODES_MAX,
    CoalitionFile,
    MemberEntry,
    NodeEntry,
    read_coalition,
    write_coalition,
)
from comity.node.coalitions import epoch_of
from comity.node.home import Home
from comity.node.owner_files import PUBLIC, write_file
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ConfigError
from comity.protocol.governance import Member, NodeCertificate
from comity.protocol.records import decode_body

if TYPE_CHECKING:
    from comity.node.core import Core


def write_roots(home: Home, file: CoalitionFile) -> None:
    """Write the roots of every epoch, and those of the newest one beside them as `roots.toml`.

    Raises:
        ConfigError: the coalition is not founded, or they cannot be written.
    """
    folder = home.roots_of(0).parent
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{folder}: cannot be made: {exc.strerror}") from exc
    for number in range(len(file.epochs)):
        write_file(home.roots_of(number), format_roots(file.roots(number)).encode(), mode=PUBLIC)
    write_file(home.roots, format_roots(file.roots()).encode(), mode=PUBLIC)


def keep_coalition(home: Home, file: CoalitionFile) -> None:
    """Write the coalition file of a home and its roots. The file is last: with it the home is a member.

    Raises:
        ConfigError: as `write_roots` and `write_coalition`.
    """
    write_roots(home, file)
    write_coalition(home.coalition, file)


@dataclass(frozen=True, slots=True)
class Learned:
    """What a node holds of its coalition.

    Attributes:
        epochs: the chain in force, from the genesis on.
        bodies: records of taxonomy and policies of its epochs.
        certificates: of the nodes of its members.
    """

    epochs: tuple[SignedRecord, ...]
    bodies: tuple[SignedRecord, ...]
    certificates: tuple[SignedRecord, ...]

    @classmethod
    def by(cls, core: Core) -> Learned | None:
        """None while the newest epoch's taxonomy or policies are missing. Runs in the worker's thread."""
        holdings = core.holdings
        if holdings.missing_bodies():
            return None
        bodies: dict[bytes, SignedRecord] = {}
        for state in holdings.epochs.values():
            wanted = [("taxonomy", state.body.taxonomy), *(("policy", d) for d in state.body.policies)]
            for kind, digest in wanted:
                found = holdings.with_body(kind, digest)
                if found is not None:
                    bodies[found.id] = found.record
        certificates = [
            record
            for member in holdings.epoch.members
            for record in core.store.of_kind("node_certificate", coalition=core.coalition, member=member)
        ]
        return cls(holdings.epoch_records(), tuple(bodies.values()), tuple(certificates))


def continued(file: CoalitionFile, learned: Learned) -> CoalitionFile:
    """A coalition file with the epochs that a node has learned since; the same file where it has learned none.

    Raises:
        ConfigError: the node knows another chain than the file.
    """
    epochs = learned.epochs
    for known, given in zip(file.epochs, epochs, strict=False):
        if known.id != given.id:
            raise ConfigError(f"the node knows another epoch {known.header.number} than the coalition file")
    if len(epochs) < len(file.epochs) or not epochs:
        return file
    newest = epoch_of(epochs[-1])
    listed = {entry.id: entry for entry in file.members}
    records = {record.id: record for record in file.records}
    if len(epochs) > len(file.epochs):
        records |= {record.id: record for record in (*epochs, *learned.bodies)}
    for member in newest.members:
        entry = listed.get(member.id)
        certificates = () if entry is not None and entry.nodes else _newest_of(member, learned.certificates)
        records |= {record.id: record for record in certificates}
        nodes = entry.nodes if entry is not None and entry.nodes else tuple(map(_node, certificates))
        listed[member.id] = MemberEntry(member.id, member.keys, member.namespaces, nodes)
    draft = file.draft if file.draft is not None and file.draft.header.number >= len(epochs) else None
    return CoalitionFile(file.name, file.made, tuple(listed.values()), tuple(records.values()), draft)


def _newest_of(member: Member, certificates: Iterable[SignedRecord]) -> Sequence[SignedRecord]:
    """The newest certificate of each of a member's nodes."""
    newest: dict[str, SignedRecord] = {}
    for record in certificates:
        held = newest.get(record.header.name)
        if record.header.member == member.id and (held is None or held.header.number < record.header.number):
            newest[record.header.name] = record
    return list(newest.values())[:NODES_MAX]


def _node(certificate: SignedRecord) -> NodeEntry:
    """The node that a certificate names. Where it is reached no record says."""
    body: Any = decode_body(certificate)
    if not isinstance(body, NodeCertificate):
        raise ConfigError(f"record {certificate.id.hex()[:16]} is no certificate of a node")
    return NodeEntry(body.node, body.key, body.transport_key)


def bring_up_to_date(home: Home, learned: Learned) -> bool:
    """Write what a node has learned into its home. Returns whether anything was new.

    Raises:
        ConfigError: the file is unreadable or of another chain, or cannot be written.
    """
    file = read_coalition(home.coalition)
    newer = continued(file, learned)
    if newer == file and home.roots_of(len(file.epochs) - 1).exists():
        return False
    keep_coalition(home, newer)
    return True
