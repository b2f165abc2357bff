"""Dagster's own webserver and daemon, as processes, over an instance in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance import InstanceRef

from comity.node.orchestrator_http import Launch, OrchestratorError, RunState, Webserver
from ports import free_ports

DEADLINE_S = 120.0
"""Two programs that import Dagster and load a code location, on a busy machine."""


@dataclass
class Service:
    """A webserver and a daemon that run. Either may be ended and begun again."""

    place: Path
    definitions: Path
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    pause: threading.Event = field(default_factory=threading.Event)

    @property
    def web(self) -> Webserver:
        return Webserver(f"http://127.0.0.1:{self.port}")

    def begin(self, name: str) -> None:
        words = {
            "webserver": [
                "-m",
                "dagster_webserver",
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
                "-f",
                str(self.definitions),
            ],
            "daemon": ["-m", "dagster._daemon", "run", "-f", str(self.definitions)],
        }
        log = (self.place / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [sys.executable, *words[name]],
            cwd=self.definitions.parent,
            env={**os.environ, "DAGSTER_HOME": str(self.place), "DAGSTER_DISABLE_TELEMETRY": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()

    def end(self, name: str, *, kill: bool = False) -> None:
        process = self.processes.pop(name)
        process.kill() if kill else process.terminate()
        process.wait(30)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Ask until something is so."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                found = condition()
            except OrchestratorError:
                found = None
            if found:
                return found
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} has ended: {self.tail(name)}"
            assert time.monotonic() < deadline, f"waited for {what}: {self.tail('daemon')}"
            self.pause.wait(0.2)

    def tail(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text(errors="replace")[-3_000:]

    def launch(self, *assets: str, job: str = "__ASSET_JOB", **wanted: Any) -> str:
        return self.web.launch(Launch(self.web.find(job), assets, **wanted))

    def run_until(self, run: str, *statuses: str, **tags: str) -> RunState:
        """Wait until a run is so, by its status and its tags."""

        def so() -> RunState | None:
            state = self.web.state(run)
            told = all(state.tags.get(f"comity/{name}") == value for name, value in tags.items())
            return state if state.status in statuses and told else None

        found: RunState = self.until(so, f"run {run} to be {statuses} {tags}")
        return found

    def metadata(self, run: str) -> list[dict[str, Any]]:
        """What the run page shows of the bridge's events: message, and the labels of the metadata."""
        said = self.web.ask(_EVENTS, {"run": run})["logsForRun"]
        return [
            {"message": event["message"], "metadata": [entry["label"] for entry in event["metadataEntries"]]}
            for event in said["events"]
            if event["__typename"] == "EngineEvent" and event["message"].startswith("[Governed")
        ]


_EVENTS = """query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events { __typename
  ... on MessageEvent { message } ... on EngineEvent { metadataEntries { label } } } } } }"""


@contextmanager
def service(
    place: Path, definitions: Path, home: Path, *processes: str, **settings: Any
) -> Generator[Service]:
    """Webserver and daemon of an instance with the governed launcher and queue."""
    place.mkdir(exist_ok=True)
    config = {
        "telemetry": {"enabled": False},
        "run_launcher": {
            "module": "comity.dagster_bridge",
            "class": "GovernedRunLauncher",
            "config": {"home": str(home)},
        },
        "run_coordinator": {
            "module": "comity.dagster_bridge",
            "class": "GovernedRunCoordinator",
            "config": {"dequeue_interval_seconds": 1},
        },
        **settings,
    }
    # Every JSON is YAML.
    (place / "dagster.yaml").write_text(json.dumps(config))
    # Two programs that make the tables of one new instance at a time would be in each other's way.
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(place))) as instance:
        instance.get_runs(limit=1)
    (port,) = free_ports(1)
    made = Service(place, definitions, port)
    for name in processes or ("webserver", "daemon"):
        made.begin(name)
    try:
        if "webserver" in made.processes:
            made.until(lambda: made.web.ask("{ version }", {}), "the webserver")
        yield made
    finally:
        for name in list(made.processes):
            made.end(name)
