"""Frames between peers: each is what its tag says, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from comity.protocol.encoding import Form, decode_value, encode
from comity.protocol.errors import DecodeError
from comity.protocol.frames import (
    AskFrame,
    DeclineFrame,
    FeedFrame,
    FetchFrame,
    HeadFrame,
    OfferFrame,
    PageFrame,
    ProblemFrame,
    RecordsFrame,
    VoteFrame,
    decode_answer,
    decode_request,
    encode_frame,
)
from comity.protocol.limits import FETCH_IDS_MAX, FRAME_BYTES_MAX
from strategies import of_form

REQUESTS: tuple[type[Form], ...] = (AskFrame, FetchFrame, FeedFrame, HeadFrame, OfferFrame)
ANSWERS: tuple[type[Form], ...] = (VoteFrame, DeclineFrame, PageFrame, RecordsFrame, ProblemFrame)


@pytest.mark.parametrize("form", REQUESTS + ANSWERS, ids=lambda form: form.__name__)
def test_a_frame_is_read_back_on_its_own_side_only(form: type[Form]) -> None:
    ours, theirs = (decode_request, decode_answer) if form in REQUESTS else (decode_answer, decode_request)

    @given(of_form(form))
    def holds(frame: Any) -> None:
        data = encode_frame(frame)
        assert ours(data) == frame
        with pytest.raises(DecodeError):
            theirs(data)

    holds()


def test_tags_are_unique() -> None:
    tags = [form.__struct_config__.tag for form in REQUESTS + ANSWERS]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"frame": "shout"},
        {"frame": 1},
        {"frame": "fetch"},
        {"frame": "fetch", "ids": [b"short"]},
        {"frame": "fetch", "ids": ["A" * 44]},
        {"frame": "fetch", "ids": [b"i" * 32] * (FETCH_IDS_MAX + 1)},
        {"frame": "feed", "after": -1},
        {"frame": "feed", "after": True},
        {"frame": "head", "asset": "Not/An/Asset"},
        {"frame": "vote", "vote": "AAAA"},
        [],
        b"",
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_frame_is_refused(value: Any) -> None:
    for decode in (decode_request, decode_answer):
        with pytest.raises(DecodeError):
            decode(encode(value))


def test_a_frame_is_bounded() -> None:
    with pytest.raises(DecodeError, match="at most"):
        decode_request(bytes(FRAME_BYTES_MAX + 1))


def test_a_frame_says_its_tag() -> None:
    assert decode_value(encode_frame(FeedFrame(after=3)), 100) == {"frame": "feed", "after": 3}
