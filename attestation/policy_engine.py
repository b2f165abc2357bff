"""The evaluation of one bundle's rules for one class of items: from facts to an outcome.

The Cedar engine says which rules are satisfied; what they amount to is computed here, as the meet of what
each of them allows (law 6). Nothing is admitted without a satisfied `permit`, and whatever goes wrong in the
engine is a fault, on which a voter abstains, and never an outcome (law 4). There is no clock: the same rules
and the same facts give the same outcome, to the byte, in every process.

Spec: docs/spec/policy.md sections 3 and 6.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import cedarpy
import msgspec

from comity.attestation.policy_guard import (
    STACK_BYTES,
    EngineError,
    adopt_deep_stack,
    engine_call,
    on_deep_stack,
)
from comity.attestation.policy_rules import CompiledRules, Rule, Slice
from comity.protocol.errors import LocalProtocolError
from comity.protocol.limits import (
    CHAIN_MAX,
    COLUMNS_MAX,
    ITEMS_MAX,
    NAME_BYTES_MAX,
    OWNERS_MAX,
    RELIED_MAX,
)
from comity.protocol.outcome import (
    Cause,
    Extent,
    Mode,
    Need,
    Obligation,
    Outcome,
    Parameter,
    full_extent,
    normal,
    ranges_of,
    union,
)

__all__ = [
    "COLUMN_GROUPS_MAX",
    "ENGINE",
    "STACK_BYTES",
    "ColumnFacts",
    "ContextFacts",
    "PolicyFault",
    "PolicyRequest",
    "adopt_deep_stack",
    "classes_above",
    "evaluate",
    "on_deep_stack",
]

_cedarpy: Any = cedarpy
"""Some of its annotations are dicts of nobody knows what, which a strict check refuses."""

ENGINE: Final = "4.12"
"""The release of Cedar whose verdicts these are. Another one abstains: it may differ where nobody looked."""
COLUMN_GROUPS_MAX: Final = 32
"""Kinds of column in one class of items, each an evaluation. The costliest text that compiles takes about
15 ms per evaluation."""
SETS_MAX: Final = RELIED_MAX * OWNERS_MAX
"""Members of one set of facts: as many as all records that an ask relies on can name."""
CAUSE_COLUMNS_CHARS_MAX: Final = 200
"""Names of columns in one cause, in characters: a vote has 4 kB for everything."""
ENTITIES_KEPT_MAX: Final = 64
"""Entities that are kept for the next evaluation: a dry run asks many times about the same ones."""

_KINDS: Final = frozenset({"person", "agent", "automation"})
_PPM_MAX: Final = 1_000_000
_TIER_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """There is no verdict: the engine failed, or a rule could not be evaluated. Who judges abstains.

    Attributes:
        code: `policy_rule_error`, `policy_no_decision`, `policy_stack`, `policy_engine_failed`,
            `policy_engine_unknown` or `policy_stack_missing`.
        detail: for a person. It depends on the release of the engine, so nothing may be derived from it.
    """

    code: str
    detail: str = field(default="", compare=False)


def _check(holds: bool, what: str) -> None:  # noqa: FBT001  # an assertion that is never left out
    if not holds:
        raise LocalProtocolError(f"a policy request with {what}")


def _check_names(what: str, names: Iterable[object], names_max: int = SETS_MAX) -> None:
    count = 0
    for name in names:
        count += 1
        _check(type(name) is str and len(name) <= NAME_BYTES_MAX, f"`{what}` of no name")
    _check(count <= names_max, f"more than {names_max} `{what}`")


def _check_int(what: str, value: object, most: int) -> None:
    _check(type(value) is int and 0 <= value <= most, f"`{what}` of {value!r}")


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """A declared column of the output.

    Attributes:
        column_class: what the bundle classes it as; empty where it does not.
        named: the purpose names it as needed.
    """

    name: str
    column_class: str = ""
    named: bool = False

    def __post_init__(self) -> None:
        _check_names("column", (self.name, self.column_class))
        _check(type(self.named) is bool, "`named` of no truth value")


@dataclass(frozen=True, slots=True)
class ContextFacts:
    """What rules read as `context`, but for the numbers of items and columns.

    Attributes:
        tier: 0 to 3. Without inputs `input_tier_min` is 3.
        weight: parts per million. Without inputs `input_weight_min` is 1,000,000.
        approvals: authority classes of the approvals that count.
        code_authors, code_reviewers: SPIFFE ids, by the requester's word.
    """

    purpose: str
    tier: int
    fresh: bool
    weight: int
    ticket: bool
    approvals: tuple[str, ...] = ()
    input_classes: tuple[str, ...] = ()
    input_marked: bool = False
    input_owners: tuple[str, ...] = ()
    input_purposes: tuple[str, ...] = ()
    input_tier_min: int = _TIER_MAX
    input_weight_min: int = _PPM_MAX
    reversible: bool = False
    solo: bool = False
    code_authors: tuple[str, ...] = ()
    code_reviewers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_names("purpose", (self.purpose,))
        _check_int("tier", self.tier, _TIER_MAX)
        _check_int("weight", self.weight, _PPM_MAX)
        _check_int("input_tier_min", self.input_tier_min, _TIER_MAX)
        _check_int("input_weight_min", self.input_weight_min, _PPM_MAX)
        for value in (self.fresh, self.ticket, self.reversible, self.solo, self.input_marked):
            _check(type(value) is bool, "a truth value that is none")
        _check_names("approvals", self.approvals)
        _check_names("input_classes", self.input_classes)
        _check_names("input_owners", self.input_owners)
        _check_names("input_purposes", self.input_purposes)
        _check_names("code_authors", self.code_authors)
        _check_names("code_reviewers", self.code_reviewers)


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """The facts about one class of items.

    Attributes:
        subject: SPIFFE id of who acts; `member` is its organization, `kind` is person, agent or automation.
        classes: the authority classes that its credential carries.
        class_parents: the class that a published authority class lies within, beside its path.
        asset: asset id of the output; `writer` is the organization that writes it.
        data_classes: the classes that the asset is in.
        columns: declared columns, in the order of the intent; extents index them.
        items: how many items the class has; extents index them.
        rows_by: the column that partitions the asset's rows, or empty.
        delegators: SPIFFE ids of those above the subject in its chain, its own delegator first.

    Raises:
        LocalProtocolError: a fact of another type, or beyond its bound.
    """

    subject: str
    member: str
    kind: str
    asset: str
    writer: str
    realm: str
    context: ContextFacts
    classes: tuple[str, ...] = ()
    class_parents: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    data_classes: tuple[str, ...] = ()
    columns: tuple[ColumnFacts, ...] = ()
    items: int = 1
    rows_by: str = ""
    delegators: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_names("name", (self.subject, self.member, self.asset, self.writer, self.realm, self.rows_by))
        _check(self.kind in _KINDS, f"`kind` of {self.kind!r}")
        _check_names("classes", self.classes)
        _check_names("class_parents", self.class_parents.keys())
        _check_names("class_parents", self.class_parents.values())
        _check_names("data_classes", self.data_classes)
        _check_names("delegators", self.delegators, CHAIN_MAX)
        _check_int("items", self.items, ITEMS_MAX)
        _check(self.items >= 1, "no item")
        _check(len(self.columns) <= COLUMNS_MAX, f"more than {COLUMNS_MAX} columns")


def classes_above(names: Iterable[str], parents: Mapping[str, str]) -> list[str]:
    """The classes and all that they lie within, sorted: by path (`a/b` lies within `a`), and as given."""
    found: set[str] = set()
    wanted = [name for name in names if name]
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found.add(name)
        above, slash, _ = name.rpartition("/")
        if slash:
            wanted.append(above)
        if name in parents:
            wanted.append(parents[name])
    return sorted(found)


def evaluate(rules: CompiledRules, request: PolicyRequest) -> Outcome | PolicyFault:
    """What one bundle says of one class of items.

    The extent indexes the request's items and columns. A fault says nothing of the class. An evaluation takes
    some 0.3 ms, so a dry run can repeat it with facts supposed.
    """
    try:
        return on_deep_stack(lambda: engine_call(lambda: _Evaluation(rules, request).outcome()))
    except EngineError as exc:
        return PolicyFault(exc.code, exc.detail)


# What the engine is told

_FACTS: Final[Mapping[str, Callable[[PolicyRequest], Any]]] = MappingProxyType(
    {
        "approvals": lambda r: classes_above(r.context.approvals, r.class_parents),
        "code_authors": lambda r: sorted(r.context.code_authors),
        "code_reviewers": lambda r: sorted(r.context.code_reviewers),
        "columns": lambda r: len(r.columns),
        "fresh": lambda r: r.context.fresh,
        "input_classes": lambda r: classes_above(r.context.input_classes, {}),
        "input_marked": lambda r: r.context.input_marked,
        "input_owners": lambda r: sorted(r.context.input_owners),
        "input_purposes": lambda r: sorted(r.context.input_purposes),
        "input_tier_min": lambda r: r.context.input_tier_min,
        "input_weight_min": lambda r: r.context.input_weight_min,
        "items": lambda r: r.items,
        "purpose": lambda r: r.context.purpose,
        "reversible": lambda r: r.context.reversible,
        "solo": lambda r: r.context.solo,
        "ticket": lambda r: r.context.ticket,
        "tier": lambda r: r.context.tier,
        "weight": lambda r: r.context.weight,
    }
)

_json = msgspec.json.Encoder()
_Group: TypeAlias = tuple[str, bool]


def context_json(request: PolicyRequest, facts: Iterable[str]) -> str:
    """The context with the given attributes. Reading it costs more than most rules, so it has no others."""
    return _json.encode({name: _FACTS[name](request) for name in facts}).decode()


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def entities_json(request: PolicyRequest, groups: Iterable[_Group], attributes: Container[str]) -> str:
    """The subject, the asset, and one column for each group by its position, with the given attributes."""
    asset = _uid("Asset", request.asset)
    entities: list[tuple[dict[str, str], dict[str, Any], list[dict[str, str]]]] = [
        (
            _uid("Subject", request.subject),
            {
                "member": request.member,
                "kind": request.kind,
                "depth": len(request.delegators),
                "delegators": sorted(request.delegators),
            },
            [_uid("AuthorityClass", name) for name in classes_above(request.classes, request.class_parents)],
        ),
        (
            asset,
            {"writer": request.writer, "realm": request.realm, "name": request.asset},
            [_uid("DataClass", name) for name in classes_above(request.data_classes, {})],
        ),
        *(
            (
                _uid("Column", str(position)),
                {"column_class": column_class, "named": named, "asset": {"__entity": asset}},
                [asset],
            )
            for position, (column_class, named) in enumerate(groups)
        ),
    ]
    return _json.encode(
        [
            {"uid": uid, "attrs": {k: v for k, v in facts.items() if k in attributes}, "parents": parents}
            for uid, facts, parents in entities
        ]
    ).decode()


@functools.lru_cache(maxsize=ENTITIES_KEPT_MAX)
def _entities(text: str) -> cedarpy.Entities:
    entities: cedarpy.Entities = _cedarpy.Entities.from_json_str(text)
    return entities


@functools.cache
def _release() -> str:
    return metadata.version("cedarpy")


def engine_problem(release: str) -> EngineError | None:
    """Why a release of the engine may not be asked, or None."""
    if release.startswith(f"{ENGINE}."):
        return None
    return EngineError("policy_engine_unknown", f"Cedar {release} where {ENGINE} is wanted")


# What its answers amount to


@dataclass(slots=True)
class _Findings:
    """What the satisfied rules do to the outcome, in the making."""

    mode: Mode = Mode.EXECUTE
    rules: dict[str, tuple[Rule, set[int]]] = field(default_factory=dict[str, tuple[Rule, set[int]]])
    uncovered: set[int] = field(default_factory=set[int])
    excluded: set[int] = field(default_factory=set[int])
    needs: list[Need] = field(default_factory=list[Need])
    obligations: list[Obligation] = field(default_factory=list[Obligation])
    causes: list[Cause] = field(default_factory=list[Cause])

    def lower(self, mode: Mode) -> None:
        if mode.rank < self.mode.rank:
            self.mode = mode

    def add(self, rule: Rule, columns: Iterable[int]) -> None:
        """A satisfied forbid, on some columns or on the class as a whole."""
        known = self.rules.get(rule.id)
        if known is None:
            known = self.rules[rule.id] = (rule, set())
            self.needs.extend(rule.effects.needs)
            self.lower(rule.effects.mode)
        known[1].update(columns)


class _Evaluation:
    """One evaluation. Runs on a deep stack."""

    def __init__(self, rules: CompiledRules, request: PolicyRequest) -> None:
        self._rules = rules
        self._request = request
        self._full = full_extent(request.items, len(request.columns))
        self._entities: cedarpy.Entities | None = None
        self._groups: dict[_Group, list[int]] = {}
        for index, column in enumerate(request.columns):
            self._groups.setdefault((column.column_class, column.named), []).append(index)

    def outcome(self) -> Outcome:
        problem = engine_problem(_release())
        if problem is not None:
            raise problem
        count = len(self._groups)
        if count > COLUMN_GROUPS_MAX:
            parameters: dict[str, Parameter] = {"groups": count, "groups_max": COLUMN_GROUPS_MAX}
            cause = Cause(code="column_groups_many", parameters=parameters)
            return Outcome(mode=Mode.REFUSE, extent=self._full, causes=(cause,))
        findings = _Findings()
        self._judge_whole(findings)
        if self._groups:
            self._judge_columns(findings)
        return self._conclude(findings)

    def _judge_whole(self, findings: _Findings) -> None:
        (satisfied,) = self._satisfied(
            self._rules.materialize, "materialize", [_uid("Asset", self._request.asset)]
        )
        if not any(rule.effect == "permit" for rule in satisfied):
            findings.lower(Mode.REFUSE)
            findings.causes.append(Cause(code="no_authority"))
        for rule in satisfied:
            if rule.effect == "forbid":
                findings.add(rule, ())
                self._oblige(rule, findings)

    def _judge_columns(self, findings: _Findings) -> None:
        columns = [_uid("Column", str(position)) for position in range(len(self._groups))]
        answers = self._satisfied(self._rules.include, "include", columns)
        for indices, satisfied in zip(self._groups.values(), answers, strict=True):
            if not any(rule.effect == "permit" for rule in satisfied):
                findings.uncovered.update(indices)
                findings.excluded.update(indices)
            for rule in satisfied:
                if rule.effect == "forbid":
                    findings.add(rule, indices)
                    if rule.effects.mode is Mode.RESTRICT:
                        findings.excluded.update(indices)

    def _oblige(self, rule: Rule, findings: _Findings) -> None:
        for obligation in rule.effects.obliges:
            if obligation.code != "min_group_rows" or "column" in obligation.parameters:
                findings.obligations.append(obligation)
            elif self._request.rows_by:
                parameters = {**obligation.parameters, "column": self._request.rows_by}
                findings.obligations.append(Obligation(code=obligation.code, parameters=parameters))
            else:
                # What cannot be narrowed as the rule asks is not written at all.
                findings.lower(Mode.REFUSE)
                findings.causes.append(Cause(code="rows_by_missing", rule=rule.id))

    def _conclude(self, findings: _Findings) -> Outcome:
        causes = findings.causes
        if findings.uncovered:
            causes.append(Cause(code="no_authority", parameters=self._named(findings.uncovered)))
        for rule, indices in findings.rules.values():
            parameters = self._named(indices)
            causes.append(Cause(code=rule.effects.reason, rule=rule.id, parameters=parameters))
        extent = self._full
        if findings.excluded:
            kept = set(range(len(self._request.columns))) - findings.excluded
            extent = Extent(items=extent.items, columns=ranges_of(kept))
            findings.lower(Mode.RESTRICT)
        outcome = Outcome(
            mode=findings.mode,
            extent=extent,
            obligations=union(tuple(findings.obligations)),
            needs=union(tuple(findings.needs)),
            causes=union(tuple(causes)),
        )
        return normal(outcome, self._full)

    def _named(self, indices: set[int]) -> dict[str, Parameter]:
        """The columns that a cause is about: as many names as fit, then how many more there are."""
        names: list[str] = []
        length = -1
        for index in sorted(indices):
            name = self._request.columns[index].name
            length += 1 + len(name)
            if length > CAUSE_COLUMNS_CHARS_MAX:
                break
            names.append(name)
        parameters: dict[str, Parameter] = {"columns": ",".join(names)} if names else {}
        if len(names) < len(indices):
            parameters["columns_more"] = len(indices) - len(names)
        return parameters

    def _satisfied(self, part: Slice, action: str, resources: list[dict[str, str]]) -> list[tuple[Rule, ...]]:
        """The rules that each of the resources satisfies."""
        if part.policies is None:
            return [part.rules for _ in resources]
        context = context_json(self._request, part.facts)
        principal, verb = _uid("Subject", self._request.subject), _uid("Action", action)
        requests = [
            {"principal": principal, "action": verb, "resource": resource, "context": context}
            for resource in resources
        ]
        if self._entities is None:
            # Of columns only if they are asked about; then for both actions, for reading them takes a while.
            groups = self._groups if self._rules.include.policies is not None else ()
            self._entities = _entities(entities_json(self._request, groups, self._rules.attributes))
        answers = _cedarpy.is_authorized_batch(requests, part.policies, self._entities)
        if len(answers) != len(resources):
            raise EngineError("policy_no_decision", f"{len(answers)} answers to {len(resources)} questions")
        return [_read(part, answer) for answer in answers]


def _read(part: Slice, answer: Any) -> tuple[Rule, ...]:
    """The rules that an `AuthzResult` names, in the order of the text. Its own order changes with the run."""
    diagnostics = answer.diagnostics
    if diagnostics.errors:
        # The engine skips a rule that errs, and decides without it: a forbid that errs would permit.
        detail = "; ".join(sorted(diagnostics.errors))
        raise EngineError("policy_stack" if "recursion limit" in detail else "policy_rule_error", detail)
    reasons = diagnostics.reasons
    if answer.decision is not (cedarpy.Decision.Allow if reasons else cedarpy.Decision.Deny):
        raise EngineError("policy_no_decision", answer.decision.value)
    ids: dict[str, str] = answer.diagnostics.id_annotations_by_reason
    positions = sorted(int(reason.removeprefix("policy")) for reason in reasons)
    satisfied = tuple(part.rules[position] for position in positions)
    if [rule.id for rule in satisfied] != [ids[f"policy{position}"] for position in positions]:
        raise EngineError("policy_engine_failed", "the engine knows the rules by other positions")
    return satisfied
