"""What the doctor finds, and what it knows of a home while it looks. `node/doctor.py` has the order of the checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from comity.node.clock import Clock
from comity.node.coalition_file import CoalitionFile
from comity.node.config import Config
from comity.node.home import Home
from comity.protocol.governance import PublicKey

Verdict: TypeAlias = Literal["ok", "warning", "wrong", "not tried"]
CHECKS: Final = (
    "home",
    "settings",
    "keys",
    "organization_key",
    "tokens",
    "card",
    "coalition",
    "membership",
    "certificate",
    "engine",
    "policies",
    "clock",
    "packages",
    "environment",
    "port",
    "disk",
    "store",
    "node",
    "epoch",
    "peer",
    "quorum",
    "credentials",
    "owner_policy",
)
"""The names of the checks, stable, in the order in which they are said."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: one of `CHECKS`.
        about: what of several it is about, such as a member; empty where there is one.
        command: what helps, where it is not ok; empty where nothing can be typed.
    """

    check: str
    verdict: Verdict
    sentence: str
    about: str = ""
    command: str = ""


@dataclass(slots=True)
class Examination:
    """What is known so far of a home, for the checks that rest on it.

    Attributes:
        environment: variables of this process.
        entered: whether the home is there, and this user may look into it.
        config, file: what was sound; None where it was not.
        keys: public keys of the home by the name of their file.
        answers: what the running node said, by route; empty where none answers.
    """

    home: Home
    clock: Clock
    environment: Mapping[str, str]
    entered: bool = False
    config: Config | None = None
    file: CoalitionFile | None = None
    keys: dict[str, PublicKey] = field(default_factory=dict[str, PublicKey])
    answers: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def store(self) -> Path | None:
        return self.config.store_path(self.home.path) if self.config is not None else None

    @property
    def runs(self) -> bool:
        """Whether the home's node answers."""
        return "status" in self.answers


Check: TypeAlias = Callable[[Examination], Iterable[Finding]]


def ok(check: str, sentence: str, about: str = "") -> Finding:
    return Finding(check, "ok", sentence, about)


def not_tried(check: str, because: str) -> Finding:
    return Finding(check, "not tried", because)
