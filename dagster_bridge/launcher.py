"""The gate before a run: a launcher that asks the node, and gives what is permitted to the launcher that it wraps.

Each step before the inner launcher is called can be done twice: whoever ends in the middle leaves a run that the
coordinator puts back into the queue, and the launch begins anew (`coordinator`).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import dagster as dg

from comity.dagster_bridge.dagster_instance import (
    ANY_CONFIG,
    CheckRunHealthResult,
    ConfigurableClass,
    ConfigurableClassData,
    DagsterRun,
    Field,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    enqueue_again,
    fail,
    inner_launcher,
    repository_of,
    shape,
    tell,
)
from comity.dagster_bridge.gate import HOME_VARIABLE
from comity.dagster_bridge.gate_facts import GateFacts, SeveralGatesError, gate_facts
from comity.dagster_bridge.governed_assets import read_governed_assets
from comity.dagster_bridge.launch_decision import Decision, decide, held, refused
from comity.dagster_bridge.launch_facts import LaunchFacts, launch_facts
from comity.dagster_bridge.launch_report import (
    ASKED_AT_TAG,
    HELD,
    HELD_SINCE_TAG,
    HOLD_TAG,
    LAUNCH_TAG,
    NARROWED_TAG,
    RELEASED,
    decided_tags,
    hold_tags,
    table_of,
    words_of,
)
from comity.dagster_bridge.narrowing import create_parts, parts_of
from comity.dagster_bridge.step_facts import CONTINUES_TAG, TICKET_TAG
from comity.node.client import (
    AnswerInvalidError,
    FormInvalidError,
    LaunchForm,
    NodeClient,
    NodeError,
    NotFoundError,
    NotPermittedError,
    TermForm,
)
from comity.protocol.errors import ConfigError

if TYPE_CHECKING:
    from comity.dagster_bridge.dagster_instance import Workspace
    from comity.dagster_bridge.dagster_internals import AssetGraph

ASK_WAIT_S: Final = 4.0
"""How long a launch waits for decisions: members that are up have voted by then. The others hold the run."""
ASK_TIMEOUT_S: Final = 10.0
"""How long a node may take beyond that. The queue's daemon launches one run after the other."""
LAUNCH_S_MAX: Final = 60.0
"""So long after it was taken out of the queue, a run that was not handed over is nobody's. A launch that is slower than
that finds that it is not its own any more."""

DECIDING: Final = "deciding"
HANDED: Final = "handed"
"""How the tag of a launch begins: it is being decided, by whom; it was given to the inner launcher."""

_RECURRING: Final = (
    "dagster/schedule_name",
    "dagster/sensor_name",
    "dagster/from_automation_condition",
)
"""Tags of runs that nobody started by hand. No evidence: they make that less is asked, never that more is allowed."""

_INNER: Final[Mapping[str, Any]] = {"module": "dagster", "class": "DefaultRunLauncher", "config": {}}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a launch asked with: to narrow a run, the facts and the graph are needed again."""

    decision: Decision
    facts: LaunchFacts | None = None
    graph: AssetGraph | None = None


class GovernedRunLauncher(RunLauncher[Any], ConfigurableClass):
    """Puts the node's decision before every run, and wraps any launcher.

    In `dagster.yaml`:

        run_launcher: {module: comity.dagster_bridge, class: GovernedRunLauncher}
        run_coordinator: {module: comity.dagster_bridge, class: GovernedRunCoordinator}

    Args:
        inner: the launcher of what is permitted.
        home: the home of this organization's node; otherwise COMITY_HOME.
        hold_max_s: how long a run may be held before it is ended.
        start_max_s: how long a run that was handed to the inner launcher may take to begin, where that launcher cannot
            tell how it is; then it is ended as failed.
    """

    def __init__(
        self,
        inner: RunLauncher[Any],
        home: Path | None = None,
        hold_max_s: int = 7 * 24 * 3_600,
        start_max_s: int = 600,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        self._inst_data = inst_data
        self._inner = inner
        self._home = home
        self.hold_max_s = hold_max_s
        self.start_max_s = start_max_s
        super().__init__()  # type: ignore[no-untyped-call]

    # How Dagster makes it

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        inner = {
            "module": Field(str, description="Module of the launcher of what is permitted."),
            "class": Field(str, description="Its class."),
            "config": Field(ANY_CONFIG, is_required=False, description="Its configuration."),
        }
        return {
            "inner": Field(shape(inner), is_required=False, default_value=dict(_INNER)),
            "home": Field(
                dg.StringSource, is_required=False, description=f"Home of the node, if not {HOME_VARIABLE}."
            ),
            "hold_max_s": Field(
                dg.IntSource, is_required=False, description="Seconds that a run may be held. A week."
            ),
            "start_max_s": Field(
                dg.IntSource,
                is_required=False,
                description="Seconds in which a launched run begins. Ten minutes.",
            ),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        inner = config_value.get("inner", _INNER)
        home = config_value.get("home")
        limits = {name: config_value[name] for name in ("hold_max_s", "start_max_s") if name in config_value}
        return cls(
            inner_launcher(inner["module"], inner["class"], inner.get("config") or {}),
            home=Path(home) if home else None,
            inst_data=inst_data,
            **limits,
        )

    # What is passed on

    @property
    def inner(self) -> RunLauncher[Any]:
        return self._inner

    def register_instance(self, instance: Any) -> None:
        super().register_instance(instance)
        self._inner.register_instance(instance)

    def dispose(self) -> None:
        self._inner.dispose()

    def join(self, timeout: int = 30) -> None:
        self._inner.join(timeout)

    def terminate(self, run_id: str) -> bool:
        return self._inner.terminate(run_id)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return self._inner.supports_check_run_worker_health

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        return self._inner.check_run_worker_health(run)

    def get_run_worker_debug_info(
        self,
        run: DagsterRun,
        include_container_logs: bool | None = True,  # noqa: FBT001, FBT002  as Dagster has it
    ) -> str | None:
        return self._inner.get_run_worker_debug_info(run, include_container_logs=include_container_logs)

    @property
    def supports_resume_run(self) -> bool:
        return self._inner.supports_resume_run

    def resume_run(self, context: ResumeRunContext) -> None:
        """Let a run go on whose process ended: it was permitted, and each of its steps asks again when it begins."""
        self._inner.resume_run(context)

    # The gate

    def client(self) -> NodeClient:
        """The client of the node that is asked.

        Raises:
            ConfigError: no node is named, or its token cannot be read.
        """
        return NodeClient.of_home(self.home(), timeout_s=ASK_TIMEOUT_S)

    def home(self) -> Path:
        """The node's home.

        Raises:
            ConfigError: none is named.
        """
        named = str(self._home) if self._home is not None else os.environ.get(HOME_VARIABLE, "")
        if not named:
            raise ConfigError(
                f"no node is named: set {HOME_VARIABLE}, or `home` of the run launcher in dagster.yaml"
            )
        return Path(named)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Ask the node for a run, and launch it, hold it, narrow it or end it."""
        run = context.dagster_run
        instance = self._instance
        mark = f"{DECIDING} {secrets.token_hex(8)}"
        instance.add_run_tags(run.run_id, {LAUNCH_TAG: mark})
        asked = self._ask(run, context.workspace)
        decision = asked.decision
        current = instance.get_run_by_id(run.run_id)
        if current is None or current.status != dg.DagsterRunStatus.STARTING:
            # It was cancelled while the members voted.
            return
        if current.tags.get(LAUNCH_TAG) != mark:
            # This took so long that somebody else launches it now.
            return
        match decision.word:
            case "proceed":
                self._proceed(context, current, decision)
            case "narrow" if asked.facts is not None and asked.graph is not None and context.workspace:
                self._narrow(current, context.workspace, decision, asked.facts, asked.graph)
            case "hold":
                self._hold(current, decision)
            case _:
                self._refuse(current, decision)

    def _ask(self, run: DagsterRun, workspace: Workspace | None) -> _Asked:
        repository = repository_of(run, workspace)
        if repository is None:
            return _Asked(Decision("proceed"))
        graph: AssetGraph = repository.asset_graph
        try:
            gate = gate_facts(repository.repository_snap.metadata or {})
            facts = launch_facts(run, graph, self._instance, gate.stores if gate is not None else {})
        except SeveralGatesError:
            # Its steps know which gate is theirs.
            return _Asked(Decision("proceed"))
        except (ConfigError, dg.DagsterError) as exc:
            # A partition that is none, a partner's asset without a name, more than one intent holds.
            return _Asked(refused(TermForm("facts_invalid", message=_one_line(exc))))
        if facts is None:
            return _Asked(Decision("proceed"))
        return self._ask_for(run, gate, facts, graph)

    def _ask_for(
        self, run: DagsterRun, gate: GateFacts | None, facts: LaunchFacts, graph: AssetGraph
    ) -> _Asked:
        try:
            governed = read_governed_assets(self.home())
        except ConfigError as exc:
            return _Asked(held(TermForm("config_wrong", message=str(exc))))
        if governed is not None and not governed.name(facts.concerned):
            return _Asked(Decision("proceed"))
        if gate is None and governed is None:
            message = "the node has not said yet what is governed"
            return _Asked(held(TermForm("governed_list_missing", message=message)))
        if gate is None:
            message = "definitions that make governed assets are passed through govern(): these are not"
            return _Asked(refused(TermForm("definitions_not_governed", message=message)))
        if gate.asks_at_step:
            return _Asked(Decision("proceed"))
        return _Asked(self._decided(_form_of(run, gate, facts), facts), facts, graph)

    def _decided(self, form: LaunchForm, facts: LaunchFacts) -> Decision:
        try:
            answer = self.client().launch(form)
            if (len(answer.steps), len(answer.later)) != (len(form.steps), len(form.later)):
                raise AnswerInvalidError("the node has not answered for each step: it is of another version")
            return decide(facts, answer)
        except (NotPermittedError, FormInvalidError, NotFoundError) as exc:
            return refused(TermForm(exc.code, message=str(exc)))
        except NodeError as exc:
            # Nobody knows: nothing runs, and nothing is lost.
            return held(TermForm(exc.code, message=str(exc)))
        except ConfigError as exc:
            return held(TermForm("config_wrong", message=str(exc)))

    def _proceed(self, context: LaunchRunContext, run: DagsterRun, decision: Decision) -> None:
        tags = {LAUNCH_TAG: HANDED}
        if decision.said:
            tags |= decided_tags(decision)
            self._tell(run, decision)
        self._instance.add_run_tags(run.run_id, tags | _released(run))
        again = self._instance.get_run_by_id(run.run_id)
        self._inner.launch_run(LaunchRunContext(dagster_run=again or run, workspace=context.workspace))

    def _hold(self, run: DagsterRun, decision: Decision) -> None:
        from comity.dagster_bridge.coordinator import GovernedRunCoordinator

        if not isinstance(self._instance.run_coordinator, GovernedRunCoordinator):
            # Nobody would take it out of the queue again.
            self._end(run, decision, f"{words_of(decision)}. Launch it again when that has arrived")
            return
        now = str(int(time.time()))
        since = run.tags.get(HELD_SINCE_TAG) or now
        self._instance.add_run_tags(run.run_id, hold_tags(decision, since) | {ASKED_AT_TAG: now})
        enqueue_again(self._instance, run)

    def _refuse(self, run: DagsterRun, decision: Decision) -> None:
        self._end(run, decision, words_of(decision))

    def _end(self, run: DagsterRun, decision: Decision, message: str) -> None:
        self._instance.add_run_tags(run.run_id, decided_tags(decision) | _released(run))
        self._tell(run, decision)
        fail(self._instance, run, message)

    def _narrow(
        self,
        run: DagsterRun,
        workspace: Workspace,
        decision: Decision,
        facts: LaunchFacts,
        graph: AssetGraph,
    ) -> None:
        """End a run, and launch what may be made of it in runs that are linked to it."""
        parts = parts_of(facts, graph, decision.slots)
        created = create_parts(self._instance, run, workspace, parts)
        if not created:
            self._refuse(run, decision)
            return
        links = {
            f"comity/run_{number}": dg.MetadataValue.dagster_run(each) for number, each in enumerate(created)
        }
        self._instance.add_run_tags(
            run.run_id, decided_tags(decision) | _released(run) | {NARROWED_TAG: ", ".join(created)}
        )
        self._tell(run, decision, links)
        for each in created:
            # Before this run is ended: who ends in between begins this launch again, and finds them submitted.
            known = self._instance.get_run_by_id(each)
            if known is not None and known.status == dg.DagsterRunStatus.NOT_STARTED:
                self._instance.submit_run(each, workspace)
        self._instance.report_run_canceled(
            run, f"{words_of(decision)}. Run {', '.join(created)} makes what is permitted"
        )

    def _tell(self, run: DagsterRun, decision: Decision, more: Mapping[str, Any] | None = None) -> None:
        tell(self._instance, run, words_of(decision), table_of(decision) | dict(more or {}), type(self))


def _form_of(run: DagsterRun, gate: GateFacts, facts: LaunchFacts) -> LaunchForm:
    """What the node is asked for a run."""
    origin = run.remote_job_origin
    location = origin.repository_origin.code_location_origin.location_name if origin is not None else ""
    ticket = run.tags.get(TICKET_TAG, "")
    return LaunchForm(
        orchestrator="dagster",
        run=run.run_id,
        job=run.job_name,
        code=gate.code,
        steps=[unit.launched() for unit in facts.now],
        later=[unit.foreseen() for unit in facts.later],
        location=gate.location or location,
        revision=gate.revision,
        purpose=gate.purpose,
        credential="" if ticket else gate.credential,
        ticket=ticket,
        context=gate.context,
        continues=run.tags.get(CONTINUES_TAG, ""),
        recurring=any(run.tags.get(tag) for tag in _RECURRING),
        wait_s=ASK_WAIT_S,
    )


def _one_line(exc: Exception) -> str:
    """The first line of what an error says."""
    return str(exc).strip().partition("\n")[0][:500]


def _released(run: DagsterRun) -> dict[str, str]:
    """What is said of a run that was held and is no more."""
    return {HOLD_TAG: RELEASED} if run.tags.get(HOLD_TAG) == HELD else {}
