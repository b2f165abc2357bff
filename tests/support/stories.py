"""Longer stories in the world, told once and used by several tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from comity.attestation.exporting import export_bundle
from comity.attestation.roots import Roots
from comity.protocol.bundle import Bundle
from comity.protocol.envelope import SignedRecord
from world import FOUR, INSTITUTE, NORTH, SOUTH, START, YEAR, World

COLUMNS = ("inst", "time", "status", "age", "sex", "ph_ecog", "meal_cal", "age_decade")


def permit_of(world: World, intent: SignedRecord, *offered: SignedRecord) -> SignedRecord:
    pursuit = world.decide(intent, offered)
    assert pursuit.standing == "permitted", (pursuit.causes, pursuit.needs)
    record: SignedRecord = pursuit.permit.record
    return record


def share(world: World, source: str, target: str) -> None:
    """What a consumer pulls: all execution records that the source holds."""
    source_holdings, holdings = world[source].holdings, world[target].holdings
    records = [source_holdings.get(i) for i in tuple(source_holdings._execution)]
    holdings.admit([r.record for r in records if r is not None])


def released(world: World, name: str, run: str = "run-1") -> SignedRecord:
    """A promoted actuation of `released`, made by a clinic from its patients."""
    clinic = world[name]
    patients = clinic.actuate(permit_of(world, clinic.intent("patients", run=run)))
    intent = clinic.intent(
        "released", inputs=(patients.id,), columns=COLUMNS, purpose="survival_study", run=run
    )
    return clinic.actuate(permit_of(world, intent))


@dataclass
class Pooled:
    """Two clinics release, the institute pools: the story of most bundles."""

    world: World
    target: SignedRecord
    refused: Any

    @classmethod
    def told(cls) -> Pooled:
        world = World(FOUR)
        institute = world[INSTITUTE]
        inputs = []
        for name in (NORTH, SOUTH):
            inputs.append(released(world, name).id)
            share(world, name, INSTITUTE)
        world.tell(world[SOUTH].owner_policy(released=("standing", START + YEAR)))
        intent = institute.intent("plain/pool", inputs=tuple(inputs))
        target = institute.actuate(permit_of(world, intent, institute.evidence(intent)))
        refused = world.decide(institute.intent("forbidden/x", inputs=tuple(inputs), run="run-2"))
        return cls(world, target, refused)

    def bundle(self) -> Bundle:
        return export_bundle((self.target.id,), self.world[INSTITUTE].holdings)

    def refusal_bundle(self) -> Bundle:
        return export_bundle((self.refused.refusal.id,), self.world[INSTITUTE].holdings)

    def roots(self) -> Roots:
        genesis = self.world.genesis.id
        return Roots(coalition=genesis, epoch_number=0, epoch=genesis, name="test", made=START)
