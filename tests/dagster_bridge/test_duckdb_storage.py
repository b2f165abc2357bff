"""What a DuckDB database keeps: versions that nobody changes unseen, under names that it tells apart, one at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity.dagster_bridge.declared import NOTHING
from comity.dagster_bridge.duckdb_connection import DatabaseBusyError
from comity.dagster_bridge.storage import Slot
from comity.dagster_bridge.table_digest import table_digest
from comity.node.client import PermittedOutput
from comity.protocol.errors import ConfigError
from dagster_runs import failure, materialize
from duckdb_tables import (
    EVERY_TYPE,
    RELEASED,
    Own,
    ReadFailedError,
    consumed,
    frame,
    made_often,
    returning,
    shown,
)
from fake_node import FakeNode, execute, fake_home

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

PERMITTED = PermittedOutput("clinic-north.example/released", "", "execute", [], True)


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return Own(tmp_path)


# Versions


def test_versions_before_the_newest_are_kept_as_many_as_configured(node: FakeNode, own: Own) -> None:
    made_often(node, own, 0, 1, 2, 3, 4)
    assert (own.tables(), shown(own)) == (3, 4)
    made_often(node, own, 5, versions=0)
    assert (own.tables(), shown(own)) == (1, 5)


def test_a_kept_version_is_put_back_with_what_vouches_for_it(node: FakeNode, own: Own) -> None:
    digests = made_often(node, own, 1, 2, 3)
    storage = own.storage()
    before = storage.current(RELEASED)
    assert storage.put_back(RELEASED, digests[0])
    assert shown(own) == 1
    now = storage.current(RELEASED)
    assert before is not None
    assert now is not None
    assert now.version.sidecar
    assert now.version.sidecar != before.version.sidecar
    # What was found wrong is kept, too: it is evidence.
    assert storage.put_back(RELEASED, digests[2])
    assert not storage.put_back(RELEASED, "00" * 32)
    assert not own.storage().put_back(Slot(("other",)), digests[0])


def test_a_kept_version_that_was_changed_is_not_put_back(node: FakeNode, own: Own) -> None:
    digests = made_often(node, own, 1, 2)
    ((old,),) = own.ask(f"SELECT name FROM comity.versions WHERE digest = '{digests[0]}'")
    own.do(f"UPDATE comity_versions.{old} SET n = 7")
    assert not own.storage().put_back(RELEASED, digests[0])
    assert shown(own) == 2


def test_what_a_store_can_take_back_is_what_it_keeps(own: Own) -> None:
    assert (own.storage().reversibility, own.storage(0).reversibility) == ("versioned", "swap")
    managers = [own.resources(versions=n)["io_manager"] for n in (2, 0)]
    assert [manager.reversibility for manager in managers] == ["versioned", "swap"]


def test_what_was_staged_long_ago_and_never_recorded_is_taken_away(node: FakeNode, own: Own) -> None:
    storage = own.storage()
    storage.stage(RELEASED, storage.prepare(EVERY_TYPE))
    own.do("UPDATE comity.versions SET staged_at = staged_at - 8 * 24 * 3600 * 1000")
    assert own.tables() == 1
    made_often(node, own, 1)
    assert own.tables() == 1


# What somebody did to it


TAMPERED = {
    "a cell": "UPDATE comity_versions.{name} SET n = 7 WHERE time = 2",
    "a row too few": "DELETE FROM comity_versions.{name} WHERE time = 2",
    "a row too many": "INSERT INTO comity_versions.{name} SELECT * FROM comity_versions.{name} LIMIT 1",
    "the order of rows": "CREATE OR REPLACE TABLE comity_versions.{name} AS"
    " SELECT * FROM comity_versions.{name} ORDER BY time DESC",
    "a type": "ALTER TABLE comity_versions.{name} ALTER n TYPE VARCHAR",
    "a name": "ALTER TABLE comity_versions.{name} RENAME n TO m",
    "a missing value": "UPDATE comity_versions.{name} SET n = NULL WHERE time = 2",
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_table_that_was_changed_is_refused(node: FakeNode, own: Own, what: str) -> None:
    made_often(node, own, 1)
    assert shown(own) == 1
    ((name,),) = own.ask("SELECT name FROM comity.versions")
    own.do("DROP VIEW released")
    own.do(TAMPERED[what].format(name=name))
    with pytest.raises(ReadFailedError) as caught:
        consumed(node, own)
    assert caught.value.codes == ["digest_differs"]


def test_a_version_in_anothers_place_is_refused(node: FakeNode, own: Own) -> None:
    made_often(node, own, 1, 2)
    own.do("UPDATE comity.versions SET number = 3 - number")
    assert [value for (value,) in own.ask("SELECT DISTINCT n FROM released")] == [2]
    # Which of both stands the node knows, not the database.
    with pytest.raises(ReadFailedError) as caught:
        consumed(node, own)
    assert caught.value.codes == ["digest_differs"]


def test_a_view_that_was_changed_misleads_its_own_users_and_no_step(node: FakeNode, own: Own) -> None:
    made_often(node, own, 1)
    own.do("CREATE OR REPLACE VIEW released AS SELECT 7 AS n")
    assert consumed(node, own)["n"].unique() == [1]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE comity.versions SET sidecar = 'x'::BLOB",
        "UPDATE comity.versions SET sidecar = repeat('x', 20000000)::BLOB",
        "UPDATE comity.versions SET name = 'none'",
        "UPDATE comity.versions SET name = 'x\" UNION SELECT 1 --'",
        "UPDATE comity.form SET form = 2",
        "INSERT INTO comity.form VALUES (2)",
        "ALTER TABLE comity.versions ALTER digest TYPE BLOB",
        "ALTER TABLE comity.versions DROP sidecar",
        "DROP TABLE comity.form",
        "DROP TABLE comity.versions",
        "CREATE OR REPLACE TABLE comity.versions AS SELECT 1 AS x",
    ],
)
def test_a_list_of_versions_that_was_changed_gives_nothing_and_no_stack(
    node: FakeNode, own: Own, sql: str
) -> None:
    made_often(node, own, 1)
    own.do(sql)
    with pytest.raises(ReadFailedError) as caught:
        consumed(node, own)
    assert "Traceback" not in str(caught.value)


def test_code_that_was_planted_in_a_database_reaches_no_other_file(node: FakeNode, own: Own) -> None:
    made_often(node, own, 1)
    secret = own.path.with_name("secret.csv")
    secret.write_text("n\n2718281828\n")
    ((name,),) = own.ask("SELECT name FROM comity.versions")
    own.do(f"DROP VIEW released; DROP TABLE comity_versions.{name}")
    own.do(f"CREATE VIEW comity_versions.{name} AS SELECT * FROM read_csv('{secret}')")
    with pytest.raises(ReadFailedError) as caught:
        consumed(node, own)
    assert "2718281828" not in str(caught.value)


def test_a_file_that_is_no_database_is_named(node: FakeNode, own: Own) -> None:
    own.path.parent.mkdir()
    own.path.write_bytes(b"no database" * 500)
    text, _ = failure(materialize(node, returning(frame()), resources=own.resources()), "released")
    assert str(own.path) in text
    assert own.path.read_bytes() == b"no database" * 500


# Several at a time


def test_two_slots_are_written_at_the_same_time(own: Own) -> None:
    storage = own.storage()
    slots = [Slot((f"asset_{number}",)) for number in range(8)]
    failed: list[BaseException] = []

    def write(slot: Slot) -> None:
        try:
            staged = storage.stage(slot, storage.prepare(EVERY_TYPE))
            storage.verify(staged, PERMITTED, NOTHING)
            storage.promote(slot, staged, b"{}")
        except BaseException as exc:
            failed.append(exc)
            raise

    threads = [threading.Thread(target=write, args=(slot,)) for slot in slots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [own.ask(f"SELECT count(*) FROM {slot.path[0]}") for slot in slots] == [[(3,)]] * 8


HOLDER = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


def test_a_database_that_another_process_has_open_is_waited_for_and_then_named(
    node: FakeNode, own: Own
) -> None:
    made_often(node, own, 1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(own.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        resources = own.resources(busy_max_s=0.3)
        text, _ = failure(materialize(node, returning(frame()), resources=resources), "released")
        assert f"process {holder.pid}" in text
        assert "close it there, or give the IO manager a larger busy_max_s" in text
        with pytest.raises(DatabaseBusyError):
            own.storage(busy_max_s=0.1).current(RELEASED)
        release = threading.Timer(0.3, holder.communicate)
        release.start()
        assert own.storage(busy_max_s=30.0).current(RELEASED) is not None
        release.join()
    assert shown(own) == 1


READER = """
import sys, duckdb
path, last = sys.argv[1], int(sys.argv[2])
seen = set()
while last not in seen:
    try:
        with duckdb.connect(path, read_only=True) as connection:
            rows = connection.execute("SELECT n, count(*) FROM released GROUP BY n").fetchall()
    except duckdb.IOException:
        continue
    assert len(rows) == 1 and rows[0][1] == 3, rows
    seen.add(rows[0][0])
print(sorted(seen))
"""


def test_who_reads_all_the_while_sees_whole_versions_only(node: FakeNode, own: Own) -> None:
    made_often(node, own, 0)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(own.path), "6"], stdout=subprocess.PIPE, text=True
    ) as reader:
        made_often(node, own, *range(1, 7))
        said, _ = reader.communicate(timeout=60)
    assert reader.returncode == 0, said


# Names


@pytest.mark.parametrize(
    "path",
    [
        ("select",),
        ('a"; DROP TABLE comity.versions; --',),
        ("it's",),
        ("a.b",),
        ("\u00e9" * 60,),
        ("study", "deep", "released"),
        ("main", "x"),
    ],
)
def test_whatever_an_asset_is_called_is_quoted(own: Own, path: tuple[str, ...]) -> None:
    storage, slot = own.storage(), Slot(path, "it's; --")
    for _ in range(2):
        storage.require_place(slot)
        storage.promote(slot, storage.stage(slot, storage.prepare(EVERY_TYPE)), b"{}")
    kept = storage.current(slot)
    assert kept is not None
    assert kept.digest == table_digest(EVERY_TYPE)
    schema = "/".join(path[:-1]) or "main"
    found = own.ask("SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal")
    assert found == [(schema, path[-1])]
    assert own.ask("SELECT count(*) FROM comity.versions") == [(2,)]


@pytest.mark.parametrize(
    "path",
    [
        ("comity", "x"),
        ("Comity_Versions", "x"),
        ("information_schema", "x"),
        ("TEMP", "x"),
        ("x" * 256,),
        ("a\nb",),
        ("",),
    ],
)
def test_names_that_are_not_for_assets_are_refused(own: Own, path: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        own.storage().require_place(Slot(path))


def test_names_that_the_database_does_not_tell_apart_are_refused(node: FakeNode, own: Own) -> None:
    made_often(node, own, 1)
    with pytest.raises(ConfigError, match="DuckDB does not tell their names apart"):
        own.storage().require_place(Slot(("Released",)))
    # Also where it is noticed only when it is staged.
    with pytest.raises(ConfigError):
        own.storage().stage(Slot(("RELEASED",)), own.storage().prepare(EVERY_TYPE))
    assert own.tables() == 1


def test_what_somebody_else_has_made_is_not_written_over(node: FakeNode, own: Own) -> None:
    own.path.parent.mkdir()
    own.do("CREATE TABLE released AS SELECT 7 AS mine")
    result = materialize(node, returning(frame()), resources=own.resources())
    assert "was not made by Comity" in failure(result, "released")[0]
    assert own.ask("SELECT * FROM released") == [(7,)]


def test_a_partition_that_cannot_be_shown_is_refused(own: Own) -> None:
    with pytest.raises(ConfigError, match="cannot be shown"):
        own.storage().require_place(Slot(("released",), "a\x00b"))
