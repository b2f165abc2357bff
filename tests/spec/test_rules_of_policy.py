"""Rules of docs/spec/policy.md that no other test shows: on characters, `has`, obligations, acceptance and faults."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import cedarpy
import msgspec
import pytest

from comity.attestation import policy_engine
from comity.attestation.policy_engine import PolicyFault, evaluate
from comity.attestation.policy_guard import STACK_BYTES, read_statements
from comity.attestation.policy_lint import lint
from comity.attestation.policy_rules import compile_rules
from comity.attestation.voter import AskArrived, Decline
from comity.protocol.errors import DecodeError
from comity.protocol.outcome import Mode, Outcome
from next_epochs import successor
from policy_worlds import REQUEST
from spec_sentences import sentences
from world import NORTH, RULES, SOUTH, START, World, digest_of, policy_body, write_exact

PERMIT = '@id("a") permit (principal, action, resource);'


def forbidden_ranges() -> list[tuple[int, int]]:
    """The code points that policy.md section 2.2 lists, as first and last."""
    (said,) = [s.text for s in sentences() if s.page == "policy" and "A text MUST NOT hold any of" in s.text]
    listed = said.partition(";")[0]
    found = re.findall(r"U\+([0-9A-F]{4,6})(?: to U\+([0-9A-F]{4,6}))?", listed)
    return [(int(first, 16), int(last or first, 16)) for first, last in found]


def codes_of(text: str) -> set[str]:
    return {problem.code for problem in read_statements(text).problems}


def test_exactly_the_listed_characters_are_forbidden() -> None:
    """At the edges of each range, and outside of strings and comments as well as inside."""
    ranges = forbidden_ranges()
    assert len(ranges) >= 15
    forbidden = {point for first, last in ranges for point in range(first, last + 1)}
    edges = {point for first, last in ranges for point in (first - 1, first, last, last + 1) if point >= 0}
    for point in sorted(edges - {0x0D}):
        said = codes_of(f"// {chr(point)} \n{PERMIT}")
        assert said == ({"character_forbidden"} if point in forbidden else set()), f"U+{point:04X}"
    assert codes_of(PERMIT.replace("a", "a\u200b")) == {"character_forbidden"}
    assert codes_of(f"{PERMIT}\r\n") == set()
    assert codes_of(f"// \r{PERMIT}") == {"character_forbidden"}


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ("context has tier", False),
        ("has", False),
        ("principal has member.a.b", False),
        ("context.has", True),
        ('context["has"] == 1', True),
        ("context.hash", True),
    ],
)
def test_has_stands_only_behind_a_point(condition: str, allowed: bool) -> None:  # noqa: FBT001
    """Found before any parser that recurses sees the text; a string or another word is none."""
    text = f'@id("a") permit (principal, action, resource) when {{ {condition} }};'
    assert ("operator_unsupported" in codes_of(text)) is not allowed


@pytest.mark.parametrize(
    ("parameters", "sound"),
    [
        ("rows=1", True),
        ("rows=5, column=inst", True),
        ("rows=0", False),
        ("rows=-1", False),
        ("rows=x", False),
        ("rows=5, column=5", False),
        ("rows=5, more=1", False),
        ("column=inst", False),
    ],
)
def test_min_group_rows_has_rows_and_perhaps_a_column(parameters: str, sound: bool) -> None:  # noqa: FBT001
    text = (
        '@id("a") @mode("restrict") @reason("r") '
        f'@obliges("min_group_rows({parameters})") '
        'forbid (principal, action == Action::"materialize", resource);'
    )
    assert ("obligation_malformed" in {problem.code for problem in lint(text)}) is not sound


def test_rules_of_an_owner_are_looked_at_when_they_arrive() -> None:
    """One rule that breaks a rule is enough; the record is not held, and counts for nothing."""
    world = World((NORTH, SOUTH))
    sound = world[SOUTH].owner_policy(rules=PERMIT)
    broken = world[SOUTH].owner_policy(2, rules=PERMIT + PERMIT)
    holdings = world[NORTH].holdings
    admission = holdings.admit([sound, broken])
    assert [record.id for record in admission.admitted] == [sound.id]
    assert [(record.id, type(problem)) for record, problem in admission.rejected] == [
        (broken.id, DecodeError)
    ]
    assert holdings.get(broken.id) is None


def test_an_epoch_whose_policy_breaks_a_rule_has_no_governance() -> None:
    """The policy came before the epoch that names it, when it bound nobody and nobody looked at it."""
    world = World((NORTH, SOUTH))
    north = world[NORTH]
    bad = policy_body(rules=RULES + "nonsense")
    record = write_exact(north.owner, "policy", bad)
    world.tell(record)
    pursuit = world.decide(north.intent("plain/a"))
    assert pursuit.standing == "permitted"
    for name in (NORTH, SOUTH):
        world[name].holdings.adopt(successor(world, START, policies=(digest_of(bad),)))
        assert world[name].holdings.governance() is None
    ask = north.holdings.get(pursuit.ask.id)
    assert ask is not None
    other = world[NORTH].node.write("ask", _at(ask.body, START + 1), START + 1)
    effects = world[SOUTH].voter.handle(START + 1, AskArrived(other, (pursuit.intent.record,)))
    assert [effect.code for effect in effects if isinstance(effect, Decline)] == ["governance_missing"]


def _at(body: Any, t: int) -> Any:
    return msgspec.structs.replace(body, t=t)


@dataclass
class Diagnostics:
    """What the engine says of one request, beside its decision."""

    reasons: list[str] = field(default_factory=list[str])
    errors: list[str] = field(default_factory=list[str])
    id_annotations_by_reason: dict[str, str] = field(default_factory=dict[str, str])


@dataclass
class Answer:
    """An answer of the engine."""

    decision: Any
    diagnostics: Diagnostics


RULE = '@id("a") permit (principal, action, resource) when { context.tier > 0 };'


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(cedarpy.Decision.NoDecision, Diagnostics()), "policy_no_decision"),
        (Answer(cedarpy.Decision.Allow, Diagnostics()), "policy_no_decision"),
        (Answer(cedarpy.Decision.Deny, Diagnostics(["policy0"], [], {"policy0": "a"})), "policy_no_decision"),
        (Answer(cedarpy.Decision.Deny, Diagnostics([], ["recursion limit reached"])), "policy_stack"),
        (Answer(cedarpy.Decision.Deny, Diagnostics([], ["integer overflow"])), "policy_rule_error"),
        (
            Answer(cedarpy.Decision.Allow, Diagnostics(["policy0"], [], {"policy0": "b"})),
            "policy_engine_failed",
        ),
    ],
)
def test_an_engine_that_decides_nothing_or_fails_gives_a_fault(
    answer: Answer, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never an outcome: neither a refusal nor a permission rests on such an answer."""
    rules = compile_rules(RULE)

    class Engine:
        """The engine's library, with this answer to every request."""

        Entities = cedarpy.Entities

        @staticmethod
        def is_authorized_batch(requests: list[Any], *_: object) -> list[Answer]:
            return [answer for _ in requests]

    monkeypatch.setattr(policy_engine, "_cedarpy", Engine)
    assert evaluate(rules, REQUEST) == PolicyFault(code)


def test_an_engine_that_answers_fewer_requests_gives_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        """The engine's library, silent."""

        Entities = cedarpy.Entities

        @staticmethod
        def is_authorized_batch(*_: object) -> list[Answer]:
            return []

    monkeypatch.setattr(policy_engine, "_cedarpy", Engine)
    assert evaluate(compile_rules(RULE), REQUEST) == PolicyFault("policy_no_decision")


def test_all_of_it_is_evaluated_also_when_it_is_refused_already() -> None:
    """A refusal, a deferral and a restriction, on the class and on columns: every cause is told."""
    rules = compile_rules(
        """
        @id("no") @mode("refuse") @reason("no")
        forbid (principal, action == Action::"materialize", resource);
        @id("later") @mode("defer") @reason("later") @needs("approval(class=x)")
        forbid (principal, action == Action::"materialize", resource);
        @id("column") @mode("restrict") @reason("column")
        forbid (principal, action == Action::"include", resource);
        """
    )
    found = evaluate(rules, REQUEST)
    assert isinstance(found, Outcome)
    assert REQUEST.columns
    assert (found.mode, {need.code for need in found.needs}) == (Mode.REFUSE, {"approval"})
    # What nothing permits is told of the class, and of its columns.
    named = Counter(cause.code for cause in found.causes)
    assert named == {"no": 1, "later": 1, "column": 1, "no_authority": 2, "extent_empty": 1}


def test_the_stack_is_as_deep_as_the_page_wants() -> None:
    assert STACK_BYTES >= 2 << 20
