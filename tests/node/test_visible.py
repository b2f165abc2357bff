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
from comity.node.visible import is_visible, json_line, named, visible, visible_word
from comity.protocol.errors import ConfigError

EVIL = "\x1b[2K\x1b[1A\x9b1mLevel: re-judged\r\n\u202eCOSIGNED\u2066\u200f\u2028\x7f\ue000\udc80"

IGNORABLE = (
    *(
        "00AD",
        "034F",
        "061C",
        "115F-1160",
        "17B4-17B5",
        "180B-180F",
        "200B-200F",
        "202A-202E",
        "2060-206F",
        "3164",
    ),
    *("FE00-FE0F", "FEFF", "FFA0", "FFF0-FFF8", "1BCA0-1BCA3", "1D173-1D17A", "E0000-E0FFF"),
)
"""Unicode's Default_Ignorable_Code_Point, whole."""
BLANK = ("2800", "13441-13442", "16FE4", "1D159")


def points(*spans: str) -> list[str]:
    """The characters of spans of code points."""
    ends = [[int(each, 16) for each in span.split("-")] for span in spans]
    return [chr(point) for first, *last in ends for point in range(first, (*last, first)[0] + 1)]


UNSEEN = points(*IGNORABLE, *BLANK)
SEEN = st.characters(exclude_categories=("C", "Z"), exclude_characters=UNSEEN)
ANY = st.text(st.one_of(st.characters(), st.sampled_from(UNSEEN)))


@pytest.mark.parametrize("span", [*IGNORABLE, *BLANK])
def test_what_is_drawn_as_nothing_is_an_escape(span: str) -> None:
    """Two names that look alike would otherwise be two, and a blank one a name."""
    for each in points(span):
        assert not is_visible(each)
        assert visible(each) == each.encode("unicode_escape").decode()
        assert each not in visible_word(f"clinic{each}-north")
        assert named(each) == f'"{visible(each)}"'
        for indent in (None, 2):
            line = json_line({"name": each}, indent=indent)
            assert line.isascii()
            assert json.loads(line) == {"name": each}


def test_letters_of_the_same_scripts_are_seen() -> None:
    for each in points(
        "AC00-D7A3", "1100-115E", "1161-11FF", "1780-17B3", "1820-1878", "2801-28FF", "3131-3163"
    ):
        assert visible(each) == each


@given(ANY)
def test_nothing_that_cannot_be_seen_is_left(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert not set(shown) & set(UNSEEN)
    assert visible(shown) == shown
    assert visible_word(text).isprintable()
    assert "  " not in visible_word(text)
    assert named(text).isprintable()


@given(st.text(SEEN))
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
