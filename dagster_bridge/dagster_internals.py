"""Everything of Dagster that the bridge uses and Dagster does not promise to keep, in one place.

No public hook of Dagster runs before every step, so the function of each op is replaced in place. Each name
that this module touches has a test that says when a new Dagster has moved it
(tests/dagster_bridge/test_canaries.py); `check_dagster` looks at them when definitions are governed. Seen to
work with Dagster 1.12.0 and 1.13.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, TypeAlias, cast

import dagster as dg
from dagster._core.definitions.assets.definition.cacheable_assets_definition import CacheableAssetsDefinition
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.definitions.target import AutomationTarget
from dagster._core.errors import DagsterInvariantViolationError
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.execution.plan import inputs as plan_inputs

from comity.protocol.errors import ConfigError

__all__ = [
    "DAGSTER_VERSIONS",
    "AssetGraph",
    "DagsterInvariantViolationError",
    "DecoratedOpFunction",
    "StepExecutionContext",
    "partition_loading_context",
]

AssetGraph: TypeAlias = BaseAssetGraph[Any]
"""The graph of a running job's assets, or that of a code location as other processes see it."""

DAGSTER_VERSIONS: Final = ((1, 12), (1, 14))
"""From the first, below the second: as `comity[dagster]` asks for."""

NODES_MAX: Final = 100_000
"""Ops and graphs of one code location, nested ones included. A definition that contains itself ends here."""

_GATE_MARK: Final = "__comity_gate__"
_LOADING: Final = "_load_input_with_input_manager"
"""The one function through which Dagster has any IO manager or input manager load an input of a step."""
_REPORTING: Final = "log_event"
"""How a function reports an event through its context, whichever context that is."""
_ATTACHED: Final = "_metadata_accumulator"
"""Where a step's context keeps the metadata that its function adds to outputs and assets."""


class ComputeGate(Protocol):
    """What stands before a step's inputs and its function, and looks at what the function returns."""

    def before_loading(self, manager: object, context: StepExecutionContext, input_name: str) -> None:
        """Called before a manager loads an input. Raises where it may not."""
        ...

    def reported(self, context: StepExecutionContext, event: object) -> object:
        """What Dagster is to see of an event that a function reports through its context. Raises where nothing."""
        ...

    def enter(self) -> ComputeWatch | None:
        """Called before the function. Raises where it may not run; None where it runs as before."""
        ...


class ComputeWatch(Protocol):
    """Looks at each result of a governed step before Dagster sees it."""

    def look(self, result: object) -> object:
        """What Dagster is to see of a result. Raises where it may see nothing."""
        ...


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
        (dg.OpExecutionContext, _REPORTING),
        (StepExecutionContext, "assets_def"),
        (StepExecutionContext, "node_handle"),
        (StepExecutionContext, "previous_attempt_count"),
        (dg.GraphDefinition, "node_defs"),
        (dg.AssetsDefinition, "node_def"),
        (dg.AssetsDefinition, "get_spec_for_check_key"),
        (dg.AssetCheckResult, "resolve_target_check_key"),
        (plan_inputs, _LOADING),
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


def location_of(context: StepExecutionContext) -> str:
    """The code location that a run was started from; empty where it was started within a process."""
    origin = context.dagster_run.remote_job_origin
    return origin.repository_origin.code_location_origin.location_name if origin is not None else ""


def check_found(context: StepExecutionContext, result: dg.AssetCheckResult) -> tuple[dg.AssetKey, str, bool]:
    """What a check's result is of: the asset, the check's name, and whether it blocks what depends on the asset.

    Raises:
        dagster.DagsterInvariantViolationError: as Dagster itself does, where the result is of no check of this step.
    """
    assets_def = context.assets_def
    named: dict[dg.AssetKey, set[str]] = {}
    for key in assets_def.check_keys if assets_def is not None else ():
        named.setdefault(key.asset_key, set()).add(key.name)
    found = result.resolve_target_check_key(named)
    spec = assets_def.get_spec_for_check_key(found) if assets_def is not None else None
    return found.asset_key, found.name, spec is not None and spec.blocking


def keep_attached(context: StepExecutionContext, said: Mapping[str, Mapping[str, object]]) -> int:
    """Take out what a step's function has added through its context, but for what `said` lists by output.

    Returns how many entries were taken out.
    """
    accumulator = getattr(context, _ATTACHED)
    kept: dict[Any, dict[str, Any]] = {}
    before = after = 0
    for handle, metadata in accumulator.per_output_metadata.items():
        own = said.get(getattr(handle, "output_name", ""), {})
        left = {key: value for key, value in metadata.items() if key in own and own[key] == value}
        before, after = before + len(metadata), after + len(left)
        if left:
            kept[handle] = left
    setattr(context, _ATTACHED, type(accumulator)(per_output_metadata=kept))
    return before - after


def reports_values(kind: dg.DagsterType) -> bool:
    """Whether a type's check is somebody's own function: what that says of a value goes to the event log."""
    own = type(kind) is dg.DagsterType or not type(kind).__module__.startswith("dagster.")
    return own or any(reports_values(inner) for inner in kind.inner_types)


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


def assets_defs_of(definitions: dg.Definitions) -> Iterator[dg.AssetsDefinition]:
    """The assets that these definitions can make."""
    for asset in _assets_of(definitions):
        if isinstance(asset, dg.AssetsDefinition) and asset.is_executable:
            yield asset


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


def place_loading_gate() -> None:
    """Let the gate of a step be asked before any manager loads an input of it, once for this process.

    Which managers load a step's inputs is known only when a run resolves its resources, and each may be of
    any class; Dagster calls all of them in one place. Steps without a gate are loaded as before.
    """
    load: Callable[[Any, Any], Iterator[object]] = getattr(plan_inputs, _LOADING)
    if hasattr(load, _GATE_MARK):
        return

    @functools.wraps(load)
    def governed(manager: Any, context: dg.InputContext) -> Iterator[object]:
        gate = gate_of(context.step_context.op_def)
        return load(manager if gate is None else _GatedLoading(manager, gate), context)

    setattr(governed, _GATE_MARK, True)
    setattr(plan_inputs, _LOADING, governed)


def place_reporting_gate() -> None:
    """Let the gate of a step look at the events that its function reports through a context, once per process."""
    report: Callable[[Any, Any], None] = getattr(dg.OpExecutionContext, _REPORTING)
    if hasattr(report, _GATE_MARK):
        return

    @functools.wraps(report)
    def governed(self: Any, event: Any) -> None:
        context: StepExecutionContext = self.get_step_execution_context()
        gate = gate_of(context.op_def)
        report(self, event if gate is None else gate.reported(context, event))

    setattr(governed, _GATE_MARK, True)
    setattr(dg.OpExecutionContext, _REPORTING, governed)


class _GatedLoading:
    """A manager that asks a gate before it loads."""

    def __init__(self, manager: Any, gate: ComputeGate) -> None:
        self._manager = manager
        self._gate = gate

    def load_input(self, context: dg.InputContext) -> object:
        self._gate.before_loading(self._manager, context.step_context, context.name)
        return self._manager.load_input(context)


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
                yield result if watch is None else watch.look(result)

        return governed_async_generator
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def governed_coroutine(*args: Any, **kwargs: Any) -> Any:
            watch = gate.enter()
            return _looked_at(await function(*args, **kwargs), watch)

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
        return _looked_at(result, watch)

    return governed_function


def _looked_at(result: object, watch: ComputeWatch | None) -> object:
    """What Dagster is to see of what a function returns."""
    if watch is None:
        return result
    # Results of Dagster's own are named tuples; only a plain one stands for several outputs.
    if type(result) is tuple:
        return tuple(watch.look(each) for each in cast("tuple[object, ...]", result))
    return watch.look(result)


def _watched(results: Iterable[Any], watch: ComputeWatch) -> Iterator[Any]:
    for result in results:
        yield watch.look(result)


async def _watched_async(results: AsyncIterator[Any], watch: ComputeWatch) -> AsyncIterator[Any]:
    async for result in results:
        yield watch.look(result)
