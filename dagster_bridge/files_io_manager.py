"""An IO manager for tables in files that keeps to the permit on write and verifies lineage on read.

On write it takes out what the permit withholds, lets the node record the start, puts the file in place at
once, and lays the records that vouch for it beside it. On read it hashes the bytes, lets the node verify
them, and only then parses those very bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import dagster as dg
from pydantic import Field

from comity.dagster_bridge.apart import sample_of
from comity.dagster_bridge.asset_facts import ASSET_KEY, asset_name
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
from comity.dagster_bridge.files import (
    SIDECAR_BYTES_MAX,
    FileError,
    FileMissingError,
    Place,
    read_file,
    sidecar_of,
)
from comity.dagster_bridge.files_storage import FilesStorage
from comity.dagster_bridge.gate import HOME_VARIABLE, Gate
from comity.dagster_bridge.governed_assets import read_governed_assets
from comity.dagster_bridge.governed_step import BOUND, CONTENT, GovernedStep
from comity.dagster_bridge.governed_write import write_version
from comity.dagster_bridge.storage import Reversibility, Slot, WrittenFile
from comity.dagster_bridge.table_formats import FORMATS, Format, UnwritableError
from comity.dagster_bridge.verified_read import Found, InputAsset, Reader
from comity.node.client import (
    PermittedOutput,
    TermForm,
)
from comity.protocol.errors import ConfigError
from comity.protocol.identifiers import pattern_matches

if TYPE_CHECKING:
    # Loading definitions must not cost the import of pandas and pyarrow: what needs them imports them.
    from comity.dagster_bridge.tables import Restricted

RECORD: Final = "comity/record"
COLUMNS_WITHHELD: Final = "comity/columns_withheld"
ROWS_WITHHELD: Final = "comity/rows_withheld"

VERSIONS_KEPT: Final = 2
VERSIONS_MAX: Final = 1_000

PARTNER_BYTES_MAX: Final = 536_870_912
"""A partner's table in memory, unless configured: a few compressed bytes may stand for any number of values."""
_INTERMEDIATE: Final = ".intermediate"
"""Below `base`: what passes between the ops of a graph, which is no asset. Dagster's IO manager keeps it."""


@dataclass(frozen=True, slots=True)
class _Written:
    """One partition that was written, and the actuation that says so."""

    permitted: PermittedOutput
    restricted: Restricted | None
    """What was taken out of the value; None where the function has written by itself."""
    actuation: str


class GovernedFilesIOManager(dg.ConfigurableIOManager):
    """Keeps tables as Parquet or CSV files below an own directory, and exchanges them through a shared one.

    A partner's asset is an external asset whose metadata names it, as `partner_assets()` makes them; it is
    read from the exchange. An asset that no policy speaks of is kept as a plain file.
    """

    base: str = Field(description="The organization's own directory for files of assets.")
    exchange: str = Field(default="", description="The directory that is shared with partners.")
    publish: list[str] = Field(
        default=[],
        description="Assets that are copied to the exchange, by path; * is one part, a last ** the rest.",
    )
    format: str = Field(default="parquet", description="How own assets are written: parquet or csv.")
    home: str = Field(
        default="", description=f"The node's home, if not {HOME_VARIABLE}; for reads outside of runs."
    )

    versions: int = Field(
        default=VERSIONS_KEPT,
        description="Versions before the newest that are kept of each governed asset, to be put back.",
        ge=0,
        le=VERSIONS_MAX,
    )
    partner_bytes_max: int = Field(
        default=PARTNER_BYTES_MAX,
        description="Bytes that one partition of a partner's table may take in memory.",
        gt=0,
    )

    @property
    def reversibility(self) -> Reversibility:
        """What it can do about a version that was found wrong (see `KeepsVersions`)."""
        return "versioned" if self.versions else "swap"

    def holds(self, value: object) -> bool:
        """Whether Dagster gives this value of a result to this IO manager (see `BindsContent`)."""
        from comity.dagster_bridge.tables import is_table

        return is_table(value) or isinstance(value, (Mapping, WrittenFile))

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
                    self._write_plain(asset, partition, value)
                return
            key, where = context.asset_key, context.step_context
            written = {
                partition: self._write(step, asset, partition, value, declared_of(where, key, partition))
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

    def _write_plain(self, asset: Sequence[str], partition: str, value: object) -> None:
        from comity.dagster_bridge.tables import arrow_table, table_bytes

        if isinstance(value, WrittenFile):
            data = FilesStorage(self._own(), self._format()).adopt(value).data
        else:
            data = table_bytes(arrow_table(value), self._format())
        path = self._own_path(asset, partition)
        self._own().finish(path)
        self._own().write(path, data)

    def _write(
        self, step: GovernedStep, asset: Sequence[str], partition: str, value: object, declared: Declared
    ) -> _Written:
        """Write one partition under the permit."""
        from comity.dagster_bridge.tables import restrict

        permitted = step.permitted("/".join(asset), partition)
        way = step.answer.way
        staged = way == "staged"
        storage = FilesStorage(self._own() if staged else self._own().apart(way), self._format())
        slot = Slot(tuple(asset), partition)
        member = permitted.asset.partition("/")[0]
        published = self._published_path(member, asset, partition) if staged else None
        # No name, no value and no permit that cannot be written begins an attempt.
        storage.path(slot)
        if way == "sampled":
            value = sample_of(value, self._format())
        if isinstance(value, WrittenFile):
            restricted, prepared = None, storage.adopt(value)
        else:
            restricted = restrict(value, permitted)
            prepared = storage.prepare(restricted.table)
        withheld = restricted.withheld if restricted is not None else ()
        written = write_version(storage, step, slot, permitted, prepared, withheld, declared)
        if published is not None:
            self._shared().write(published, prepared.data)
            self._shared().write(sidecar_of(published), written.sidecar)
        return _Written(permitted, restricted, written.actuation)

    def _published_path(self, member: str, asset: Sequence[str], partition: str) -> Path | None:
        """Where a copy for partners goes, if this asset is published."""
        name = f"*/{'/'.join(asset)}"
        if not any(pattern_matches(f"*/{pattern}", name) for pattern in self.publish):
            return None
        return self._shared().path([member, *asset], partition, self._format())

    def _load(self, context: dg.InputContext) -> object:
        from comity.dagster_bridge.tables import Bounds, parse_table, wants_arrow

        step_context = _step_context(context)
        upstream = context.upstream_output
        asset = self._input(context.asset_key, upstream.definition_metadata if upstream is not None else {})
        if step_context is None:
            reader = Reader(gate=None, step=None, home=self._home())
        else:
            step = self._step(step_context, asset.name)
            gate = gate_of(step_context.op_def)
            reader = (
                Reader(gate, step, self._home(), gate.stated(step_context))
                if isinstance(gate, Gate)
                else Reader(gate=None, step=None, home=self._home())
            )
        as_arrow = wants_arrow(context.dagster_type.typing_type)
        values: dict[str, object] = {}
        partitions = context.asset_partition_keys if context.has_asset_partitions else ("",)
        if not partitions:
            # As Dagster's own IO managers do: a first partition that reads its predecessor has none.
            return None
        for partition in partitions:
            if reader.verifies(asset):
                found = reader.admitted(asset, str(partition))
                self._publish_anew(asset, str(partition), found)
            else:
                found = asset.find(str(partition))
            bounds = Bounds(self.partner_bytes_max, found.rows) if asset.partners else None
            values[str(partition)] = parse_table(
                found.file.data, found.form, as_arrow=as_arrow, bounds=bounds
            )
        return next(iter(values.values())) if len(values) == 1 else values

    def _publish_anew(self, asset: InputAsset, partition: str, found: Found) -> None:
        """Bring the partners' copy of an own file up to it, where its writer ended before it had done so."""
        governed = read_governed_assets(self._home()) if not asset.partners and self.publish else None
        if governed is None:
            return
        path = self._published_path(governed.member, asset.path, partition)
        sidecar = read_file(sidecar_of(found.file.path), SIDECAR_BYTES_MAX)
        if path is None or sidecar is None:
            return
        try:
            shared = read_file(sidecar_of(path), SIDECAR_BYTES_MAX)
            if shared is None and not found.recovered and not path.exists():
                # Never published: reading an asset does not publish it.
                return
            if shared is None or shared.data != sidecar.data:
                self._shared().write(path, found.file.data)
                self._shared().write(sidecar_of(path), sidecar.data)
        except FileError:
            # Who reads may not be who publishes. The next write publishes, too.
            return

    def _input(self, key: dg.AssetKey, metadata: Mapping[str, Any]) -> InputAsset:
        name = asset_name(key, metadata)
        if ASSET_KEY in metadata:
            # The partner decides about the format of its files.
            forms = tuple(FORMATS.values())
            return InputAsset(name, partners=True, place=self._shared(), path=name.split("/"), forms=forms)
        return InputAsset(name, partners=False, place=self._own(), path=key.path, forms=(self._format(),))

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

    def _format(self) -> Format:
        form = FORMATS.get(self.format)
        if form is None:
            raise ConfigError(f"the format of files is {self.format!r}, not one of {', '.join(FORMATS)}")
        return form

    def _own(self) -> Place:
        return Place(Path(self.base), shared=False, versions=self.versions)

    def _own_path(self, asset: Sequence[str], partition: str) -> Path:
        return self._own().path(asset, partition, self._format())

    def _shared(self) -> Place:
        if not self.exchange:
            raise ConfigError("the IO manager has no exchange: give the directory shared with partners")
        return Place(Path(self.exchange), shared=True)

    def _home(self) -> Path | None:
        home = self.home or os.environ.get(HOME_VARIABLE, "")
        return Path(home) if home else None

    def _intermediate(self) -> dg.IOManager:
        # It holds whole values, as no permit has restricted them yet.
        self._own().make_private(_INTERMEDIATE)
        folder = dg.FilesystemIOManager(base_dir=str(Path(self.base) / _INTERMEDIATE))
        return folder.create_io_manager(dg.build_init_resource_context())


def _values(name: str, obj: object, partitions: tuple[str, ...]) -> dict[str, object]:
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
