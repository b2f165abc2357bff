"""A Dagster instance with the governed launcher and queue: its code location in this process, its daemon by hand."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core import test_utils
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.instance import InstanceRef
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from comity.dagster_bridge import GovernedRunCoordinator, GovernedRunLauncher
from recording_launcher import RecordingLauncher

IMPLICIT_JOB = "__ASSET_JOB"

LAUNCHER = {"module": "comity.dagster_bridge", "class": "GovernedRunLauncher"}
COORDINATOR = {"module": "comity.dagster_bridge", "class": "GovernedRunCoordinator"}


@dataclass
class Queue:
    """Runs of one code location. `turn` is one round of the queue's daemon."""

    instance: dg.DagsterInstance
    process: WorkspaceProcessContext

    @property
    def coordinator(self) -> GovernedRunCoordinator:
        coordinator = self.instance.run_coordinator
        assert isinstance(coordinator, GovernedRunCoordinator)
        return coordinator

    @property
    def launcher(self) -> GovernedRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, GovernedRunLauncher)
        return launcher

    def submit(
        self,
        *assets: str,
        partition: str = "",
        last: str = "",
        tags: Mapping[str, str] | None = None,
        job: str = IMPLICIT_JOB,
        run_id: str | None = None,
    ) -> str:
        """Put a run of some assets into the queue, as the user interface does. Answers with its id."""
        workspace = self.process.create_request_context()
        (location,) = workspace.code_locations
        (repository,) = location.get_repositories().values()
        keys = [dg.AssetKey(name.split("/")) for name in assets] or None
        selector = JobSubsetSelector(
            location_name=location.name,
            repository_name=repository.name,
            job_name=job,
            op_selection=None,
            asset_selection=keys,
        )
        found = location.get_job(selector)
        plan = location.get_execution_plan(
            found, {}, step_keys_to_execute=None, known_state=None, instance=self.instance
        )
        given = dict(tags or {})
        if last:
            given |= {
                "dagster/asset_partition_range_start": partition,
                "dagster/asset_partition_range_end": last,
            }
        elif partition:
            given["dagster/partition"] = partition
        run = self.instance.create_run(
            job_name=found.name,
            run_id=run_id,
            run_config={},
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags=given,
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=found.job_snapshot,
            parent_job_snapshot=found.parent_job_snapshot,
            asset_selection=found.asset_selection,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=found.get_remote_origin(),
            job_code_origin=found.get_python_origin(),
            asset_graph=workspace.asset_graph,
        )
        self.instance.submit_run(run.run_id, workspace)
        return run.run_id

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.coordinator._looked_at = float("-inf")
            daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
            list(daemon.run_iteration(self.process))

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def status(self, run_id: str) -> str:
        return self.run(run_id).status.value

    def tags(self, run_id: str) -> dict[str, str]:
        """Our own tags of a run, without what differs each time."""
        return {
            key.removeprefix("comity/"): value
            for key, value in self.run(run_id).tags.items()
            if key.startswith("comity/")
        }

    def told(self, run_id: str) -> list[tuple[str, dict[str, Any]]]:
        """The messages in a run's log with their metadata, those that the bridge wrote."""
        found: list[tuple[str, dict[str, Any]]] = []
        for each in self.instance.all_logs(run_id):
            event = each.dagster_event
            if event is None or event.event_type_value != "ENGINE_EVENT":
                continue
            teller, _, message = (event.message or "").partition("] ")
            if teller.startswith("[Governed"):
                metadata = event.engine_event_data.metadata
                found.append((message, {key: _plain(value) for key, value in metadata.items()}))
        return found

    def events(self, run_id: str) -> list[str]:
        return [
            each.dagster_event.event_type_value
            for each in self.instance.all_logs(run_id)
            if each.dagster_event is not None
        ]

    @property
    def launched(self) -> Sequence[str]:
        return RecordingLauncher.launched


def _plain(value: Any) -> Any:
    """Metadata as Python values: a table as its rows."""
    if isinstance(value, dg.TableMetadataValue):
        return [dict(row.data) for row in value.records]
    return value.value


@contextmanager
def queue(place: Path, definitions: Path, home: Path, **settings: Any) -> Generator[Queue]:
    """An instance in a folder, whose code location is a file of definitions."""
    config = {
        "inner": {"module": "recording_launcher", "class": "RecordingLauncher"},
        "home": str(home),
        **settings.pop("launcher", {}),
    }
    overrides: dict[str, Any] = {
        "run_launcher": {**LAUNCHER, "config": config},
        "run_coordinator": {**COORDINATOR, "config": settings.pop("queue", {})},
        **settings,
    }
    place.mkdir(exist_ok=True)
    RecordingLauncher.clear()
    sys.modules.pop(definitions.stem, None)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(place), overrides=overrides)) as instance:
        origin = InProcessCodeLocationOrigin(
            LoadableTargetOrigin(
                executable_path=sys.executable,
                python_file=str(definitions),
                attribute="defs",
                working_directory=str(definitions.parent),
            )
        )
        target: Any = vars(test_utils)["InProcessTestWorkspaceLoadTarget"](origin)
        with WorkspaceProcessContext(instance, target) as process:
            yield Queue(instance, process)
