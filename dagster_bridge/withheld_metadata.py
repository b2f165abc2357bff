"""What a step says beside its values: metadata, descriptions and tags, which may hold what a permit withholds.

A preview, a sample of the rows that fail a check, or counts by group are values of the table, and they go to
Dagster's event log past every IO manager. Nothing can tell those that hold a withheld value from others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import dagster as dg

Bare: TypeAlias = tuple[object, int]
"""A result with its value alone, and how many entries were taken out."""


def without_metadata(result: object) -> Bare:
    """A result of a step's function with its value alone, and how many entries were taken out.

    A data version stays, for without it Dagster cannot tell what is stale; so does a check's verdict.
    """
    for kind, bare in _KINDS:
        if isinstance(result, kind):
            return bare(result)
    return result, 0


def _output(output: Any) -> Bare:
    bare: object = dg.Output(output.value, output.output_name, data_version=output.data_version)
    return bare, _entries(output.metadata, output.tags)


def _dynamic_output(output: Any) -> Bare:
    bare: object = dg.DynamicOutput(output.value, output.mapping_key, output.output_name)
    return bare, _entries(output.metadata)


def _materialize_result(result: Any) -> Bare:
    checks, taken = _checks(result.check_results)
    bare: object = dg.MaterializeResult(
        result.asset_key, check_results=checks, data_version=result.data_version, value=result.value
    )
    return bare, taken + _entries(result.metadata, result.tags)


def _observe_result(result: Any) -> Bare:
    checks, taken = _checks(result.check_results)
    bare = dg.ObserveResult(result.asset_key, check_results=checks, data_version=result.data_version)
    return bare, taken + _entries(result.metadata, result.tags)


def _observation(event: Any) -> Bare:
    bare = dg.AssetObservation(event.asset_key, partition=event.partition)
    return bare, _entries(event.metadata, event.tags, event.description)


def _check_result(result: Any) -> tuple[dg.AssetCheckResult, int]:
    bare = dg.AssetCheckResult(
        passed=result.passed,
        asset_key=result.asset_key,
        check_name=result.check_name,
        severity=result.severity,
    )
    return bare, _entries(result.metadata, result.description)


def _check_evaluation(event: Any) -> Bare:
    bare = dg.AssetCheckEvaluation(
        asset_key=event.asset_key,
        check_name=event.check_name,
        passed=event.passed,
        metadata={},
        target_materialization_data=event.target_materialization_data,
        severity=event.severity,
        blocking=event.blocking,
    )
    return bare, _entries(event.metadata, event.description)


def _expectation(result: Any) -> Bare:
    return dg.ExpectationResult(result.success, result.label), _entries(result.metadata, result.description)


def _checks(results: Sequence[Any] | None) -> tuple[list[dg.AssetCheckResult], int]:
    bare = [_check_result(each) for each in results or ()]
    return [result for result, _ in bare], sum(taken for _, taken in bare)


def _entries(*attached: Any) -> int:
    """Entries of mappings, and one for each text."""
    return sum(1 if isinstance(each, str) else len(each) for each in attached if each)


_KINDS: Final[tuple[tuple[type[Any], Callable[[Any], Bare]], ...]] = (
    (dg.Output, _output),
    (dg.DynamicOutput, _dynamic_output),
    (dg.MaterializeResult, _materialize_result),
    (dg.ObserveResult, _observe_result),
    (dg.AssetObservation, _observation),
    (dg.AssetCheckResult, _check_result),
    (dg.AssetCheckEvaluation, _check_evaluation),
    (dg.ExpectationResult, _expectation),
)
