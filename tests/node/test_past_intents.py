"""What a node takes up again after a restart: its own intents, by what it wrote itself."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from comity.attestation.authoring import NO_SALT
from comity.node import drafts, steps, views
from comity.node.forms import OutputForm, StepForm
from comity.protocol.execution import Ask, Permit, ScopeEpoch
from comity.protocol.identifiers import sha256
from comity.protocol.limits import ASKS_PER_INTENT_MAX
from nodes import RunningNode, running, until
from world import BOARD, INSTITUTE, NORTH, SOUTH, World


async def submit(node: RunningNode, world: World) -> bytes:
    form = StepForm(
        orchestrator="dagster",
        run="run-1",
        step="plain/a",
        job="job",
        code=sha256(b"code").hex(),
        outputs=[OutputForm("plain/a")],
    )
    defaults = drafts.Defaults(purpose="care", credential=world[NORTH].credentials["automation/main"][1].id)
    answer = await node.service.call(lambda: steps.submit(node.core, form, defaults))
    return bytes.fromhex(answer.intent)


def standing(node: RunningNode, intent: bytes) -> str:
    pursuit = node.core.requester.pursuit(intent)
    return pursuit.standing if pursuit is not None else ""


async def again(node: RunningNode, nodes: dict[str, RunningNode], nursery: trio.Nursery) -> RunningNode:
    """The node in a new process over its store, connected with whoever runs."""
    await node.stop()
    back = node.reborn()
    back.core.resume()
    back.transport.set_peers([other.peer for other in nodes.values() if other.name != node.name])
    await nursery.start(back.run)
    nodes[node.name] = back
    return back


def connected(nodes: dict[str, RunningNode]) -> bool:
    return all(len(node.service.connected()) == len(nodes) - 1 for node in nodes.values())


async def test_a_held_intent_survives_a_restart_under_its_id(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with running(world) as nodes, trio.open_nursery() as nursery:
        await until(lambda: connected(nodes))
        for name in (SOUTH, BOARD):
            await nodes[name].stop()
        intent = await submit(nodes[NORTH], world)
        await until(lambda: standing(nodes[NORTH], intent) == "held")
        (row,) = views.waiting(nodes[NORTH].core)
        assert row["goes_on_by_itself"]
        assert {name for name, vote in row["votes"].items() if vote == "silent"} == {SOUTH, BOARD}
        pursuit = nodes[NORTH].core.requester.pursuit(intent)
        assert pursuit is not None
        await until(lambda: pursuit.asks == 3 and pursuit.standing == "held")
        asks = pursuit.asks
        north = await again(nodes[NORTH], nodes, nursery)
        await until(lambda: standing(north, intent) == "held")
        await until(lambda: north.core.requester.pursuit(intent).asks == asks + 1)  # type: ignore[union-attr]
        assert [each["intent"] for each in views.waiting(north.core)] == [intent.hex()]
        back = await again(nodes[SOUTH], nodes, nursery)
        await until(lambda: back.core.voter.votes(back.core.clock.now()))
        await until(lambda: standing(north, intent) == "permitted")
        nursery.cancel_scope.cancel()


async def test_an_expired_intent_is_said_to_be_so_after_a_restart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    async with running(world) as nodes, trio.open_nursery() as nursery:
        await until(lambda: connected(nodes))
        for name in (SOUTH, BOARD):
            await nodes[name].stop()
        intent = await submit(nodes[NORTH], world)
        pursuit = nodes[NORTH].core.requester.pursuit(intent)
        assert pursuit is not None
        pursuit.asks = ASKS_PER_INTENT_MAX - 1
        await until(lambda: standing(nodes[NORTH], intent) == "expired")
        for _ in range(2):
            node = nodes[NORTH]
            shown = views.intent(node.core, intent)
            assert (shown["standing"], shown["outcome"]) == ("expired", "refuse")
            assert shown["causes"][0]["code"] == "intent_expired"
            assert shown["asks"] == ASKS_PER_INTENT_MAX
            assert views.waiting(node.core) == []
            await again(node, nodes, nursery)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("lie", ["ask", "permit"])
async def test_what_others_say_of_an_intent_says_not_where_it_stood(
    autojump_clock: trio.testing.MockClock, lie: str
) -> None:
    """A member writes an ask, or a permit, of a far t for another's intent. After a restart that holds up nothing."""
    world = World()
    async with running(world) as nodes, trio.open_nursery() as nursery:
        await until(lambda: connected(nodes))
        down = (SOUTH, BOARD) if lie == "ask" else ()
        for name in down:
            await nodes[name].stop()
        intent = await submit(nodes[NORTH], world)
        await until(lambda: standing(nodes[NORTH], intent) == ("held" if down else "permitted"))
        north = nodes[NORTH]
        pursuit = north.core.requester.pursuit(intent)
        assert pursuit is not None
        assert pursuit.ask is not None
        liar, far = world[INSTITUTE].node, north.core.clock.now() + 10_000_000
        ask = Ask(NO_SALT, intent, far, (ScopeEpoch(world.genesis.id, world.genesis.id),), ())
        said = liar.write("ask", ask, far, subject=(intent,))
        records = [said]
        if pursuit.permit is not None:
            body: Permit = pursuit.permit.body
            forged = Permit(
                salt=NO_SALT,
                intent=intent,
                ask=said.id,
                t=far,
                scope=body.scope,
                epoch=body.epoch,
                claims=body.claims,
                votes=body.votes,
                expires=far + 600,
            )
            records.append(liar.write("permit", forged, far, subject=(intent,)))
        await north.service.call(lambda: north.core.admit(records))
        north = await again(north, nodes, nursery)
        if pursuit.permit is not None:
            taken = north.core.requester.pursuit(intent)
            assert taken is not None
            assert taken.permit is not None
            assert taken.permit.id == pursuit.permit.id
        for name in down:
            await again(nodes[name], nodes, nursery)
        await until(lambda: standing(north, intent) == "permitted")
        nursery.cancel_scope.cancel()
