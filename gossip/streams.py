"""Requests and answers over one long-lived byte stream.

There is one stream per ordered pair of nodes: each node opens its own and asks on it, and answers on the one
that the other opened. So the two need not agree on which of two streams is the right one when both dial at
once, a stream has exactly one side that reopens it, and a flood of questions does not hold up our own.

A stream that breaks the rules is ended, not mended: the next one starts clean.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from comity.gossip.framing import Frame, FrameKind, FrameReader, encode_frame
from comity.gossip.transport import Bounds, Handler, PeerName, Reason, RequestError
from comity.protocol.errors import DecodeError, TransportError

BATCH_BYTES: Final = 65_524
"""Frames that wait at the same time leave in one write, up to what yamux puts into one of its own frames."""
REFUSALS_WAITING_MAX: Final = 256
"""Refusals that may wait to be read by the peer. One who asks on and never reads is disconnected."""
SILENT_TIMEOUTS_MAX: Final = 3
"""Requests in a row that may time out with nothing heard in between, before the connection is given up..."""
SILENT_S_MIN: Final = 2.0
"""... and for how long at least: three impatient requests are no evidence against a peer far away."""
HANDLER_S_MAX: Final = 120.0
"""A handler that takes longer is cancelled, so that it cannot hold one of the peer's places for ever."""

_log = logging.getLogger(__name__)


class ByteStream(Protocol):
    """An ordered stream of bytes. One reader, one writer."""

    async def read(self) -> bytes:
        """Some bytes, as many as there are; none at the end of the stream.

        Raises:
            TransportError: the stream is broken.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Raises: TransportError: the stream is broken; how much was sent is unknown."""
        ...


class _Outbox:
    """Frames on their way out. One task writes: writes never interleave, and no deadline tears a frame."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._frames: deque[bytes] = deque()
        self._in_write = 0
        self._writer = trio.lowlevel.ParkingLot()

    @property
    def backlog(self) -> int:
        """Frames that are not written yet."""
        return len(self._frames) + self._in_write

    def put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._writer.unpark()

    def withdraw(self, frame: bytes) -> None:
        """Take back a frame whose writing has not begun; otherwise nothing happens."""
        for index, waiting in enumerate(self._frames):
            if waiting is frame:
                del self._frames[index]
                return

    async def run(self) -> None:
        frames = self._frames
        while True:
            while not frames:
                await self._writer.park()
            batch = [frames.popleft()]
            size = len(batch[0])
            while frames and size + len(frames[0]) <= BATCH_BYTES:
                size += len(frames[0])
                batch.append(frames.popleft())
            self._in_write = len(batch)
            await self._stream.write(batch[0] if len(batch) == 1 else b"".join(batch))
            self._in_write = 0


class _Pending:
    """A request whose answer is awaited."""

    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.answer: Frame | None = None
        self.done = trio.Event()


class RequestStream:
    """The asking end.

    Attributes:
        silent: the stream was ended because nothing was heard on it while requests timed out; its
            connection is to be suspected too.
    """

    def __init__(self, peer: PeerName, stream: ByteStream, bounds: Bounds) -> None:
        self.silent = False
        self._peer = peer
        self._stream = stream
        self._bounds = bounds
        self._outbox = _Outbox(stream)
        self._pending: dict[int, _Pending] = {}
        self._places = trio.Semaphore(bounds.in_flight, max_value=bounds.in_flight)
        self._next_id = 0
        self._silent_timeouts = 0
        self._silent_since = 0.0
        self._open = True
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Carry requests until the stream ends, for whatever reason. Every open request then ends too."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._until_broken, self._outbox.run)
                    await self._until_broken(self._read)
        finally:
            self._open = False
            for pending in self._pending.values():
                pending.done.set()

    async def request(self, payload: bytes, timeout_s: float) -> bytes:
        """Ask once. See `Transport.request`."""
        if len(payload) > self._bounds.frame_bytes:
            raise RequestError(Reason.TOO_LARGE, self._peer, f"a request of {len(payload)} bytes")
        answer: Frame | None = None
        began = trio.current_time()
        with trio.move_on_after(max(0.0, timeout_s)) as deadline:
            # The place is free nearly always, and then there is nothing to wait for.
            try:
                self._places.acquire_nowait()
            except trio.WouldBlock:
                await self._places.acquire()
            try:
                answer = await self._exchange(payload)
            finally:
                self._places.release()
        if deadline.cancelled_caught:
            self._note_timeout(began)
            raise RequestError(Reason.TIMEOUT, self._peer, f"no answer in {timeout_s:g} s")
        if answer is None:
            raise RequestError(Reason.CLOSED, self._peer)
        if answer.kind is FrameKind.FAILURE:
            raise RequestError(_reason_of(answer.payload), self._peer, "said by the peer")
        return answer.payload

    async def _exchange(self, payload: bytes) -> Frame | None:
        if not self._open:
            return None
        request_id = self._next_id
        self._next_id += 1
        frame = encode_frame(Frame(FrameKind.REQUEST, request_id, payload))
        pending = self._pending[request_id] = _Pending()
        self._outbox.put(frame)
        try:
            await pending.done.wait()
        except trio.Cancelled:
            self._outbox.withdraw(frame)
            raise
        finally:
            del self._pending[request_id]
        return pending.answer

    async def _read(self) -> None:
        reader = FrameReader(self._bounds.frame_bytes)
        while data := await self._stream.read():
            self._silent_timeouts = 0
            for frame in reader.feed(data):
                if frame.kind is FrameKind.REQUEST:
                    raise DecodeError("a request on a stream that we opened")
                # An unknown id is the answer to a request that was given up: late, and no fault.
                pending = self._pending.get(frame.request_id)
                if pending is not None:
                    pending.answer = frame
                    pending.done.set()

    async def _until_broken(self, part: Callable[[], Awaitable[None]]) -> None:
        await _until_broken(self._peer, part)
        self._scope.cancel()

    def _note_timeout(self, began: float) -> None:
        if self._silent_timeouts == 0:
            self._silent_since = began
        self._silent_timeouts += 1
        long = trio.current_time() - self._silent_since >= SILENT_S_MIN
        if long and self._silent_timeouts >= SILENT_TIMEOUTS_MAX:
            self.silent = True
            self._scope.cancel()


class AnswerStream:
    """The answering end."""

    def __init__(self, peer: PeerName, stream: ByteStream, handler: Handler, bounds: Bounds) -> None:
        self._peer = peer
        self._stream = stream
        self._handler = handler
        self._bounds = bounds
        self._outbox = _Outbox(stream)
        self._working = 0
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Answer requests until the stream ends, for whatever reason. Handlers at work are then cancelled."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_broken, self._outbox.run)
                await self._until_broken(lambda: self._read(nursery))

    async def _read(self, nursery: trio.Nursery) -> None:
        reader = FrameReader(self._bounds.frame_bytes)
        while data := await self._stream.read():
            for frame in reader.feed(data):
                if frame.kind is not FrameKind.REQUEST:
                    raise DecodeError("an answer on a stream that the peer opened")
                # A request holds its place until its answer is written: who does not read gets no more done.
                backlog = self._outbox.backlog
                if self._working + backlog < self._bounds.in_flight:
                    self._working += 1
                    nursery.start_soon(self._answer, frame)
                elif backlog < REFUSALS_WAITING_MAX:
                    self._outbox.put(_failure(frame.request_id, Reason.BUSY))
                else:
                    raise TransportError("the peer asks and does not read")

    async def _answer(self, request: Frame) -> None:
        answer: bytes | None = None
        try:
            with trio.move_on_after(HANDLER_S_MAX):
                answer = await self._handler(self._peer, request.payload)
        except Exception:  # noqa: BLE001  whatever a handler raises is its own fault, and must not end the stream
            _log.exception("handler_failed", extra={"peer": self._peer})
        finally:
            self._working -= 1
        if answer is None:
            frame = _failure(request.request_id, Reason.FAILED)
        elif len(answer) > self._bounds.frame_bytes:
            detail = f"the answer has {len(answer)} bytes; not sent"
            _log.error("answer_too_large", extra={"peer": self._peer, "detail": detail})
            frame = _failure(request.request_id, Reason.TOO_LARGE)
        else:
            frame = encode_frame(Frame(FrameKind.RESPONSE, request.request_id, answer))
        self._outbox.put(frame)

    async def _until_broken(self, part: Callable[[], Awaitable[None]]) -> None:
        await _until_broken(self._peer, part)
        self._scope.cancel()


async def _until_broken(peer: PeerName, part: Callable[[], Awaitable[None]]) -> None:
    """Run one part of a stream to the end of the stream, which no error of the road or the peer survives."""
    try:
        await part()
    except DecodeError as exc:
        _log.warning("stream_rules_broken", extra={"peer": peer, "detail": str(exc)})
    except TransportError as exc:
        _log.debug("stream_broke", extra={"peer": peer, "detail": str(exc)})


def _failure(request_id: int, reason: Reason) -> bytes:
    return encode_frame(Frame(FrameKind.FAILURE, request_id, reason.encode("ascii")))


_SAID_BY_PEERS: Final = {reason.encode("ascii"): reason for reason in (Reason.BUSY, Reason.TOO_LARGE)}


def _reason_of(payload: bytes) -> Reason:
    """The reason that a peer may give. Anything else, known or not, is that it failed."""
    return _SAID_BY_PEERS.get(payload, Reason.FAILED)
