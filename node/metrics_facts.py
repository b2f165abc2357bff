"""What is read off a node when somebody asks for its metrics: how things stand, not what has happened."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio
from prometheus_client import generate_latest

from comity.attestation.requester import Pursuit
from comity.node.coalitions import certificate_for
from comity.node.core import Core
from comity.node.log_bound import lines_dropped
from comity.node.metrics import OTHER, Metrics
from comity.node.revocations import state_of
from comity.node.service import Service
from comity.node.views import WAITING
from comity.protocol.governance import Credential, NodeCertificate
from comity.protocol.records import decode_body

FRESH_S: Final = 1.0
"""So long one reading answers whoever asks: scraping often costs the node no more than once a second."""
NEEDS: Final = frozenset(
    {"approval", "consent", "corroboration", "credential", "epoch", "launch_ticket", "membership", "record"}
    | {"tier", "transition"}
)
"""The needs that are told apart; a policy's own words are counted as `other`."""
_SUFFIXES: Final = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class _Standing:
    """The part that only the worker's thread may read."""

    members: tuple[str, ...]
    quorum: int
    epoch: int
    voting: bool
    complete: bool
    accused: int
    waiting: dict[str, int]
    needs: dict[str, int]
    oldest_s: float
    certificate_expires: int
    credential_expires: int


class Facts:
    """The metrics of one node, as text.

    Args:
        store: the store's file; None where it is not on disk.
        queue: how many calls wait for the worker's thread.
        known: how many nodes of others there are.
    """

    def __init__(
        self,
        metrics: Metrics,
        service: Service,
        *,
        store: Path | None = None,
        queue: Callable[[], int] = lambda: 0,
        known: Callable[[], int] = lambda: 0,
    ) -> None:
        self._metrics = metrics
        self._service = service
        self._store = store
        self._queue = queue
        self._known = known
        self._turn = trio.Lock()
        self._text = b""
        self._dropped = 0
        self._read_at = float("-inf")

    def count_request(self, role: str, status: int) -> None:
        """Count a request to the local API; the role is empty for who has no token."""
        self._metrics.api.add(role or "none", str(status))

    def count_notification(self, result: str) -> None:
        """Count what a webhook was told, by what came of it."""
        self._metrics.notifications.add(result)

    async def text(self) -> bytes:
        """All series in Prometheus' text format, at most `FRESH_S` old."""
        async with self._turn:
            if time.monotonic() - self._read_at >= FRESH_S:
                waiting = self._queue()
                standing = await self._service.call(partial(_standing, self._service.core))
                self._set(standing, waiting)
                self._text = await trio.to_thread.run_sync(generate_latest, self._metrics.registry)
                self._read_at = time.monotonic()
            return self._text

    def _set(self, standing: _Standing, queue: int) -> None:
        metrics, core = self._metrics, self._service.core
        reachable = self._service.connected() | {core.identity.member}
        in_reach = {name: float(name in reachable) for name in standing.members}
        metrics.queue.set(queue)
        metrics.store_bytes.set(_size(self._store))
        free, whole = _room(self._store)
        metrics.disk_free.set(free)
        metrics.disk.set(whole)
        metrics.peers_known.set(self._known())
        metrics.peers_connected.set(len(self._service.connected_nodes()))
        metrics.members.set(in_reach)
        read = self._service.read_to_end
        others = (name for name in standing.members if name != core.identity.member)
        metrics.members_read.set({name: float(read.get(name, 0)) for name in others})
        metrics.quorum_reachable.set(sum(in_reach.values()) >= standing.quorum)
        metrics.voting.set(standing.voting)
        metrics.governance.set(standing.complete)
        metrics.waiting.set({word: float(standing.waiting.get(word, 0)) for word in WAITING})
        metrics.waiting_for.set({word: float(count) for word, count in standing.needs.items()})
        metrics.oldest_waiting.set(standing.oldest_s)
        metrics.accused.set(standing.accused)
        metrics.epoch.set(standing.epoch)
        metrics.certificate_expires.set(standing.certificate_expires)
        metrics.credential_expires.set(standing.credential_expires)
        metrics.clock.set(core.clock.seconds())
        metrics.started.set(core.clock.started)
        dropped = lines_dropped()
        metrics.lines_dropped.inc(max(0, dropped - self._dropped))
        self._dropped = dropped


def _size(store: Path | None) -> int:
    """Bytes of the store and of the files that belong to it, as far as they are there."""
    if store is None:
        return 0
    files = [store.with_name(store.name + suffix) for suffix in _SUFFIXES]
    return sum(file.stat().st_size for file in files if file.exists())


def _room(store: Path | None) -> tuple[int, int]:
    """Bytes that the disk of the store still takes from this user, and its size; 0 where there is none to look at."""
    if store is None:
        return 0, 0
    try:
        disk = os.statvfs(store.parent)
    except OSError:
        # What is wrong with it the store says itself; a reading of the other series must not fail for it.
        return 0, 0
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize


def _standing(core: Core) -> _Standing:
    epoch, now = core.holdings.epoch, core.clock.now()
    open_ones = [pursuit for pursuit in core.requester.pursuits() if pursuit.standing in WAITING]
    return _Standing(
        members=tuple(sorted(epoch.members)),
        quorum=epoch.quorum,
        epoch=epoch.number,
        voting=core.voter.votes(now),
        complete=core.holdings.governance() is not None,
        accused=len(core.holdings.accused.proofs()),
        waiting=dict(Counter(pursuit.standing for pursuit in open_ones)),
        needs=_needs(open_ones),
        oldest_s=max((now - pursuit.intent.header.at for pursuit in open_ones), default=0),
        certificate_expires=_certificate_expires(core),
        credential_expires=_credential_expires(core, now),
    )


def _needs(open_ones: list[Pursuit]) -> dict[str, int]:
    """How many intents need what. One that needs two approvals needs an approval."""
    counted: Counter[str] = Counter()
    for pursuit in open_ones:
        counted.update({need.code if need.code in NEEDS else OTHER for need in pursuit.needs})
    return dict(counted)


def _certificate_expires(core: Core) -> int:
    """When the certificate of this node's key ends; 0 where none is held."""
    author = core.identity.author
    held = (record.record for record in core.holdings.state.of_kind("node_certificate"))
    found = certificate_for(held, core.identity.node, author.signer.public)
    body = decode_body(found) if found is not None else None
    return body.not_after if isinstance(body, NodeCertificate) else 0


def _credential_expires(core: Core, now: int) -> int:
    """When the first of this organization's credentials in force ends; 0 where there is none."""
    ends: list[int] = []
    for record in core.holdings.state.of_kind("credential"):
        body = record.body
        if record.member != core.identity.member or not isinstance(body, Credential):
            continue
        if body.not_before <= now < body.not_after and not state_of(core, record):
            ends.append(body.not_after)
    return min(ends, default=0)
