"""Steps over the local API: what has to be fetched before they are judged, and the waiting for a decision."""

from __future__ import annotations

from functools import partial
from typing import Final

import trio

from comity.node import drafts, steps, views, work
from comity.node.config import Config
from comity.node.core import Core
from comity.node.drafts import Defaults
from comity.node.forms import ReadAnswer, ReadForm, StepAnswer, StepForm
from comity.node.heads import standing_heads
from comity.node.problems import Refused
from comity.node.revocations import state_of
from comity.node.service import Service
from comity.protocol.errors import DecodeError
from comity.protocol.governance import Credential
from comity.protocol.limits import INPUTS_PER_CLASS_MAX, ITEMS_MAX

HEAD_KNOWN_S: Final = 3.0
"""How long a newer version of an input is looked for where one is known. A writer that is down answers never."""
HEAD_UNKNOWN_S: Final = 10.0
HEADS_AT_ONCE: Final = 8
WAIT_S_MAX: Final = 600.0


async def submit(service: Service, config: Config, form: StepForm) -> StepAnswer:
    """File a step's intent and wait for a decision as long as the form says."""
    _require_bounds(form)
    await prepare(service, form)
    core = service.core

    def filed() -> StepAnswer:
        return steps.submit(core, form, defaults_of(core, config))

    answered = await service.call(filed)
    if _is_final(answered):
        return answered
    return await wait(service, bytes.fromhex(answered.intent), min(form.wait_s, config.wait_max_s))


async def wait(service: Service, intent: bytes, wait_s: float) -> StepAnswer:
    """Where an intent stands, once that is a decision or the time is over."""
    core = service.core
    answered = await service.call(partial(steps.answer, core, intent))
    if not _is_final(answered) and wait_s > 0:
        await service.wait_for(intent, lambda: _is_final(steps.answer(core, intent)), wait_s)
        answered = await service.call(partial(steps.answer, core, intent))
    return answered


async def read(service: Service, form: ReadForm) -> ReadAnswer:
    """Verify an input's bytes.

    Where they are read for an intent, the decision says which version that is. Elsewhere it is the newest: the writer
    is asked for it, for an older version is genuine, too. Where the writer is not in reach, the newest that is known
    here counts, or what lies beside the bytes.
    """
    core = service.core
    if not form.intent:
        asset = await service.call(partial(drafts.asset_id, core, form.asset))
        known = await service.call(
            lambda: bool(standing_heads(core.store, core.holdings, asset, form.partition))
        )
        await fetch_heads(service, [(asset, form.partition, known)])
    return await service.call(partial(work.read, core, form))


async def prepare(service: Service, form: StepForm) -> None:
    """Have the newest heads of partners' inputs here, as far as their writers are up.

    Raises:
        Refused: a sidecar is none.
    """
    core = service.core
    sidecars = [entry.sidecar for entry in form.inputs if entry.sidecar]
    for sidecar in sidecars:
        try:
            await service.call(partial(work.admit_sidecar, core, sidecar))
        except DecodeError as exc:
            raise Refused("sidecar_unreadable", str(exc), 422) from exc
    await fetch_heads(service, await service.call(partial(_partner_inputs, core, form)))


async def look_around(service: Service) -> None:
    """Ask the partners that are up for the assets that policy names."""
    core = service.core
    names = await service.call(partial(views.published_names, core))
    slots = [(name, "", True) for name in names[: 4 * INPUTS_PER_CLASS_MAX]]
    await fetch_heads(service, slots)


async def fetch_heads(service: Service, slots: list[tuple[str, str, bool]]) -> None:
    """Ask writers for the heads of slots (asset, partition, whether one is known), some at a time."""
    places = trio.CapacityLimiter(HEADS_AT_ONCE)

    async def fetch(asset: str, partition: str, known: bool) -> None:  # noqa: FBT001  one field of a slot
        async with places:
            with trio.move_on_after(HEAD_KNOWN_S if known else HEAD_UNKNOWN_S):
                await service.fetch_head(asset, partition)

    async with trio.open_nursery() as nursery:
        for slot in slots:
            nursery.start_soon(fetch, *slot)


def _partner_inputs(core: Core, form: StepForm) -> list[tuple[str, str, bool]]:
    """The governed inputs that others write, each with whether a head is known."""
    if not drafts.is_governed(core, form):
        return []
    governance = core.holdings.governance()
    slots: dict[tuple[str, str], bool] = {}
    for entry in form.inputs:
        asset = drafts.asset_id(core, entry.asset)
        if governance is None or not governance.governs(asset):
            continue
        if core.holdings.epoch.writer_of(asset) != core.identity.member:
            known = bool(standing_heads(core.store, core.holdings, asset, entry.partition))
            slots[asset, entry.partition] = known
    return [(asset, partition, known) for (asset, partition), known in sorted(slots.items())]


def _require_bounds(form: StepForm) -> None:
    if not 0 <= form.wait_s <= WAIT_S_MAX:
        raise Refused("form_invalid", f"wait_s: from 0 to {WAIT_S_MAX:g} seconds", 422)
    if len(form.outputs) > ITEMS_MAX or len(form.inputs) > ITEMS_MAX:
        raise Refused("form_invalid", f"at most {ITEMS_MAX} outputs and inputs", 422)


def _is_final(answered: StepAnswer) -> bool:
    return answered.outcome not in ("defer", "held")


def defaults_of(core: Core, config: Config) -> Defaults:
    """What fills in where a step says nothing: by configuration, or the credential that the node's key holds."""
    credential = config.automation or own_automation(core)
    return Defaults(purpose=config.purpose, credential=credential)


def own_automation(core: Core) -> bytes | None:
    """The newest credential for automation that this node's own key holds, and that is in force.

    One that names a class which the taxonomy does not have would be refused: it comes after all others.
    """
    now = core.clock.now()
    governance = core.holdings.governance()
    known = {each.name for each in governance.taxonomy.classes} if governance is not None else set[str]()
    held = [
        record
        for record in core.holdings.state.of_kind("credential")
        if isinstance(record.body, Credential)
        and record.member == core.identity.member
        and record.body.subject_kind == "automation"
        and record.body.key == core.identity.author.signer.public
        and record.body.not_before <= now < record.body.not_after
        and not state_of(core, record)
    ]
    newest = max(
        held,
        key=lambda r: (known.issuperset(r.body.classes), r.header.at, r.header.number, r.id),
        default=None,
    )
    return newest.id if newest is not None else None
