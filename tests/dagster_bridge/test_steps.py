"""Every kind of step that Dagster can start is gated before its function runs."""

import functools
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

import dagster_runs
from comity.dagster_bridge import govern
from comity.node.forms import InputForm
from dagster_runs import failure, materialized
from fake_node import FakeNode, execute, refused

# What these tests make are numbers, which no IO manager binds to lineage.
materialize = functools.partial(dagster_runs.materialize, unbound_writes="allow")


class Ran:
    """Which functions ran."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> None:
        self.names.append(name)


@pytest.fixture
def ran() -> Ran:
    return Ran()


def test_an_asset_runs_under_a_permit_and_says_so(node: FakeNode, ran: Ran) -> None:
    @dg.asset
    def patients() -> int:
        ran("patients")
        return 1

    node.otherwise = execute
    result = materialize(node, patients)
    assert result.success
    assert ran.names == ["patients"]
    (form,) = node.steps
    assert (form.orchestrator, form.step, form.run) == ("dagster", "patients", result.run_id)
    assert [(each.asset, each.partition, each.columns) for each in form.outputs] == [("patients", "", None)]
    assert form.context is not None
    assert form.context.code == form.code
    made = materialized(result)["patients"]
    assert made["comity/outcome"] == "execute"
    assert made["comity/content"] == "not bound"
    assert len(made["comity/intent"]) == 64
    assert len(made["comity/permit"]) == 64
    assert len(node.said("/v1/starts", object)) == 1


def test_a_refused_step_never_runs_its_function(node: FakeNode, ran: Ran) -> None:
    @dg.asset
    def patients() -> int:
        ran("patients")
        return 1

    node.otherwise = refused
    result = materialize(node, patients)
    assert not result.success
    assert ran.names == []
    assert materialized(result) == {}


def test_coroutines_and_asynchronous_generators_are_gated(node: FakeNode, ran: Ran) -> None:
    @dg.asset
    async def refused_one() -> int:
        ran("refused_one")
        return 1

    @dg.multi_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec("right")])
    async def pair():  # type: ignore[no-untyped-def]  # noqa: ANN202  # Dagster takes no AsyncIterator here
        ran("pair")
        yield dg.MaterializeResult(asset_key="left")
        yield dg.MaterializeResult(asset_key="right")

    node.decisions = {"refused_one": refused, "pair": execute}
    result = materialize(node, refused_one, pair)
    assert ran.names == ["pair"]
    assert {name: made["comity/content"] for name, made in materialized(result).items()} == {
        "left": "not bound",
        "right": "not bound",
    }


def test_a_subset_of_a_multi_asset_asks_only_for_what_is_selected(node: FakeNode) -> None:
    @dg.multi_asset(
        specs=[dg.AssetSpec("staged", deps=["raw"]), dg.AssetSpec("mart", deps=["staged"])], can_subset=True
    )
    def models(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        # As dbt's assets do: one invocation, a result for each model.
        for key in sorted(context.selected_asset_keys):
            yield dg.MaterializeResult(asset_key=key)

    node.otherwise = execute
    assert materialize(node, models, select=["mart"], unbound_reads="allow").success
    (form,) = node.steps
    assert [each.asset for each in form.outputs] == ["mart"]
    assert form.inputs == [InputForm("staged")]


def test_all_ops_of_a_graph_asset_ask_for_one_intent(node: FakeNode, ran: Ran) -> None:
    @dg.op
    def clean(raw: int) -> int:
        ran("clean")
        return raw

    @dg.op
    def count(cleaned: int) -> int:
        ran("count")
        return cleaned

    @dg.asset
    def raw() -> int:
        return 1

    def counted_graph(raw: int) -> int:
        return count(clean(raw))  # type: ignore[no-any-return]

    counted = dg.graph_asset(name="counted")(counted_graph)
    node.decisions = {"counted": execute}
    result = materialize(node, raw, counted, unbound_reads="allow")
    assert result.success
    assert ran.names == ["clean", "count"]
    asked = [form for form in node.steps if form.step == "counted"]
    assert len(asked) == 2
    assert asked[0] == asked[1]
    assert asked[0].inputs == [InputForm("raw")]
    assert materialized(result)["counted"]["comity/outcome"] == "execute"
    node.decisions = {"counted": refused}
    ran.names.clear()
    assert not materialize(node, raw, counted, unbound_reads="allow").success
    assert ran.names == []


def test_static_partitions_are_named_with_those_that_they_read(node: FakeNode) -> None:
    sites = dg.StaticPartitionsDefinition(["north", "south"])

    @dg.asset(partitions_def=sites)
    def visits() -> int:
        return 1

    @dg.asset(partitions_def=sites, deps=[visits])
    def counted() -> None:
        return None

    @dg.asset(deps=[visits])
    def total() -> None:
        return None

    node.otherwise = execute
    with dg.DagsterInstance.ephemeral() as instance:
        options = {"instance": instance, "unbound_reads": "allow"}
        assert materialize(node, visits, counted, partition="south", **options).success  # type: ignore[arg-type]
        by_step = {form.step: form for form in node.steps}
        assert [(each.asset, each.partition) for each in by_step["counted"].outputs] == [("counted", "south")]
        assert by_step["counted"].inputs == [InputForm("visits", "south")]
        assert materialize(node, visits, total, select=["total"], **options).success  # type: ignore[arg-type]
    assert node.steps[-1].inputs == [InputForm("visits", "north"), InputForm("visits", "south")]


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_range_of_dynamic_partitions_is_one_intent(node: FakeNode) -> None:
    @dg.asset(
        partitions_def=dg.DynamicPartitionsDefinition(name="patients"),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def charts() -> None:
        return None

    node.otherwise = execute
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("patients", ["a", "b", "c"])
        tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
        result = materialize(node, charts, instance=instance, tags=tags)
    assert result.success
    (form,) = node.steps
    assert [each.partition for each in form.outputs] == ["a", "b", "c"]
    assert [each.partition for each in node.said("/v1/starts", object)] == ["a", "b", "c"]  # type: ignore[attr-defined]
    assert set(materialized(result)) == {"charts[a]", "charts[b]", "charts[c]"}


def test_keys_of_several_dimensions_travel_as_text(node: FakeNode) -> None:
    @dg.asset(
        partitions_def=dg.MultiPartitionsDefinition(
            {
                "day": dg.StaticPartitionsDefinition(["1", "2"]),
                "site": dg.StaticPartitionsDefinition(["north"]),
            }
        )
    )
    def visits() -> None:
        return None

    node.otherwise = execute
    assert materialize(node, visits, partition=dg.MultiPartitionKey({"day": "1", "site": "north"})).success
    assert [each.partition for each in node.steps[0].outputs] == ["1|north"]


def test_an_asset_check_is_gated_and_names_what_it_reads(node: FakeNode, ran: Ran) -> None:
    @dg.asset
    def patients() -> int:
        return 1

    @dg.asset_check(asset=patients)
    def plausible(patients: int) -> dg.AssetCheckResult:
        ran("plausible")
        return dg.AssetCheckResult(passed=True)

    defs = govern(dg.Definitions(assets=[patients], asset_checks=[plausible]), home=node.home, wait_max_s=0.0)
    node.decisions = {"patients_plausible": refused}
    assert defs.assets is not None
    result = dg.materialize([patients, plausible], raise_on_error=False)
    assert not result.success
    assert ran.names == []
    form = next(form for form in node.steps if form.checks)
    assert form.checks == ["patients:plausible"]
    assert (form.outputs, form.inputs) == ([], [InputForm("patients")])


def test_an_op_of_a_plain_job_is_gated(node: FakeNode, ran: Ran) -> None:
    @dg.op
    def export() -> None:
        ran("export")

    @dg.job
    def nightly() -> None:
        export()

    govern(dg.Definitions(jobs=[nightly]), home=node.home, wait_max_s=0.0)
    node.decisions = {"export": refused}
    assert not nightly.execute_in_process(raise_on_error=False).success
    assert ran.names == []
    assert (node.steps[0].job, node.steps[0].outputs) == ("nightly", [])
    node.decisions = {}
    assert nightly.execute_in_process().success
    assert ran.names == ["export"]


def test_a_job_that_only_a_schedule_or_a_sensor_knows_is_gated(node: FakeNode, ran: Ran) -> None:
    @dg.op
    def export() -> None:
        ran("export")

    @dg.job
    def nightly() -> None:
        export()

    @dg.op
    def mail() -> None:
        ran("mail")

    @dg.job
    def on_change() -> None:
        mail()

    @dg.sensor(job=on_change)
    def changed() -> dg.SkipReason:
        return dg.SkipReason("nothing")

    schedule = dg.ScheduleDefinition(job=nightly, cron_schedule="0 1 * * *")
    govern(dg.Definitions(schedules=[schedule], sensors=[changed]), home=node.home, wait_max_s=0.0)
    node.otherwise = refused
    assert not nightly.execute_in_process(raise_on_error=False).success
    assert not on_change.execute_in_process(raise_on_error=False).success
    assert ran.names == []


def test_an_op_made_without_a_decorator_is_gated(node: FakeNode, ran: Ran) -> None:
    def compute(*given: Any) -> Any:  # Dagster allows no annotation of ours on a context
        ran("bare")
        yield dg.Output(1, "result")

    bare = dg.OpDefinition(compute_fn=compute, name="bare", outs={"result": dg.Out(int)})

    @dg.job
    def nightly() -> None:
        bare()

    govern(dg.Definitions(jobs=[nightly]), home=node.home, wait_max_s=0.0)
    assert nightly.execute_in_process().success
    node.otherwise = refused
    assert not nightly.execute_in_process(raise_on_error=False).success
    assert ran.names == ["bare"]


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_an_observation_is_gated(node: FakeNode, ran: Ran) -> None:
    @dg.observable_source_asset
    def upstream() -> dg.DataVersion:
        ran("upstream")
        return dg.DataVersion("1")

    defs = govern(dg.Definitions(assets=[upstream]), home=node.home, wait_max_s=0.0)
    job = defs.resolve_implicit_global_asset_job_def()
    node.otherwise = refused
    assert not job.execute_in_process(raise_on_error=False).success
    assert ran.names == []
    assert (node.steps[0].outputs, node.steps[0].inputs) == ([], [InputForm("upstream")])
    node.otherwise = execute
    assert job.execute_in_process().success
    assert ran.names == ["upstream"]


def test_a_test_may_still_call_an_assets_function(node: FakeNode, ran: Ran) -> None:
    @dg.asset
    def doubled(context: dg.AssetExecutionContext, number: int) -> int:
        ran("doubled")
        return 2 * number

    govern(dg.Definitions(assets=[doubled]), home=node.home)
    assert doubled(dg.build_asset_context(), 2) == 4
    assert node.calls == []


def test_declared_columns_are_asked_for(node: FakeNode) -> None:
    schema = dg.TableSchema(columns=[dg.TableColumn("time", "int"), dg.TableColumn("sex", "int")])

    @dg.asset(metadata={"dagster/column_schema": schema})
    def released() -> int:
        return 1

    node.otherwise = execute
    materialize(node, released)
    assert node.steps[0].outputs[0].columns == ["time", "sex"]


def test_a_partners_asset_is_named_whole(node: FakeNode) -> None:
    partner = dg.AssetSpec("north_released", metadata={"comity/asset": "clinic-north.example/released"})

    @dg.asset(deps=[partner])
    def pooled() -> None:
        return None

    node.otherwise = execute
    materialize(node, partner, pooled, unbound_reads="allow")
    assert node.steps[0].inputs == [InputForm("clinic-north.example/released")]


def test_an_input_that_is_read_past_verification_is_refused(node: FakeNode, ran: Ran) -> None:
    @dg.asset
    def released() -> int:
        return 1

    @dg.asset
    def pooled(released: int) -> int:
        ran("pooled")
        return released

    node.otherwise = execute
    result = materialize(node, released, pooled)
    text, metadata = failure(result, "pooled")
    assert "reads released without verification" in text
    assert metadata["comity/causes"][0]["code"] == "input_not_bound"
    assert ran.names == []
    allowed = materialize(node, *_again("pooled", released), unbound_reads="allow")
    assert materialized(allowed)["pooled"]["comity/inputs_not_bound"] == ["released"]


def _again(name: str, upstream: dg.AssetsDefinition) -> list[dg.AssetsDefinition]:
    """The same pair anew: an op keeps the gate that it got first."""

    @dg.asset(name="released")
    def fresh() -> int:
        return 1

    @dg.asset(name=name)
    def reads(released: int) -> int:
        return released

    return [fresh, reads]


def test_a_self_made_materialization_event_is_refused(node: FakeNode) -> None:
    @dg.asset
    def released() -> Iterator[object]:
        yield dg.AssetMaterialization("somebody_elses")
        yield dg.Output(1)

    node.otherwise = execute
    text, metadata = failure(materialize(node, released), "released")
    assert "reports a materialization of somebody_elses by itself" in text
    assert metadata["comity/causes"][0]["code"] == "materialization_not_an_output"
