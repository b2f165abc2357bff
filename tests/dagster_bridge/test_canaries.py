"""The private names of Dagster that the bridge needs: each test says that one has moved.

When one fails after an upgrade of Dagster, `dagster_internals` is the place to mend, and these say what it
needs.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from comity.dagster_bridge import dagster_internals
from comity.dagster_bridge.dagster_internals import check_dagster, current_step
from comity.protocol.errors import ConfigError


@dg.asset
def plain(context: dg.AssetExecutionContext) -> int:
    return 1


def test_an_op_keeps_its_function_in_one_attribute() -> None:
    before = plain.op.compute_fn
    assert plain.op._compute_fn is before
    assert plain.op.with_replaced_properties(name="renamed").compute_fn is before


def test_a_decorated_function_can_be_replaced_in_its_wrapper() -> None:
    function = plain.op.compute_fn
    assert isinstance(function, dagster_internals.DecoratedOpFunction)
    other = function._replace(decorated_fn=lambda context: 2)
    assert type(other) is type(function)
    assert other.has_context_arg()


def test_wrappers_without_a_context_keep_their_kind() -> None:
    from dagster._core.definitions.decorators.op_decorator import NoContextDecoratedOpFunction

    function = NoContextDecoratedOpFunction(decorated_fn=lambda context: 1)
    assert type(function._replace(decorated_fn=lambda context: 2)) is NoContextDecoratedOpFunction


def test_dagster_asks_the_function_what_kind_it_is() -> None:
    from dagster._core.execution.plan import compute_generator

    source = inspect.getsource(compute_generator.create_op_compute_wrapper)
    for question in ("isgeneratorfunction", "isasyncgenfunction", "iscoroutinefunction"):
        assert question in source


def test_the_current_step_is_known_inside_of_every_kind_of_step_and_nowhere_else() -> None:
    seen: list[str] = []

    def note() -> None:
        step = current_step()
        assert step is not None
        seen.append(step.step.key)

    @dg.asset
    def made() -> int:
        note()
        return 1

    @dg.asset
    async def later() -> int:
        note()
        return 1

    @dg.asset_check(asset=made)
    def check() -> dg.AssetCheckResult:
        note()
        return dg.AssetCheckResult(passed=True)

    @dg.op
    def bare() -> Iterator[dg.Output[int]]:
        note()
        yield dg.Output(1)

    @dg.job
    def job() -> None:
        bare()

    assert dg.materialize([made, later, check]).success
    assert job.execute_in_process().success
    assert sorted(seen) == ["bare", "later", "made", "made_check"]
    assert current_step() is None


def test_a_step_knows_its_assets_its_attempt_and_its_graph() -> None:
    found: list[object] = []

    @dg.op
    def inner() -> int:
        step = current_step()
        assert step is not None
        layer = step.job_def.asset_layer
        assert step.assets_def is not None
        found.append(
            (
                step.node_handle.root.name,
                sorted(key.to_user_string() for key in step.assets_def.keys),
                step.previous_attempt_count,
                [output.properties.asset_key for output in step.step.step_outputs],
                sorted(
                    key.to_user_string()
                    for key in layer.asset_graph.get_ancestor_asset_keys(dg.AssetKey("g"))
                ),
                step.dagster_run.asset_selection or layer.selected_asset_keys,
            )
        )
        return 1

    def graph() -> int:
        return inner()  # type: ignore[no-any-return]

    assert dg.materialize([dg.graph_asset(name="g")(graph)]).success
    assert found == [("g", ["g"], 0, [dg.AssetKey("g")], [], {dg.AssetKey("g")})]


def test_targets_of_schedules_and_sensors_can_be_read() -> None:
    @dg.job
    def job() -> None:
        return None

    @dg.sensor(job=job)
    def sensor() -> dg.SkipReason:
        return dg.SkipReason("nothing")

    schedule = dg.ScheduleDefinition(job=job, cron_schedule="0 1 * * *")
    assert schedule.target.resolvable_to_job is job
    assert [target.resolvable_to_job for target in sensor.targets] == [job]
    assert list(schedule.target.assets_defs) == []


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_source_assets_observation_is_looked_up_when_it_becomes_an_op() -> None:
    @dg.observable_source_asset
    def source() -> dg.DataVersion:
        return dg.DataVersion("1")

    assert isinstance(source, dg.SourceAsset)
    ran: list[int] = []

    def instead() -> dg.DataVersion:
        ran.append(1)
        return dg.DataVersion("2")

    source.observe_fn = instead
    job = dg.Definitions(assets=[source]).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process().success
    assert ran == [1]


def test_every_way_to_load_an_input_of_a_step_goes_through_one_function() -> None:
    from dagster._core.execution.plan import inputs

    source = inspect.getsource(inputs)
    assert source.count("yield from _load_input_with_input_manager(") == 3
    # The function itself is the only other place that calls a manager.
    assert source.count(".load_input(") == 1


def test_what_a_function_attaches_can_be_taken_out_before_dagster_looks_at_it() -> None:
    taken: list[int] = []

    @dg.asset
    def made(context: dg.AssetExecutionContext) -> Iterator[object]:
        context.add_output_metadata({"output": 1, "kept": 1})
        context.add_asset_metadata({"asset": 1})
        step = current_step()
        assert step is not None
        taken.append(dagster_internals.keep_attached(step, {"result": {"kept": 1}}))
        yield dg.Output(1)

    (event,) = dg.materialize([made]).asset_materializations_for_node("made")
    assert (taken, set(event.metadata)) == ([2], {"kept", "path"})


def test_types_of_dagster_itself_report_no_values() -> None:
    for plain in (int, str, pd.DataFrame, dict[str, pd.DataFrame], list[int], pd.DataFrame | None, Any, None):
        assert not dagster_internals.reports_values(dg_type_of(plain)), plain
    own = dg.DagsterType(lambda _, __: True, "own")
    for reporting in (own, dg.List[own], dg.Optional[own]):
        assert dagster_internals.reports_values(dg_type_of(reporting))


def dg_type_of(annotation: Any) -> dg.DagsterType:
    from dagster._core.types.dagster_type import resolve_dagster_type

    return resolve_dagster_type(annotation)


def test_a_run_knows_the_code_location_that_it_was_started_from() -> None:
    from dagster._core import remote_origin

    assert "repository_origin" in remote_origin.RemoteJobOrigin.__annotations__
    assert "code_location_origin" in remote_origin.RemoteRepositoryOrigin.__annotations__
    assert hasattr(remote_origin.CodeLocationOrigin, "location_name")
    step: list[str] = []

    @dg.asset
    def made() -> None:
        current = current_step()
        assert current is not None
        step.append(dagster_internals.location_of(current))

    assert dg.materialize([made]).success
    assert step == [""]


def test_an_unknown_dagster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_dagster()
    for version in ("1.11.9", "1.14.0", "2.0.0"):
        monkeypatch.setattr(dg, "__version__", version)
        with pytest.raises(ConfigError, match=f"Dagster {version} is not known"):
            check_dagster()


def test_a_name_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._core.execution.plan import inputs

    with monkeypatch.context() as gone:
        gone.delattr(dg.OpDefinition, "compute_fn")
        with pytest.raises(ConfigError, match=r"OpDefinition\.compute_fn"):
            check_dagster()
    monkeypatch.delattr(inputs, "_load_input_with_input_manager")
    with pytest.raises(ConfigError, match=r"_load_input_with_input_manager"):
        check_dagster()


def test_every_context_reports_events_through_one_method(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(dg.OpExecutionContext, "log_event", lambda _, event: reported.append(event))
    event = dg.AssetObservation("released")

    @dg.asset
    def released(context: dg.AssetExecutionContext) -> None:
        context.log_event(event)

    @dg.asset
    def cleaned(context: dg.OpExecutionContext) -> None:
        context.log_event(event)

    assert dg.materialize([released, cleaned]).success
    assert reported == [event, event]
