"""Tables in a DuckDB database: staged where no view shows them, verified, promoted at once, and read by a digest."""

from __future__ import annotations

import base64
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from comity.dagster_bridge import GovernedFilesIOManager, WrittenTable
from comity.dagster_bridge.files import FileError
from comity.dagster_bridge.storage import Slot
from comity.dagster_bridge.table_digest import TABLE_MEDIA_TYPE, table_digest
from comity.dagster_bridge.table_formats import UnwritableError
from comity.node.client import TermForm
from dagster_runs import failure, materialize, materialized
from duckdb_tables import EVERY_TYPE, RELEASED, Own, consumed, frame, returning, writing
from fake_node import FakeNode, execute, fake_home, restricted, ungoverned

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

COLUMNS = ["time", "sex"]
SMALL = TermForm("min_group_rows", {"column": "sex", "rows": 2})


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return Own(tmp_path)


# Staged and promoted


def test_a_table_is_shown_under_its_own_name_and_its_digest_is_recorded(node: FakeNode, own: Own) -> None:
    result = materialize(node, returning(frame()), resources=own.resources())
    assert result.success
    assert own.ask("SELECT * FROM released") == [(1, 1), (2, 1), (3, 2)]
    (said,) = node.actuations
    digest = table_digest(pa.Table.from_pandas(frame(), preserve_index=False))
    assert (said.digest, said.size) == (digest.digest, digest.size)
    assert (said.media_type, said.rows, said.columns) == (TABLE_MEDIA_TYPE, 3, COLUMNS)
    assert materialized(result)["released"]["comity/content"] == "bound"
    assert own.path.stat().st_mode & 0o777 == 0o600
    assert list(consumed(node, own)["time"]) == [1, 2, 3]


def test_what_the_permit_withholds_is_not_written(node: FakeNode, own: Own) -> None:
    node.decisions["released"] = restricted(COLUMNS, SMALL)
    assert materialize(node, returning(frame(inst=[7, 8, 9])), resources=own.resources()).success
    assert own.ask("SELECT * FROM released") == [(1, 1), (2, 1)]
    assert node.actuations[0].columns == COLUMNS
    # Nowhere in the database, under no name.
    names = own.ask("SELECT DISTINCT column_name FROM duckdb_columns() WHERE schema_name = 'comity_versions'")
    assert {name for (name,) in names} == {"time", "sex"}


@pytest.mark.parametrize(
    ("table", "obligations", "code"),
    [
        (frame(inst=[1, 2, 3]), (), "staged_column_not_permitted"),
        (frame(), (SMALL,), "staged_rows_not_permitted"),
    ],
)
def test_what_breaks_its_restriction_is_discarded_and_what_was_there_stays(
    node: FakeNode, own: Own, table: pd.DataFrame, obligations: tuple[TermForm, ...], code: str
) -> None:
    assert materialize(node, returning(frame()), resources=own.resources()).success
    node.decisions["released"] = restricted(COLUMNS, *obligations)
    result = materialize(node, writing(own, table), resources=own.resources())
    text, metadata = failure(result, "released")
    assert "is discarded" in text
    assert [cause["code"] for cause in metadata["comity/causes"]] == [code]
    (said,) = node.discards
    assert [cause.code for cause in said.causes] == [code]
    assert own.ask("SELECT * FROM released") == [(1, 1), (2, 1), (3, 2)]
    assert (own.tables(), len(node.actuations)) == (1, 1)


def test_what_the_work_wrote_by_itself_within_its_permit_is_promoted(node: FakeNode, own: Own) -> None:
    node.decisions["released"] = restricted(COLUMNS)
    assert materialize(node, writing(own, frame()), resources=own.resources()).success
    assert own.ask("SELECT * FROM released") == [(1, 1), (2, 1), (3, 2)]


def test_a_table_that_was_not_written_stops_the_step_before_it_starts(node: FakeNode, own: Own) -> None:
    assert not materialize(node, writing(own, frame(), "none"), resources=own.resources()).success
    assert node.said("/v1/starts", object) == []
    own.scratch.unlink()
    result = materialize(node, returning(WrittenTable(own.scratch, "t")), resources=own.resources())
    assert "is not there" in failure(result, "released")[0]


def test_an_ungoverned_asset_is_kept_in_the_same_way(node: FakeNode, own: Own) -> None:
    node.otherwise = ungoverned
    node.governs("*/other")
    assert materialize(node, returning(frame()), resources=own.resources()).success
    assert own.ask("SELECT count(*) FROM released") == [(3,)]
    assert list(consumed(node, own)["time"]) == [1, 2, 3]


def arrow_of(table: Any) -> Any:
    return table if isinstance(table, pa.Table) else table.to_arrow()


@pytest.mark.parametrize(("annotation", "kind"), [(pa.Table, pa.Table), (pl.DataFrame, pl.DataFrame)])
def test_every_type_of_the_form_comes_back_as_it_was_written(
    node: FakeNode, own: Own, annotation: Any, kind: type
) -> None:
    assert materialize(node, returning(EVERY_TYPE), resources=own.resources()).success
    read: Any = consumed(node, own, annotation)
    assert isinstance(read, kind)
    assert table_digest(arrow_of(read)) == table_digest(EVERY_TYPE)


def test_a_table_without_rows_is_a_version(node: FakeNode, own: Own) -> None:
    assert materialize(node, returning(EVERY_TYPE.slice(0, 0)), resources=own.resources()).success
    assert consumed(node, own, pa.Table).num_rows == 0


def test_rows_keep_their_order(node: FakeNode, own: Own) -> None:
    """More than one group of DuckDB's rows, so that several threads write and read them."""
    rows = pa.table({"n": pa.array(range(300_000, 0, -1), pa.int32())})
    assert materialize(node, returning(rows), resources=own.resources()).success
    assert consumed(node, own, pa.Table).column("n").to_pylist() == list(range(300_000, 0, -1))


@pytest.mark.parametrize(
    ("table", "code"),
    [
        (pa.table({"n": [1], "N": [2]}), "columns_not_named"),
        (pa.table({"comity_partition": [1]}), "columns_not_named"),
        (pa.table({"": [1]}), "columns_not_named"),
        (pa.table({}), "columns_not_named"),
        (pa.table({"l": [[1, 2]]}), "column_not_writable"),
        (pa.table({"t": pa.array([1], pa.time64("ns"))}), "column_not_writable"),
    ],
)
def test_what_a_database_table_cannot_hold_is_refused_before_it_is_staged(
    node: FakeNode, own: Own, table: Any, code: str
) -> None:
    text, metadata = failure(materialize(node, returning(table), resources=own.resources()), "released")
    assert [cause["code"] for cause in metadata["comity/causes"]] == [code], text
    assert not own.path.exists() or own.tables() == 0


# Partitions


def partitioned(node: FakeNode, own: Own, key: str, table: object) -> dg.ExecuteInProcessResult:
    asset = returning(table, dg.StaticPartitionsDefinition(["a", "b", "it's", "c"]))
    return materialize(node, asset, resources=own.resources(), partition=key)


def test_the_view_of_a_partitioned_asset_shows_all_of_its_partitions(node: FakeNode, own: Own) -> None:
    for key in ("b", "it's", "a"):
        assert partitioned(node, own, key, frame()).success
    rows = own.ask("SELECT comity_partition, count(*) FROM released GROUP BY ALL ORDER BY ALL")
    assert rows == [("a", 3), ("b", 3), ("it's", 3)]
    assert partitioned(node, own, "a", frame().head(1)).success
    assert own.ask("SELECT count(*) FROM released WHERE comity_partition = 'a'") == [(1,)]
    # A column that the others do not have.
    assert partitioned(node, own, "c", frame(more=["x"] * 3)).success
    assert own.ask("SELECT count(more) FROM released") == [(3,)]


def test_partitions_of_other_types_are_not_made_alike(node: FakeNode, own: Own) -> None:
    assert partitioned(node, own, "a", pa.table({"n": pa.array([1], pa.int8())})).success
    assert partitioned(node, own, "b", pa.table({"n": pa.array(["x"])})).success
    with pytest.raises(duckdb.Error, match="differ in the type of n: "):
        own.ask("SELECT * FROM released")
    # Who asks Comity reads each as it was written.
    for key, value in (("a", 1), ("b", "x")):
        kept = own.storage().current(Slot(("released",), key))
        assert kept is not None
        assert kept.table.column("n").to_pylist() == [value]


def test_more_partitions_than_a_view_shows_say_so(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.dagster_bridge.duckdb_versions.PARTITIONS_SHOWN", 2)
    storage = own.storage()
    for key in "abc":
        slot = Slot(("released",), key)
        storage.promote(slot, storage.stage(slot, storage.prepare(EVERY_TYPE)), b"{}")
    with pytest.raises(duckdb.Error, match="has more than 2 partitions"):
        own.ask("SELECT * FROM released")
    assert storage.current(Slot(("released",), "b")) is not None


# How it meets the rest


def test_a_partners_asset_is_not_looked_for_in_a_database(node: FakeNode, own: Own) -> None:
    partner = dg.AssetSpec(
        ["clinic-south.example", "released"],
        metadata={"comity/asset": "clinic-south.example/released", "dagster/io_manager_key": "io_manager"},
    )

    @dg.asset(ins={"south": dg.AssetIn(partner.key)})
    def pooled(south: pd.DataFrame) -> pd.DataFrame:
        raise AssertionError

    result = materialize(node, partner, pooled, select=["pooled"], resources=own.resources())
    assert "partners exchange files" in failure(result, "pooled")[0]


def test_a_step_reads_a_file_and_writes_a_table(node: FakeNode, own: Own) -> None:
    @dg.asset(io_manager_key="files")
    def released() -> pd.DataFrame:
        return frame()

    @dg.asset(io_manager_key="io_manager")
    def counted(released: pd.DataFrame) -> pd.DataFrame:
        return released.groupby("sex", as_index=False).size()

    files = GovernedFilesIOManager(base=str(own.path.parent / "files"))
    result = materialize(node, released, counted, resources={**own.resources(), "files": files})
    assert result.success
    assert own.ask("SELECT * FROM counted ORDER BY ALL") == [(1, 2), (2, 1)]
    inputs = materialized(result)["counted"]["comity/inputs"]
    assert [each["asset"] for each in inputs] == ["clinic-north.example/released"]


def test_the_packages_of_a_database_are_asked_for_when_it_is_used(tmp_path: Path) -> None:
    """The bridge is imported, and its files are kept, where DuckDB is not installed."""
    program = """
import sys
sys.modules["duckdb"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "duckdb" else found(name, *more)
import comity.dagster_bridge as bridge
from comity.dagster_bridge.duckdb_storage import DuckDBStorage
from comity.dagster_bridge.storage import Slot
from comity.protocol.errors import ConfigError
from pathlib import Path
bridge.GovernedDuckDBIOManager(database=sys.argv[1])
path = Path(sys.argv[1])
path.touch()
try:
    DuckDBStorage(path).current(Slot(("a",)))
except ConfigError as exc:
    print(exc)
"""
    words = [sys.executable, "-c", program, str(tmp_path / "x.duckdb")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install 'comity[dagster,duckdb]'" in done.stdout


def test_a_folder_that_cannot_be_written_is_named(own: Own) -> None:
    own.path.parent.mkdir()
    own.path.mkdir()
    with pytest.raises(FileError, match=own.path.stem):
        own.storage().stage(RELEASED, own.storage().prepare(EVERY_TYPE))


def test_a_table_that_is_larger_than_memory_allows_is_refused(
    own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comity.dagster_bridge.duckdb_storage.FILE_BYTES_MAX", 10)
    with pytest.raises(UnwritableError, match="more than 10 bytes"):
        own.storage().prepare(EVERY_TYPE)
    monkeypatch.undo()
    storage = own.storage()
    storage.promote(RELEASED, storage.stage(RELEASED, storage.prepare(EVERY_TYPE)), b"{}")
    monkeypatch.setattr("comity.dagster_bridge.duckdb_versions.FILE_BYTES_MAX", 10)
    with pytest.raises(FileError, match="more than 10 bytes"):
        storage.current(RELEASED)


def test_nothing_of_a_value_is_in_an_error_of_the_database(own: Own, tmp_path: Path) -> None:
    with duckdb.connect(str(own.scratch)) as connection:
        connection.execute("CREATE VIEW t AS SELECT CAST(x AS INTEGER) AS n FROM (VALUES ('secret-7')) v(x)")
    with pytest.raises(FileError) as caught:
        own.storage().adopt(WrittenTable(own.scratch, "t"))
    assert "secret-7" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert list(tmp_path.iterdir()) == [own.scratch]
    assert base64.b64encode(b"secret-7").decode() not in str(caught.value)


def test_what_the_page_shows_runs(node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/dagster.md").read_text(encoding="utf-8")
    section = page.partition("\n## Tables in DuckDB\n")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMITY_HOME", str(node.home))
    (tmp_path / "definitions.py").write_text(code, encoding="utf-8")
    namespace = runpy.run_path(str(tmp_path / "definitions.py"))
    assets = [namespace["patients"], namespace["by_institution"]]
    assert dg.materialize(assets, resources=namespace["resources"]).success
    with duckdb.connect("study.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT inst, size FROM by_institution ORDER BY ALL").fetchall() == [
            (1, 2),
            (2, 1),
        ]
        names = connection.execute("SELECT DISTINCT asset FROM comity.versions ORDER BY ALL").fetchall()
    assert names == [("by_institution",), ("patients",)]
