"""Requests and answers over one byte stream, against peers that keep no rules."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from comity.gossip.framing import Frame, FrameKind, FrameReader, encode_frame
from comity.gossip.streams import (
    BATCH_BYTES,
    HANDLER_S_MAX,
    REFUSALS_WAITING_MAX,
    SILENT_S_MIN,
    SILENT_TIMEOUTS_MAX,
    AnswerStream,
    RequestStream,
)
from comity.gossip.transport import Bounds, Reason, RequestError
from comity.protocol.errors import TransportError
from roads import DEADLINE_S

pytestmark = pytest.mark.trio
PEER = "spiffe://south.example/node/n1"


class Wire:
    """A byte stream whose other end is the test. A write can be held, and reading can break."""

    def __init__(self) -> None:
        self._to_us, self._incoming = trio.open_memory_channel[bytes | None](10_000)
        self.writes: list[bytes] = []
        self.wrote = trio.Event()
        self.gate = trio.Event()
        self.gate.set()

    def say(self, *frames: Frame | bytes) -> None:
        data = b"".join(frame if isinstance(frame, bytes) else encode_frame(frame) for frame in frames)
        self._to_us.send_nowait(data)

    def end(self) -> None:
        self._to_us.send_nowait(b"")

    def snap(self) -> None:
        self._to_us.send_nowait(None)

    async def read(self) -> bytes:
        data = await self._incoming.receive()
        if data is None:
            raise TransportError("snapped")
        return data

    async def write(self, data: bytes) -> None:
        await self.gate.wait()
        self.writes.append(data)
        self.wrote.set()

    def frames(self) -> list[Frame]:
        return FrameReader().feed(b"".join(self.writes))

    async def heard(self, count: int) -> list[Frame]:
        while len(self.frames()) < count:
            self.wrote = trio.Event()
            await self.wrote.wait()
        return self.frames()


@asynccontextmanager
async def running(
    stream: RequestStream | AnswerStream, within_s: float = DEADLINE_S
) -> AsyncGenerator[trio.Event, None]:
    """The stream runs meanwhile; the event says that it has ended."""
    ended = trio.Event()

    async def run() -> None:
        await stream.run()
        ended.set()

    with trio.fail_after(within_s):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield ended
            nursery.cancel_scope.cancel()


def request(number: int, payload: bytes = b"") -> Frame:
    return Frame(FrameKind.REQUEST, number, payload)


def response(number: int, payload: bytes = b"") -> Frame:
    return Frame(FrameKind.RESPONSE, number, payload)


async def echo(_peer: str, payload: bytes) -> bytes:
    return payload


async def never(_peer: str, _payload: bytes) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


async def ask(stream: RequestStream, payload: bytes, into: list[object], timeout_s: float = 1.0) -> None:
    try:
        into.append(await stream.request(payload, timeout_s))
    except RequestError as exc:
        into.append(exc.reason)


async def test_frames_that_wait_together_leave_in_one_write() -> None:
    wire = Wire()
    stream = RequestStream(PEER, wire, Bounds())
    found: list[object] = []
    async with running(stream), trio.open_nursery() as asking:
        wire.gate = trio.Event()
        asking.start_soon(ask, stream, b"first", found)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(5):
            asking.start_soon(ask, stream, bytes([number]), found)
        await trio.testing.wait_all_tasks_blocked()
        asking.start_soon(ask, stream, bytes(BATCH_BYTES), found)
        await trio.testing.wait_all_tasks_blocked()
        wire.gate.set()
        frames = await wire.heard(7)
        assert [len(FrameReader().feed(write)) for write in wire.writes] == [1, 5, 1]
        wire.say(*(response(frame.request_id, frame.payload) for frame in frames))
    assert len(found) == 7
    assert not any(isinstance(answer, Reason) for answer in found)


async def test_a_request_that_timed_out_unsent_is_never_sent(autojump_clock: MockClock) -> None:
    wire = Wire()
    wire.gate = trio.Event()
    stream = RequestStream(PEER, wire, Bounds())
    found: list[object] = []
    async with running(stream):
        async with trio.open_nursery() as asking:
            asking.start_soon(ask, stream, b"in the writer's hands", found)
            await trio.testing.wait_all_tasks_blocked()
            asking.start_soon(ask, stream, b"still waiting", found)
        wire.gate.set()
        await trio.testing.wait_all_tasks_blocked()
    assert found == [Reason.TIMEOUT] * 2
    assert len(wire.frames()) == 1


async def test_a_silent_connection_is_given_up(autojump_clock: MockClock) -> None:
    """A word in between, even one that answers nothing, shows that the other end lives."""
    wire = Wire()
    stream = RequestStream(PEER, wire, Bounds())
    found: list[object] = []
    async with running(stream, 60) as ended:
        for _ in range(2):
            for _ in range(SILENT_TIMEOUTS_MAX - 1):
                await ask(stream, b"", found)
            wire.say(response(999))
            await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
        for _ in range(SILENT_TIMEOUTS_MAX):
            await ask(stream, b"", found)
        await ended.wait()
        assert set(found) == {Reason.TIMEOUT}
        assert stream.silent
        await ask(stream, b"", found)
        assert found[-1] is Reason.CLOSED


async def test_impatience_is_no_evidence_of_silence(autojump_clock: MockClock) -> None:
    wire = Wire()
    stream = RequestStream(PEER, wire, Bounds())
    found: list[object] = []
    async with running(stream, 60) as ended:
        for _ in range(10 * SILENT_TIMEOUTS_MAX):
            await ask(stream, b"", found, SILENT_S_MIN / 100)
        await ask(stream, b"", found, -1.0)
        assert not ended.is_set()
        assert set(found) == {Reason.TIMEOUT}
        await ask(stream, b"", found, SILENT_S_MIN)
        await ended.wait()


@pytest.mark.parametrize(
    "hostile",
    [b"\xff" * 8, encode_frame(request(0)), b"\x00\x00\x00\x01\xc0"],
    ids=["too long", "a request", "no frame"],
)
async def test_a_peer_that_answers_against_the_rules_ends_the_stream(
    hostile: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire()
    stream = RequestStream(PEER, wire, Bounds())
    found: list[object] = []
    async with running(stream) as ended, trio.open_nursery() as asking:
        asking.start_soon(ask, stream, b"", found)
        await wire.heard(1)
        wire.say(hostile)
        await ended.wait()
    assert found == [Reason.CLOSED]
    assert not stream.silent


@pytest.mark.parametrize("how", ["end", "snap"])
async def test_requests_end_when_the_stream_ends(how: str) -> None:
    wire = Wire()
    stream = RequestStream(PEER, wire, Bounds())
    found: list[object] = []
    async with running(stream) as ended, trio.open_nursery() as asking:
        asking.start_soon(ask, stream, b"", found)
        asking.start_soon(ask, stream, b"", found)
        await wire.heard(2)
        getattr(wire, how)()
        await ended.wait()
    assert found == [Reason.CLOSED] * 2


async def test_a_peer_says_no_reason_that_is_not_its_to_say() -> None:
    """Whether it is a member, or was reached, is not for the peer to say."""
    wire = Wire()
    stream = RequestStream(PEER, wire, Bounds())
    found: list[object] = []
    said = [b"busy", b"too_large", b"not_a_member", b"timeout", b"\xff", b""]
    async with running(stream):
        for number, reason in enumerate(said):
            wire.say(Frame(FrameKind.FAILURE, number, reason))
            async with trio.open_nursery() as asking:
                asking.start_soon(ask, stream, b"", found)
                await wire.heard(number + 1)
                wire.say(Frame(FrameKind.FAILURE, number, reason))
    assert found == [Reason.BUSY, Reason.TOO_LARGE, *[Reason.FAILED] * 4]


async def test_a_second_answer_is_ignored() -> None:
    wire = Wire()
    stream = RequestStream(PEER, wire, Bounds())
    found: list[object] = []
    async with running(stream), trio.open_nursery() as asking:
        asking.start_soon(ask, stream, b"", found)
        await wire.heard(1)
        wire.say(response(0, b"one"))
        await trio.testing.wait_all_tasks_blocked()
        wire.say(response(0, b"two"), response(1, b"too soon"))
        await trio.testing.wait_all_tasks_blocked()
        asking.start_soon(ask, stream, b"", found)
        await wire.heard(2)
        wire.say(response(1, b"three"))
    assert found == [b"one", b"three"]


@pytest.mark.parametrize("hostile", [b"\xff" * 8, encode_frame(response(0))], ids=["too long", "an answer"])
async def test_a_peer_that_asks_against_the_rules_ends_the_stream(
    hostile: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire()
    async with running(AnswerStream(PEER, wire, echo, Bounds())) as ended:
        wire.say(request(0, b"fine"))
        assert await wire.heard(1) == [response(0, b"fine")]
        wire.say(hostile)
        await ended.wait()


async def test_a_peer_that_asks_and_never_reads_is_disconnected() -> None:
    """Requests keep their places until their answers are written; then come refusals, and at last the end."""
    wire = Wire()
    wire.gate = trio.Event()
    asked = 0

    async def count(_peer: str, payload: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return payload

    async with running(AnswerStream(PEER, wire, count, Bounds(in_flight=4))) as ended:
        for number in range(REFUSALS_WAITING_MAX + 10):
            assert not ended.is_set() or number > REFUSALS_WAITING_MAX
            wire.say(request(number))
            await trio.testing.wait_all_tasks_blocked()
        await ended.wait()
    assert asked == 4


async def test_a_handler_that_hangs_gives_its_place_back(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire()
    async with running(AnswerStream(PEER, wire, never, Bounds(in_flight=1)), 3 * HANDLER_S_MAX):
        began = trio.current_time()
        wire.say(request(0), request(1))
        failed = Frame(FrameKind.FAILURE, 0, b"failed")
        assert await wire.heard(2) == [Frame(FrameKind.FAILURE, 1, b"busy"), failed]
        assert trio.current_time() - began == pytest.approx(HANDLER_S_MAX)
        wire.say(request(2))
        assert (await wire.heard(3))[2] == Frame(FrameKind.FAILURE, 2, b"failed")


async def test_what_a_handler_raises_stays_here(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_peer: str, payload: bytes) -> bytes:
        raise RuntimeError("the password is 1234")

    wire = Wire()
    with caplog.at_level(logging.CRITICAL):
        async with running(AnswerStream(PEER, wire, fails, Bounds())):
            wire.say(request(5, b"body"))
            assert await wire.heard(1) == [Frame(FrameKind.FAILURE, 5, b"failed")]
