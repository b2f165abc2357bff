"""Running governed definitions in this process, and what a run said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from comity.dagster_bridge import govern
from fake_node import FakeNode

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
    given: dict[str, Any] = {"wait_max_s": 0.0, **options}
    govern(dg.Definitions(assets=list(assets)), home=node.home, **given)
    return dg.materialize(
        list(assets),
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


def stripped(result: dg.ExecuteInProcessResult) -> list[str]:
    """The event log as Dagster writes it, without what differs between any two runs.

    Frames of the gate in the trace of an exception are left out: whoever reads a trace sees who was called.
    """
    return [_stripped(json.loads(dg.serialize_value(event))) for event in result.all_events]


_DIFFERS: Final = (
    (re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"), "<id>"),
    # The code version of an asset without one is the run's id, and its data version is made from that.
    (re.compile(r"\b[0-9a-f]{40,64}\b"), "<digest>"),
    (re.compile(r"\b\d+(?:\.\d+)?m?s\b"), "<time>"),
    (re.compile(r"\b0x[0-9a-f]+\b"), "<address>"),
    (re.compile(r"/dagster-[a-z0-9_]+|/tmp[a-z0-9_]+|pid: \d+"), "<place>"),
)
_TIMES: Final = frozenset({"timestamp", "duration_ms", "pid", "batch_id", "log_key"})


def _stripped(value: Any) -> str:
    text = json.dumps(_without_times(value), sort_keys=True)
    for pattern, instead in _DIFFERS:
        text = pattern.sub(instead, text)
    return text


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if key not in _TIMES}
    if isinstance(value, list):
        return [_without_times(each) for each in value if "/comity/dagster_bridge/" not in str(each)[:400]]
    return value
