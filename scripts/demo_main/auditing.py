"""The audit of what the demo left: a program of its own, and whether it agrees with what the demo saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

AUDIT_S: Final = 180.0
"""Some five seconds of work, on a slow machine with everything else going on."""
NEGATIVE: Final = 1
"""The audit's exit status where a claim does not hold; every other but 0 says that it was not made."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What the audit says. `claims` is empty where it was not made, and `problem` then says why."""

    claims: Mapping[str, bool] = field(default_factory=dict[str, bool])
    proof: Mapping[str, Any] = field(default_factory=dict[str, Any])
    problem: str = ""

    def disagreements(self, observed: Mapping[str, bool]) -> list[str]:
        """Claims that the demo has observed and the audit does not find, or the other way round; in words."""
        if self.problem:
            return []
        found: list[str] = []
        for name in sorted({*observed, *self.claims}):
            seen, shown = observed.get(name, False), self.claims.get(name, False)
            if seen != shown:
                proof: Mapping[str, Any] = self.proof.get(name, {})
                missing = [what for what, was_seen in proof.get("seen", {}).items() if not was_seen]
                why = proof.get("problem") or "; ".join(missing) or "it knows no such claim"
                said = f"it was observed, and what is kept does not show it: {why}"
                found.append(
                    f"{name.replace('_', ' ')}: {said if seen else 'not observed, and yet what is kept shows it'}"
                )
        return found


def audit(place: Path) -> Audit:
    """Audit a demo's folder by `scripts/demo-audit`'s program, in a process of its own."""
    scripts = str(Path(__file__).resolve().parents[1])
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "demo_audit", "--json", str(place)],
            cwd="/",
            env={**os.environ, "PYTHONPATH": scripts},
            check=False,
            capture_output=True,
            text=True,
            timeout=AUDIT_S,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        return Audit(problem=f"the audit was not made: {exc}")
    if done.returncode not in (0, NEGATIVE):
        return Audit(problem=f"the audit was not made: {done.stderr.strip()[-2000:]}")
    try:
        said: Any = json.loads(done.stdout)
        return Audit(said["claims"], said["proof"])
    except (ValueError, KeyError, TypeError) as exc:
        return Audit(problem=f"the audit gave no answer: {exc}: {done.stderr.strip()[-2000:]}")
