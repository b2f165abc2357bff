"""Death at every point of a write to a DuckDB database leaves the old version or the new one, as the record says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from comity.dagster_bridge.duckdb_input import TableInput
from comity.dagster_bridge.table_digest import table_digest
from comity.dagster_bridge.verified_read import Reader
from duckdb_tables import RELEASED, Own, consumed
from fake_node import FakeNode, execute, fake_home

pytestmark = [pytest.mark.filterwarnings("ignore::dagster.BetaWarning"), pytest.mark.slow]

ROWS = 20_000
"""Of a version in which death comes at any moment: enough for the disk to be busy for a while."""

PROGRAM = str(Path(__file__).parents[1] / "support/mortal_database.py")
WITHOUT_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false", "OPENBLAS_NUM_THREADS": "1"}
"""It forks, which is safe without threads alone."""


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return Own(tmp_path)


class Writer:
    """A program that writes versions, or puts one back, in processes that die."""

    def __init__(self, own: Own, node: FakeNode) -> None:
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, str(own.path), str(node.home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **WITHOUT_THREADS},
        )

    def write(self, number: int, at: int, when: str, *, put_back: str = "", rows: int = 1) -> int:
        """Answers with the exit status.

        Args:
            at: at which call to the database or the node, or after how many microseconds; never where it is 0.
            when: `before` that call, `after` it, or at that `moment`.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"number": number, "at": at, "when": when, "put_back": put_back, "rows": rows}
        self.process.stdin.write(f"{json.dumps(request)}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture
def writer(own: Own, node: FakeNode) -> Iterator[Writer]:
    writer = Writer(own, node)
    with writer.process as process:
        yield writer
        process.kill()


def shown(own: Own, rows: int = 1) -> int:
    """The number in the version that the view shows: all of its rows, and of no other version."""
    ((number, count),) = own.ask("SELECT n, count(*) FROM released GROUP BY n")
    assert count == rows
    return int(number)


def read_by_a_consumer(own: Own, node: FakeNode) -> int:
    """What whoever comes next reads, verified."""
    reader = Reader(gate=None, step=None, home=node.home)
    found = reader.admitted(TableInput("released", own.storage(), ("released",)), "")
    (value,) = set(found.content.table.column("n").to_pylist())
    return int(value)


@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_is_killed_leaves_the_old_version_or_the_new_one_as_the_record_says(
    node: FakeNode, own: Own, writer: Writer, when: str
) -> None:
    assert writer.write(0, 0, when) == 0
    slot = ("clinic-north.example/released", "")
    expected, at, deaths, finished = 0, 0, 0, 0
    while True:
        at += 1
        before, stood = node.ledger[slot], shown(own)
        ended = writer.write(at, at, when)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        deaths += 1
        assert shown(own) in (stood, at)
        if node.ledger[slot] != before:
            # It was recorded: from then on it is the version.
            expected = at
            finished += shown(own) != at
        assert read_by_a_consumer(own, node) == expected, at
        assert shown(own) == expected
    assert set(consumed(node, own, pa.Table).column("n").to_pylist()) == {at}
    assert deaths > 15
    # Some died after the record and before the new version stood in its place.
    assert finished > 2
    assert own.tables() <= 3 + deaths


@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_is_killed_while_a_version_is_put_back_leaves_one_of_both_whole(
    node: FakeNode, own: Own, writer: Writer, when: str
) -> None:
    for number in (1, 2):
        assert writer.write(number, 0, when) == 0
    digests = [table_digest(pa.table({"n": pa.array([n], pa.int64())})).digest for n in (1, 2)]
    at = deaths = 0
    while True:
        at += 1
        ended = writer.write(0, at, when, put_back=digests[0])
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        deaths += 1
        kept = own.storage().current(RELEASED)
        assert kept is not None
        assert kept.digest.digest == kept.version.digest
        assert kept.version.sidecar
        assert shown(own) == {digests[0]: 1, digests[1]: 2}[kept.digest.digest]
        # Whoever comes next does it again, whatever was done of it.
        assert own.storage().put_back(RELEASED, digests[0])
        assert shown(own) == 1
        assert own.storage().put_back(RELEASED, digests[1]), "what stood there is kept, too"
    assert deaths > 5


def test_whoever_is_killed_at_any_moment_leaves_whole_versions(
    node: FakeNode, own: Own, writer: Writer
) -> None:
    """Also within a statement or a commit, where no call of ours stands."""
    assert writer.write(0, 0, "moment", rows=ROWS) == 0
    slot = ("clinic-north.example/released", "")
    expected, deaths = 0, 0
    for number in range(1, 25):
        before = node.ledger[slot]
        # After a connection was asked for: from half a millisecond to a tenth of a second, each longer by a quarter.
        ended = writer.write(number, int(400 * 1.25**number), "moment", rows=ROWS)
        assert ended in (0, -signal.SIGALRM)
        deaths += ended != 0
        if node.ledger[slot] != before:
            expected = number
        assert shown(own, ROWS) in (expected, *range(number))
        assert read_by_a_consumer(own, node) == expected, number
        assert shown(own, ROWS) == expected
    assert deaths > 5
