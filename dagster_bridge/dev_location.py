"""An existing Dagster project under the throw-away node of `comity dev`, without a change of its files.

`governed_project` is what the generated code location calls. As a program this module loads that location and says
what is in it, or runs a part of it once:

    python -m comity.dagster_bridge.dev_location describe LOCATION --answer FILE
    python -m comity.dagster_bridge.dev_location once LOCATION --answer FILE [--job NAME | --select SELECTION] ...

The answer is one JSON object in a file, for the project may print what it likes. `once` answers what is in it, waits
for a line on its standard input, runs, and answers again; when that input ends, so does the program.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import runpy
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias, cast

import dagster as dg

from comity.dagster_bridge.files_io_manager import GovernedFilesIOManager
from comity.dagster_bridge.governed_definitions import govern
from comity.dagster_bridge.governed_step import CONTENT, Choice
from comity.dagster_bridge.measurement import code_root
from comity.protocol.errors import ConfigError

LoadAssets: TypeAlias = Callable[[Sequence[ModuleType]], Sequence[Any]]

IO_MANAGER: Final = "io_manager"
"""The key of the IO manager that outputs have which name none."""
FRAMES_MAX: Final = 6
"""Of a traceback, the last ones are shown: those nearest to what went wrong."""
LISTED_MAX: Final = 1_000
"""Assets, jobs and steps of one answer."""
_INPUT_BYTES: Final = 4_096


class ProjectError(ConfigError):
    """The project could not be loaded, or has not what was asked for. The text is for people."""


# Loading


def governed_project(
    *,
    file: str,
    module: str,
    search: Sequence[str],
    home: str,
    base: str,
    purpose: str,
    unbound: Choice = "refuse",
) -> dg.Definitions:
    """The definitions of a project, governed, with files below `base` for all that names no IO manager of its own.

    The project's own `io_manager` is replaced: what a preview makes has no business where the real data lies.

    Args:
        file: the file with the definitions, absolute; empty for a module.
        module: the module with the definitions; empty for a file.
        search: folders that are put before the import path.
        home: the home of the member's node.
        base: folder for what is made.
        unbound: whether steps may read and write past an IO manager that binds content (see `govern`).

    Raises:
        ConfigError: there are no definitions, or they cannot be governed.
    """
    sys.path[:0] = [each for each in search if each not in sys.path]
    found = _imported(file) if file else importlib.import_module(module)
    definitions = _definitions_of(found)
    manager = GovernedFilesIOManager(base=base, home=home)
    return govern(
        _with_files(definitions, manager),
        home=home,
        purpose=purpose,
        code_root=code_root(Path(found.__file__ or file)),
        unbound_reads=unbound,
        unbound_writes=unbound,
    )


def _imported(file: str) -> ModuleType:
    """The module that a file is: under its whole name where it lies in a package, else by its path."""
    path = Path(file)
    root, names = path.parent, [] if path.stem == "__init__" else [path.stem]
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    if len(names) > 1 or path.stem == "__init__":
        return importlib.import_module(".".join(names))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ProjectError(f"{file}: cannot be imported")
    found = importlib.util.module_from_spec(spec)
    # Before it is executed: classes and pickles look their module up by its name.
    sys.modules[path.stem] = found
    spec.loader.exec_module(found)
    return found


def _nothing() -> dg.Definitions:
    return dg.Definitions()


_LAZY: Final[type] = type(dg.definitions(_nothing))
"""What `@dg.definitions` makes of a function. Dagster does not name it."""


def _definitions_of(module: ModuleType) -> dg.Definitions:
    """The one Definitions of a module, as Dagster finds it; without one, all that lies in the module.

    Raises:
        ProjectError: there are several, or nothing.
    """
    values = list({id(value): (name, value) for name, value in vars(module).items()}.values())
    lazy = [(name, value) for name, value in values if isinstance(value, _LAZY)]
    found = lazy or [(name, value) for name, value in values if isinstance(value, dg.Definitions)]
    if len(found) > 1:
        named = ", ".join(sorted(name for name, _ in found))
        raise ProjectError(f"{module.__name__} has several Definitions: {named}")
    if found:
        value = found[0][1]
        made: object = value() if lazy and callable(value) else value
        if not isinstance(made, dg.Definitions):
            raise ProjectError(f"{found[0][0]} of {module.__name__} gives no Definitions")
        return made
    # One of its types is unknown to Dagster itself.
    load_assets = cast("LoadAssets", dg.load_assets_from_modules)  # pyright: ignore[reportUnknownMemberType]
    assets = load_assets([module])
    jobs = [value for _, value in values if isinstance(value, dg.JobDefinition)]
    if not (assets or jobs):
        raise ProjectError(f"{module.__name__} ({module.__file__}) holds no Definitions, and no asset or job")
    return dg.Definitions(assets, asset_checks=dg.load_asset_checks_from_modules([module]), jobs=jobs)


def _with_files(definitions: dg.Definitions, manager: GovernedFilesIOManager) -> dg.Definitions:
    return dg.Definitions(
        assets=definitions.assets,
        schedules=definitions.schedules,
        sensors=definitions.sensors,
        jobs=definitions.jobs,
        resources={**(definitions.resources or {}), IO_MANAGER: manager},
        executor=definitions.executor,
        loggers=definitions.loggers,
        asset_checks=definitions.asset_checks,
        metadata=definitions.metadata,
        component_tree=definitions.component_tree,
    )


# Describing


def described(definitions: dg.Definitions) -> dict[str, Any]:
    """The assets that a project makes, each with why it could not be bound to lineage, and its jobs."""
    graph = definitions.resolve_asset_graph()
    assets = [
        {"asset": key.to_user_string(), "unbound": why}
        for each in graph.assets_defs
        if each.is_executable
        for key, why in _unbound(each)
    ]
    jobs = [job.name for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")]
    return {
        "assets": sorted(assets, key=lambda each: each["asset"])[:LISTED_MAX],
        "jobs": sorted(jobs)[:LISTED_MAX],
    }


def _unbound(assets: dg.AssetsDefinition) -> Iterator[tuple[dg.AssetKey, str]]:
    """Each asset of a definition, with why its content will not be bound to lineage; empty where it will."""
    for name, key in assets.keys_by_output_name.items():
        output = assets.node_def.output_def_named(name)
        why = ""
        if output.io_manager_key != IO_MANAGER:
            why = f"it is kept by the IO manager {output.io_manager_key!r}, which does not bind content"
        elif output.dagster_type.is_nothing:
            why = "its function returns no table, and writes by itself"
        yield key, why


# Running once


def run_once(
    definitions: dg.Definitions, job: str = "", select: str = "*", partition: str = ""
) -> dict[str, Any]:
    """Run a job, or a selection of the assets, in this process, and say what became of each asset.

    Args:
        job: its name; empty for the assets of `select`.
        select: as Dagster's UI and commands take it.

    Raises:
        ProjectError: there is no such job, or nothing is selected.
    """
    with dg.DagsterInstance.get() as instance:
        whole, keys = _wanted(definitions, job, select)
        result = whole.execute_in_process(
            instance=instance,
            asset_selection=keys,
            partition_key=partition or None,
            raise_on_error=False,
        )
        return {
            "run": result.run_id,
            "job": job,
            "success": result.success,
            "outcomes": _outcomes(instance.all_logs(result.run_id)),
        }


def _wanted(
    definitions: dg.Definitions, job: str, select: str
) -> tuple[dg.JobDefinition, list[dg.AssetKey] | None]:
    if job:
        known = sorted(each.name for each in definitions.resolve_all_job_defs())
        if job not in known:
            shown = ", ".join(name for name in known if not name.startswith("__")) or "none"
            raise ProjectError(f"there is no job {job!r}; there are {shown}")
        return definitions.resolve_job_def(job), None
    graph = definitions.resolve_asset_graph()
    selection: Any = dg.AssetSelection.from_string(select)
    keys: set[dg.AssetKey] = selection.resolve(graph) & graph.executable_asset_keys
    if not keys:
        raise ProjectError(f"{select!r} selects no asset that is made here")
    return definitions.resolve_implicit_job_def_def_for_assets(keys) or _no_job(select), sorted(keys)


def _no_job(select: str) -> dg.JobDefinition:
    raise ProjectError(f"the assets of {select!r} cannot be made in one run: they have different partitions")


def _outcomes(logs: Sequence[dg.EventLogEntry]) -> list[dict[str, Any]]:
    """What became of each asset, and why a step failed, in the order in which it happened; last, what was not begun."""
    found: list[dict[str, Any]] = []
    planned: dict[str, str] = {}
    for entry in logs:
        event = entry.dagster_event
        if event is None:
            continue
        if event.event_type_value == "ASSET_MATERIALIZATION_PLANNED" and event.asset_key is not None:
            planned[event.asset_key.to_user_string()] = event.step_key or ""
        elif event.event_type_value == "ASSET_MATERIALIZATION":
            found.append(_made(event, entry.timestamp))
        elif event.is_step_failure:
            found.append(_failed(event, planned))
    told = {name for each in found for name in each["assets"]}
    left = [name for name in planned if name not in told]
    return (found + ([_told(left, "not begun")] if left else []))[:LISTED_MAX]


def _told(assets: list[str], outcome: str, **more: Any) -> dict[str, Any]:
    blank: dict[str, Any] = {
        "partition": "",
        "bound": "",
        "intent": "",
        "at": 0.0,
        "causes": [],
        "message": "",
    }
    return {"assets": assets, "outcome": outcome, **blank, **more}


def _made(event: dg.DagsterEvent, at: float) -> dict[str, Any]:
    made = event.step_materialization_data.materialization
    values = {key: entry.value for key, entry in made.metadata.items()}
    return _told(
        [made.asset_key.to_user_string()],
        str(values.get("comity/outcome", "ungoverned")),
        partition=made.partition or "",
        bound=str(values.get(CONTENT, "")),
        intent=str(values.get("comity/intent", "")),
        at=at,
    )


def _failed(event: dg.DagsterEvent, planned: Mapping[str, str]) -> dict[str, Any]:
    failure = event.step_failure_data
    said, error = failure.user_failure_data, failure.error
    metadata: dict[str, Any] = {key: entry.value for key, entry in said.metadata.items()} if said else {}
    terms = [*metadata.get("comity/causes", []), *metadata.get("comity/needs", [])]
    # What a step raised by itself lies below what Dagster says of it.
    cause = error.cause if error is not None and error.cause is not None else error
    return _told(
        [name for name, step in planned.items() if step == event.step_key],
        str(metadata.get("comity/outcome", "failed")),
        intent=str(metadata.get("comity/intent", "")),
        message=(said.description if said else "") or (cause.message.strip() if cause is not None else ""),
        causes=[str(each.get("code", "")) for each in terms],
    )


# As a program


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="comity.dagster_bridge.dev_location")
    parser.add_argument("action", choices=("describe", "once"))
    parser.add_argument("location")
    parser.add_argument("--answer", required=True)
    parser.add_argument("--job", default="")
    parser.add_argument("--select", default="*")
    parser.add_argument("--partition", default="")
    words = parser.parse_args(argv)
    answer = _answered(words)
    _write(words.answer, answer)
    return 1 if "problem" in answer else 0


def _write(path: str, answer: Mapping[str, Any]) -> None:
    """Whoever looks for the answer sees all of it or none."""
    beside = Path(f"{path}.next")
    beside.write_text(json.dumps(answer), encoding="utf-8")
    beside.replace(path)


def _answered(words: argparse.Namespace) -> dict[str, Any]:
    """The one place where whatever a project raises becomes an answer."""
    try:
        definitions: dg.Definitions = runpy.run_path(words.location)["defs"]
        answer = described(definitions)
        if words.action == "describe":
            return answer
        _write(words.answer, answer)
        if not os.read(0, _INPUT_BYTES):
            return {"problem": "nobody waits for it any more"}
        threading.Thread(target=_end_with_input, daemon=True).start()
        return run_once(definitions, words.job, words.select, words.partition)
    except ConfigError as exc:
        return {"problem": str(exc)}
    except (Exception, SystemExit) as exc:  # noqa: BLE001  a project may raise anything, and its author is to see it
        return {"problem": f"{type(exc).__name__} in the project", "traceback": shown_traceback(exc)}


def _end_with_input() -> None:
    """End at once when whoever started this process does: a run of a preview is worth no clean end."""
    while os.read(0, _INPUT_BYTES):
        pass
    os._exit(1)


def shown_traceback(exc: BaseException) -> list[str]:
    """The last frames of a traceback that are of the project or of what it calls, and the error itself."""
    frames = [
        frame
        for frame in traceback.extract_tb(exc.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename and "runpy" not in frame.filename
    ]
    lines = traceback.format_list(frames[-FRAMES_MAX:]) + traceback.format_exception_only(exc)
    return [line for text in lines for line in text.rstrip("\n").split("\n")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
