"""What people are told without looking: what waits for them, what was refused, what is held, and what came of it.

What is known of intents is read off the core, as the views read it; what is new of it is the difference between two
looks. A node that begins tells again what waits, for nobody knows whether it was told before; of what was refused
before it tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import trio

from comity.node import views
from comity.node.config import Config
from comity.node.core import Core
from comity.node.service import Service
from comity.node.standings import standing_of
from comity.node.watch import Watch
from comity.node.webhook import Webhook
from comity.protocol.execution import Intent
from comity.protocol.verified import VerifiedRecord

Event: TypeAlias = Literal["waits", "held", "refused", "decided"]
Json: TypeAlias = Any

VERSION: Final = 1
"""Of what is told. Fields may be added; a changed meaning is another number."""
REFUSED_MAX: Final = 50
"""Newest refusals of own intents that a look compares: more than come about in a second."""
REMEMBERED_MAX: Final = 2_000
"""Intents of which is remembered what was told: more than wait at a time. Of more the oldest may be told again."""
LOOK_AGAIN_S: Final = 30.0
"""What a watch does not see, such as that time passes, is found so late."""
_SETTLED: Final = frozenset({"permitted", "refused", "expired"})


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is to tell, by intent.

    Attributes:
        waiting: intents that wait for something, as `views.waiting` shows them.
        refused: own intents that were refused.
        asking: intents on their way, of which nothing new can be said.
        settled: of the intents that were asked about, those that are decided or over, with how.
    """

    waiting: Mapping[str, Json] = field(default_factory=dict[str, Json])
    refused: Mapping[str, Json] = field(default_factory=dict[str, Json])
    asking: frozenset[str] = frozenset()
    settled: Mapping[str, Json] = field(default_factory=dict[str, Json])


def situation(core: Core, known: Collection[str]) -> Situation:
    """What there is to tell now. A function of the core.

    Args:
        known: intents that somebody was told wait: what became of them is looked up.
    """
    rows = views.waiting(core)
    refused: dict[str, Json] = {}
    for row in core.store.intents(status={"refused"}, limit=REFUSED_MAX):
        record = core.holdings.get(row.intent)
        if record is not None:
            refused[row.intent.hex()] = views.intent_row(core, record)
    settled: dict[str, Json] = {}
    for each in known:
        record = core.holdings.get(bytes.fromhex(each))
        if record is not None and isinstance(record.body, Intent) and _is_settled(core, record):
            settled[each] = views.intent_row(core, record)
    return Situation(
        {row["intent"]: row for row in rows if row["standing"] != "asking"},
        refused,
        frozenset(row["intent"] for row in rows if row["standing"] == "asking"),
        settled,
    )


def _is_settled(core: Core, record: VerifiedRecord[Intent]) -> bool:
    return standing_of(core, record) in _SETTLED


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell of one intent."""

    event: Event
    row: Json


class Teller:
    """What is new between two looks. No clock, no network."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[Event, str]] = {}
        self._refused: set[str] | None = None

    @property
    def told(self) -> tuple[str, ...]:
        """The intents that somebody was told wait."""
        return tuple(self._told)

    def news(self, now: Situation) -> list[News]:
        """What to tell, and remember that it was told."""
        found: list[News] = []
        for intent, row in now.waiting.items():
            event: Event = "held" if row["standing"] == "held" else "waits"
            lacks = ",".join(sorted(f"{need['code']} {need['message']}" for need in row["needs"]))
            if self._told.get(intent) != (event, lacks):
                self._told.pop(intent, None)
                self._told[intent] = (event, lacks)
                found.append(News(event, row))
        for intent in [each for each in self._told if each not in now.waiting and each not in now.asking]:
            del self._told[intent]
            if intent in now.settled:
                found.append(News("decided", now.settled[intent]))
        waited = {each.row["intent"] for each in found}
        if self._refused is not None:
            fresh = [i for i in now.refused if i not in self._refused and i not in waited]
            found += [News("refused", now.refused[intent]) for intent in fresh]
        self._refused = set(now.refused)
        while len(self._told) > REMEMBERED_MAX:
            del self._told[next(iter(self._told))]
        return found


@dataclass
class Notifier:
    """Tells a webhook what is new, as long as it runs.

    Attributes:
        page: the address of the people's page, for a link; empty where there is none.
    """

    service: Service
    watch: Watch
    config: Config
    page: Callable[[], str]

    async def run(self, webhook: Webhook) -> None:
        """Look and tell until cancelled."""
        teller = Teller()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(webhook.deliver)
            with self.watch.watching():
                while True:
                    # A defect in what is only told ends no node.
                    await self.service.unharmed("this node", partial(self._tell, teller, webhook))
                    await self.watch.news(LOOK_AGAIN_S)

    async def _tell(self, teller: Teller, webhook: Webhook) -> None:
        core = self.service.core
        seen = await self.service.call(partial(situation, core, teller.told))
        for news in teller.news(seen):
            webhook.put(self._said(news, core.clock.now()))

    def _said(self, news: News, now: int) -> Json:
        row = news.row
        page = self.page()
        return {
            "v": VERSION,
            "event": news.event,
            "at": now,
            "member": self.config.member,
            "node": self.config.node,
            "intent": row["intent"],
            "of": row["member"],
            "standing": row["standing"],
            "asked_at": row["at"],
            "requester": row["requester"],
            "purpose": row["purpose"],
            "realm": row["realm"],
            "run": row["run"],
            "assets": row["assets"],
            "causes": row.get("causes", []),
            "needs": row.get("needs", []),
            "page": f"{page}#/intent/{row['intent']}" if page else "",
        }
