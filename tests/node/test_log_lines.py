"""The log as operators read it: stable events on a page, safe to look at, and bounded whatever others do."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from api_calls import solo, step, submit
from comity.node.answering import answer_peer
from comity.node.config import LogFormat
from comity.node.log_bound import (
    EVENT_LINES,
    PEER_LINE_EVERY_S,
    PEER_LINES,
    SEEN_MAX,
    LineBound,
    lines_dropped,
)
from comity.node.log_lines import LEFT_OUT_MAX, LINE_BYTES_MAX, TEXT_MAX, configure_log
from comity.node.metrics import Metrics
from comity.node.watched_core import WatchedCore
from comity.protocol.execution import Ask
from comity.protocol.frames import AskFrame, encode_frame
from houses import short_folder
from nodes import RunningNode, TrioClock
from world import ENGINE, NORTH, SOUTH, START, World

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/logs.md"
LEVELS = {"debug", "info", "warning", "error", "exception"}


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def logging_to(stream: io.StringIO, level: Any = "debug", shape: LogFormat = "auto") -> Generator[None]:
    """The log of a node goes there, inside."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure_log(level, stream, shape)
    try:
        yield
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        structlog.reset_defaults()


# The page


def said_in_code() -> dict[str, tuple[set[str], set[str]]]:
    """Every event in the code, with its levels and the fields that any line of it has."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for path in [*sorted((ROOT / "node").glob("*.py")), *sorted((ROOT / "gossip").glob("*.py"))]:
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            if ast.unparse(call.func.value) not in {"log", "_log"} or call.func.attr not in LEVELS:
                continue
            first = call.args[0]
            names = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
            fields = {keyword.arg or "**" for keyword in call.keywords} - {"extra"}
            for keyword in call.keywords:
                if keyword.arg == "extra":
                    assert isinstance(keyword.value, ast.Dict)
                    fields |= {ast.literal_eval(key) for key in keyword.value.keys if key is not None}
            for name in names:
                assert isinstance(name, ast.Constant), f"{path.name}: {ast.unparse(call)}"
                assert re.fullmatch(r"[a-z_]+", str(name.value)), f"{path.name}: {ast.unparse(call)}"
                levels, held = found.setdefault(str(name.value), (set(), set()))
                levels.add("error" if call.func.attr == "exception" else call.func.attr)
                held |= fields
    return found


def said_on_page() -> dict[str, tuple[set[str], set[str]]]:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: ({level}, set(re.findall(r"`(\w+)`", fields))) for name, level, fields in rows}


def test_the_page_names_every_event_and_no_other() -> None:
    assert len(said_in_code()) > 20
    assert said_on_page() == said_in_code()


# What a line is


def test_a_line_is_one_object_and_shows_what_cannot_be_seen() -> None:
    lines = io.StringIO()
    hostile = "\x1b[2J\n{'event': 'decided'}\u202e\u2028" + "x" * 10_000
    with logging_to(lines):
        log = structlog.get_logger("comity.node")
        log.warning("page_unreadable", peer="spiffe://a.example/node/n1", detail=hostile)
        logging.getLogger("comity.gossip.streams").warning(
            "stream_rules_broken", extra={"peer": "spiffe://a.example/node/n1", "detail": hostile}
        )
    text = lines.getvalue()
    assert len(text.splitlines()) == 2
    assert text.replace("\n", "").isprintable()
    for line in map(json.loads, text.splitlines()):
        assert list(line)[:3] == ["at", "level", "event"]
        assert line["level"] == "warning"
        assert line["peer"] == "spiffe://a.example/node/n1"
        assert line["detail"] == hostile[: TEXT_MAX - 3] + "..."


WIDE = "\U0010ffff" * TEXT_MAX
"""Has twelve bytes for each character in JSON, and ten in words."""
PEER = "spiffe://a.example/node/n1"


@pytest.mark.parametrize("shape", ["json", "words"])
@pytest.mark.parametrize(
    ("fields", "left_out"),
    [
        ({}, []),
        ({"detail": WIDE, "reason": "x"}, []),
        ({"detail": [WIDE] * 32, "reason": "x"}, ["detail"]),
        ({"detail": {f"k{n}": [WIDE] * 32 for n in range(32)}}, ["detail"]),
        ({"a": WIDE, "b": WIDE, "c": WIDE[:-1], "reason": "x"}, ["a", "b"]),
        ({f"f{n:03}": "x" * 80 for n in range(400)}, None),
        ({f"{n:03}{WIDE}": WIDE for n in range(60)}, None),
    ],
)
def test_no_line_is_longer_than_its_bound_and_says_what_it_lacks(
    shape: LogFormat, fields: dict[str, Any], left_out: list[str] | None
) -> None:
    lines = io.StringIO()
    with logging_to(lines, shape=shape):
        structlog.get_logger("comity.node").warning(f"page_unreadable {WIDE}", peer=PEER, **fields)
    (text,) = lines.getvalue().splitlines()
    assert len(text.encode()) <= LINE_BYTES_MAX
    assert text.isprintable()
    if shape == "words":
        assert ("left_out=" in text) == (left_out != [])
        assert "page_unreadable" in text
        return
    line = json.loads(text)
    assert [*line][:3] == ["at", "level", "event"]
    assert line["event"].startswith("page_unreadable")
    if left_out is None:
        assert len(line["left_out"]) == LEFT_OUT_MAX + 1
        assert re.fullmatch(r"and \d+ more", line["left_out"][-1])
    else:
        assert line["peer"] == PEER
        assert line.get("left_out", []) == left_out
        assert line.keys() == {
            "at",
            "level",
            "event",
            "logger",
            "peer",
            *fields,
            *(["left_out"] if left_out else []),
        } - {*left_out}


def failing(depth: int, text: str) -> None:
    if depth:
        failing(depth - 1, text)
    raise ValueError(text)


@pytest.mark.parametrize("shape", ["json", "words"])
@pytest.mark.parametrize("text", ["it broke", f"{WIDE * 4} it broke"], ids=["deep", "wide"])
def test_of_a_trace_that_is_too_long_the_end_stays(shape: LogFormat, text: str) -> None:
    lines = io.StringIO()
    with logging_to(lines, shape=shape):
        try:
            failing(400, text)
        except ValueError:
            structlog.get_logger("comity.node").exception("peer_unbearable", peer=PEER, detail=[WIDE] * 32)
    said = lines.getvalue()
    assert len(said.rstrip("\n").encode()) <= LINE_BYTES_MAX
    assert said.rstrip("\n").endswith("it broke" if shape == "words" else "}")
    assert PEER in said
    if shape == "json":
        line = json.loads(said)
        assert line["exception"].endswith("it broke")
        assert line["left_out"] == (["detail"] if text == "it broke" else ["detail", "exception"])


def test_words_are_for_terminals_and_no_text_leaves_its_line() -> None:
    hostile = "\x1b[2J\nfake: all is well\u202e"
    for shape, stream, words in (
        ("auto", Terminal(), True),
        ("auto", io.StringIO(), False),
        ("words", io.StringIO(), True),
        ("json", Terminal(), False),
    ):
        with logging_to(stream, shape=shape):  # type: ignore[arg-type]
            log = structlog.get_logger("comity.node")
            log.info("peer_up", peer=hostile, count=3)
            try:
                raise ValueError(hostile)
            except ValueError:
                log.exception("peer_unbearable", peer="spiffe://a.example/node/n1")
        first, *rest = stream.getvalue().splitlines()
        assert first.startswith("{") is not words
        assert stream.getvalue().replace("\n", "").isprintable()
        if words:
            assert first.endswith(r'count=3 peer="\x1b[2J\nfake: all is well\u202e"')
            assert rest[0].endswith("peer=spiffe://a.example/node/n1")
            assert all(line.startswith("    ") for line in rest[1:])
            assert len(rest) > 3


async def test_a_life_is_told(place: Path) -> None:
    lines = io.StringIO()
    with logging_to(lines, "info"):
        async with solo(place) as house:
            await submit(house, step("plain/a"))
            await submit(house, step("forbidden/a"))
            await house.end()
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    events = [line["event"] for line in told]
    assert [e for e in events if e not in {"request", "coalition_written"}] == [
        "node_ready",
        "decided",
        "decided",
        "node_stopping",
        "node_stopped",
    ]
    decided = [line for line in told if line["event"] == "decided"]
    assert [line["outcome"] for line in decided] == ["execute", "refuse"]
    assert all(re.fullmatch("[0-9a-f]{64}", line["intent"]) for line in decided)


# How many there are


class Now:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def line(event: str, **fields: Any) -> logging.LogRecord:
    said: Any = {"event": event, **fields}
    return logging.LogRecord("comity.node", logging.WARNING, "", 0, said, None, None)


def test_lines_about_one_peer_are_few_and_say_how_many_more_there_were() -> None:
    now = Now()
    bound = LineBound(now)
    written = [bound.filter(line("page_unreadable", peer="a", detail=str(i))) for i in range(1_000)]
    assert written == [True] * PEER_LINES + [False] * (1_000 - PEER_LINES)
    assert bound.dropped == 1_000 - PEER_LINES
    # Neither another peer nor another event pays for it.
    assert bound.filter(line("page_unreadable", peer="b"))
    assert bound.filter(line("peer_down", peer="a"))
    now.seconds = PEER_LINE_EVERY_S
    late = line("page_unreadable", peer="a")
    assert bound.filter(late)
    assert late.msg == {"event": "page_unreadable", "peer": "a", "dropped": 1_000 - PEER_LINES}
    assert not bound.filter(line("page_unreadable", peer="a"))


def test_a_day_of_one_peers_garbage_is_about_a_line_a_minute() -> None:
    now = Now()
    bound = LineBound(now)
    written = 0
    for second in range(86_400):
        now.seconds = float(second)
        written += bound.filter(line("stream_rules_broken", peer="a"))
    assert written <= PEER_LINES + 1_440


def test_lines_about_nobody_are_bounded_too() -> None:
    bound = LineBound(Now())
    assert sum(bound.filter(line("request", path=f"/{i}")) for i in range(2 * EVENT_LINES)) == EVENT_LINES


def test_what_is_told_apart_is_bounded() -> None:
    bound = LineBound(Now())
    for number in range(2 * SEEN_MAX):
        bound.filter(line("peer_up", peer=str(number)))
    assert len(bound._seen) == SEEN_MAX


async def test_a_member_that_asks_nonsense_without_end_does_not_fill_the_disk(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A member's node sends asks that nobody can vote on: each is answered, and the log stays short."""
    world = World()
    node = RunningNode(world[NORTH], None, TrioClock())  # type: ignore[arg-type]
    core = WatchedCore(Metrics(), node.core.identity, node.store, TrioClock(), ENGINE, (world[NORTH].epoch,))
    core.admit(world.common)
    south = world[SOUTH].node
    lines = io.StringIO()
    with logging_to(lines, "info"):
        for number in range(500):
            body = Ask(salt=b"", intent=bytes(32), t=START + number, epochs=(), relied=())
            ask = south.write("ask", body, at=START + number, subject=(bytes(32),))
            answer_peer(core, encode_frame(AskFrame(ask=ask.encoded())), "spiffe://b.example/node/n1")
        dropped = lines_dropped()
    told = [json.loads(text) for text in lines.getvalue().splitlines()]
    assert {each["event"] for each in told} == {"ask_declined"}
    assert len(told) == PEER_LINES
    assert dropped == 500 - PEER_LINES
