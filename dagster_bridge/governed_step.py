"""One step under its permit: what may be written, what was read, and what its outputs say in Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

import dagster as dg

from comity.dagster_bridge.check_reports import CheckReports
from comity.dagster_bridge.dagster_internals import (
    ComputeWatch,
    StepExecutionContext,
    keep_attached,
    reports_values,
)
from comity.dagster_bridge.failures import (
    INTENT,
    OUTCOME,
    GovernanceFailure,
    Metadata,
    ReadRefused,
    StepRefused,
    WriteRefused,
    refused_locally,
    term_values,
    unanswered,
)
from comity.dagster_bridge.measurement import CodeMeasurement, measure_code
from comity.dagster_bridge.onlooker import require_no_claim
from comity.dagster_bridge.step_facts import StepFacts, input_key, name_in, named_inputs, partitions_of
from comity.dagster_bridge.table_formats import UnwritableError
from comity.dagster_bridge.withheld_metadata import without_metadata
from comity.node.client import (
    NodeClient,
    NodeError,
    NotPermittedError,
    PermittedOutput,
    StartAnswer,
    StartForm,
    StepAnswer,
    StepForm,
    TermForm,
)
from comity.protocol.errors import ConfigError

CONTENT: Final = "comity/content"
BOUND: Final = "bound"
NOT_BOUND: Final = "not bound"
"""The record of this output names no content: its IO manager is not one that Comity has bound to lineage."""

PERMIT: Final = "comity/permit"
INPUTS: Final = "comity/inputs"
WAY: Final = "comity/way"
"""How it was made, where that is not in the place of the version before."""
WAYS: Final = "comity/ways"
"""The ways that were looked at, the least harmful first, and what was foreseen of each."""
INPUTS_NOT_BOUND: Final = "comity/inputs_not_bound"
METADATA_WITHHELD: Final = "comity/metadata_withheld"

_LAPSES: Final = {"permit_expired": TermForm("permit_expired"), "voted_twice": TermForm("voted_twice")}
"""Why a permit carries no more what another one may carry."""

Choice: TypeAlias = Literal["refuse", "allow"]


@dataclass(frozen=True, slots=True)
class Unbound:
    """Whether governed steps may read or write past an IO manager that binds content.

    Raises:
        ConfigError: another word. It must not be taken for a permission.
    """

    reads: Choice = "refuse"
    writes: Choice = "refuse"

    def __post_init__(self) -> None:
        for name, value in (("unbound_reads", self.reads), ("unbound_writes", self.writes)):
            if value not in ("refuse", "allow"):
                raise ConfigError(f"{name} is {value!r}, not 'refuse' or 'allow'")


@runtime_checkable
class BindsContent(Protocol):
    """An IO manager that keeps to the permit on write and verifies on read.

    `holds` says whether it takes a value that a step made.
    """

    def holds(self, value: object) -> bool: ...


@dataclass(slots=True)
class GovernedStep:
    """A step that policy speaks of, with the node's answer.

    `reads` maps each input that was verified, as (asset, partition), to the actuation that vouches for it.
    """

    client: NodeClient
    form: StepForm
    facts: StepFacts
    answer: StepAnswer
    unbound: Unbound
    may_govern: Callable[[frozenset[str]], bool]
    """Whether policy may speak of any of these assets."""
    reads: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    partner_reads: set[str] = field(default_factory=set[str])
    """Those of the assets in `reads` that are partners': they are named whole, own ones without the member."""
    code: CodeMeasurement | None = None
    """The code that the step asked with; None where it is not looked at again."""
    metadata_withheld: int = 0
    """Entries that the step's functions attached, and that were kept out of Dagster's log."""
    checks: CheckReports = field(init=False)
    _said: dict[str, Metadata] = field(default_factory=dict[str, Metadata])
    _begun: bool = False

    def __post_init__(self) -> None:
        self.checks = CheckReports(self.client, self.name, self.reads)

    @property
    def judged(self) -> bool:
        """Whether the step has outputs under a permit; otherwise only its reads are governed."""
        return self.answer.outcome in ("execute", "restrict")

    @property
    def only_checks(self) -> bool:
        """Whether the step makes nothing under a permit and is there for its checks."""
        return bool(self.facts.checks) and not self.facts.outputs and not self.judged

    @property
    def name(self) -> str:
        return self.facts.unit

    @property
    def withholds(self) -> bool:
        """Whether the step's functions see what its outputs may not hold."""
        return self.answer.outcome == "restrict" or any(
            output.mode == "restrict" or output.obligations for output in self.answer.outputs
        )

    def verifies(self, asset: str) -> bool:
        """Whether the bytes of a stated input are to be verified before use.

        The node names governed inputs by their whole ids. One that is not itself among the stated inputs is
        an asset of this very member, which they name without it.
        """
        governed = self.answer.governed_inputs
        if governed is None or asset in governed:
            return True
        stated = {each.asset for each in self.facts.inputs}
        return any(name.partition("/")[2] == asset for name in governed if name not in stated)

    def before_loading(self, context: StepExecutionContext, manager: object, input_name: str) -> None:
        """Let a manager load an input.

        Raises:
            ReadRefused: the input is to be verified, and this manager would parse it unverified.
        """
        key = input_key(context, input_name)
        if key is None or isinstance(manager, BindsContent) or self.unbound.reads == "allow":
            return
        name = name_in(context, key)
        if self.verifies(name):
            raise self._unbound_read([name])

    def permitted(self, asset: str, partition: str) -> PermittedOutput:
        """What may be made of an output.

        Raises:
            StepRefused: the permit does not list it, or lists it as refused or deferred.
        """
        for output in self.answer.outputs:
            if output.partition == partition and output.asset.partition("/")[2] == asset:
                if output.mode in ("execute", "restrict"):
                    return output
                raise refused_locally(
                    StepRefused,
                    f"the permit of step {self.name} excludes {output.asset} {partition}".rstrip(),
                    [*self.answer.causes, TermForm("output_excluded", {"asset": output.asset})],
                    self.answer,
                )
        raise refused_locally(
            StepRefused,
            f"the permit of step {self.name} does not list {asset} {partition}".rstrip(),
            [TermForm("output_not_listed", {"asset": asset, "partition": partition})],
            self.answer,
        )

    def start(self, output: PermittedOutput) -> StartAnswer:
        """Begin the work on one output.

        A permit that no longer carries is asked for again, once, and what may be made must not have changed.

        Raises:
            StepRefused: the permit no longer allows it.
            NodeUnavailable: the node gives no answer.
        """
        try:
            return self._start(output)
        except NotPermittedError as exc:
            if exc.code not in _LAPSES:
                raise self._start_failed(output, exc) from exc
            lapse = _LAPSES[exc.code]
        try:
            self.answer = self.client.submit_step(self.form)
        except NodeError as exc:
            what = f"step {self.name} cannot be asked for again"
            raise unanswered(StepRefused, self.name, what, exc, self.answer) from exc
        asset = output.asset.partition("/")[2]
        if not self.judged or self.permitted(asset, output.partition) != output:
            raise refused_locally(
                StepRefused,
                f"the permit of step {self.name} lapsed and what is decided now differs; run the step again",
                [lapse],
                self.answer,
            )
        try:
            return self._start(output)
        except NotPermittedError as exc:
            raise self._start_failed(output, exc) from exc

    def require_same_code(self) -> None:
        """Check that the code is still what was asked with: what ran is what was permitted.

        Raises:
            UnwritableError: files of the code location were changed since.
        """
        if self.code is None:
            return
        try:
            now = measure_code(self.code.root).digest
        except ConfigError as exc:
            raise UnwritableError(TermForm("context_drifted", message=str(exc))) from exc
        if now != self.code.digest:
            message = f"the code in {self.code.root} was changed since the step asked"
            raise UnwritableError(TermForm("context_drifted", message=message))

    def begin(self, context: StepExecutionContext) -> ComputeWatch | None:
        """The step's inputs are loaded and its function is about to run.

        Raises:
            GovernanceFailure: an input was read past lineage, or an output could not be held to its permit.
        """
        extra: Metadata = {}
        if not self._begun:
            # Also where there is no output to judge, as in a check: what it reads is governed.
            extra = self._unbound_inputs(context)
        if not self.judged:
            return None
        if not self._begun:
            self._begun = True
            if self.withholds:
                self._check_types(context)
            for output_name, key in self.outputs_of(context):
                if not isinstance(_manager_of(context, output_name), BindsContent):
                    self.start_unbound(context, output_name, key, extra)
        return self.watch(context)

    def watch(self, context: StepExecutionContext) -> ComputeWatch:
        """Looks at what the step's functions return, yield or report."""
        return _Watch(self, context)

    def start_unbound(
        self,
        context: StepExecutionContext,
        output_name: str,
        key: dg.AssetKey,
        extra: Metadata | None = None,
    ) -> None:
        """Begin an output whose bytes the bridge does not see.

        Raises:
            WriteRefused: the permit withholds something, which nothing here could keep out; or whoever wrote
                the definitions has not said that such outputs are wanted.
        """
        asset = name_in(context, key)
        if self.answer.way != "staged":
            raise refused_locally(
                WriteRefused,
                f"{asset} is to be kept apart ({self.answer.way}), and {_writer(context, output_name)} cannot do that",
                [TermForm("not_kept_apart", {"way": self.answer.way})],
                self.answer,
            )
        outputs = [self.permitted(asset, partition) for partition in partitions_of(context, key)]
        for output in outputs:
            # A list of columns binds even where it is complete: nothing here sees whether more are written.
            if output.mode != "execute" or output.obligations or not output.all_columns:
                raise refused_locally(
                    WriteRefused,
                    f"{output.asset} may be written only in part, and its IO manager cannot be held to that;"
                    " give it an IO manager that binds content (GovernedFilesIOManager)",
                    [TermForm("restriction_not_enforceable", {"asset": output.asset})],
                    self.answer,
                )
        # One unit may make governed assets and others: these are listed in its permit, and no more.
        if self.unbound.writes == "refuse" and self.may_govern(self.facts.origins | {asset}):
            raise refused_locally(
                WriteRefused,
                f"{outputs[0].asset} is governed, and {_writer(context, output_name)} binds no content to"
                " lineage, so nobody could verify what is made: return a table and give the asset"
                " GovernedFilesIOManager, or allow it with govern(defs, unbound_writes='allow')",
                [TermForm("output_not_bound", {"asset": outputs[0].asset})],
                self.answer,
            )
        for output in outputs:
            self.start(output)
        said = {
            **self.output_metadata(outputs[0]),
            CONTENT: dg.MetadataValue.text(NOT_BOUND),
            **(extra or {}),
        }
        self._said[output_name] = said
        context.add_output_metadata(said, output_name=output_name)

    def passed_on(self, context: StepExecutionContext, result: object) -> object:
        """What Dagster may see of a result: where something is withheld, its values alone."""
        if not self.withholds and not self._holds_more(result):
            return result
        result, taken = without_metadata(result)
        self.metadata_withheld += taken + keep_attached(context, self._said)
        return result

    def output_metadata(self, output: PermittedOutput) -> Metadata:
        """What a materialization says of the decision that allowed it."""
        metadata: Metadata = {
            OUTCOME: dg.MetadataValue.text(output.mode),
            INTENT: dg.MetadataValue.text(self.answer.intent),
            PERMIT: dg.MetadataValue.text(self.answer.permit),
        }
        if self.answer.way != "staged":
            metadata[WAY] = dg.MetadataValue.text(self.answer.way)
        if self.answer.ways:
            metadata[WAYS] = dg.MetadataValue.json(
                [
                    {
                        "way": each.way,
                        "outcome": each.outcome,
                        "chosen": each.chosen,
                        "causes": [cause.code for cause in each.causes],
                    }
                    for each in self.answer.ways
                ]
            )
        if output.obligations:
            metadata["comity/obligations"] = dg.MetadataValue.json(term_values(output.obligations))
        if self.metadata_withheld:
            metadata[METADATA_WITHHELD] = dg.MetadataValue.int(self.metadata_withheld)
        if self.reads:
            member = output.asset.partition("/")[0]
            metadata[INPUTS] = dg.MetadataValue.json(
                [
                    {
                        "asset": asset if asset in self.partner_reads else f"{member}/{asset}",
                        "partition": partition,
                        "actuation": actuation,
                    }
                    for (asset, partition), actuation in sorted(self.reads.items())
                ]
            )
        return metadata

    def outputs_of(self, context: StepExecutionContext) -> Iterator[tuple[str, dg.AssetKey]]:
        """The outputs of this very op that the unit of work makes: output name and key."""
        made = {output.asset for output in self.facts.outputs}
        for output in context.step.step_outputs:
            key = output.properties.asset_key
            if key is not None and name_in(context, key) in made:
                yield output.name, key

    def _holds_more(self, result: object) -> bool:
        """Whether a result is a table with columns that a permit for the declared ones does not cover."""
        declared = {column for output in self.answer.outputs for column in output.columns}
        if not declared:
            return False
        from comity.dagster_bridge.tables import names_of

        carries = isinstance(result, (dg.Output, dg.MaterializeResult))
        return not names_of(_value_of(result) if carries else result) <= declared

    def _check_types(self, context: StepExecutionContext) -> None:
        """Refuse outputs whose type's check would tell Dagster of values that the permit withholds."""
        for output in context.op_def.output_defs:
            if reports_values(output.dagster_type):
                raise refused_locally(
                    WriteRefused,
                    f"what step {self.name} makes may be written only in part, and the check of its type"
                    f" {output.dagster_type.display_name} would report on the whole: annotate the output as"
                    " a plain pandas.DataFrame or pyarrow.Table",
                    [TermForm("type_reports_values", {"type": output.dagster_type.display_name})],
                    self.answer,
                )

    def _start(self, output: PermittedOutput) -> StartAnswer:
        try:
            return self.client.start(
                StartForm(
                    intent=self.answer.intent,
                    asset=output.asset,
                    partition=output.partition,
                    run=self.facts.run,
                )
            )
        except NotPermittedError:
            raise
        except NodeError as exc:
            raise self._start_failed(output, exc) from exc

    def _start_failed(self, output: PermittedOutput, exc: NodeError) -> GovernanceFailure:
        what = f"the work on {output.asset} may not start"
        return unanswered(StepRefused, self.name, what, exc, self.answer)

    def _unbound_inputs(self, context: StepExecutionContext) -> Metadata:
        """Refuse, or list, the governed inputs that no verifying IO manager has loaded."""
        read = {asset for asset, _ in self.reads}
        asked = {each.asset for each in self.facts.inputs}
        names = asked & {name_in(context, key) for key in named_inputs(context)}
        unbound = sorted(name for name in names - read if self.verifies(name))
        if not unbound:
            return {}
        if self.unbound.reads == "refuse":
            raise self._unbound_read(unbound)
        return {INPUTS_NOT_BOUND: dg.MetadataValue.json(unbound)}

    def _unbound_read(self, names: Sequence[str]) -> GovernanceFailure:
        return refused_locally(
            ReadRefused,
            f"step {self.name} reads {', '.join(names)} without verification: load it as an input"
            " through an IO manager that binds content (GovernedFilesIOManager), or allow it with"
            " govern(defs, unbound_reads='allow')",
            [TermForm("input_not_bound", {"asset": name}) for name in names],
            self.answer,
        )


@dataclass(frozen=True, slots=True)
class _Watch:
    """Looks at what a governed step's function returns."""

    step: GovernedStep
    context: StepExecutionContext

    def look(self, result: object) -> object:
        """What Dagster may see of a result.

        Results that would reach Dagster past an IO manager that keeps to the permit are held back.

        Raises:
            WriteRefused: such a result, where the permit is restricted or does not list it.
            NodeUnavailable: a check that failed could not be recorded.
        """
        given: Any = result
        require_no_claim(self.context, given, self.step.answer)
        self.step.checks.look(self.context, given)
        if isinstance(given, dg.AssetMaterialization):
            self._look_at_materialization(given)
        elif isinstance(given, dg.MaterializeResult):
            self._look_at_result(given.asset_key, _value_of(given))
        return self.step.passed_on(self.context, result)

    def _look_at_result(self, asset_key: dg.AssetKey | None, value: object) -> None:
        for output_name, key in self.step.outputs_of(self.context):
            manager = _manager_of(self.context, output_name)
            if (asset_key or key) != key or not isinstance(manager, BindsContent):
                continue
            if not manager.holds(value):
                # Dagster gives such a result to no IO manager: the function has written by itself.
                self.step.start_unbound(self.context, output_name, key)

    def _look_at_materialization(self, event: dg.AssetMaterialization) -> None:
        keys = {key for _, key in self.step.outputs_of(self.context)}
        name = name_in(self.context, event.asset_key)
        raise refused_locally(
            WriteRefused,
            f"step {self.step.name} reports a materialization of {name} by itself;"
            + (
                " return its value, or a MaterializeResult"
                if event.asset_key in keys
                else " it is not its output"
            ),
            [TermForm("materialization_not_an_output", {"asset": name})],
            self.step.answer,
        )


def _manager_of(context: StepExecutionContext, output_name: str) -> object:
    """The IO manager that Dagster gives an output's value to; None where it gives it to none."""
    output = context.op_def.output_def_named(output_name)
    if output.dagster_type.is_nothing:
        return None
    return getattr(context.resources, output.io_manager_key)


def _writer(context: StepExecutionContext, output_name: str) -> str:
    """Who writes an output, in words."""
    manager = _manager_of(context, output_name)
    if manager is None or isinstance(manager, BindsContent):
        return "its function, which returns no value,"
    return f"its IO manager ({type(manager).__name__})"


def _value_of(result: Any) -> object:
    return result.value
