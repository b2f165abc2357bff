"""An inner launcher that starts nothing and keeps what it was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from dagster._core.launcher.base import (
    CheckRunHealthResult,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._serdes import ConfigurableClass, ConfigurableClassData


class RecordingLauncher(RunLauncher[Any], ConfigurableClass):
    """Keeps the ids of the runs that were launched. `health` is what it says of a run's process."""

    launched: ClassVar[list[str]] = []
    resumed: ClassVar[list[str]] = []
    terminated: ClassVar[list[str]] = []
    health: ClassVar[WorkerStatus | None] = None
    instances: ClassVar[int] = 0

    def __init__(self, word: str = "", inst_data: ConfigurableClassData | None = None) -> None:
        self.word = word
        self._inst_data = inst_data
        self.disposed = False
        self.joined: int | None = None
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def clear(cls) -> None:
        cls.launched.clear()
        cls.resumed.clear()
        cls.terminated.clear()
        cls.health = None

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        from dagster import Field

        return {"word": Field(str, is_required=False)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> RecordingLauncher:
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        self.launched.append(context.dagster_run.run_id)

    def terminate(self, run_id: str) -> bool:
        self.terminated.append(run_id)
        return True

    def dispose(self) -> None:
        self.disposed = True

    def join(self, timeout: int = 30) -> None:
        self.joined = timeout

    @property
    def supports_check_run_worker_health(self) -> bool:
        return self.health is not None

    def check_run_worker_health(self, run: Any) -> CheckRunHealthResult:
        assert self.health is not None
        return CheckRunHealthResult(self.health, run.run_id)

    @property
    def supports_resume_run(self) -> bool:
        return True

    def resume_run(self, context: ResumeRunContext) -> None:
        self.resumed.append(context.dagster_run.run_id)

    def get_run_worker_debug_info(self, run: Any, include_container_logs: bool | None = True) -> str:  # noqa: FBT001, FBT002
        return f"{self.word} {run.run_id} {include_container_logs}"
