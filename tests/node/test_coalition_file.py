"""`coalition.toml`: from the first candidate to a founded coalition and its successor."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.attestation.epochs import chain, signatures_missing
from comity.attestation.roots import format_roots, parse_roots
from comity.attestation.signing import SigningKey, add_signature, sign_record
from comity.node.coalition_file import (
    COALITION_BYTES_MAX,
    CoalitionFile,
    MemberEntry,
    NodeEntry,
    format_coalition,
    parse_coalition,
    read_coalition,
    write_coalition,
)
from comity.protocol.encoding import encode
from comity.protocol.envelope import Header, SignedRecord, body_reference
from comity.protocol.errors import ConfigError
from comity.protocol.governance import Epoch, NodeCertificate
from comity.protocol.records import decode_body
from said import KEY, say, say_epoch

NORTH, SOUTH, BOARD = "clinic-north.example", "clinic-south.example", "board.example"
KEYS = {name: SigningKey.from_seed(name.encode().ljust(32)) for name in (NORTH, SOUTH, BOARD)}
NODE_KEY = SigningKey.from_seed(b"\x07" * 32)
TRANSPORT = SigningKey.from_seed(b"\x08" * 32).public.value


def node_of(member: str) -> NodeEntry:
    return NodeEntry(f"spiffe://{member}/node/n1", NODE_KEY.public, TRANSPORT, (f"/dns/{member}/tcp/4001",))


def entry(member: str, *nodes: NodeEntry) -> MemberEntry:
    return MemberEntry(member, (KEYS[member].public,), (member,), nodes)


def signed_by_all(record: SignedRecord, *members: str) -> SignedRecord:
    for member in members:
        record = add_signature(record, KEYS[member])
    return record


def certificate(member: str, coalition: bytes) -> SignedRecord:
    body = encode(
        NodeCertificate(
            salt=b"\x05" * 32,
            node=f"spiffe://{member}/node/n1",
            key=NODE_KEY.public,
            transport_key=TRANSPORT,
            not_before=0,
            not_after=9_999,
        )
    )
    key = KEYS[member]
    header = Header(
        v=1,
        kind="node_certificate",
        member=member,
        key=key.key_id,
        at=1_000,
        realm="production",
        body=body_reference(body),
        coalition=coalition,
    )
    return sign_record(header, body, key)


DRAFT = say_epoch({name: KEYS[name] for name in (NORTH, SOUTH)})
GENESIS = signed_by_all(DRAFT, NORTH, SOUTH)
SUCCESSOR = say_epoch(KEYS, number=1, previous=GENESIS.id, coalition=GENESIS.id)
GATHERING = CoalitionFile("lung", 1_767_225_600, (entry(NORTH, node_of(NORTH)), entry(SOUTH)))
DRAFTED = dataclasses.replace(GATHERING, draft=DRAFT)
FOUNDED = CoalitionFile(
    "lung",
    1_767_225_600,
    (
        entry(SOUTH, node_of(SOUTH)),
        entry(NORTH, dataclasses.replace(node_of(NORTH), node=f"spiffe://{NORTH}/node/n1")),
    ),
    (
        GENESIS,
        certificate(NORTH, GENESIS.id),
        certificate(SOUTH, GENESIS.id),
        say("policy", coalition=GENESIS.id),
    ),
)
SUCCEEDING = dataclasses.replace(FOUNDED, members=(*FOUNDED.members, entry(BOARD)), draft=SUCCESSOR)
STATES = {"gathering": GATHERING, "drafted": DRAFTED, "founded": FOUNDED, "succeeding": SUCCEEDING}


@pytest.mark.parametrize("state", STATES)
def test_what_is_written_is_read(tmp_path: Path, state: str) -> None:
    path = tmp_path / "coalition.toml"
    write_coalition(path, STATES["gathering"])
    write_coalition(path, STATES[state])
    file = read_coalition(path)
    assert file == STATES[state]
    assert format_coalition(file) == path.read_text()
    assert [r.encoded() for r in file.records] == [r.encoded() for r in STATES[state].records]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_an_empty_file_gathers_candidates() -> None:
    empty = CoalitionFile("lung", 0)
    assert parse_coalition(format_coalition(empty)) == empty
    assert (empty.coalition, empty.epochs, empty.candidates) == (None, (), ())


def test_the_states_of_a_coalition() -> None:
    assert GATHERING.coalition is None
    assert [c.id for c in GATHERING.candidates] == [NORTH, SOUTH]
    assert (DRAFTED.coalition, DRAFTED.candidates, DRAFTED.epochs) == (GENESIS.id, (), ())
    assert (FOUNDED.coalition, FOUNDED.epochs) == (GENESIS.id, (GENESIS,))
    joining = dataclasses.replace(FOUNDED, members=(*FOUNDED.members, entry(BOARD)))
    assert [c.id for c in joining.candidates] == [BOARD]
    assert SUCCEEDING.candidates == ()
    assert [record.header.member for record in FOUNDED.of_kind("policy")] == [NORTH]


def test_members_sign_a_draft_on_its_way_from_hand_to_hand() -> None:
    draft = parse_coalition(format_coalition(DRAFTED)).draft
    assert draft is not None
    body: Any = decode_body(draft)
    assert isinstance(body, Epoch)
    assert signatures_missing(draft, body.members) == (SOUTH,)
    signed = dataclasses.replace(DRAFTED, draft=add_signature(draft, KEYS[SOUTH]))
    again = parse_coalition(format_coalition(signed)).draft
    assert again is not None
    assert again == GENESIS
    founded = CoalitionFile(GATHERING.name, GATHERING.made, GATHERING.members, (again,))
    assert chain(founded.epochs)[-1].id == GENESIS.id


def test_roots_pin_the_newest_epoch_that_is_signed() -> None:
    roots = SUCCEEDING.roots()
    assert (roots.coalition, roots.epoch_number, roots.epoch, roots.name) == (
        GENESIS.id,
        0,
        GENESIS.id,
        "lung",
    )
    assert parse_roots(format_roots(roots)) == roots
    for state in (GATHERING, DRAFTED):
        with pytest.raises(ConfigError, match="no roots yet"):
            state.roots()


def test_an_operator_may_write_addresses_as_people_do() -> None:
    text = format_coalition(GATHERING).replace(f"/dns/{NORTH}/tcp/4001", "192.0.2.7:4001")
    assert parse_coalition(text).members[0].nodes[0].addresses == ("/ip4/192.0.2.7/tcp/4001",)


# Mistakes, with file, line and key


def line_of(text: str, beginning: str, nth: int = 0) -> int:
    return [n for n, line in enumerate(text.splitlines(), 1) if line.startswith(beginning)][nth]


@pytest.mark.parametrize(
    ("old", "new", "at", "key", "problem"),
    [
        ('name = "lung"', "name = 3", "name", "name", "not text"),
        ('name = "lung"', f'name = "{"x" * 256}"', "name", "name", "not allowed"),
        ('name = "lung"', 'nam = "lung"', "nam", "nam", "unknown key; did you mean name?"),
        ("made = 2026-01-01T00:00:00Z", "made = 2026", "made", "made", "not a date and time"),
        (
            GENESIS.id.hex(),
            "00" * 32,
            "coalition",
            "coalition",
            "not what the epoch records of this file say",
        ),
        (GENESIS.id.hex(), "00" * 31, "coalition", "coalition", "not 64 hex digits"),
        (
            "epoch_number = 0",
            "epoch_number = 1",
            "epoch_number",
            "epoch_number",
            "not what the epoch records",
        ),
        (
            f'epoch = "{GENESIS.id.hex()}"',
            f'epoch = "{"11" * 32}"',
            "epoch =",
            "epoch",
            "not what the epoch records",
        ),
        (f'id = "{NORTH}"', 'id = "North"', "id = ", "members[0].id", "not a domain in lower case"),
        (
            f'id = "{NORTH}"',
            'id = "zzz.org"',
            "[[members]]",
            "members",
            f"{NORTH} is a member by the epoch record",
        ),
        (
            f'id = "{NORTH}"',
            'id = "clinic-nort.example"',
            "[[members]]",
            "members[0]",
            f"did you mean {NORTH}?",
        ),
        (
            f'namespaces = ["{NORTH}"]',
            'namespaces = ["other.example"]',
            "[[members]]",
            "members[0]",
            f"the epoch record gives {NORTH} other keys or namespaces",
        ),
        (
            KEYS[NORTH].public.value.hex(),
            KEY.public.value.hex(),
            "[[members]]",
            "members[0]",
            f"the epoch record gives {NORTH} other keys",
        ),
        (KEYS[NORTH].public.value.hex(), "zz", "keys", "members[0].keys", "not a list of keys"),
        (
            f'node = "spiffe://{NORTH}',
            f'node = "spiffe://{BOARD}',
            "[[members]]",
            "members[0]",
            "not the name of a node",
        ),
        (
            f'node = "spiffe://{NORTH}',
            'nodes = "spiffe://',
            "nodes",
            "members[0].nodes[0].nodes",
            "did you mean node?",
        ),
        (TRANSPORT.hex(), "00" * 32, "[[members]]", "members[0]", "its certificate is for other keys"),
        (TRANSPORT.hex(), "00", "transport_key", "members[0].nodes[0].transport_key", "not 64 hex digits"),
        (f"/dns/{NORTH}/tcp/4001", "north", "addresses", "members[0].nodes[0].addresses", "host:port"),
        ("[records]", "[recorded]", "[recorded]", "recorded", "unknown key; did you mean records?"),
        ("policy = [", "policies = [", "policies", "records.policies", "unknown key; did you mean policy?"),
        ("policy = [", "taxonomy = [", "taxonomy", "records.taxonomy", "a record of kind policy"),
        ("policy = [", "vote = [", "vote", "records.vote", "unknown key"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(
    old: str, new: str, at: str, key: str, problem: str
) -> None:
    text = format_coalition(FOUNDED)
    assert old in text
    text = text.replace(old, new, 1)
    with pytest.raises(ConfigError) as caught:
        parse_coalition(text, "c.toml")
    assert str(caught.value).startswith(f"c.toml:{line_of(text, at)}: {key}: ")
    assert problem in str(caught.value)


def test_the_place_of_a_mistake_does_not_depend_on_the_order_of_members() -> None:
    text = format_coalition(FOUNDED)
    head, north, rest = text.split("\n[[members]]\n", 2)
    south, records = rest.split("\n[records]\n")
    turned = f"{head}\n[[members]]\n{south}\n[[members]]\n{north}\n[records]\n{records}"
    assert parse_coalition(turned) == FOUNDED
    broken = turned.replace(f'namespaces = ["{NORTH}"]', f'namespaces = ["{BOARD}"]')
    with pytest.raises(
        ConfigError, match=rf"c.toml:{line_of(broken, '[[members]]', 1)}: members\[1\]: the epoch"
    ):
        parse_coalition(broken, "c.toml")


def test_a_record_that_was_changed_is_no_record() -> None:
    text = format_coalition(FOUNDED)
    start = text.index("policy = [") + 40
    for end in ((text[start] == "A" and "B") or "A", "!"):
        with pytest.raises(ConfigError, match=r"records.policy: not a list, each a signed record in base64"):
            parse_coalition(text[:start] + end + text[start + 1 :])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"name": "x" * 256}, "name"),
        ({"made": -1}, "made"),
        ({"members": (entry(NORTH), entry(NORTH))}, f"members.{NORTH}"),
        (
            {"members": tuple(MemberEntry(f"a{i}.example", (KEY.public,), ("a",)) for i in range(27))},
            "members",
        ),
        ({"members": (entry(NORTH), MemberEntry(SOUTH, (), (SOUTH,)))}, f"members.{SOUTH}"),
        ({"members": (entry(NORTH), entry(SOUTH, node_of(NORTH)))}, f"members.{SOUTH}"),
        ({"members": (entry(NORTH, node_of(NORTH), node_of(NORTH)), entry(SOUTH))}, f"members.{NORTH}"),
        ({"records": (say("vote"),)}, "records.vote"),
        ({"records": (say("policy"),)}, "records.policy"),
        ({"records": (GENESIS, GENESIS), "draft": None}, "records"),
        ({"records": (GENESIS, say("policy")), "draft": None}, "records.policy"),
        ({"records": (SUCCESSOR,), "draft": None}, "records.epoch"),
        ({"records": (GENESIS,)}, "draft"),
        ({"draft": SUCCESSOR}, "draft"),
        ({"draft": say("policy", coalition=GENESIS.id)}, "draft"),
        ({"draft": say("epoch", coalition=None)}, "records"),
    ],
)
def test_parts_that_do_not_fit_are_refused_when_they_are_put_together(
    change: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: "):
        dataclasses.replace(DRAFTED, **change)


def test_a_node_entry_is_checked() -> None:
    good = node_of(NORTH)
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"transport_key": b"short"}, "32 bytes"),
        ({"addresses": ("192.0.2.7:1",)}, "is not written as /ip4/192.0.2.7/tcp/1"),
        ({"addresses": ("/ip4/192.0.2.7/tcp/0",)}, "port 0"),
        ({"addresses": ("/ip4/192.0.2.7/tcp/1",) * 9}, "9 addresses"),
    ]
    for wrong, problem in wrongs:
        with pytest.raises(ConfigError, match=problem):
            dataclasses.replace(GATHERING, members=(entry(NORTH, dataclasses.replace(good, **wrong)),))


def test_reading_and_writing_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "coalition.toml"
    path.write_bytes(b"#" * (COALITION_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="longer than 8388608 bytes"):
        read_coalition(path)
    big = tuple(say("policy", chr(65 + i) * 600_000, coalition=GENESIS.id) for i in range(11))
    with pytest.raises(ConfigError, match="at most 8388608"):
        write_coalition(path, dataclasses.replace(FOUNDED, records=(GENESIS, *big)))


@given(st.text(max_size=200))
def test_any_text_is_a_coalition_file_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_coalition(text)


@pytest.mark.parametrize("key", ["name", "made", "members", "records", "draft", "coalition", "epoch"])
@pytest.mark.parametrize("value", ["3", "[3]", "{}", "[[]]", '"x"', "{ a = 1 }", "[{}]"])
def test_a_value_of_the_wrong_kind_is_a_config_error(key: str, value: str) -> None:
    rest = {"name": '"lung"', "made": "2026-01-01T00:00:00Z"} | {key: value}
    text = "\n".join(f"{name} = {given}" for name, given in rest.items())
    if (key, value) in {("name", '"x"'), ("records", "{}")}:
        parse_coalition(text)
        return
    with pytest.raises(ConfigError, match=f"coalition.toml:.* {key}"):
        parse_coalition(text)
