"""Who asks: the credential that a run acts under, and the launch ticket that proves it.

Without one the node acts under its `automation` credential. A person or an agent signs a launch ticket with
an own key; the bridge only carries it. Run tags and user names are never evidence; a signed ticket is,
wherever it lies.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.protocol.errors import ConfigError
from comity.protocol.limits import BODY_BYTES_MAX

TICKET_BYTES_MAX: Final = BODY_BYTES_MAX
"""A ticket names at most 256 asset patterns and 10,000 partitions."""


@dataclass(frozen=True, slots=True)
class TicketFacts:
    """What a launch ticket for a run has to say. `assets` are ids, the own ones without the member."""

    run: str
    job: str
    assets: tuple[str, ...]
    partitions: tuple[str, ...]
    purpose: str


@dataclass(frozen=True, slots=True)
class Requester:
    """A person or agent that asks under an own credential.

    `credential` is the credential's id. `sign_ticket` makes the bytes of a signed `launch_ticket` record;
    it is called once per run and process.
    """

    credential: str
    sign_ticket: Callable[[TicketFacts], bytes]


def ticket_from_file(path: Path) -> Requester:
    """A requester whose ticket was signed before: the file holds the record's bytes and names its credential.

    Raises:
        ConfigError: the file cannot be read, is empty or too long.
    """
    return Requester(credential="", sign_ticket=_TicketFile(path))


@dataclass(frozen=True, slots=True)
class _TicketFile:
    """Gives the ticket that lies in a file. Equal for equal files: definitions may be governed twice."""

    path: Path

    def __call__(self, _: TicketFacts) -> bytes:
        return _ticket_bytes(self.path)


def encoded_ticket(ticket: bytes) -> str:
    """A ticket as the node's API takes it."""
    if not ticket or len(ticket) > TICKET_BYTES_MAX:
        raise ConfigError(f"a launch ticket has 1 to {TICKET_BYTES_MAX} bytes, not {len(ticket)}")
    return base64.b64encode(ticket).decode("ascii")


def _ticket_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(TICKET_BYTES_MAX + 1)
    except OSError as exc:
        raise ConfigError(f"the launch ticket {path} cannot be read: {exc.strerror}") from exc
