"""What is said in a notice, and what somebody else's notice shows that this node lacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from comity.node.core import Core
from comity.node.outgoing import News
from comity.protocol.limits import NOTICE_BYTES_MAX, NOTICE_HEADS_MAX, NOTICE_RECORDS_MAX
from comity.protocol.notices import Notice, SlotHead, decode_notice, encode_notice

PENDING_MAX: Final = 1_024
"""Ids and heads of its own that a node has yet to tell of. Of what is beyond, the oldest come by pull."""


class Pending:
    """What this node has yet to tell of."""

    def __init__(self, coalition: bytes) -> None:
        self._coalition = coalition
        self._records: dict[bytes, None] = {}
        self._heads: dict[tuple[str, str], SlotHead] = {}

    def __bool__(self) -> bool:
        return bool(self._records or self._heads)

    def add(self, news: News) -> None:
        """Take news; of one slot only the newest head is told of."""
        for record in news.records:
            self._records[record] = None
        for head in news.heads:
            self._heads.pop((head.asset, head.partition), None)
            self._heads[head.asset, head.partition] = head
        for pending in (self._records, self._heads):
            while len(pending) > PENDING_MAX:
                del pending[next(iter(pending))]  # type: ignore[arg-type]

    def take(self) -> bytes:
        """The next notice, with what has waited longest and fits."""
        records = tuple(self._records)[:NOTICE_RECORDS_MAX]
        heads = tuple(self._heads.values())[:NOTICE_HEADS_MAX]
        for record in records:
            del self._records[record]
        while True:
            data = encode_notice(Notice(self._coalition, records, heads))
            if len(data) <= NOTICE_BYTES_MAX:
                break
            heads = heads[: len(heads) // 2]
        for head in heads:
            del self._heads[head.asset, head.partition]
        return data


@dataclass(frozen=True, slots=True)
class Lacking:
    """What is to be pulled: records by id, and heads by asset and partition."""

    records: tuple[bytes, ...] = ()
    heads: tuple[tuple[str, str], ...] = ()


def lacking(core: Core, member: str, payload: bytes) -> Lacking:
    """What a notice of this member names that this node lacks and has a use for.

    Of partners' heads it has a use for those of slots of which it knows an older one, and for one of every asset
    that it knows nothing of.

    Raises:
        DecodeError: it is no notice.
    """
    notice = decode_notice(payload)
    if notice.coalition != core.coalition or member not in core.holdings.epoch.members:
        return Lacking()
    records = tuple(r for r in notice.records if core.holdings.peek(r) is None)
    return Lacking(records, tuple(_heads_wanted(core, member, notice.heads)))


def _heads_wanted(core: Core, member: str, heads: Iterable[SlotHead]) -> Iterable[tuple[str, str]]:
    for head in heads:
        if core.holdings.epoch.writer_of(head.asset) != member:
            continue
        known = core.store.heads(head.asset, head.partition, coalition=core.coalition)
        older = bool(known) and known[0].generation < head.generation
        if older or not core.store.heads(head.asset, coalition=core.coalition):
            yield head.asset, head.partition
