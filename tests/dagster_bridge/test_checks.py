"""What asset checks find is said of the version that they looked at; a blocking one keeps it from being promoted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from comity.dagster_bridge import GovernedFilesIOManager
from comity.node.client import CheckForm, StepAnswer, StepForm
from dagster_runs import failure, materialize
from fake_node import FakeNode, Refusal, execute, fake_home, ungoverned

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

WARN = dg.AssetCheckSeverity.WARN


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as running:
        yield running


@pytest.fixture
def resources(tmp_path: Path) -> dict[str, Any]:
    return {"io_manager": GovernedFilesIOManager(base=str(tmp_path / "own"))}


def frame() -> pd.DataFrame:
    return pd.DataFrame({"time": [1, 2]})


def rows_there(*, blocking: bool = False) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec("rows_there", asset="released", blocking=blocking)


def made(result: Callable[[], Any], *, blocking: bool = False) -> dg.AssetsDefinition:
    """An asset whose own function says what its check finds."""

    @dg.asset(check_specs=[rows_there(blocking=blocking)])
    def released():  # type: ignore[no-untyped-def]  # noqa: ANN202  # Dagster takes no annotation for it here
        return dg.MaterializeResult(value=frame(), check_results=[result()])

    return released


def ok(**options: Any) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, **options)


def bad(**options: Any) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, **options)


def said(node: FakeNode) -> list[tuple[str, str, str, bool, str]]:
    return [(each.asset, each.partition, each.check, each.passed, each.severity) for each in node.checks]


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        (ok, ("released", "", "rows_there", True, "error")),
        (bad, ("released", "", "rows_there", False, "error")),
        (lambda: bad(severity=WARN), ("released", "", "rows_there", False, "warn")),
    ],
)
def test_what_the_work_says_of_itself_is_said_of_what_it_made(
    node: FakeNode, resources: dict[str, Any], result: Callable[[], Any], wanted: tuple[Any, ...]
) -> None:
    assert materialize(node, made(result), resources=resources).success
    assert said(node) == [wanted]
    assert node.checks[0].actuation == node.ledger["clinic-north.example/released", ""][1]
    assert [path for path, _ in node.calls].index("/v1/actuations") < [p for p, _ in node.calls].index(
        "/v1/checks"
    ), "of a version that is not recorded there is nothing to say"


def test_a_blocking_check_that_failed_keeps_its_version_from_being_promoted(
    node: FakeNode, resources: dict[str, Any], tmp_path: Path
) -> None:
    assert materialize(node, made(ok, blocking=True), resources=resources).success
    before = (tmp_path / "own" / "released.parquet").read_bytes()
    result = materialize(node, made(bad, blocking=True), resources=resources)
    text, metadata = failure(result, "released")
    assert "its check rows_there has failed, and blocks" in text
    assert metadata["comity/causes"][0]["code"] == "check_failed"
    (discarded,) = node.discards
    assert [(c.code, c.parameters) for c in discarded.causes] == [("check_failed", {"check": "rows_there"})]
    assert (tmp_path / "own" / "released.parquet").read_bytes() == before
    assert len(node.actuations) == 1
    assert len(node.checks) == 1, "nothing is said of a version that nobody can read"


@pytest.mark.parametrize("result", [ok, lambda: bad(severity=WARN)])
def test_a_blocking_check_that_did_not_fail_in_earnest_blocks_nothing(
    node: FakeNode, resources: dict[str, Any], result: Callable[[], Any]
) -> None:
    assert materialize(node, made(result, blocking=True), resources=resources).success


def test_what_is_said_after_the_output_is_of_that_version(node: FakeNode, resources: dict[str, Any]) -> None:
    @dg.asset(check_specs=[rows_there()])
    def released() -> Iterator[Any]:
        yield dg.Output(frame())
        yield bad()

    assert materialize(node, released, resources=resources).success
    assert said(node) == [("released", "", "rows_there", False, "error")]


def reads_governed(form: StepForm) -> StepAnswer:
    """A step that makes nothing under a permit, and reads something governed."""
    return dataclasses.replace(ungoverned(form), governed_inputs=["released"])


def checking() -> list[Any]:
    @dg.asset
    def released() -> pd.DataFrame:
        return frame()

    @dg.asset_check(asset="released")
    def rows_there(released: pd.DataFrame) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=len(released) > 5)

    return [released, rows_there]


def test_a_check_is_of_the_version_that_it_read(node: FakeNode, resources: dict[str, Any]) -> None:
    node.decisions["released_rows_there"] = reads_governed
    assert materialize(node, *checking(), resources=resources).success
    assert said(node) == [("released", "", "rows_there", False, "error")]
    assert node.checks[0].actuation == node.ledger["clinic-north.example/released", ""][1]


def test_every_partition_that_was_made_is_said_of(node: FakeNode, resources: dict[str, Any]) -> None:
    days = dg.StaticPartitionsDefinition(["a", "b"])

    @dg.asset(check_specs=[rows_there()], partitions_def=days, backfill_policy=dg.BackfillPolicy.single_run())
    def released(context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # as above
        tables = {key: frame() for key in context.partition_keys}
        return dg.MaterializeResult(value=tables, check_results=[bad()])

    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    assert materialize(node, released, resources=resources, tags=tags).success
    assert sorted(said(node)) == [
        ("released", "a", "rows_there", False, "error"),
        ("released", "b", "rows_there", False, "error"),
    ]


def refuse(_: CheckForm) -> None:
    raise Refusal(503, "governance_missing")


def test_a_failure_that_nobody_hears_of_fails_the_step(node: FakeNode, resources: dict[str, Any]) -> None:
    """Else what the check bars would be used, and nothing would say why not."""
    node.on_check = refuse
    result = materialize(node, made(bad), resources=resources)
    assert not result.success
    assert failure(result, "released")[0]


def test_that_a_check_passed_may_go_unsaid(node: FakeNode, resources: dict[str, Any]) -> None:
    node.on_check = refuse
    assert materialize(node, made(ok), resources=resources).success


def test_checks_of_what_is_not_governed_are_nobodys_business(
    tmp_path: Path, resources: dict[str, Any]
) -> None:
    with fake_home() as home, FakeNode(home).running() as node:
        assert materialize(node, made(bad), resources=resources).success
        assert materialize(node, *checking(), resources=resources).success
        assert node.checks == []
