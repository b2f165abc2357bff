"""What programs and people ask a node for, over its local API: the calls that several tests make."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from comity.node.client import (
    ActuationForm,
    InputForm,
    OutputForm,
    StartForm,
    StepAnswer,
    StepForm,
)
from comity.node.credentialing import Wish, issued
from comity.protocol.envelope import SignedRecord
from comity.protocol.identifiers import sha256
from houses import RunningHouse, found, hand_of, inhabited
from world import NORTH

CODE = sha256(b"code").hex()
SOLO = (NORTH,)


@asynccontextmanager
async def solo(place: Path, **options: Any) -> AsyncGenerator[RunningHouse]:
    """The node of a coalition of one, with a credential for automation."""
    homes = found(place, SOLO, **options)
    async with inhabited(homes) as houses:
        await equip(houses[NORTH])
        yield houses[NORTH]


async def equip(house: RunningHouse, **changes: Any) -> SignedRecord:
    """Publish a credential that the node's own key holds."""
    wish = Wish("node/n1", "automation", ("data-steward",), node_key=True, assets=("**",))
    record, _ = issued(hand_of(house.home), dataclasses.replace(wish, **changes))
    await submit_record(house, record)
    return record


async def submit_record(house: RunningHouse, record: SignedRecord) -> Any:
    return await house.ask(lambda client: client.submit_record(record.encoded()), "operator")


def step(output: str, *inputs: str, **changes: Any) -> StepForm:
    form = StepForm(
        orchestrator="dagster",
        run="run-1",
        step=output,
        job="study",
        code=CODE,
        outputs=[OutputForm(output, media_type="text/csv")],
        inputs=[InputForm(name) for name in inputs],
        wait_s=10.0,
    )
    return dataclasses.replace(form, **changes)


async def submit(house: RunningHouse, form: StepForm) -> StepAnswer:
    return await house.ask(lambda client: client.submit_step(form))


async def make(house: RunningHouse, answer: StepAnswer, content: bytes) -> str:
    """Do the work that was permitted; answers with the sidecar."""
    (output,) = answer.outputs
    started = await house.ask(lambda client: client.start(StartForm(answer.intent, output.asset)))
    form = ActuationForm(
        intent=answer.intent,
        start=started.start,
        asset=output.asset,
        digest=sha256(content).hex(),
        size=len(content),
        media_type="text/csv",
        rows=1,
        columns=output.columns,
    )
    made = await house.ask(lambda client: client.actuate(form))
    return made.sidecar


async def released(house: RunningHouse) -> str:
    """`patients`, and `released` from it. Answers with the sidecar of the latter."""
    await make(house, await submit(house, step("patients", purpose="survival_study")), b"patients")
    answer = await submit(house, step("released", "patients", purpose="survival_study"))
    assert answer.outcome == "restrict", answer
    return await make(house, answer, b"released")


def coalition(house: RunningHouse) -> bytes:
    return bytes.fromhex(house.ready.coalition)
