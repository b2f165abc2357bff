"""What Dagster says of a run before it is launched: the facts that the intents of its steps are made of.

They are read from the run's plan and from the graph of its code location, and are the same as each step says of itself
when it begins (`step_facts`): then the step finds the intent that was filed for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from comity.dagster_bridge.asset_facts import asset_name, inputs_read, outputs_made, require_few
from comity.dagster_bridge.dagster_instance import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    DagsterRun,
    PartitionKeyRange,
    outputs_of_plan,
)
from comity.dagster_bridge.dagster_internals import partition_loading_context
from comity.dagster_bridge.stores import NO_STORES, Stores
from comity.node.client import (
    LAUNCHED_LATER_MAX,
    LAUNCHED_STEPS_MAX,
    InputForm,
    LaunchedStep,
    OutputForm,
)

if TYPE_CHECKING:
    from comity.dagster_bridge.dagster_internals import AssetGraph

Slot = tuple[str, str]
"""An asset's name, and a partition."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of work: the step or graph that makes some assets, with what it makes and reads.

    `keys` are its assets by name. `inside` are the slots among its inputs that the run itself makes.
    """

    name: str
    keys: Mapping[str, dg.AssetKey]
    outputs: tuple[OutputForm, ...]
    inputs: tuple[InputForm, ...]
    inside: frozenset[Slot] = frozenset()
    outside: tuple[InputForm, ...] = ()
    """The inputs, with those that the run itself makes replaced by what these are made of."""

    def launched(self) -> LaunchedStep:
        return LaunchedStep(self.name, list(self.outputs), list(self.inputs))

    def foreseen(self) -> LaunchedStep:
        """The unit as far as it can be spoken of before what it reads is made."""
        return LaunchedStep(self.name, list(self.outputs), list(self.outside))


@dataclass(frozen=True, slots=True)
class LaunchFacts:
    """The units of a run, in an order in which each comes after those that make what it reads."""

    units: tuple[Unit, ...]
    partitions: tuple[str, ...]
    concerned: frozenset[str] = field(default=frozenset())
    """Every asset that could make the run governed: what it makes and reads, and all that comes from."""

    @property
    def now(self) -> tuple[Unit, ...]:
        """The units whose inputs are all there, as many as one question takes: the others ask when they begin."""
        return tuple(unit for unit in self.units if not unit.inside)[:LAUNCHED_STEPS_MAX]

    @property
    def later(self) -> tuple[Unit, ...]:
        """The units that read what the run makes, as many as one question takes."""
        return tuple(unit for unit in self.units if unit.inside)[:LAUNCHED_LATER_MAX]


def launch_facts(
    run: DagsterRun, graph: AssetGraph, instance: dg.DagsterInstance, stores: Stores = NO_STORES
) -> LaunchFacts | None:
    """The facts of a run that makes assets; None for any other.

    Args:
        stores: what the stores of assets can do, as the gate of the code location says.

    Raises:
        ConfigError: a partner's asset without a name, or more partitions than one intent can hold.
    """
    if run.execution_plan_snapshot_id is None:
        return None
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    made: dict[str, set[dg.AssetKey]] = {}
    for _, unit, key in outputs_of_plan(plan):
        wanted = run.asset_selection is None or key in run.asset_selection
        if wanted and graph.has(key) and graph.get(key).is_materializable:
            made.setdefault(unit, set()).add(key)
    if not made:
        return None
    partitions = _partitions(run, graph, instance, {key for keys in made.values() for key in keys})
    units = [_unit(name, keys, graph, instance, partitions, stores) for name, keys in sorted(made.items())]
    keys = {key for each in made.values() for key in each}
    above = keys | {origin for key in keys for origin in graph.get_ancestor_asset_keys(key)}
    return LaunchFacts(
        units=_in_order(units), partitions=partitions, concerned=frozenset(_name(graph, key) for key in above)
    )


def _unit(
    name: str,
    keys: set[dg.AssetKey],
    graph: AssetGraph,
    instance: dg.DagsterInstance,
    partitions: tuple[str, ...],
    stores: Stores,
) -> Unit:
    where = f"step {name}"
    made = tuple(sorted(keys, key=lambda key: tuple(key.path)))
    require_few(where, len(made), len(partitions))
    read = {
        parent
        for key in made
        for parent in graph.get(key).parent_keys
        # An asset that depends on itself reads its earlier partitions.
        if parent not in keys or parent == key
    }
    nodes = ((key, graph.get(key)) for key in made)
    outputs = outputs_made(
        ((_name(graph, key), node.metadata, node.partitions_def is not None) for key, node in nodes),
        partitions,
        stores,
    )
    names = {key: _name(graph, key) for key in read}
    inputs = inputs_read(where, graph, instance, made, names, partitions)
    return Unit(name, {_name(graph, key): key for key in made}, tuple(outputs), inputs)


def _name(graph: AssetGraph, key: dg.AssetKey) -> str:
    metadata: Mapping[str, Any] = graph.get(key).metadata if graph.has(key) else {}
    return asset_name(key, metadata)


def _partitions(
    run: DagsterRun, graph: AssetGraph, instance: dg.DagsterInstance, made: Iterable[dg.AssetKey]
) -> tuple[str, ...]:
    """The partitions that a run is for, by its tags, as its steps read them."""
    one = run.tags.get(PARTITION_NAME_TAG)
    if one is not None:
        return (one,)
    first, last = run.tags.get(ASSET_PARTITION_RANGE_START_TAG), run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    if first is None or last is None:
        return ()
    definition = next((found for key in made if (found := graph.get(key).partitions_def) is not None), None)
    if definition is None:
        return ()
    with partition_loading_context(dynamic_partitions_store=instance):
        return tuple(map(str, definition.get_partition_keys_in_range(PartitionKeyRange(first, last))))


def _in_order(units: list[Unit]) -> tuple[Unit, ...]:
    """The units with what is made inside of the run, each after those that it reads from."""
    maker: dict[Slot, Unit] = {(out.asset, out.partition): unit for unit in units for out in unit.outputs}
    done: dict[str, Unit] = {}
    waiting = list(units)
    while waiting:
        ready = [unit for unit in waiting if all(each in done for each in _makers(unit, maker))]
        # A circle is not possible between slots; where Dagster's own mapping makes one, nothing is inside of it.
        for unit in ready or waiting:
            done[unit.name] = _placed(unit, maker, done)
        waiting = [unit for unit in waiting if unit.name not in done]
    return tuple(done.values())


def _makers(unit: Unit, maker: Mapping[Slot, Unit]) -> set[str]:
    found = {maker[slot].name for each in unit.inputs if (slot := (each.asset, each.partition)) in maker}
    return found - {unit.name}


def _placed(unit: Unit, maker: Mapping[Slot, Unit], done: Mapping[str, Unit]) -> Unit:
    inside: set[Slot] = set()
    outside: set[Slot] = set()
    for each in unit.inputs:
        slot = (each.asset, each.partition)
        source = maker.get(slot)
        if source is None or source.name == unit.name:
            outside.add(slot)
        elif source.name in done:
            inside.add(slot)
            outside.update((far.asset, far.partition) for far in done[source.name].outside)
    forms = tuple(InputForm(asset=asset, partition=partition) for asset, partition in sorted(outside))
    return Unit(unit.name, unit.keys, unit.outputs, unit.inputs, frozenset(inside), forms)
