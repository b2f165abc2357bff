"""How a decision about a run looks in Dagster: tags while it waits, and a table in its log when it is decided.

A run in the queue shows no log, only its tags; so those say for what it waits. The log has everything: each member's
vote on each step, and each cause with what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import dagster as dg

from comity.dagster_bridge.failures import CAUSES, INTENT, NEEDS, OUTCOME, Metadata, term_values
from comity.dagster_bridge.launch_decision import Decision, Said
from comity.node.client import ExplainAnswer, TermForm

HOLD_TAG: Final = "comity/hold"
HELD: Final = "held"
RELEASED: Final = "released"
"""Dagster can overwrite a tag and take none away: a run that waits no more says that it was released."""
HELD_SINCE_TAG: Final = "comity/held_since"
ASKED_AT_TAG: Final = "comity/asked_at"
OUTCOME_TAG: Final = "comity/outcome"
REASON_TAG: Final = "comity/reason"
NEEDS_TAG: Final = "comity/needs"
INTENT_TAG: Final = "comity/intent"
LAUNCH_TAG: Final = "comity/launch"
"""How far the launch of a run is: a process that ends in the middle leaves a run about which this says what to do."""
NARROWED_TAG: Final = "comity/narrowed_to"
"""The runs that make what was permitted of this one."""

_CAUSE_COLUMNS: Final = ("step", "outcome", "code", "rule", "meaning")

TAG_CHARACTERS_MAX: Final = 1_024
"""Of a tag: what a list of runs can show, and more."""
ROWS_MAX: Final = 512
"""Rows of a table in the log. A run of more steps and members says in words that there are more."""


def hold_tags(decision: Decision, since: str) -> dict[str, str]:
    """What a run that waits says of itself."""
    needs = decision.needs()
    causes = decision.terms()
    intents = sorted({each.intent for each in decision.said if _waits(each)})
    return {
        HOLD_TAG: HELD,
        HELD_SINCE_TAG: since,
        OUTCOME_TAG: "defer",
        REASON_TAG: _cut(", ".join(dict.fromkeys(term.code for term in causes)) or "undecided"),
        NEEDS_TAG: _cut(
            "; ".join(_words(term) for term in needs) or "; ".join(_words(term) for term in causes)
        ),
        INTENT_TAG: _cut(", ".join(intents)),
    }


def decided_tags(decision: Decision) -> dict[str, str]:
    """What a run says of itself once it is decided."""
    said = {OUTCOME_TAG: decision.outcome}
    causes = decision.terms()
    if decision.word in ("narrow", "refuse"):
        said[REASON_TAG] = _cut(", ".join(dict.fromkeys(term.code for term in causes)))
    return said


def words_of(decision: Decision) -> str:
    """What becomes of a run, in one sentence."""
    causes = "; ".join(_words(term) for term in decision.terms()[:8])
    needs = "; ".join(_words(term) for term in decision.needs()[:8])
    match decision.word:
        case "proceed":
            return "Comity: permitted"
        case "narrow":
            return f"Comity: permitted in part: {causes}"
        case "hold":
            return f"Comity: held; it needs: {needs or causes}"
        case "refuse":
            return f"Comity: refused: {causes}"


def table_of(decision: Decision) -> Metadata:
    """Everything about a decision: votes and causes as tables, and the same for programs."""
    metadata: Metadata = {
        OUTCOME: dg.MetadataValue.text(decision.outcome),
        CAUSES: dg.MetadataValue.json(term_values(decision.terms())),
        NEEDS: dg.MetadataValue.json(term_values(decision.needs())),
        INTENT: dg.MetadataValue.json({each.unit: each.intent for each in decision.said if each.intent}),
    }
    votes = list(_votes(decision.said))
    if votes:
        metadata["comity/votes"] = _table(("step", "member", "vote"), votes)
    causes = list(_causes(decision))
    if causes:
        metadata["comity/table"] = _table(_CAUSE_COLUMNS, causes)
    return metadata


def _votes(said: Iterable[Said]) -> Iterable[dict[str, str]]:
    for each in said:
        if isinstance(each.answer, ExplainAnswer):
            continue
        for member, vote in sorted(each.answer.votes.items()):
            yield {"step": each.unit, "member": member, "vote": vote}


def _causes(decision: Decision) -> Iterable[dict[str, str]]:
    for term in decision.causes:
        yield _row("", decision.outcome, term)
    for each in decision.said:
        outcome = f"{each.answer.outcome} (foreseen)" if each.foreseen else each.answer.outcome
        terms = [*each.answer.causes, *(t for t in each.answer.needs if t not in each.answer.causes)]
        for term in terms:
            yield _row(each.unit, outcome, term)
        if not terms:
            yield _row(each.unit, outcome, None)


def _row(step: str, outcome: str, term: TermForm | None) -> dict[str, str]:
    said = ("", "", "") if term is None else (term.code, term.rule, _words(term))
    return dict(zip(_CAUSE_COLUMNS, (step, outcome, *said), strict=True))


def _table(columns: tuple[str, ...], rows: list[dict[str, str]]) -> dg.MetadataValue[Any]:
    shown = rows[:ROWS_MAX]
    if len(rows) > ROWS_MAX:
        shown.append(dict.fromkeys(columns, "") | {columns[0]: f"and {len(rows) - ROWS_MAX} more"})
    records = [dg.TableRecord(dict(row)) for row in shown]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in columns])
    return dg.MetadataValue.table(records, schema)


def _waits(each: Said) -> bool:
    return bool(each.intent) and each.answer.outcome in ("defer", "held")


def _words(term: TermForm) -> str:
    if term.message:
        return term.message
    inside: Mapping[str, object] = term.parameters
    listed = ", ".join(f"{name}={value}" for name, value in sorted(inside.items()))
    return f"{term.code}({listed})" if listed else term.code


def _cut(text: str) -> str:
    return text if len(text) <= TAG_CHARACTERS_MAX else f"{text[: TAG_CHARACTERS_MAX - 3]}..."
