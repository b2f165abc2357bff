"""A member that comes back votes a few seconds later, and who waited for it does not wait for long."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from comity.attestation.requester import HURRIES_MAX
from comity.node import drafts, steps
from comity.node.forms import InputForm, OutputForm, StepForm
from comity.node.store_memory import MemoryStore
from comity.protocol.identifiers import sha256
from comity.protocol.limits import ASK_BACKOFF_S_MIN, START_MARGIN_S
from nodes import RunningNode, running, until
from world import BOARD, INSTITUTE, NORTH, SOUTH, World

pytestmark = pytest.mark.usefixtures("gossip")


def form(output: str, *inputs: str) -> StepForm:
    return StepForm(
        orchestrator="dagster",
        run="run-1",
        step=output,
        job="job",
        code=sha256(b"code").hex(),
        outputs=[OutputForm(output)],
        inputs=[InputForm(name) for name in inputs],
    )


async def submit(node: RunningNode, world: World, wanted: StepForm) -> bytes:
    credential = world[node.name].credentials["automation/main"][1].id
    defaults = drafts.Defaults(purpose="care", credential=credential)
    answer = await node.service.call(lambda: steps.submit(node.core, wanted, defaults))
    return bytes.fromhex(answer.intent)


def standing(node: RunningNode, intent: bytes) -> str:
    pursuit = node.core.requester.pursuit(intent)
    return pursuit.standing if pursuit is not None else ""


async def test_a_quorum_that_restarts_decides_within_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """Two of four come back at once: both say that they are starting, and are asked again when they vote."""
    world = World()
    async with running(world) as nodes, trio.open_nursery() as nursery:
        await until(lambda: all(len(node.service.connected()) == 3 for node in nodes.values()))
        for name in (SOUTH, BOARD):
            await nodes[name].stop()
        north = nodes[NORTH]
        intent = await submit(north, world, form("plain/a"))
        await until(lambda: standing(north, intent) == "held")
        for name in (SOUTH, BOARD):
            again = nodes[name].reborn()
            again.transport.set_peers([node.peer for node in nodes.values() if node.name != name])
            await nursery.start(again.run)
        began = trio.current_time()
        await until(lambda: standing(north, intent) == "permitted")
        assert trio.current_time() - began < START_MARGIN_S + ASK_BACKOFF_S_MIN
        nursery.cancel_scope.cancel()


async def test_who_always_says_that_it_is_starting_hurries_nobody_for_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A liar cannot use up the asks of an intent: after a few early ones they come with growing pauses."""
    world = World()
    async with running(world) as nodes:
        await until(lambda: all(len(node.service.connected()) == 3 for node in nodes.values()))
        for name in (SOUTH, BOARD):
            node = nodes[name]
            node.core.voter._started = 2**40
        north = nodes[NORTH]
        intent = await submit(north, world, form("plain/a"))
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(300):
            await until(lambda: standing(north, intent) == "permitted", within_s=600)
        pursuit = north.core.requester.pursuit(intent)
        assert pursuit is not None
        # 10, 20, 40, 80 and 160 seconds, after the early ones.
        assert pursuit.asks <= HURRIES_MAX + 7
        assert pursuit.hurries == HURRIES_MAX


@pytest.mark.parametrize("kept", [True, False])
async def test_heads_are_raised_whichever_way_an_actuation_comes(
    autojump_clock: trio.testing.MockClock, *, kept: bool
) -> None:
    """Also one that came attached to an ask, and was therefore held before its writer was asked for its head."""
    world = World()
    async with running(world) as nodes:
        await until(lambda: all(len(node.service.connected()) == 3 for node in nodes.values()))
        from comity.node import work
        from comity.node.forms import ActuationForm, StartForm

        north, south = nodes[NORTH], nodes[SOUTH]
        intent = await submit(north, world, form("plain/a"))
        await until(lambda: standing(north, intent) == "permitted")
        started = await north.service.call(lambda: work.start(north.core, StartForm(intent.hex(), "plain/a")))
        made = ActuationForm(intent.hex(), started.start, "plain/a", sha256(b"a").hex(), 1, "text/plain")
        await north.service.call(lambda: work.actuate(north.core, made))
        if kept:
            # North's next step rests on it, so South sees it with the ask.
            after = await submit(north, world, dataclasses.replace(form("plain/b", "plain/a")))
            await until(lambda: standing(north, after) == "permitted")
        assert isinstance(south.store, MemoryStore)
        await south.service.fetch_head(f"{NORTH}/plain/a", "")
        (head,) = south.store.heads(f"{NORTH}/plain/a")
        assert south.core.holdings.get(head.actuation) is not None


async def test_the_first_vote_after_return_knows_what_was_missed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A credential is revoked while a member is down. Its first vote names the revocation."""
    world = World()
    async with running(world) as nodes, trio.open_nursery() as nursery:
        await until(lambda: all(len(node.service.connected()) == 3 for node in nodes.values()))
        await nodes[SOUTH].stop()
        revocation = world[NORTH].revoke(world[NORTH].credentials["automation/main"][1].id)
        board = nodes[BOARD]
        await board.service.call(lambda: board.core.publish([revocation]))
        await until(
            lambda: all(revocation.id in nodes[name].core.holdings.state for name in (BOARD, INSTITUTE))
        )
        # Without this one there is no quorum but with who comes back.
        await nodes[INSTITUTE].stop()
        again = nodes[SOUTH].reborn()
        assert revocation.id not in again.core.holdings.state
        again.transport.set_peers([node.peer for node in nodes.values() if node.name != SOUTH])
        await nursery.start(again.run)
        north = nodes[NORTH]
        intent = await submit(north, world, form("plain/a"))
        await until(lambda: standing(north, intent) == "refused")
        votes = [r for r in again.store.of_kind("vote") if r.header.member == SOUTH]
        first = again.core.holdings.get(min(votes, key=lambda r: r.header.at).id)
        assert first is not None
        assert first.body.adverse == (revocation.id,)
        nursery.cancel_scope.cancel()


async def test_who_reaches_the_requester_alone_votes_on_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A requester that shows somebody who comes back nothing but its own records gets no vote from it."""
    world = World()
    async with running(world) as nodes, trio.open_nursery() as nursery:
        await until(lambda: all(len(node.service.connected()) == 3 for node in nodes.values()))
        await nodes[SOUTH].stop()
        await nodes[BOARD].stop()
        again = nodes[SOUTH].reborn()
        north = nodes[NORTH]
        again.transport.set_peers([north.peer])
        await nursery.start(again.run)
        intent = await submit(north, world, form("plain/a"))
        with trio.move_on_after(120):
            await until(lambda: standing(north, intent) == "permitted", within_s=600)
        assert standing(north, intent) == "held"
        assert not again.core.voter.votes(again.core.clock.now())
        assert north.core.requester.pursuit(intent).declined[SOUTH] == "starting"  # type: ignore[union-attr]
        again.transport.set_peers([node.peer for node in nodes.values() if node.name != SOUTH])
        await until(lambda: standing(north, intent) == "permitted", within_s=1_200)
        assert again.core.voter.votes(again.core.clock.now())
        nursery.cancel_scope.cancel()
