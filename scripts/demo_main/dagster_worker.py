"""One organization's Dagster: a process that has imported it once, and makes every run in a child of its own.

    python -m demo_main.dagster_worker PROJECT [MODULE...]

It reads one request per line and answers with one line, both JSON. PROJECT holds the `definitions.py`; it is
loaded anew for every run, after the fork, under the environment that the request gives. What is answered
about a run is read back from the instance's event log.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import dagster as dg

from demo_main.die_with_parent import end_with

STATUS_FAILED: Final = 1


def main() -> None:
    """Answer requests until the input ends."""
    project = Path(sys.argv[1])
    for module in sys.argv[2:]:
        importlib.import_module(module)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # What runs print belongs into the log.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # The instance's tables are made once, before anybody waits for a run.
    in_child(make_instance)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        print(json.dumps(in_child(partial(answer, project, request))), file=answers, flush=True)


def in_child(function: Callable[[], Any]) -> Any:
    """Call a function in a child process and return what it returned; `error` where it failed, as the log says."""
    receiving, sending = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        end_with(parent)
        os.close(receiving)
        answered = False
        try:
            result = json.dumps(function())
            with os.fdopen(sending, "w", encoding="utf-8") as pipe:
                pipe.write(result)
            answered = True
        finally:
            if not answered:
                traceback.print_exc()
            sys.stderr.flush()
            # Not exit(): what the parent has registered for its own end is not the child's.
            os._exit(0 if answered else STATUS_FAILED)
    os.close(sending)
    with os.fdopen(receiving, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"error": "the run's process ended without an answer"}


def answer(project: Path, request: Mapping[str, Any]) -> Any:
    """Do what a request asks for."""
    os.environ.update(request.get("env", {}))
    match request["do"]:
        case "run":
            return make_run(project, request["job"], request.get("run"))
        case "read":
            with dg.DagsterInstance.get() as instance:
                return read_run(instance, newest_run(instance, request["job"]))
        case "newest":
            with dg.DagsterInstance.get() as instance:
                runs = instance.get_runs(dg.RunsFilter(job_name=request["job"]), limit=1)
                return read_run(instance, runs[0].run_id) if runs else {}
        case unknown:
            raise ValueError(f"nobody here can {unknown}")


def make_instance() -> list[str]:
    """Create the instance's storage."""
    with dg.DagsterInstance.get() as instance:
        return [run.run_id for run in instance.get_runs(limit=1)]


def make_run(project: Path, job: str, run: str | None) -> dict[str, Any]:
    """Run a job of the project and read back what the event log says of it."""
    definitions = load_definitions(project)
    with dg.DagsterInstance.get() as instance:
        result = definitions.resolve_job_def(job).execute_in_process(
            instance=instance, raise_on_error=False, run_id=run
        )
        return read_run(instance, result.run_id)


def load_definitions(project: Path) -> dg.Definitions:
    """The definitions of a project, as Dagster loads them: from its file."""
    path = project / "definitions.py"
    spec = importlib.util.spec_from_file_location("definitions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["definitions"] = module
    spec.loader.exec_module(module)
    definitions: dg.Definitions = module.defs
    return definitions


def newest_run(instance: dg.DagsterInstance, job: str) -> str:
    """The newest run of a job."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job), limit=1)
    if not runs:
        raise LookupError(f"no run of {job}")
    return runs[0].run_id


def read_run(instance: dg.DagsterInstance, run_id: str) -> dict[str, Any]:
    """What the event log says of a run: how it ended, what it made, and why steps failed."""
    run = instance.get_run_by_id(run_id)
    made: dict[str, dict[str, Any]] = {}
    failed: dict[str, dict[str, Any]] = {}
    events: dict[str, float] = {}
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is None:
            continue
        events.setdefault(event.event_type_value, entry.timestamp)
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            materialization = event.step_materialization_data.materialization
            made["/".join(materialization.asset_key.path)] = metadata_values(materialization.metadata)
        elif event.event_type is dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            said = data.user_failure_data
            failed[event.step_key or ""] = {
                "description": (said.description if said is not None else None) or str(data.error),
                "metadata": metadata_values(said.metadata) if said is not None else {},
                "error": data.error.cls_name if data.error is not None else None,
            }
    return {
        "run": run_id,
        "job": run.job_name if run is not None else "",
        "status": run.status.value if run is not None else "",
        "made": made,
        "failed": failed,
        "tags": dict(run.tags) if run is not None else {},
        "events": events,
    }


def metadata_values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as plain values; what is not JSON is written as text."""
    values = {key: getattr(entry, "value", entry) for key, entry in metadata.items()}
    return {key: json.loads(json.dumps(value, default=str)) for key, value in values.items()}


if __name__ == "__main__":
    main()
