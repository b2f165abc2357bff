"""Everything of Dagster's instance, launchers and queue that the bridge uses and Dagster does not promise to keep.

As `dagster_internals` for code locations; tests/dagster_bridge/test_canaries.py holds the names. What happens to a run
is done here in the few words that the launcher and the coordinator need.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import dagster as dg
from dagster import DagsterEvent
from dagster._config import Field, Permissive, Shape
from dagster._core.definitions.partitions.partition_key_range import PartitionKeyRange
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.events import EngineEventData, JobFailureData, RunFailureReason
from dagster._core.launcher.base import (
    CheckRunHealthResult,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._core.remote_representation.external import RemoteRepository
from dagster._core.run_coordinator.base import SubmitRunContext
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator, RunQueueConfig
from dagster._core.snap.execution_plan_snapshot import ExecutionPlanSnapshot
from dagster._core.storage.dagster_run import DagsterRun, RunRecord
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARENT_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    ROOT_RUN_ID_TAG,
)
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_shared.error import SerializableErrorInfo

if TYPE_CHECKING:
    from dagster._core.workspace.context import BaseWorkspaceRequestContext

    Workspace: TypeAlias = BaseWorkspaceRequestContext

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "PARENT_RUN_ID_TAG",
    "PARTITION_NAME_TAG",
    "ROOT_RUN_ID_TAG",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "DagsterRun",
    "ExecutionPlanSnapshot",
    "Field",
    "JobSubsetSelector",
    "LaunchRunContext",
    "PartitionKeyRange",
    "QueuedRunCoordinator",
    "RemoteRepository",
    "ResumeRunContext",
    "RunLauncher",
    "RunQueueConfig",
    "RunRecord",
    "SubmitRunContext",
    "WorkerStatus",
]

ANY_CONFIG: Final[Any] = Permissive()  # type: ignore[no-untyped-call]

MAX_RETRIES_TAG: Final = "dagster/max_retries"
"""Dagster's own: how often its daemon starts a failed run again."""
_REFUSED: Final = "GovernanceRefusal"


def shape(fields: Mapping[str, Any]) -> Any:
    """The configuration type of these fields and no others."""
    return Shape(dict(fields))  # type: ignore[no-untyped-call]


def repository_of(run: DagsterRun, workspace: Workspace | None) -> RemoteRepository | None:
    """The repository that a run was launched from, as its code location describes it; None for a run of no location.

    Raises:
        Exception: Dagster's own, where the code location cannot be loaded: its daemon knows what to do then.
    """
    origin = run.remote_job_origin
    if origin is None or workspace is None:
        return None
    repository = origin.repository_origin
    location = workspace.get_code_location(repository.code_location_origin.location_name)
    return location.get_repository(repository.repository_name)


def tell(
    instance: dg.DagsterInstance,
    run: DagsterRun,
    message: str,
    metadata: Mapping[str, Any],
    teller: type[object],
) -> None:
    """Write an event into a run's log. It bears no error: the user interface shows the metadata only of such."""
    instance.report_engine_event(message, run, EngineEventData(metadata=dict(metadata)), cls=teller)


def enqueue_again(instance: dg.DagsterInstance, run: DagsterRun) -> None:
    """Put a run that was taken out of the queue back into it."""
    instance.report_dagster_event(DagsterEvent.job_enqueue(run), run_id=run.run_id)


def fail(instance: dg.DagsterInstance, run: DagsterRun, message: str) -> None:
    """End a run as failed, by a decision and no exception: Dagster does not start it again."""
    instance.add_run_tags(run.run_id, {MAX_RETRIES_TAG: "0"})
    again = instance.get_run_by_id(run.run_id)
    error = SerializableErrorInfo(message, [], _REFUSED)
    data = JobFailureData(error=error, failure_reason=RunFailureReason.RUN_EXCEPTION)
    instance.report_run_failed(again or run, message, data)


def fail_interrupted(instance: dg.DagsterInstance, run: DagsterRun, message: str) -> None:
    """End a run as failed whose launch was interrupted: Dagster may start it again as it is configured to."""
    instance.report_run_failed(run, message)


def inner_launcher(module: str, class_name: str, config: Mapping[str, Any]) -> RunLauncher[Any]:
    """Make the launcher that another one wraps.

    Raises:
        Exception: Dagster's own, naming what is wrong with module, class or configuration.
    """
    # Every JSON is YAML, which Dagster keeps configuration in.
    data = ConfigurableClassData(module, class_name, json.dumps(dict(config)))
    return data.rehydrate(as_type=cast("type[RunLauncher[Any]]", RunLauncher))


def queued_runs(
    instance: dg.DagsterInstance, tags: Mapping[str, str], limit: int, cursor: str | None = None
) -> list[DagsterRun]:
    """Runs in the queue with these tags, the oldest first."""
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], tags=dict(tags))
    return list(instance.get_runs(filters, cursor=cursor, limit=limit, ascending=True))


def starting_runs(instance: dg.DagsterInstance, limit: int) -> list[RunRecord]:
    """Runs that were taken out of the queue and have not begun, the oldest first."""
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING])
    return list(instance.get_run_records(filters, limit=limit, ascending=True))


def with_hold(config: RunQueueConfig, key: str, value: str) -> RunQueueConfig:
    """A queue's configuration by which runs with a tag stay in the queue."""
    limits: Iterable[Mapping[str, Any]] = config.tag_concurrency_limits or ()
    return config._replace(tag_concurrency_limits=[*limits, {"key": key, "value": value, "limit": 0}])


def outputs_of_plan(plan: ExecutionPlanSnapshot) -> Iterator[tuple[str, str, dg.AssetKey]]:
    """Of each step that a run executes: its key, the outermost node that it is of, and each asset of its outputs."""
    wanted = frozenset(plan.step_keys_to_execute)
    for step in plan.steps:
        if wanted and step.key not in wanted:
            continue
        for output in step.outputs:
            key = output.properties.asset_key if output.properties is not None else None
            if key is not None:
                yield step.key, step.node_handle_id.split(".")[0], key
