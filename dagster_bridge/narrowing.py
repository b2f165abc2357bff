"""Runs that make what was permitted of another one.

The selection of a run cannot be changed once it exists. So a run of which only a part may be made is ended, and for
each part a run is created that says where it comes from. Its id follows from the first one's: whoever tries again after
a crash finds it, and no other run can claim the place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import dagster as dg

from comity.dagster_bridge.dagster_instance import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARENT_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    ROOT_RUN_ID_TAG,
    DagsterRun,
    JobSubsetSelector,
)
from comity.dagster_bridge.step_facts import CONTINUES_TAG
from comity.node.client import CONTINUATIONS_MAX, continuation_of

if TYPE_CHECKING:
    from comity.dagster_bridge.dagster_instance import Workspace
    from comity.dagster_bridge.dagster_internals import AssetGraph
    from comity.dagster_bridge.launch_facts import LaunchFacts, Slot

OWN_PREFIX: Final = "comity/"
_SYSTEM_PREFIX: Final = ".dagster/"
PARTS_MAX: Final = 16
"""Runs that one run is narrowed to: ranges of partitions between which something is left out."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one run makes: assets, and a range of partitions where they have any; one partition has no last."""

    keys: frozenset[dg.AssetKey]
    first: str = ""
    last: str = ""


def parts_of(facts: LaunchFacts, graph: AssetGraph, slots: frozenset[Slot]) -> tuple[Part, ...]:
    """What may be made, in parts that each can be one run.

    Assets that Dagster makes only together are made together or not at all. Partitions that follow each other and have
    the same assets are one part. More parts than `PARTS_MAX` are left out, the last ones.
    """
    keys = {name: key for unit in facts.units for name, key in unit.keys.items()}
    found: list[tuple[str, frozenset[dg.AssetKey]]] = []
    for partition in facts.partitions or ("",):
        wanted = {key for name, key in keys.items() if (name, partition) in slots or (name, "") in slots}
        found.append((partition, _whole_sets(wanted, graph, frozenset(keys.values()))))
    return tuple(_ranges(found))[:PARTS_MAX]


def _whole_sets(
    wanted: set[dg.AssetKey], graph: AssetGraph, made: frozenset[dg.AssetKey]
) -> frozenset[dg.AssetKey]:
    left = set(wanted)
    for key in wanted:
        together = {
            each for each in graph.get(key).execution_set_entity_keys if isinstance(each, dg.AssetKey)
        }
        if not together & made <= wanted:
            left.discard(key)
    return frozenset(left)


def _ranges(found: Iterable[tuple[str, frozenset[dg.AssetKey]]]) -> Iterator[Part]:
    open_part: Part | None = None
    for partition, keys in found:
        if open_part is not None and open_part.keys == keys:
            open_part = Part(keys, open_part.first, partition)
            continue
        if open_part is not None and open_part.keys:
            yield open_part
        open_part = Part(keys, partition, partition)
    if open_part is not None and open_part.keys:
        yield open_part


def first_of(run: DagsterRun) -> str:
    """The run in whose place a run goes on: its own id where it goes on for none."""
    return run.tags.get(CONTINUES_TAG) or run.run_id


def create_parts(
    instance: dg.DagsterInstance, run: DagsterRun, workspace: Workspace, parts: Iterable[Part]
) -> list[str]:
    """Create the runs that go on for a run, or find those that were created before. They are not submitted yet.

    Answers with their ids. Fewer than parts where a run has been narrowed `CONTINUATIONS_MAX` times.
    """
    created: list[str] = []
    number = 0
    for part in parts:
        while number < CONTINUATIONS_MAX:
            run_id = continuation_of(first_of(run), number)
            number += 1
            known = instance.get_run_by_id(run_id)
            if known is None:
                _create(instance, run, workspace, part, run_id)
            elif known.parent_run_id != run.run_id or known.asset_selection != part.keys:
                continue
            created.append(run_id)
            break
    return created


def _create(
    instance: dg.DagsterInstance, run: DagsterRun, workspace: Workspace, part: Part, run_id: str
) -> None:
    origin = run.remote_job_origin
    if origin is None:
        raise dg.DagsterInvariantViolationError(f"run {run.run_id} has no job that could be launched again")
    repository = origin.repository_origin
    location = workspace.get_code_location(repository.code_location_origin.location_name)
    job = location.get_job(
        JobSubsetSelector(
            location_name=repository.code_location_origin.location_name,
            repository_name=repository.repository_name,
            job_name=run.job_name,
            op_selection=None,
            asset_selection=part.keys,
            asset_check_selection=_checks(run, part),
        )
    )
    plan = location.get_execution_plan(
        job, run.run_config, step_keys_to_execute=None, known_state=None, instance=instance
    )
    root = run.root_run_id or run.run_id
    # Its parameters have types that Dagster does not say.
    cast("Any", instance).create_run(
        job_name=run.job_name,
        run_id=run_id,
        run_config=run.run_config,
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags=_tags(run, part) | {PARENT_RUN_ID_TAG: run.run_id, ROOT_RUN_ID_TAG: root},
        root_run_id=root,
        parent_run_id=run.run_id,
        step_keys_to_execute=None,
        execution_plan_snapshot=plan.execution_plan_snapshot,
        job_snapshot=job.job_snapshot,
        parent_job_snapshot=job.parent_job_snapshot,
        asset_selection=job.asset_selection,
        asset_check_selection=job.asset_check_selection,
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
        asset_graph=workspace.asset_graph,
    )


def _checks(run: DagsterRun, part: Part) -> frozenset[dg.AssetCheckKey] | None:
    """The checks of a part: all of its assets, or those of the run's own selection."""
    if run.asset_check_selection is None:
        return None
    return frozenset(check for check in run.asset_check_selection if check.asset_key in part.keys)


def _tags(run: DagsterRun, part: Part) -> dict[str, Any]:
    """The tags of a run that goes on: the first one's, without what was said of that one."""
    kept = {
        key: value
        for key, value in run.tags.items()
        if not key.startswith(_SYSTEM_PREFIX) and (not key.startswith(OWN_PREFIX) or key == "comity/ticket")
    }
    if part.first and part.first == part.last:
        kept.pop(ASSET_PARTITION_RANGE_START_TAG, None)
        kept.pop(ASSET_PARTITION_RANGE_END_TAG, None)
        kept[PARTITION_NAME_TAG] = part.first
    elif part.first:
        kept[ASSET_PARTITION_RANGE_START_TAG] = part.first
        kept[ASSET_PARTITION_RANGE_END_TAG] = part.last
    return kept | {CONTINUES_TAG: first_of(run)}
