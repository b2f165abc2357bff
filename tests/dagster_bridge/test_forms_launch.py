"""Every way to put definitions together and to start a run: the gate is the same."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dagster._cli.asset import asset_cli
from dagster._cli.job import job_cli

from comity.dagster_bridge import GovernedFilesIOManager, govern
from comity.protocol.errors import ConfigError
from dagster_runs import failure, materialize, materialized, stripped
from fake_node import FakeNode, execute, refused, restricted, ungoverned

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
    pytest.mark.filterwarnings("ignore::dagster.SupersessionWarning"),
]


class Study:
    """Definitions of one table, and whether its function ran."""

    def __init__(self, node: FakeNode, folder: Path) -> None:
        self.node = node
        self.ran: list[str] = []
        self.base = folder / "own"
        self.resources = {"io_manager": GovernedFilesIOManager(base=str(self.base))}

    def asset(self, name: str = "released", **options: Any) -> dg.AssetsDefinition:
        ran = self.ran

        def made() -> pd.DataFrame:
            ran.append(name)
            return pd.DataFrame({"inst": [901], "time": [5]})

        decorate: Any = dg.asset(name=name, retry_policy=dg.RetryPolicy(max_retries=2), **options)
        asset: dg.AssetsDefinition = decorate(made)
        return asset

    def govern(self, **definitions: Any) -> dg.Definitions:
        options: dict[str, Any] = {"resources": self.resources, **definitions}
        defs = dg.Definitions(**options)
        return govern(defs, home=self.node.home, wait_max_s=0.0)

    def columns(self, name: str = "released") -> list[str]:
        columns: list[str] = pq.read_table(self.base / f"{name}.parquet").column_names
        return columns


@pytest.fixture
def study(node: FakeNode, tmp_path: Path) -> Study:
    node.otherwise = restricted(["time"])
    return Study(node, tmp_path)


def of_a_job(study: Study) -> dg.JobDefinition:
    job = dg.define_asset_job("nightly", selection=dg.AssetSelection.groups("exports"))
    made = study.asset(group_name="exports")
    return study.govern(assets=[made, study.asset("other")], jobs=[job]).resolve_job_def("nightly")


def of_a_job_with_an_own_executor(study: Study) -> dg.JobDefinition:
    job = dg.define_asset_job("nightly", selection="released", executor_def=dg.in_process_executor)
    return study.govern(assets=[study.asset()], jobs=[job]).resolve_job_def("nightly")


def of_all_assets(study: Study) -> dg.JobDefinition:
    return study.govern(assets=[study.asset()]).resolve_implicit_global_asset_job_def()


def of_a_schedule(study: Study) -> dg.JobDefinition:
    schedule = dg.ScheduleDefinition(
        name="nightly", target=dg.AssetSelection.assets("released"), cron_schedule="0 1 * * *"
    )
    defs = study.govern(assets=[study.asset()], schedules=[schedule])
    context = dg.build_schedule_context(scheduled_execution_time=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    requests = schedule.evaluate_tick(context).run_requests
    assert len(requests or ()) == 1
    return defs.resolve_job_def(schedule.job_name)


def of_a_sensor(study: Study) -> dg.JobDefinition:
    job = dg.define_asset_job("on_change", selection="released")

    @dg.sensor(job=job)
    def changed() -> dg.RunRequest:
        return dg.RunRequest(run_key="1")

    defs = study.govern(assets=[study.asset()], sensors=[changed], jobs=[job])
    with dg.DagsterInstance.ephemeral() as instance:
        ticked = changed.evaluate_tick(dg.build_sensor_context(instance, definitions=defs))
    assert len(ticked.run_requests or ()) == 1
    return defs.resolve_job_def("on_change")


def of_an_automation(study: Study) -> dg.JobDefinition:
    made = study.asset(automation_condition=dg.AutomationCondition.eager())
    sensor = dg.AutomationConditionSensorDefinition("automatic", target=dg.AssetSelection.all())
    return study.govern(assets=[made], sensors=[sensor]).resolve_implicit_global_asset_job_def()


def of_merged_definitions(study: Study) -> dg.JobDefinition:
    parts = [dg.Definitions(assets=[study.asset()]), dg.Definitions(resources=study.resources)]
    defs = govern(dg.Definitions.merge(*parts), home=study.node.home, wait_max_s=0.0)
    return defs.resolve_implicit_global_asset_job_def()


def of_definitions_governed_before_they_are_merged(study: Study) -> dg.JobDefinition:
    governed = study.govern(assets=[study.asset()], resources={})
    defs = dg.Definitions.merge(governed, dg.Definitions(resources=study.resources))
    return defs.resolve_implicit_global_asset_job_def()


def of_assets_with_their_resources(study: Study) -> dg.JobDefinition:
    made = dg.with_resources([study.asset()], study.resources)
    return study.govern(assets=made, resources={}).resolve_implicit_global_asset_job_def()


def of_assets_that_are_changed_after(study: Study) -> dg.JobDefinition:
    study.govern(assets=[made := study.asset()])
    changed = dg.map_asset_specs(lambda spec: spec.replace_attributes(group_name="late"), [made])
    defs = dg.Definitions(assets=changed, resources=study.resources)
    return defs.resolve_implicit_global_asset_job_def()


class Exports(dg.Component):
    """A component, as a library ships them: it makes the assets that its file of settings asks for."""

    def __init__(self, made: dg.AssetsDefinition) -> None:
        self.made = made

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions(assets=[self.made])


def of_a_component(study: Study) -> dg.JobDefinition:
    context = dg.ComponentTree.for_test().load_context
    built = dg.Definitions.merge(
        Exports(study.asset()).build_defs(context), dg.Definitions(resources=study.resources)
    )
    return govern(built, home=study.node.home, wait_max_s=0.0).resolve_implicit_global_asset_job_def()


WAYS = [
    of_a_job,
    of_a_job_with_an_own_executor,
    of_all_assets,
    of_a_schedule,
    of_a_sensor,
    of_an_automation,
    of_merged_definitions,
    of_definitions_governed_before_they_are_merged,
    of_assets_with_their_resources,
    of_assets_that_are_changed_after,
    of_a_component,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_run_is_gated_and_its_bytes_are_restricted(
    study: Study, way: Callable[[Study], dg.JobDefinition]
) -> None:
    job = way(study)
    assert job.execute_in_process().success
    assert study.columns() == ["time"]
    study.ran.clear()
    study.node.otherwise = refused
    result = job.execute_in_process(raise_on_error=False)
    assert failure(result, "released")[1]["comity/outcome"] == "refuse"
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    assert study.ran == []
    study.node.otherwise = ungoverned
    result = job.execute_in_process()
    assert [each for each in stripped(result) if "comity/" in each] == []


def test_a_run_that_keeps_values_in_memory_is_refused(study: Study) -> None:
    made = study.asset()
    study.govern(assets=[made])
    result = dg.materialize_to_memory([made], raise_on_error=False)
    text, metadata = failure(result, "released")
    assert "its IO manager cannot be held to that" in text
    assert metadata["comity/causes"][0]["code"] == "restriction_not_enforceable"
    study.node.otherwise = execute
    result = dg.materialize_to_memory([made], raise_on_error=False)
    text, metadata = failure(result, "released")
    assert "released is governed, and its IO manager (InMemoryIOManager) binds no content" in text
    assert "unbound_writes='allow'" in text
    assert metadata["comity/causes"] == [
        {
            "code": "output_not_bound",
            "parameters": {"asset": "clinic-north.example/released"},
            "rule": "",
            "message": "",
        }
    ]
    assert study.ran == []
    study.node.otherwise = ungoverned
    assert dg.materialize_to_memory([made]).success


class Text(dg.UPathIOManager):
    """As people write them: how one value becomes one file."""

    extension = ".txt"

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: Any) -> None:
        path.write_text(str(obj))

    def load_from_path(self, context: dg.InputContext, path: Any) -> str:
        text: str = path.read_text()
        return text


class TextFiles(dg.ConfigurableIOManagerFactory[Text]):
    base: str

    def create_io_manager(self, context: dg.InitResourceContext) -> Text:
        from upath import UPath

        return Text(base_path=UPath(self.base))


@dg.io_manager  # type: ignore[untyped-decorator, unused-ignore]
def old_style(_: dg.InitResourceContext) -> dg.IOManager:
    return dg.InMemoryIOManager()  # type: ignore[no-untyped-call]


MANAGERS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda folder: TextFiles(base=str(folder)), "Text"),
    (lambda folder: dg.FilesystemIOManager(base_dir=str(folder)), "PickledObjectFilesystemIOManager"),
    (lambda folder: old_style, "InMemoryIOManager"),
    (lambda folder: Text(), "Text"),
]


@pytest.mark.parametrize(("manager", "name"), MANAGERS, ids=["upath", "pickle", "old style", "bare"])
def test_an_io_manager_that_binds_nothing_is_refused_before_the_work(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manager: Callable[[Path], Any], name: str
) -> None:
    # The bare one writes where it is called.
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "theirs"
    options: dict[str, Any] = {"resources": {"io_manager": manager(folder)}}
    study.node.otherwise = execute
    text, metadata = failure(materialize(study.node, study.asset(), **options), "released")
    assert f"clinic-north.example/released is governed, and its IO manager ({name}) binds no content" in text
    assert "GovernedFilesIOManager" in text
    assert metadata["comity/causes"][0]["code"] == "output_not_bound"
    assert (study.ran, folder.exists()) == ([], False)
    study.node.otherwise = ungoverned
    governed = materialize(study.node, study.asset(), **options)
    assert stripped(governed) == stripped(dg.materialize([study.asset()], **options))


def test_a_function_that_returns_nothing_is_refused_unless_that_is_allowed(study: Study) -> None:
    def writes_itself() -> dg.AssetsDefinition:
        @dg.asset(deps=["raw"])
        def released() -> None:
            study.ran.append("released")

        return released

    study.node.otherwise = execute
    options: dict[str, Any] = {"resources": study.resources, "unbound_reads": "allow"}
    text, _ = failure(materialize(study.node, writes_itself(), **options), "released")
    assert "its function, which returns no value, binds no content to lineage" in text
    assert study.ran == []
    result = materialize(study.node, writes_itself(), unbound_writes="allow", **options)
    made = materialized(result)["released"]
    assert (made["comity/content"], made["comity/inputs_not_bound"]) == ("not bound", ["raw"])
    # A restriction is never waived by an option.
    study.node.otherwise = restricted(["time"])
    study.ran.clear()
    result = materialize(study.node, writes_itself(), unbound_writes="allow", **options)
    assert failure(result, "released")[1]["comity/causes"][0]["code"] == "restriction_not_enforceable"
    assert study.ran == []


def test_of_one_functions_assets_only_the_governed_ones_need_a_binding_io_manager(study: Study) -> None:
    def pair(*deps: str) -> dg.AssetsDefinition:
        outs = {"left": dg.AssetOut(), "right": dg.AssetOut(io_manager_key="mem")}

        @dg.multi_asset(
            outs=outs, internal_asset_deps={"right": {dg.AssetKey(dep) for dep in deps}, "left": set()}
        )
        def several() -> Iterator[dg.Output[Any]]:
            yield dg.Output(pd.DataFrame({"time": [5]}), "left")
            yield dg.Output(1, "right")

        return several

    study.node.otherwise = execute
    options: dict[str, Any] = {"resources": {**study.resources, "mem": dg.mem_io_manager}}
    # Without the node's list nobody knows which of them policy means.
    text, _ = failure(materialize(study.node, pair(), **options), "several")
    assert "clinic-north.example/right is governed" in text
    study.node.governs("*/left")
    made = materialized(materialize(study.node, pair(), **options))
    assert (made["left"]["comity/content"], made["right"]["comity/content"]) == ("bound", "not bound")
    # What comes from a governed asset is governed.
    assert not materialize(study.node, pair("left"), **options).success


def test_none_where_a_table_is_due_says_what_to_do(study: Study) -> None:
    @dg.asset
    def released():  # type: ignore[no-untyped-def]  # noqa: ANN202
        return None

    for decide in (execute, ungoverned):
        study.node.otherwise = decide
        text, metadata = failure(materialize(study.node, released, resources=study.resources), "released")
        assert "annotate a function that returns nothing with -> None" in text
        assert metadata["comity/causes"][0]["code"] == "not_a_table"


PROJECT = """
import os
import dagster as dg
import pandas as pd
from comity.dagster_bridge import GovernedFilesIOManager, govern

@dg.asset(
    partitions_def=dg.StaticPartitionsDefinition(["a", "b"]), backfill_policy=dg.BackfillPolicy.single_run()
)
def released(context: dg.AssetExecutionContext):
    return dict.fromkeys(context.partition_keys, pd.DataFrame({"inst": [1], "time": [5]}))

@dg.op
def mail():
    raise AssertionError("this function must not run")

@dg.job
def nightly():
    mail()

def made():
    return govern(
        dg.Definitions(
            assets=[released],
            jobs=[nightly],
            resources={"io_manager": GovernedFilesIOManager(base=os.environ["BASE"])},
            executor=dg.in_process_executor,
        ),
        wait_max_s=0.0,
    )
"""
DIRECT = "\ndefs = made()\n"
LAZY = "\n@dg.definitions\ndef defs() -> dg.Definitions:\n    return made()\n"


@pytest.mark.parametrize("ending", [DIRECT, LAZY], ids=["direct", "lazy"])
def test_commands_of_dagster_run_governed_steps(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    file = tmp_path / "definitions.py"
    file.write_text(PROJECT + ending)
    (tmp_path / "dagster").mkdir()
    for name, value in {
        "BASE": str(tmp_path / "own"),
        "COMITY_HOME": str(node.home),
        "DAGSTER_HOME": str(tmp_path / "dagster"),
    }.items():
        monkeypatch.setenv(name, value)
    node.otherwise = restricted(["time"])
    node.decisions = {"mail": refused}

    def command(group: Any, *words: str) -> int:
        status: int = CliRunner().invoke(group, [*words, "-f", str(file)]).exit_code
        return status

    assert command(asset_cli, "materialize", "--select", "released", "--partition-range", "a...b") == 0
    written = sorted((tmp_path / "own" / "released").glob("*.parquet"))
    assert [path.stem for path in written] == ["partition=a", "partition=b"]
    assert {tuple(pq.read_table(path).column_names) for path in written} == {("time",)}
    assert [each.partition for each in node.steps[0].outputs] == ["a", "b"]
    assert command(job_cli, "execute", "-j", "nightly") != 0
    assert [form.step for form in node.steps] == ["released", "mail"]


def test_lazy_definitions_are_governed_inside_of_their_function(study: Study) -> None:
    @dg.definitions
    def lazy() -> dg.Definitions:
        return dg.Definitions(assets=[study.asset()])

    with pytest.raises(ConfigError, match=r"inside of its function: return govern\(defs\)"):
        govern(lazy)  # type: ignore[arg-type]


def test_a_folder_of_definitions_is_governed_whole(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    folder = root / "src" / "exports" / "defs"
    folder.mkdir(parents=True)
    (root / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "exports"\n'
    )
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "released.py").write_text(
        "import dagster as dg\nimport pandas as pd\n\n@dg.asset\ndef released():\n"
        "    return pd.DataFrame({'inst': [1], 'time': [5]})\n"
    )
    monkeypatch.syspath_prepend(str(root / "src"))
    found = dg.load_from_defs_folder(path_within_project=folder)
    defs = govern(
        dg.Definitions.merge(found, dg.Definitions(resources=study.resources)),
        home=study.node.home,
        wait_max_s=0.0,
    )
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process().success
    assert study.columns() == ["time"]
    study.node.otherwise = refused
    assert not job.execute_in_process(raise_on_error=False).success


def test_definitions_that_share_an_asset_are_governed_each(study: Study) -> None:
    made = study.asset()
    for others in ([], [study.asset("other")]):
        defs = study.govern(assets=[made, *others])
        assert defs.resolve_implicit_global_asset_job_def().execute_in_process().success
    # One gate stands before the shared asset: one intent for each of three steps.
    assert sorted(form.step for form in study.node.steps) == ["other", "released", "released"]


def names(events: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    for event in events:
        yield event.event_type_value


def test_a_failure_of_a_read_is_not_retried_either(study: Study) -> None:
    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=3))
    def report(released: pd.DataFrame) -> pd.DataFrame:
        return released

    study.node.otherwise = execute
    made = study.asset()
    assert materialize(study.node, made, resources=study.resources).success
    with (study.base / "released.parquet").open("ab") as file:
        file.write(b" ")
    result = materialize(study.node, made, report, select=["report"], resources=study.resources)
    assert failure(result, "report")[1]["comity/causes"][0]["code"] == "digest_differs"
    assert "STEP_UP_FOR_RETRY" not in list(names(result.all_events))
