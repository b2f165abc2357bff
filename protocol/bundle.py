"""A bundle: records that a stranger verifies offline, in one encoding.

A bundle names its targets and is complete if it is closed under what they depend on; it claims nothing about
what else happened. Records stand in the order of their ids, epochs in the order of the chain. There is no byte
in it that nothing authenticates.

Spec: docs/spec/bundle.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from comity.protocol.accountability import Cosignature, Misbehaviour
from comity.protocol.contradictions import contradicting
from comity.protocol.encoding import Form, decode, encode
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import DecodeError
from comity.protocol.execution import (
    Actuation,
    Appraisal,
    Ask,
    Attestation,
    Intent,
    Permit,
    Refusal,
    ShareRelease,
    Start,
    Vote,
)
from comity.protocol.governance import Epoch
from comity.protocol.identifiers import Digest
from comity.protocol.limits import BUNDLE_BYTES_MAX, BUNDLE_RECORDS_MAX, RECORD_BYTES_MAX
from comity.protocol.verified import VerifiedRecord

_RecordBytes = Annotated[bytes, msgspec.Meta(max_length=RECORD_BYTES_MAX)]


class BundleForm(Form, frozen=True, forbid_unknown_fields=True):
    """The bundle as it is written. An unknown field would be a byte that nothing authenticates."""

    v: Literal[1]
    coalition: Digest
    targets: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=1_024)]
    epochs: Annotated[tuple[_RecordBytes, ...], msgspec.Meta(min_length=1, max_length=4_096)]
    records: Annotated[tuple[_RecordBytes, ...], msgspec.Meta(max_length=BUNDLE_RECORDS_MAX)]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A well-formed bundle whose records nobody has verified yet."""

    coalition: bytes
    targets: tuple[bytes, ...]
    epochs: tuple[SignedRecord, ...]
    records: tuple[SignedRecord, ...]

    def encoded(self) -> bytes:
        return encode(
            BundleForm(
                v=1,
                coalition=self.coalition,
                targets=self.targets,
                epochs=tuple(record.encoded() for record in self.epochs),
                records=tuple(record.encoded() for record in self.records),
            )
        )


def decode_bundle(data: bytes) -> Bundle:
    """Read a bundle.

    Raises:
        DecodeError: malformed, not canonical, over a limit, or records or targets out of order.
    """
    form = decode(data, BundleForm, BUNDLE_BYTES_MAX, BUNDLE_RECORDS_MAX)
    epochs = tuple(_record(item, "epoch", index) for index, item in enumerate(form.epochs))
    records = tuple(_record(item, "record", index) for index, item in enumerate(form.records))
    ids = [record.id for record in records]
    if ids != sorted(set(ids)):
        raise DecodeError("records are not in the order of their ids, each once")
    if list(form.targets) != sorted(set(form.targets)):
        raise DecodeError("targets are not in the order of their ids, each once")
    if any(record.header.kind != "epoch" for record in epochs):
        raise DecodeError("a record that is no epoch stands among the epochs")
    if any(record.header.kind == "epoch" for record in records):
        raise DecodeError("an epoch stands among the records")
    return Bundle(form.coalition, form.targets, epochs, records)


def _record(data: bytes, what: str, index: int) -> SignedRecord:
    try:
        return decode_record(data)
    except DecodeError as exc:
        raise DecodeError(f"{what} {index}: {exc}") from exc


_DEPENDED_ON: Final[Mapping[type[Form], tuple[str, ...]]] = {
    Ask: ("intent", "relied"),
    Vote: ("intent", "ask", "adverse"),
    Permit: ("intent", "ask", "votes"),
    Refusal: ("intent", "ask", "votes"),
    Start: ("intent", "permit"),
    Actuation: ("intent", "permit", "start", "inputs", "transitions", "attestation"),
    Attestation: ("endorsements",),
    Appraisal: ("attestation", "endorsements"),
    ShareRelease: ("intent", "permit", "version"),
    Cosignature: ("checkpoint",),
}
"""The fields that name records on which one depends."""


def dependencies(record: VerifiedRecord[Any]) -> tuple[bytes, ...]:
    """The ids of the records without which this one cannot be checked, sorted.

    An intent depends on none of its inputs: what was relied on is named by the ask. That depends on the credentials of
    the intents among these too, which only `close` can know.

    The epoch's taxonomy and policies are depended on by every bundle and are not listed here.
    """
    body: Form = record.body
    wanted: set[bytes] = set()
    if record.authority is not None:
        wanted.add(record.authority)
    for name in _DEPENDED_ON.get(type(body), ()):
        value: bytes | tuple[bytes, ...] | None = getattr(body, name)
        wanted.update(value if isinstance(value, tuple) else () if value is None else (value,))
    if isinstance(body, Misbehaviour):
        shown = (each.header.authority for each in contradicting(body))
        wanted.update(authority for authority in shown if authority is not None)
    return tuple(sorted(wanted - {record.id}))


def credentials_of(records: Iterable[VerifiedRecord[Any]]) -> tuple[bytes, ...]:
    """The credentials of the intents among records: under these was made what an ask relies on."""
    return tuple(record.body.credential for record in records if isinstance(record.body, Intent))


def close(
    targets: Iterable[bytes], find: Callable[[bytes], VerifiedRecord[Any] | None]
) -> tuple[dict[bytes, VerifiedRecord[Any]], tuple[bytes, ...]]:
    """Everything that the targets depend on, and the ids that could not be found."""
    found: dict[bytes, VerifiedRecord[Any]] = {}
    missing: list[bytes] = []
    relied: set[bytes] = set()
    queue = sorted(set(targets))
    seen = set(queue)
    while queue:
        wanted = queue.pop()
        record = find(wanted)
        if record is None:
            missing.append(wanted)
            continue
        found[wanted] = record
        named = dependencies(record)
        if isinstance(record.body, Ask):
            relied.update(record.body.relied)
            named += credentials_of(found[i] for i in record.body.relied if i in found)
        elif wanted in relied:
            named += credentials_of((record,))
        for dependency in named:
            if dependency not in seen:
                seen.add(dependency)
                queue.append(dependency)
    return found, tuple(sorted(missing))


def governing_bodies(epochs: Mapping[bytes, Epoch], used: Iterable[bytes]) -> frozenset[tuple[str, bytes]]:
    """Kind and body digest of the taxonomy and policies of the epochs that votes were cast under."""
    wanted: set[tuple[str, bytes]] = set()
    for epoch_id in used:
        body = epochs.get(epoch_id)
        if body is not None:
            wanted.add(("taxonomy", body.taxonomy))
            wanted.update(("policy", digest) for digest in body.policies)
    return frozenset(wanted)
