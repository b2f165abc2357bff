"""What an attacker of the bridge tried. Each test is named after the threat."""

import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comity.dagster_bridge import GovernedFilesIOManager, govern
from comity.dagster_bridge.table_formats import UnwritableError
from comity.dagster_bridge.tables import Bounds, arrow_table, parse_table, restrict, table_bytes
from comity.node.forms import ActuationForm, PermittedOutput, ReadForm, StepAnswer, StepForm, TermForm
from dagster_runs import failure, materialize, materialized
from fake_node import MEMBER, FakeNode, Refusal, execute, intent_of, restricted

SECRET = "Jane Doe, 1970-03-04"


def files(folder: Path, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"base": str(folder / "own"), "exchange": str(folder / "exchange"), **options}
    return {"io_manager": GovernedFilesIOManager(**given)}


def reads_only(form: StepForm) -> StepAnswer:
    return StepAnswer(
        intent="", outcome="ungoverned", governed_inputs=[f"{MEMBER}/{each.asset}" for each in form.inputs]
    )


def table_asset(name: str, table: object) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def made() -> pa.Table:
        return table

    return made


def everything_said(result: dg.ExecuteInProcessResult) -> str:
    return "".join(dg.serialize_value(event) for event in result.all_events)


# Values in the event log


class Telltale:
    """A value whose every error shows it."""

    def __str__(self) -> str:
        raise RuntimeError(SECRET)

    __repr__ = __str__

    def __arrow_array__(self, type: object = None) -> object:  # noqa: A002
        raise RuntimeError(SECRET)


def test_no_value_reaches_the_event_log_through_an_exception_of_its_own(
    node: FakeNode, tmp_path: Path
) -> None:
    @dg.asset
    def released() -> Any:
        return pd.DataFrame({"time": [1, Telltale()]})

    node.otherwise = execute
    result = materialize(node, released, resources=files(tmp_path))
    assert not result.success
    assert SECRET not in everything_said(result)


ACTS: dict[str, Callable[[], object]] = {
    "csv": lambda: parse_table(f'a,b\n"{SECRET}'.encode(), "csv", as_arrow=False),
    "parquet": lambda: parse_table(SECRET.encode(), "parquet", as_arrow=False),
    "frame": lambda: arrow_table(pd.DataFrame({"a": [1, SECRET]})),
    "own class": lambda: arrow_table(pd.DataFrame({"a": [1, Telltale()]})),
}


@pytest.mark.parametrize("act", ACTS)
def test_no_error_of_a_library_is_chained_or_quoted(act: str) -> None:
    with pytest.raises(UnwritableError) as caught:
        ACTS[act]()
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown


# Reads of steps that make nothing


def test_a_check_that_reads_a_governed_asset_by_itself_is_refused(node: FakeNode, tmp_path: Path) -> None:
    ran: list[str] = []

    @dg.asset
    def released() -> pd.DataFrame:
        return pd.DataFrame({"time": [1]})

    @dg.asset_check(asset=released)
    def plausible() -> dg.AssetCheckResult:
        ran.append("plausible")
        return dg.AssetCheckResult(passed=True)

    def run(**options: Any) -> dg.ExecuteInProcessResult:
        defs = dg.Definitions(assets=[released], asset_checks=[plausible])
        govern(defs, home=node.home, wait_max_s=0.0, **options)
        return dg.materialize([released, plausible], resources=files(tmp_path), raise_on_error=False)

    node.decisions, node.otherwise = {"released": execute}, reads_only
    result = run()
    assert failure(result, "released_plausible")[1]["comity/causes"][0]["code"] == "input_not_bound"
    assert ran == []


# Materializations that nobody decided


FORGED = {"comity/outcome": "execute", "comity/permit": "ff" * 32}


@pytest.mark.parametrize("decide", [execute, restricted(["time"])])
def test_a_materialization_that_is_reported_through_the_context_is_refused(
    node: FakeNode, tmp_path: Path, decide: Any
) -> None:
    @dg.asset
    def released(context: dg.AssetExecutionContext) -> pd.DataFrame:
        context.log_event(dg.AssetMaterialization("of_another"))
        return pd.DataFrame({"time": [1]})

    node.otherwise = decide
    result = materialize(node, released, resources=files(tmp_path))
    assert failure(result, "released")[1]["comity/causes"][0]["code"] == "materialization_not_an_output"
    assert materialized(result) == {}


def test_what_is_reported_through_the_context_is_narrowed_like_a_result(
    node: FakeNode, tmp_path: Path
) -> None:
    @dg.asset
    def released(context: dg.AssetExecutionContext) -> pd.DataFrame:
        context.log_event(dg.AssetObservation("released", metadata={"preview": SECRET}))
        return pd.DataFrame({"time": [1], "name": [SECRET]})

    node.otherwise = restricted(["time"])
    result = materialize(node, released, resources=files(tmp_path))
    assert result.success
    assert SECRET not in everything_said(result)


def reporting(way: str, event: dg.AssetMaterialization) -> dg.JobDefinition:
    @dg.op(out={})
    def fake(context: dg.OpExecutionContext) -> Any:
        if way == "log_event":
            context.log_event(event)
        if way == "yield":
            yield event

    @dg.job
    def nightly() -> None:
        fake()

    return nightly


@pytest.mark.parametrize("way", ["log_event", "yield"])
def test_an_ungoverned_step_cannot_report_a_governed_asset(node: FakeNode, way: str) -> None:
    node.governs(f"{MEMBER}/released")
    for event, code in (
        (dg.AssetMaterialization("released"), "materialization_not_an_output"),
        (dg.AssetMaterialization("scratch", metadata=FORGED), "metadata_reserved"),
        (dg.AssetMaterialization("scratch", metadata={"rows": 1}), None),
    ):
        job = reporting(way, event)
        govern(dg.Definitions(jobs=[job]), home=node.home, wait_max_s=0.0)
        result = job.execute_in_process(raise_on_error=False)
        assert result.success == (code is None)
        if code is not None:
            assert failure(result, "fake")[1]["comity/causes"][0]["code"] == code
            assert materialized(result) == {}


@pytest.mark.parametrize("decide", [execute, lambda form: StepAnswer(intent="", outcome="ungoverned")])
def test_a_result_cannot_claim_a_decision(node: FakeNode, tmp_path: Path, decide: Any) -> None:
    @dg.asset
    def released() -> dg.Output[pd.DataFrame]:
        return dg.Output(pd.DataFrame({"time": [1]}), metadata=FORGED)

    node.otherwise = decide
    result = materialize(node, released, resources=files(tmp_path))
    assert failure(result, "released")[1]["comity/causes"][0]["code"] == "metadata_reserved"


# Two assets and one file


def test_a_partition_is_not_read_as_another_asset(node: FakeNode, tmp_path: Path) -> None:
    got: list[object] = []

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["north"]))
    def released() -> pd.DataFrame:
        return pd.DataFrame({"x": ["governed"]})

    source = dg.AssetSpec(["released", "north"]).with_io_manager_key("io_manager")

    @dg.asset(ins={"table": dg.AssetIn(["released", "north"])})
    def steal(table: pd.DataFrame) -> pd.DataFrame:
        got.append(table)
        return table

    node.governs(f"{MEMBER}/released")
    node.decisions = {"released": execute}
    assert materialize(node, released, partition="north", resources=files(tmp_path)).success
    result = materialize(node, source, steal, select=["steal"], resources=files(tmp_path))
    assert "there is no file of released/north yet" in failure(result, "steal")[0]
    assert got == []


# Values that hide in types


class Coded(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """A dictionary under a type of its own."""

    def __init__(self) -> None:
        super().__init__(pa.dictionary(pa.int32(), pa.string()), "tests.coded")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: object, serialized: bytes) -> "Coded":
        return cls()


@pytest.mark.parametrize("mode", ["restrict", "execute"])
def test_a_dictionary_behind_an_extension_type_keeps_no_withheld_value(mode: Any) -> None:
    codes = pa.array([0, 0, 0, 1], pa.int32())
    coded = pa.DictionaryArray.from_arrays(codes, pa.array(["kept", SECRET]))
    table = pa.table({"age": pa.ExtensionArray.from_storage(Coded(), coded), "inst": [1, 1, 1, 2]})
    groups = TermForm("min_group_rows", {"column": "inst", "rows": 3})
    output = PermittedOutput("c.example/released", "", mode, ["age", "inst"], True, [groups])
    with pytest.raises(UnwritableError, match="'age' has an extension type"):
        restrict(table, output)
    plain = restrict(table.set_column(0, "age", coded), output).table
    assert SECRET.encode() not in table_bytes(plain, "parquet")


# The last good file


def refusing(node: FakeNode, monkeypatch: pytest.MonkeyPatch, *, recorded: bool) -> None:
    """Let the node say no, or record and then fall silent."""
    actuate = node._actuate

    def answer(form: ActuationForm) -> object:
        if recorded:
            actuate(form)
            raise Refusal(500, "internal")
        raise Refusal(409, "adverse_held")

    monkeypatch.setattr(node, "_actuate", answer)


def loaded(folder: Path, node: FakeNode, **options: Any) -> Any:
    manager = GovernedFilesIOManager(base=str(folder / "own"), home=str(node.home), **options)
    defs = dg.Definitions(assets=[table_asset("released", None)], resources={"io_manager": manager})
    return defs.load_asset_value("released")


def test_a_refused_record_leaves_the_last_good_file(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.otherwise = execute
    assert materialize(node, table_asset("released", pa.table({"x": [1]})), resources=files(tmp_path)).success
    before = (tmp_path / "own" / "released.parquet").read_bytes()
    with monkeypatch.context() as patched:
        refusing(node, patched, recorded=False)
        second = table_asset("released", pa.table({"x": [99]}))
        assert not materialize(node, second, resources=files(tmp_path)).success
    assert (tmp_path / "own" / "released.parquet").read_bytes() == before
    assert list((tmp_path / "own" / ".next").iterdir()) == []
    assert loaded(tmp_path, node)["x"].tolist() == [1]


def test_what_was_recorded_as_the_writer_ended_is_put_in_place_at_the_next_read(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.otherwise = execute
    resources = files(tmp_path, publish=["released"])
    assert materialize(node, table_asset("released", pa.table({"x": [1]})), resources=resources).success
    with monkeypatch.context() as patched:
        refusing(node, patched, recorded=True)
        assert not materialize(
            node, table_asset("released", pa.table({"x": [2]})), resources=resources
        ).success
    node.governs(f"{MEMBER}/**")
    again = loaded(tmp_path, node, publish=["released"], exchange=str(tmp_path / "exchange"))
    assert again["x"].tolist() == [2]
    assert list((tmp_path / "own" / ".next").iterdir()) == []
    own, shared = tmp_path / "own", tmp_path / "exchange" / MEMBER
    for name in ("released.parquet", "released.parquet.comity"):
        assert (own / name).read_bytes() == (shared / name).read_bytes()


@pytest.mark.parametrize("moved", [0, 1])
def test_a_swap_that_was_cut_short_is_finished(node: FakeNode, tmp_path: Path, moved: int) -> None:
    node.otherwise = execute
    assert materialize(node, table_asset("released", pa.table({"x": [1]})), resources=files(tmp_path)).success
    own = tmp_path / "own"
    pair = [own / "released.parquet", own / "released.parquet.comity"]
    new = [own / ".next" / f"released.parquet.{'0' * 16}{ending}" for ending in ("", ".comity")]
    for path, beside in list(zip(pair, new, strict=True))[moved:]:
        path.replace(beside)
    pair[1].write_bytes(b"{}")
    assert loaded(tmp_path, node)["x"].tolist() == [1]
    assert list((own / ".next").iterdir()) == []


def test_left_over_bytes_are_taken_away_after_a_day(node: FakeNode, tmp_path: Path) -> None:
    node.otherwise = execute
    folder = tmp_path / "own" / ".next"
    folder.mkdir(parents=True)
    old, young = (folder / f"released.parquet.{digit * 16}" for digit in "01")
    old.write_bytes(b"")
    young.write_bytes(b"")
    os.utime(old, (1, 1))
    assert materialize(node, table_asset("released", pa.table({"x": [1]})), resources=files(tmp_path)).success
    assert (old.exists(), young.exists()) == (False, True)


# Columns that are not declared


def test_an_empty_column_schema_declares_nothing(node: FakeNode, tmp_path: Path) -> None:
    @dg.asset(metadata={"dagster/column_schema": dg.TableSchema(columns=[])})
    def released() -> pd.DataFrame:
        return pd.DataFrame({"x": [1]})

    materialize(node, released, resources=files(tmp_path))
    assert node.steps[0].outputs[0].columns is None


# A few bytes that stand for many


def large(columns: int = 2, rows: int = 1_000_000) -> bytes:
    zeros = np.zeros(rows, dtype="int64")
    return table_bytes(pa.table({f"c{number}": zeros for number in range(columns)}), "parquet")


def test_a_small_file_of_many_rows_is_not_built_in_memory() -> None:
    data = large()
    assert len(data) < 20_000
    with pytest.raises(UnwritableError, match="takes more than 1000000 bytes"):
        parse_table(data, "parquet", as_arrow=True, bounds=Bounds(1_000_000))
    within = parse_table(data, "parquet", as_arrow=True, bounds=Bounds(32_000_000, 1_000_000))
    assert within.num_rows == 1_000_000  # type: ignore[attr-defined]
    with pytest.raises(UnwritableError, match="its record 7"):
        parse_table(data, "parquet", as_arrow=True, bounds=Bounds(32_000_000, 7))


def test_a_small_file_of_one_long_value_is_not_built_in_memory() -> None:
    long = pa.array(["x" * 1_000]).take(pa.array(np.zeros(20_000, dtype="int64")))
    data = table_bytes(pa.table({"a": long}), "parquet")
    assert len(data) < 100_000
    with pytest.raises(UnwritableError) as caught:
        parse_table(data, "parquet", as_arrow=True, bounds=Bounds(1_000_000))
    assert caught.value.cause.code == "table_too_large"


def test_short_lines_of_a_wide_csv_file_are_counted_as_wide() -> None:
    data = ("a" + ",a".join(str(n) for n in range(1_000)) + "\n" + "1\n" * 10_000).encode()
    with pytest.raises(UnwritableError, match="takes more than"):
        parse_table(data, "csv", as_arrow=False, bounds=Bounds(1_000_000))


def test_a_partners_large_table_is_refused_and_may_be_allowed(node: FakeNode, tmp_path: Path) -> None:
    node.otherwise = execute
    wide = table_asset("released", pa.table({"a": np.zeros(100_000, dtype="int64")}))
    assert materialize(node, wide, resources=files(tmp_path, publish=["released"])).success
    partner = dg.AssetSpec(["north", "released"], metadata={"comity/asset": f"{MEMBER}/released"})

    def read(**options: Any) -> dg.ExecuteInProcessResult:
        @dg.asset(ins={"table": dg.AssetIn(["north", "released"])})
        def pooled(table: pd.DataFrame) -> pd.DataFrame:
            return table.head(1)

        return materialize(node, partner, pooled, resources=files(tmp_path, **options))

    assert read().success
    refused_read = read(partner_bytes_max=100_000)
    assert failure(refused_read, "pooled")[1]["comity/causes"][0]["code"] == "table_too_large"


# Reads, in words


def test_a_file_that_is_not_there_yet_is_no_refusal_and_may_be_tried_again(
    node: FakeNode, tmp_path: Path
) -> None:
    @dg.asset(ins={"table": dg.AssetIn(["later"])}, retry_policy=dg.RetryPolicy(max_retries=1))
    def pooled(table: pd.DataFrame) -> pd.DataFrame:
        return table

    source = dg.AssetSpec(["later"]).with_io_manager_key("io_manager")
    result = materialize(node, source, pooled, resources=files(tmp_path))
    text, metadata = failure(result, "pooled")
    assert "there is no file of later yet" in text
    assert metadata["comity/outcome"] == "unavailable"
    assert metadata["comity/causes"][0]["code"] == "file_missing"
    assert sum(event.is_step_up_for_retry for event in result.all_events) == 1


def test_a_refused_read_names_the_partition(node: FakeNode, tmp_path: Path) -> None:
    days = dg.StaticPartitionsDefinition(["1", "2"])

    @dg.asset(partitions_def=days)
    def visits(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame({"day": [context.partition_key]})

    @dg.asset(partitions_def=days)
    def pooled(visits: pd.DataFrame) -> pd.DataFrame:
        return visits

    node.otherwise = execute
    assert materialize(node, visits, partition="1", resources=files(tmp_path)).success
    own = tmp_path / "own" / "visits"
    for name in ("parquet", "parquet.comity"):
        (own / f"partition=2.{name}").write_bytes((own / f"partition=1.{name}").read_bytes())
    result = materialize(node, visits, pooled, select=["pooled"], partition="2", resources=files(tmp_path))
    text, metadata = failure(result, "pooled")
    assert "partition 2 of visits is not admitted" in text
    assert metadata["comity/partition"] == "2"


def test_the_runs_log_says_what_is_waited_for(node: FakeNode, capfd: pytest.CaptureFixture[str]) -> None:
    def held(form: StepForm) -> StepAnswer:
        return StepAnswer(intent=intent_of(form), outcome="held", votes={"south.example": "silent"})

    @dg.asset
    def released() -> None:
        return None

    node.decisions = {"released": [held, execute]}
    assert materialize(node, released, wait_max_s=30.0, unbound_writes="allow").success
    said = capfd.readouterr().err
    # Of the 30 s some may have gone until the first answer.
    assert re.search(
        r"Comity: step released waits (30|2\d) s at most for votes: no quorum in reach; silent: south\.example",
        said,
    )


def test_without_dagster_the_import_says_what_to_install() -> None:
    code = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'dagster' else find(name, *a)\n"
        "from comity.dagster_bridge import govern"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        "ModuleNotFoundError: comity.dagster_bridge needs Dagster: pip install 'comity[dagster]'"
        in done.stderr
    )


def test_reads_name_the_partition_to_the_node(node: FakeNode, tmp_path: Path) -> None:
    """The fake's ledger is by partition; what it is asked is what it looks at."""
    asked: list[ReadForm] = []
    node.on_read = asked.append
    node.otherwise = execute
    assert materialize(node, table_asset("released", pa.table({"x": [1]})), resources=files(tmp_path)).success
    assert loaded(tmp_path, node)["x"].tolist() == [1]
    assert [(each.asset, each.partition) for each in asked] == [("released", "")]
    assert (
        json.loads((tmp_path / "own" / "released.parquet.comity").read_text())["asset"]
        == f"{MEMBER}/released"
    )
    assert pq.read_table(tmp_path / "own" / "released.parquet").num_rows == 1
