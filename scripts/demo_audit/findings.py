"""What the audit finds of one claim."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from comity.protocol.errors import ComityError
from demo_audit.artefacts import AuditError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at for a claim, and by which records and runs it is shown.

    Attributes:
        seen: what had to be seen, and whether it was.
        problem: why it could not be looked at, empty where it could.
    """

    seen: Mapping[str, bool]
    records: Mapping[str, str] = field(default_factory=dict[str, str])
    runs: Mapping[str, str] = field(default_factory=dict[str, str])
    problem: str = ""

    @property
    def holds(self) -> bool:
        return bool(self.seen) and all(self.seen.values()) and not self.problem

    @property
    def unseen(self) -> list[str]:
        return [what for what, was_seen in self.seen.items() if not was_seen]


def together(findings: Iterable[Finding]) -> Finding:
    """Several findings that all have to hold."""
    seen: dict[str, bool] = {}
    records: dict[str, str] = {}
    runs: dict[str, str] = {}
    for finding in findings:
        for what, was_seen in finding.seen.items():
            seen[what] = seen.get(what, True) and was_seen
        records |= finding.records
        runs |= finding.runs
    return Finding(seen, records, runs)


def any_of(candidates: Iterable[T], look: Callable[[T], Finding]) -> Finding:
    """The first finding that holds, otherwise the first: an event log may have several runs that fit.

    Raises:
        AuditError: there is no candidate.
    """
    first: Finding | None = None
    for candidate in candidates:
        try:
            finding = look(candidate)
        except ComityError as exc:
            finding = Finding({}, problem=str(exc))
        if finding.holds:
            return finding
        first = first or finding
    if first is None:
        raise AuditError("the event logs and stores hold nothing that could show it")
    return first
