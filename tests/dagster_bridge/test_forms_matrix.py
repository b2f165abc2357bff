"""Every form in which Dagster's users write assets: gated, restricted, verified, and untouched if ungoverned.

Each form makes `released`, or several assets, from the governed table `patients`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dagster_runs
from comity.dagster_bridge import GovernedFilesIOManager
from comity.node.forms import StartForm
from dagster_runs import Runnable, failure, materialized, stripped
from fake_node import MEMBER, FakeNode, execute, refused, restricted, ungoverned

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]

Note: TypeAlias = Callable[[], None]
"""Called by each function of a form when it runs."""


@dataclass(frozen=True)
class Form:
    """Assets, how they are run, and which files they make."""

    assets: list[Runnable]
    files: list[str] = field(default_factory=lambda: ["released"])
    partition: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    select: list[str] | None = None
    resources: Mapping[str, Any] = field(default_factory=dict[str, Any])
    dynamic: list[str] = field(default_factory=list[str])
    retried: bool = True


def patients() -> pd.DataFrame:
    return pd.DataFrame({"inst": [901, 902], "time": [5, 6]})


def source() -> dg.AssetsDefinition:
    @dg.asset(name="patients")
    def made() -> pd.DataFrame:
        return patients()

    return made


RETRY = dg.RetryPolicy(max_retries=2)


def plain(note: Note) -> Form:
    @dg.asset(retry_policy=RETRY)
    def released(patients: pd.DataFrame) -> pd.DataFrame:
        note()
        return patients

    return Form([released])


def renamed_input(note: Note) -> Form:
    @dg.asset(ins={"table": dg.AssetIn(key="patients")}, retry_policy=RETRY)
    def released(table):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        note()
        return table

    return Form([released])


def arrow(note: Note) -> Form:
    @dg.asset(retry_policy=RETRY)
    def released(context: dg.AssetExecutionContext, patients: pa.Table) -> pa.Table:
        note()
        return patients

    return Form([released])


def coroutine(note: Note) -> Form:
    @dg.asset(retry_policy=RETRY)
    async def released(patients: pd.DataFrame) -> pd.DataFrame:
        note()
        return patients

    return Form([released])


def output(note: Note) -> Form:
    @dg.asset(retry_policy=RETRY)
    def released(patients: pd.DataFrame) -> dg.Output[pd.DataFrame]:
        note()
        return dg.Output(patients, metadata={"rows": 2}, data_version=dg.DataVersion("seven"))

    return Form([released])


def generator(note: Note) -> Form:
    @dg.asset(retry_policy=RETRY)
    def released(patients: pd.DataFrame) -> Iterator[object]:
        note()
        yield dg.AssetObservation("patients", metadata={"seen": 1})
        yield dg.Output(patients)

    return Form([released])


def returned_generator(note: Note) -> Form:
    def outputs(table: pd.DataFrame) -> Iterator[object]:
        yield dg.Output(table)

    @dg.asset(retry_policy=RETRY)
    def released(patients: pd.DataFrame) -> Any:
        note()
        return outputs(patients)

    return Form([released])


def materialize_result(note: Note) -> Form:
    @dg.asset(retry_policy=RETRY, check_specs=[dg.AssetCheckSpec("whole", asset="released")])
    def released(patients: pd.DataFrame):  # type: ignore[no-untyped-def]  # noqa: ANN202
        note()
        return dg.MaterializeResult(
            value=patients, metadata={"rows": 2}, check_results=[dg.AssetCheckResult(passed=True)]
        )

    return Form([released])


def multi_asset(note: Note) -> Form:
    @dg.multi_asset(
        outs={name: dg.AssetOut(is_required=False) for name in ("left", "menu", "released")},
        can_subset=True,
        retry_policy=RETRY,
    )
    def several(context: dg.AssetExecutionContext, patients: pd.DataFrame) -> Iterator[dg.Output[Any]]:
        note()
        for name in sorted(context.op_execution_context.selected_output_names):
            yield dg.Output(patients, name)

    return Form([several], files=["menu", "released"], select=["menu", "released"])


def multi_asset_of_results(note: Note) -> Form:
    names = ["left", "released"]

    @dg.multi_asset(outs={name: dg.AssetOut() for name in names}, retry_policy=RETRY)
    def several(patients: pd.DataFrame):  # type: ignore[no-untyped-def]  # noqa: ANN202
        note()
        return tuple(dg.MaterializeResult(asset_key=name, value=patients) for name in names)

    return Form([several], files=names)


def graph_asset(note: Note) -> Form:
    @dg.op(retry_policy=RETRY)
    def clean(patients: pd.DataFrame) -> pd.DataFrame:
        note()
        return patients

    @dg.op(out=dg.DynamicOut())
    def split(patients: pd.DataFrame) -> Iterator[dg.DynamicOutput[Any]]:
        for inst, rows in patients.groupby("inst"):
            yield dg.DynamicOutput(rows, mapping_key=f"i{inst}", metadata={"rows": len(rows)})

    @dg.op
    def join(parts: list[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(parts, ignore_index=True)

    def released(patients: pd.DataFrame) -> Any:
        return join(split(clean(patients)).collect())

    return Form([dg.graph_asset(released)])


def graph_multi_asset(note: Note) -> Form:
    @dg.op(retry_policy=RETRY, out={"one": dg.Out(), "two": dg.Out()})
    def halves(patients: pd.DataFrame) -> tuple[Any, Any]:
        note()
        return patients, patients

    def several(patients: pd.DataFrame) -> Any:
        one, two = halves(patients)
        return {"left": one, "released": two}

    outs = {"left": dg.AssetOut(), "released": dg.AssetOut()}
    return Form([dg.graph_multi_asset(outs=outs)(several)], files=["left", "released"])


class Settings(dg.Config):
    rows: int = 2


class Registry(dg.ConfigurableResource[Any]):
    name: str


def config_and_resources(note: Note) -> Form:
    @dg.asset(retry_policy=RETRY)
    def released(patients: pd.DataFrame, config: Settings, registry: Registry) -> pd.DataFrame:
        note()
        assert registry.name == "hospital"
        return patients.head(config.rows)

    return Form([released], resources={"registry": Registry(name="hospital")})


def other_key(note: Note) -> Form:
    @dg.asset(retry_policy=RETRY, io_manager_key="files", key=["exports", "released"])
    def released(patients: pd.DataFrame) -> pd.DataFrame:
        note()
        return patients

    return Form([released], files=["exports/released"])


def of_static_partitions(note: Note) -> Form:
    @dg.asset(retry_policy=RETRY, partitions_def=dg.StaticPartitionsDefinition(["north", "south"]))
    def released(patients: pd.DataFrame) -> pd.DataFrame:
        note()
        return patients

    return Form([released], files=["released/partition=south"], partition="south")


def of_days_in_one_run(note: Note) -> Form:
    @dg.asset(
        retry_policy=RETRY,
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01"),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def released(context: dg.AssetExecutionContext, patients: pd.DataFrame) -> dict[str, pd.DataFrame]:
        note()
        return dict.fromkeys(context.partition_keys, patients)

    days = ["2024-01-05", "2024-01-06"]
    tags: dict[str, str] = dict(zip(RANGE, days, strict=True))
    return Form([released], files=[f"released/partition={day}" for day in days], tags=tags)


RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def of_two_dimensions(note: Note) -> Form:
    dimensions = {
        "day": dg.DailyPartitionsDefinition("2024-01-01"),
        "site": dg.StaticPartitionsDefinition(["north"]),
    }

    @dg.asset(retry_policy=RETRY, partitions_def=dg.MultiPartitionsDefinition(dimensions))
    def released(patients: pd.DataFrame) -> pd.DataFrame:
        note()
        return patients

    partition = dg.MultiPartitionKey({"day": "2024-01-05", "site": "north"})
    return Form([released], files=["released/partition=2024-01-05%7Cnorth"], partition=partition)


def of_dynamic_partitions(note: Note) -> Form:
    @dg.asset(retry_policy=RETRY, partitions_def=dg.DynamicPartitionsDefinition(name="sites"))
    def released(patients: pd.DataFrame) -> pd.DataFrame:
        note()
        return patients

    return Form([released], files=["released/partition=a"], partition="a", dynamic=["a", "b"])


def of_its_own_yesterday(note: Note) -> Form:
    days = dg.DailyPartitionsDefinition("2024-01-01")
    before = dg.TimeWindowPartitionMapping(
        start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )

    @dg.asset(
        retry_policy=RETRY,
        partitions_def=days,
        ins={"yesterday": dg.AssetIn("released", partition_mapping=before)},
    )
    def released(yesterday: Any, patients: pd.DataFrame) -> pd.DataFrame:
        note()
        assert yesterday is None
        return patients

    return Form([released], files=["released/partition=2024-01-01"], partition="2024-01-01")


FORMS = [
    plain,
    renamed_input,
    arrow,
    coroutine,
    output,
    generator,
    returned_generator,
    materialize_result,
    multi_asset,
    multi_asset_of_results,
    graph_asset,
    graph_multi_asset,
    config_and_resources,
    other_key,
    of_static_partitions,
    of_days_in_one_run,
    of_two_dimensions,
    of_dynamic_partitions,
    of_its_own_yesterday,
]
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


MADE: list[tuple[dict[str, bytes], tuple[str, str]]] = []
"""What lies there once `patients` is made, and its entry in the node's ledger."""


class Bench:
    """Runs a form on `patients`, which are there under lineage."""

    def __init__(self, node: FakeNode, folder: Path, form: Callable[[Note], Form]) -> None:
        self.node = node
        self.ran: list[str] = []
        self.base = folder / "own"
        self.form = form(lambda: self.ran.append(form.__name__))
        files = GovernedFilesIOManager(base=str(self.base))
        self.resources = {"io_manager": files, "files": files, **self.form.resources}
        node.otherwise = execute
        self.source = source()
        self._lay_down_patients()

    def _lay_down_patients(self) -> None:
        """Make them once, and for every other bench lay down what was made, with its record."""
        key = (f"{MEMBER}/patients", "")
        if not MADE:
            assert dagster_runs.materialize(self.node, self.source, resources=self.resources).success
            self.node.calls.clear()
            made = {path.name: path.read_bytes() for path in self.base.glob("patients.*")}
            MADE.append((made, self.node.ledger[key]))
            return
        made, self.node.ledger[key] = MADE[0]
        self.base.mkdir(parents=True)
        for name, data in made.items():
            (self.base / name).write_bytes(data)

    def run(self, *, governed: bool = True) -> dg.ExecuteInProcessResult:
        assets = [self.source, *self.form.assets]
        names = self.form.select or sorted(
            "/".join(key.path)
            for made in self.form.assets
            for key in (made.keys if isinstance(made, dg.AssetsDefinition) else [made.key])
        )
        with dg.DagsterInstance.ephemeral() as instance:
            if self.form.dynamic:
                instance.add_dynamic_partitions("sites", self.form.dynamic)
            options: dict[str, Any] = {"resources": self.resources, "instance": instance}
            options |= {"tags": dict(self.form.tags)}
            if governed:
                return dagster_runs.materialize(
                    self.node, *assets, select=names, partition=self.form.partition, **options
                )
            return dg.materialize(
                assets,
                selection=names,
                partition_key=self.form.partition,
                raise_on_error=False,
                **options,
            )

    def files(self) -> list[str]:
        """What lies there besides the source and values between ops."""
        found = (path.relative_to(self.base) for path in self.base.rglob("*.parquet"))
        return sorted(str(path.with_suffix("")) for path in found if str(path) != "patients.parquet")


def unit(result: dg.ExecuteInProcessResult) -> str:
    """The step that failed first."""
    return next(event.step_key or "" for event in result.all_events if event.is_step_failure)


@every_form
def test_a_refused_form_reads_nothing_runs_nothing_and_is_not_retried(
    node: FakeNode, tmp_path: Path, form: Callable[[Note], Form]
) -> None:
    bench = Bench(node, tmp_path, form)
    node.otherwise = refused
    result = bench.run()
    _, metadata = failure(result, unit(result))
    assert metadata["comity/outcome"] == "refuse"
    assert metadata["comity/causes"][0]["code"] == "purpose_not_allowed"
    assert metadata["comity/votes"]["clinic-south.example"] == "refuse"
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    assert (bench.ran, bench.files(), node.reads) == ([], [], [])
    assert materialized(result) == {}


@every_form
def test_a_restriction_reaches_the_bytes_of_every_form(
    node: FakeNode, tmp_path: Path, form: Callable[[Note], Form]
) -> None:
    bench = Bench(node, tmp_path, form)
    node.otherwise = restricted(["time"])
    result = bench.run()
    assert result.success
    assert bench.files() == sorted(bench.form.files)
    for name in bench.form.files:
        path = bench.base / f"{name}.parquet"
        assert pq.read_table(path).to_pydict() == {"time": [5, 6]}
        assert b"inst" not in path.read_bytes()
        assert path.with_name(f"{path.name}.comity").exists()
    made = materialized(result)
    assert len(made) == len(bench.form.files)
    for said in made.values():
        assert (said["comity/content"], said["comity/columns_withheld"]) == ("bound", ["inst"])
        # Of a graph, the op that makes the asset is not the one that loads what it is made from.
        loaded = {each["asset"] for each in said.get("comity/inputs", ())}
        assert loaded == ({"clinic-north.example/patients"} if form is not graph_asset else set())
    assert {each.asset for each in node.reads} == {"patients"}
    # Each output's start is recorded once, and before its bytes.
    starts = [(each.asset, each.partition) for each in node.said("/v1/starts", StartForm)]
    assert starts == [(each.asset, each.partition) for each in node.actuations]
    assert len(set(starts)) == len(bench.form.files)


@every_form
def test_no_form_parses_an_input_that_is_not_admitted(
    node: FakeNode, tmp_path: Path, form: Callable[[Note], Form], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(node, tmp_path, form)
    pq.write_table(pa.table({"inst": [1], "time": [1]}), bench.base / "patients.parquet")
    parsed: list[bytes] = []
    monkeypatch.setattr(
        "comity.dagster_bridge.tables.parse_table", lambda data, *_, **__: parsed.append(data)
    )
    result = bench.run()
    text, metadata = failure(result, unit(result))
    assert "patients is not admitted: the bytes are not those that were made" in text
    assert metadata["comity/causes"][0]["code"] == "digest_differs"
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    assert (bench.ran, bench.files(), parsed) == ([], [], [])


@every_form
def test_the_event_log_of_an_ungoverned_form_is_as_without_govern(
    node: FakeNode, tmp_path: Path, form: Callable[[Note], Form]
) -> None:
    bench = Bench(node, tmp_path / "governed", form)
    node.otherwise = ungoverned
    governed = bench.run()
    assert governed.success
    assert bench.ran
    plain = Bench(node, tmp_path / "plain", form)
    node.governs("elsewhere.example/**")
    plain.resources |= {
        key: GovernedFilesIOManager(base=str(plain.base), home=str(node.home))
        for key in ("io_manager", "files")
    }
    expected = plain.run(governed=False)
    assert [each for each in stripped(governed) if "comity/" in each] == []
    assert without_place(governed, bench.base) == without_place(expected, plain.base)
    assert [path.name for path in bench.base.rglob("*.comity")] == ["patients.parquet.comity"]


def without_place(result: dg.ExecuteInProcessResult, folder: Path) -> list[str]:
    return [each.replace(str(folder), "") for each in stripped(result)]
