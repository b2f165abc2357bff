"""How much of the log others can cause: so many lines of one event about one peer, and of any event at all.

A peer that sends garbage, or goes and comes, has a line for each time that it does so, as long as these are few.
What is not written is counted, and the next line that is written says how many like it were not.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

PEER_LINES: Final = 10
"""Lines of one event about one peer in a row: enough to see what it does."""
PEER_LINE_EVERY_S: Final = 60.0
"""And then one in so long: 1,440 a day, about half a megabyte for each event and peer that never stops."""
EVENT_LINES: Final = 2_000
"""Lines of one event that is about no peer: a busy minute of decisions and of local calls."""
EVENT_LINE_EVERY_S: Final = 0.05
SEEN_MAX: Final = 4_096
"""Pairs of event and peer that are told apart: more than 256 peers have events. The one unseen longest is forgotten."""
PEER_FIELDS: Final = ("peer", "member", "accused")


@dataclass(slots=True)
class _Allowance:
    lines: float
    at: float
    dropped: int = 0


class LineBound(logging.Filter):
    """Lets lines through as long as they are not too many of a kind.

    Args:
        monotonic: seconds, never backwards.

    Attributes:
        dropped: lines that it kept back since the process began.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.dropped = 0
        self._monotonic = monotonic
        self._seen: OrderedDict[tuple[str, str], _Allowance] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        key = _key(record)
        most, every_s = (PEER_LINES, PEER_LINE_EVERY_S) if key[1] else (EVENT_LINES, EVENT_LINE_EVERY_S)
        now = self._monotonic()
        held = self._seen.pop(key, None) or _Allowance(most, now)
        self._seen[key] = held
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        held.lines = min(float(most), held.lines + (now - held.at) / every_s)
        held.at = now
        if held.lines < 1.0:
            held.dropped += 1
            self.dropped += 1
            return False
        held.lines -= 1.0
        if held.dropped:
            _say_dropped(record, held.dropped)
            held.dropped = 0
        return True


def _key(record: logging.LogRecord) -> tuple[str, str]:
    """Event and peer of a line of ours; of a library's, who said it and with which words, but not about what."""
    said: Any = record.msg
    if isinstance(said, Mapping):
        fields = cast("Mapping[str, Any]", said)
        event, about = fields.get("event"), next((fields[f] for f in PEER_FIELDS if fields.get(f)), "")
    else:
        event, about = said, next((v for f in PEER_FIELDS if (v := getattr(record, f, ""))), "")
    return f"{record.name} {event}"[:200], str(about)[:200]


def _say_dropped(record: logging.LogRecord, count: int) -> None:
    said: Any = record.msg
    if isinstance(said, dict):
        record.msg = {**cast("dict[str, Any]", said), "dropped": count}
    else:
        record.dropped = count


def lines_dropped() -> int:
    """Lines that were kept back in this process: its log is one, whatever runs in it."""
    filters = (each for handler in logging.getLogger().handlers for each in handler.filters)
    return sum(each.dropped for each in filters if isinstance(each, LineBound))
