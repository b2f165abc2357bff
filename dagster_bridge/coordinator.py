"""The queue of governed runs: what is held stays in it, takes no place, and is released by itself.

Dagster's daemon reads the queue's configuration at each of its rounds. So that is when held runs are looked at, and
when runs are found whose launch was interrupted. All of it may be done by several processes and at any time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from comity.dagster_bridge.dagster_instance import (
    DagsterRun,
    QueuedRunCoordinator,
    RunQueueConfig,
    RunRecord,
    WorkerStatus,
    enqueue_again,
    fail,
    fail_interrupted,
    queued_runs,
    starting_runs,
    tell,
    with_hold,
)
from comity.dagster_bridge.launch_decision import Decision, Said
from comity.dagster_bridge.launch_report import (
    ASKED_AT_TAG,
    HELD,
    HELD_SINCE_TAG,
    HOLD_TAG,
    LAUNCH_TAG,
    NEEDS_TAG,
    REASON_TAG,
    RELEASED,
    hold_tags,
    table_of,
    words_of,
)
from comity.dagster_bridge.launcher import HANDED, LAUNCH_S_MAX, GovernedRunLauncher
from comity.dagster_bridge.narrowing import first_of
from comity.node.client import RUNS_ASKED_MAX, NodeError, RunStanding, StandingsForm, TermForm
from comity.protocol.errors import ConfigError

LOOK_EVERY_S: Final = 1.0
"""Held runs are looked at so often at most, however often the queue is read."""
ASK_AGAIN_S_MIN: Final = 10
ASK_AGAIN_S_MAX: Final = 600
"""A held run of which the node has no intent (it was down, or an input is missing) is launched again after a pause that
grows with the time that it waits."""
CLOCKS_DIFFER_S: Final = 60
"""Between the machines of a daemon and a webserver."""
NEVER: Final = -1
_DIGITS_MAX: Final = 12

STARTING_MAX: Final = 256
"""Runs of which one look finds out whether their launch was interrupted."""


class GovernedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, with the runs in it that wait for a decision. Its configuration is that of the queue."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._looked_at = float("-inf")
        self._cursor: str | None = None

    def get_run_queue_config(self) -> RunQueueConfig:
        """Dagster's own, by which held runs stay in the queue. Looks at those first."""
        now = time.monotonic()
        if self.has_instance and now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self.look(time.time())
        return with_hold(super().get_run_queue_config(), HOLD_TAG, HELD)

    def look(self, now: float) -> None:
        """Release what is decided, end what is held for too long, and put back what an interrupted launch left.

        Args:
            now: seconds since 1970.
        """
        launcher = self._launcher()
        if launcher is None:
            return
        self._look_at_held(launcher, now)
        for record in starting_runs(self._instance, STARTING_MAX):
            self._look_at_starting(launcher, record, now)

    def cancel_run(self, run_id: str) -> bool:
        """Cancel a run. Of one that is held its log says for what it waited."""
        run = self._instance.get_run_by_id(run_id)
        if run is not None and run.status == dg.DagsterRunStatus.QUEUED and run.tags.get(HOLD_TAG) == HELD:
            launcher = self._launcher()
            standing = _standings(launcher, [run]).get(run_id) if launcher is not None else None
            decision = _decision(run, standing)
            tell(
                self._instance,
                run,
                f"Cancelled while held. {words_of(decision)}",
                table_of(decision),
                type(self),
            )
        return super().cancel_run(run_id)

    def _launcher(self) -> GovernedRunLauncher | None:
        launcher: object = self._instance.run_launcher
        return launcher if isinstance(launcher, GovernedRunLauncher) else None

    # Held runs

    def _look_at_held(self, launcher: GovernedRunLauncher, now: float) -> None:
        runs = queued_runs(self._instance, {HOLD_TAG: HELD}, RUNS_ASKED_MAX, self._cursor)
        # A page at each look, and then from the beginning: no held run is so far behind that nobody looks at it.
        self._cursor = runs[-1].run_id if len(runs) == RUNS_ASKED_MAX else None
        if not runs:
            return
        standings = _standings(launcher, runs)
        for run in runs:
            self._look_at(launcher, run, standings.get(run.run_id), now)

    def _look_at(
        self, launcher: GovernedRunLauncher, run: DagsterRun, standing: RunStanding | None, now: float
    ) -> None:
        since = _time_of(run, HELD_SINCE_TAG, now, NEVER)
        if since == NEVER:
            # Nobody of ours held it: from now on it is held, and asked for.
            since = int(now)
            tags = {HELD_SINCE_TAG: str(since), ASKED_AT_TAG: str(since)}
            self._instance.add_run_tags(run.run_id, tags)
            return
        if now - since > launcher.hold_max_s:
            decision = _decision(run, standing)
            message = (
                f"Held for {launcher.hold_max_s} s, which is as long as a run is held. {words_of(decision)}"
            )
            self._instance.add_run_tags(run.run_id, {HOLD_TAG: RELEASED})
            tell(self._instance, run, message, table_of(decision), type(self))
            fail(self._instance, run, message)
        elif standing is None:
            return
        elif standing.standing == "decided" or (standing.standing == "unknown" and _is_due(run, since, now)):
            self._instance.add_run_tags(run.run_id, {HOLD_TAG: RELEASED})
        elif standing.standing == "waits":
            tags = hold_tags(_decision(run, standing), str(since))
            if any(run.tags.get(key) != value for key, value in tags.items()):
                self._instance.add_run_tags(run.run_id, tags)

    # Interrupted launches

    def _look_at_starting(self, launcher: GovernedRunLauncher, record: RunRecord, now: float) -> None:
        """Find out whether a run was taken out of the queue by a process that has ended since."""
        run = record.dagster_run
        age = now - record.update_timestamp.timestamp()
        if run.tags.get(LAUNCH_TAG) != HANDED:
            if age > LAUNCH_S_MAX:
                message = "Comity: the launch of this run was interrupted; it begins again"
                tell(self._instance, run, message, {}, type(self))
                enqueue_again(self._instance, run)
            return
        if age <= LAUNCH_S_MAX:
            return
        if launcher.supports_check_run_worker_health:
            health = launcher.check_run_worker_health(run)
            lost = health.status in (WorkerStatus.NOT_FOUND, WorkerStatus.FAILED)
        else:
            lost = age > launcher.start_max_s
        if lost:
            fail_interrupted(
                self._instance, run, "Comity: the run was launched, and no process of it has begun"
            )


def _standings(launcher: GovernedRunLauncher, runs: list[DagsterRun]) -> Mapping[str, RunStanding]:
    """By run, where it stands at the node; nothing where the node cannot be asked."""
    named = {first_of(run): run.run_id for run in runs}
    try:
        answers = launcher.client().standings(StandingsForm(sorted(named)))
    except (NodeError, ConfigError):
        return {}
    return {named[answer.run]: answer for answer in answers if answer.run in named}


def _time_of(run: DagsterRun, tag: str, now: float, otherwise: int) -> int:
    """A time in a tag, which anybody may have written: one that is none, or in the future, is not believed."""
    text = run.tags.get(tag, "")
    if (
        not text.isascii()
        or not text.isdigit()
        or len(text) > _DIGITS_MAX
        or int(text) > now + CLOCKS_DIFFER_S
    ):
        return otherwise
    return int(text)


def _is_due(run: DagsterRun, since: int, now: float) -> bool:
    """Whether a run that nothing is known of is launched again: after pauses that grow with the time that it waits."""
    pause = min(max(ASK_AGAIN_S_MIN, (now - since) / 2), ASK_AGAIN_S_MAX)
    return now - _time_of(run, ASKED_AT_TAG, now, since) >= pause


def _decision(run: DagsterRun, standing: RunStanding | None) -> Decision:
    """What is known of a held run: what the node says now, or what was said when it was held."""
    if standing is not None and standing.steps:
        return Decision("hold", tuple(Said(step, said) for step, said in sorted(standing.steps.items())))
    said = TermForm(run.tags.get(REASON_TAG, "undecided"), message=run.tags.get(NEEDS_TAG, ""))
    return Decision("hold", causes=(said,))
