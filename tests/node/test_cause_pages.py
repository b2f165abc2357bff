"""What is said of each code: one text for every code, true commands, and the same in docs/causes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from cause_documents import FOLDER, GROUPS, OWN_PAGE, TITLES, documents, place_of
from comity.node.cause_page import FAMILIES, CausePage
from comity.node.cause_pages import example_of, near, page_for, pages
from comity.node.cli import app
from command_line import comity, problem_of

SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec" / "causes.md"
IN_TEXT = {"Needs": {"approval", "tier"}, "Obligations": {"min_group_rows"}}
"""Codes that causes.md names in a sentence: rules of policies give them, and this version knows how to meet them."""


def every_page() -> list[CausePage]:
    return [page for listed in pages().values() for page in listed]


def sections() -> dict[str, str]:
    parts = re.split(r"^## ", SPEC.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].strip(): part for part in parts}


def rows(heading: str) -> dict[str, list[str]]:
    """Code to the cells of its row in causes.md."""
    found = re.findall(r"^\| `([a-z][a-z0-9_]*)` \|(.*)\|$", sections()[heading], re.MULTILINE)
    return {code: cells.split("|") for code, cells in found}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_code_has_its_text_and_no_text_is_of_a_code_that_is_not(family: Any) -> None:
    """causes.md names what the code base gives: tests/test_spec.py compares those."""
    title = TITLES[family]
    wanted = set(rows(title)) | IN_TEXT.get(title, set())
    given = {code for code, listed in pages().items() if any(page.family == family for page in listed)}
    if title == "Needs":
        # In causes.md it is among the codes of the local node, and it is a need.
        given.remove("input")
    assert wanted
    assert sorted(given - wanted) == [], "explained, and no code"
    assert sorted(wanted - given) == [], "a code, and not explained"


def test_no_code_is_explained_twice_in_a_family() -> None:
    assert [c for c, listed in pages().items() if len({p.family for p in listed}) != len(listed)] == []


def test_a_cause_defers_where_the_specification_says_so() -> None:
    deferring = {code for code, cells in rows("Causes").items() if cells[1].strip().startswith("*defer*")}
    said = {page.code for page in every_page() if page.effect == "defers"}
    assert deferring
    assert said == deferring
    assert [page.code for page in every_page() if page.effect == "explains"] == ["approval_not_counted"]


@pytest.mark.parametrize("title", ["Causes", "Needs"])
def test_examples_have_the_parameters_of_the_code(title: str) -> None:
    for code, cells in rows(title).items():
        sometimes = set(re.findall(r"\(`([a-z_]+)`\)", cells[0]))
        always = set(re.findall(r"`([a-z_]+)`", cells[0])) - sometimes
        page = page_for(code, "cause" if title == "Causes" else "need")
        assert page is not None
        assert always <= set(page.example) <= always | sometimes, code


def test_an_example_is_a_sentence_wherever_there_is_one() -> None:
    for page in every_page():
        for line in example_of(page):
            assert "{" not in line, line
    expired = page_for("credential_expired")
    assert expired is not None
    assert example_of(expired) == (
        "because the credential of spiffe://institute.example/agent/fitter has expired",
    )


def test_what_is_related_is_a_code_and_another_one() -> None:
    assert {
        (page.code, other) for page in every_page() for other in page.related if other not in pages()
    } == set()
    assert [page.code for page in every_page() if page.code in page.related] == []


def test_texts_are_short_and_whole_sentences() -> None:
    for page in every_page():
        assert 20 <= len(page.meaning) <= 400, page.code
        assert page.meaning.endswith("."), page.code
        assert page.how.endswith("."), page.code
        assert page.who, page.code
        assert not page.who.endswith("."), page.code
        assert len(page.commands) <= 3, page.code


# Commands


@pytest.mark.parametrize("line", sorted({command for page in every_page() for command in page.commands}))
def test_every_command_is_one_that_comity_takes(line: str) -> None:
    assert problem_of(line) == ""


@pytest.mark.parametrize(
    "line",
    [
        "comity credentials list",
        "comity credential issue --subject S --kind person",
        "comity credential issue --subject S --kind robot --class C",
        "comity node status --untill quorum",
        "comity credential",
        "comty node status",
    ],
)
def test_a_command_that_comity_does_not_take_is_found(line: str) -> None:
    assert problem_of(line)


def test_commands_within_sentences_exist() -> None:
    sentences = [f"{page.meaning} {page.how}" for page in every_page()]
    named = {each for text in sentences for each in re.findall(r"`(comity [a-z -]+)`", text)}
    root: Any = typer.main.get_command(app)
    for each in named:
        command = root
        for word in each.split()[1:]:
            assert word in command.commands, each
            command = command.commands[word]


# Pages


def test_pages_are_those_of_the_texts() -> None:
    """`scripts/causes --write` writes them."""
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    wanted = documents()
    assert sorted(there) == sorted(wanted)
    assert [name for name in wanted if there[name] != wanted[name]] == []


def test_every_code_has_a_page_or_an_anchor() -> None:
    written = documents()
    for code, listed in pages().items():
        name, _, anchor = place_of(code).partition("#")
        assert name in written
        if anchor:
            for page in listed:
                assert f"\n## {code}\n" in written[f"{GROUPS[page.family]}.md"]
        else:
            assert any(page.family in OWN_PAGE for page in listed)
        for page in listed:
            assert f"[`{code}`](" in written["README.md"]
            assert page.who in written["README.md"]


# The command


def test_a_code_is_explained_without_a_node() -> None:
    shown = comity("cause", "owner_silent")
    assert "its vote is not here" in shown.output
    assert "comity node status" in shown.output
    told = comity("cause", "owner_silent", "--json").json
    assert told["code"] == "owner_silent"
    assert [each["family"] for each in told["families"]] == ["cause", "node"]


def test_an_unknown_code_names_the_nearest() -> None:
    shown = comity("cause", "owner_silant", status=1)
    assert "owner_silent" in shown.errors
    assert near("silent")[0] == "owner_silent"
    wrong = comity("cause", "owner_silant", "--json", status=1).json
    assert wrong["error"]["code"] == "not_found"


def test_all_codes_are_listed() -> None:
    listed = comity("cause", "--json").json
    assert {each["code"] for each in listed} == set(pages())
    assert "owner_silent" in comity("cause").output


def test_help_shows_an_example() -> None:
    assert "comity cause" in CliRunner().invoke(app, ["cause", "--help"]).output
