"""What Dagster says of a step: the facts that its intent is made of.

A graph-backed asset is one unit of work however many ops it has: all of them state the same facts under the
name of the outermost node, so the node sees one intent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import dagster as dg

from comity.dagster_bridge.asset_facts import asset_name, inputs_read, outputs_made, require_few
from comity.dagster_bridge.dagster_internals import StepExecutionContext, location_of
from comity.dagster_bridge.stores import NO_STORES, Stores
from comity.node.client import InputForm, OutputForm

TICKET_TAG: Final = "comity/ticket"
"""Tag of a run: a signed launch ticket, base64."""
CONTINUES_TAG: Final = "comity/continues"
"""Tag of a run that makes what may be made of another one: that run's id."""


@dataclass(frozen=True, slots=True)
class StepFacts:
    """Facts of one unit of work in one run. Assets are named by id, the own ones without the member."""

    run: str
    job: str
    unit: str
    location: str
    outputs: tuple[OutputForm, ...]
    inputs: tuple[InputForm, ...]
    checks: tuple[str, ...]
    origins: frozenset[str]
    """Every asset that the outputs come from, however far up."""
    run_assets: tuple[str, ...]
    """What the whole run is to make."""
    ticket: str
    """The launch ticket in the run's tags, base64. The tag is no evidence; what is signed in it is."""
    continues: str
    """The run in whose place this one goes on, by its tags. The node looks whether the run's id is such a one."""

    @property
    def concerned(self) -> frozenset[str]:
        """Every asset that could make this step governed."""
        return self.origins | {output.asset for output in self.outputs} | {each.asset for each in self.inputs}


def step_facts(context: StepExecutionContext, stores: Stores = NO_STORES) -> StepFacts:
    """Read the facts of a step's unit of work.

    Args:
        stores: what the stores of assets can do about their versions.

    Raises:
        ConfigError: more partitions than one intent can hold, or a partner's asset without a name.
    """
    public = dg.OpExecutionContext(context)
    made = _made(context)
    partitions = tuple(str(key) for key in public.partition_keys) if context.has_partitions else ()
    require_few(f"step {context.step.key}", len(made), len(partitions))
    graph = context.job_def.asset_layer.asset_graph
    origins = {origin for key in made for origin in graph.get_ancestor_asset_keys(key)}
    read = _read(context, made)
    assets_def = context.assets_def
    return StepFacts(
        run=context.run_id,
        job=context.job_def.name,
        unit=context.node_handle.root.name if assets_def is not None else context.step.key,
        location=location_of(context),
        outputs=tuple(_outputs(context, made, partitions, stores)),
        inputs=inputs_read(
            f"step {context.step.key}",
            graph,
            context.instance,
            made,
            {key: _name(context, key) for key in read},
            partitions,
        ),
        checks=tuple(
            sorted(
                f"{_name(context, check.asset_key)}:{check.name}"
                for check in (assets_def.check_keys if assets_def is not None else ())
            )
        ),
        origins=frozenset(_name(context, key) for key in origins | read),
        run_assets=tuple(sorted(_name(context, key) for key in _run_assets(context))),
        ticket=context.dagster_run.tags.get(TICKET_TAG, ""),
        continues=context.dagster_run.tags.get(CONTINUES_TAG, ""),
    )


def partitions_of(context: StepExecutionContext, key: dg.AssetKey) -> tuple[str, ...]:
    """The partitions of an asset that this step makes; one empty name where it has none."""
    node = context.job_def.asset_layer.get(key)
    if node.partitions_def is None or not context.has_partitions:
        return ("",)
    return tuple(str(partition) for partition in dg.OpExecutionContext(context).partition_keys)


def named_inputs(context: StepExecutionContext, *, loaded: bool = False) -> Iterator[dg.AssetKey]:
    """The assets of others that this very op names as inputs; with `loaded`, those that Dagster loads."""
    own = context.assets_def.keys if context.assets_def is not None else frozenset[dg.AssetKey]()
    for step_input in context.step.step_inputs:
        key = input_key(context, step_input.name)
        if key is None or key in own:
            continue
        if not loaded or not context.op_def.input_def_named(step_input.name).dagster_type.is_nothing:
            yield key


def input_key(context: StepExecutionContext, input_name: str) -> dg.AssetKey | None:
    """The asset that an input of this very op is; None for a value that is no asset."""
    # An op outside of any asset may name one itself: dg.In(asset_key=...).
    named = context.op_def.input_def_named(input_name).hardcoded_asset_key
    layer = context.job_def.asset_layer
    return named or layer.get_asset_key_for_node_input(context.node_handle, input_name)


def name_in(context: StepExecutionContext, key: dg.AssetKey) -> str:
    """The id of an asset of this step's job."""
    return _name(context, key)


def _made(context: StepExecutionContext) -> tuple[dg.AssetKey, ...]:
    """The asset keys that the unit materializes in this run, in the order of their names."""
    assets_def = context.assets_def
    if assets_def is None or not assets_def.is_materializable:
        return ()
    return tuple(sorted(assets_def.keys, key=lambda key: tuple(key.path)))


def _read(context: StepExecutionContext, made: Iterable[dg.AssetKey]) -> set[dg.AssetKey]:
    """The asset keys that the unit reads: its inputs, and what its assets depend on."""
    layer = context.job_def.asset_layer
    own = frozenset(made)
    assets_def = context.assets_def
    read = set(assets_def.keys_by_input_name.values()) if assets_def is not None else set[dg.AssetKey]()
    # A subset of a multi-asset names the inputs of the whole, and is given those that have values.
    read |= set(named_inputs(context, loaded=True))
    if assets_def is not None and not assets_def.is_materializable:
        read |= set(assets_def.keys)
    read -= own
    for key in own:
        # An asset that depends on itself reads its earlier partitions.
        read |= {parent for parent in layer.get(key).parent_keys if parent not in own or parent == key}
    return read


def _outputs(
    context: StepExecutionContext,
    made: Iterable[dg.AssetKey],
    partitions: tuple[str, ...],
    stores: Stores,
) -> Iterator[OutputForm]:
    nodes = ((key, context.job_def.asset_layer.get(key)) for key in made)
    return outputs_made(
        ((_name(context, key), node.metadata, node.partitions_def is not None) for key, node in nodes),
        partitions,
        stores,
    )


def _run_assets(context: StepExecutionContext) -> Iterable[dg.AssetKey]:
    return context.dagster_run.asset_selection or context.job_def.asset_layer.selected_asset_keys


def _name(context: StepExecutionContext, key: dg.AssetKey) -> str:
    layer = context.job_def.asset_layer
    return asset_name(key, layer.get(key).metadata if layer.has(key) else {})
