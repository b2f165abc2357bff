"""Tables in files: kept to the permit on write, verified on read, exchanged with partners."""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comity.dagster_bridge import GovernedFilesIOManager, ReadRefused, govern
from comity.node.forms import ReadForm, StartAnswer, StartForm, StepAnswer, StepForm, TermForm, WithheldForm
from dagster_runs import failure, materialize, materialized
from fake_node import (
    FakeNode,
    Refusal,
    execute,
    refused,
    restricted,
    ungoverned,
)

COLUMNS = ["time", "sex"]


def two_per_site() -> TermForm:
    return TermForm("min_group_rows", {"column": "inst", "rows": 2})


def patients() -> pd.DataFrame:
    return pd.DataFrame(
        {"inst": [1, 1, 3, 3, 4, None], "time": [5, 6, 7, 8, 9, 10], "sex": [1, 2, 1, 2, 1, 2]}
    )


def released() -> dg.AssetsDefinition:
    """A new asset that nothing governs yet."""

    @dg.asset(name="released")
    def made() -> pd.DataFrame:
        return patients()

    return made


class Places:
    """An organization's own directory, and the one that it shares."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "own"
        self.exchange = folder / "exchange"

    def resources(self, **options: Any) -> dict[str, Any]:
        options = {"base": str(self.base), "exchange": str(self.exchange), **options}
        return {"io_manager": GovernedFilesIOManager(**options)}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def test_what_the_permit_withholds_is_never_written(node: FakeNode, places: Places) -> None:
    node.otherwise = restricted(COLUMNS, two_per_site())
    result = materialize(node, released(), resources=places.resources(publish=["released"]))
    assert result.success
    written = places.base / "released.parquet"
    table = pq.read_table(written)
    assert table.to_pydict() == {"time": [5, 6, 7, 8], "sex": [1, 2, 1, 2]}
    assert b"inst" not in written.read_bytes()
    (made,) = node.actuations
    assert (made.asset, made.rows, made.columns) == ("clinic-north.example/released", 4, COLUMNS)
    assert made.digest == hashlib.sha256(written.read_bytes()).hexdigest()
    assert (made.size, made.media_type) == (written.stat().st_size, "application/vnd.apache.parquet")
    assert made.withheld == [WithheldForm("min_group_rows", "inst", 2, ["4", "null"])]
    metadata = materialized(result)["released"]
    assert metadata["comity/outcome"] == "restrict"
    assert metadata["comity/content"] == "bound"
    assert metadata["comity/columns_withheld"] == ["inst"]
    assert metadata["comity/rows_withheld"] == 2
    assert metadata["comity/record"] == "0" * 64
    assert metadata["comity/obligations"][0]["parameters"] == {"column": "inst", "rows": 2}
    # Which values were withheld stays with the node.
    assert "null" not in str(metadata)


def test_the_start_is_recorded_before_the_first_byte(node: FakeNode, places: Places) -> None:
    seen: list[list[str]] = []

    def look(form: StartForm) -> StartAnswer:
        seen.append([path.name for path in places.base.glob("*")])
        return StartAnswer(start="57" * 32, attempt=1)

    node.otherwise = execute
    node.starts = [look]
    assert materialize(node, released(), resources=places.resources()).success
    assert seen == [[]]
    paths = [where for where, _ in node.calls]
    assert paths.index("/v1/starts") < paths.index("/v1/actuations")


def test_a_denied_start_leaves_no_file(node: FakeNode, places: Places) -> None:
    def denied(form: StartForm) -> StartAnswer:
        raise Refusal(409, "adverse_held", "a revocation is held")

    node.otherwise = execute
    node.starts = [denied]
    assert not materialize(node, released(), resources=places.resources()).success
    assert not places.base.exists()


@pytest.mark.parametrize(
    ("obligation", "code"),
    [
        (TermForm("watermark", {"strength": 3}), "obligation_unknown"),
        (TermForm("min_group_rows", {"column": "site", "rows": 5}), "obligation_column_missing"),
        (TermForm("min_group_rows", {"column": "inst"}), "obligation_invalid"),
        (TermForm("min_group_rows", {"column": "inst", "rows": "many"}), "obligation_invalid"),
        (TermForm("min_group_rows", {"column": "inst", "rows": 0}), "obligation_invalid"),
        (TermForm("min_group_rows", {"column": "inst", "rows": 5, "noise": 1}), "obligation_invalid"),
    ],
)
def test_an_obligation_that_cannot_be_met_stops_the_write(
    node: FakeNode, places: Places, obligation: TermForm, code: str
) -> None:
    node.otherwise = restricted(COLUMNS, obligation)
    result = materialize(node, released(), resources=places.resources())
    _, metadata = failure(result, "released")
    assert metadata["comity/causes"][0]["code"] == code
    assert not places.base.exists()
    assert node.said("/v1/starts", StartForm) == []


def test_what_is_no_table_is_not_written(node: FakeNode, places: Places) -> None:
    @dg.asset(name="released")
    def made() -> Any:
        return {"rows": 3}

    node.otherwise = execute
    text, metadata = failure(materialize(node, made, resources=places.resources()), "released")
    assert "a dict is no table" in text
    assert metadata["comity/causes"][0]["code"] == "not_a_table"


def test_a_function_that_writes_by_itself_is_held_back(node: FakeNode, places: Places) -> None:
    @dg.asset(name="released")
    def made() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult()

    node.otherwise = restricted(COLUMNS)
    result = materialize(node, made, resources=places.resources())
    assert failure(result, "released")[1]["comity/causes"][0]["code"] == "restriction_not_enforceable"
    assert materialized(result) == {}


def test_a_result_without_a_value_is_not_bound(node: FakeNode, places: Places) -> None:
    @dg.asset(name="released")
    def made() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata={"by": "hand"})

    node.otherwise = execute
    refusal = materialize(node, made, resources=places.resources())
    text, metadata = failure(refusal, "released")
    assert "its function, which returns no value, binds no content" in text
    assert metadata["comity/causes"][0]["code"] == "output_not_bound"
    assert materialized(refusal) == {}

    @dg.asset(name="released")
    def again() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata={"by": "hand"})

    result = materialize(node, again, resources=places.resources(), unbound_writes="allow")
    metadata = materialized(result)["released"]
    assert (metadata["comity/content"], metadata["by"]) == ("not bound", "hand")
    assert node.actuations == []


def pooling(source: dg.AssetSpec | dg.AssetsDefinition, seen: list[object]) -> dg.AssetsDefinition:
    @dg.asset(name="pooled", ins={"north": dg.AssetIn(key=source.key)})
    def pooled(north: pd.DataFrame) -> pd.DataFrame:
        seen.append(north)
        return north

    return pooled


def test_an_input_is_verified_before_it_is_parsed_and_named_in_lineage(
    node: FakeNode, places: Places
) -> None:
    made, seen = released(), list[object]()
    node.otherwise = execute
    result = materialize(node, made, pooling(made, seen), resources=places.resources())
    assert result.success
    (read,) = node.reads
    assert (read.asset, read.intent) == ("released", node.actuations[1].intent)
    file = (places.base / "released.parquet").read_bytes()
    assert (read.digest, read.size) == (hashlib.sha256(file).hexdigest(), len(file))
    assert base64.b64decode(read.sidecar) == (places.base / "released.parquet.comity").read_bytes()
    assert materialized(result)["pooled"]["comity/inputs"] == [
        {"asset": "clinic-north.example/released", "partition": "", "actuation": "0" * 64}
    ]
    assert len(seen) == 1


def test_tampered_input_of_a_partner_is_refused_and_never_parsed(
    node: FakeNode, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.otherwise = execute
    resources = places.resources(publish=["released"])
    assert materialize(node, released(), resources=resources).success
    shared = places.exchange / "clinic-north.example" / "released.parquet"
    # One value is changed, and the file stays a readable table.
    table = pq.read_table(shared).to_pandas()
    table.loc[0, "time"] = 1
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), shared)
    assert pq.read_table(shared).num_rows == 6
    partner = dg.AssetSpec(
        ["clinic-north.example", "released"], metadata={"comity/asset": "clinic-north.example/released"}
    )
    seen: list[object] = []
    parsed: list[bytes] = []
    monkeypatch.setattr(
        "comity.dagster_bridge.tables.parse_table", lambda data, *_, **__: parsed.append(data)
    )
    result = materialize(node, partner, pooling(partner, seen), resources=resources)
    text, metadata = failure(result, "pooled")
    assert "clinic-north.example/released is not admitted: the bytes are not those that were made" in text
    assert metadata["comity/outcome"] == "refuse"
    assert metadata["comity/causes"][0]["code"] == "digest_differs"
    assert metadata["comity/input"] == "clinic-north.example/released"
    assert (seen, parsed) == ([], [])


def test_what_is_parsed_is_what_was_hashed_also_if_the_file_is_exchanged_meanwhile(
    node: FakeNode, places: Places
) -> None:
    made, seen = released(), list[pd.DataFrame]()
    node.otherwise = execute
    file = places.base / "released.parquet"

    def exchange(form: ReadForm) -> None:
        pq.write_table(pa.table({"time": [0]}), file)

    node.on_read = exchange
    assert materialize(node, made, pooling(made, seen), resources=places.resources()).success  # type: ignore[arg-type]
    assert pq.read_table(file).num_rows == 1
    assert len(seen[0]) == 6


def test_a_partners_file_without_its_sidecar_is_refused(node: FakeNode, places: Places) -> None:
    node.otherwise = execute
    resources = places.resources(publish=["released"])
    assert materialize(node, released(), resources=resources).success
    (places.exchange / "clinic-north.example" / "released.parquet.comity").unlink()
    partner = dg.AssetSpec("north", metadata={"comity/asset": "clinic-north.example/released"})
    result = materialize(node, partner, pooling(partner, []), resources=resources)
    assert failure(result, "pooled")[1]["comity/causes"][0]["code"] == "lineage_missing"


def test_a_partners_asset_is_verified_even_where_the_step_is_ungoverned(
    node: FakeNode, places: Places
) -> None:
    node.otherwise = execute
    resources = places.resources(publish=["released"])
    assert materialize(node, released(), resources=resources).success
    node.otherwise = ungoverned
    partner = dg.AssetSpec("north", metadata={"comity/asset": "clinic-north.example/released"})
    seen: list[object] = []
    assert materialize(node, partner, pooling(partner, seen), resources=resources).success
    assert node.reads[-1].intent == ""
    with (places.exchange / "clinic-north.example" / "released.parquet").open("ab") as file:
        file.write(b"x")
    assert not materialize(node, partner, pooling(partner, seen), resources=resources).success
    assert len(seen) == 1


def test_only_what_the_node_calls_governed_is_verified(node: FakeNode, places: Places) -> None:
    def with_inputs(*governed: str) -> Any:
        def decide(form: StepForm) -> StepAnswer:
            answer = execute(form)
            return StepAnswer(
                answer.intent,
                answer.outcome,
                answer.outputs,
                answer.permit,
                governed_inputs=list(governed),
            )

        return decide

    made = released()
    node.decisions = {"released": ungoverned, "pooled": with_inputs()}
    assert materialize(node, made, pooling(made, []), resources=places.resources()).success
    assert node.reads == []
    made = released()
    node.decisions["pooled"] = with_inputs("clinic-north.example/released")
    result = materialize(node, made, pooling(made, []), resources=places.resources())
    assert failure(result, "pooled")[1]["comity/causes"][0]["code"] == "lineage_missing"


def test_a_refused_step_does_not_even_read_its_inputs(node: FakeNode, places: Places) -> None:
    made, seen = released(), list[object]()
    node.decisions = {"released": execute, "pooled": refused}
    result = materialize(node, made, pooling(made, seen), resources=places.resources())
    assert failure(result, "pooled")[1]["comity/outcome"] == "refuse"
    assert (node.reads, seen) == ([], [])


def test_the_gate_is_asked_once_for_inputs_and_function(node: FakeNode, places: Places) -> None:
    made = released()
    node.otherwise = execute
    assert materialize(node, made, pooling(made, []), resources=places.resources()).success
    assert [form.step for form in node.steps] == ["released", "pooled"]


def test_partitions_are_files_of_their_own(node: FakeNode, places: Places) -> None:
    sites = dg.StaticPartitionsDefinition(["north/1", "..", "a b"])

    @dg.asset(partitions_def=sites)
    def visits(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame({"site": [context.partition_key]})

    @dg.asset
    def total(visits: dict[str, pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(visits.values())

    node.otherwise = execute
    with dg.DagsterInstance.ephemeral() as instance:
        options = {"resources": places.resources(), "instance": instance}
        for key in sites.get_partition_keys():
            assert materialize(node, visits, partition=key, **options).success  # type: ignore[arg-type]
        assert materialize(node, visits, total, select=["total"], **options).success  # type: ignore[arg-type]
    names = sorted(path.name for path in (places.base / "visits").glob("*.parquet"))
    assert names == ["partition=...parquet", "partition=a%20b.parquet", "partition=north%2F1.parquet"]
    assert pq.read_table(places.base / "total.parquet").column("site").to_pylist() == ["north/1", "..", "a b"]
    assert [(each.asset, each.partition) for each in node.reads] == [
        ("visits", key) for key in ("north/1", "..", "a b")
    ]


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_range_of_partitions_is_written_from_a_mapping(node: FakeNode, places: Places) -> None:
    def made_of(value: Any) -> dg.AssetsDefinition:
        @dg.asset(
            partitions_def=dg.StaticPartitionsDefinition(["a", "b"]),
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def visits() -> Any:
            return value

        return visits

    node.otherwise = execute
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    frames = {key: pd.DataFrame({"site": [key]}) for key in ("a", "b")}
    result = materialize(node, made_of(frames), tags=tags, resources=places.resources())
    assert materialized(result)["visits[b]"]["comity/record"] == {"a": f"{0:064x}", "b": f"{1:064x}"}
    for wrong in (frames["a"], {"a": frames["a"], "c": frames["b"]}, {}):
        result = materialize(node, made_of(wrong), tags=tags, resources=places.resources())
        assert failure(result, "visits")[1]["comity/causes"][0]["code"] == "partitions_not_mapped"


def test_values_between_the_ops_of_a_graph_pass_and_its_asset_is_bound(
    node: FakeNode, places: Places
) -> None:
    @dg.op
    def count(north: pd.DataFrame) -> int:
        return len(north)

    @dg.op
    def report(rows: int) -> pd.DataFrame:
        return pd.DataFrame({"rows": [rows]})

    def graph(north: pd.DataFrame) -> pd.DataFrame:
        return report(count(north))  # type: ignore[no-any-return]

    made = released()
    counted = dg.graph_asset(name="counted", ins={"north": dg.AssetIn(key="released")})(graph)
    node.otherwise = execute
    result = materialize(node, made, counted, resources=places.resources())
    assert result.success
    assert pq.read_table(places.base / "counted.parquet").to_pydict() == {"rows": [6]}
    assert materialized(result)["counted"]["comity/content"] == "bound"


def test_csv_files_are_written_and_read(node: FakeNode, places: Places) -> None:
    made, seen = released(), list[pd.DataFrame]()
    node.otherwise = restricted(["time", "sex"])
    resources = places.resources(format="csv")
    assert materialize(node, made, pooling(made, seen), resources=resources).success  # type: ignore[arg-type]
    assert (places.base / "released.csv").read_text().splitlines()[:2] == ["time,sex", "5,1"]
    assert node.actuations[0].media_type == "text/csv"
    assert seen[0]["time"].tolist() == [5, 6, 7, 8, 9, 10]


def test_an_arrow_table_is_kept_and_given_where_it_is_asked_for(node: FakeNode, places: Places) -> None:
    seen: list[pa.Table] = []

    @dg.asset
    def table() -> pa.Table:
        return pa.table({"n": [1, 2]})

    @dg.asset
    def reader(table: pa.Table) -> pa.Table:
        seen.append(table)
        return table

    node.otherwise = execute
    assert materialize(node, table, reader, resources=places.resources()).success
    assert isinstance(seen[0], pa.Table)


def test_a_file_that_the_node_did_not_admit_is_not_vouched_for(node: FakeNode, places: Places) -> None:
    made = released()
    node.otherwise = execute
    assert materialize(node, made, resources=places.resources()).success
    sidecar = places.base / "released.parquet.comity"
    assert json.loads(sidecar.read_bytes())["actuation"] == "0" * 64
    file = places.base / "released.parquet"
    file.write_bytes(file.read_bytes() + b" ")
    result = materialize(node, made, pooling(made, []), select=["pooled"], resources=places.resources())
    assert failure(result, "pooled")[1]["comity/causes"][0]["code"] == "digest_differs"


def test_outside_of_a_run_a_tampered_file_is_refused_too(
    node: FakeNode, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = released()
    node.otherwise = execute
    resources = places.resources(home=str(node.home))
    assert materialize(node, made, resources=resources).success
    defs = dg.Definitions(assets=[made], resources=resources)
    assert len(defs.load_asset_value("released")) == 6  # type: ignore[arg-type]
    assert (node.reads[-1].intent, node.reads[-1].asset) == ("", "released")
    node.governs("elsewhere.example/**")
    before = len(node.reads)
    assert len(defs.load_asset_value("released")) == 6  # type: ignore[arg-type]
    assert len(node.reads) == before
    node.governs("*/released")
    file = places.base / "released.parquet"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ReadRefused, match="not those that were made"):
        defs.load_asset_value("released")


def test_definitions_that_nothing_governs_write_only_what_no_policy_names(
    node: FakeNode, places: Places
) -> None:
    resources = places.resources(home=str(node.home))
    result = dg.materialize([released()], resources=resources, raise_on_error=False)
    assert "pass them through govern(defs)" in failure(result, "released")[0]
    node.governs("*/patients")
    assert dg.materialize([released()], resources=resources).success
    node.governs("*/released")
    assert not dg.materialize([released()], resources=resources, raise_on_error=False).success


def test_a_link_or_a_pipe_in_the_shared_folder_is_not_followed(node: FakeNode, places: Places) -> None:
    node.otherwise = execute
    partner = dg.AssetSpec("north", metadata={"comity/asset": "clinic-north.example/released"})
    shared = places.exchange / "clinic-north.example" / "released.parquet"
    shared.parent.mkdir(parents=True)
    secret = places.exchange / "secret"
    secret.write_bytes(b"own")
    plants: list[Callable[[], None]] = [
        lambda: shared.symlink_to(secret),
        lambda: os.mkfifo(shared),
        shared.mkdir,
    ]
    for plant in plants:
        plant()
        result = materialize(node, partner, pooling(partner, []), resources=places.resources())
        assert failure(result, "pooled")[1]["comity/causes"][0]["code"] == "file_unusable"
        shared.rmdir() if shared.is_dir() else shared.unlink()
    assert node.reads == []


def test_of_two_files_for_one_asset_neither_counts(node: FakeNode, places: Places) -> None:
    node.otherwise = execute
    assert materialize(node, released(), resources=places.resources(publish=["released"])).success
    folder = places.exchange / "clinic-north.example"
    (folder / "released.csv").write_text("time\n1\n")
    partner = dg.AssetSpec("north", metadata={"comity/asset": "clinic-north.example/released"})
    result = materialize(node, partner, pooling(partner, []), resources=places.resources())
    assert "2 files for clinic-north.example/released" in failure(result, "pooled")[0]


def test_a_key_is_never_a_way_out_of_the_directory(node: FakeNode, places: Places) -> None:
    @dg.asset(key=dg.AssetKey(["..", "up"]))
    def made() -> pd.DataFrame:
        return patients()

    node.otherwise = ungoverned
    result = materialize(node, made, resources=places.resources())
    assert "cannot be the name of a file" in next(
        failure(result, event.step_key or "")[0] for event in result.all_events if event.is_step_failure
    )
    assert not places.base.exists()


def test_files_of_the_organization_are_private_and_those_of_the_exchange_are_not(
    node: FakeNode, places: Places
) -> None:
    node.otherwise = execute
    before = os.umask(0o022)
    try:
        assert materialize(node, released(), resources=places.resources(publish=["released"])).success
    finally:
        os.umask(before)
    own, shared = places.base / "released.parquet", places.exchange / "clinic-north.example/released.parquet"
    assert [oct(path.stat().st_mode & 0o777) for path in (places.base, own)] == ["0o700", "0o600"]
    assert [oct(path.stat().st_mode & 0o777) for path in (shared.parent, shared)] == ["0o755", "0o644"]
    assert [path.name for path in places.base.iterdir() if path.name.endswith(".partial")] == []


def test_a_multi_asset_that_yields_tables_is_bound(node: FakeNode, places: Places) -> None:
    @dg.multi_asset(outs={"left": dg.AssetOut(), "right": dg.AssetOut()})
    def pair() -> Iterator[dg.Output[pd.DataFrame]]:
        yield dg.Output(patients(), output_name="left")
        yield dg.Output(patients(), output_name="right")

    node.otherwise = restricted(COLUMNS)
    result = materialize(node, pair, resources=places.resources())
    assert {name: made["comity/columns_withheld"] for name, made in materialized(result).items()} == {
        "left": ["inst"],
        "right": ["inst"],
    }


def test_an_asset_that_a_function_loads_by_itself_is_verified(node: FakeNode, places: Places) -> None:
    made = released()
    seen: list[object] = []

    @dg.asset(deps=[made])
    def pooled(context: dg.AssetExecutionContext) -> pd.DataFrame:
        seen.append(context.load_asset_value(dg.AssetKey("released")))
        return patients()

    node.otherwise = execute
    resources = places.resources()
    defs = govern(
        dg.Definitions(assets=[made, pooled], resources=resources), home=node.home, unbound_reads="allow"
    )
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(raise_on_error=False).success
    assert [(each.asset, bool(each.intent)) for each in node.reads] == [("released", True)]
