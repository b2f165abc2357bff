"""What every IO manager over a store of versions does: it keeps to the permit on write, and verifies lineage on read.

On write it takes out what the permit withholds, lets the node record the start, and has the store put the version in
its place at once, with the records that vouch for it. On read the content is hashed, verified by the node, and only
then parsed: the very content that was hashed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast

import dagster as dg
from pydantic import Field

from comity.dagster_bridge.apart import sample_of
from comity.dagster_bridge.dagster_internals import (
    DagsterInvariantViolationError,
    StepExecutionContext,
    current_step,
    gate_of,
)
from comity.dagster_bridge.declarations import declared_of
from comity.dagster_bridge.declared import Declared
from comity.dagster_bridge.failures import (
    GovernanceFailure,
    Metadata,
    ReadRefused,
    WriteRefused,
    missing,
    refused_locally,
)
from comity.dagster_bridge.files import FileError, FileMissingError, Place
from comity.dagster_bridge.gate import HOME_VARIABLE, Gate
from comity.dagster_bridge.governed_assets import read_governed_assets
from comity.dagster_bridge.governed_step import BOUND, CONTENT, GovernedStep
from comity.dagster_bridge.governed_write import write_version
from comity.dagster_bridge.storage import Reversibility, Slot, Storage
from comity.dagster_bridge.table_formats import UnwritableError
from comity.dagster_bridge.verified_read import Found, InputAsset, Reader
from comity.node.client import PermittedOutput, TermForm
from comity.protocol.errors import ConfigError

if TYPE_CHECKING:
    # Loading definitions must not cost the import of pandas and pyarrow: what needs them imports them.
    from comity.dagster_bridge.tables import Restricted

RECORD: Final = "comity/record"
COLUMNS_WITHHELD: Final = "comity/columns_withheld"
ROWS_WITHHELD: Final = "comity/rows_withheld"

VERSIONS_KEPT: Final = 2
VERSIONS_MAX: Final = 1_000

_INTERMEDIATE: Final = ".intermediate"
"""Below the store's own folder: what passes between the ops of a graph, which is no asset. Dagster's IO manager
keeps it."""

Publish: TypeAlias = Callable[[Any, bytes], None]
"""Gives partners a copy of what was prepared, with its sidecar."""


@dataclass(frozen=True, slots=True)
class _Written:
    """One partition that was written, and the actuation that says so."""

    permitted: PermittedOutput
    restricted: Restricted | None
    """What was taken out of the value; None where the function has written by itself."""
    actuation: str


class GovernedIOManager(dg.ConfigurableIOManager):
    """Keeps tables in a store of versions. What the store is, a subclass says."""

    home: str = Field(
        default="", description=f"The node's home, if not {HOME_VARIABLE}; for reads outside of runs."
    )
    versions: int = Field(
        default=VERSIONS_KEPT,
        description="Versions before the newest that are kept of each governed asset, to be put back.",
        ge=0,
        le=VERSIONS_MAX,
    )

    _written_kind: ClassVar[type]
    """What a function returns that has written its table by itself."""

    @property
    def reversibility(self) -> Reversibility:
        """What it can do about a version that was found wrong (see `KeepsVersions`)."""
        return "versioned" if self.versions else "swap"

    def holds(self, value: object) -> bool:
        """Whether Dagster gives this value of a result to this IO manager (see `BindsContent`)."""
        from comity.dagster_bridge.tables import is_table

        return is_table(value) or isinstance(value, (Mapping, self._written_kind))

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write an output within its permit.

        Raises:
            GovernanceFailure: the permit does not allow it, or it cannot be brought within the permit.
        """
        if not context.has_asset_key:
            self._intermediate().handle_output(context, obj)
            return
        asset = context.asset_key.path
        name = "/".join(asset)
        partitioned = context.has_asset_partitions
        partitions = tuple(str(key) for key in context.asset_partition_keys) if partitioned else ()
        values = _values(name, obj, partitions)
        step = self._step(context.step_context, name)
        try:
            if step is None or not step.judged:
                for partition, value in values.items():
                    self._write_ungoverned(Slot(tuple(asset), partition), value)
                return
            key, where = context.asset_key, context.step_context
            written = {
                partition: self._write(
                    step, Slot(tuple(asset), partition), value, declared_of(where, key, partition)
                )
                for partition, value in values.items()
            }
        except UnwritableError as exc:
            answer = step.answer if step is not None else None
            raise refused_locally(WriteRefused, f"{name} is not written: {exc}", [exc.cause], answer) from exc
        except (FileError, ConfigError) as exc:
            raise _unusable(WriteRefused, f"{name} is not written", exc) from exc
        metadata = _written_metadata(step, written)
        context.add_output_metadata(metadata)  # pyright: ignore[reportUnknownMemberType]

    def load_input(self, context: dg.InputContext) -> object:
        """Verify an input, then parse it.

        Raises:
            GovernanceFailure: the step may not go on, or the input is not admitted. It is not parsed.
        """
        if not context.has_asset_key:
            return self._intermediate().load_input(context)
        shown = context.asset_key.to_user_string()
        try:
            return self._load(context)
        except UnwritableError as exc:
            raise refused_locally(ReadRefused, f"{shown} is not read: {exc}", [exc.cause]) from exc
        except FileMissingError as exc:
            raise missing(f"{shown} is not read: {exc}", shown) from exc
        except (FileError, ConfigError) as exc:
            raise _unusable(ReadRefused, f"{shown} is not read", exc) from exc

    # What a store is

    def _storage(self, way: str) -> Storage[Any, Any]:
        """The store of the assets themselves (`staged`), or of what is made in another way."""
        raise NotImplementedError

    def _folder(self) -> Path:
        """The organization's own folder that the store is in."""
        raise NotImplementedError

    def _put(self, slot: Slot, prepared: Any) -> None:
        """Put what no policy speaks of in its place."""
        raise NotImplementedError

    def _table_written(self, written: Any) -> object:
        """The table that a function has written by itself."""
        raise NotImplementedError

    def _input(self, key: dg.AssetKey, metadata: Mapping[str, Any]) -> InputAsset[Any]:
        """An asset that is to be read, by its definition's metadata."""
        raise NotImplementedError

    def _parsed(self, asset: InputAsset[Any], found: Found[Any], *, as_arrow: bool) -> object:
        """The table that was read: a pandas data frame, or an Arrow table."""
        raise NotImplementedError

    def _publication(self, permitted: PermittedOutput, slot: Slot) -> Publish | None:
        """How partners are given a copy of a version, if they are."""
        del permitted, slot
        return None

    def _admitted(self, asset: InputAsset[Any], partition: str, found: Found[Any]) -> None:
        """Called with what the node has admitted."""

    # What every store is used for

    def _write_ungoverned(self, slot: Slot, value: object) -> None:
        from comity.dagster_bridge.tables import arrow_table

        storage = self._storage("staged")
        written = isinstance(value, self._written_kind)
        self._put(slot, storage.adopt(value) if written else storage.prepare(arrow_table(value)))

    def _write(self, step: GovernedStep, slot: Slot, value: object, declared: Declared) -> _Written:
        """Write one partition under the permit."""
        from comity.dagster_bridge.tables import restrict

        permitted = step.permitted(slot.name, slot.partition)
        way = step.answer.way
        storage = self._storage(way)
        publish = self._publication(permitted, slot) if way == "staged" else None
        # No name, no value and no permit that cannot be written begins an attempt.
        storage.require_place(slot)
        if way == "sampled":
            written = isinstance(value, self._written_kind)
            value = sample_of(self._table_written(value) if written else value)
        if isinstance(value, self._written_kind):
            restricted, prepared = None, storage.adopt(value)
        else:
            restricted = restrict(value, permitted)
            prepared = storage.prepare(restricted.table)
        withheld = restricted.withheld if restricted is not None else ()
        made = write_version(storage, step, slot, permitted, prepared, withheld, declared)
        if publish is not None:
            publish(prepared, made.sidecar)
        return _Written(permitted, restricted, made.actuation)

    def _load(self, context: dg.InputContext) -> object:
        from comity.dagster_bridge.data_frames import as_wanted, wants_pandas

        step_context = _step_context(context)
        upstream = context.upstream_output
        asset = self._input(context.asset_key, upstream.definition_metadata if upstream is not None else {})
        reader = self._reader(step_context, asset.name)
        annotation = context.dagster_type.typing_type
        values: dict[str, object] = {}
        partitions = context.asset_partition_keys if context.has_asset_partitions else ("",)
        if not partitions:
            # As Dagster's own IO managers do: a first partition that reads its predecessor has none.
            return None
        for partition in partitions:
            if reader.verifies(asset):
                found = reader.admitted(asset, str(partition))
                self._admitted(asset, str(partition), found)
            else:
                found = asset.find(str(partition))
            table = self._parsed(asset, found, as_arrow=not wants_pandas(annotation))
            values[str(partition)] = as_wanted(table, annotation)
        return next(iter(values.values())) if len(values) == 1 else values

    def _reader(self, context: StepExecutionContext | None, asset: str) -> Reader:
        if context is not None:
            step = self._step(context, asset)
            gate = gate_of(context.op_def)
            if isinstance(gate, Gate):
                return Reader(gate, step, self._home(), gate.stated(context))
        return Reader(gate=None, step=None, home=self._home())

    def _step(self, context: StepExecutionContext, name: str) -> GovernedStep | None:
        """The step's permit; without a gate, only what no policy names may pass.

        Raises:
            GovernanceFailure: the step may not go on.
        """
        gate = gate_of(context.op_def)
        if isinstance(gate, Gate):
            return gate.step(context)
        governed = read_governed_assets(self._home())
        if governed is None or governed.name([name]):
            raise refused_locally(
                WriteRefused,
                f"{name} may be governed and these definitions are not: pass them through govern(defs)",
                [TermForm("definitions_not_governed")],
            )
        return None

    def _home(self) -> Path | None:
        home = self.home or os.environ.get(HOME_VARIABLE, "")
        return Path(home) if home else None

    def _intermediate(self) -> dg.IOManager:
        # It holds whole values, as no permit has restricted them yet.
        own = self._folder()
        Place(own, shared=False).make_private(_INTERMEDIATE)
        folder = dg.FilesystemIOManager(base_dir=str(own / _INTERMEDIATE))
        return folder.create_io_manager(dg.build_init_resource_context())


def _values(name: str, obj: object, partitions: Sequence[str]) -> dict[str, object]:
    """What is to be written, by partition: several come as a mapping from partition to table."""
    if len(partitions) <= 1:
        return {partitions[0] if partitions else "": obj}
    values: dict[str, object] = {}
    if isinstance(obj, Mapping):
        values = {str(key): value for key, value in cast("Mapping[object, object]", obj).items()}
    if not values or not set(values) <= set(partitions):
        raise refused_locally(
            WriteRefused,
            f"{name} is made for {len(partitions)} partitions at once: return its tables by partition",
            [TermForm("partitions_not_mapped", {"asset": name})],
        )
    return values


def _written_metadata(step: GovernedStep, written: Mapping[str, _Written]) -> dict[str, Any]:
    """What the materialization says. Values that were withheld are not in it: they stay with the node."""
    first = next(iter(written.values()))
    metadata: Metadata = {
        **step.output_metadata(first.permitted),
        CONTENT: dg.MetadataValue.text(BOUND),
        RECORD: dg.MetadataValue.text(first.actuation)
        if len(written) == 1
        else dg.MetadataValue.json({partition: made.actuation for partition, made in written.items()}),
    }
    restricted = [made.restricted for made in written.values() if made.restricted is not None]
    columns = sorted({column for each in restricted for column in each.columns_withheld})
    rows = sum(each.rows_withheld for each in restricted)
    if columns:
        metadata[COLUMNS_WITHHELD] = dg.MetadataValue.json(columns)
    if rows:
        metadata[ROWS_WITHHELD] = dg.MetadataValue.int(rows)
    return dict(metadata)


def _step_context(context: dg.InputContext) -> StepExecutionContext | None:
    """The step that reads; where a step's function loads an asset by itself, the current one."""
    try:
        return context.step_context
    except DagsterInvariantViolationError:
        return current_step()


def _unusable(kind: type[GovernanceFailure], what: str, exc: FileError | ConfigError) -> GovernanceFailure:
    return refused_locally(kind, f"{what}: {exc}", [TermForm("file_unusable", message=str(exc))])
