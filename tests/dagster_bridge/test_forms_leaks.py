"""What a permit withholds leaves a step by no way that the bridge can see: bytes, event log, or failure."""

import base64
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comity.dagster_bridge import GovernedFilesIOManager, govern
from comity.node.forms import TermForm
from dagster_runs import failure, materialize, materialized, stripped
from fake_node import FakeNode, execute, restricted

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore:Class `ExpectationResult`"),
]

SECRET = "Ada Lovelace"
"""A value of the column that is withheld. It must not be in any file or event."""


def people() -> pd.DataFrame:
    return pd.DataFrame({"name": [SECRET, SECRET, "Bob"], "time": [5, 6, 7]})


def preview() -> dict[str, Any]:
    """What people attach to their assets, each with a withheld value."""
    columns = [dg.TableColumn("name", description=f"such as {SECRET}")]
    return {
        "preview": dg.MetadataValue.md(people().to_string()),
        "sample": people().head(1).to_dict("records"),
        "dagster/column_schema": dg.TableSchema(columns=columns),
        SECRET: 2,
    }


def run(
    node: FakeNode, folder: Path, *made: dg.AssetsDefinition, decide: Any = None, **options: Any
) -> dg.ExecuteInProcessResult:
    node.otherwise = decide or restricted(["time"])
    resources = {"io_manager": GovernedFilesIOManager(base=str(folder), **options)}
    return materialize(node, *made, resources=resources)


def said(result: dg.ExecuteInProcessResult) -> str:
    """Everything that Dagster keeps of a run."""
    return "\n".join(dg.serialize_value(event) for event in result.all_events)


def plain_bytes(path: Path) -> bytes:
    """The bytes of a file, and what Parquet keeps encoded or compressed in it."""
    data = path.read_bytes()
    if path.suffix != ".parquet":
        return data
    file = pq.ParquetFile(path)
    kept = file.metadata.metadata or {}
    return b"\n".join(
        [data, *kept, *map(base64.b64decode, kept.values()), str(file.read().to_pydict()).encode()]
    )


def as_output() -> dg.AssetsDefinition:
    @dg.asset
    def released() -> dg.Output[pd.DataFrame]:
        return dg.Output(people(), metadata=preview(), tags={"of": "Ada_Lovelace"})

    return released


def as_result() -> dg.AssetsDefinition:
    check = dg.AssetCheckSpec("names", asset="released")

    @dg.asset(check_specs=[check])
    def released():  # type: ignore[no-untyped-def]  # noqa: ANN202
        checked = dg.AssetCheckResult(passed=True, metadata=preview(), description=f"saw {SECRET}")
        return dg.MaterializeResult(value=people(), metadata=preview(), check_results=[checked])

    return released


def through_the_context() -> dg.AssetsDefinition:
    @dg.asset
    def released(context: dg.AssetExecutionContext) -> pd.DataFrame:
        context.add_output_metadata(preview())
        context.add_asset_metadata(preview())
        return people()

    return released


def in_events_beside() -> dg.AssetsDefinition:
    @dg.asset(check_specs=[dg.AssetCheckSpec("names", asset="released")])
    def released() -> Iterator[object]:
        yield dg.AssetObservation("released", metadata=preview(), description=SECRET)
        yield dg.ExpectationResult(success=True, metadata=preview(), description=SECRET)
        yield dg.Output(people(), metadata=preview())
        yield dg.AssetCheckResult(passed=True, metadata=preview())

    return released


def as_a_coroutine() -> dg.AssetsDefinition:
    @dg.asset
    async def released() -> dg.Output[pd.DataFrame]:
        return dg.Output(people(), metadata=preview())

    return released


def as_an_asynchronous_generator() -> dg.AssetsDefinition:
    @dg.asset
    async def released():  # type: ignore[no-untyped-def]  # noqa: ANN202
        yield dg.Output(people(), metadata=preview())

    return released


def between_ops() -> dg.AssetsDefinition:
    @dg.op
    def load() -> dg.Output[pd.DataFrame]:
        return dg.Output(people(), metadata=preview())

    @dg.op(out=dg.DynamicOut())
    def split(table: pd.DataFrame) -> Iterator[dg.DynamicOutput[Any]]:
        yield dg.DynamicOutput(table, mapping_key="all", metadata=preview())

    @dg.op
    def join(tables: list[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(tables)

    def released() -> Any:
        return join(split(load()).collect())

    return dg.graph_asset(released)


@pytest.mark.parametrize(
    "form",
    [
        as_output,
        as_result,
        through_the_context,
        in_events_beside,
        as_a_coroutine,
        as_an_asynchronous_generator,
        between_ops,
    ],
    ids=lambda form: form.__name__,
)
def test_what_a_function_says_of_withheld_values_is_kept_out_of_the_event_log(
    node: FakeNode, tmp_path: Path, form: Callable[[], dg.AssetsDefinition]
) -> None:
    result = run(node, tmp_path, form())
    assert result.success
    assert SECRET not in said(result)
    assert "Ada_Lovelace" not in said(result)
    made = materialized(result)["released"]
    assert made["comity/columns_withheld"] == ["name"]
    if form is not between_ops:
        assert made["comity/metadata_withheld"] >= 4
    # The check's verdict is no value of the table.
    assert all(each.passed for each in result.get_asset_check_evaluations())
    # Where nothing is withheld, nothing is taken from what the function says.
    assert SECRET in said(run(node, tmp_path, form(), decide=execute))


def test_a_permit_for_declared_columns_keeps_out_what_is_said_of_others(
    node: FakeNode, tmp_path: Path
) -> None:
    columns = dg.TableSchema(columns=[dg.TableColumn("time")])

    def declared(columns_made: list[str]) -> dg.AssetsDefinition:
        @dg.asset(metadata={"dagster/column_schema": columns})
        def released() -> dg.Output[pd.DataFrame]:
            return dg.Output(people()[columns_made], metadata={"preview": SECRET})

        return released

    more = run(node, tmp_path, declared(["time", "name"]), decide=execute)
    assert materialized(more)["released"]["comity/columns_withheld"] == ["name"]
    assert SECRET not in said(more)
    assert SECRET in said(run(node, tmp_path, declared(["time"]), decide=execute))


def test_a_data_version_stays(node: FakeNode, tmp_path: Path) -> None:
    @dg.asset
    def released() -> dg.Output[pd.DataFrame]:
        return dg.Output(people(), data_version=dg.DataVersion("seven"))

    result = run(node, tmp_path, released)
    (event,) = result.get_asset_materialization_events()
    assert (event.materialization.tags or {})["dagster/data_version"] == "seven"


def test_a_neighbour_that_is_not_bound_keeps_what_the_bridge_says_of_it(
    node: FakeNode, tmp_path: Path
) -> None:
    def decide(form: Any) -> Any:
        answer = execute(form)
        left, right = answer.outputs
        narrowed = restricted(["time"])(form).outputs[0]
        assert narrowed.asset == left.asset
        return type(answer)(answer.intent, "restrict", [narrowed, right], answer.permit)

    @dg.multi_asset(outs={"left": dg.AssetOut(), "right": dg.AssetOut(io_manager_key="mem")})
    def several(context: dg.AssetExecutionContext) -> Iterator[dg.Output[Any]]:
        context.add_output_metadata({"preview": SECRET}, output_name="right")
        yield dg.Output(people(), "left")
        yield dg.Output(len(people()), "right", metadata={"preview": SECRET})

    node.otherwise = decide
    resources = {"io_manager": GovernedFilesIOManager(base=str(tmp_path)), "mem": dg.mem_io_manager}
    result = materialize(node, several, resources=resources, unbound_writes="allow")
    assert result.success
    made = materialized(result)
    assert made["right"]["comity/content"] == "not bound"
    assert made["right"]["comity/outcome"] == "execute"
    assert SECRET not in said(result)


def test_a_type_that_reports_on_values_does_not_go_with_a_restriction(node: FakeNode, tmp_path: Path) -> None:
    def described(_: Any, value: Any) -> dg.TypeCheck:
        return dg.TypeCheck(success=True, metadata={"largest": str(value["name"].max()), "all": SECRET})

    kind = dg.DagsterType(type_check_fn=described, name="People", typing_type=pd.DataFrame)
    ran: list[str] = []

    def of_type() -> dg.AssetsDefinition:
        @dg.asset(dagster_type=kind)
        def released():  # type: ignore[no-untyped-def]  # noqa: ANN202
            ran.append("released")
            return people()

        return released

    text, metadata = failure(run(node, tmp_path, of_type()), "released")
    assert "the check of its type People would report on the whole" in text
    assert metadata["comity/causes"][0]["code"] == "type_reports_values"
    assert ran == []
    assert SECRET in said(run(node, tmp_path, of_type(), decide=execute))


def odd(kind: str) -> pd.DataFrame:
    """Tables that cannot be written: the libraries' own messages show a value."""
    if kind == "mixed":
        return pd.DataFrame({"name": [7, SECRET], "time": [1, 2]})
    if kind == "permitted":
        return pd.DataFrame({"name": ["a", "b"], "time": [7, SECRET]})
    return people().assign(time=pd.Series([{SECRET: 1}, [SECRET], SECRET], dtype=object))


@pytest.mark.parametrize("kind", ["mixed", "permitted", "shapes"])
def test_a_failure_names_the_column_and_shows_no_value(node: FakeNode, tmp_path: Path, kind: str) -> None:
    @dg.asset
    def released() -> pd.DataFrame:
        return odd(kind)

    groups = TermForm("min_group_rows", {"column": "name", "rows": 1})
    result = run(node, tmp_path, released, decide=restricted(["time"], groups))
    text, metadata = failure(result, "released")
    column = "name" if kind == "mixed" else "time"
    assert f"column '{column}' cannot be written: it holds values of types" in text
    assert metadata["comity/causes"][0]["code"] == "column_not_writable"
    assert SECRET not in said(result)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_table_that_a_format_cannot_hold_shows_no_value(node: FakeNode, tmp_path: Path) -> None:
    @dg.asset
    def released() -> pa.Table:
        return pa.table({"time": pa.array([10**30], pa.decimal256(60, 0)).view(pa.decimal256(60, 0))})

    @dg.asset(name="released")
    def unions() -> pa.Table:
        kinds = pa.array([0, 1], pa.int8())
        return pa.table(
            {"time": pa.UnionArray.from_sparse(kinds, [pa.array([SECRET, "b"]), pa.array([1, 2])])}
        )

    assert run(node, tmp_path, released, decide=execute).success
    result = run(node, tmp_path, unions, decide=execute)
    assert "no parquet file can hold all of time sparse_union" in failure(result, "released")[0]
    assert SECRET not in said(result)


NESTED = {
    "structure": pa.array([{"name": SECRET, "n": 1}]),
    "list of structures": pa.array([[{"name": SECRET}]]),
    "map": pa.array([[(SECRET, 1)]], pa.map_(pa.string(), pa.int64())),
}


@pytest.mark.parametrize("kind", NESTED)
def test_a_field_inside_of_a_permitted_column_is_not_let_through(
    node: FakeNode, tmp_path: Path, kind: str
) -> None:
    @dg.asset
    def released() -> pa.Table:
        return pa.table({"time": NESTED[kind], "name": [SECRET]})

    text, metadata = failure(run(node, tmp_path, released), "released")
    assert "column 'time' holds fields of its own" in text
    assert metadata["comity/causes"][0]["code"] == "column_not_restrictable"
    assert not list(tmp_path.rglob("*.parquet"))


def test_lists_of_plain_values_and_whole_tables_may_nest(node: FakeNode, tmp_path: Path) -> None:
    @dg.asset
    def released() -> pa.Table:
        return pa.table({"time": [[1, 2]], "name": [SECRET]})

    assert run(node, tmp_path, released).success
    assert pq.read_table(tmp_path / "released.parquet").to_pydict() == {"time": [[1, 2]]}

    @dg.asset(name="released")
    def whole() -> pa.Table:
        return pa.table(dict(NESTED))

    assert run(node, tmp_path, whole, decide=execute).success
    assert pq.read_table(tmp_path / "released.parquet").column("structure").to_pylist()[0]["n"] == 1


def test_no_schema_metadata_of_any_depth_is_written(node: FakeNode, tmp_path: Path) -> None:
    note = {"note": SECRET}
    inner = pa.field("n", pa.int64(), metadata=note)
    kinds = {
        "struct": pa.struct([inner]),
        "list": pa.list_(pa.field("item", pa.int64(), metadata=note)),
        "large": pa.large_list(pa.field("item", pa.struct([inner]))),
        "fixed": pa.list_(pa.field("item", pa.int64(), metadata=note), 1),
        "map": pa.map_(pa.string(), pa.field("value", pa.int64(), metadata=note)),
        "time": pa.timestamp("us", "Europe/Berlin"),
    }
    rows: dict[str, list[Any]] = {
        "struct": [{"n": 1}],
        "list": [[1]],
        "large": [[{"n": 1}]],
        "fixed": [[1]],
        "map": [[("a", 1)]],
        "time": [0],
    }
    schema = pa.schema([pa.field(name, kind, metadata=note) for name, kind in kinds.items()], metadata=note)
    table = pa.Table.from_pydict(rows, schema=schema)

    @dg.asset
    def released() -> pa.Table:
        return table

    for form, ending in (("parquet", "parquet"), ("csv", "csv")):
        assert run(node, tmp_path, released, decide=execute, format=form).success
        assert SECRET.encode() not in plain_bytes(tmp_path / f"released.{ending}")
        released = _same(table)
    back = pq.read_table(tmp_path / "released.parquet")
    assert back.schema.equals(schema)  # apart from metadata, everything is as it was
    assert back.to_pydict() == table.to_pydict()


def _same(table: pa.Table) -> dg.AssetsDefinition:
    @dg.asset(name="released")
    def again() -> pa.Table:
        return table

    return again


@pytest.mark.parametrize("index", ["plain", "labels", "rows left out", "named", "several"])
def test_an_index_is_never_written(node: FakeNode, tmp_path: Path, index: str) -> None:
    frame = people()
    if index == "labels":
        frame.index = pd.Index([SECRET, "b", "c"])
    elif index == "rows left out":
        frame = frame[frame["time"] > 5]
    elif index == "named":
        frame = frame.set_index("name", drop=False).rename_axis("who")
    elif index == "several":
        frame = frame.set_index(["name"], append=True)
    frame.attrs["note"] = SECRET

    @dg.asset
    def released() -> pd.DataFrame:
        return frame

    result = run(node, tmp_path, released)
    assert SECRET not in said(result)
    if index in ("named", "several"):
        assert failure(result, "released")[1]["comity/causes"][0]["code"] == "index_named"
        return
    file = tmp_path / "released.parquet"
    assert pq.read_table(file).column_names == ["time"]
    for kept_out in (SECRET.encode(), b"name", b"__index_level", b"pandas"):
        assert kept_out not in plain_bytes(file)


def test_values_between_ops_are_private(node: FakeNode, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        assert run(node, tmp_path / "own", between_ops()).success
    finally:
        os.umask(before)
    for folder in (tmp_path / "own", tmp_path / "own" / ".intermediate"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    held = [
        path
        for path in (tmp_path / "own").rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert held
    assert all(".intermediate" in path.parts for path in held)


def test_hooks_run_as_before_and_see_the_failure(node: FakeNode, tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    @dg.success_hook
    def on_success(context: dg.HookContext) -> None:
        seen.append(("success", context.op.name))

    @dg.failure_hook
    def on_failure(context: dg.HookContext) -> None:
        seen.append((type(context.op_exception).__name__, context.op.name))

    @dg.asset
    def released() -> pd.DataFrame:
        return people()

    job = dg.define_asset_job("study", hooks={on_success, on_failure})
    defs = dg.Definitions(
        assets=[released],
        jobs=[job],
        resources={"io_manager": GovernedFilesIOManager(base=str(tmp_path))},
    )
    govern(defs, home=node.home, wait_max_s=0.0)
    node.otherwise = restricted(["time"])
    result = defs.resolve_job_def("study").execute_in_process()
    node.otherwise = restricted(["absent"])
    defs.resolve_job_def("study").execute_in_process(raise_on_error=False)
    assert seen == [("success", "released"), ("WriteRefused", "released")]
    assert SECRET not in said(result)


def test_what_an_ungoverned_function_says_is_kept(node: FakeNode) -> None:
    for form in (as_output, through_the_context, as_a_coroutine):
        governed, plain = materialize(node, form()), dg.materialize([form()])
        assert stripped(governed) == stripped(plain)
        assert SECRET in said(governed)


def test_the_bridge_logs_no_value_itself(
    node: FakeNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="comity"):
        run(node, tmp_path, as_output())
    assert SECRET not in caplog.text
    told = [json.dumps(str(form)) for _, form in node.calls]
    assert not [each for each in told if SECRET in each]
