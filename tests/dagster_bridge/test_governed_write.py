"""What is written is staged, read back and held against its permit; then it is promoted at once, or discarded."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from comity.dagster_bridge import GovernedFilesIOManager, WrittenFile
from comity.dagster_bridge.files import NEXT_FOLDER, Place, kept_versions, sidecar_of
from comity.dagster_bridge.files_storage import FilesStorage
from comity.dagster_bridge.storage import Slot
from comity.node.client import TermForm
from dagster_runs import failure, materialize, materialized
from fake_node import FakeNode, Refusal, execute, fake_home, restricted

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")

COLUMNS = ["time", "sex"]
SMALL = TermForm("min_group_rows", {"column": "sex", "rows": 2})


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as running:
        yield running


class Own:
    """The organization's directory, and where its work writes by itself."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "own"
        self.file = self.base / "released.parquet"
        self.scratch = folder / "scratch.parquet"

    def resources(self, **options: Any) -> dict[str, Any]:
        return {"io_manager": GovernedFilesIOManager(base=str(self.base), **options)}

    def staged(self) -> list[Path]:
        folder = self.file.parent / NEXT_FOLDER
        return sorted(folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return Own(tmp_path)


def frame(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"time": [1, 2, 3], "sex": [1, 1, 2], **columns})


def writing(own: Own, table: pd.DataFrame, before: Callable[[], None] = lambda: None) -> dg.AssetsDefinition:
    """An asset whose function writes its table by itself."""

    @dg.asset(name="released")
    def made() -> WrittenFile:
        table.to_parquet(own.scratch)
        before()
        return WrittenFile(own.scratch)

    return made


def returning(table: pd.DataFrame) -> dg.AssetsDefinition:
    @dg.asset(name="released")
    def made() -> pd.DataFrame:
        return table

    return made


# Staged and promoted


def test_what_the_work_wrote_within_its_permit_is_promoted(node: FakeNode, own: Own) -> None:
    node.decisions["released"] = restricted(COLUMNS)
    result = materialize(node, writing(own, frame()), resources=own.resources())
    assert result.success
    assert own.file.read_bytes() == own.scratch.read_bytes()
    (said,) = node.actuations
    assert said.digest == hashlib.sha256(own.file.read_bytes()).hexdigest()
    assert (said.rows, said.columns) == (3, COLUMNS)
    assert own.staged() == []
    assert materialized(result)["released"]["comity/content"] == "bound"


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
    before = own.file.read_bytes()
    node.decisions["released"] = restricted(COLUMNS, *obligations)
    result = materialize(node, writing(own, table), resources=own.resources())
    text, metadata = failure(result, "released")
    assert "is discarded" in text
    assert [cause["code"] for cause in metadata["comity/causes"]] == [code]
    (said,) = node.discards
    assert ([cause.code for cause in said.causes], said.asset) == ([code], "clinic-north.example/released")
    assert said.digest == hashlib.sha256(own.scratch.read_bytes()).hexdigest()
    assert own.file.read_bytes() == before
    assert own.staged() == []
    assert len(node.actuations) == 1


def test_a_group_whose_column_was_taken_out_cannot_be_looked_at(node: FakeNode, own: Own) -> None:
    small = TermForm("min_group_rows", {"column": "inst", "rows": 2})
    node.decisions["released"] = restricted(COLUMNS, small)
    assert materialize(node, writing(own, frame()), resources=own.resources()).success


def test_bytes_that_are_no_table_are_discarded(node: FakeNode, own: Own) -> None:
    def spoil() -> None:
        data = own.scratch.read_bytes()
        own.scratch.write_bytes(data[:20] + b"\0" * 40 + data[60:])

    result = materialize(node, writing(own, frame(), spoil), resources=own.resources())
    assert [cause["code"] for cause in failure(result, "released")[1]["comity/causes"]] == ["not_a_table"]
    assert len(node.discards) == 1
    assert not own.file.exists()


def test_staged_bytes_that_somebody_changed_are_discarded(
    node: FakeNode, own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = FilesStorage.stage

    def tampering(self: FilesStorage, slot: Any, prepared: Any) -> Any:
        staged = stage(self, slot, prepared)
        staged.beside.write_bytes(b"x" + staged.beside.read_bytes()[1:])
        return staged

    monkeypatch.setattr(FilesStorage, "stage", tampering)
    result = materialize(node, returning(frame()), resources=own.resources())
    assert [c["code"] for c in failure(result, "released")[1]["comity/causes"]] == ["staged_bytes_changed"]
    assert (len(node.discards), own.file.exists(), own.staged()) == (1, False, [])


def test_code_that_changed_since_the_step_asked_makes_nothing(
    node: FakeNode, own: Own, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "work.py").write_text("one = 1\n")

    def edit() -> None:
        (code / "work.py").write_text("one = 2\n")

    result = materialize(node, writing(own, frame(), edit), resources=own.resources(), code_root=code)
    assert [c["code"] for c in failure(result, "released")[1]["comity/causes"]] == ["context_drifted"]
    assert (len(node.discards), own.file.exists()) == (1, False)


@pytest.mark.parametrize(("status", "failed"), [(409, "WriteRefused"), (503, "NodeUnavailable")])
def test_what_cannot_be_recorded_is_discarded_all_the_same(
    node: FakeNode, own: Own, monkeypatch: pytest.MonkeyPatch, status: int, failed: str
) -> None:
    def refuse(self: FakeNode, form: Any) -> Any:
        raise Refusal(status, "no_quorum" if status == 503 else "start_unknown")

    monkeypatch.setattr(FakeNode, "_discard", refuse)
    node.decisions["released"] = restricted(COLUMNS)
    result = materialize(node, writing(own, frame(inst=[1, 2, 3])), resources=own.resources())
    assert not result.success
    outcome = failure(result, "released")[1]["comity/outcome"]
    assert outcome == ("refuse" if failed == "WriteRefused" else "unavailable")
    assert (own.staged(), own.file.exists()) == ([], False)


def test_a_file_that_was_not_written_stops_the_step_before_it_starts(node: FakeNode, own: Own) -> None:
    result = materialize(node, writing(own, frame(), own.scratch.unlink), resources=own.resources())
    assert "is not there" in failure(result, "released")[0]
    assert node.said("/v1/starts", object) == []


def test_an_ungoverned_asset_may_be_written_by_its_function_too(node: FakeNode, own: Own) -> None:
    from fake_node import ungoverned

    node.otherwise = ungoverned
    assert materialize(node, writing(own, frame()), resources=own.resources()).success
    assert own.file.read_bytes() == own.scratch.read_bytes()


# Versions


def made_often(node: FakeNode, own: Own, times: int, **options: Any) -> list[bytes]:
    contents: list[bytes] = []
    for number in range(times):
        table = frame(n=[number] * 3)
        assert materialize(node, returning(table), resources=own.resources(**options)).success
        contents.append(own.file.read_bytes())
    return contents


def test_versions_before_the_newest_are_kept_as_many_as_configured(node: FakeNode, own: Own) -> None:
    contents = made_often(node, own, 5)
    kept = kept_versions(own.file)
    assert [each.read_bytes() for each in kept] == contents[2:4]
    assert all(sidecar_of(each).is_file() for each in kept)
    # Where none are kept, nothing is.
    again = Own(own.base / "none")
    made_often(node, again, 3, versions=0)
    assert kept_versions(again.file) == []


def test_a_kept_version_is_put_back_with_what_vouches_for_it(node: FakeNode, own: Own) -> None:
    contents = made_often(node, own, 3)
    place = Place(own.base, shared=False, versions=2)
    sidecar = sidecar_of(kept_versions(own.file)[0]).read_bytes()
    assert place.put_back(own.file, hashlib.sha256(contents[0]).hexdigest())
    assert own.file.read_bytes() == contents[0]
    assert sidecar_of(own.file).read_bytes() == sidecar
    # What was found wrong is kept, too: it is evidence.
    assert contents[2] in [each.read_bytes() for each in kept_versions(own.file)]
    assert not place.put_back(own.file, "00" * 32)


def test_what_a_store_can_take_back_is_what_it_keeps(own: Own) -> None:
    for versions, word in ((2, "versioned"), (0, "swap")):
        assert FilesStorage(Place(own.base, shared=False, versions=versions), "parquet").reversibility == word


def test_files_that_cannot_be_linked_are_copied(
    node: FakeNode, own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    contents = made_often(node, own, 3)
    assert [each.read_bytes() for each in kept_versions(own.file)] == contents[:2]


# Death at every point

CHILD = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
import pandas as pd
from comity.dagster_bridge.check_reports import CheckReports
from comity.dagster_bridge.files import Place
from comity.dagster_bridge.files_storage import FilesStorage
from comity.dagster_bridge.governed_write import write_version
from comity.dagster_bridge.storage import Slot
from comity.dagster_bridge.tables import arrow_table
from comity.node.client import NodeClient, PermittedOutput, StartForm

base, home, after = Path(sys.argv[1]), sys.argv[2], sys.argv[5] == "after"
number, at = int(sys.argv[3]), int(sys.argv[4])
client = NodeClient.of_home(home)
left = [at]

def mortal(function):
    def called(*args, **kwargs):
        left[0] -= 1
        here = left[0] == 0
        if here and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return function(*args, **kwargs)
        finally:
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
    return called

storage = FilesStorage(Place(base, shared=False, versions=2), "csv")
permitted = PermittedOutput("clinic-north.example/released", "", "execute", [], True)
step = SimpleNamespace(
    start=lambda output: client.start(StartForm("ab" * 32, output.asset)),
    client=SimpleNamespace(actuate=mortal(client.actuate), discard=client.discard),
    answer=SimpleNamespace(intent="ab" * 32, way="staged"), name="released", require_same_code=lambda: None,
    checks=CheckReports(client, "released", {}),
)
prepared = storage.prepare(arrow_table(pd.DataFrame({"n": [number]})))
for name in ("open", "fsync", "replace", "link", "unlink", "mkdir"):
    setattr(os, name, mortal(getattr(os, name)))
if len(sys.argv) > 6:
    assert storage.put_back(Slot(("released",)), sys.argv[6])
else:
    write_version(storage, step, Slot(("released",)), permitted, prepared)
print("done", at - left[0])
"""


def write_once(
    own: Own, node: FakeNode, number: int, at: int, when: str, *put_back: str
) -> subprocess.CompletedProcess[bytes]:
    """Write a version, or put one back, in a process that is killed at so many calls to the disk or the node."""
    script = textwrap.dedent(CHILD)
    words = [str(own.base), str(node.home), str(number), str(at), when, *put_back]
    return subprocess.run([sys.executable, "-c", script, *words], capture_output=True, check=False)


def read_by_a_consumer(own: Own, node: FakeNode) -> int:
    """What whoever comes next reads, verified."""
    seen: list[int] = []

    @dg.asset(name="released")
    def made() -> pd.DataFrame:
        raise AssertionError

    @dg.asset
    def consumer(released: pd.DataFrame) -> None:
        seen.append(int(released["n"][0]))

    resources = own.resources(format="csv")
    result = materialize(
        node, made, consumer, select=["consumer"], resources=resources, unbound_writes="allow"
    )
    assert result.success, failure(result, "consumer")
    return seen[0]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_is_killed_leaves_the_old_version_or_the_new_one_as_the_record_says(
    node: FakeNode, own: Own, when: str
) -> None:
    assert write_once(own, node, 0, 0, when).returncode == 0
    slot = ("clinic-north.example/released", "")
    expected, at, deaths = 0, 0, 0
    while True:
        at += 1
        before = node.ledger[slot]
        ended = write_once(own, node, at, at, when)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        deaths += 1
        if node.ledger[slot] != before:
            # It was recorded: from then on it is the version.
            expected = at
        assert read_by_a_consumer(own, node) == expected, at
    assert read_by_a_consumer(own, node) == at
    assert deaths > 10
    assert expected > 0


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_whoever_is_killed_while_a_version_is_put_back_leaves_one_of_both_whole(
    node: FakeNode, own: Own, when: str
) -> None:
    storage, slot = FilesStorage(Place(own.base, shared=False, versions=2), "csv"), Slot(("released",))
    path = storage.path(slot)
    versions: dict[bytes, bytes] = {}
    for number in (1, 2):
        assert write_once(own, node, number, 0, when).returncode == 0
        versions[path.read_bytes()] = sidecar_of(path).read_bytes()
    digests = [hashlib.sha256(data).hexdigest() for data in versions]
    at = deaths = 0
    while True:
        at += 1
        ended = write_once(own, node, 0, at, when, digests[0])
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        deaths += 1
        assert path.read_bytes() in versions
        # Whoever comes next does it again, whatever was done of it.
        assert storage.put_back(slot, digests[0])
        assert [path.read_bytes(), sidecar_of(path).read_bytes()] == list(next(iter(versions.items())))
        assert storage.put_back(slot, digests[1]), "what stood there is kept, too"
    assert deaths > 5
