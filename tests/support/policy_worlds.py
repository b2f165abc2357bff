"""Requests and rules for the tests of the policy engine.

Run as a program it prints one digest of many outcomes, so that processes can be compared.
"""

from __future__ import annotations

import hashlib
import random
import sys
from dataclasses import replace
from typing import Any, Final

from comity.attestation.policy_engine import ColumnFacts, ContextFacts, PolicyFault, PolicyRequest, evaluate
from comity.attestation.policy_rules import compile_rules
from comity.protocol.encoding import encode
from comity.protocol.outcome import Outcome

BASE: Final = '@id("base") permit (principal, action, resource);\n'

REQUEST: Final = PolicyRequest(
    subject="spiffe://clinic.example/agent/7f3a",
    member="clinic.example",
    kind="agent",
    classes=("health/steward",),
    class_parents={"health/steward": "region-eu/care"},
    delegators=("spiffe://clinic.example/operator/1",),
    asset="clinic.example/released",
    writer="clinic.example",
    realm="production",
    data_classes=("health/released",),
    columns=(
        ColumnFacts("inst", "quasi_identifier"),
        ColumnFacts("time", "", named=True),
        ColumnFacts("age", "quasi_identifier"),
        ColumnFacts("note"),
        ColumnFacts("status", "", named=True),
    ),
    items=3,
    rows_by="inst",
    context=ContextFacts(purpose="survival", tier=1, fresh=False, weight=650_000, ticket=True),
)


def with_context(**facts: Any) -> PolicyRequest:
    return replace(REQUEST, context=replace(REQUEST.context, **facts))


def outcome(rules: str, request: PolicyRequest = REQUEST) -> Outcome:
    """What a text says. A fault fails the test."""
    said = evaluate(compile_rules(rules), request)
    assert isinstance(said, Outcome), said
    return said


# Conditions that fire on some requests and not on others, by the action that they are for.
_BOTH: Final = (
    "context.tier < 2",
    "context.weight < 600000 || context.fresh",
    'principal in AuthorityClass::"health"',
    'principal.kind == "agent" && principal.depth > 0',
    'resource in DataClass::"health"',
    'context.approvals.contains("health") && context.ticket',
    'context.input_owners.containsAny(["clinic.example", "other.example"])',
    "if context.solo then context.items > 2 else context.columns > 3",
    "context.input_purposes.isEmpty()",
    "context.code_authors.containsAny(context.code_reviewers)",
    "true",
)
_CONDITIONS: Final = {
    "materialize": (*_BOTH, 'resource.realm == "production"', 'resource.name like "clinic.example/*"'),
    "include": (
        *_BOTH,
        "!resource.named",
        'resource.column_class == "quasi_identifier"',
        'resource.asset.realm like "preview/*"',
        'resource.column_class == "" && resource.named',
    ),
}
FORBIDS: Final[tuple[str, ...]] = tuple(
    f'@mode("{mode}") @reason("r{number}") {more} '
    f'forbid (principal, action == Action::"{action}", resource) when {{ {condition} }};'
    for action, conditions in _CONDITIONS.items()
    for number, condition in enumerate(conditions)
    for mode, more in (
        ("refuse", ""),
        ("defer", f'@needs("approval(class=health/dpo);tier(at_least={number % 4})")'),
        ("restrict", f'@obliges("min_group_rows(rows={number + 1})")' if action == "materialize" else ""),
    )
)
PERMITS: Final[tuple[str, ...]] = tuple(
    f'permit (principal, action == Action::"{action}", resource) when {{ {condition} }};'
    for action, conditions in _CONDITIONS.items()
    for condition in conditions
)


def numbered(*rules: str) -> str:
    return "\n".join(f'@id("{number:03}") {rule}' for number, rule in enumerate(rules))


_NAMES: Final = ("health", "health/steward", "health/dpo", "research", "region-eu/care")
_MEMBERS: Final = ("clinic.example", "other.example", "third.example")


def _some(source: random.Random, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(source.sample(names, source.randrange(len(names))))


def any_request(source: random.Random) -> PolicyRequest:
    """A request with arbitrary facts; equal sources give equal requests."""

    def flag() -> bool:
        return source.random() < 0.5

    people = tuple(f"spiffe://{member}/operator/1" for member in _MEMBERS)
    return PolicyRequest(
        subject=f"spiffe://{source.choice(_MEMBERS)}/agent/{source.randrange(3)}",
        member=source.choice(_MEMBERS),
        kind=source.choice(("person", "agent", "automation")),
        classes=_some(source, _NAMES),
        class_parents={"research": "health", "health": "research"} if flag() else {},
        delegators=_some(source, people),
        asset=f"{source.choice(_MEMBERS)}/{source.choice(('released', 'pooled'))}",
        writer=source.choice(_MEMBERS),
        realm=source.choice(("production", "preview/x")),
        data_classes=_some(source, _NAMES),
        columns=tuple(
            ColumnFacts(f"c{number}", source.choice(("", "quasi_identifier")), named=flag())
            for number in range(source.randrange(6))
        ),
        items=source.randrange(1, 5),
        rows_by=source.choice(("", "inst")),
        context=ContextFacts(
            purpose=source.choice(("survival", "audit")),
            tier=source.randrange(4),
            fresh=flag(),
            weight=source.randrange(1_000_001),
            ticket=flag(),
            approvals=_some(source, _NAMES),
            input_classes=_some(source, _NAMES),
            input_marked=flag(),
            input_owners=_some(source, _MEMBERS),
            input_purposes=_some(source, ("survival", "audit")),
            input_tier_min=source.randrange(4),
            input_weight_min=source.randrange(1_000_001),
            reversible=flag(),
            solo=flag(),
            code_authors=_some(source, people),
            code_reviewers=_some(source, people),
        ),
    )


def digest_of_many() -> str:
    """One digest over the outcomes of many requests under several bundles."""
    source = random.Random(7)
    total = hashlib.sha256()
    bundles = [
        compile_rules(
            numbered(BASE.split(maxsplit=1)[1], *source.sample(FORBIDS, 12), *source.sample(PERMITS, 3))
        )
        for _ in range(6)
    ]
    for number in range(240):
        said = evaluate(bundles[number % len(bundles)], any_request(source))
        assert not isinstance(said, PolicyFault), said
        total.update(encode(said))
    return total.hexdigest()


if __name__ == "__main__":
    sys.stdout.write(f"{digest_of_many()}\n")
