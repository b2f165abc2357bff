"""A node's machines, with what they do told to the log and counted. It decides nothing and changes nothing.

The machines are pure and have no log: what goes into them and comes out of them is looked at here, in the same
thread and between the same commits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import structlog

from comity.attestation.holdings import Admission
from comity.attestation.requester import Effect, SendAsk, Settled, StoreOwn
from comity.attestation.voter import AskArrived
from comity.node.clock import Clock
from comity.node.core import Core, Identity
from comity.node.metrics import Metrics
from comity.node.store import Store
from comity.protocol.encoding import encode
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError, VerificationError
from comity.protocol.execution import Permit
from comity.protocol.frames import DeclineFrame, PageFrame, ProblemFrame
from comity.protocol.outcome import Mode

log = structlog.get_logger("comity.node")

_MODES: Final = tuple(
    (b"\xa4mode" + encode(str(mode)), str(mode)) for mode in sorted(Mode, key=lambda mode: mode.rank)
)
MALFORMED: Final = "malformed"
"""The reason of what is no record of its kind: that has a sentence and no code."""


class WatchedCore(Core):
    """A `Core` that tells what it does.

    Args:
        metrics: what it counts into; the others are those of `Core`.
    """

    def __init__(
        self,
        metrics: Metrics,
        identity: Identity,
        store: Store,
        clock: Clock,
        engine: bytes,
        epochs: Iterable[SignedRecord],
        *,
        catches_up: bool = False,
    ) -> None:
        self.metrics = metrics
        self._refiling = False
        super().__init__(identity, store, clock, engine, epochs, catches_up=catches_up)

    def file(self, intent: SignedRecord, offered: tuple[SignedRecord, ...]) -> None:
        # Who files an intent again is told how it stands, and it does not come to stand so once more.
        self._refiling = self.requester.pursuit(intent.id) is not None
        try:
            super().file(intent, offered)
        finally:
            self._refiling = False

    def _do(self, effects: tuple[Effect, ...]) -> None:
        super()._do(effects)
        for effect in effects:
            match effect:
                case SendAsk(ask, _, members):
                    self.metrics.asks.inc()
                    log.debug("asked", ask=ask.id.hex(), members=len(members))
                case StoreOwn(records):
                    self._tell_decisions(records)
                case Settled(intent, standing) if not self._refiling:
                    self.metrics.settled.add(standing)
                    if standing not in ("permitted", "refused"):
                        self._tell_waiting(intent, standing)
                case _:
                    pass

    def _tell_decisions(self, records: tuple[SignedRecord, ...]) -> None:
        for record in records:
            if record.header.kind not in ("permit", "refusal"):
                continue
            held = self.holdings.peek(record.id)
            if held is None or record.header.key != self.identity.author.signer.key_id:
                continue
            pursuit = self.requester.pursuit(held.body.intent)
            outcome = _outcome(held.body)
            self.metrics.decisions.add(outcome)
            took = max(0.0, self.clock.seconds() - pursuit.asked_at) if pursuit is not None else 0.0
            self.metrics.decision_seconds.observe(took)
            log.info(
                "decided",
                intent=held.body.intent.hex(),
                decision=record.id.hex(),
                outcome=outcome,
                votes=len(held.body.votes),
                ms=round(took * 1_000),
            )

    def _tell_waiting(self, intent: bytes, standing: str) -> None:
        pursuit = self.requester.pursuit(intent)
        if pursuit is None:
            return
        log.info(
            "intent_waits",
            intent=intent.hex(),
            standing=standing,
            needs=sorted({need.code for need in pursuit.needs}),
            causes=sorted({cause.code for cause in pursuit.causes}),
            asks=pursuit.asks,
        )

    def judge(self, event: AskArrived) -> SignedRecord | DeclineFrame | ProblemFrame:
        said = super().judge(event)
        match said:
            case SignedRecord():
                mode = mode_of_vote(said)
                self.metrics.votes.add(mode)
                log.debug("voted", ask=event.ask.id.hex(), vote=said.id.hex(), mode=mode)
            case DeclineFrame(code=code) | ProblemFrame(code=code):
                self.metrics.declined.add(code)
                log.info("ask_declined", peer=event.source, ask=event.ask.id.hex(), code=code)
        return said

    def _admission(self, offered: list[SignedRecord], source: str) -> Admission:
        admission = super()._admission(offered, source)
        for record in admission.admitted:
            self.metrics.admitted.add(record.header.kind)
            if record.is_adverse():
                self.metrics.adverse.add(record.header.kind)
                log.warning(
                    "adverse_record",
                    record=record.id.hex(),
                    kind=record.header.kind,
                    member=record.member,
                    subjects=[subject.hex() for subject in record.header.subject[:4]],
                )
        if admission.parked:
            self.metrics.parked.inc(len(admission.parked))
        for reason, count in Counter(_reason(error) for _, error in admission.rejected).items():
            self.metrics.rejected.add(reason, by=count)
            log.warning("records_rejected", peer=source, reason=reason, count=count)
        return admission

    def open_page(self, payload: bytes) -> PageFrame:
        try:
            page = super().open_page(payload)
        except DecodeError:
            self.metrics.pages.add("unreadable")
            raise
        self.metrics.pages.add("read")
        return page

    def _epoch_began(self) -> None:
        super()._epoch_began()
        epoch = self.holdings.epoch
        log.info("epoch_began", epoch=epoch.number, record=epoch.id.hex(), members=len(epoch.members))


def _outcome(body: Any) -> str:
    """What a certificate says, in one word: `execute` where it leaves out nothing that it speaks of."""
    if not isinstance(body, Permit):
        return "refuse"
    return str(min((claim.mode for claim in body.claims), key=lambda mode: mode.rank))


def mode_of_vote(vote: SignedRecord) -> str:
    """The least mode that a vote says, found in its bytes: decoding it costs a twentieth of what judging it did.

    No text in it looks so: what stands before a mode is no first byte of a character.
    """
    body = vote.body_bytes or b""
    return next((word for mark, word in _MODES if mark in body), str(Mode.EXECUTE))


def _reason(error: VerificationError | DecodeError) -> str:
    return error.reason if isinstance(error, VerificationError) else MALFORMED
