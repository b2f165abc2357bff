"""The tables of forms in docs/spec say what the types say: every field, its type, and whether it is required."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec.inspect as mi
import pytest
from strategies import forms

from comity.protocol import frames
from comity.protocol.encoding import Form
from comity.protocol.envelope import Header
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
from comity.protocol.outcome import Mode, Parameter, Ranges, Term

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

# As wide as a digest, and none.
NOT_DIGESTS = {"salt", "transport_key"}
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
            return f"map of text to {written(info.value_type)}{bounds(info.min_length, info.max_length)}"
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
                rows = [
                    tuple(cell.strip() for cell in line.strip("|").split("|"))
                    for line in section.splitlines()
                    if line.startswith("| `")
                ]
                assert all(len(row) == 4 and row[3] for row in rows), f"{page}.md: {name}"
                yield page, name, [(row[0], row[1], row[2]) for row in rows]


def of_records() -> list[type[Form]]:
    """The forms of which records are made: not the bundle's, which is on its own page, and not the frames'."""
    elsewhere = {form for form in forms() if form.__module__ in (frames.__name__, "comity.protocol.bundle")}
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
    assert ("`scopes`", "array of 32 bytes, at most 16", "no") in rows
    assert ("`name`", "text, at most 255", "no") in rows
