"""Everything of Dagster that the bridge uses and Dagster does not promise to keep, in one place.

No public hook of Dagster runs before every step, so the function of each op is replaced in place. Each name
that this module touches has a test that says when a new Dagster has moved it
(tests/dagster_bridge/test_canaries.py); `check_dagster` looks at them when definitions are governed. Seen to
work with Dagster 1.13.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Final, Protocol, cast

import dagster as dg
from dagster._core.definitions.assets.definition.cacheable_assets_definition import CacheableAssetsDefinition
from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.definitions.target import AutomationTarget
from dagster._core.errors import DagsterInvariantViolationError
from dagster._core.execution.context.system import StepExecutionContext

from comity.protocol.errors import ConfigError

__all__ = [
    "DAGSTER_VERSIONS",
    "DagsterInvariantViolationError",
    "DecoratedOpFunction",
    "StepExecutionContext",
    "partition_loading_context",
]

DAGSTER_VERSIONS: Final = ((1, 12), (1, 14))
"""From the first, below the second: as `comity[dagster]` asks for."""

NODES_MAX: Final = 100_000
"""Ops and graphs of one code location, nested ones included. A definition that contains itself ends here."""

_GATE_MARK: Final = "__comity_gate__"


class ComputeGate(Protocol):
    """What stands before a step's function, and looks at what it returns."""

    def enter(self) -> ComputeWatch | None:
        """Called before the function. Raises where it may not run; None where it runs as before."""
        ...


class ComputeWatch(Protocol):
    """Looks at each result of a governed step before Dagster sees it."""

    def look(self, result: object) -> None: ...


def check_dagster() -> None:
    """Check that this Dagster is one that the bridge was made for.

    Raises:
        ConfigError: another version, or a name that the bridge needs is gone.
    """
    first, below = DAGSTER_VERSIONS
    version = tuple(int(part) for part in dg.__version__.split(".")[:2] if part.isdigit())
    if not first <= version < below:
        raise ConfigError(
            f"Dagster {dg.__version__} is not known to this version of Comity: install a version from"
            f" {'.'.join(map(str, first))}, below {'.'.join(map(str, below))}"
        )
    wanted = (
        (dg.OpDefinition, "compute_fn"),
        (dg.OpExecutionContext, "get"),
        (dg.OpExecutionContext, "get_step_execution_context"),
        (StepExecutionContext, "assets_def"),
        (StepExecutionContext, "node_handle"),
        (StepExecutionContext, "previous_attempt_count"),
        (dg.GraphDefinition, "node_defs"),
        (dg.AssetsDefinition, "node_def"),
    )
    for owner, name in wanted:
        if not hasattr(owner, name):
            raise ConfigError(f"Dagster {dg.__version__} has no {owner.__name__}.{name}, which Comity needs")


def current_step() -> StepExecutionContext | None:
    """The step that this thread executes; None outside of a run, as in a test of an asset's function."""
    try:
        context = dg.OpExecutionContext.get()
    except DagsterInvariantViolationError:
        return None
    return context.get_step_execution_context()


def gate_of(op: dg.OpDefinition) -> ComputeGate | None:
    """The gate that stands before an op, or None."""
    function = op.compute_fn
    if isinstance(function, DecoratedOpFunction):
        function = function.decorated_fn
    return cast("ComputeGate | None", getattr(function, _GATE_MARK, None))


def ops_of(definitions: dg.Definitions) -> Iterator[dg.OpDefinition]:
    """Every op that a run of these definitions can execute, each once.

    Raises:
        ConfigError: an asset is built only when the definitions are loaded: nothing can stand before it.
    """
    seen: dict[int, object] = {}
    pending: list[object] = [*_assets_of(definitions), *_jobs_of(definitions)]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen[id(node)] = node
        if len(seen) > NODES_MAX:
            raise ConfigError(f"more than {NODES_MAX} ops and graphs in one code location")
        if isinstance(node, dg.OpDefinition):
            yield node
        elif isinstance(node, dg.GraphDefinition):
            pending.extend(node.node_defs)
        elif isinstance(node, dg.JobDefinition):
            pending.append(node.graph)
        elif isinstance(node, dg.AssetsDefinition):
            if node.is_executable:
                pending.append(node.node_def)
        elif isinstance(node, CacheableAssetsDefinition):
            raise ConfigError("CacheableAssetsDefinition cannot be governed: give the assets that it builds")


def observed_sources(definitions: dg.Definitions) -> Iterator[dg.SourceAsset]:
    """Source assets with an observation function, which Dagster turns into an op later."""
    for asset in _assets_of(definitions):
        if isinstance(asset, dg.SourceAsset) and asset.observe_fn is not None:
            yield asset


def _assets_of(definitions: dg.Definitions) -> Iterator[object]:
    yield from definitions.assets or ()
    yield from definitions.asset_checks or ()
    for target in _targets_of(definitions):
        yield from target.assets_defs


def _jobs_of(definitions: dg.Definitions) -> Iterator[object]:
    yield from definitions.jobs or ()
    for target in _targets_of(definitions):
        yield target.resolvable_to_job


def _targets_of(definitions: dg.Definitions) -> Iterator[AutomationTarget]:
    """What schedules and sensors start: it may be a job that stands nowhere else in the definitions."""
    for schedule in definitions.schedules or ():
        if isinstance(schedule, dg.ScheduleDefinition):
            yield schedule.target
        else:
            yield AutomationTarget(schedule.job)
    for sensor in definitions.sensors or ():
        yield from sensor.targets


def place_gate(op: dg.OpDefinition, gate: ComputeGate) -> None:
    """Put a gate before an op's function, in place: whoever holds the op holds it governed.

    The replacement is of the same kind (function, generator, coroutine, asynchronous generator) and has the
    same signature: Dagster treats it as before, and a test may still call an asset's function directly.
    """
    function = op.compute_fn
    if isinstance(function, DecoratedOpFunction):
        # _replace keeps the subclass: it decides whether the function takes a context.
        governed: Any = function._replace(decorated_fn=_gated(function.decorated_fn, gate))
    else:
        governed = _gated_compute(function, gate)
    op._compute_fn = governed  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def place_observation_gate(source: dg.SourceAsset, gate: ComputeGate) -> None:
    """Put a gate before the function that observes a source asset."""
    if source.observe_fn is not None and not hasattr(source.observe_fn, _GATE_MARK):
        source.observe_fn = _gated(source.observe_fn, gate)


def _gated_compute(function: Callable[..., Any], gate: ComputeGate) -> Callable[..., Any]:
    """For an op made without a decorator: Dagster iterates what the function returns."""

    @functools.wraps(function)
    def governed(context: Any, inputs: Any) -> Any:
        watch = gate.enter()
        results = function(context, inputs)
        if watch is None or results is None:
            return results
        return _watched_async(results, watch) if inspect.isasyncgen(results) else _watched(results, watch)

    setattr(governed, _GATE_MARK, gate)
    return governed


def _gated(function: Callable[..., Any], gate: ComputeGate) -> Callable[..., Any]:
    governed = _gated_kind(function, gate)
    setattr(governed, _GATE_MARK, gate)
    return governed


def _gated_kind(function: Callable[..., Any], gate: ComputeGate) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def governed_async_generator(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            watch = gate.enter()
            async for result in function(*args, **kwargs):
                if watch is not None:
                    watch.look(result)
                yield result

        return governed_async_generator
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def governed_coroutine(*args: Any, **kwargs: Any) -> Any:
            watch = gate.enter()
            result = await function(*args, **kwargs)
            _look_at_returned(result, watch)
            return result

        return governed_coroutine
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def governed_generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
            watch = gate.enter()
            results = function(*args, **kwargs)
            yield from results if watch is None else _watched(results, watch)

        return governed_generator

    @functools.wraps(function)
    def governed_function(*args: Any, **kwargs: Any) -> Any:
        watch = gate.enter()
        result = function(*args, **kwargs)
        if watch is not None and inspect.isgenerator(result):
            return _watched(result, watch)
        _look_at_returned(result, watch)
        return result

    return governed_function


def _look_at_returned(result: object, watch: ComputeWatch | None) -> None:
    if watch is not None:
        # Results of Dagster's own are named tuples; only a plain one stands for several outputs.
        results = cast("tuple[object, ...]", result) if type(result) is tuple else (result,)
        for each in results:
            watch.look(each)


def _watched(results: Iterable[Any], watch: ComputeWatch) -> Iterator[Any]:
    for result in results:
        watch.look(result)
        yield result


async def _watched_async(results: AsyncIterator[Any], watch: ComputeWatch) -> AsyncIterator[Any]:
    async for result in results:
        watch.look(result)
        yield result
