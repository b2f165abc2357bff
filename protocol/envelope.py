"""The envelope: bytes that were signed, with their signatures.

A record has two parts. The *header* is what is signed: who says it, of which kind, in which coalition, and
the digest of the body. The *body* travels beside it, so that it can be sealed or erased while signature, id
and every proof over the id stand. What is signed is the pre-authentication encoding of DSSE v1
(https://github.com/secure-systems-lab/dsse, protocol.md) over the header's bytes; the id of a record is the
SHA-256 of exactly that. Header and body bytes are kept as they came and never written again.

Spec: docs/spec/record.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import msgspec

from comity.protocol.encoding import Form, decode, decode_plain, decode_value, encode, pack
from comity.protocol.errors import DecodeError
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import (
    DIGEST_BYTES,
    Code,
    Digest,
    KeyId,
    MemberId,
    Natural,
    Realm,
    RecordId,
    ShortText,
    Timestamp,
    sha256,
)
from comity.protocol.kinds import KINDS, Kind
from comity.protocol.limits import (
    BODY_BYTES_MAX,
    HEADER_BYTES_MAX,
    RECORD_BYTES_MAX,
    SCOPES_MAX,
    SIGNATURES_MAX,
    SUBJECTS_MAX,
)

PAYLOAD_TYPE: Final = "application/vnd.comity.record.v1+msgpack"
SIGNATURE_BYTES_MAX: Final = 4_096
SUITE_BYTES_MAX: Final = 32


class BodyReference(Form, frozen=True):
    """What the header commits to: the digest and length of the body's bytes, salt included."""

    form: Literal["clear", "sealed"]
    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0, le=BODY_BYTES_MAX)]


class Header(Form, frozen=True):
    """What is signed, whatever the kind.

    `coalition` is the id of the genesis epoch record and is absent on that record alone. `member` and `key`
    are the author: an organization and one of the keys that it answers for. `authority` is the id of the node
    certificate or credential that vouches for the key, absent where the key is the organization's own. `name`
    and `number` order what one author says under one name: of two different records with equal author, kind,
    name and number neither counts. `subject` lists the records that this one speaks of. `outcome` is the part
    of a body that decides whether the record is adverse (docs/spec/record.md section 4); it stays when the body
    is erased, as does `governance`, the governance state of the data that an actuation made.
    """

    v: Literal[1]
    kind: Code
    member: MemberId
    key: KeyId
    at: Timestamp
    realm: Realm
    body: BodyReference
    authority: Digest | None = None
    coalition: Digest | None = None
    scopes: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=SCOPES_MAX)] = ()
    name: ShortText = ""
    number: Natural = 0
    subject: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=SUBJECTS_MAX)] = ()
    outcome: Code | None = None
    governance: GovernanceState | None = None
    critical: Annotated[tuple[ShortText, ...], msgspec.Meta(max_length=16)] = ()


@dataclass(frozen=True, slots=True, order=True)
class Signature:
    """One signature, naming its suite and the id of its key."""

    key: bytes
    suite: str
    value: bytes


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """A well-formed record whose signatures nobody has looked at yet.

    Attributes:
        id: SHA-256 of the pre-authentication encoding.
        header: the decoded header.
        header_bytes: the header as it was signed.
        body_bytes: the body as it was committed to, or None where it was erased or left out.
        signatures: in the order of their key ids, one per key.
    """

    id: RecordId
    header: Header
    header_bytes: bytes
    body_bytes: bytes | None
    signatures: tuple[Signature, ...]
    kind: Kind = field(repr=False)

    def __hash__(self) -> int:
        return hash(self.id)

    def encoded(self) -> bytes:
        """The record as it travels: an array of payload type, header, signatures and body (empty if absent)."""
        return pack(
            [
                PAYLOAD_TYPE,
                self.header_bytes,
                [[s.key, s.suite, s.value] for s in self.signatures],
                self.body_bytes if self.body_bytes is not None else b"",
            ]
        )


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """DSSE v1 PAE: `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`, lengths in ASCII decimal."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def record_id(header_bytes: bytes) -> RecordId:
    return sha256(pre_authentication_encoding(PAYLOAD_TYPE, header_bytes))


def seal_header(header: Header) -> bytes:
    """The bytes of a header that are to be signed."""
    return encode(header)


def body_reference(body_bytes: bytes, form: Literal["clear", "sealed"] = "clear") -> BodyReference:
    return BodyReference(form=form, digest=sha256(body_bytes), size=len(body_bytes))


def _ascend(values: tuple[bytes, ...]) -> bool:
    """Sorted, each once. Most have none or one."""
    return len(values) < 2 or list(values) == sorted(set(values))  # noqa: PLR2004 - two can be out of order


def assemble(
    header_bytes: bytes, body_bytes: bytes | None, signatures: tuple[Signature, ...]
) -> SignedRecord:
    """Join the parts of a record and check that they fit each other.

    Raises:
        DecodeError: a part is malformed, the body is not the one that the header commits to, or the signatures
            are not sorted by key with one per key.
    """
    header = decode(header_bytes, Header, HEADER_BYTES_MAX)
    kind = KINDS.get(header.kind)
    if kind is None:
        raise DecodeError(f"unknown kind {header.kind!r}")
    if (header.coalition is None) != (header.kind == "epoch" and header.number == 0):
        raise DecodeError("the coalition is absent on a genesis epoch and on nothing else")
    if not _ascend(header.subject):
        raise DecodeError("subjects are not sorted and unique")
    if not _ascend(header.scopes):
        raise DecodeError("scopes are not sorted and unique")
    if header.outcome is None and kind.polarity == "by_outcome":
        raise DecodeError(f"a record of kind {header.kind} says its outcome in the header")
    if header.outcome is not None and header.outcome not in kind.outcomes:
        raise DecodeError(f"a record of kind {header.kind} has no outcome {header.outcome!r}")
    if (header.governance is not None) != (header.kind == "actuation"):
        raise DecodeError("the governance state of data stands on an actuation and on nothing else")
    if body_bytes is not None:
        if len(body_bytes) != header.body.size or sha256(body_bytes) != header.body.digest:
            raise DecodeError("the body is not the one that the header commits to")
    elif not kind.erasable:
        raise DecodeError(f"a record of kind {header.kind} has lost its body")
    if not signatures or not _ascend(tuple(signature.key for signature in signatures)):
        raise DecodeError("signatures are not sorted by key with one per key")
    return SignedRecord(
        id=record_id(header_bytes),
        header=header,
        header_bytes=header_bytes,
        body_bytes=body_bytes,
        signatures=signatures,
        kind=kind,
    )


_Travelling: TypeAlias = tuple[
    str,
    bytes,
    Annotated[
        tuple[
            tuple[
                Digest,
                Annotated[str, msgspec.Meta(max_length=SUITE_BYTES_MAX)],
                Annotated[bytes, msgspec.Meta(max_length=SIGNATURE_BYTES_MAX)],
            ],
            ...,
        ],
        msgspec.Meta(max_length=SIGNATURES_MAX),
    ],
    bytes,
]
"""Payload type, header, signatures (key id, suite, value), body: what a record is written as."""
_TRAVELLING: Final[Any] = _Travelling  # a type to msgspec, and a special form to mypy


def decode_record(data: bytes) -> SignedRecord:
    """Read a record as it travels.

    Raises:
        DecodeError: malformed, not canonical, over a limit, of an unknown payload type or kind.
    """
    plain: _Travelling | None = decode_plain(data, _TRAVELLING, RECORD_BYTES_MAX)
    if plain is not None and plain[0] == PAYLOAD_TYPE:
        _, header_bytes, listed, body = plain
        return assemble(header_bytes, body or None, tuple(Signature(*each) for each in listed))
    # What is not plainly a record is read without expectations, to be told what it is not.
    value: Any = decode_value(data, RECORD_BYTES_MAX)
    match value:
        case [str(payload_type), bytes(header_bytes), list(), bytes(body)]:
            raw = cast("list[Any]", value[2])
        case _:
            raise DecodeError("a record is an array of payload type, header, signatures and body")
    if payload_type != PAYLOAD_TYPE:
        raise DecodeError(f"payload type {payload_type[:80]!r} is not known here")
    if len(raw) > SIGNATURES_MAX:
        raise DecodeError(f"{len(raw)} signatures where at most {SIGNATURES_MAX} are allowed")
    signatures: list[Signature] = []
    for item in raw:
        match item:
            case [bytes(key), str(suite), bytes(signature)] if (
                len(key) == DIGEST_BYTES and len(suite) <= SUITE_BYTES_MAX
            ):
                if len(signature) > SIGNATURE_BYTES_MAX:
                    raise DecodeError("a signature is too long")
                signatures.append(Signature(key, suite, signature))
            case _:
                raise DecodeError("a signature is an array of key id, suite and value")
    return assemble(header_bytes, body or None, tuple(signatures))
