"""Looks at what a step without outputs under a permit tells Dagster: it makes no governed asset, and no claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import dagster as dg

from comity.dagster_bridge.check_reports import CheckReports
from comity.dagster_bridge.dagster_internals import StepExecutionContext
from comity.dagster_bridge.failures import WriteRefused, refused_locally
from comity.dagster_bridge.step_facts import name_in
from comity.node.client import StepAnswer, TermForm
from comity.protocol.errors import ConfigError

RESERVED: Final = "comity/"
"""How the metadata begins by which a materialization names its decision. Only the bridge says such things."""


@dataclass(frozen=True, slots=True)
class Onlooker:
    """The watch of a step that no policy speaks of, or that is judged for its reads alone.

    `names` says whether the node's list of governed assets names any of these; None where there is no list.
    """

    context: StepExecutionContext
    names: Callable[[frozenset[str]], bool | None]
    answer: StepAnswer | None = None
    checks: CheckReports | None = None
    """Where the step reads governed assets: what its checks find in these."""

    def look(self, result: object) -> object:
        """What Dagster may see of a result.

        Raises:
            WriteRefused: it says that a governed asset was made, or claims a decision.
            NodeUnavailable: a check that failed could not be recorded.
        """
        require_no_claim(self.context, result, self.answer)
        if self.checks is not None:
            self.checks.look(self.context, result)
        if isinstance(result, dg.AssetMaterialization):
            name = name_in(self.context, result.asset_key)
            if self._is_governed(name):
                raise refused_locally(
                    WriteRefused,
                    f"step {self.context.step.key} reports a materialization of {name}, which is governed and"
                    " not its output: an asset's own step makes it, under a permit",
                    [TermForm("materialization_not_an_output", {"asset": name})],
                    self.answer,
                )
        return result

    def _is_governed(self, name: str) -> bool:
        try:
            return self.names(frozenset({name})) is True
        except ConfigError:
            # There is a list and nobody can read it: it rules nothing out.
            return True


def require_no_claim(context: StepExecutionContext, result: object, answer: StepAnswer | None) -> None:
    """Refuse a result whose metadata claims what only the bridge may say.

    Raises:
        WriteRefused: it does.
    """
    given: Any = result
    if not isinstance(given, (dg.Output, dg.MaterializeResult, dg.AssetMaterialization, dg.AssetObservation)):
        return
    metadata = cast("Mapping[str, object]", cast("Any", given).metadata or {})
    claimed = sorted(key for key in metadata if key.startswith(RESERVED))
    if claimed:
        raise refused_locally(
            WriteRefused,
            f"step {context.step.key} sets the metadata {claimed[0]} by itself: what begins with {RESERVED} is"
            " said by the bridge alone",
            [TermForm("metadata_reserved", {"key": claimed[0]})],
            answer,
        )
