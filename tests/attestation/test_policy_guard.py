"""Hostile policy text: it is refused before the engine sees it, and never ends or divides the network.

What could end the interpreter runs in a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import threading
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostile_policies
from comity.attestation.policy_guard import (
    BRACKETS_DEEP_MAX,
    CONDITIONALS_MAX,
    RULE_TOKENS_MAX,
    RULES_MAX,
    TEXT_BYTES_MAX,
    UNARY_RUN_MAX,
    EngineError,
    engine_call,
    on_deep_stack,
    read_statements,
)
from comity.attestation.policy_rules import compile_rules
from comity.protocol.errors import DecodeError

RULE: Final = '@id("a") permit (principal, action, resource) when {{ {} }};'
TOKENS: Final = len(read_statements(RULE.format("true")).statements[0].tokens)
TERMS: Final = (RULE_TOKENS_MAX - TOKENS) // 2


def code_of(text: str) -> str | None:
    problems = read_statements(text).problems
    return problems[0].code if problems else None


@pytest.mark.parametrize(
    ("inside", "outside", "code"),
    [
        # One bracket is open around the condition itself.
        ("(" * 15 + "true" + ")" * 15, "(" * 16 + "true" + ")" * 16, "brackets_deep"),
        ("[" * 15 + "1" + "]" * 15, "[" * 16 + "1" + "]" * 16, "brackets_deep"),
        ("!" * UNARY_RUN_MAX + "true", "!" * (UNARY_RUN_MAX + 1) + "true", "unary_run_long"),
        ("-" * UNARY_RUN_MAX + "1 == 1", "-" * (UNARY_RUN_MAX + 1) + "1 == 1", "unary_run_long"),
        (
            "if true then true else " * CONDITIONALS_MAX + "true",
            "if true then true else " * (CONDITIONALS_MAX + 1) + "true",
            "conditionals_many",
        ),
        ("true" + " && true" * TERMS, "true" + " && true" * (TERMS + 1), "rule_too_long"),
    ],
)
def test_each_bound_holds_where_it_says(inside: str, outside: str, code: str) -> None:
    assert code_of(RULE.format(inside)) is None
    assert code_of(RULE.format(outside)) == code


def test_the_examples_are_of_these_bounds() -> None:
    assert BRACKETS_DEEP_MAX == 16
    assert (TERMS, RULE_TOKENS_MAX) == (191, 400)


def test_a_text_has_a_bound_in_bytes_and_in_rules() -> None:
    rule = RULE.format("true")
    assert code_of(rule * RULES_MAX) is None
    assert code_of(rule * (RULES_MAX + 1)) == "rules_many"
    assert code_of("//" + "é" * (TEXT_BYTES_MAX // 2 - 1)) is None
    assert code_of("//" + "é" * (TEXT_BYTES_MAX // 2)) == "text_too_long"


def test_the_last_rule_without_its_semicolon_is_bounded_too() -> None:
    assert code_of("permit " + "1 + " * 10_000) == "rule_too_long"
    assert code_of("permit (principal") == "brackets_unbalanced"
    assert code_of("permit") == "rule_open"


NEST: Final = "(" * 5_000 + "true" + ")" * 5_000


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("behind a line end that only the engine sees", f"// a\r {RULE.format(NEST)}", "character_forbidden"),
        ("behind a Unicode line end", f"// a\u2028{NEST}", "character_forbidden"),
        ("between quotes on two lines", RULE.format(f'"\n" == {NEST} && "\n" == ""'), "string_open"),
        ("behind an escape that is none", RULE.format(f'"\\\\" == {NEST} && ""'), "brackets_deep"),
        ("behind a quote that stays open", RULE.format(f'"\\" == {NEST}'), "string_open"),
        ("behind a quote in a comment", f'// "\n{RULE.format(NEST)} // "', "brackets_deep"),
        ("behind a comment in a string", RULE.format(f'"//" == {NEST}'), "brackets_deep"),
        ("in brackets of another kind", RULE.format("([{" * 2_000), "brackets_deep"),
        ("by closing what was never open", ")" * 5_000 + NEST, "brackets_unbalanced"),
        ("with brackets that do not match", RULE.format("(" * 10 + "]" * 10), "brackets_unbalanced"),
        ("in half a surrogate pair", "// \ud800", "character_forbidden"),
        ("in writing that runs backwards", "// \u202e", "character_forbidden"),
        ("in another alphabet", RULE.format("c\u043entext.fresh"), "character_unexpected"),
        ("in a chain of `has`", RULE.format("context has " + "a." * 180 + "a"), "operator_unsupported"),
        ("in a zero byte", "\x00", "character_forbidden"),
    ],
)
def test_nesting_cannot_be_hidden_from_the_guard(name: str, text: str, code: str) -> None:
    assert code_of(text) == code, name


def test_words_that_only_look_like_operators_are_left_alone() -> None:
    assert code_of('@id("has") permit (principal, action, resource) when { a.has }; // has, if, (((') is None


def test_a_problem_names_line_and_column() -> None:
    problem = read_statements('// é\r\n@id("a")\n  permit (principal, äction);').problems[0]
    assert (problem.line, problem.column, problem.code) == (3, 22, "character_unexpected")


def test_statements_keep_their_text_and_annotations() -> None:
    text = '// first\n@id("a") @flag permit (x); @id("b;") forbid (y);'
    first, second = read_statements(text).statements
    assert (first.text, second.text) == ('@id("a") @flag permit (x);', '@id("b;") forbid (y);')
    assert (first.effect.text, second.effect.text) == ("permit", "forbid")
    assert [(a.name.text, a.value.text if a.value else None) for a in first.annotations] == [
        ("id", '"a"'),
        ("flag", None),
    ]


# Pieces that the engine knows, in any order.
PIECES: Final = st.sampled_from(
    [
        *'()[]{}!-+*<,;@.?\n\\"',
        *("==", "&&", "||", "::", "//", "in", "is", "like", "if", "then", "else", "when", "unless", "permit"),
        *("forbid", "principal", "resource", "action", "context", "tier", "Subject", "?principal"),
        *("true", "1", "9223372036854775807", '"a"', '"*"'),
    ]
)


@given(st.lists(PIECES, max_size=120).map(" ".join) | st.text(max_size=200))
def test_any_text_is_compiled_or_refused_with_a_reason(text: str) -> None:
    for each in (text, RULE.format(text)):
        with contextlib.suppress(DecodeError):
            assert compile_rules(each).digest == hashlib.sha256(each.encode()).digest()


def test_hostile_nesting_never_ends_the_interpreter() -> None:
    # From Python 3.12 on a process with threads is warned of forking, which is what is tried.
    command = [sys.executable, "-P", "-W", "ignore::DeprecationWarning", hostile_policies.__file__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr[-2_000:]) == (0, "survived\n", "")


def test_without_the_guard_the_engine_does_end_the_process() -> None:
    """Should this fail, the engine has learned to bound its recursion: see whether the bounds can be wider."""
    program = (
        "import resource, cedarpy\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        f"cedarpy.policies_to_json_str({RULE.format(NEST)!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode < 0


# The thread with the deep stack


def test_calls_run_on_one_thread_and_hop_once() -> None:
    def nested() -> tuple[int, int]:
        return threading.get_ident(), on_deep_stack(threading.get_ident)

    outer, inner = on_deep_stack(nested)
    assert outer == inner == on_deep_stack(threading.get_ident)
    assert outer != threading.get_ident()


def test_what_a_call_raises_is_raised_where_it_was_made() -> None:
    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        on_deep_stack(fail)
    assert on_deep_stack(lambda: 1) == 1


def test_new_threads_of_others_keep_their_stack() -> None:
    on_deep_stack(lambda: None)
    assert threading.stack_size() == 0


def test_a_panic_of_the_engine_becomes_a_fault() -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def fail() -> None:
        raise panic("index out of bounds")

    with pytest.raises(EngineError) as caught:
        on_deep_stack(lambda: engine_call(fail))
    assert caught.value.code == "policy_engine_failed"


@pytest.mark.parametrize("wish", [KeyboardInterrupt, SystemExit])
def test_a_wish_to_end_the_process_is_no_fault(wish: type[BaseException]) -> None:
    def fail() -> None:
        raise wish

    with pytest.raises(wish):
        engine_call(fail)
