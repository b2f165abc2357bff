"""The tables of forms in docs/spec say what the types say: every field, its type, and whether it is required."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec.inspect as mi
import pytest

from comity.attestation.epochs import faults_tolerated, quorum_of
from comity.attestation.signing import key_id
from comity.protocol import frames
from comity.protocol.encoding import Form, decode_value
from comity.protocol.envelope import PAYLOAD_TYPE, Header
from comity.protocol.governance import ColumnName, Suite
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import (
    AssetId,
    AssetPattern,
    ClassName,
    Code,
    Digest,
    Int,
    MemberId,
    Natural,
    PartsPerMillion,
    Realm,
    ShortText,
    SpiffeId,
    Timestamp,
)
from comity.protocol.limits import MEMBERS_MAX
from comity.protocol.outcome import (
    Cause,
    Extent,
    Mode,
    Obligation,
    Outcome,
    Parameter,
    Ranges,
    Term,
    full_extent,
    meet,
    supports,
)
from specimens import NORTH, key, specimens
from strategies import forms

SPEC = Path(__file__).parents[2] / "docs" / "spec"
PAGES = ("record", "outcome", "governance", "execution", "accountability")
NAMED = {
    MemberId: "member",
    SpiffeId: "SPIFFE id",
    AssetId: "asset",
    AssetPattern: "pattern",
    ClassName: "class",
    Realm: "realm",
    Code: "code",
    Suite: "suite",
    Timestamp: "time",
    Natural: "natural",
    PartsPerMillion: "ppm",
    Int: "integer",
    Ranges: "ranges",
    Mode: "mode",
    Digest: "digest",
    ColumnName: "column",
    ShortText: "short text",
    Parameter: "parameter",
}
"""The types of docs/spec/names.md section 6, by their Python types."""
_NAMES = {repr(mi.type_info(kind)): name for kind, name in NAMED.items()}

HEAD = "| field | type | required | meaning |\n|---|---|---|---|\n"
# As wide as a digest, and none.
NOT_DIGESTS = {"salt", "transport_key", "nonce"}
# `Term` is written by its three kinds; the others have tables of their own on the pages named.
ELSEWHERE = {Term, GovernanceState}


def written(info: mi.Type) -> str:
    """A type as the pages write it."""
    if repr(info) in _NAMES:
        return _NAMES[repr(info)]
    match info:
        case mi.BoolType():
            return "boolean"
        case mi.IntType():
            assert info.ge is not None
            high = info.le if info.le is not None else (info.lt or 0) - 1
            return f"{info.ge:,} to {high:,}"
        case mi.StrType():
            return f"text{bounds(info.min_length, info.max_length)}"
        case mi.BytesType():
            return f"bytes{bounds(info.min_length, info.max_length)}"
        case mi.LiteralType():
            return " or ".join(f"`{value}`" for value in info.values)
        case mi.VarTupleType():
            return f"array of {written(info.item_type)}{bounds(info.min_length, info.max_length)}"
        case mi.DictType():
            kinds = f"{written(info.key_type)} to {written(info.value_type)}"
            return f"map of {kinds}{bounds(info.min_length, info.max_length)}"
        case mi.StructType():
            return f"`{info.cls.__name__}`"
        case mi.UnionType():
            return " or ".join(written(part) for part in info.types if not isinstance(part, mi.NoneType))
        case _:
            raise AssertionError(info)


def bounds(low: int | None, high: int | None) -> str:
    if high is None:
        return f", at least {low:,}" if low else ""
    if low == high:
        return f", {high:,}"
    return f", {low:,} to {high:,}" if low else f", at most {high:,}"


def rows_of(form: type[Form]) -> list[tuple[str, str, str]]:
    """Field, type and whether it is required, the required ones first as the form has them."""
    info = mi.type_info(form)
    assert isinstance(info, mi.StructType)
    rows: list[tuple[str, str, str]] = []
    for field in info.fields:
        kind = "32 bytes" if field.name in NOT_DIGESTS else written(field.type)
        rows.append((f"`{field.encode_name}`", kind, "yes" if field.required else "no"))
    return rows


def tables() -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """Page, form and the first three columns of its table."""
    for page in PAGES:
        text = (SPEC / f"{page}.md").read_text(encoding="utf-8")
        for section in re.split(r"^##", text, flags=re.MULTILINE)[1:]:
            heading = section.partition("\n")[0]
            for name in re.findall(r"`([A-Z][A-Za-z]*)`", heading):
                table = section.partition(HEAD)[2].partition("\n\n")[0]
                rows = [
                    tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines()
                ]
                assert all(len(row) == 4 and row[3] for row in rows), f"{page}.md: {name}"
                yield page, name, [(row[0], row[1], row[2]) for row in rows]


def of_records() -> list[type[Form]]:
    """The forms of which records are made: not the bundle's, which is on its own page, and not those of nodes."""
    others = (frames.__name__, "comity.protocol.notices", "comity.protocol.bundle")
    elsewhere = {form for form in forms() if form.__module__ in others}
    return [form for form in forms() if form not in elsewhere | ELSEWHERE]


@pytest.mark.parametrize("form", of_records(), ids=lambda form: form.__name__)
def test_a_form_is_specified_as_it_is(form: type[Form]) -> None:
    found = [rows for _, name, rows in tables() if name == form.__name__]
    assert found == [rows_of(form)]


def test_no_page_specifies_a_form_that_is_not_there() -> None:
    known = {form.__name__ for form in of_records()}
    assert [name for _, name, _ in tables() if name not in known] == []


def test_a_table_that_differs_would_be_seen() -> None:
    rows = rows_of(Header)
    assert ("`at`", "time", "yes") in rows
    assert ("`scopes`", "array of digest, at most 16", "no") in rows
    assert ("`name`", "short text", "no") in rows


# Examples


def code_blocks(page: str) -> list[str]:
    """The indented blocks of a page, without their indentation."""
    text = (SPEC / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    \S.*\n(?:^    .*\n)*)", text, flags=re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def test_the_example_of_the_encoding_is_what_it_says() -> None:
    spelled = [
        re.match(r"(?:[0-9a-f]{2} ?)+(?= )", line.strip()) for line in code_blocks("encoding")[0].splitlines()
    ]
    data = bytes.fromhex("".join(found[0] for found in spelled if found))
    assert decode_value(data, 100) == {"code": "tier", "parameters": {"at_least": 1}}
    text = (SPEC / "encoding.md").read_text(encoding="utf-8")
    assert f"these {len(data)} bytes" in text
    for other in (b"\xd9\x04tier", b"\xcc\x01"):
        assert other.hex(" ") in text


def test_the_example_of_a_record_is_the_golden_one() -> None:
    record = specimens()["revocation"]
    text = (SPEC / "record.md").read_text(encoding="utf-8")
    shown = [
        record.id,
        record.header.body.digest,
        record.header.coalition,
        record.header.key,
        *record.header.subject,
    ]
    assert [d.hex() for d in shown if d is not None and f"{d.hex()[:8]}..." not in text] == []
    assert f"DSSEv1 40 {PAYLOAD_TYPE} {len(record.header_bytes)} " in text
    assert f"{len(record.body_bytes or b'')} bytes" in text


def test_the_example_of_a_key_is_the_golden_one() -> None:
    public = key(NORTH).public
    block = code_blocks("signatures")[0]
    assert [line.split()[1] for line in block.splitlines()] == [
        "ed25519",
        public.value.hex(),
        key_id(public).hex(),
    ]


def test_the_table_of_quorums_is_that_of_the_code() -> None:
    text = (SPEC / "epochs.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| ([nfq]) \| ([0-9 |]+) \|$", text, re.MULTILINE)
    rows = {name: [int(cell) for cell in cells.split(" | ")] for name, cells in found}
    assert rows["n"] == list(range(1, MEMBERS_MAX + 1))
    assert rows["f"] == [faults_tolerated(n) for n in rows["n"]]
    assert rows["q"] == [quorum_of(n) for n in rows["n"]]


def test_the_example_of_a_meet_holds() -> None:
    full = full_extent(1, 5)
    obligation = Obligation(code="min_group_rows", parameters={"column": "inst", "rows": 5})
    some = Extent(items=((0, 0),), columns=((1, 2), (4, 4)))
    left = Outcome(mode=Mode.RESTRICT, extent=some, causes=(Cause(code="quasi_identifier"),))
    right = Outcome(
        mode=Mode.RESTRICT, extent=full, causes=(Cause(code="small_group"),), obligations=(obligation,)
    )
    both = meet(left, right, full)
    assert both.extent == some
    assert [cause.code for cause in both.causes] == ["small_group", "quasi_identifier"]
    assert both.obligations == (obligation,)
    time_alone = Outcome(mode=Mode.RESTRICT, extent=Extent(((0, 0),), ((1, 1),)), obligations=(obligation,))
    assert supports(both, time_alone)
    age = Outcome(mode=Mode.RESTRICT, extent=Extent(((0, 0),), ((3, 3),)), obligations=(obligation,))
    free = Outcome(mode=Mode.RESTRICT, extent=some)
    all_of_it = Outcome(mode=Mode.EXECUTE, extent=some, obligations=(obligation,))
    assert [supports(both, claim) for claim in (age, free, all_of_it)] == [False, False, False]
