"""Dagster as a service: a code server, a daemon and, where somebody launches over GraphQL, a webserver.

Its instance has the governed launcher and queue, so every run is decided on before it begins. What is told of a run is
asked of the webserver, as an operator would see it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from comity.node.orchestrator_http import OrchestratorError, RunState, Webserver
from comity.protocol.errors import ConfigError
from demo_main.nodes import until
from demo_main.organizations import Cast, Organization
from demo_main.processes import DemoError, Running, Supervisor
from demo_main.runs import Run, environment_of

READY_S: Final = 120.0
"""Three programs that import Dagster, beside each other and everything else."""
RUN_S: Final = 120.0
"""A run from the queue: its process imports Dagster anew."""
LOCATION: Final = "definitions"
_SOCKET_NAME: Final = "code"
_QUEUE_EVERY_S: Final = 1
"""Seconds between two looks at the queue; Dagster's own are five."""


def governed_instance(organization: Organization) -> bytes:
    """The `dagster.yaml` of an instance in which every run is decided on before it begins. Every JSON is YAML."""
    settings = {
        "telemetry": {"enabled": False},
        "run_launcher": {
            "module": "comity.dagster_bridge",
            "class": "GovernedRunLauncher",
            "config": {"home": str(organization.home)},
        },
        "run_coordinator": {
            "module": "comity.dagster_bridge",
            "class": "GovernedRunCoordinator",
            "config": {"dequeue_interval_seconds": _QUEUE_EVERY_S},
        },
    }
    return f"{json.dumps(settings, indent=2)}\n".encode()


class Orchestrator:
    """One organization's Dagster service. `port` is that of its webserver, 0 where it has none."""

    def __init__(self, supervisor: Supervisor, organization: Organization, cast: Cast, port: int = 0) -> None:
        self.organization = organization
        self.port = port
        self._supervisor = supervisor
        self._env = environment_of(organization, cast.exchange)
        self._running: dict[str, Running] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def web(self) -> Webserver:
        return Webserver(self.url)

    @property
    def _socket(self) -> Path:
        """Of the code server: in a folder that only its organization reaches, for whoever reaches it runs code."""
        return self.organization.place / _SOCKET_NAME

    def start(self) -> None:
        """Start its processes; they find each other when they are up. Called from the main thread only."""
        place = self.organization.place
        socket = self._socket
        workspace = {
            "load_from": [{"grpc_server": {"socket": str(socket), "location_name": LOCATION}}],
        }
        file = self.organization.account.file(place / "workspace.yaml", json.dumps(workspace).encode())
        definitions = str(self.organization.project_folder / "definitions.py")
        self._begin("code server", "dagster", "code-server", "start", "-s", str(socket), "-f", definitions)
        until(socket.exists, READY_S, f"the code server of {self.organization.title}")
        self._begin("daemon", "dagster._daemon", "run", "-w", str(file))
        if self.port:
            self._begin(
                "webserver", "dagster_webserver", "-h", "127.0.0.1", "-p", str(self.port), "-w", str(file)
            )

    def _begin(self, name: str, module: str, *words: str) -> None:
        self._running[name] = self._supervisor.start(
            f"the {name} of {self.organization.title}",
            [sys.executable, "-m", module, *words],
            self.organization.account,
            self._env,
            self.organization.place,
            self.organization.logs / f"{name.replace(' ', '-')}.log",
        )

    def wait_until_ready(self) -> None:
        """Wait until the webserver knows the jobs.

        Raises:
            DemoError: it does not in time.
        """

        def knows() -> bool:
            self._require_up()
            try:
                return bool(self.web.find("release").job)
            except (OrchestratorError, ConfigError):
                # It does not answer yet, or has not loaded the code location.
                return False

        until(knows, READY_S, f"the webserver of {self.organization.title}")

    def end(self) -> None:
        """End its processes. What waits in the queue waits on."""
        for running in self._running.values():
            self._supervisor.kill(running)
        self._running.clear()
        # Who is killed leaves its socket.
        self._socket.unlink(missing_ok=True)

    def wait_for(self, run: str, *statuses: str, **tags: str) -> RunState:
        """Wait until a run is so, by its status and its tags `comity/...`.

        Raises:
            DemoError: it is not in time.
        """
        found: list[RunState] = []

        def so() -> bool:
            self._require_up()
            state = self.web.state(run)
            found[:] = [state]
            return state.status in statuses and all(
                state.tags.get(f"comity/{name}") == value for name, value in tags.items()
            )

        try:
            until(so, RUN_S, f"run {run} to be {' or '.join(statuses)}")
        except (DemoError, OrchestratorError) as exc:
            state = found[0] if found else None
            raise DemoError(f"{exc}: {state}\n{self._running['daemon'].tail()}") from exc
        return found[0]

    def read(self, run: str) -> Run:
        """What the webserver tells of a run: how it ended, what it made, and why steps failed."""
        answer = self.web.ask(_EVENTS, {"run": run})
        said, log = answer["runOrError"], answer["logsForRun"]
        made: dict[str, Mapping[str, Any]] = {}
        failed: dict[str, Mapping[str, Any]] = {}
        times: dict[str, float] = {}
        for event in log["events"]:
            if event.get("eventType"):
                # Dagster's names for the same are older in its log. Milliseconds, as a text.
                name = str(event["eventType"]).replace("RUN_", "PIPELINE_", 1)
                times.setdefault(name, float(event["timestamp"]) / 1_000)
            if event["__typename"] == "MaterializationEvent":
                made["/".join(event["assetKey"]["path"])] = _values(event["metadataEntries"])
            elif event["__typename"] == "ExecutionStepFailureEvent":
                told = event["failureMetadata"] or {}
                failed[event["stepKey"] or ""] = {
                    "description": told.get("description") or (event["error"] or {}).get("message", ""),
                    "metadata": _values(told.get("metadataEntries", [])),
                }
        tags = {tag["key"]: tag["value"] for tag in said["tags"]}
        return Run(run, said["jobName"], said["status"], made, failed, tags, times)

    def _require_up(self) -> None:
        for running in self._running.values():
            if running.process.poll() is not None:
                raise DemoError(f"{running.name} has ended\n{running.tail()}")


def _values(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Metadata as plain values, by the label."""
    values: dict[str, Any] = {}
    for entry in entries:
        if "jsonString" in entry:
            values[entry["label"]] = json.loads(entry["jsonString"])
        else:
            values[entry["label"]] = next(
                (entry[name] for name in ("text", "intValue", "floatValue", "path") if name in entry), None
            )
    return values


_EVENTS: Final = """query($run: ID!) {
  runOrError(runId: $run) { ... on Run { status jobName tags { key value } } }
  logsForRun(runId: $run) { ... on EventConnection { events { __typename
    ... on MessageEvent { timestamp eventType }
    ... on MaterializationEvent { assetKey { path } metadataEntries { ...Entry } }
    ... on ExecutionStepFailureEvent { stepKey error { message }
      failureMetadata { description metadataEntries { ...Entry } } } } } } }
fragment Entry on MetadataEntry { label
  ... on TextMetadataEntry { text } ... on JsonMetadataEntry { jsonString }
  ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } ... on PathMetadataEntry { path } }"""
