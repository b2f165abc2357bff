"""Founding and growing a coalition: drafts of epochs, the members' signatures, and joining.

A draft travels in the coalition file from member to member; each looks at it and signs with its organization's
key. Nobody is trusted to have written it rightly: joining checks every record again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.engine import engine_id, vectors_digest
from comity.attestation.epochs import (
    EpochState,
    epoch_problem,
    faults_tolerated,
    quorum_of,
    signatures_missing,
)
from comity.attestation.holdings import Holdings
from comity.attestation.signing import ED25519, add_signature, key_id
from comity.attestation.toml_text import date_of
from comity.attestation.verification import KeyDirectory, verify, verify_epoch
from comity.node.cards import Card
from comity.node.coalition_file import CoalitionFile, MemberEntry
from comity.protocol.encoding import encode
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ConfigError, DecodeError, VerificationError
from comity.protocol.governance import Epoch, Member, NodeCertificate, Policy, PublicKey, Taxonomy
from comity.protocol.identifiers import sha256
from comity.protocol.limits import ASK_AHEAD_S, MEMBERS_MAX, POLICIES_MAX
from comity.protocol.records import decode_body

CERTIFICATE_DAYS: Final = 365
"""How long a node's certificate holds unless somebody says otherwise."""
DAY_S: Final = 24 * 3_600
CLOCKS_DIFFER_S: Final = 3_600
"""A certificate holds from so long before it is signed: the clocks of the members differ."""
SOLO: Final = 1
FAULTLESS_MAX: Final = 3
"""Coalitions of two and three work and tolerate no fault."""


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy and the name under which its record is published."""

    name: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class CoalitionStanding:
    """What the records of a coalition file say once they are verified.

    Attributes:
        epoch: the newest epoch that all have signed; None before the genesis is.
        unsigned: members that have not signed the draft.
        uncertified: nodes of members of the newest epoch, or of the draft, without a certificate.
        missing: what the newest epoch names and the file does not hold.
    """

    epoch: EpochState | None
    unsigned: tuple[str, ...]
    uncertified: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the file can be joined and nothing waits for a signature."""
        return self.epoch is not None and not (self.unsigned or self.uncertified or self.missing)


def tolerance(members: int, quorum: int = 0) -> str:
    """How many faults a coalition of that size tolerates, in words.

    Args:
        quorum: votes that its epoch asks for, where those are more than its size asks for.
    """
    if members == SOLO:
        return "a coalition of one is solo: it judges itself, and no other coalition admits what it makes"
    if members <= FAULTLESS_MAX:
        return (
            f"a coalition of {members} works and tolerates no fault: "
            "every member has to be up and honest for a decision"
        )
    faults = faults_tolerated(members)
    if quorum > quorum_of(members):
        down = members - quorum
        return (
            f"a coalition of {members} asks for {quorum} votes, more than the {quorum_of(members)} that its size"
            f" asks for: it tolerates {_members(faults, 'that lies', 'that lie')}, and decides with at most"
            f" {_members(down, 'down', 'down')}"
        )
    what = _members(faults, "that lies or is down", "that lie or are down")
    return f"a coalition of {members} decides with {quorum_of(members)} votes and tolerates {what}"


def _members(count: int, one: str, several: str) -> str:
    return f"{count} member{'' if count == 1 else 's'} {one if count == 1 else several}"


# Drafting


def draft_genesis(
    name: str,
    cards: Sequence[Card],
    taxonomy: Taxonomy,
    policies: Sequence[NamedPolicy],
    author: Author,
    now: int,
    *,
    publishers: Iterable[str] = (),
    quorum: int = 0,
) -> CoalitionFile:
    """Draft a coalition: its genesis, signed by the author alone, with taxonomy and policies.

    Args:
        author: the organization's author of one of the cards, without a coalition.
        quorum: votes that a certificate needs, where more are wanted than floor(2n/3)+1.

    Raises:
        ConfigError: the parts do not make an epoch; the message says why.
    """
    entries = tuple(sorted((card.entry() for card in cards), key=lambda entry: entry.id))
    least = quorum_of(len(entries)) if entries else 0
    if quorum and not least <= quorum <= len(entries):
        raise ConfigError(
            f"a quorum of {quorum} of {len(entries)} members cannot be: it is {least} at least, which it is"
            f" unless said, and {len(entries)} at most"
        )
    if author.member not in {entry.id for entry in entries}:
        raise ConfigError(f"{author.member} drafts the coalition, so its own card has to be among the cards")
    body = Epoch(
        salt=NO_SALT,
        coalition_name=name,
        started=now,
        certificate="unanimous",
        members=tuple(entry.member() for entry in entries),
        suites=(ED25519,),
        engines=(engine_id(),),
        vectors=vectors_digest(),
        taxonomy=_digest(taxonomy),
        policies=_digests(policies),
        publishers=tuple(sorted(set(publishers))),
        quorum=quorum,
    )
    draft = _write_epoch(author, body, now, number=0)
    member = _within(author, draft.id)
    records = _governing(member, taxonomy, policies, now, number=0)
    return CoalitionFile(name=name, made=now, members=entries, records=records, draft=draft)


def draft_successor(
    file: CoalitionFile,
    author: Author,
    now: int,
    *,
    cards: Sequence[Card] = (),
    taxonomy: Taxonomy | None = None,
    policies: Sequence[NamedPolicy] | None = None,
    publishers: Iterable[str] | None = None,
) -> CoalitionFile:
    """Draft the next epoch of a founded coalition: with more members, another taxonomy or other policies.

    What is not given stays as it is.

    Raises:
        ConfigError: the coalition is not founded, a draft is open already, or the parts do not make an epoch.
    """
    if not file.epochs:
        raise ConfigError("the coalition is not founded yet: its genesis lacks signatures")
    if file.draft is not None:
        raise ConfigError(f"epoch {file.draft.header.number} is being signed already; finish it first")
    newest = file.epochs[-1]
    before = epoch_of(newest)
    present = {entry.id for entry in file.members}
    for card in cards:
        if card.member in present:
            raise ConfigError(f"{card.member} is a member already")
    entries = tuple(sorted((*file.members, *(c.entry() for c in cards)), key=lambda entry: entry.id))
    wanted = {member.id for member in before.members} | {card.member for card in cards}
    changes: dict[str, Any] = {
        "salt": NO_SALT,
        "started": max(now, before.started),
        "previous": newest.id,
        "members": tuple(entry.member() for entry in entries if entry.id in wanted),
        # A quorum that was raised for a smaller coalition is a wish that nobody has uttered for this one.
        "quorum": before.quorum if not cards else 0,
        "engines": _engines(before.engines),
    }
    if taxonomy is not None:
        changes["taxonomy"] = _digest(taxonomy)
    if policies is not None:
        changes["policies"] = _digests(policies)
    if publishers is not None:
        changes["publishers"] = tuple(sorted(set(publishers)))
    number = newest.header.number + 1
    draft = _write_epoch(author, msgspec.structs.replace(before, **changes), now, number=number)
    records = _governing(author, taxonomy, policies or (), now, number=number)
    return CoalitionFile(
        name=file.name, made=now, members=entries, records=(*file.records, *records), draft=draft
    )


def _write_epoch(author: Author, body: Epoch, now: int, number: int) -> SignedRecord:
    problem = epoch_problem(body)
    if problem is not None:
        raise ConfigError(f"no epoch: {problem[1]}")
    if len(body.members) > MEMBERS_MAX:
        raise ConfigError(f"{len(body.members)} members; a coalition has at most {MEMBERS_MAX}")
    require_begun(body, number, now)
    try:
        msgspec.convert(msgspec.to_builtins(body, builtin_types=(bytes,)), Epoch, strict=True)
        return author.write("epoch", body, now, name="epoch", number=number)
    except (DecodeError, msgspec.ValidationError) as exc:
        raise ConfigError(f"no epoch: {exc}") from exc


def _governing(
    author: Author, taxonomy: Taxonomy | None, policies: Sequence[NamedPolicy], now: int, number: int
) -> tuple[SignedRecord, ...]:
    """The records of the bodies that an epoch names, by whoever drafts it."""
    records = [
        author.write_exact("policy", entry.policy, now, name=entry.name, number=number) for entry in policies
    ]
    if taxonomy is not None:
        records.append(author.write_exact("taxonomy", taxonomy, now, name="taxonomy", number=number))
    return tuple(records)


def _engines(before: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """This engine, and the newest of those before, so that members upgrade one after the other."""
    own = engine_id()
    return before if own in before else (*before[-1:], own)


def _digest(body: Taxonomy | Policy) -> bytes:
    return sha256(encode(body))


def _digests(policies: Sequence[NamedPolicy]) -> tuple[bytes, ...]:
    if not 1 <= len(policies) <= POLICIES_MAX:
        raise ConfigError(f"{len(policies)} policies; a coalition has 1 to {POLICIES_MAX}")
    names = [entry.name for entry in policies]
    if len(set(names)) != len(names):
        raise ConfigError("two policies have one name")
    return tuple(_digest(entry.policy) for entry in policies)


def epoch_of(record: SignedRecord) -> Epoch:
    """The body of an epoch record.

    Raises:
        ConfigError: it is none.
    """
    try:
        body: Any = decode_body(record)
    except DecodeError as exc:
        raise ConfigError(f"not an epoch record: {exc}") from exc
    if not isinstance(body, Epoch):
        raise ConfigError("not an epoch record")
    return body


# Signing


def sign_draft(
    file: CoalitionFile, author: Author, card: Card, now: int, *, days: int = CERTIFICATE_DAYS
) -> CoalitionFile:
    """Add an organization's signature to the draft, and its node's certificate. Signing twice is signing once.

    Once all have signed, the draft is an epoch of the file.

    Args:
        author: the organization's author; its coalition is that of the file.
        card: of the node to certify.

    Raises:
        ConfigError: the organization is no member by the draft, or with other keys; or the draft begins later than now.
    """
    coalition = file.coalition
    if coalition is None:
        raise ConfigError("the file holds no epoch to sign; `comity coalition new` drafts one")
    own = _within(author, coalition)
    draft = file.draft
    if draft is not None:
        _require_key(own, draft)
        require_begun(epoch_of(draft), draft.header.number, now)
        draft = add_signature(draft, own.signer)
    elif not _is_key_of(own.signer.public, epoch_of(file.epochs[-1]).members, own.member):
        raise ConfigError(
            f"{own.member} is no member of this coalition with this key; a member takes it in with"
            " `comity coalition admit CARD`"
        )
    members = _with_node(file.members, card)
    records = file.records
    if _certificate_of(file, card, now) is None:
        records = (*records, certify(own, card, now, days=days, number=_next_number(file, card)))
    signed = CoalitionFile(file.name, file.made, members, records, draft)
    return completed(signed)


def require_begun(body: Epoch, number: int, now: int) -> None:
    """Refuse an epoch that begins later than this machine's time: until then nothing could be decided under it.

    Raises:
        ConfigError: naming both times.
    """
    if body.started > now + ASK_AHEAD_S:
        raise ConfigError(
            f"epoch {number} begins at {date_of(body.started)}, and it is {date_of(now)} by this machine's clock:"
            " set the clock that is wrong. If it is that of whoever drafted the epoch, have it drafted anew;"
            " or wait until then"
        )


def certify(author: Author, card: Card, now: int, *, days: int, number: int) -> SignedRecord:
    """The organization's word that the keys of a card are its node's.

    Raises:
        ConfigError: the card has one key for both, so that who carries connections could sign records.
    """
    if card.transport_key == card.node_key.value:
        raise ConfigError(
            f"{card.node}: the transport key is the key that signs records; `comity node init` makes two"
        )
    body = NodeCertificate(
        salt=NO_SALT,
        node=card.node,
        key=card.node_key,
        transport_key=card.transport_key,
        not_before=max(0, now - CLOCKS_DIFFER_S),
        not_after=now + days * DAY_S,
    )
    return author.write("node_certificate", body, now, name=card.node, number=number)


def certificate_for(records: Iterable[SignedRecord], node: str, key: PublicKey) -> SignedRecord | None:
    """The newest certificate of a node for a key, by its number."""
    found: SignedRecord | None = None
    for record in records:
        body: Any = decode_body(record) if record.header.kind == "node_certificate" else None
        if (
            isinstance(body, NodeCertificate)
            and (body.node, body.key) == (node, key)
            and (found is None or record.header.number > found.header.number)
        ):
            found = record
    return found


def _certificate_of(file: CoalitionFile, card: Card, now: int) -> SignedRecord | None:
    """A certificate of the file that will do for the card, now and for another month."""
    found = certificate_for(file.records, card.node, card.node_key)
    if found is None:
        return None
    body: Any = decode_body(found)
    lasting = body.not_before <= now and body.not_after > now + 30 * DAY_S
    return found if lasting and body.transport_key == card.transport_key else None


def _next_number(file: CoalitionFile, card: Card) -> int:
    numbers = [
        record.header.number
        for record in file.of_kind("node_certificate")
        if (record.header.member, record.header.name) == (card.member, card.node)
    ]
    return 1 + max(numbers, default=0)


def _with_node(members: tuple[MemberEntry, ...], card: Card) -> tuple[MemberEntry, ...]:
    """The list of members with the card's node in it."""
    changed: list[MemberEntry] = []
    for entry in members:
        if entry.id != card.member:
            changed.append(entry)
            continue
        node = card.entry().nodes[0]
        held = next((n for n in entry.nodes if n.node == node.node), None)
        if held is not None and (held.key, held.transport_key) == (node.key, node.transport_key):
            changed.append(entry)
            continue
        others = tuple(n for n in entry.nodes if n.node != node.node)
        changed.append(MemberEntry(entry.id, entry.keys, entry.namespaces, (*others, node)))
    return tuple(changed)


def completed(file: CoalitionFile) -> CoalitionFile:
    """The file, with its draft among the epochs if nobody's signature is missing."""
    draft = file.draft
    if draft is None or draft_unsigned(file):
        return file
    return CoalitionFile(file.name, file.made, file.members, (*file.records, draft), None)


def draft_unsigned(file: CoalitionFile) -> tuple[str, ...]:
    """The members, old and new, that have not signed the draft."""
    if file.draft is None:
        return ()
    wanted = {member.id: member for member in epoch_of(file.draft).members}
    missing = set(signatures_missing(file.draft, tuple(wanted.values())))
    if file.epochs:
        missing |= set(signatures_missing(file.draft, epoch_of(file.epochs[-1]).members))
    return tuple(sorted(missing))


def _require_key(author: Author, draft: SignedRecord) -> None:
    members = epoch_of(draft).members
    if author.member not in {member.id for member in members}:
        listed = ", ".join(member.id for member in members)
        raise ConfigError(f"{author.member} is no member by this draft; the members are {listed}")
    if not _is_key_of(author.signer.public, members, author.member):
        raise ConfigError(
            f"this draft gives {author.member} another organization key than the one that would sign"
        )


def _is_key_of(key: PublicKey, members: tuple[Member, ...], member: str) -> bool:
    return any(key in entry.keys for entry in members if entry.id == member)


def _within(author: Author, coalition: bytes) -> Author:
    return Author(author.member, author.signer, author.salt_key, author.authority, coalition)


# Checking and joining


def verified(file: CoalitionFile) -> tuple[Holdings, CoalitionStanding]:
    """Verify every record of a file.

    Raises:
        ConfigError: a record does not verify; the message names it and says why.
    """
    holdings = Holdings(engine_id())
    try:
        for record in file.epochs:
            holdings.adopt(record)
        _verify_draft(file)
        _verify_newcomers(file)
    except (VerificationError, DecodeError) as exc:
        raise ConfigError(f"the coalition file does not verify: {exc}") from exc
    missing: tuple[str, ...] = ()
    if file.epochs:
        newcomers = _newcomers(file)
        known = [r for r in file.records if r.header.kind != "epoch" and r.header.member not in newcomers]
        admission = holdings.admit(known)
        if admission.rejected:
            raise ConfigError(f"the coalition file does not verify: {admission.rejected[0][1]}")
        missing = tuple(f"the epoch's body {digest.hex()[:16]}" for digest in holdings.missing_bodies())
    newest = epoch_of(file.draft) if file.draft is not None else None
    if newest is None and file.epochs:
        newest = holdings.epoch.body
    names = {member.id for member in newest.members} if newest is not None else set[str]()
    standing = CoalitionStanding(
        epoch=holdings.epoch if file.epochs else None,
        unsigned=draft_unsigned(file),
        uncertified=tuple(
            node.node
            for entry in file.members
            if entry.id in names
            for node in entry.nodes
            if certificate_for(file.records, node.node, node.key) is None
        ),
        missing=missing,
    )
    return holdings, standing


def _newcomers(file: CoalitionFile) -> frozenset[str]:
    """Who becomes a member by the draft, and is none by the newest epoch."""
    if file.draft is None or not file.epochs:
        return frozenset()
    present = {member.id for member in epoch_of(file.epochs[-1]).members}
    return frozenset({member.id for member in epoch_of(file.draft).members} - present)


def _verify_newcomers(file: CoalitionFile) -> None:
    """What newcomers have signed so far, under the keys that the draft gives them and no epoch does yet."""
    newcomers = _newcomers(file)
    if file.draft is None or not newcomers:
        return
    directory = KeyDirectory()
    directory.admit_members(epoch_of(file.draft).members)
    for record in file.records:
        if record.header.kind != "epoch" and record.header.member in newcomers:
            verify(record, directory)


def _verify_draft(file: CoalitionFile) -> None:
    if file.draft is None:
        return
    members = [*epoch_of(file.draft).members]
    if file.epochs:
        members += epoch_of(file.epochs[-1]).members
    verify_epoch(file.draft, {key_id(key): key for member in members for key in member.keys})


def require_author(file: CoalitionFile) -> None:
    """Check that whoever a draft names as its author has signed it: so the draft is its word, and no one else's.

    Raises:
        ConfigError: its author is no member, or has not signed it.
    """
    if file.draft is None:
        return
    header = file.draft.header
    members = epoch_of(file.epochs[-1] if file.epochs else file.draft).members
    own = {key_id(key) for member in members if member.id == header.member for key in member.keys}
    if header.key not in own or header.key not in {signature.key for signature in file.draft.signatures}:
        raise ConfigError(
            f"epoch {header.number} names {header.member} as its author, who has not signed it: somebody else has"
            " made it. Ask who sent it; sign nothing that its author has not signed"
        )


def require_joinable(file: CoalitionFile, card: Card, now: int) -> Holdings:
    """Check that a node can take part: everything verifies, is signed by all, and names the node's own keys.

    Raises:
        ConfigError: it cannot; the message says why and who has to do what.
    """
    holdings, standing = verified(file)
    if standing.epoch is None:
        raise ConfigError(
            f"the genesis is not signed by all: {', '.join(standing.unsigned)} has to sign;"
            " `comity coalition sign FILE` adds a signature"
        )
    epoch = standing.epoch
    require_begun(epoch.body, epoch.number, now)
    member = epoch.members.get(card.member)
    if member is None:
        waiting = f"; epoch {file.draft.header.number} is being signed" if file.draft is not None else ""
        raise ConfigError(
            f"{card.member} is no member of epoch {epoch.number}{waiting}; a member takes it in with"
            " `comity coalition admit CARD`, and all sign"
        )
    if card.organization_key not in member.keys:
        raise ConfigError(f"epoch {epoch.number} gives {card.member} another organization key than this home")
    if standing.missing:
        raise ConfigError(f"the file lacks {', '.join(standing.missing)}; get a newer one from a member")
    certificate = certificate_for(file.records, card.node, card.node_key)
    if certificate is None:
        raise ConfigError(
            f"no certificate for {card.node} with this home's key; `comity coalition sign FILE` adds it"
        )
    body: Any = decode_body(certificate)
    if body.transport_key != card.transport_key:
        raise ConfigError(f"the certificate of {card.node} is for another transport key")
    if not body.not_before <= now < body.not_after:
        raise ConfigError(f"the certificate of {card.node} does not hold at this machine's time")
    if engine_id() not in epoch.body.engines:
        raise ConfigError(
            "this version of Comity judges by an engine that the coalition does not accept;"
            f" accepted: {', '.join(engine.hex()[:16] for engine in epoch.body.engines)}"
        )
    if holdings.governance() is None:
        raise ConfigError("taxonomy or policies of the epoch are missing from the file")
    return holdings


def require_successor(held: CoalitionFile, file: CoalitionFile) -> None:
    """Check that a file goes on from the one that a home has already.

    Raises:
        ConfigError: it is of another coalition, or of an older epoch, or its chain is another.
    """
    if held.coalition != file.coalition:
        raise ConfigError("this home belongs to another coalition already; use another home for this one")
    if len(file.epochs) < len(held.epochs):
        raise ConfigError(
            f"the file ends at epoch {len(file.epochs) - 1}, this home knows epoch {len(held.epochs) - 1}"
        )
    for known, given in zip(held.epochs, file.epochs, strict=False):
        if known.id != given.id:
            raise ConfigError(f"the file has another epoch {known.header.number} than this home")


def merged_records(held: CoalitionFile, file: CoalitionFile) -> CoalitionFile:
    """The founded part of the file, with what a home knew already and the file lacks."""
    newcomers = _newcomers(file)
    # Without the draft nobody could verify what newcomers have signed so far.
    founded = tuple(record for record in file.records if record.header.member not in newcomers)
    known = {record.id for record in founded}
    more = tuple(record for record in held.records if record.id not in known)
    return CoalitionFile(file.name, file.made, file.members, (*founded, *more))
