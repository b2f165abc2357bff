"""Every way to read a governed asset: verified before it is parsed, or refused before anything is loaded."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comity.dagster_bridge import GovernedFilesIOManager, govern
from comity.node.forms import InputForm, StepAnswer, StepForm
from dagster_runs import Runnable, failure, materialize, materialized
from fake_node import MEMBER, FakeNode, execute, refused, ungoverned

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]


class Loads:
    """A pickling IO manager's stand-in: it says what it is made to load."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def manager(self) -> Any:
        loads = self.names

        class Pickles(dg.IOManager):
            def handle_output(self, context: dg.OutputContext, obj: object) -> None:
                """Keep nothing."""

            def load_input(self, context: dg.InputContext) -> object:
                loads.append(context.name)
                return pd.DataFrame({"time": [1]})

        return Pickles()


@pytest.fixture
def loads() -> Loads:
    return Loads()


def files(folder: Path, **options: Any) -> GovernedFilesIOManager:
    return GovernedFilesIOManager(base=str(folder / "own"), **options)


def released() -> dg.AssetsDefinition:
    @dg.asset(name="released")
    def made() -> pd.DataFrame:
        return pd.DataFrame({"time": [1, 2]})

    return made


def reads_only(form: StepForm) -> StepAnswer:
    """What a node says of a step that makes nothing and reads governed assets: their whole ids."""
    names = [each.asset if "." in each.asset else f"{MEMBER}/{each.asset}" for each in form.inputs]
    return StepAnswer(intent="", outcome="ungoverned", governed_inputs=names)


def made_and_altered(node: FakeNode, folder: Path) -> dg.AssetsDefinition:
    """An asset under lineage whose file was altered since, in definitions that nothing governs yet."""
    node.otherwise = execute
    assert materialize(node, released(), resources={"io_manager": files(folder)}).success
    pq.write_table(pa.table({"time": [9, 9]}), folder / "own" / "released.parquet")
    return released()


def loaded_by_an_asset(made: dg.AssetsDefinition) -> list[Runnable]:
    @dg.asset(io_manager_key="files")
    def reader(released: pd.DataFrame) -> pd.DataFrame:
        return released

    return [reader]


def loaded_by_an_input_manager(made: dg.AssetsDefinition) -> list[Runnable]:
    @dg.asset(ins={"table": dg.AssetIn("released", input_manager_key="pickles")}, io_manager_key="files")
    def reader(table: pd.DataFrame) -> pd.DataFrame:
        return table

    return [reader]


def loaded_by_a_check(made: dg.AssetsDefinition) -> list[Runnable]:
    @dg.asset_check(asset=made, name="reader")
    def check(released: pd.DataFrame) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    return [check]


def loaded_by_a_graph(made: dg.AssetsDefinition) -> list[Runnable]:
    @dg.op
    def inner(released: pd.DataFrame) -> pd.DataFrame:
        return released

    def reader(released: pd.DataFrame) -> Any:
        return inner(released)

    return [dg.graph_asset(reader)]


@pytest.mark.parametrize(
    "form", [loaded_by_an_asset, loaded_by_an_input_manager, loaded_by_a_check, loaded_by_a_graph]
)
def test_what_another_io_manager_would_load_is_refused_before_it_is_loaded(
    node: FakeNode, tmp_path: Path, loads: Loads, form: Callable[[dg.AssetsDefinition], list[Runnable]]
) -> None:
    made = released()
    node.decisions = {"released": ungoverned, "released_reader": reads_only}
    node.otherwise = execute
    pickles = loads.manager()
    result = materialize(
        node,
        made,
        *form(made),
        resources={"io_manager": pickles, "pickles": pickles, "files": files(tmp_path)},
    )
    step = next(event.step_key or "" for event in result.all_events if event.is_step_failure)
    text, metadata = failure(result, step)
    assert "reads released without verification" in text
    assert "GovernedFilesIOManager" in text
    assert metadata["comity/causes"][0] == {
        "code": "input_not_bound",
        "parameters": {"asset": "released"},
        "rule": "",
        "message": "",
    }
    assert loads.names == []
    assert not any(event.is_step_up_for_retry for event in result.all_events)


def test_a_refused_step_has_nothing_loaded_by_any_io_manager(node: FakeNode, loads: Loads) -> None:
    made = released()
    node.decisions = {"released": ungoverned, "reader": refused}
    result = materialize(
        node,
        made,
        *loaded_by_an_asset(made),
        resources={"io_manager": loads.manager(), "files": loads.manager()},
    )
    assert failure(result, "reader")[1]["comity/outcome"] == "refuse"
    assert loads.names == []


def test_an_ungoverned_step_is_loaded_by_its_own_io_manager(node: FakeNode, loads: Loads) -> None:
    made = released()
    resources = {"io_manager": loads.manager(), "files": loads.manager()}
    assert materialize(node, made, *loaded_by_an_asset(made), resources=resources).success
    assert loads.names == ["released"]


def test_a_check_that_loads_a_governed_asset_has_it_verified(node: FakeNode, tmp_path: Path) -> None:
    made = made_and_altered(node, tmp_path)
    check = loaded_by_a_check(made)
    node.decisions = {"released_reader": reads_only}
    options: dict[str, Any] = {"resources": {"io_manager": files(tmp_path)}}
    govern(dg.Definitions(assets=[made], asset_checks=check), home=node.home, wait_max_s=0.0)  # type: ignore[arg-type]
    alone = dg.materialize(
        [made, *check],
        selection=dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("released"), "reader")),
        raise_on_error=False,
        **options,
    )
    assert failure(alone, "released_reader")[1]["comity/causes"][0]["code"] == "digest_differs"
    assert alone.get_asset_check_evaluations() == []
    # Made anew, its bytes are those that were made.
    both = dg.materialize([made, *check], **options)
    assert [each.passed for each in both.get_asset_check_evaluations()] == [True]
    assert [each.asset for each in node.reads] == ["released", "released"]


def op_of_a_job(made: dg.AssetsDefinition, seen: list[object]) -> dg.JobDefinition:
    @dg.op
    def export(table: pd.DataFrame) -> None:
        seen.append(table)

    @dg.job
    def nightly() -> None:
        export(made.to_source_asset())

    return nightly


def test_an_op_without_assets_has_the_governed_asset_that_it_reads_verified(
    node: FakeNode, tmp_path: Path, loads: Loads
) -> None:
    made, seen = made_and_altered(node, tmp_path), list[object]()
    node.decisions = {"export": reads_only}
    for manager, code in ((files(tmp_path), "digest_differs"), (loads.manager(), "input_not_bound")):
        defs = dg.Definitions(
            assets=[made], jobs=[op_of_a_job(made, seen)], resources={"io_manager": manager}
        )
        govern(defs, home=node.home, wait_max_s=0.0)
        result = defs.resolve_job_def("nightly").execute_in_process(raise_on_error=False)
        assert failure(result, "export")[1]["comity/causes"][0]["code"] == code
        assert node.steps[-1].inputs == [InputForm("released")]
    assert (seen, loads.names) == ([], [])


def test_an_op_that_names_its_asset_itself_is_known_to_read_it(node: FakeNode, loads: Loads) -> None:
    key = dg.AssetKey("released")

    @dg.op(ins={"table": dg.In(asset_key=key, input_manager_key="pickles")})
    def export(table: Any) -> None:
        raise AssertionError("this function must not run")

    @dg.job(resource_defs={"pickles": dg.IOManagerDefinition.hardcoded_io_manager(loads.manager())})
    def nightly() -> None:
        export()

    govern(dg.Definitions(jobs=[nightly]), home=node.home, wait_max_s=0.0)
    node.otherwise = reads_only
    result = nightly.execute_in_process(raise_on_error=False)
    assert failure(result, "export")[1]["comity/causes"][0]["code"] == "input_not_bound"
    assert loads.names == []


def test_what_a_function_loads_without_having_stated_it_is_verified(node: FakeNode, tmp_path: Path) -> None:
    made, got = made_and_altered(node, tmp_path), list[object]()

    @dg.asset(io_manager_key="mem")
    def report() -> int:
        got.append(defs.load_asset_value("released"))
        return 1

    node.otherwise = ungoverned
    resources = {"io_manager": files(tmp_path), "mem": dg.mem_io_manager}
    node.governs("*/released")
    defs = govern(dg.Definitions(assets=[made, report], resources=resources), home=node.home, wait_max_s=0.0)

    def run() -> dg.ExecuteInProcessResult:
        job = defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(asset_selection=[report.key], raise_on_error=False)

    text, metadata = failure(run(), "report")
    assert "released is not admitted" in text
    assert metadata["comity/causes"][0]["code"] == "digest_differs"
    assert got == []
    # The node's list says that nobody governs it.
    node.governs("*/elsewhere")
    assert run().success
    assert len(got) == 1


def external(folder: Path) -> list[Runnable]:
    return [dg.AssetSpec("released").with_io_manager_key("files")]


def source(folder: Path) -> list[Runnable]:
    return [dg.SourceAsset("released", io_manager_key="files")]


def observed(folder: Path) -> list[Runnable]:
    @dg.observable_source_asset(io_manager_key="files")
    def released() -> dg.DataVersion:
        return dg.DataVersion("1")

    return [released]


@pytest.mark.parametrize("form", [external, source, observed])
def test_an_asset_that_is_made_elsewhere_is_verified(
    node: FakeNode, tmp_path: Path, form: Callable[[Path], list[Runnable]]
) -> None:
    made_and_altered(node, tmp_path)
    seen: list[object] = []

    @dg.asset
    def pooled(released: pd.DataFrame) -> pd.DataFrame:
        seen.append(released)
        return released

    options: dict[str, Any] = {"resources": {"io_manager": files(tmp_path), "files": files(tmp_path)}}
    result = materialize(node, *form(tmp_path), pooled, select=["pooled"], **options)
    assert failure(result, "pooled")[1]["comity/causes"][0]["code"] == "digest_differs"
    assert materialize(node, released(), resources={"io_manager": files(tmp_path)}).success
    result = materialize(node, *form(tmp_path), pooled, select=["pooled"], **options)
    assert result.success
    assert materialized(result)["pooled"]["comity/inputs"][0]["asset"] == "clinic-north.example/released"
    assert len(seen) == 1


def test_an_observation_of_several_sources_is_gated(node: FakeNode) -> None:
    ran: list[str] = []

    @dg.multi_observable_source_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec("right")])  # type: ignore[untyped-decorator]
    def sources() -> Iterator[dg.ObserveResult]:
        ran.append("sources")
        yield dg.ObserveResult(asset_key="left", data_version=dg.DataVersion("1"))
        yield dg.ObserveResult(asset_key="right", metadata={"rows": 3})

    defs = govern(dg.Definitions(assets=[sources]), home=node.home, wait_max_s=0.0)
    job = defs.resolve_implicit_global_asset_job_def()
    node.otherwise = refused
    assert not job.execute_in_process(raise_on_error=False).success
    assert ran == []
    assert node.steps[0].inputs == [InputForm("left"), InputForm("right")]
    node.otherwise = ungoverned
    assert job.execute_in_process().success


def test_many_partitions_come_as_a_mapping_and_each_is_verified(node: FakeNode, tmp_path: Path) -> None:
    days = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-08")
    last_three = dg.TimeWindowPartitionMapping(
        start_offset=-2, end_offset=0, allow_nonexistent_upstream_partitions=True
    )

    @dg.asset(partitions_def=days)
    def visits(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame({"day": [context.partition_key]})

    @dg.asset(partitions_def=days, ins={"visits": dg.AssetIn("visits", partition_mapping=last_three)})
    def window(context: dg.AssetExecutionContext, visits: Any) -> pd.DataFrame:
        got[context.partition_key] = visits if isinstance(visits, dict) else {"": visits}
        return pd.concat(got[context.partition_key].values())

    got: dict[str, dict[str, pd.DataFrame]] = {}
    node.otherwise = execute
    resources = {"io_manager": files(tmp_path)}
    with dg.DagsterInstance.ephemeral() as instance:
        options: dict[str, Any] = {"instance": instance, "resources": resources}
        keys = [f"2024-01-0{day}" for day in (1, 2, 3, 4)]
        for key in keys:
            assert materialize(node, visits, partition=key, **options).success
        for key in (keys[0], keys[3]):
            result = materialize(node, visits, window, select=["window"], partition=key, **options)
            assert result.success
        assert list(got[keys[0]]) == [""]
        assert list(got[keys[3]]) == keys[1:]
        assert [(each.asset, each.partition) for each in node.reads] == [
            ("visits", key) for key in (keys[0], *keys[1:])
        ]
        assert node.steps[-1].inputs == [InputForm("visits", key) for key in keys[1:]]
        # One altered partition of three, and none of them is given on.
        with (tmp_path / "own" / "visits" / f"partition={keys[2]}.parquet").open("ab") as file:
            file.write(b" ")
        got.clear()
        result = materialize(node, visits, window, select=["window"], partition=keys[3], **options)
    assert failure(result, "window")[1]["comity/causes"][0]["code"] == "digest_differs"
    assert got == {}


def test_an_asset_that_reads_its_own_past_has_that_verified(node: FakeNode, tmp_path: Path) -> None:
    days = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-08")
    before = dg.TimeWindowPartitionMapping(
        start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )

    @dg.asset(partitions_def=days, ins={"past": dg.AssetIn("total", partition_mapping=before)})
    def total(past: Any) -> pd.DataFrame:
        return pd.DataFrame({"n": [1 if past is None else int(past["n"][0]) + 1]})

    node.otherwise = execute
    options: dict[str, Any] = {"resources": {"io_manager": files(tmp_path)}}
    for key in ("2024-01-01", "2024-01-02"):
        assert materialize(node, total, partition=key, **options).success
    assert node.steps[-1].inputs == [InputForm("total", "2024-01-01")]
    with (tmp_path / "own" / "total" / "partition=2024-01-02.parquet").open("ab") as file:
        file.write(b" ")
    result = materialize(node, total, partition="2024-01-03", **options)
    assert failure(result, "total")[1]["comity/causes"][0]["code"] == "digest_differs"


def test_a_range_reads_the_partitions_of_its_range(node: FakeNode, tmp_path: Path) -> None:
    days = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-08")
    policy = dg.BackfillPolicy.single_run()

    @dg.asset(partitions_def=days, backfill_policy=policy)
    def visits(context: dg.AssetExecutionContext) -> dict[str, pd.DataFrame]:
        return {key: pd.DataFrame({"day": [key]}) for key in context.partition_keys}

    @dg.asset(partitions_def=days, backfill_policy=policy)
    def cleaned(visits: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        return visits

    node.otherwise = execute
    tags = {
        "dagster/asset_partition_range_start": "2024-01-02",
        "dagster/asset_partition_range_end": "2024-01-04",
    }
    result = materialize(node, visits, cleaned, tags=tags, resources={"io_manager": files(tmp_path)})
    assert result.success
    keys = ["2024-01-02", "2024-01-03", "2024-01-04"]
    assert [each.partition for each in node.steps[-1].inputs] == keys
    assert [each.partition for each in node.reads] == keys
    assert set(materialized(result)) == {f"{name}[{key}]" for name in ("visits", "cleaned") for key in keys}
