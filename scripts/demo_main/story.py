"""What the demo tells while it runs, what it has observed, and the records and runs that it observed it by.

What holds in the end is for the audit to say (`auditing`).
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

WIDTH: Final = 110
INDENT: Final = "          "
CLAIMS: Final = (
    "homes_private",
    "executed",
    "restricted",
    "launched_by_daemon",
    "ticket_required",
    "second_run_refused",
    "staged_write_discarded",
    "held_run_released",
    "deferred_then_executed",
    "curves_equal",
    "owners_released",
    "agent_admitted",
    "agent_refused",
    "bundle_verified",
    "tampered_input_refused",
    "replayed_input_refused",
    "decided_with_one_member_down",
    "revocation_refused",
    "caught_up",
    "live_owner_deferred",
    "owner_back_executed",
    "held_then_executed",
    "rolled_back",
    "descendant_marked",
)
"""What has to be observed for the demo to succeed."""


@dataclass(slots=True)
class Phase:
    """One part of the demo: what it is about, how long it took, and what was seen."""

    name: str
    title: str
    seconds: float = 0.0
    said: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Proof:
    """The ids of the records and runs by which a claim was observed."""

    records: dict[str, str]
    runs: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return {"records": self.records, "runs": self.runs}


class Story:
    """Tells people what happens as it happens, and keeps what was claimed."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._began = time.monotonic()
        self.phases: list[Phase] = []
        self.claims: dict[str, bool] = {}
        self.proofs: dict[str, Proof] = {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def complete(self) -> bool:
        """Whether all that has to be observed was."""
        return all(self.claims.get(name, False) for name in CLAIMS)

    @contextmanager
    def phase(self, name: str, title: str) -> Generator[Phase]:
        """A part of the demo, from its heading to its end."""
        phase = Phase(name, title)
        self.phases.append(phase)
        print(f"{self.seconds:7.1f} s  {title}", file=self._out, flush=True)
        began = time.monotonic()
        try:
            yield phase
        finally:
            phase.seconds = time.monotonic() - began

    def show(self, command: str) -> None:
        """Show a command, in one line, to be copied."""
        print(f"{INDENT}    {command}", file=self._out, flush=True)

    def say(self, text: str) -> None:
        """Say what was just seen."""
        if self.phases:
            self.phases[-1].said.append(text)
        for line in textwrap.wrap(text, WIDTH - len(INDENT)):
            print(f"{INDENT}{line}", file=self._out, flush=True)

    def claim(
        self,
        name: str,
        seen: Mapping[str, bool],
        *,
        records: Mapping[str, str] | None = None,
        runs: Mapping[str, str] | None = None,
    ) -> None:
        """State that something was observed, which holds if all that had to be seen was seen.

        A claim that is stated several times holds if it held each time; the proofs are put together.
        """
        before = self.proofs.get(name, Proof({}, {}))
        self.claims[name] = self.claims.get(name, True) and all(seen.values())
        self.proofs[name] = Proof({**before.records, **(records or {})}, {**before.runs, **(runs or {})})
        unseen = [what for what, was_seen in seen.items() if not was_seen]
        if unseen:
            self.say(f"NOT OBSERVED: {name.replace('_', ' ')}: {'; '.join(unseen)}")

    def missing(self) -> Iterable[str]:
        """What was not observed."""
        return [name for name in CLAIMS if not self.claims.get(name, False)]
