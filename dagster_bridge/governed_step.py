"""One step under its permit: what may be written, what was read, and what its outputs say in Dagster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, runtime_checkable

import dagster as dg

from comity.dagster_bridge.dagster_internals import ComputeWatch, StepExecutionContext
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
from comity.dagster_bridge.step_facts import StepFacts, name_in, named_inputs, partitions_of
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

CONTENT: Final = "comity/content"
BOUND: Final = "bound"
NOT_BOUND: Final = "not bound"
"""The record of this output names no content: its IO manager is not one that Comity has bound to lineage."""

PERMIT: Final = "comity/permit"
INPUTS: Final = "comity/inputs"
INPUTS_NOT_BOUND: Final = "comity/inputs_not_bound"


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
    reads: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    _begun: bool = False

    @property
    def judged(self) -> bool:
        """Whether the step has outputs under a permit; otherwise only its reads are governed."""
        return self.answer.outcome in ("execute", "restrict")

    @property
    def name(self) -> str:
        return self.facts.unit

    def verifies(self, asset: str) -> bool:
        """Whether an input's bytes are to be verified before use."""
        governed = self.answer.governed_inputs
        return governed is None or asset in governed or f"{self._member()}/{asset}" in governed

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

        An expired permit is asked for again, once, and what may be made must not have changed.

        Raises:
            StepRefused: the permit no longer allows it.
            NodeUnavailable: the node gives no answer.
        """
        try:
            return self._start(output)
        except NotPermittedError as exc:
            if exc.code != "permit_expired":
                raise self._start_failed(output, exc) from exc
        try:
            self.answer = self.client.submit_step(self.form)
        except NodeError as exc:
            what = f"step {self.name} cannot be asked for again"
            raise unanswered(StepRefused, self.name, what, exc, self.answer) from exc
        asset = output.asset.partition("/")[2]
        if not self.judged or self.permitted(asset, output.partition) != output:
            raise refused_locally(
                StepRefused,
                f"the permit of step {self.name} expired and what is decided now differs; run the step again",
                [TermForm("permit_expired")],
                self.answer,
            )
        try:
            return self._start(output)
        except NotPermittedError as exc:
            raise self._start_failed(output, exc) from exc

    def begin(
        self, context: StepExecutionContext, unbound_reads: Literal["refuse", "allow"]
    ) -> ComputeWatch | None:
        """The step's inputs are loaded and its function is about to run.

        Raises:
            GovernanceFailure: an input was read past lineage, or an output could not be held to its permit.
        """
        if not self.judged:
            return None
        if not self._begun:
            self._begun = True
            extra = self._unbound_inputs(context, unbound_reads)
            for output_name, key in self.outputs_of(context):
                if not isinstance(_manager_of(context, output_name), BindsContent):
                    self.start_unbound(context, output_name, key, extra)
        return _Watch(self, context)

    def start_unbound(
        self,
        context: StepExecutionContext,
        output_name: str,
        key: dg.AssetKey,
        extra: Metadata | None = None,
    ) -> None:
        """Begin an output whose bytes the bridge does not see: only an unrestricted permit allows it.

        Raises:
            WriteRefused: the permit withholds something, which nothing here could keep out.
        """
        asset = name_in(context, key)
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
        for output in outputs:
            self.start(output)
        context.add_output_metadata(
            {**self.output_metadata(outputs[0]), CONTENT: dg.MetadataValue.text(NOT_BOUND), **(extra or {})},
            output_name=output_name,
        )

    def output_metadata(self, output: PermittedOutput) -> Metadata:
        """What a materialization says of the decision that allowed it."""
        metadata: Metadata = {
            OUTCOME: dg.MetadataValue.text(output.mode),
            INTENT: dg.MetadataValue.text(self.answer.intent),
            PERMIT: dg.MetadataValue.text(self.answer.permit),
        }
        if output.obligations:
            metadata["comity/obligations"] = dg.MetadataValue.json(term_values(output.obligations))
        if self.reads:
            metadata[INPUTS] = dg.MetadataValue.json(
                [
                    {"asset": asset, "partition": partition, "actuation": actuation}
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

    def _member(self) -> str:
        """The member that this node is, as the ids of the outputs say it."""
        return self.answer.outputs[0].asset.partition("/")[0] if self.answer.outputs else ""

    def _start(self, output: PermittedOutput) -> StartAnswer:
        try:
            return self.client.start(
                StartForm(intent=self.answer.intent, asset=output.asset, partition=output.partition)
            )
        except NotPermittedError:
            raise
        except NodeError as exc:
            raise self._start_failed(output, exc) from exc

    def _start_failed(self, output: PermittedOutput, exc: NodeError) -> GovernanceFailure:
        what = f"the work on {output.asset} may not start"
        return unanswered(StepRefused, self.name, what, exc, self.answer)

    def _unbound_inputs(
        self, context: StepExecutionContext, unbound_reads: Literal["refuse", "allow"]
    ) -> Metadata:
        """Refuse, or list, the governed inputs that no verifying IO manager has loaded."""
        read = {asset for asset, _ in self.reads}
        asked = {each.asset for each in self.facts.inputs}
        names = asked & {name_in(context, key) for key in named_inputs(context)}
        unbound = sorted(name for name in names - read if self.verifies(name))
        if not unbound:
            return {}
        if unbound_reads == "refuse":
            raise refused_locally(
                ReadRefused,
                f"step {self.name} reads {', '.join(unbound)} without verification: load it as an input"
                " through an IO manager that binds content (GovernedFilesIOManager), or allow it with"
                " govern(defs, unbound_reads='allow')",
                [TermForm("input_not_bound", {"asset": name}) for name in unbound],
                self.answer,
            )
        return {INPUTS_NOT_BOUND: dg.MetadataValue.json(unbound)}


@dataclass(frozen=True, slots=True)
class _Watch:
    """Looks at what a governed step's function returns."""

    step: GovernedStep
    context: StepExecutionContext

    def look(self, result: object) -> None:
        """Hold back results that would reach Dagster past an IO manager that keeps to the permit.

        Raises:
            WriteRefused: such a result, where the permit is restricted or does not list it.
        """
        if isinstance(result, dg.AssetMaterialization):
            self._look_at_materialization(result)
        elif isinstance(result, dg.MaterializeResult):
            for output_name, key in self.step.outputs_of(self.context):
                manager = _manager_of(self.context, output_name)
                if (result.asset_key or key) != key or not isinstance(manager, BindsContent):
                    continue
                if not manager.holds(_value_of(result)):
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


def _value_of(result: Any) -> object:
    return result.value
