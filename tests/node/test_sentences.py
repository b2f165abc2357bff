"""Sentences for people: every cause and need that the judgement can give has one that fits its parameters."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity.node.forms import TermForm
from comity.node.sentences import (
    _CAUSES,
    _DEEDS,
    _NEEDS,
    _OBLIGATIONS,
    cause_sentence,
    deed_for,
    need_sentence,
    spelled,
)

ROOT = Path(__file__).resolve().parents[2]
# What voters say of each other's records, or of certificates: whoever reads it reads the code's page.
TECHNICAL = frozenset(
    {
        "ask_not_the_requesters", "claim_unsupported", "column_twice", "credential_wrong", "engine_unknown",
        "epoch_unknown", "governance_state_wrong", "intent_early", "item_twice", "owners_many",
        "permit_foreign", "permit_of_another_epoch", "permit_wrong", "realm_mixed", "record_foreign",
        "refusal_foreign", "scope_wrong", "vote_before_epoch", "vote_by_stranger",
        "vote_key_not_in_force", "vote_missing", "vote_of_another_epoch", "vote_spliced", "vote_twice", "vote_wrong",
    }
)  # fmt: skip


def findings() -> Iterator[tuple[str, set[str], str]]:
    """Code, parameter names and file of every finding that a source of the judgement writes."""
    for path in sorted((ROOT / "attestation").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id not in ("refuse", "defer") or not node.args:
                continue
            code = node.args[0]
            if isinstance(code, ast.Constant) and isinstance(code.value, str):
                yield code.value, {k.arg for k in node.keywords if k.arg}, path.name


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_every_finding_has_a_sentence() -> None:
    found = list(findings())
    assert len(found) > 40
    without = {(code, where) for code, _, where in found if code not in _CAUSES and code not in TECHNICAL}
    assert without == set()


def test_sentences_use_only_parameters_that_are_given() -> None:
    for code, given, where in findings():
        assert fields(_CAUSES.get(code, "")) <= given, (code, where)


@pytest.mark.parametrize("sentences", [_CAUSES, _NEEDS, _OBLIGATIONS])
def test_a_sentence_is_filled_or_left_out(sentences: dict[str, str]) -> None:
    for code, sentence in sentences.items():
        assert not sentence.endswith("."), code
    assert cause_sentence("not_a_member", {"member": "a.example"}) == "a.example is no member of this epoch"
    assert cause_sentence("not_a_member", {}) == ""
    assert cause_sentence("of_some_policy", {"x": 1}) == ""


def test_a_parameter_is_never_read_as_a_format() -> None:
    said = need_sentence("approval", {"class": "{id.__class__}"})
    assert said == "an approval by somebody who holds {id.__class__}"


def test_every_need_that_somebody_can_meet_says_how() -> None:
    assert set(_NEEDS) - set(_DEEDS) == {"input"}
    deed = deed_for(TermForm("approval", {"class": "x"}), "ab" * 32)
    assert deed == f"comity approve {'ab' * 32} --key KEY --credential CREDENTIAL"


def test_terms_are_spelled_with_their_rule() -> None:
    assert spelled(TermForm("small_group", {"rows": 5}, "r1")) == "the rule r1 says small_group (rows 5)"
    assert spelled(TermForm("small_group", {"rows": 5})) == "small_group (rows 5)"
    assert spelled(TermForm("x", message="as it is")) == "as it is"
    assert spelled(TermForm("x")) == "x"
