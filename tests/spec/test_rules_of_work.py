"""Rules of docs/spec on the use of a permit, each shown by the node that has to keep it (decision.md section 7)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from comity.node import drafts, steps, work
from comity.node.answering import answer_peer
from comity.node.core import Core, Identity
from comity.node.forms import ActuationAnswer, ActuationForm, OutputForm, StartForm, StepAnswer, StepForm
from comity.node.problems import Refused
from comity.node.store_memory import MemoryStore
from comity.protocol.frames import AskFrame, VoteFrame, decode_answer, encode_frame
from comity.protocol.identifiers import sha256
from nodes import RunningNode, running
from world import ENGINE, FOUR, NORTH, SOUTH, START, World


@pytest.fixture
def autojump(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


@asynccontextmanager
async def north_of_four() -> AsyncGenerator[tuple[World, RunningNode]]:
    world = World(FOUR)
    async with running(world) as nodes:
        yield world, nodes[NORTH]


async def permitted(node: RunningNode, world: World, run: str) -> StepAnswer:
    """A run that may make `plain/a`; each run has a code of its own, else it resumes the intent of another."""
    credential = world[node.name].credentials["automation/main"][1].id
    form = StepForm(
        orchestrator="dagster",
        run=run,
        step="a",
        job="job",
        code=sha256(run.encode()).hex(),
        outputs=[OutputForm(asset="plain/a")],
    )
    answer = await node.service.call(
        lambda: steps.submit(node.core, form, drafts.Defaults(purpose="care", credential=credential))
    )
    intent = bytes.fromhex(answer.intent)

    def settled() -> bool:
        pursuit = node.core.requester.pursuit(intent)
        return pursuit is not None and pursuit.standing == "permitted"

    await node.service.wait_for(intent, settled, 30)
    return await node.service.call(lambda: steps.answer(node.core, intent))


async def started(node: RunningNode, answer: StepAnswer) -> Any:
    (output,) = answer.outputs
    return await node.service.call(
        lambda: work.start(node.core, StartForm(answer.intent, output.asset, output.partition))
    )


async def made(node: RunningNode, answer: StepAnswer, start: str) -> ActuationAnswer:
    form = ActuationForm(
        answer.intent, start, answer.outputs[0].asset, sha256(b"x").hex(), size=1, media_type="text/csv"
    )
    return await node.service.call(lambda: work.actuate(node.core, form))


async def test_a_start_is_on_disk_before_work_begins(
    autojump: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told of a start has it in a durable transaction that has ended."""
    durably: set[bytes] = set()
    original = MemoryStore.batch

    def ids(store: MemoryStore) -> set[bytes]:
        return {record_id for record_id, _ in store.ids(bytes(32), b"\xff" * 32, 1_000_000)}

    @contextmanager
    def watched(store: MemoryStore, *, durable: bool = False) -> Generator[None]:
        before = ids(store)
        with original(store, durable=durable):
            yield
        if durable:
            durably.update(ids(store) - before)

    async with north_of_four() as (world, north):
        answer = await permitted(north, world, "run-1")
        monkeypatch.setattr(MemoryStore, "batch", watched)
        begun = await started(north, answer)
        assert bytes.fromhex(begun.start) in durably


async def test_what_comes_during_the_work_stops_its_promotion(autojump: object) -> None:
    async with north_of_four() as (world, north):
        answer = await permitted(north, world, "run-1")
        begun = await started(north, answer)
        credential = world[NORTH].credentials["automation/main"][1].id
        await north.service.call(lambda: north.core.publish([world[NORTH].revoke(credential)]))
        with pytest.raises(Refused) as caught:
            await made(north, answer, begun.start)
        assert caught.value.code == "adverse_held"


async def test_of_runs_that_overlap_the_first_has_the_slot(autojump: object) -> None:
    """Both were permitted for one slot. The other is stopped before its start, and before its promotion."""
    async with north_of_four() as (world, north):
        first, second, third = [await permitted(north, world, f"run-{n}") for n in (1, 2, 3)]
        begun = [await started(north, answer) for answer in (first, second)]
        assert (await made(north, first, begun[0].start)).actuation
        with pytest.raises(Refused) as caught:
            await made(north, second, begun[1].start)
        assert caught.value.code == "slot_taken"
        with pytest.raises(Refused) as caught:
            await started(north, third)
        assert caught.value.code == "slot_taken"


class Standing:
    """A clock that stands."""

    started = START - 3600

    def now(self) -> int:
        return START

    def seconds(self) -> float:
        return float(START)

    def monotonic(self) -> float:
        return 0.0


def core_of(world: World, name: str) -> Core:
    identity = Identity(name, f"spiffe://{name}/node/n1", world[name].node)
    core = Core(identity, MemoryStore(bytes(16)), Standing(), ENGINE, (world.genesis,))
    core.admit(world.common)
    core.drain()
    return core


@pytest.mark.parametrize("sender", ["", f"spiffe://{SOUTH}/node/n1", f"spiffe://{FOUR[-1]}/node/n1"])
def test_who_sent_a_request_changes_no_judgement(sender: str) -> None:
    """One ask, handed in by its author, by its voter's own organization, or by a third: the same vote, to the byte."""
    world = World(FOUR)
    pursuit = world.decide(world[NORTH].intent("plain/a"))
    frame = encode_frame(
        AskFrame(ask=pursuit.ask.record.encoded(), records=(pursuit.intent.record.encoded(),))
    )
    expected = answer_peer(core_of(world, SOUTH), frame, f"spiffe://{NORTH}/node/n1")
    answered = answer_peer(core_of(world, SOUTH), frame, sender)
    assert isinstance(answered, bytes)
    assert isinstance(decode_answer(answered), VoteFrame)
    assert answered == expected
