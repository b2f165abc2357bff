"""What nodes say to each other: requests and their answers, in canonical MessagePack.

A frame is a hint or a request, never evidence: what counts are the records in it. Each request is answered by
exactly one answer, or by a `problem`.

Spec: docs/spec/peer.md.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from comity.protocol.encoding import Form, decode_value, encode
from comity.protocol.errors import DecodeError
from comity.protocol.identifiers import AssetId, Code, Digest, Natural, ShortText
from comity.protocol.limits import (
    FETCH_IDS_MAX,
    FRAME_BYTES_MAX,
    PAGE_RECORDS_MAX,
    RECORD_BYTES_MAX,
    RELIED_MAX,
)

RecordBytes: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=RECORD_BYTES_MAX)]
_Records: TypeAlias = Annotated[tuple[RecordBytes, ...], msgspec.Meta(max_length=RELIED_MAX * 2)]
_Ids: TypeAlias = Annotated[tuple[Digest, ...], msgspec.Meta(max_length=FETCH_IDS_MAX)]
Detail: TypeAlias = Annotated[str, msgspec.Meta(max_length=255)]
"""For a log. It may quote what could not be read, so it may hold anything."""
Incarnation: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=32)]


class AskFrame(Form, frozen=True, tag="ask", tag_field="frame"):
    """Please vote on this ask. The records are those that it names and that may not be everywhere."""

    ask: RecordBytes
    records: _Records = ()


class VoteFrame(Form, frozen=True, tag="vote", tag_field="frame"):
    """The answer to an ask: this organization's vote."""

    vote: RecordBytes


class DeclineFrame(Form, frozen=True, tag="decline", tag_field="frame"):
    """The answer to an ask: no vote, and why."""

    code: Code
    detail: Detail = ""
    missing: _Ids = ()


class FetchFrame(Form, frozen=True, tag="fetch", tag_field="frame"):
    """Please send the records with these ids, as far as they are held."""

    ids: _Ids


class FeedFrame(Form, frozen=True, tag="feed", tag_field="frame"):
    """Please send the governance records that arrived at you after this position of this store."""

    after: Natural = 0
    incarnation: Incarnation = b""


class PageFrame(Form, frozen=True, tag="page", tag_field="frame"):
    """One page of a node's governance records, in the order in which they arrived there.

    Where `incarnation` is another than the one asked for, the page begins at the beginning.
    """

    incarnation: Incarnation
    position: Natural
    records: Annotated[tuple[RecordBytes, ...], msgspec.Meta(max_length=PAGE_RECORDS_MAX)] = ()
    epochs: Annotated[tuple[RecordBytes, ...], msgspec.Meta(max_length=64)] = ()
    more: bool = False


class HeadFrame(Form, frozen=True, tag="head", tag_field="frame"):
    """Please send the newest promoted actuation of this asset with its certificate."""

    asset: AssetId
    partition: ShortText = ""


class OfferFrame(Form, frozen=True, tag="offer", tag_field="frame"):
    """Here are records that concern you: adverse ones, approvals of your intents."""

    records: _Records


class RecordsFrame(Form, frozen=True, tag="records", tag_field="frame"):
    """The answer to fetch, head and offer (there empty)."""

    records: _Records = ()


class ProblemFrame(Form, frozen=True, tag="problem", tag_field="frame"):
    """The request could not be answered."""

    code: Code
    detail: Detail = ""


Request: TypeAlias = AskFrame | FetchFrame | FeedFrame | HeadFrame | OfferFrame
Answer: TypeAlias = VoteFrame | DeclineFrame | PageFrame | RecordsFrame | ProblemFrame
Frame: TypeAlias = Request | Answer


def encode_frame(frame: Frame) -> bytes:
    return encode(frame)


def decode_request(data: bytes) -> Request:
    """Read a request.

    Raises:
        DecodeError: malformed, not canonical, over the limit, or no request.
    """
    frame = _decode(data)
    if isinstance(frame, AskFrame | FetchFrame | FeedFrame | HeadFrame | OfferFrame):
        return frame
    raise DecodeError("not a request")


def decode_answer(data: bytes) -> Answer:
    """Read an answer.

    Raises:
        DecodeError: malformed, not canonical, over the limit, or no answer.
    """
    frame = _decode(data)
    if isinstance(frame, VoteFrame | DeclineFrame | PageFrame | RecordsFrame | ProblemFrame):
        return frame
    raise DecodeError("not an answer")


def _decode(data: bytes) -> Frame:
    value = decode_value(data, FRAME_BYTES_MAX)
    try:
        frame: Frame = msgspec.convert(value, Frame, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError, TypeError) as exc:
        raise DecodeError(f"not a frame: {exc}") from exc
    return frame
