"""Names of runs that go on with what another run was permitted to do.

A run that may be made only in part is ended, and runs of its permitted parts take its place. Their ids follow from the
first one's, and an orchestrator that chooses ids at random gives nobody such a one: so a tag that says "this run goes
on for that one" cannot be lied into any other run.
"""

from __future__ import annotations

import uuid
from typing import Final

CONTINUATIONS_MAX: Final = 64
"""Runs that take the place of one, by parts and over time: each time something less is left of it."""
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:comity:continued-run")


def continuation_of(run: str, part: int = 0) -> str:
    """The id of a run that goes on for a run: the one of that number, from 0."""
    return str(uuid.uuid5(_NAMESPACE, f"{run}/{part}"))


def continues(run: str, first: str) -> bool:
    """Whether a run goes on for another."""
    return any(continuation_of(first, part) == run for part in range(CONTINUATIONS_MAX))
