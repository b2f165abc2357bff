"""`coalition.toml`: the one file with which an organization joins a coalition.

It carries the records that make the coalition (epochs, node certificates, taxonomy, policies), the epoch that
is still being signed where there is one, and what no record says: the addresses at which the members' nodes
are reached. The list of members is there for people; a reader rejects a file in which it says other than the
records.

A file goes through three states. *Gathering*: candidates only, no coalition yet. *Draft*: an epoch record
exists and members add their signatures. *Founded*: the newest epoch is pinned. A founded one may hold the
draft of its successor, and candidates for it, at the same time.

Whoever reads the file still verifies every record: nothing here looks at a signature.
"""

from __future__ import annotations

import base64
import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from comity.attestation.roots import Roots
from comity.attestation.signing import key_problem
from comity.attestation.toml_text import COALITION, DATE, DIGEST, date_of, digest_of, quote, seconds_of
from comity.node.address import ADDRESSES_MAX, FORM, dial_address
from comity.node.owner_files import PUBLIC, write_file
from comity.node.store import coalition_of
from comity.node.toml_document import Key, TomlDocument, read_toml, toml_document
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import ConfigError, DecodeError
from comity.protocol.governance import Epoch, Member, NodeCertificate, PublicKey
from comity.protocol.identifiers import MemberId, Natural, ShortText, SpiffeId, Timestamp, member_of
from comity.protocol.kinds import KINDS
from comity.protocol.limits import MEMBERS_MAX
from comity.protocol.records import decode_body

COALITION_BYTES_MAX: Final = 8 * 1_048_576
"""A coalition of 13 with a hundred epochs and its policies takes some 2 MiB."""
CANDIDATES_MAX: Final = 2 * MEMBERS_MAX
"""Members of the newest epoch and of its successor."""
NODES_MAX: Final = 64
"""Nodes of one member."""
TRANSPORT_KEY_BYTES: Final = 32
_HEADING: Final = """\
# A Comity coalition: send this file to whoever joins. It holds no secret.
# Records are signed and may not be changed here; addresses may.
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """A node of a member, as other nodes reach it.

    `addresses` are multiaddresses; a node without one only dials out.
    """

    node: str
    key: PublicKey
    transport_key: bytes
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemberEntry:
    """An organization: what an epoch says of it, and its nodes."""

    id: str
    keys: tuple[PublicKey, ...]
    namespaces: tuple[str, ...]
    nodes: tuple[NodeEntry, ...] = ()

    def member(self) -> Member:
        return Member(id=self.id, keys=self.keys, namespaces=self.namespaces)


class MisfitError(ConfigError):
    """Parts of a coalition file contradict each other.

    Attributes:
        key: the part that is wrong; a member by its id.
        problem: why.
    """

    def __init__(self, key: Key, problem: str) -> None:
        super().__init__(f"{'.'.join(map(str, key))}: {problem}")
        self.key = key
        self.problem = problem


@dataclass(frozen=True, slots=True)
class CoalitionFile:
    """What a `coalition.toml` says.

    Attributes:
        name: what people call the coalition.
        made: when the file was written, in whole seconds since 1970.
        members: members and candidates, in the order of their ids.
        records: governance records in the order of their ids, epochs among them.
        draft: the epoch record that members still sign, with the signatures so far.

    Raises:
        ConfigError: the parts do not fit each other.
    """

    name: str
    made: int
    members: tuple[MemberEntry, ...] = ()
    records: tuple[SignedRecord, ...] = ()
    draft: SignedRecord | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(sorted(self.members, key=lambda entry: entry.id)))
        object.__setattr__(self, "records", tuple(sorted(self.records, key=lambda record: record.id)))
        problem = next(_problems(self), None)
        if problem is not None:
            raise MisfitError(*problem)

    def of_kind(self, kind: str) -> tuple[SignedRecord, ...]:
        return tuple(record for record in self.records if record.header.kind == kind)

    @property
    def epochs(self) -> tuple[SignedRecord, ...]:
        """The chain from the genesis on; empty before the genesis is signed by all."""
        return tuple(sorted(self.of_kind("epoch"), key=lambda record: record.header.number))

    @property
    def coalition(self) -> bytes | None:
        """The coalition's id, which a draft of the genesis has already."""
        if self.epochs:
            return self.epochs[0].id
        return self.draft.id if self.draft is not None else None

    @property
    def candidates(self) -> tuple[MemberEntry, ...]:
        """Those who are in neither the newest epoch nor its draft."""
        named = {member.id for record in _newest(self) for member in _epoch(record).members}
        return tuple(entry for entry in self.members if entry.id not in named)

    def roots(self, number: int | None = None) -> Roots:
        """What a stranger pins to verify what this coalition decides.

        All that is in them is signed, so that every member writes the same ones, at any time.

        Args:
            number: the epoch to pin; the newest that all have signed if not said.

        Raises:
            ConfigError: the coalition is not founded, or has no such epoch.
        """
        if not self.epochs:
            raise ConfigError("a coalition whose genesis is not signed by all members has no roots yet")
        last = len(self.epochs) - 1
        if number is not None and not 0 <= number <= last:
            raise ConfigError(f"no epoch {number} is known here; there are 0 to {last}")
        pinned = self.epochs[last if number is None else number]
        body = _epoch(pinned)
        return Roots(
            coalition=self.epochs[0].id,
            epoch_number=pinned.header.number,
            epoch=pinned.id,
            name=body.coalition_name,
            made=body.started,
        )


# Whether the parts fit


def _newest(file: CoalitionFile) -> tuple[SignedRecord, ...]:
    """The newest epoch record and the draft, as far as there are."""
    return (*file.epochs[-1:], *((file.draft,) if file.draft is not None else ()))


def _epoch(record: SignedRecord) -> Epoch:
    body: Any = decode_body(record)
    if not isinstance(body, Epoch):
        raise DecodeError("not an epoch record")
    return body


def _problems(file: CoalitionFile) -> Iterator[tuple[Key, str]]:
    """What is wrong with a file, by the key where it is."""
    for name, value, form in (("name", file.name, ShortText), ("made", file.made, Timestamp)):
        if not _is(value, form):
            yield (name,), f"{value!r:.80} is not allowed"
    try:
        yield from _record_problems(file)
        yield from _member_problems(file)
    except DecodeError as exc:
        yield ("records",), str(exc)


def _record_problems(file: CoalitionFile) -> Iterator[tuple[Key, str]]:
    if len({record.id for record in file.records}) != len(file.records):
        yield ("records",), "a record stands twice"
    for record in file.records:
        kind = record.header.kind
        if record.kind.log != "governance":
            yield ("records", kind), "records of this kind do not make a coalition"
        if coalition_of(record) != file.coalition:
            yield ("records", kind), f"record {record.id.hex()[:16]} is of another coalition"
    previous: bytes | None = None
    for number, record in enumerate(file.epochs):
        if record.header.number != number or _epoch(record).previous != previous:
            yield ("records", "epoch"), "not a chain of epochs, each the successor of the one before"
        previous = record.id
    draft = file.draft
    if draft is not None and (
        draft.header.kind != "epoch"
        or draft.header.number != len(file.epochs)
        or coalition_of(draft) != file.coalition
        or _epoch(draft).previous != previous
    ):
        yield ("draft",), "not an epoch record that could succeed the newest one here"


def _member_problems(file: CoalitionFile) -> Iterator[tuple[Key, str]]:
    entries = {entry.id: entry for entry in file.members}
    if len(entries) != len(file.members):
        ids = [entry.id for entry in file.members]
        twice = next(each for each in ids if ids.count(each) > 1)
        yield ("members", twice), f"{twice} stands twice"
    if len(entries) > CANDIDATES_MAX:
        yield ("members",), f"{len(entries)} members and candidates; at most {CANDIDATES_MAX} are allowed"
    said: dict[str, list[Member]] = {}
    for record in _newest(file):
        for member in _epoch(record).members:
            said.setdefault(member.id, []).append(member)
    for member_id in sorted(said.keys() - entries.keys()):
        yield _unlisted(member_id, sorted(entries.keys() - said.keys()))
    nodes: set[str] = set()
    for entry in file.members:
        key: Key = ("members", entry.id)
        if not _is(msgspec.to_builtins(entry.member(), builtin_types=(bytes,)), Member):
            yield key, "not a member: an id in lower case, 1 to 8 keys, and namespaces"
        if entry.id in said and entry.member() not in said[entry.id]:
            yield key, f"the epoch record gives {entry.id} other keys or namespaces"
        for public in (*entry.keys, *(node.key for node in entry.nodes)):
            problem = key_problem(public)
            if problem is not None:
                yield key, problem
        for node in entry.nodes:
            if node.node in nodes:
                yield key, f"{node.node} is listed twice"
            nodes.add(node.node)
            yield from ((key, problem) for problem in _node_problems(file, entry, node))


def _unlisted(member_id: str, others: list[str]) -> tuple[Key, str]:
    """That a member of the epoch record is not listed, or under a misspelt name, among those that it does not name."""
    near = difflib.get_close_matches(member_id, others, n=1)
    if near:
        return ("members", near[0]), f"no {near[0]} is in the epoch record; did you mean {member_id}?"
    return ("members",), f"{member_id} is a member by the epoch record, but is not listed"


def _node_problems(file: CoalitionFile, entry: MemberEntry, node: NodeEntry) -> Iterator[str]:
    if not _is(node.node, SpiffeId) or member_of(node.node) != entry.id:
        yield f"{node.node!r:.80} is not the name of a node under {entry.id}"
    if len(node.transport_key) != TRANSPORT_KEY_BYTES:
        yield f"{node.node}: a transport key has {TRANSPORT_KEY_BYTES} bytes, not {len(node.transport_key)}"
    if len(node.addresses) > ADDRESSES_MAX:
        yield f"{node.node}: {len(node.addresses)} addresses; at most {ADDRESSES_MAX} are allowed"
    for address in node.addresses:
        try:
            if dial_address(address) != address:
                yield f"{node.node}: {address!r} is not written as {dial_address(address)}"
        except ValueError as exc:
            yield f"{node.node}: {exc}"
    certified: list[tuple[PublicKey, bytes]] = []
    for record in file.of_kind("node_certificate"):
        body: Any = decode_body(record)
        if isinstance(body, NodeCertificate) and (record.header.member, body.node) == (entry.id, node.node):
            certified.append((body.key, body.transport_key))
    if certified and (node.key, node.transport_key) not in certified:
        yield f"{node.node}: its certificate is for other keys"


def _is(value: Any, form: Any) -> bool:
    try:
        # `builtin_types`: else a text would do for bytes, as base64.
        msgspec.convert(value, form, strict=True, builtin_types=(bytes,))
    except msgspec.ValidationError:
        return False
    return True


# Reading


def read_coalition(path: Path) -> CoalitionFile:
    """Read a `coalition.toml`.

    Raises:
        ConfigError: the file is missing, longer than `COALITION_BYTES_MAX` or not TOML; a key is unknown or
            missing; a value is not what it has to be; or its parts do not fit each other.
    """
    return _coalition(read_toml(path, COALITION_BYTES_MAX))


def parse_coalition(text: str | bytes, source: str = "coalition.toml") -> CoalitionFile:
    """Read the text of a `coalition.toml`. `source` names it in errors.

    Raises:
        ConfigError: as `read_coalition`.
    """
    return _coalition(toml_document(text, COALITION_BYTES_MAX, source))


@dataclass(frozen=True, slots=True)
class _Table:
    """One table of the file, which is read key by key and may hold no other."""

    document: TomlDocument
    key: Key
    values: dict[str, Any]

    @classmethod
    def of(cls, document: TomlDocument, key: Key, value: Any, *known: str) -> _Table:
        if not isinstance(value, dict):
            raise document.error(key, "not a table")
        values = cast("dict[str, Any]", value)
        for name in values:
            if name not in known:
                raise document.unknown((*key, name), known)
        return cls(document, key, values)

    def take(self, name: str, wanted: str, read: Callable[[Any], T]) -> T:
        """The value of a key that has to be there."""
        key = (*self.key, name)
        if name not in self.values:
            raise self.document.error(key, f"missing; it is {wanted}")
        try:
            return read(self.values[name])
        except (ValueError, DecodeError) as exc:
            detail = "" if isinstance(exc, msgspec.ValidationError) else f" ({exc})"
            raise self.document.error(key, f"not {wanted}{detail}") from exc

    def tables(self, name: str) -> list[Any]:
        """An array of tables, empty where it is absent."""
        try:
            return msgspec.convert(self.values.get(name, []), list[Any], strict=True)
        except msgspec.ValidationError as exc:
            problem = f"not tables; each begins with [[{name}]]"
            raise self.document.error((*self.key, name), problem) from exc


def _coalition(document: TomlDocument) -> CoalitionFile:
    document.require_kind(COALITION)
    top = _Table.of(document, (), document.values, *_TOP)
    members = tuple(
        _member(document, ("members", index), value) for index, value in enumerate(top.tables("members"))
    )
    draft = top.take("draft", _RECORD, _record) if "draft" in top.values else None
    try:
        file = CoalitionFile(
            name=top.take("name", "text", lambda value: msgspec.convert(value, str, strict=True)),
            made=top.take("made", DATE, seconds_of),
            members=members,
            records=tuple(_records(document, top.values.get("records", {}))),
            draft=draft,
        )
    except MisfitError as exc:
        raise document.error(_place(top, exc.key), exc.problem) from exc
    _compare_pins(top, file)
    return file


def _place(top: _Table, key: Key) -> Key:
    """The key in the file: members are found by their place there, not by their id."""
    for index, value in enumerate(top.tables("members")):
        if key == ("members", value["id"]):
            return ("members", index)
    return key


def _compare_pins(top: _Table, file: CoalitionFile) -> None:
    """What the file states beside its records is what they say."""
    newest = file.epochs[-1] if file.epochs else None
    stated: tuple[tuple[str, str, Callable[[Any], Any], Any], ...] = (
        ("coalition", DIGEST, digest_of, file.coalition),
        ("epoch_number", "a whole number", _natural, newest.header.number if newest is not None else None),
        ("epoch", DIGEST, digest_of, newest.id if newest is not None else None),
    )
    for name, wanted, read, expected in stated:
        if expected is None and name not in top.values:
            continue
        if top.take(name, wanted, read) != expected:
            raise top.document.error((name,), "not what the epoch records of this file say")


def _member(document: TomlDocument, key: Key, value: Any) -> MemberEntry:
    table = _Table.of(document, key, value, "id", "keys", "namespaces", "nodes")
    nodes = [
        _node(document, (*key, "nodes", index), node) for index, node in enumerate(table.tables("nodes"))
    ]
    return MemberEntry(
        id=table.take(
            "id", "a domain in lower case", lambda raw: msgspec.convert(raw, MemberId, strict=True)
        ),
        keys=table.take("keys", f"a list of keys, each {_KEY}", _public_keys),
        namespaces=table.take(
            "namespaces",
            "a list of domains in lower case",
            lambda raw: msgspec.convert(raw, tuple[MemberId, ...], strict=True),
        ),
        nodes=tuple(nodes),
    )


def _node(document: TomlDocument, key: Key, value: Any) -> NodeEntry:
    table = _Table.of(document, key, value, "node", "key", "transport_key", "addresses")
    return NodeEntry(
        node=table.take("node", "a SPIFFE id", lambda raw: msgspec.convert(raw, SpiffeId, strict=True)),
        key=table.take("key", _KEY, _public_key),
        transport_key=table.take("transport_key", DIGEST, digest_of),
        addresses=table.take("addresses", f"a list of addresses: {FORM}", _addresses),
    )


def _records(document: TomlDocument, value: Any) -> Iterator[SignedRecord]:
    """The records, each under the name of its kind."""
    kinds = [kind.name for kind in KINDS.values() if kind.log == "governance"]
    table = _Table.of(document, ("records",), value, *kinds)
    for kind in table.values:
        records = table.take(kind, f"a list, each {_RECORD}", _listed(_record))
        for record in records:
            if record.header.kind != kind:
                raise document.error(("records", kind), f"a record of kind {record.header.kind}")
        yield from records


_TOP: Final = ("name", "made", "coalition", "epoch_number", "epoch", "draft", "members", "records")
_RECORD: Final = "a signed record in base64"
_KEY: Final = '{ suite = "ed25519", public = "64 hex digits" }'


def _listed(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    def read_list(value: Any) -> tuple[T, ...]:
        return tuple(read(item) for item in msgspec.convert(value, list[Any], strict=True))

    return read_list


def _record(value: Any) -> SignedRecord:
    return decode_record(base64.b64decode(msgspec.convert(value, str, strict=True), validate=True))


def _natural(value: Any) -> int:
    return msgspec.convert(value, Natural, strict=True)


def _public_key(value: Any) -> PublicKey:
    written = msgspec.convert(value, dict[str, str], strict=True)
    if written.keys() != {"suite", "public"}:
        raise ValueError("it has other parts")
    raw = {"suite": written["suite"], "value": bytes.fromhex(written["public"])}
    return msgspec.convert(raw, PublicKey, strict=True)


_public_keys: Final = _listed(_public_key)
_addresses: Final = _listed(lambda value: dial_address(msgspec.convert(value, str, strict=True)))


# Writing


def format_coalition(file: CoalitionFile) -> str:
    """The text of a `coalition.toml`, from which `parse_coalition` reads the same."""
    lines = [_HEADING, f"name = {quote(file.name)}", f"made = {date_of(file.made)}"]
    if file.coalition is not None:
        lines.append(f"coalition = {quote(file.coalition.hex())}")
    if file.epochs:
        newest = file.epochs[-1]
        lines += [f"epoch_number = {newest.header.number}", f"epoch = {quote(newest.id.hex())}"]
    if file.draft is not None:
        lines += [
            "",
            "# The next epoch, and the signatures so far. It takes those of all members, old and new.",
        ]
        lines.append(f"draft = {_encoded(file.draft)}")
    for entry in file.members:
        lines += _member_lines(entry)
    kinds = sorted({record.kind for record in file.records}, key=lambda kind: kind.number)
    if kinds:
        lines += ["", "[records]"]
    for kind in kinds:
        lines += [f"{kind.name} = [", *(f"  {_encoded(record)}," for record in file.of_kind(kind.name)), "]"]
    return "\n".join(lines) + "\n"


def write_coalition(path: Path, file: CoalitionFile, *, replace: bool = True) -> None:
    """Write a `coalition.toml`, in the place of an older one.

    Raises:
        ConfigError: it is longer than `COALITION_BYTES_MAX`, or cannot be written; or one is there already and
            `replace` is false.
    """
    data = format_coalition(file).encode()
    if len(data) > COALITION_BYTES_MAX:
        raise ConfigError(f"{path}: {len(data)} bytes; at most {COALITION_BYTES_MAX} are allowed")
    write_file(path, data, mode=PUBLIC, replace=replace)


def _member_lines(entry: MemberEntry) -> Iterator[str]:
    yield from ("", "[[members]]", f"id = {quote(entry.id)}")
    yield f"keys = [{', '.join(map(_written_key, entry.keys))}]"
    yield f"namespaces = [{', '.join(map(quote, entry.namespaces))}]"
    for node in entry.nodes:
        yield from ("", "[[members.nodes]]", f"node = {quote(node.node)}", f"key = {_written_key(node.key)}")
        yield f"transport_key = {quote(node.transport_key.hex())}"
        yield f"addresses = [{', '.join(map(quote, node.addresses))}]"


def _written_key(key: PublicKey) -> str:
    return f"{{ suite = {quote(key.suite)}, public = {quote(key.value.hex())} }}"


def _encoded(record: SignedRecord) -> str:
    return quote(base64.b64encode(record.encoded()).decode())
