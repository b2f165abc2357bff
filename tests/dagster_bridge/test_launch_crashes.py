"""A process that ends between any two steps of a launch leaves no run about which nobody decides any more."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from comity.dagster_bridge.launcher import LAUNCH_S_MAX
from comity.node.client import continuation_of
from dagster_queue import Queue
from fake_node import FakeNode, deferred, execute, fake_home, refused
from launching import launching
from recording_launcher import RecordingLauncher

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

BOUNDARIES = (
    "add_run_tags",
    "create_run",
    "submit_run",
    "report_engine_event",
    "report_dagster_event",
    "report_run_canceled",
    "report_run_failed",
)
"""What a launch does to an instance; and it calls the inner launcher."""


class Died(BaseException):
    """The process ended here."""


class Mortal:
    """Ends the process before or after the call of that number."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after
        self.died = False

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            here = self.left == 0
            if here and not self.after:
                self.died = True
                raise Died
            result = function(*args, **kwargs)
            if here:
                self.died = True
                raise Died
            return result

        return called


def kill_in(monkeypatch: pytest.MonkeyPatch, made: Queue, mortal: Mortal) -> None:
    for name in BOUNDARIES:
        monkeypatch.setattr(made.instance, name, mortal.around(getattr(made.instance, name)))
    monkeypatch.setattr(RecordingLauncher, "launch_run", mortal.around(RecordingLauncher.launch_run))


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as running:
        running.governs("*/a", "*/b", "*/c", "*/other")
        yield running


def settle(made: Queue, *, node: FakeNode) -> None:
    """What the daemon does from then on, over more time than anything waits."""
    node.decisions.pop("held", None)
    later = time.time() + LAUNCH_S_MAX + 1
    for ahead in (0.0, LAUNCH_S_MAX, made.launcher.start_max_s + 1, made.launcher.start_max_s + LAUNCH_S_MAX):
        made.coordinator.look(later + ahead)
        made.turn()


Scenario = Callable[[FakeNode], list[str]]


def permitted(node: FakeNode) -> list[str]:
    return ["a", "other"]


def refused_whole(node: FakeNode) -> list[str]:
    node.decisions["a"] = refused
    return ["a"]


def in_part(node: FakeNode) -> list[str]:
    node.decisions["a"] = refused
    return ["a", "other"]


def held_and_released(node: FakeNode) -> list[str]:
    node.decisions["a"] = [deferred, execute]
    return ["a"]


ENDS: dict[Scenario, set[tuple[str, int]]] = {
    permitted: {("STARTING", 1), ("FAILURE", 0), ("FAILURE", 1)},
    refused_whole: {("FAILURE", 0)},
    # The run of the permitted part may have been handed over as the process ended: then that one failed.
    in_part: {("CANCELED", 1), ("CANCELED", 0)},
    held_and_released: {("STARTING", 1), ("FAILURE", 0), ("FAILURE", 1)},
}
"""By scenario, how the run may end, and how often something of it was launched."""


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scenario", list(ENDS), ids=lambda scenario: scenario.__name__)
def test_no_run_is_left_in_limbo(
    tmp_path: Path,
    node: FakeNode,
    scenario: Scenario,
    after: bool,  # noqa: FBT001  drawn by pytest
) -> None:
    ended: set[tuple[str, int]] = set()
    at = 0
    while True:
        at += 1
        place = tmp_path / str(at)
        place.mkdir()
        node.decisions.clear()
        assets = scenario(node)
        mortal = Mortal(at, after=after)
        with launching(place, node) as made:
            run = made.submit(*assets)
            with pytest.MonkeyPatch.context() as patch:
                kill_in(patch, made, mortal)
                with contextlib.suppress(Died):
                    made.turn(3)
            settle(made, node=node)
            launched = list(made.launched)
            end = (made.status(run), len(launched))
            assert end in ENDS[scenario], (at, end, made.tags(run), made.events(run))
            waiting = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]
            left = made.instance.get_runs(dg.RunsFilter(statuses=waiting))
            assert [(each.run_id, each.status) for each in left] == [], at
            assert len(launched) == len(set(launched)), at
            starting = made.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING]))
            assert {each.run_id for each in starting} <= set(launched), at
            if scenario is in_part:
                assert made.instance.get_run_by_id(continuation_of(run)) is not None
            ended.add(end)
        if not mortal.died:
            break
    assert at > 6
    assert max(times for _, times in ended) == max(times for _, times in ENDS[scenario])
