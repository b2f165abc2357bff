"""What no policy speaks of runs exactly as before, also while the node is down."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

import dagster_runs
from comity.dagster_bridge import GovernedFilesIOManager
from dagster_runs import failure, stripped
from fake_node import FakeNode, execute

# What these tests make are numbers, which no IO manager binds to lineage.
materialize = functools.partial(dagster_runs.materialize, unbound_writes="allow")


def _pipeline() -> list[dg.AssetsDefinition]:
    """Assets of every kind, one of which fails and is retried."""
    attempts: list[int] = []

    @dg.asset(metadata={"kept": "as it is"})
    def raw() -> int:
        return 1

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def doubled(context: dg.AssetExecutionContext, raw: int) -> dg.Output[int]:
        context.log.info("doubling")
        context.add_output_metadata({"rows": 2})
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("once")
        return dg.Output(2 * raw, metadata={"by": "hand"})

    @dg.multi_asset(specs=[dg.AssetSpec("left", deps=["doubled"]), dg.AssetSpec("right")])
    def pair() -> Iterator[dg.MaterializeResult[Any]]:
        yield dg.MaterializeResult(asset_key="left", metadata={"n": 1})
        yield dg.MaterializeResult(asset_key="right")

    @dg.op
    def add(raw: int) -> int:
        return raw + 1

    @dg.op
    def negate(value: int) -> int:
        return -value

    def graph(raw: int) -> int:
        return negate(add(raw))  # type: ignore[no-any-return]

    @dg.asset
    async def later(raw: int) -> int:
        return raw

    @dg.asset_check(asset=raw)
    def positive(raw: int) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=raw > 0, metadata={"value": raw})

    @dg.asset(deps=[raw])
    def failing() -> None:
        raise RuntimeError("always")

    return [raw, doubled, pair, dg.graph_asset(name="counted")(graph), later, positive, failing]


def test_event_logs_are_equal_with_and_without(node: FakeNode) -> None:
    plain = dg.materialize(_pipeline(), raise_on_error=False)
    governed = materialize(node, *_pipeline())
    assert len(node.steps) >= 8
    assert [each for each in stripped(governed) if "comity" in each] == []
    assert stripped(governed) == stripped(plain)
    # The comparison can fail: a governed run differs.
    node.otherwise = execute
    assert stripped(materialize(node, *_pipeline())) != stripped(plain)


def test_a_governed_neighbour_leaves_the_others_untouched(node: FakeNode) -> None:
    plain = dg.materialize(_pipeline(), raise_on_error=False)
    node.decisions = {"later": execute}
    governed = materialize(node, *_pipeline(), unbound_reads="allow")
    theirs = [each for each in stripped(governed) if '"step_key": "later"' not in each]
    assert theirs == [each for each in stripped(plain) if '"step_key": "later"' not in each]


def test_while_the_node_is_down_what_its_list_does_not_name_runs_as_before(home: Path) -> None:
    node = FakeNode(home)
    node.governs("clinic-north.example/released", "clinic-south.example/**")
    down = materialize(node, *_pipeline())
    assert stripped(down) == stripped(dg.materialize(_pipeline(), raise_on_error=False))


def _chain() -> list[dg.AssetsDefinition]:
    @dg.asset
    def released() -> int:
        return 1

    @dg.asset
    def cleaned(released: int) -> int:
        return released

    @dg.asset
    def report(cleaned: int) -> int:
        return cleaned

    @dg.asset
    def menu() -> int:
        return 1

    return [released, cleaned, report, menu]


@pytest.mark.parametrize(
    "pattern", ["clinic-north.example/released", "*/released", "clinic-north.example/rel*"]
)
def test_while_the_node_is_down_what_it_governs_waits(home: Path, pattern: str) -> None:
    node = FakeNode(home)
    node.governs(pattern)
    matches = not pattern.endswith("rel*")  # a star stands for a whole part, never for a piece of one
    result = materialize(node, *_chain())
    assert result.success is not matches
    if matches:
        assert "no Comity node listens" in failure(result, "released")[0]


def test_what_comes_from_a_governed_asset_waits_too_however_far_down(node: FakeNode, home: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        node.governs("clinic-north.example/released")
        assert materialize(node, *_chain(), instance=instance).success
        node.socket.rename(home / "elsewhere")
        try:
            result = materialize(node, *_chain(), select=["report", "menu"], instance=instance)
        finally:
            (home / "elsewhere").rename(node.socket)
    assert "no Comity node listens" in failure(result, "report")[0]
    assert [event.step_key for event in result.all_events if event.is_step_success] == ["menu"]


@pytest.mark.parametrize("content", ["{", "[]", '{"patterns": ["a"]}', '{"member": 1, "patterns": []}'])
def test_a_list_that_cannot_be_read_rules_nothing_out(home: Path, content: str) -> None:
    (home / "governed.json").write_text(content)
    assert "no Comity node listens" in failure(materialize(FakeNode(home), *_chain()), "menu")[0]


def test_ungoverned_tables_are_plain_files(node: FakeNode, tmp_path: Path) -> None:
    @dg.asset
    def menu() -> pd.DataFrame:
        return pd.DataFrame({"dish": ["soup"]})

    @dg.asset
    def card(menu: pd.DataFrame) -> pd.DataFrame:
        return menu.assign(price=3)

    resources = {"io_manager": GovernedFilesIOManager(base=str(tmp_path), format="csv")}
    result = materialize(node, menu, card, resources=resources)
    assert result.success
    assert (tmp_path / "card.csv").read_text() == "dish,price\nsoup,3\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.csv", "menu.csv"]
    assert [each for each in stripped(result) if "comity/" in each] == []
    assert (node.reads, node.actuations) == ([], [])
