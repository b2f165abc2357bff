"""What would be decided, and what would help: the judgement itself, repeated under suppositions.

A lift is a set of needs of which nothing can be left out and under which, supposing them met, no class of the
intent is deferred any more. Each is confirmed by judging again; nothing is concluded from rules' texts.

Spec: docs/spec/judgement.md section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from comity.attestation.case import Case, Fault, Grants, Judgement
from comity.attestation.judgement import judge
from comity.protocol.encoding import encode
from comity.protocol.limits import LIFT_SEARCH_MAX, LIFT_SET_MAX
from comity.protocol.outcome import Mode, Need, union

_TIERS: Final = range(1, 4)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an ask would be answered with, and how a deferral could be lifted.

    Attributes:
        judgement: of the case as it is.
        lifts: minimal sets of needs, the smallest first; empty where nothing defers, or nothing that can be
            supposed would help.
        complete: whether all sets of up to `LIFT_SET_MAX` needs were looked at within `LIFT_SEARCH_MAX`
            judgements.
    """

    judgement: Judgement | Fault
    lifts: tuple[tuple[Need, ...], ...] = ()
    complete: bool = True


def explain(case: Case) -> Explanation:
    """Judge a case, and find the smallest sets of needs that would lift its deferral.

    What the case supposes already is supposed throughout.
    """
    judgement = judge(case)
    if isinstance(judgement, Fault) or not _deferred(judgement):
        return Explanation(judgement)
    search = _Search(case, _deferred(judgement))
    search.meet(judgement)
    search.run()
    return Explanation(judgement, tuple(search.lifts), complete=not search.exhausted)


def _deferred(judgement: Judgement) -> tuple[int, ...]:
    """The classes that are deferred, by their index."""
    return tuple(i for i, each in enumerate(judgement.classes) if each.outcome.mode is Mode.DEFER)


class _Search:
    """Sets of needs by size, and among equals in the order of their bytes: every peer finds the same ones."""

    def __init__(self, case: Case, deferred: tuple[int, ...]) -> None:
        self.lifts: list[tuple[Need, ...]] = []
        self.exhausted = False
        self._case = case
        self._deferred = deferred
        self._known: tuple[Need, ...] = ()
        self._tried: set[frozenset[bytes]] = set()

    def meet(self, judgement: Judgement) -> None:
        """Learn the needs of a judgement: to meet one need may bring up another."""
        named = union(*(each.outcome.needs for each in judgement.classes))
        self._known = union(self._known, tuple(need for need in named if grant(need) is not None))

    def run(self) -> None:
        size = 1
        while size <= LIFT_SET_MAX:
            before = self._known
            for chosen in combinations(before, size):
                if not self._consider(chosen):
                    return
            # New needs have smaller sets, too, that were not looked at.
            size = 1 if self._known != before else size + 1

    def _consider(self, chosen: tuple[Need, ...]) -> bool:
        """Look at one set, once. Returns whether the search may go on."""
        key = frozenset(encode(need) for need in chosen)
        if key in self._tried or any({encode(n) for n in lift} <= key for lift in self.lifts):
            return True
        if len(self._tried) == LIFT_SEARCH_MAX - 1:
            # The first judgement is one of them.
            self.exhausted = True
            return False
        self._tried.add(key)
        judgement = judge(replace(self._case, granted=both(self._case.granted, supposing(chosen))))
        if isinstance(judgement, Fault):
            return True
        if all(judgement.classes[i].outcome.mode.rank >= Mode.RESTRICT.rank for i in self._deferred):
            self._keep(chosen, key)
        else:
            self.meet(judgement)
        return True

    def _keep(self, chosen: tuple[Need, ...], key: frozenset[bytes]) -> None:
        """Keep a lift, and drop those that it makes superfluous."""
        self.lifts = [lift for lift in self.lifts if not key <= {encode(need) for need in lift}]
        self.lifts.append(chosen)
        self.lifts.sort(key=lambda lift: (len(lift), [encode(need) for need in lift]))


def grant(need: Need) -> Grants | None:
    """The supposition that meets a need; None for what cannot be supposed (a record, an owner's vote)."""
    parameters = need.parameters
    match need.code:
        case "approval" if isinstance(parameters.get("class"), str):
            return Grants(approvals=frozenset({str(parameters["class"])}))
        case "tier" if parameters.get("at_least") in _TIERS:
            return Grants(tier=int(parameters["at_least"]))
        case "corroboration":
            return Grants(weight=True)
        case "launch_ticket":
            return Grants(ticket=True)
        case "transition" if parameters.get("type") == "trust" and "member" in parameters:
            return Grants(trust=frozenset({str(parameters["member"])}))
        case _:
            return None


def supposing(needs: Iterable[Need]) -> Grants:
    """All of these needs met."""
    supposed = Grants()
    for need in needs:
        granted = grant(need)
        if granted is not None:
            supposed = both(supposed, granted)
    return supposed


def both(one: Grants, other: Grants) -> Grants:
    """What either supposes."""
    return Grants(
        approvals=one.approvals | other.approvals,
        tier=max(one.tier, other.tier),
        weight=one.weight or other.weight,
        ticket=one.ticket or other.ticket,
        trust=one.trust | other.trust,
    )
