"""What a step of the judgement found: causes with the mode that they force, and needs that would lift them.

Spec: docs/spec/causes.md lists every code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from comity.protocol.outcome import Cause, Extent, Mode, Need, Outcome, Parameter, normal, union


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason why an outcome is less than *execute*."""

    mode: Mode
    cause: Cause
    needs: tuple[Need, ...] = ()


def short(record_id: bytes) -> str:
    """A record id as a parameter: the first 16 hex digits."""
    return record_id.hex()[:16]


def refuse(code: str, **parameters: Parameter) -> Finding:
    return Finding(Mode.REFUSE, Cause(code=code, parameters=parameters))


def defer(code: str, need: Need, **parameters: Parameter) -> Finding:
    return Finding(Mode.DEFER, Cause(code=code, parameters=parameters), (need,))


@dataclass(slots=True)
class Findings:
    """The findings of one class of items, in the making."""

    found: list[Finding] = field(default_factory=list[Finding])

    def add(self, *findings: Finding | None) -> None:
        self.found.extend(finding for finding in findings if finding is not None)

    def extend(self, findings: Iterable[Finding]) -> None:
        self.found.extend(findings)

    def outcome(self, full: Extent) -> Outcome:
        """The meet of all of them with *execute*."""
        mode = min((f.mode for f in self.found), key=lambda m: m.rank, default=Mode.EXECUTE)
        return normal(
            Outcome(
                mode=mode,
                extent=full,
                needs=union(*(f.needs for f in self.found)),
                causes=union(*((f.cause,) for f in self.found)),
            ),
            full,
        )
