"""What asset checks found, said of the very version that they looked at: one that was read, or that the step made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import dagster as dg

from comity.dagster_bridge.dagster_internals import (
    DagsterInvariantViolationError,
    StepExecutionContext,
    check_found,
)
from comity.dagster_bridge.failures import unavailable
from comity.dagster_bridge.step_facts import name_in
from comity.dagster_bridge.table_formats import UnwritableError
from comity.node.client import CheckForm, NodeClient, NodeError, TermForm

CHECK_NAME_MAX: Final = 255
"""Characters of a check's name in a record."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one check found in an asset. `bars`: it failed in earnest, and Dagster holds back what depends on it."""

    asset: str
    check: str
    passed: bool
    warns: bool
    bars: bool


@dataclass(slots=True)
class CheckReports:
    """The checks of one step.

    `reads` and `made` map (asset, partition) to the actuation that vouches for the version.
    """

    client: NodeClient
    step: str
    reads: dict[tuple[str, str], str]
    made: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    _waiting: list[Found] = field(default_factory=list[Found])

    def look(self, context: StepExecutionContext, result: object) -> None:
        """Take what a result of the step's function says of checks.

        Of a version that is there already it is said at once; of one that the step is about to make, when it is.

        Raises:
            NodeUnavailable: a failure could not be recorded.
        """
        for each in _results_in(result):
            try:
                key, check, bars = check_found(context, each)
            except DagsterInvariantViolationError:
                # Of no check that was selected. Dagster itself says so, or lets it through as a remark.
                continue
            failed = not each.passed
            warns = each.severity == dg.AssetCheckSeverity.WARN
            found = Found(
                name_in(context, key),
                check[:CHECK_NAME_MAX],
                each.passed,
                warns,
                bars and failed and not warns,
            )
            versions = self._versions(found.asset)
            if not versions:
                self._waiting.append(found)
            for partition, actuation in versions:
                self._say(context, found, partition, actuation)

    def require_none_bars(self, asset: str) -> None:
        """Check that no blocking check has failed in what is about to be promoted.

        Raises:
            UnwritableError: one has.
        """
        for found in self._waiting:
            if found.asset == asset and found.bars:
                message = f"its check {found.check} has failed, and blocks"
                raise UnwritableError(TermForm("check_failed", {"check": found.check}, message=message))

    def promoted(self, asset: str, partition: str, actuation: str) -> None:
        """A version is there: what was found in it before can be said.

        Raises:
            NodeUnavailable: a failure could not be recorded.
        """
        self.made[asset, partition] = actuation
        for found in self._waiting:
            if found.asset == asset:
                self._say(None, found, partition, actuation)

    def _versions(self, asset: str) -> list[tuple[str, str]]:
        known = {**self.reads, **self.made}
        return sorted((partition, made) for (name, partition), made in known.items() if name == asset)

    def _say(
        self, context: StepExecutionContext | None, found: Found, partition: str, actuation: str
    ) -> None:
        form = CheckForm(
            asset=found.asset,
            actuation=actuation,
            check=found.check,
            passed=found.passed,
            partition=partition,
            severity="warn" if found.warns else "error",
        )
        try:
            self.client.check(form)
        except NodeError as exc:
            if not found.passed:
                raise unavailable(self.step, exc) from exc
            if context is not None:
                # Nothing rests on it: what passed bars nobody.
                context.log.warning("Comity: that %s passed is not recorded: %s", found.check, exc)


def _results_in(result: object) -> tuple[dg.AssetCheckResult, ...]:
    if isinstance(result, dg.AssetCheckResult):
        return (result,)
    if isinstance(result, dg.MaterializeResult):
        return tuple(result.check_results or ())
    return ()
