"""Threat: a text of a record that moves the cursor, turns the direction of reading, or forges a line of ours."""

from __future__ import annotations

import json

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from comity.node.cli_terminal import console, fail, print_json, table, warn
from comity.node.forms import TermForm
from comity.node.sentences import cause_sentence, spelled
from comity.node.visible import json_line, named, visible, visible_word
from comity.protocol.errors import ConfigError

EVIL = "\x1b[2K\x1b[1A\x9b1mLevel: re-judged\r\n\u202eCOSIGNED\u2066\u200f\u2028\x7f\ue000\udc80"


@given(st.text())
def test_nothing_that_cannot_be_seen_is_left(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    assert visible_word(text).isprintable()
    assert "  " not in visible_word(text)
    assert named(text).isprintable()


@given(st.text(st.characters(exclude_categories=("C", "Z"))))
def test_what_can_be_seen_stays(text: str) -> None:
    assert visible(text) == text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_json_says_the_same_and_hides_nothing(texts: list[str]) -> None:
    line = json_line(texts)
    assert line.isprintable()
    assert json.loads(line) == texts
    assert json.loads(json_line(texts, indent=2)) == texts
    assert all(each.isprintable() for each in json_line(texts, indent=2).split("\n"))


def test_a_free_text_ends_where_it_seems_to_end() -> None:
    assert named("2026-01-01") == "2026-01-01"
    assert named('a", b') == '"a\\", b"'
    assert named("") == '""'


def test_a_forged_line_is_never_printed(capsys: pytest.CaptureFixture[str]) -> None:
    out = console()
    out.print(f"partition {EVIL}")
    table(out, ("A", "B"), [(EVIL, f"x{EVIL}")], "none")
    table(out, ("A",), [], f"none {EVIL}")
    print_json({"text": EVIL})
    warn([EVIL], strict=False)
    with pytest.raises(typer.Exit):
        fail(ConfigError(f"wrong: {EVIL}"), as_json=True)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert text
        assert all(each.isprintable() for each in text.split("\n")), text
    assert not [line for line in (said.out + said.err).split("\n") if line.startswith("Level")]
    assert r"\x1b[2K" in said.out


def test_sentences_hold_no_parameter_that_cannot_be_seen() -> None:
    assert cause_sentence("not_a_member", {"member": EVIL}).isprintable()
    assert ":smile:" in spelled(TermForm("x", {"a": ":smile:"}))


def test_text_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("[red]a[/red] :smile:")
    assert capsys.readouterr().out == "[red]a[/red] :smile:\n"
