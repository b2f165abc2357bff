"""Running governed definitions in this process, and what a run said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from fake_node import FakeNode

from comity.dagster_bridge import govern

Runnable = dg.AssetsDefinition | dg.AssetSpec | dg.SourceAsset


def materialize(
    node: FakeNode,
    *assets: Runnable,
    select: Sequence[str] | None = None,
    partition: str | None = None,
    resources: Mapping[str, Any] | None = None,
    instance: dg.DagsterInstance | None = None,
    tags: Mapping[str, str] | None = None,
    **options: Any,
) -> dg.ExecuteInProcessResult:
    """Govern these assets by the node and run them as `dg.materialize` does, which no launcher sees."""
    defs = govern(dg.Definitions(assets=list(assets)), home=node.home, **{"wait_max_s": 0.0, **options})
    return dg.materialize(
        list(defs.assets or ()),
        selection=list(select) if select is not None else None,
        partition_key=partition,
        resources=resources,
        instance=instance,
        tags=dict(tags) if tags is not None else None,
        raise_on_error=False,
    )


def failure(result: dg.ExecuteInProcessResult, step: str) -> tuple[str, dict[str, Any]]:
    """Description and metadata values with which a step failed."""
    for event in result.all_events:
        if event.is_step_failure and event.step_key == step:
            found = event.step_failure_data.user_failure_data
            assert found is not None, event.step_failure_data.error
            return found.description or "", {key: entry.value for key, entry in found.metadata.items()}
    raise AssertionError(f"step {step} did not fail")


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """Metadata values of every materialization, by asset and partition."""
    found: dict[str, dict[str, Any]] = {}
    for event in result.all_events:
        if event.event_type_value == "ASSET_MATERIALIZATION":
            made = event.step_materialization_data.materialization
            name = "/".join(made.asset_key.path) + (f"[{made.partition}]" if made.partition else "")
            found[name] = {key: entry.value for key, entry in made.metadata.items()}
    return found


def stripped(result: dg.ExecuteInProcessResult) -> list[object]:
    """The event log without ids, times and durations."""
    return [_stripped(event) for event in result.all_events]


_VARYING = ("run_id", "timestamp", "pid", "duration_ms", "batch_id", "storage_id", "job_snapshot")


def _stripped(event: dg.DagsterEvent) -> object:
    data: Any = event.event_specific_data
    kind = event.event_type_value
    if kind == "STEP_SUCCESS":
        data = None
    if kind == "ASSET_MATERIALIZATION":
        made = data.materialization
        # The code version of an asset without one is the run's id, and the data version is made from it.
        tags = sorted(key for key in made.tags)
        data = (made.asset_key, made.partition, sorted(made.metadata), tags, made.description)
    return (kind, event.step_key, _shape(data), None if "pid" in str(event.message) else event.message)


def _shape(value: Any) -> object:
    """A value with its nested fields, without those that vary between runs."""
    if isinstance(value, dict):
        return {str(key): _shape(each) for key, each in value.items() if str(key) not in _VARYING}
    if isinstance(value, (list, set, frozenset)):
        return [_shape(each) for each in value]
    if hasattr(value, "_asdict"):
        return type(value).__name__, _shape(value._asdict())
    if isinstance(value, tuple):
        return [_shape(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(type(value))
