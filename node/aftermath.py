"""What follows from versions that were found wrong, said by this node: taken back, marked, and told in the log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

import structlog

from comity.attestation.aftermath import mark, take_back
from comity.attestation.authoring import Author
from comity.attestation.holdings import Holdings
from comity.attestation.speaking import is_report
from comity.node.heads import standing_heads
from comity.node.store import Store, used_subject
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Actuation
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]

log = structlog.get_logger("comity.node")

LOOKS_PER_TURN_MAX: Final = 32
"""Versions that are looked at before the node does something else: of each at most a millisecond or two."""


class Unsettled:
    """The versions that have to be looked at again, in the order in which the reason for it came."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._made: OrderedDict[bytes, None] = OrderedDict()
        self._authors: OrderedDict[str, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._wrong or self._made or self._authors)

    def add(self, record: AnyRecord, find: Callable[[bytes], AnyRecord | None]) -> None:
        """Note what a record that is held from now on may change."""
        if is_report(record):
            self._wrong.update(dict.fromkeys(record.header.subject))
        elif record.header.kind in ("revocation", "suspension"):
            for said in map(find, record.header.subject):
                if said is None or not is_report(said):
                    # What was said under an authority that is taken back is said no more.
                    self._authors[record.member] = None
                else:
                    self._wrong.update(dict.fromkeys(said.header.subject))
        elif isinstance(record.body, Actuation) and record.header.outcome == "promoted":
            self._wrong[record.id] = self._made[record.id] = None

    def add_made(self, made: Iterable[bytes]) -> None:
        """Look at what was made from something again."""
        self._made.update(dict.fromkeys(made))

    def take(self, holdings: Holdings) -> tuple[list[AnyRecord], list[AnyRecord]]:
        """A few versions that something was said about, and a few whose inputs are to be looked at."""
        while self._authors:
            member, _ = self._authors.popitem(last=False)
            for kind in ("observation", "verification"):
                for said in holdings.state.of_kind(kind):
                    if said.member == member:
                        self._wrong.update(dict.fromkeys(said.header.subject))
        return _first(self._wrong, holdings), _first(self._made, holdings)


def _first(waiting: OrderedDict[bytes, None], holdings: Holdings) -> list[AnyRecord]:
    chosen = [waiting.popitem(last=False)[0] for _ in range(min(LOOKS_PER_TURN_MAX, len(waiting)))]
    held = (holdings.get(i) for i in chosen)
    return [record for record in held if record is not None and isinstance(record.body, Actuation)]


def aftermath_to_publish(
    unsettled: Unsettled, holdings: Holdings, store: Store, author: Author, now: int
) -> list[SignedRecord]:
    """What this node has to say of the versions that came to be looked at. The log tells of it.

    Nothing before the taxonomy and the policies of the epoch are here: without them nobody can weigh anything.
    """
    if not unsettled or holdings.governance() is None:
        return []
    said: list[SignedRecord] = []
    wrong, made = unsettled.take(holdings)
    for version in wrong:
        newest = newest_of(store, holdings, version)
        answer = take_back(holdings, author, version, now, is_newest=newest == version.id)
        if answer is not None:
            log.warning(
                "version_taken_back",
                asset=version.body.asset,
                partition=version.body.partition,
                actuation=version.id.hex(),
                outcome=answer.header.outcome,
            )
            said.append(answer)
        unsettled.add_made(made_from(store, holdings, version.id))
    for version in made:
        for each in mark(holdings, author, version, now):
            if each.header.kind == "observation":
                log.warning("version_marked", asset=version.body.asset, actuation=version.id.hex())
            else:
                log.info("version_unmarked", asset=version.body.asset, actuation=version.id.hex())
            said.append(each)
    return said


def newest_of(store: Store, holdings: Holdings, version: AnyRecord) -> bytes | None:
    """The version that counts as the newest of the slot that a version is of."""
    body: Actuation = version.body
    heads = standing_heads(store, holdings, body.asset, body.partition, version.header.realm)
    return heads[0].actuation if heads else None


def made_from(store: Store, holdings: Holdings, made: bytes) -> Iterator[bytes]:
    """Ids of the promoted actuations that are stored here and name one as their input."""
    subject, after = used_subject(holdings.epoch.coalition, made), b""
    while found := store.about(subject, after=after):
        yield from (record.id for record in found)
        after = found[-1].id
