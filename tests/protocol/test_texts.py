"""Texts that people see: the vectors of docs/spec/names.md section 6, in every place where a form has one."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import msgspec
import msgspec.inspect as mi
import pytest

from comity.protocol.encoding import Form
from comity.protocol.execution import Partition
from comity.protocol.governance import ColumnName
from comity.protocol.identifiers import SHOWN, ShortText
from comity.protocol.outcome import Parameter
from strategies import forms

VECTORS: dict[str, list[dict[str, str]]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "texts.json").read_text(encoding="utf-8")
)
# Texts that are no short texts: rules are Cedar's, which policy.md narrows; details of frames are for logs.
LONG = {"OwnerPolicy.rules", "Policy.rules", "DeclineFrame.detail", "ProblemFrame.detail"}


def is_a(kind: object, text: str) -> bool:
    try:
        msgspec.convert(text, kind, strict=True)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize("kind", [ShortText, Partition, Parameter, ColumnName])
@pytest.mark.parametrize("verdict", VECTORS)
def test_texts_of_the_vectors(kind: object, verdict: str) -> None:
    for case in VECTORS[verdict]:
        if case["text"] or kind is not ColumnName:
            assert is_a(kind, case["text"]) == (verdict == "accepted"), case["name"]


def test_exactly_what_moves_cursors_and_turns_lines_is_unshown() -> None:
    """By the properties that Unicode gives: control characters, separators, and Bidi_Control (UAX 9)."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    marks = {"\u061c", "\u200e", "\u200f"}
    for code in (*range(0xD800), *range(0xE000, 0x30000)):
        letter = chr(code)
        unshown = (
            unicodedata.category(letter) in ("Cc", "Zl", "Zp")
            or unicodedata.bidirectional(letter) in turning
            or letter in marks
        )
        assert is_a(ShortText, letter) is not unshown, f"U+{code:04X}"


def test_every_text_of_every_form_is_one_that_can_be_shown() -> None:
    """By its grammar or by this rule, keys of maps among them."""
    bare: set[str] = set()

    def look(info: mi.Type, where: str) -> None:
        match info:
            case mi.StrType():
                if info.pattern is None:
                    bare.add(where)
            case mi.VarTupleType():
                look(info.item_type, where)
            case mi.DictType():
                look(info.key_type, where)
                look(info.value_type, where)
            case mi.UnionType():
                for part in info.types:
                    look(part, where)
            case _:
                pass

    for form in forms():
        info = mi.type_info(form)
        assert isinstance(info, mi.StructType)
        assert issubclass(form, Form)
        for field in info.fields:
            look(field.type, f"{form.__name__}.{field.name}")
    assert bare == LONG
    assert SHOWN.endswith(r"\Z"), "`$` would let a line feed stand at the end"
