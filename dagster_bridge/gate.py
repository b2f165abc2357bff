"""The gate of a code location: it obtains a step's permit, once per step, for whoever asks first.

Dagster loads a step's inputs before it calls the step's function, so either may be first: an IO manager
that loads an input, or the function. Both ask the same gate, and the node sees one intent per run and unit
of work.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from comity.dagster_bridge.dagster_internals import ComputeWatch, StepExecutionContext, current_step
from comity.dagster_bridge.failures import (
    INTENT_SHOWN,
    StepRefused,
    not_permitted,
    refused_locally,
    unanswered,
    unavailable,
    waits_for,
)
from comity.dagster_bridge.governed_assets import read_governed_assets
from comity.dagster_bridge.governed_step import GovernedStep, Unbound
from comity.dagster_bridge.measurement import CodeMeasurement, measure_context
from comity.dagster_bridge.onlooker import Onlooker
from comity.dagster_bridge.requester import Requester, TicketFacts, encoded_ticket
from comity.dagster_bridge.step_facts import StepFacts, step_facts
from comity.dagster_bridge.stores import NO_STORES, Stores
from comity.node.client import (
    NodeClient,
    NodeError,
    NodeUnreachableError,
    StepAnswer,
    StepForm,
    TermForm,
)
from comity.protocol.errors import ConfigError

HOME_VARIABLE: Final = "COMITY_HOME"
"""Environment variable: the home of this organization's node."""

NO_RETRY_TAG: Final = "dagster/retry_on_asset_or_op_failure"
"""Dagster's own: whether its daemon may start a run again after a step of it has failed."""

WAIT_SLICE_S: Final = 20.0
"""How long one request to the node waits: short enough that an interrupted run ends soon."""
WAIT_MAX_S: Final = 3_600.0
"""How long a step may wait for a decision. Longer holds a worker for nothing: run it again."""
FIRST_WAIT_S: Final = 5.0
"""How long the first answer is waited for: members that are up have voted by then."""
PAUSE_S_MIN: Final = 0.25
PAUSE_S_MAX: Final = 5.0
"""Between two questions about a deferred intent, where the node answers at once instead of waiting."""
STEPS_MAX: Final = 1_024
"""Steps whose answers one process remembers; an in-process run has some hundred."""


@dataclass(frozen=True, slots=True)
class GateOptions:
    """How a code location asks. Made by `govern`."""

    code: CodeMeasurement
    home: Path | None = None
    socket: Path | None = None
    token: str = ""
    purpose: str = ""
    credential: str = ""
    requester: Requester | None = None
    location: str = ""
    revision: str = ""
    wait_max_s: float = 60.0
    unbound: Unbound = field(default_factory=Unbound)
    stores: Stores = field(default_factory=lambda: NO_STORES, compare=False)
    """What the stores of assets can do. The same op may be governed as a part of several definitions."""


@dataclass(slots=True)
class _Entry:
    """What is known of one step. The lock lets one thread ask while the others wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: bool = False
    stated: frozenset[str] = frozenset()
    step: GovernedStep | None = None


class Gate:
    """Stands before every step of a code location. Implements `ComputeGate`."""

    def __init__(
        self,
        options: GateOptions,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0.0 <= options.wait_max_s <= WAIT_MAX_S:
            raise ConfigError(f"wait_max_s is {options.wait_max_s:g}, not from 0 to {WAIT_MAX_S:g} seconds")
        self.options = options
        self._pause = pause
        self._clock = clock
        self._client: NodeClient | None = None
        self._tickets: OrderedDict[str, str] = OrderedDict()
        self._entries: OrderedDict[tuple[str, str, int], _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def enter(self) -> ComputeWatch | None:
        """Let the current step's function run.

        Raises:
            GovernanceFailure: it may not.
        """
        context = current_step()
        if context is None:
            return None
        step = self.step(context)
        if step is None:
            return Onlooker(context, self.names)
        return step.begin(context) or Onlooker(context, self.names, step.answer, step.checks)

    def reported(self, context: StepExecutionContext, event: object) -> object:
        """What Dagster may see of an event that a step's function reports through its context.

        Raises:
            GovernanceFailure: nothing.
        """
        step = self.step(context)
        if step is not None and step.judged:
            return step.watch(context).look(event)
        return Onlooker(context, self.names, step.answer if step is not None else None).look(event)

    def before_loading(self, manager: object, context: StepExecutionContext, input_name: str) -> None:
        """Let a manager load an input of a step: none of a refused step is loaded.

        Raises:
            GovernanceFailure: it may not.
        """
        step = self.step(context)
        if step is not None:
            step.before_loading(context, manager, input_name)

    def stated(self, context: StepExecutionContext) -> frozenset[str]:
        """The inputs that the node was told of when the step was asked for; of others it has said nothing."""
        return self._entry(context).stated

    def step(self, context: StepExecutionContext) -> GovernedStep | None:
        """The step with its permit; None where no policy speaks of it.

        Raises:
            GovernanceFailure: it is refused, still deferred, or nobody knows.
        """
        entry = self._entry(context)
        with entry.lock:
            if not entry.asked:
                facts = _facts(context, self.options.stores)
                entry.stated = frozenset(each.asset for each in facts.inputs)
                entry.step = self._ask(context, facts)
                entry.asked = True
            return entry.step

    def client(self) -> NodeClient:
        """The client of the node that this gate asks.

        Raises:
            ConfigError: no node is named, or its token cannot be read.
        """
        if self._client is None:
            options = self.options
            if options.socket is not None:
                self._client = NodeClient(options.socket, options.token)
            elif options.home is not None:
                self._client = NodeClient.of_home(options.home)
            else:
                raise ConfigError(
                    f"no node is named: set {HOME_VARIABLE} to the home of this organization's node, or give"
                    " govern(defs, home=...)"
                )
        return self._client

    def names(self, assets: frozenset[str]) -> bool | None:
        """Whether the node's list of governed assets names any of these; None where there is no list.

        Raises:
            ConfigError: the list is there and unreadable.
        """
        governed = read_governed_assets(self.options.home)
        return None if governed is None else governed.name(assets)

    def _entry(self, context: StepExecutionContext) -> _Entry:
        key = (context.run_id, context.step.key, context.previous_attempt_count)
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > STEPS_MAX:
                self._entries.popitem(last=False)
            return entry

    def _ask(self, context: StepExecutionContext, facts: StepFacts) -> GovernedStep | None:
        where = context.step.key
        try:
            client = self.client()
            form = self._form(facts)
            answer = self._decided(client, form, context)
        except (NodeUnreachableError, ConfigError) as exc:
            if not self._may_govern(facts.concerned):
                return None
            raise unavailable(where, exc) from exc
        except NodeError as exc:
            raise unanswered(StepRefused, where, f"step {where} cannot be asked for", exc) from exc
        if answer.outcome == "ungoverned":
            if answer.governed_inputs:
                # No output to judge, but governed inputs: its reads are verified, nothing is attached.
                return self._governed(client, form, facts, answer)
            return None
        if answer.outcome in ("execute", "restrict"):
            return self._governed(client, form, facts, answer)
        if answer.outcome == "refuse":
            # A retry policy of the step sees the failure; one of the run reads its tags.
            context.instance.add_run_tags(context.run_id, {NO_RETRY_TAG: "false"})
        raise not_permitted(where, answer, self.options.wait_max_s)

    def _governed(
        self, client: NodeClient, form: StepForm, facts: StepFacts, answer: StepAnswer
    ) -> GovernedStep:
        options = self.options
        return GovernedStep(client, form, facts, answer, options.unbound, self._may_govern, code=options.code)

    def _may_govern(self, assets: frozenset[str]) -> bool:
        """Whether policy may speak of any of these: the node's own list must rule all of them out."""
        try:
            return self.names(assets) is not False
        except ConfigError:
            return True

    def _decided(self, client: NodeClient, form: StepForm, context: StepExecutionContext) -> StepAnswer:
        """Submit the intent and wait until it is decided, at most `wait_max_s`. The run's log says for what."""
        deadline = self._clock() + self.options.wait_max_s
        # The first answer is not waited for long: what is waited for is said before, not after.
        answer = client.submit_step(replace(form, wait_s=min(form.wait_s, FIRST_WAIT_S)))
        pause_s = PAUSE_S_MIN
        said = ""
        while answer.outcome in ("defer", "held"):
            left_s = deadline - self._clock()
            if left_s <= 0:
                break
            needs = waits_for(answer)
            if needs != said:
                said = needs
                context.log.info(
                    "Comity: step %s waits %.0f s at most for %s (intent %s)",
                    form.step,
                    left_s,
                    needs,
                    answer.intent[:INTENT_SHOWN],
                )
            asked_at = self._clock()
            wait_s = min(left_s, WAIT_SLICE_S)
            answer = client.step(answer.intent, wait_s)
            if answer.outcome in ("defer", "held") and self._clock() - asked_at < min(wait_s, PAUSE_S_MIN):
                self._pause(min(pause_s, max(0.0, deadline - self._clock())))
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
        return answer

    def _form(self, facts: StepFacts) -> StepForm:
        options = self.options
        requester = options.requester
        return StepForm(
            orchestrator="dagster",
            run=facts.run,
            step=facts.unit,
            job=facts.job,
            code=options.code.digest,
            outputs=list(facts.outputs),
            inputs=list(facts.inputs),
            checks=list(facts.checks),
            location=options.location or facts.location,
            revision=options.revision,
            purpose=options.purpose,
            credential=_credential(options, facts),
            ticket=self._ticket(requester, facts) if requester is not None else facts.ticket,
            continues=facts.continues,
            context=measure_context(options.code),
            wait_s=min(options.wait_max_s, WAIT_SLICE_S),
        )

    def _ticket(self, requester: Requester, facts: StepFacts) -> str:
        """One ticket per run: it speaks for everything that the run is to make."""
        with self._lock:
            if facts.run not in self._tickets:
                partitions = sorted({output.partition for output in facts.outputs} - {""})
                ticket = requester.sign_ticket(
                    TicketFacts(
                        run=facts.run,
                        job=facts.job,
                        assets=facts.run_assets,
                        partitions=tuple(partitions),
                        purpose=self.options.purpose,
                    )
                )
                self._tickets[facts.run] = encoded_ticket(ticket)
                while len(self._tickets) > STEPS_MAX:
                    self._tickets.popitem(last=False)
            return self._tickets[facts.run]


def _credential(options: GateOptions, facts: StepFacts) -> str:
    """The credential to act under: the requester's, that of the ticket, or that of the code location's automation."""
    if options.requester is not None:
        return options.requester.credential
    return "" if facts.ticket else options.credential


def _facts(context: StepExecutionContext, stores: Stores) -> StepFacts:
    try:
        return step_facts(context, stores)
    except ConfigError as exc:
        raise refused_locally(StepRefused, str(exc), [TermForm("facts_invalid", message=str(exc))]) from exc
