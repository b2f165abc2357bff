"""What nodes gossip: heads and digests, from which another sees that it lacks something.

A notice is a hint. Nothing in it is believed; who lacks what it names pulls it, and verifies what comes.

Spec: docs/spec/peer.md section 7.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from comity.protocol.encoding import Form, decode_value, encode
from comity.protocol.errors import DecodeError
from comity.protocol.identifiers import AssetId, Digest, Natural, ShortText
from comity.protocol.limits import NOTICE_BYTES_MAX, NOTICE_HEADS_MAX, NOTICE_RECORDS_MAX


class SlotHead(Form, frozen=True):
    """The newest promoted actuation of an asset and partition of the author's."""

    asset: AssetId
    generation: Natural
    actuation: Digest
    partition: ShortText = ""


class Notice(Form, frozen=True, tag="heads", tag_field="notice"):
    """What its author's organization has said since the notice before.

    Attributes:
        coalition: the id of the genesis; a notice of another one says nothing here.
        records: ids of governance records.
        heads: what was promoted.
    """

    coalition: Digest
    records: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=NOTICE_RECORDS_MAX)] = ()
    heads: Annotated[tuple[SlotHead, ...], msgspec.Meta(max_length=NOTICE_HEADS_MAX)] = ()


def encode_notice(notice: Notice) -> bytes:
    return encode(notice)


def decode_notice(data: bytes) -> Notice:
    """Read a notice.

    Raises:
        DecodeError: malformed, not canonical, over the limit, or no notice.
    """
    value = decode_value(data, NOTICE_BYTES_MAX)
    try:
        notice: Notice = msgspec.convert(value, Notice, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError, TypeError) as exc:
        raise DecodeError(f"not a notice: {exc}") from exc
    return notice
