"""The node's log: one line for each event, as JSON for programs or in words for people at a terminal.

Bodies of records, tokens and keys never stand in it. What others wrote is cut and made visible, a line is bounded as a
whole, and how often they can cause one is, too (`log_bound`). docs/logs.md lists the events with their fields.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, TextIO, cast

import structlog

from comity.node.config import LogFormat, LogLevel
from comity.node.log_bound import PEER_FIELDS, LineBound
from comity.node.visible import json_line, named, visible

TEXT_MAX: Final = 500
"""Characters of one value: an error may quote what somebody sent."""
TRACE_MAX: Final = 8_000
"""Characters of the traces of a defect; the end says what it was."""
LINE_BYTES_MAX: Final = 16_384
"""Bytes of one event as it is written: an escape has up to twelve for one character, and a value may be a list of many
values. The trace of a defect fits in, and programs that collect logs take such a line whole."""
FIELD_BYTES_LARGE: Final = 1_024
"""Fields of more are left out before any other of a line that is too long: no id or name has as many."""
TRACE_LEAST: Final = 500
"""Characters of a trace that say what the defect was; before that many, other fields are left out."""
LEFT_OUT_MAX: Final = 16
"""Names of fields that a line says it lacks, each of at most forty characters, so that they have room in it."""
_LEVELS: Final = logging.getLevelNamesMapping()
_NOISY: Final = ("hypercorn", "libp2p", "multiaddr", "fastapi", "zeroconf")
"""Libraries that tell of every connection: only their warnings are kept."""
_FIRST: Final = ("at", "level", "event")

EventDict = MutableMapping[str, Any]


def configure_log(level: LogLevel, stream: TextIO, shape: LogFormat = "auto") -> None:
    """Send what is logged, by us and by libraries, to a stream.

    Args:
        shape: `auto` is words where the stream is a terminal, and JSON elsewhere.
    """
    threshold = _LEVELS[level.upper()]
    common: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder({*PEER_FIELDS, "detail", "dropped"}),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    words = shape == "words" or (shape == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.addFilter(LineBound())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.processors.format_exc_info],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                bounded,
                in_words if words else in_json,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def bounded(_: Any, __: str, fields: EventDict) -> EventDict:
    """Cut what is longer than a line has room for. Numbers and truth stay what they are."""
    for name, value in fields.items():
        if name == "exception":
            fields[name] = str(value)[-TRACE_MAX:]
        elif not isinstance(value, bool | int | float):
            fields[name] = _short(value)
    return fields


def _short(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_short(each) for each in cast("list[Any]", value)[:32]]
    if isinstance(value, Mapping):
        pairs = list(cast("dict[Any, Any]", value).items())[:32]
        return {str(name)[:100]: _short(each) for name, each in pairs}
    if isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 3]}..."


def in_json(_: Any, __: str, fields: EventDict) -> str:
    """One object, the time first, then the level and the event, then the fields in the order of their names."""
    return _fitting(fields, _as_json)


def in_words(_: Any, __: str, fields: EventDict) -> str:
    """The same for people. Only the traces of a defect have lines of their own, and those begin with blanks."""
    return _fitting(fields, _as_words)


def _as_json(fields: Mapping[str, Any]) -> str:
    names = [name for name in _FIRST if name in fields]
    names += sorted(fields.keys() - set(_FIRST))
    return json_line({name: fields[name] for name in names})


def _as_words(fields: Mapping[str, Any]) -> str:
    trace = str(fields.get("exception", ""))
    shown = sorted(fields.keys() - {*_FIRST, "exception", "logger"})
    head = f"{str(fields.get('at', ''))[:19]} {fields.get('level', ''):<8}{visible(str(fields.get('event', '')))}"
    line = " ".join([head, *(f"{visible(name)}={_word(fields[name])}" for name in shown)])
    return "\n".join([line, *(f"    {visible(each)}" for each in trace.splitlines())])


def _fitting(fields: EventDict, write: Callable[[Mapping[str, Any]], str]) -> str:
    """The line of an event, within `LINE_BYTES_MAX`; `left_out` names the fields that it lacks, or has a part of.

    Large fields go first, then the beginning of a trace, then the others, the longest first. Time, level and event
    stay: they are cut to a length that fits.
    """
    line = write(fields)
    if _bytes_of(line) <= LINE_BYTES_MAX:
        return line
    kept, left_out = dict(fields), list[str]()
    sizes = {name: _bytes_of(write({name: kept[name]})) for name in kept.keys() - set(_FIRST)}
    longest = sorted(sizes, key=lambda name: (-sizes[name], name))

    def written() -> str:
        said = [str(name)[:40] for name in left_out[:LEFT_OUT_MAX]]
        more = len(left_out) - len(said)
        return write({**kept, "left_out": [*said, f"and {more} more"] if more else said})

    def leave_out(names: list[str]) -> bool:
        for name in names:
            del kept[name]
            left_out.append(name)
            if _bytes_of(written()) <= LINE_BYTES_MAX:
                return True
        return False

    large = [name for name in longest if sizes[name] > FIELD_BYTES_LARGE and name != "exception"]
    if leave_out(large):
        return written()
    if trace := str(kept.get("exception", "")):
        left_out.append("exception")
        while len(trace) > TRACE_LEAST:
            trace = trace[-(len(trace) // 2) :]
            kept["exception"] = trace
            if _bytes_of(written()) <= LINE_BYTES_MAX:
                return written()
        left_out.remove("exception")
    leave_out([name for name in longest if name in kept])
    return written()


def _bytes_of(line: str) -> int:
    return len(line.encode("utf-8", "surrogatepass"))


def _word(value: Any) -> str:
    return named(value if isinstance(value, str) else json_line(value))


def rejoin_libp2p(level: LogLevel) -> None:
    """Bring libp2p's log back into the node's: importing it cuts its logger off. Call it after the import.

    What it reports as errors is what a peer that goes away looks like, which the node's own lines say better.
    """
    logger = logging.getLogger("libp2p")
    logger.propagate = True
    logger.setLevel(logging.WARNING if level == "debug" else logging.CRITICAL)
