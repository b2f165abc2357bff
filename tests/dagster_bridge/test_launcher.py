"""What becomes of a run at its launch: the real queue and daemon of Dagster, a scripted node, nothing started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comity.dagster_bridge.launcher import LAUNCH_S_MAX
from comity.node.client import StepAnswer, StepForm, continuation_of
from dagster_queue import Queue
from fake_node import FakeNode, deferred, execute, fake_home, refused, ungoverned
from launching import launching

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as running:
        running.governs("*/a", "*/b", "*/c", "*/other", "*/days", "*/left", "*/right", "*/one", "*/two")
        yield running


# What goes on


def test_a_permitted_run_is_handed_over_and_says_so(tmp_path: Path, node: FakeNode) -> None:
    with launching(tmp_path, node) as made:
        run = made.submit("a")
        made.turn()
        assert list(made.launched) == [run]
        assert made.status(run) == "STARTING"
        assert made.tags(run) == {"launch": "handed", "outcome": "execute"}
        ((message, metadata),) = made.told(run)
        assert message == "Comity: permitted"
        assert metadata["comity/outcome"] == "execute"


def test_a_run_that_no_policy_speaks_of_asks_nobody(tmp_path: Path, node: FakeNode) -> None:
    with launching(tmp_path, node) as made:
        free, plain = made.submit("free"), made.submit(job="plain")
        made.turn()
        assert sorted(made.launched) == sorted([free, plain])
        assert node.launches == []
        assert [made.told(run) for run in (free, plain)] == [[], []]


def test_steps_with_their_inputs_are_asked_for_and_later_ones_explained(
    tmp_path: Path, node: FakeNode
) -> None:
    with launching(tmp_path, node) as made:
        made.submit("a", "b", "c", "other")
        made.turn()
        (form,) = node.launches
        assert [unit.step for unit in form.steps] == ["a", "other"]
        assert [unit.step for unit in form.later] == ["b", "c"]
        # What reaches them from outside: nothing, for the run makes all that they read.
        assert [unit.inputs for unit in form.later] == [[], []]


def test_what_a_run_reads_from_outside_is_an_input(tmp_path: Path, node: FakeNode) -> None:
    with launching(tmp_path, node) as made:
        made.submit("b", "c")
        made.turn()
        (form,) = node.launches
        assert [(unit.step, [each.asset for each in unit.inputs]) for unit in form.steps] == [("b", ["a"])]
        assert [(unit.step, [each.asset for each in unit.inputs]) for unit in form.later] == [("c", ["a"])]


# What waits


def test_a_deferred_run_is_held_and_says_for_what(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["a"] = deferred
    with launching(tmp_path, node) as made:
        run = made.submit("a")
        made.turn()
        assert made.status(run) == "QUEUED"
        tags = made.tags(run)
        assert (tags["hold"], tags["outcome"], tags["needs"]) == (
            "held",
            "defer",
            "an approval by health/dpo",
        )
        assert tags["intent"] == b"a".hex().ljust(64, "0")
        before = made.events(run)
        made.turn(5)
        # Nothing is written while it waits, and it takes no place of others.
        assert made.events(run) == before
        other = made.submit("other")
        made.turn()
        assert list(made.launched) == [other]


def test_a_held_run_takes_no_place_in_the_queue(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["a"] = deferred
    with launching(tmp_path, node, queue={"max_concurrent_runs": 1}) as made:
        made.submit("a")
        made.turn()
        other = made.submit("other")
        made.turn()
        assert list(made.launched) == [other]


def test_a_held_run_is_released_by_itself(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["a"] = deferred
    with launching(tmp_path, node) as made:
        run = made.submit("a")
        made.turn()
        node.decisions["a"] = execute
        made.turn()
        assert list(made.launched) == [run]
        assert made.tags(run)["hold"] == "released"
        ((message, _),) = made.told(run)
        assert message == "Comity: permitted"


def test_a_held_run_outlives_its_daemon_and_its_node(tmp_path: Path) -> None:
    with fake_home() as home:
        with FakeNode(home, {"a": deferred}, execute).running() as node:
            node.governs("*/a")
            with launching(tmp_path, node) as made:
                run = made.submit("a")
                made.turn()
        with launching(tmp_path, node) as made:
            made.turn(3)
            assert made.status(run) == "QUEUED"
            with FakeNode(home, {}, execute, runs=node.runs).running():
                made.turn()
                assert list(made.launched) == [run]


def test_a_held_run_can_be_cancelled_and_says_for_what_it_waited(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["a"] = deferred
    with launching(tmp_path, node) as made:
        run = made.submit("a")
        made.turn()
        made.instance.run_coordinator.cancel_run(run)
        assert made.status(run) == "CANCELED"
        ((message, metadata),) = made.told(run)
        assert message == "Cancelled while held. Comity: held; it needs: an approval by health/dpo"
        votes = metadata["comity/votes"]
        assert votes == [{"step": "a", "member": "clinic-south.example", "vote": "defer"}]
        made.turn()
        assert list(made.launched) == []


def test_a_run_is_held_no_longer_than_its_limit(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["a"] = deferred
    with launching(tmp_path, node, launcher={"hold_max_s": 100}) as made:
        run = made.submit("a")
        made.turn()
        since = int(made.tags(run)["held_since"])
        made.coordinator.look(since + 100)
        assert made.status(run) == "QUEUED"
        made.coordinator.look(since + 101)
        assert made.status(run) == "FAILURE"
        assert made.told(run)[0][0].startswith("Held for 100 s, which is as long as a run is held.")
        made.turn()
        assert list(made.launched) == []


def test_a_node_that_is_down_holds_what_it_may_govern(tmp_path: Path) -> None:
    with fake_home() as home:
        node = FakeNode(home, {}, execute)
        node.governs("*/a")
        with launching(tmp_path, node) as made:
            run, free = made.submit("a"), made.submit("free")
            made.turn()
            assert list(made.launched) == [free]
            assert (made.status(run), made.tags(run)["reason"]) == ("QUEUED", "node_not_running")
            with node.running():
                made.turn()
                # Its node knows nothing of it yet: it is asked for after a pause.
                assert made.status(run) == "QUEUED"
                made.coordinator.look(int(made.tags(run)["asked_at"]) + 11)
                made.turn()
                assert list(made.launched) == [free, run]


def test_needs_that_change_are_told_while_a_run_waits(tmp_path: Path, node: FakeNode) -> None:
    from dataclasses import replace

    from comity.node.client import TermForm

    node.decisions["a"] = deferred
    with launching(tmp_path, node) as made:
        run = made.submit("a")
        made.turn()
        node.decisions["a"] = lambda form: replace(deferred(form), needs=[TermForm("tier", message="tier 1")])
        made.turn()
        assert made.tags(run)["needs"] == "tier 1"


def test_a_code_location_acts_under_its_own_credential_unless_somebody_asks(
    tmp_path: Path, node: FakeNode
) -> None:
    line = (
        f'govern(defs, home="{node.home}", purpose="care", code_root="{tmp_path}", credential="{"c1" * 32}")'
    )
    with launching(tmp_path, node, line) as made:
        made.submit("a")
        made.submit("a", tags={"comity/ticket": "dGlja2V0"})
        made.turn()
        named = sorted((form.credential, form.ticket) for form in node.launches)
        assert named == [("", "dGlja2V0"), ("c1" * 32, "")]


# What ends


def test_a_refused_run_fails_with_its_causes_and_is_not_tried_again(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["a"] = refused
    retries: dict[str, Any] = {"run_retries": {"enabled": True, "max_retries": 3}}
    with launching(tmp_path, node, **retries) as made:
        run = made.submit("a")
        made.turn()
        assert made.status(run) == "FAILURE"
        assert made.run(run).tags["dagster/will_retry"] == "false"
        tags = made.tags(run)
        assert (tags["outcome"], tags["reason"]) == ("refuse", "purpose_not_allowed")
        ((message, metadata),) = made.told(run)
        assert message == "Comity: refused: the purpose is not allowed"
        rows = metadata["comity/table"]
        assert rows == [
            {
                "step": "a",
                "outcome": "refuse",
                "code": "purpose_not_allowed",
                "rule": "p1",
                "meaning": "the purpose is not allowed",
            }
        ]
        assert {row["member"] for row in metadata["comity/votes"]} == {
            "clinic-south.example",
            "board.example",
        }
        assert list(made.launched) == []


def test_definitions_that_nobody_governed_make_nothing_governed(tmp_path: Path, node: FakeNode) -> None:
    with launching(tmp_path, node, "pass") as made:
        run, free = made.submit("a"), made.submit("free")
        made.turn()
        assert list(made.launched) == [free]
        assert (made.status(run), made.tags(run)["reason"]) == ("FAILURE", "definitions_not_governed")


def test_definitions_governed_in_two_ways_ask_at_their_steps(tmp_path: Path, node: FakeNode) -> None:
    line = (
        f'one = govern(dg.Definitions(assets=[a]), home="{node.home}", purpose="care", code_root="{tmp_path}")\n'
        f'two = govern(dg.Definitions(assets=[other]), home="{node.home}", purpose="study", code_root="{tmp_path}")\n'
        "defs = dg.Definitions.merge(one, two)"
    )
    with launching(tmp_path, node, line) as made:
        run = made.submit("a")
        made.turn()
        assert (list(made.launched), node.launches) == ([run], [])


def test_a_run_that_is_cancelled_while_the_members_vote_is_not_launched(
    tmp_path: Path, node: FakeNode
) -> None:
    with launching(tmp_path, node) as made:
        run = made.submit("a")

        def cancelled(form: StepForm) -> StepAnswer:
            made.instance.report_run_canceled(made.run(run))
            return execute(form)

        node.decisions["a"] = cancelled
        made.turn()
        assert (made.status(run), list(made.launched)) == ("CANCELED", [])


def test_a_launch_that_took_so_long_that_another_one_began_does_nothing(
    tmp_path: Path, node: FakeNode
) -> None:
    with launching(tmp_path, node) as made:
        run = made.submit("a")

        def overtaken(form: StepForm) -> StepAnswer:
            made.instance.add_run_tags(run, {"comity/launch": "deciding 0123456789abcdef"})
            return execute(form)

        node.decisions["a"] = [overtaken, execute]
        made.turn()
        assert (made.status(run), list(made.launched)) == ("STARTING", [])
        # Where the other one is no more either, it begins anew.
        made.coordinator.look(time.time() + LAUNCH_S_MAX + 1)
        made.turn()
        assert list(made.launched) == [run]


def test_what_is_too_large_for_one_intent_ends_with_a_reason(
    tmp_path: Path, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comity.dagster_bridge import asset_facts

    monkeypatch.setattr(asset_facts, "ITEMS_MAX", 3)
    with launching(tmp_path, node) as made:
        run = made.submit("days", partition="mon", last="thu")
        made.turn()
        assert (made.status(run), made.tags(run)["reason"]) == ("FAILURE", "facts_invalid")
        assert "run it in smaller ranges" in made.told(run)[0][0]


def test_an_answer_that_is_not_for_each_step_holds_the_run(tmp_path: Path, node: FakeNode) -> None:
    with launching(tmp_path, node) as made:
        run = made.submit("a")
        node.raw = b'{"steps": [], "later": []}'
        made.turn()
        assert (made.status(run), made.tags(run)["reason"]) == ("QUEUED", "answer_invalid")


@pytest.mark.parametrize(
    "tags",
    [
        {"comity/hold": "held"},
        {"comity/hold": "held", "comity/held_since": "never", "comity/asked_at": "9" * 400},
        {"comity/launch": "handed"},
        {"comity/outcome": "execute", "comity/reason": "x" * 10_000},
    ],
)
def test_tags_that_somebody_else_wrote_decide_nothing(
    tmp_path: Path, node: FakeNode, tags: dict[str, str]
) -> None:
    node.decisions["a"] = refused
    with launching(tmp_path, node) as made:
        run = made.submit("a", tags=tags)
        made.turn()
        made.coordinator.look(time.time() + 30)
        made.turn()
        assert (made.status(run), list(made.launched)) == ("FAILURE", [])


def test_a_time_in_the_future_holds_no_run_for_ever(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["a"] = deferred
    with launching(tmp_path, node, launcher={"hold_max_s": 100}) as made:
        run = made.submit("a", tags={"comity/hold": "held", "comity/held_since": "99999999999"})
        made.turn()
        made.coordinator.look(time.time() + 200)
        assert made.status(run) == "FAILURE"


def test_a_run_that_says_it_goes_on_for_another_is_looked_at(tmp_path: Path, node: FakeNode) -> None:
    """The node knows which runs do; here it is handed what the tag says."""
    with launching(tmp_path, node) as made:
        made.submit("a", tags={"comity/continues": "another"})
        made.turn()
        assert [form.continues for form in node.launches] == ["another"]


# What is narrowed


def narrowed(made: Queue, run: str) -> list[str]:
    assert made.status(run) == "CANCELED"
    return made.tags(run)["narrowed_to"].split(", ")


def test_a_refused_asset_is_left_out_with_all_that_reads_it(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["a"] = refused
    with launching(tmp_path, node) as made:
        run = made.submit("a", "b", "c", "other", tags={"team": "x", "comity/ticket": ""})
        made.turn()
        (child,) = narrowed(made, run)
        assert child == continuation_of(run)
        found = made.run(child)
        assert found.asset_selection is not None
        assert {key.to_user_string() for key in found.asset_selection} == {"other"}
        assert (found.parent_run_id, found.root_run_id, found.tags["team"]) == (run, run, "x")
        assert made.tags(child) == {"continues": run, "ticket": ""}
        made.turn()
        assert list(made.launched) == [child]
        assert [(form.run, form.continues) for form in node.launches] == [(run, ""), (child, run)]
        ((_, metadata),) = made.told(run)
        assert metadata["comity/run_0"] == child


def test_what_is_foreseen_to_be_refused_is_not_begun(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["b"] = refused
    with launching(tmp_path, node) as made:
        run = made.submit("a", "b", "c")
        made.turn()
        (child,) = narrowed(made, run)
        selection = made.run(child).asset_selection
        assert selection is not None
        assert {key.to_user_string() for key in selection} == {"a"}
        rows = made.told(run)[0][1]["comity/table"]
        assert [(row["step"], row["outcome"]) for row in rows] == [
            ("a", "execute"),
            ("b", "refuse (foreseen)"),
            ("c", "execute (foreseen)"),
        ]


def test_a_deferral_that_is_foreseen_keeps_nothing_back(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["b"] = deferred
    with launching(tmp_path, node) as made:
        run = made.submit("a", "b")
        made.turn()
        assert list(made.launched) == [run]


def only(*slots: tuple[str, str]) -> Any:
    def decide(form: Any) -> Any:
        from dataclasses import replace

        answer = execute(form)
        kept = [each for each in answer.outputs if (each.asset.partition("/")[2], each.partition) in slots]
        return replace(answer, outcome="restrict", outputs=kept)

    return decide


def test_a_range_of_partitions_is_made_in_its_permitted_parts(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["days"] = [only(("days", "mon"), ("days", "wed"), ("days", "thu")), execute]
    with launching(tmp_path, node) as made:
        run = made.submit("days", partition="mon", last="thu")
        made.turn()
        first, second = narrowed(made, run)
        tags = made.run(first).tags
        assert (tags["dagster/partition"], "dagster/asset_partition_range_start" in tags) == ("mon", False)
        tags = made.run(second).tags
        found = tuple(tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))
        assert found == ("wed", "thu")
        made.turn()
        assert sorted(made.launched) == sorted([first, second])
        asked = [[each.partition for each in form.steps[0].outputs] for form in node.launches]
        assert sorted(asked) == [["mon"], ["mon", "tue", "wed", "thu"], ["wed", "thu"]]


def test_assets_that_are_made_together_are_made_together_or_not(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["whole"] = only(("left", ""))
    node.decisions["parts"] = only(("one", ""))
    with launching(tmp_path, node) as made:
        run = made.submit("left", "right", "one", "two")
        made.turn()
        (child,) = narrowed(made, run)
        selection = made.run(child).asset_selection
        assert selection is not None
        assert {key.to_user_string() for key in selection} == {"one"}


def test_a_narrowed_run_may_be_narrowed_again(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["a"] = refused
    with launching(tmp_path, node) as made:
        run = made.submit("a", "other", "one", "two")
        made.turn()
        (child,) = narrowed(made, run)
        node.decisions["other"] = refused
        made.turn()
        (grandchild,) = narrowed(made, child)
        assert grandchild == continuation_of(run, 1)
        assert made.tags(grandchild)["continues"] == run


# Without the queue


def test_without_the_queue_a_deferred_run_ends_and_says_so(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["a"] = deferred
    coordinator = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    with launching(tmp_path, node, run_coordinator=coordinator) as made:
        run = made.submit("a")
        assert made.status(run) == "FAILURE"
        ((message, _),) = made.told(run)
        assert message == "Comity: held; it needs: an approval by health/dpo"


def test_ungoverned_units_of_a_governed_run_go_along(tmp_path: Path, node: FakeNode) -> None:
    node.decisions["free"] = ungoverned
    node.decisions["a"] = refused
    with launching(tmp_path, node) as made:
        run = made.submit("a", "free")
        made.turn()
        (child,) = narrowed(made, run)
        selection = made.run(child).asset_selection
        assert selection is not None
        assert {key.to_user_string() for key in selection} == {"free"}
