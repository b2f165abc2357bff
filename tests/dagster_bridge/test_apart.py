"""Work in a way less harmful than to take a version's place is held to it: kept apart, sampled, or taken away."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.dagster_bridge import GovernedFilesIOManager, WrittenFile
from comity.dagster_bridge.apart import SAMPLE_ROWS_MAX, sample_of
from comity.dagster_bridge.tables import row_count
from comity.node.client import StepAnswer, StepForm, TermForm, WayTried
from dagster_runs import failure, materialize, materialized
from fake_node import FakeNode, execute, fake_home, restricted

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

ROWS = 2_500


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as running:
        yield running


def in_way(way: Any, decide: Callable[[StepForm], StepAnswer] = execute) -> Callable[[StepForm], StepAnswer]:
    """A decision for one way, with what was looked at before it was chosen."""

    def decided(form: StepForm) -> StepAnswer:
        tried = [
            WayTried(way, "execute", chosen=True),
            WayTried("staged", "refuse", causes=[TermForm("only_apart")]),
        ]
        return dataclasses.replace(decide(form), way=way, ways=tried)

    return decided


class Own:
    def __init__(self, folder: Path) -> None:
        self.base = folder / "own"
        self.exchange = folder / "exchange"
        self.scratch = folder / "scratch.parquet"
        self.resources = {
            "io_manager": GovernedFilesIOManager(
                base=str(self.base), exchange=str(self.exchange), publish=["released"]
            )
        }

    def file(self, name: str = "released", way: str = "") -> Path:
        return (self.base / ".apart" / way if way else self.base) / f"{name}.parquet"

    def everything(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.base.parent))
            for folder in (self.base, self.exchange)
            for path in folder.rglob("*")
            if path.is_file()
        )


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return Own(tmp_path)


def frame(rows: int = ROWS) -> pd.DataFrame:
    return pd.DataFrame({"n": range(rows), "sex": [each % 2 for each in range(rows)]})


@pytest.fixture
def released() -> dg.AssetsDefinition:
    @dg.asset
    def released() -> pd.DataFrame:
        return frame()

    return released


def test_a_dry_run_is_verified_recorded_and_taken_away(
    node: FakeNode, own: Own, released: dg.AssetsDefinition
) -> None:
    node.decisions["released"] = in_way("dry_run")
    result = materialize(node, released, resources=own.resources)
    assert result.success
    (said,) = node.discards
    assert (said.passed, [cause.code for cause in said.causes]) == (True, ["dry_run"])
    assert (said.rows, said.columns) == (ROWS, ["n", "sex"])
    assert node.actuations == []
    assert own.everything() == []
    metadata = materialized(result)["released"]
    assert metadata["comity/way"] == "dry_run"
    assert [(each["way"], each["chosen"]) for each in metadata["comity/ways"]] == [
        ("dry_run", True),
        ("staged", False),
    ]


def test_a_dry_run_that_breaks_its_permit_says_so(node: FakeNode, own: Own) -> None:
    node.decisions["released"] = in_way("dry_run", restricted(["n"]))

    @dg.asset(name="released")
    def written() -> WrittenFile:
        frame().to_parquet(own.scratch)
        return WrittenFile(own.scratch)

    result = materialize(node, written, resources=own.resources)
    assert "is discarded" in failure(result, "released")[0]
    (said,) = node.discards
    assert (said.passed, [cause.code for cause in said.causes]) == (False, ["staged_column_not_permitted"])


@pytest.mark.parametrize("way", ["isolated", "sampled"])
def test_what_is_made_apart_leaves_what_readers_see_as_it_was(
    node: FakeNode, own: Own, way: str, released: dg.AssetsDefinition
) -> None:
    assert materialize(node, released, resources=own.resources).success
    before = {name: Path(own.base.parent / name).read_bytes() for name in own.everything()}
    node.decisions["released"] = in_way(way)
    assert materialize(node, released, resources=own.resources).success
    after = {name: Path(own.base.parent / name).read_bytes() for name in own.everything()}
    assert {name: data for name, data in after.items() if "/.apart/" not in name} == before
    rows = len(pd.read_parquet(own.file(way=way)))
    assert rows == (ROWS if way == "isolated" else SAMPLE_ROWS_MAX)
    assert node.actuations[-1].rows == rows


def test_a_sample_of_what_the_work_wrote_by_itself(node: FakeNode, own: Own) -> None:
    node.decisions["released"] = in_way("sampled")

    @dg.asset(name="released")
    def written() -> WrittenFile:
        frame().to_parquet(own.scratch)
        return WrittenFile(own.scratch)

    assert materialize(node, written, resources=own.resources).success
    assert len(pd.read_parquet(own.file(way="sampled"))) == SAMPLE_ROWS_MAX


def test_obligations_are_met_by_the_sample(node: FakeNode, own: Own) -> None:
    """Groups that the whole table fills, and a sample of it does not."""
    small = TermForm("min_group_rows", {"column": "n", "rows": 2})
    node.decisions["released"] = in_way("sampled", restricted(["n"], small))

    @dg.asset(name="released")
    def doubled() -> pd.DataFrame:
        return pd.DataFrame({"n": [each // 2 for each in range(2 * SAMPLE_ROWS_MAX)]})

    assert materialize(node, doubled, resources=own.resources).success
    assert len(pd.read_parquet(own.file(way="sampled"))) == 0
    assert node.actuations[-1].rows == 0


def test_the_next_step_of_the_way_reads_what_the_step_before_made(
    node: FakeNode, own: Own, released: dg.AssetsDefinition
) -> None:
    seen: list[int] = []

    @dg.asset
    def counted(released: pd.DataFrame) -> pd.DataFrame:
        seen.append(len(released))
        return released

    assert materialize(node, released, resources=own.resources).success
    for name in ("released", "counted"):
        node.decisions[name] = in_way("sampled")
    assert materialize(node, released, counted, resources=own.resources).success
    assert seen == [SAMPLE_ROWS_MAX]
    assert own.file("counted", "sampled").exists()
    assert not own.file("counted").exists()


def test_without_something_apart_the_version_that_stands_is_read(
    node: FakeNode, own: Own, released: dg.AssetsDefinition
) -> None:
    seen: list[int] = []

    @dg.asset
    def counted(released: pd.DataFrame) -> pd.DataFrame:
        seen.append(len(released))
        return released

    assert materialize(node, released, resources=own.resources).success
    node.decisions["counted"] = in_way("isolated")
    assert materialize(node, released, counted, select=["counted"], resources=own.resources).success
    assert seen == [ROWS]


def test_what_cannot_be_kept_apart_is_not_made(
    node: FakeNode, own: Own, tmp_path: Path, released: dg.AssetsDefinition
) -> None:
    """The definitions said that it can, and the run was given another resource."""
    node.decisions["released"] = in_way("isolated")
    resources = {"io_manager": dg.FilesystemIOManager(base_dir=str(tmp_path / "other"))}
    result = materialize(node, released, resources=resources, unbound_writes="allow")
    text, metadata = failure(result, "released")
    assert "to be kept apart (isolated)" in text
    assert metadata["comity/causes"][0]["code"] == "not_kept_apart"
    assert node.starts == []
    assert not (tmp_path / "other").exists()


def test_the_node_is_told_which_outputs_can_be_kept_apart(
    node: FakeNode, own: Own, released: dg.AssetsDefinition
) -> None:
    @dg.asset(io_manager_key="plain")
    def pickled() -> int:
        return 1

    resources = {**own.resources, "plain": dg.FilesystemIOManager(base_dir=str(own.base))}
    defs = dg.Definitions(assets=[released, pickled], resources=resources)
    from comity.dagster_bridge import govern

    govern(defs, home=node.home, wait_max_s=0.0, unbound_writes="allow")
    dg.materialize([released, pickled], resources=resources, raise_on_error=False)
    said = {step.step: step.outputs[0].isolates for step in node.steps}
    assert said == {"released": True, "pickled": False}


@given(st.integers(0, 3 * SAMPLE_ROWS_MAX))
def test_a_sample_is_small_in_order_and_always_the_same(rows: int) -> None:
    table = frame(rows)
    one, other = sample_of(table), sample_of(table.copy())
    assert one.equals(other)
    assert row_count(one) == min(rows, SAMPLE_ROWS_MAX)
    numbers = one.column("n").to_pylist()
    assert numbers == sorted(set(numbers))
    assert numbers[:1] == list(range(min(rows, 1)))
