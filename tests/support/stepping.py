"""Steps of Dagster as a node sees them: what is asked for, decided and made, on the nodes of `nodes`."""

from __future__ import annotations

import dataclasses

from comity.node import drafts, steps, work
from comity.node.forms import ActuationForm, InputForm, OutputForm, StartForm, StepAnswer, StepForm
from comity.protocol.identifiers import sha256
from nodes import RunningNode
from world import World

CODE = sha256(b"code").hex()


def defaults(world: World, name: str) -> drafts.Defaults:
    return drafts.Defaults(purpose="care", credential=world[name].credentials["automation/main"][1].id)


def step(output: str, *inputs: str, run: str = "run-1", **changes: object) -> StepForm:
    form = StepForm(
        orchestrator="dagster",
        run=run,
        step=output,
        job="job",
        code=CODE,
        outputs=[OutputForm(asset=output)],
        inputs=[InputForm(asset=name) for name in inputs],
    )
    return dataclasses.replace(form, **changes)  # type: ignore[arg-type]


async def submit(node: RunningNode, world: World, form: StepForm) -> StepAnswer:
    for entry in form.inputs:
        if "/" in entry.asset:
            await node.service.fetch_head(entry.asset, entry.partition)
    answer = await node.service.call(lambda: steps.submit(node.core, form, defaults(world, node.name)))
    if answer.outcome == "ungoverned":
        return answer
    intent = bytes.fromhex(answer.intent)
    await node.service.wait_for(intent, lambda: settled(node, intent), 30)
    return await node.service.call(lambda: steps.answer(node.core, intent))


def settled(node: RunningNode, intent: bytes) -> bool:
    pursuit = node.core.requester.pursuit(intent)
    return pursuit is not None and pursuit.standing != "asking"


async def make(node: RunningNode, answer: StepAnswer, content: bytes, columns: tuple[str, ...] = ()) -> str:
    """Do the work: start, then say what was made. Returns the sidecar."""
    output = answer.outputs[0]
    started = await node.service.call(
        lambda: work.start(node.core, StartForm(answer.intent, output.asset, output.partition))
    )
    made = await node.service.call(
        lambda: work.actuate(
            node.core,
            ActuationForm(
                intent=answer.intent,
                start=started.start,
                asset=output.asset,
                digest=sha256(content).hex(),
                size=len(content),
                media_type="text/csv",
                rows=3,
                columns=list(columns),
            ),
        )
    )
    return made.sidecar
