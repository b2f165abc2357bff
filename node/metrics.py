"""What a node counts and times, for Prometheus: one registry for each node, and what each series means.

Counted and timed as it happens, or read off the node when somebody asks (`metrics_facts`). Labels are words of the
protocol or names of members, so that their number is bounded; an id, a path or a text is never one. docs/metrics.md
explains each series to operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol, runtime_checkable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from comity import __version__

LABEL_VALUES_MAX: Final = 64
"""Values of one label. Every one is a word of this version; what is beyond them is counted as `other`."""
OTHER: Final = "other"

_DECISION_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_CALL_S: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)
_COMMIT_S: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0)


class Tally:
    """A counter by a few words. The children are kept, for looking one up costs as much as counting.

    Args:
        labels: the names of the labels; `add` takes a value for each, in this order.
    """

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._counter = Counter(name, text, labels, registry=registry)
        self._children: dict[tuple[str, ...], Counter] = {}
        self._other = (OTHER,) * len(labels)

    def add(self, *values: str, by: float = 1.0) -> None:
        child = self._children.get(values)
        if child is None:
            if len(self._children) >= LABEL_VALUES_MAX and values != self._other:
                self.add(*self._other, by=by)
                return
            child = self._children[values] = self._counter.labels(*values)
        child.inc(by)


class Level:
    """A gauge by a few words, set all at once: what is not said any more is gone."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, label: str) -> None:
        self._gauge = Gauge(name, text, (label,), registry=registry)

    def set(self, values: Mapping[str, float]) -> None:
        self._gauge.clear()
        for word in sorted(values)[:LABEL_VALUES_MAX]:
            self._gauge.labels(word).set(values[word])


@runtime_checkable
class Committing(Protocol):
    """A store that tells how many seconds each commit took."""

    committed: Callable[[float], object]


class Metrics:
    """All series of one node. Any thread may count."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._deciding(registry)
        self._records(registry)
        self._roads(registry)
        self._machinery(registry)
        self._levels(registry)

    def time_commits(self, store: object) -> None:
        """Time the commits of a store that says how long they take; one in memory does not."""
        if isinstance(store, Committing):
            store.committed = self.commit_seconds.observe

    def _deciding(self, registry: CollectorRegistry) -> None:
        self.decisions = Tally(
            registry, "comity_decisions", "Permits and refusals of own intents.", ("outcome",)
        )
        self.decision_seconds = Histogram(
            "comity_decision_seconds",
            "From the ask to the stored permit or refusal.",
            buckets=_DECISION_S,
            registry=registry,
        )
        self.settled = Tally(
            registry, "comity_intents_settled", "Rounds of own intents, by how they ended.", ("standing",)
        )
        self.asks = Counter("comity_asks_sent", "Asks that this node sent to members.", registry=registry)
        self.votes = Tally(registry, "comity_votes", "Votes that this node gave, by mode.", ("mode",))
        self.declined = Tally(
            registry, "comity_asks_declined", "Asks that this node did not vote on, by reason.", ("code",)
        )
        # An increase is seen only of a series that was there before.
        self.declined.add("clock", by=0.0)

    def _records(self, registry: CollectorRegistry) -> None:
        self.admitted = Tally(
            registry, "comity_records_admitted", "Records that were verified and kept.", ("kind",)
        )
        self.adverse = Tally(
            registry, "comity_adverse_records", "Adverse records that were admitted.", ("kind",)
        )
        self.rejected = Tally(
            registry, "comity_records_rejected", "Records that did not verify, by reason.", ("reason",)
        )
        self.parked = Counter(
            "comity_records_parked", "Records that wait for who vouches for their keys.", registry=registry
        )
        self.pages = Tally(
            registry, "comity_feed_pages", "Pages of anti-entropy that were read.", ("result",)
        )

    def _roads(self, registry: CollectorRegistry) -> None:
        self.sent = Tally(
            registry, "comity_requests_sent", "Requests to peers, by kind and result.", ("kind", "result")
        )
        self.received = Tally(
            registry, "comity_requests_received", "Requests of peers, by kind and result.", ("kind", "result")
        )
        self.bytes = Tally(registry, "comity_peer_bytes", "Payload bytes to and from peers.", ("direction",))
        self.api = Tally(registry, "comity_api_requests", "Requests to the local API.", ("role", "status"))

    def _machinery(self, registry: CollectorRegistry) -> None:
        self.call_seconds = Histogram(
            "comity_worker_call_seconds",
            "Time of one call in the worker's thread.",
            buckets=_CALL_S,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "comity_store_commit_seconds", "Time of one commit.", buckets=_COMMIT_S, registry=registry
        )
        self.notifications = Tally(
            registry, "comity_notifications", "What the webhook was told, by what came of it.", ("result",)
        )
        self.lines_dropped = Counter(
            "comity_log_lines_dropped", "Log lines that were too many.", registry=registry
        )

    def _levels(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"comity_{name}", text, registry=registry)

        self.queue = gauge("worker_queue_calls", "Calls that wait for the worker's thread, or are in it.")
        self.store_bytes = gauge("store_bytes", "Bytes of the store's files.")
        self.disk_free = gauge("disk_free_bytes", "What the disk of the store still takes.")
        self.disk = gauge("disk_bytes", "The size of the disk of the store.")
        self.peers_known = gauge("peers_known", "Nodes of other members that have a certificate in force.")
        self.peers_connected = gauge("peers_connected", "Nodes of other members that are connected.")
        self.members = Level(registry, "comity_member_reachable", "Whether a member is in reach.", "member")
        self.members_read = Level(
            registry,
            "comity_member_read_timestamp_seconds",
            "When a member was last read to its end.",
            "member",
        )
        self.quorum_reachable = gauge("quorum_reachable", "Whether a quorum of members is in reach.")
        self.voting = gauge("voting", "Whether this node votes: it has gone through what others hold.")
        self.governance = gauge("governance_complete", "Whether taxonomy and policies of the epoch are here.")
        self.waiting = Level(registry, "comity_intents_waiting", "Own intents that wait.", "standing")
        self.waiting_for = Level(registry, "comity_intents_waiting_for", "Needs of own intents.", "need")
        self.oldest_waiting = gauge("intent_oldest_waiting_seconds", "Age of the oldest that waits.")
        self.accused = gauge("members_accused", "Members that proofs of misbehaviour are held against.")
        self.epoch = gauge("epoch_number", "The number of the epoch in force.")
        self.certificate_expires = gauge(
            "certificate_expires_timestamp_seconds", "When this node's certificate ends."
        )
        self.credential_expires = gauge(
            "credential_expires_timestamp_seconds", "When the first own credential in force ends."
        )
        self.clock = gauge("clock_timestamp_seconds", "The clock that this node votes by.")
        self.started = gauge("start_timestamp_seconds", "When this node began.")
        Gauge("comity_info", "The version.", ("version",), registry=registry).labels(__version__).set(1)
