"""A process without an orchestrator under a permit: asked for, begun, run, and what it made promoted or discarded.

The same intent, starts, reads and actuations as those of a step of Dagster; only that who works is a program of any
language, which finds its inputs and the places for its outputs in environment variables.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal, TypeAlias

import msgspec

from comity.dagster_bridge.declared import NOTHING
from comity.dagster_bridge.files import Place, read_file
from comity.dagster_bridge.process_files import (
    InputRefusedError,
    WorkFolder,
    finish_recorded,
    media_type_of,
    read_input,
    require_whole,
    sidecar_bytes,
    storage_of,
    work_folder,
)
from comity.dagster_bridge.process_measurement import ProcessMeasurement, measure_process
from comity.dagster_bridge.process_plan import PlannedOutput, ProcessPlan, read_plan
from comity.dagster_bridge.storage import Measured, Slot, WrittenFile
from comity.dagster_bridge.table_formats import UnwritableError
from comity.node.client import (
    ActuationForm,
    DiscardForm,
    FormInvalidError,
    InputForm,
    NodeClient,
    NotFoundError,
    NotPermittedError,
    OutputForm,
    PermittedOutput,
    StartAnswer,
    StartForm,
    StepAnswer,
    StepForm,
    TermForm,
)

WAIT_SLICE_S: Final = 20.0
"""How long one request to the node waits: short enough that an interrupted command ends soon."""
PAUSE_S: Final = 1.0
"""Between two questions about a deferred intent, where the node answers at once instead of waiting."""
SIGNALLED: Final = 128
"""What a shell adds to the number of the signal that ended a program."""
_PASSED_ON: Final = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_OF_A_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT})
"""A terminal sends these to the command as well: passed on, they would reach it twice."""
_LAPSES: Final = frozenset({"permit_expired", "voted_twice"})

Made: TypeAlias = Literal["promoted", "discarded", "not_made", "not_recorded", "ungoverned"]
Say: TypeAlias = Callable[[str], None]


@dataclass(slots=True)
class MadeOutput:
    """What became of one output."""

    asset: str
    file: str
    became: Made = "not_made"
    actuation: str = ""
    causes: list[TermForm] = field(default_factory=list[TermForm])


@dataclass(slots=True)
class ProcessReport:
    """What became of a process. `status` is the command's own exit status; None where it was not started."""

    outcome: str
    intent: str
    run: str
    permit: str = ""
    status: int | None = None
    causes: list[TermForm] = field(default_factory=list[TermForm])
    needs: list[TermForm] = field(default_factory=list[TermForm])
    votes: dict[str, str] = field(default_factory=dict[str, str])
    inputs: dict[str, str] = field(default_factory=dict[str, str])
    """Name to the actuation that vouches for it."""
    outputs: dict[str, MadeOutput] = field(default_factory=dict[str, MadeOutput])


def run_process(values: Mapping[str, Any], source: str, say: Say) -> dict[str, Any]:
    """Run a process as its intent file says. The entry point by which `comity exec` reaches this.

    Args:
        values: of the intent file, with what the command line adds (`ProcessPlan`).
        source: the name of the intent file, for errors.
        say: told what is waited for.

    Raises:
        ConfigError: the plan is none, or there is no such program or node.
        FileError: a file cannot be read or written.
        NodeError: the node gives no usable answer.
    """
    plan = read_plan(values, source)
    client = NodeClient.of_home(plan.home)
    report: dict[str, Any] = msgspec.to_builtins(_Process(plan, client, say).run())
    return report


@dataclass(slots=True)
class _Process:
    """One process on its way from asking to what was made."""

    plan: ProcessPlan
    client: NodeClient
    say: Say

    def run(self) -> ProcessReport:
        plan = self.plan
        measured = measure_process(plan.command, Path(plan.folder), plan.code)
        for output in plan.outputs.values():
            finish_recorded(self.client, output.asset, output.partition, plan.path(output.file))
        form = self._form(measured)
        answer = self._decided(form)
        report = self._report(answer)
        if answer.outcome not in ("execute", "restrict", "ungoverned"):
            return report
        permitted = self._all_permitted(answer, report)
        if permitted is None:
            return report
        with work_folder(plan.path(next(iter(plan.outputs.values())).file)) as folder:
            try:
                variables = self._inputs(folder, answer, report)
            except InputRefusedError as exc:
                return _refused(report, exc.causes)
            places = {name: folder.output(name, plan.path(each.file)) for name, each in plan.outputs.items()}
            variables |= {f"COMITY_OUTPUT_{name.upper()}": str(place) for name, place in places.items()}
            starts = self._begin(form, answer, permitted)
            began = time.monotonic()
            report.status = self._work(variables | self._words(answer, permitted))
            if report.status != 0:
                return report
            duration_ms = int((time.monotonic() - began) * 1_000)
            same = measure_process(plan.command, Path(plan.folder), plan.code).digest == measured.digest
            for name, place in places.items():
                planned = plan.outputs[name]
                work = _Output(
                    self.client, answer.intent, planned, plan.path(planned.file), duration_ms, same
                )
                if name in permitted:
                    work.settle(place, permitted[name], starts[name], report.outputs[name])
                else:
                    work.put_plain(place, report.outputs[name])
        return report

    def _report(self, answer: StepAnswer) -> ProcessReport:
        """What is known before the command is started."""
        plan = self.plan
        return ProcessReport(
            outcome=answer.outcome,
            intent=answer.intent,
            run=plan.run,
            permit=answer.permit,
            causes=list(answer.causes),
            needs=list(answer.needs),
            votes=dict(answer.votes),
            outputs={
                name: MadeOutput(each.asset, str(plan.path(each.file))) for name, each in plan.outputs.items()
            },
        )

    def _form(self, measured: ProcessMeasurement) -> StepForm:
        plan = self.plan
        return StepForm(
            orchestrator="comity-exec",
            run=plan.run,
            step=plan.step,
            job=plan.job,
            code=measured.digest,
            outputs=[
                OutputForm(
                    each.asset,
                    each.partition,
                    list(each.columns) if each.columns is not None else None,
                    media_type_of(each),
                    reversible=each.versions > 0,
                )
                for each in plan.outputs.values()
            ],
            inputs=[InputForm(each.asset, each.partition) for each in plan.inputs.values()],
            location=plan.location,
            revision=plan.revision,
            purpose=plan.purpose,
            credential=plan.credential,
            ticket=plan.ticket,
            context=measured.context,
            wait_s=min(plan.wait_s, WAIT_SLICE_S) or 5.0,
        )

    def _decided(self, form: StepForm) -> StepAnswer:
        """Submit the intent and wait until it is decided, as long as the plan says."""
        deadline = time.monotonic() + self.plan.wait_s
        answer = self.client.submit_step(form)
        said = ""
        while answer.outcome in ("defer", "held") and time.monotonic() < deadline:
            needs = "; ".join(need.message or need.code for need in answer.needs) or "a quorum in reach"
            if needs != said:
                self.say(f"intent {answer.intent[:16]} waits for {needs}")
                said = needs
            asked_at = time.monotonic()
            wait_s = max(0.0, min(deadline - asked_at, WAIT_SLICE_S))
            answer = self.client.step(answer.intent, wait_s)
            if answer.outcome in ("defer", "held") and time.monotonic() - asked_at < min(wait_s, PAUSE_S):
                time.sleep(min(PAUSE_S, max(0.0, deadline - time.monotonic())))
        return answer

    def _all_permitted(self, answer: StepAnswer, report: ProcessReport) -> dict[str, PermittedOutput] | None:
        """What may be made of each output; None, with the causes in the report, where not all of them may be.

        A program makes what it makes: one that may make only some of its outputs is not started.
        """
        if answer.outcome == "ungoverned":
            return {}
        found: dict[str, PermittedOutput] = {}
        for name, output in self.plan.outputs.items():
            for each in answer.outputs:
                if each.partition == output.partition and _is(each.asset, output.asset):
                    found[name] = each
            if name not in found:
                term = TermForm("output_not_listed", {"asset": output.asset, "partition": output.partition})
                _refused(report, [term])
                return None
            if found[name].mode not in ("execute", "restrict"):
                _refused(report, [TermForm("output_excluded", {"asset": found[name].asset})])
                return None
            if output.format == "file":
                try:
                    require_whole(found[name])
                except UnwritableError as exc:
                    _refused(report, [exc.cause])
                    return None
        return found

    def _inputs(self, folder: WorkFolder, answer: StepAnswer, report: ProcessReport) -> dict[str, str]:
        """Verify the inputs and lay them before the process. Answers with the variables that say where."""
        found: dict[str, str] = {}
        for name, each in self.plan.inputs.items():
            governed = answer.governed_inputs
            verified = each.partners or governed is None or any(_is(name, each.asset) for name in governed)
            file = self.plan.path(each.file)
            read = read_input(self.client, answer.intent, each, file, verified=verified)
            found[f"COMITY_INPUT_{name.upper()}"] = str(folder.put_input(name, file, read.data))
            if read.actuation:
                report.inputs[name] = read.actuation
        return found

    def _words(self, answer: StepAnswer, permitted: Mapping[str, PermittedOutput]) -> dict[str, str]:
        """What the process is told of its permit."""
        allowed = {
            name: {
                "mode": each.mode,
                "columns": each.columns,
                "all_columns": each.all_columns,
                "obligations": [{"code": term.code, **term.parameters} for term in each.obligations],
            }
            for name, each in permitted.items()
        }
        return {
            "COMITY_INTENT": answer.intent,
            "COMITY_PERMIT": answer.permit,
            "COMITY_RUN": self.plan.run,
            "COMITY_PERMITTED": json.dumps(allowed, separators=(",", ":")),
        }

    def _begin(
        self, form: StepForm, answer: StepAnswer, permitted: Mapping[str, PermittedOutput]
    ) -> dict[str, StartAnswer]:
        """Record the start of each output. A permit that lapsed meanwhile is asked for again, once."""
        try:
            return self._starts(answer, permitted)
        except NotPermittedError as exc:
            if exc.code not in _LAPSES:
                raise
            again = self.client.submit_step(form)
            if list(permitted.values()) != again.outputs:
                raise
        return self._starts(again, permitted)

    def _starts(self, answer: StepAnswer, permitted: Mapping[str, PermittedOutput]) -> dict[str, StartAnswer]:
        return {
            name: self.client.start(StartForm(answer.intent, each.asset, each.partition, self.plan.run))
            for name, each in permitted.items()
        }

    def _work(self, variables: Mapping[str, str]) -> int:
        """Run the command and answer with its exit status; 128 and the signal's number where one ended it."""
        with _passing_on() as started:
            process = subprocess.Popen(  # noqa: S603  the command is what the caller asks for
                list(self.plan.command),
                env={**os.environ, **variables},
                stdout=sys.stderr.fileno() if self.plan.quiet_output else None,
            )
            started(process)
            status = process.wait()
        return SIGNALLED - status if status < 0 else status


@dataclass(frozen=True, slots=True)
class _Output:
    """One output that the process was to stage. `same`: whether the code is still what was asked with."""

    client: NodeClient
    intent: str
    planned: PlannedOutput
    file: Path
    duration_ms: int
    same: bool

    def put_plain(self, place: Path, made: MadeOutput) -> None:
        """Put in place what no policy speaks of: no record says anything of it."""
        found = read_file(place)
        if found is not None:
            Place(self.file.parent, shared=False).write(self.file, found.data)
            made.became = "ungoverned"

    def settle(self, place: Path, permitted: PermittedOutput, begun: StartAnswer, made: MadeOutput) -> None:
        """Read back what was staged, and promote or discard it."""
        start = begun.start
        storage = storage_of(self.planned, self.file)
        slot = Slot(tuple(self.planned.asset.split("/")), self.planned.partition)
        if not os.path.lexists(place):
            made.causes.append(TermForm("file_missing", {"asset": permitted.asset}))
            return
        if begun.put_back:
            # The version that stands is the one before the new one, whatever was in its place since.
            storage.put_back(slot, begun.put_back)
        staged = storage.stage(slot, storage.adopt(WrittenFile(place)))
        try:
            measured = storage.verify(staged, permitted, NOTHING)
            if not self.same:
                message = "files of the code were changed while it ran"
                raise UnwritableError(TermForm("context_drifted", message=message))
        except UnwritableError as exc:
            storage.discard(staged)
            self._discard(storage.describe(staged), permitted, start, exc.cause)
            made.became, made.causes = "discarded", [exc.cause]
            return
        form = ActuationForm(
            intent=self.intent,
            start=start,
            asset=permitted.asset,
            digest=measured.digest,
            size=measured.size,
            media_type=measured.media_type,
            partition=permitted.partition,
            rows=measured.rows,
            columns=list(measured.columns),
            duration_ms=self.duration_ms,
        )
        try:
            answer = self.client.actuate(form)
        except (NotPermittedError, FormInvalidError, NotFoundError) as exc:
            storage.discard(staged)
            made.became, made.causes = "not_recorded", [TermForm(exc.code, message=exc.message)]
            return
        # Where nobody knows whether it was recorded, the error goes on, and whoever comes next asks.
        made.became, made.actuation = "promoted", answer.actuation
        storage.promote(slot, staged, sidecar_bytes(answer.sidecar))

    def _discard(self, lies: Measured, permitted: PermittedOutput, start: str, cause: TermForm) -> None:
        form = DiscardForm(
            intent=self.intent,
            start=start,
            asset=permitted.asset,
            digest=lies.digest,
            size=lies.size,
            media_type=lies.media_type,
            causes=[cause],
            partition=permitted.partition,
            rows=lies.rows,
            columns=list(lies.columns),
        )
        try:
            self.client.discard(form)
        except (NotPermittedError, FormInvalidError, NotFoundError):
            # It is gone, and was never readable; the report says why.
            return


@contextmanager
def _passing_on() -> Generator[Callable[[subprocess.Popen[bytes]], None], None, None]:
    """Pass signals on to the command; those that come before it is started reach it when it is."""
    waiting: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def passed(number: int, _frame: FrameType | None) -> None:
        if number in _OF_A_TERMINAL and os.isatty(0):
            return
        if started:
            started[0].send_signal(number)
        else:
            waiting.append(number)

    def begun(process: subprocess.Popen[bytes]) -> None:
        started.append(process)
        for number in waiting:
            process.send_signal(number)

    before = {number: signal.signal(number, passed) for number in _PASSED_ON}
    try:
        yield begun
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is(whole: str, named: str) -> bool:
    """Whether a whole id is that of a named asset: own ones are named without their member."""
    return named in (whole, whole.partition("/")[2])


def _refused(report: ProcessReport, causes: list[TermForm]) -> ProcessReport:
    """A report of a process that is not started though something was permitted: the causes are this machine's own."""
    report.outcome = "refuse"
    report.causes = causes
    return report
