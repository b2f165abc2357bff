"""Whom a node asks for what gossip told of, where it cannot ask the author: no few nodes can starve the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.gossip.gossip import Heard
from comity.node import gossiping
from comity.node.gossiping import AGAIN_S, OTHERS_MAX, Gossiping, others
from comity.protocol.identifiers import sha256

NAMES = st.integers().map(lambda seed: [f"spiffe://m{number}.example/node/{seed}" for number in range(12)])
AUTHOR = "spiffe://author.example/node/n1"


@given(NAMES, st.binary(max_size=64), st.integers(0, 14), st.integers(0, 3), st.randoms())
def test_equal_arguments_give_equal_nodes(
    names: list[str], about: bytes, count: int, turn: int, random: Any
) -> None:
    names = names[:count]
    asked = others("own", about, names, turn)
    assert len(asked) == min(OTHERS_MAX, len(names))
    assert set(asked) <= set(names)
    random.shuffle(names)
    assert others("own", about, frozenset(names), turn) == asked


@given(NAMES, st.binary(max_size=64))
def test_each_turn_asks_others_as_far_as_there_are_more(names: list[str], about: bytes) -> None:
    asked = [name for turn in range(4) for name in others("own", about, names, turn)]
    assert len(set(asked)) == len(asked) == len(names)
    assert len({*others("own", about, names[:4], 0), *others("own", about, names[:4], 1)}) == 4


@settings(max_examples=20)
@given(NAMES, st.integers())
def test_every_node_is_asked_for_its_share(names: list[str], seed: int) -> None:
    """By each of the others, for many things: so three of a dozen are all that is asked once in 220 times."""
    asked: Counter[str] = Counter()
    together: Counter[frozenset[str]] = Counter()
    for own in names:
        for number in range(40):
            chosen = others(own, b"%d %d" % (seed, number), names)
            asked.update(chosen)
            together[frozenset(chosen)] += 1
    share = len(names) * 40 * OTHERS_MAX / len(names)
    assert all(share / 2 < asked[name] < share * 2 for name in names)
    assert max(together.values()) < share / 4


class Asking:
    """A node that is asked for nothing, and asks others in vain."""

    def __init__(self, own: str, connected: frozenset[str]) -> None:
        self.core = SimpleNamespace(identity=SimpleNamespace(node=own), coalition=bytes(32))
        self.on_news: object = None
        self.asked: list[tuple[float, list[str]]] = []
        self._connected = connected

    def connected_nodes(self) -> frozenset[str]:
        return self._connected

    async def fetch(self, ids: tuple[bytes, ...], nodes: list[str]) -> bool:
        await trio.lowlevel.checkpoint()
        assert ids
        self.asked.append((trio.current_time(), nodes))
        return False


class Deaf:
    def publish(self, payload: bytes) -> None: ...

    def heard(self) -> trio.MemoryReceiveChannel[Heard]:
        return trio.open_memory_channel[Heard](0)[1]


async def asked_by(own: str, record: bytes, connected: frozenset[str]) -> list[tuple[float, list[str]]]:
    service = Asking(own, connected)
    await Gossiping(cast("Any", service), Deaf())._fetch(AUTHOR, (record,))
    return service.asked


@pytest.fixture
def connected() -> frozenset[str]:
    return frozenset(f"spiffe://member-{number}.example/node/n1" for number in range(12))


async def test_a_node_asks_others_than_its_neighbour_and_for_each_thing_others(
    autojump_clock: trio.testing.MockClock, connected: frozenset[str]
) -> None:
    whole = [await asked_by(own, sha256(record), connected) for own in ("a", "b") for record in (b"x", b"y")]
    for asked in whole:
        (first_at, first), (second_at, second) = asked
        assert second_at - first_at == pytest.approx(AGAIN_S)
        assert len({*first, *second}) == 2 * OTHERS_MAX
    assert len({tuple(asked[0][1]) for asked in whole}) == len(whole)


async def test_the_author_itself_is_asked_where_it_can_be_and_once(
    autojump_clock: trio.testing.MockClock, connected: frozenset[str]
) -> None:
    ((_, nodes),) = await asked_by("a", sha256(b"x"), connected | {AUTHOR})
    assert nodes == [AUTHOR]


@pytest.mark.parametrize("helpful", [0, 2])
async def test_who_answers_with_nothing_keeps_no_head_from_anybody(
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    connected: frozenset[str],
    helpful: int,
) -> None:
    head = ("author.example/made", "")
    asked: list[str] = []
    chosen = others("a", b"author.example/made ", connected)

    class Heads(Asking):
        async def call(self, work: Callable[[], object]) -> object:
            await trio.lowlevel.checkpoint()
            return work()

        async def fetch_head_from(self, asset: str, partition: str, nodes: list[str]) -> None:
            await trio.lowlevel.checkpoint()
            assert (asset, partition) == head
            asked.extend(nodes)

    def lacks(*_: object) -> SimpleNamespace:
        return SimpleNamespace(records=(), heads=() if chosen[helpful] in asked else (head,))

    monkeypatch.setattr(gossiping, "lacking", lacks)
    await Gossiping(cast("Any", Heads("a", connected)), Deaf())._look(AUTHOR, b"")
    assert asked == chosen[: helpful + 1]
