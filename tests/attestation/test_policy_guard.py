"""Hostile policy text: it is refused before the engine sees it, and never ends or divides the network.

What could end the interpreter runs in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
HEAD_TOKENS: Final = len(read_statements(RULE.format("true")).statements[0].tokens) - 1


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
        ("true" + " && true" * 190, "true" + " && true" * 191, "rule_too_long"),
    ],
)
def test_each_bound_holds_where_it_says(inside: str, outside: str, code: str) -> None:
    assert code_of(RULE.format(inside)) is None
    assert code_of(RULE.format(outside)) == code


def test_the_examples_reach_the_bounds() -> None:
    assert BRACKETS_DEEP_MAX == 16
    assert HEAD_TOKENS + 1 + 2 * 190 <= RULE_TOKENS_MAX < HEAD_TOKENS + 1 + 2 * 191


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
        ("behind a line end that only the engine sees", f"// a\r permit(principal,action,resource) when {{ {NEST} }};", "character_forbidden"),
        ("behind a Unicode line end", f"// a\u2028{NEST}", "character_forbidden"),
        ("between quotes on two lines", RULE.format(f'"\n" == {NEST} && "\n" == ""'), "string_open"),
        ("behind an escaped quote", RULE.format(f'"\\" == {NEST} && "'), "string_open"),
        ("behind a quote in a comment", f'// "\n{RULE.format(NEST)} // "', "brackets_deep"),
        ("behind a comment in a string", RULE.format(f'"//" == {NEST}'), "brackets_deep"),
        ("in brackets of another kind", RULE.format("([{" * 2_000), "brackets_deep"),
        ("by closing what was never open", ")" * 5_000 + NEST, "brackets_unbalanced"),
        ("with brackets that do not match", RULE.format("(" * 10 + "]" * 10), "brackets_unbalanced"),
        ("in half a surrogate pair", "// \ud800", "character_forbidden"),
        ("in writing that runs backwards", "// \u202e", "character_forbidden"),
        ("in another alphabet", RULE.format("соntext.fresh"), "character_unexpected"),
        ("in attributes that are asked for", RULE.format("context has " + ".".join(["tier"] * 180)), "operator_unsupported"),
        ("in a zero byte", "\x00", "character_forbidden"),
    ],
)  # fmt: skip
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


# A text within the bounds, of pieces that the engine knows.
PIECES: Final = st.sampled_from(
    ["(", ")", "[", "]", "{", "}", "!", "-", "if", "then", "else", "true", "1", "context", ".tier", "&&", "||", "=="]
    + ["+", "*", "<", "in", "is", "like", '"a"', '"*"', "::", ",", ";", "@", "when", "unless", "permit", "forbid"]
    + ["principal", "resource", "action", "Subject", "//", "\n", '"', "\\", "?principal", "9223372036854775807"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=120).map(" ".join) | st.text(max_size=200))
def test_any_text_is_compiled_or_refused_with_a_reason(text: str) -> None:
    for each in (text, RULE.format(text)):
        try:
            compile_rules(each)
        except DecodeError as exc:
            assert str(exc).startswith("policy rules: ")


IN_A_PROCESS: Final = """
import os, sys, threading
from comity.attestation.policy_engine import ContextFacts, PolicyRequest, adopt_deep_stack, evaluate
from comity.attestation.policy_guard import on_deep_stack, read_statements
from comity.attestation.policy_rules import compile_rules
from comity.protocol.encoding import encode
from comity.protocol.errors import DecodeError

RULE = '@id("a") permit (principal, action, resource) when {{ {} }};'
REQUEST = PolicyRequest(
    subject="spiffe://a.example/x", member="a.example", kind="person", asset="a.example/y", writer="a.example",
    realm="production", context=ContextFacts(purpose="p", tier=1, fresh=True, weight=1, ticket=True),
)

def fault(function):
    try:
        function()
    except DecodeError:
        return
    raise SystemExit(f"accepted: {function}")

# Each of these ends a process that hands it to the engine.
for count in (100, 5_000, 30_000):
    for opening, closing in (("(", ")"), ("[", "]"), ("{", "}"), ("!", ""), ("-", ""), ('{"a":', "}")):
        fault(lambda: compile_rules(RULE.format(opening * count + "1" + closing * count)[:65_536]))
    fault(lambda: compile_rules(RULE.format("(if true then " * count + "1" + " else true)" * count)[:65_536]))
    fault(lambda: compile_rules(RULE.format("if true then true else " * count + "true")[:65_536]))
for sign in ("+", "-", "*", "&&", "||", ".a", '["a"]'):
    fault(lambda: compile_rules(RULE.format("1" + (sign + ("1" if sign[0] not in ".[" else "")) * 20_000)[:65_536]))

# What the bounds let through means the same on a small stack and on a deep one.
SHAPES = (
    lambda n: "+".join(["1"] * n) + " > 0", lambda n: "*".join(["1"] * n) + " > 0",
    lambda n: "&&".join(["context.fresh"] * n), lambda n: "||".join(["!context.fresh"] * n),
    lambda n: "if context.fresh then true else " * n + "true", lambda n: "if " * n + "true" + " then true else true" * n,
    lambda n: "(" * n + "true" + ")" * n, lambda n: "(if true then " * n + "true" + " else true)" * n,
    lambda n: "(true && " * n + "true" + ")" * n, lambda n: "!" * n + "true", lambda n: "true } when { " * n + "true",
    lambda n: "[" * n + "1" + "]" * n + " == " + "[" * n + "1" + "]" * n,
)
texts = []
for shape in SHAPES:
    n = 1
    while not read_statements(RULE.format(shape(n + 1))).problems:
        n += 1
    texts.append(RULE.format(shape(n)))
def verdicts(found):
    for text in texts:
        try:
            # Not the compiled text that is kept: each stack parses for itself.
            found.append(encode(evaluate(compile_rules.__globals__["_compile"].__wrapped__(text), REQUEST)))
        except Exception as exc:
            found.append(repr(exc))
deep, small = [], []
verdicts(deep)
def on_small_stack():
    adopt_deep_stack()
    verdicts(small)
threading.stack_size(512 * 1024)
thread = threading.Thread(target=on_small_stack)
thread.start()
thread.join()
assert deep == small and all(isinstance(each, bytes) for each in deep), (deep, small)

# After a fork the thread with the deep stack is not there.
if (child := os.fork()) == 0:
    os._exit(0 if on_deep_stack(lambda: 7) == 7 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("survived")
"""


def test_hostile_nesting_never_ends_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", IN_A_PROCESS], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr[-2_000:]) == (0, "survived\n", "")


def test_without_the_guard_the_engine_does_end_the_process(tmp_path: Path) -> None:
    """Should this fail, the engine has learned to bound its recursion: see whether the bounds can be wider."""
    text = RULE.format("(" * 30_000 + "true" + ")" * 30_000)
    program = f"import resource, cedarpy\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\ncedarpy.policies_to_json_str({text!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, cwd=tmp_path)
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
