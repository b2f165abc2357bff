"""What a node's answer means for a run: it goes on, in part, later, or not at all.

Nothing of Dagster's instance is here: from facts and an answer to one of four words, and what people are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from comity.node.client import ExplainAnswer, LaunchAnswer, PermittedOutput, StepAnswer, TermForm

if TYPE_CHECKING:
    from comity.dagster_bridge.launch_facts import LaunchFacts, Slot, Unit

Word: TypeAlias = Literal["proceed", "narrow", "hold", "refuse"]

_UNDECIDED: Final = frozenset({"defer", "held"})
_PERMITTED: Final = frozenset({"execute", "restrict"})


@dataclass(frozen=True, slots=True)
class Said:
    """What is known of one unit of work. `foreseen`: by a dry run here, before what it reads is made."""

    unit: str
    answer: StepAnswer | ExplainAnswer

    @property
    def foreseen(self) -> bool:
        return isinstance(self.answer, ExplainAnswer)

    @property
    def intent(self) -> str:
        """The intent that was filed; empty where none was."""
        return "" if isinstance(self.answer, ExplainAnswer) else self.answer.intent


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a run.

    Attributes:
        slots: where it is narrowed, what may be made: assets by name with their partitions.
        said: of each unit what the node said.
        causes: what speaks against the run as a whole, where no unit says it.
    """

    word: Word
    said: tuple[Said, ...] = ()
    slots: frozenset[Slot] = frozenset()
    causes: tuple[TermForm, ...] = field(default=())

    @property
    def outcome(self) -> str:
        """The outcome in the words of a vote."""
        words: Mapping[Word, str] = {
            "proceed": "execute",
            "narrow": "restrict",
            "hold": "defer",
            "refuse": "refuse",
        }
        return words[self.word]

    def terms(self) -> list[TermForm]:
        """The causes of all units and of the run, each once."""
        return _each_once((*self.causes, *(cause for each in self.said for cause in each.answer.causes)))

    def needs(self) -> list[TermForm]:
        return _each_once(
            need for each in self.said if each.answer.outcome in _UNDECIDED for need in each.answer.needs
        )


def held(cause: TermForm) -> Decision:
    """Nobody could be asked: the run waits."""
    return Decision("hold", causes=(cause,))


def refused(cause: TermForm) -> Decision:
    return Decision("refuse", causes=(cause,))


def decide(facts: LaunchFacts, answer: LaunchAnswer) -> Decision:
    """From what the node said of each unit to what becomes of the run.

    It waits as long as anything that can be asked for now is undecided. What is refused, now or foreseeably, is left
    out, with all that would read it; a deferral that is only foreseen keeps nothing back, for what is made meanwhile
    may lift it.
    """
    now = {unit.name: said for unit, said in zip(facts.now, answer.steps, strict=True)}
    later = {unit.name: said for unit, said in zip(facts.later, answer.later, strict=True)}
    said = tuple(
        Said(unit.name, now[unit.name] if unit.name in now else later[unit.name])
        for unit in facts.units
        if unit.name in now or unit.name in later
    )
    if any(each.outcome in _UNDECIDED for each in now.values()):
        return Decision("hold", said)
    everything = frozenset((out.asset, out.partition) for unit in facts.units for out in unit.outputs)
    permitted: set[Slot] = set()
    for unit in facts.units:
        if unit.name in now:
            permitted |= _permitted(unit, now[unit.name])
        else:
            permitted |= _foreseen(unit, later.get(unit.name), permitted)
    if everything <= permitted:
        return Decision("proceed", said)
    if not permitted:
        return Decision("refuse", said)
    return Decision("narrow", said, frozenset(permitted))


def _slots(unit: Unit) -> frozenset[Slot]:
    return frozenset((out.asset, out.partition) for out in unit.outputs)


def _permitted(unit: Unit, answer: StepAnswer) -> frozenset[Slot]:
    if answer.outcome == "ungoverned":
        return _slots(unit)
    if answer.outcome not in _PERMITTED:
        return frozenset()
    listed = {_slot(output) for output in answer.outputs if output.mode in _PERMITTED}
    return _slots(unit) & listed


def _foreseen(unit: Unit, answer: ExplainAnswer | None, permitted: set[Slot]) -> frozenset[Slot]:
    """What of a later unit is worth beginning: all that is not refused already and has what it reads."""
    if not unit.inside <= permitted:
        return frozenset()
    if answer is not None and answer.outcome == "refuse":
        return frozenset()
    return _slots(unit)


def _slot(output: PermittedOutput) -> Slot:
    """A permitted output in the words of a form: the own assets without the member."""
    return output.asset.partition("/")[2], output.partition


def _each_once(terms: Iterable[TermForm]) -> list[TermForm]:
    found: list[TermForm] = []
    for term in terms:
        if term not in found:
            found.append(term)
    return found
