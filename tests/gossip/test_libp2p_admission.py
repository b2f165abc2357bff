"""Which messages of gossip are looked at further."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID  # pyright: ignore[reportMissingTypeStubs]
from libp2p.pubsub.pb import rpc_pb2

from comity.gossip.gossip import BURST, interval_s, topic_of
from comity.gossip.libp2p_admission import ENVELOPE_BYTES_MAX, FORWARDED_BURST, Admission
from comity.protocol.limits import NOTICE_BYTES_MAX
from roads import seed_of

TOPIC = topic_of(bytes(32))
KEYS = {name: create_new_key_pair(seed_of(name)) for name in ("north", "south", "liar")}
IDS = {name: ID.from_pubkey(keys.public_key) for name, keys in KEYS.items()}


class Coalition:
    """Three nodes that know each other."""

    def name_of(self, peer_id: ID) -> str | None:
        return next((name for name, each in IDS.items() if each == peer_id), None)

    def nodes(self) -> int:
        return len(IDS)


def said(author: str = "north", **fields: object) -> rpc_pb2.Message:
    """As long as a message can be."""
    every: dict[str, object] = {
        "data": bytes(NOTICE_BYTES_MAX),
        "topicIDs": [TOPIC],
        "from_id": IDS[author].to_bytes(),
        "seqno": bytes(8),
        "signature": bytes(64),
        "key": KEYS[author].public_key.serialize(),
    }
    return rpc_pb2.Message(**(every | fields))  # type: ignore[arg-type]


def admission(clock: list[float]) -> Admission:
    return Admission(TOPIC, Coalition(), lambda: clock[0])


def test_a_message_of_the_longest_sort_is_well_formed() -> None:
    assert admission([0.0]).well_formed(said())


@pytest.mark.parametrize(
    "fields",
    [
        {"data": bytes(NOTICE_BYTES_MAX + 1)},
        {"topicIDs": ["other"]},
        {"topicIDs": [TOPIC, "other"]},
        {"from_id": b"stranger"},
        {"seqno": bytes(9)},
        {"signature": bytes(65)},
        {"key": bytes(ENVELOPE_BYTES_MAX)},
    ],
)
def test_what_breaks_a_bound_is_not_well_formed(fields: dict[str, object]) -> None:
    assert not admission([0.0]).well_formed(said("north", **fields))


def test_a_field_that_nobody_knows_lengthens_no_message() -> None:
    # Field 15, of bytes.
    longer = rpc_pb2.Message.FromString(said(data=b"x").SerializeToString() + b"\x7a\x80\x08" + bytes(1_024))
    assert len(longer.data) == 1
    assert not admission([0.0]).well_formed(longer)


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 1)), max_size=30))
def test_at_its_pace_an_author_is_heard_whatever_others_forward(between: list[tuple[int, float]]) -> None:
    clock = [0.0]
    ours = admission(clock)
    for forged, late in between:
        verified = sum(ours.worth_verifying(IDS["liar"]) for _ in range(forged))
        assert verified <= FORWARDED_BURST
        clock[0] += interval_s(len(IDS)) * (1 + late)
        assert ours.worth_verifying(IDS["north"])
        assert ours.at_pace(said())


def test_an_author_is_taken_at_its_pace() -> None:
    ours = admission([0.0])
    assert [ours.at_pace(said()) for _ in range(2 * BURST)] == [True] * BURST + [False] * BURST
    assert ours.at_pace(said("south"))
