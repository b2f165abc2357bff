"""Reading a file of an asset: found, read once, verified by the node, and only then given to be parsed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg

from comity.dagster_bridge.apart import KEPT_APART
from comity.dagster_bridge.failures import (
    GovernanceFailure,
    ReadRefused,
    refused_locally,
    unanswered,
    unavailable,
)
from comity.dagster_bridge.files import (
    NEXT_MAX,
    SIDECAR_BYTES_MAX,
    FileError,
    FileMissingError,
    Place,
    ReadFile,
    read_file,
    sidecar_of,
    unfinished,
)
from comity.dagster_bridge.gate import HOME_VARIABLE, Gate
from comity.dagster_bridge.governed_assets import read_governed_assets
from comity.dagster_bridge.governed_step import GovernedStep
from comity.dagster_bridge.table_formats import Format
from comity.node.client import NodeClient, NodeError, ReadAnswer, ReadForm, TermForm
from comity.protocol.errors import ConfigError


@dataclass(frozen=True, slots=True)
class InputAsset:
    """An asset that is to be read: its id, whose it is, and where its files may lie."""

    name: str
    partners: bool
    place: Place
    path: Sequence[str]
    forms: tuple[Format, ...]

    def paths(self, partition: str) -> dict[Format, Path]:
        """Where the file of one partition may lie, by format."""
        return {form: self.place.path(self.path, partition, form) for form in self.forms}

    def find(self, partition: str) -> Found:
        """The file of one partition, read once. An own one that was recorded and not put in place is, first.

        Raises:
            FileMissingError: there is none.
            FileError: there are several and nothing says which counts.
        """
        found: list[Found] = []
        for form, path in self.paths(partition).items():
            recovered = not self.partners and self.place.finish(path)
            file = read_file(path)
            if file is not None:
                sidecar = read_file(sidecar_of(path), SIDECAR_BYTES_MAX)
                found.append(Found(file, form, sidecar.data if sidecar is not None else b"", recovered))
        if len(found) == 1:
            return found[0]
        where = " and ".join(str(path) for path in self.paths(partition).values())
        if not found:
            raise FileMissingError(
                f"there is no file of {self.words(partition)} yet, at {where}: make it, or wait until"
                f" {'its writer has published it' if self.partners else 'its step has'}"
            )
        raise FileError(f"{len(found)} files for {self.words(partition)} at {where}")

    def put_back(self, partition: str, digest: str) -> bool:
        """Put a version from before, by the digest of its bytes, back in its place; whether it is kept.

        Raises:
            FileError: the disk refuses.
        """
        return any(self.place.put_back(path, digest) for path in self.paths(partition).values())

    def words(self, partition: str) -> str:
        """One partition of the asset, for people."""
        return f"partition {partition} of {self.name}" if partition else self.name


@dataclass(frozen=True, slots=True)
class Found:
    """A file with its format and what lay beside it.

    `recovered` says that it was put in place only now; `rows` is what its record says, where it was verified.
    """

    file: ReadFile
    form: Format
    sidecar: bytes
    recovered: bool = False
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: a step of a run, or, without a gate, something outside of any run.

    `stated` are the inputs that the node was told of when the step was asked for.
    """

    gate: Gate | None
    step: GovernedStep | None
    home: Path | None
    stated: frozenset[str] = frozenset()

    def verifies(self, asset: InputAsset) -> bool:
        """Whether the bytes are verified before use.

        A partner's always are. The node has said it for the stated inputs of a step. What a function loads
        besides these, or what is read outside of a run, is verified unless the node's list of governed
        assets rules it out.
        """
        if asset.partners:
            return True
        if self.gate is not None and asset.name in self.stated:
            return self.step is not None and self.step.verifies(asset.name)
        home = self.gate.options.home if self.gate is not None else None
        governed = read_governed_assets(home or self.home)
        return governed is None or governed.name([asset.name])

    def admitted(self, asset: InputAsset, partition: str) -> Found:
        """The file of one partition whose bytes the node admits.

        Raises:
            ReadRefused: it admits none.
            NodeUnavailable: nobody knows.
            FileError: there is no file, or several.
        """
        apart = self._kept_apart(asset, partition)
        if apart is not None:
            return apart
        try:
            found = asset.find(partition)
        except FileMissingError:
            recorded = self._recorded(asset, partition)
            if recorded is None:
                raise
            return recorded
        answer = self._ask(asset, partition, found)
        if not answer.admitted:
            again = asset.find(partition)
            if (again.file.digest, again.sidecar) != (found.file.digest, found.sidecar):
                # Its writer was putting file and sidecar in place, one after the other.
                found, answer = again, self._ask(asset, partition, again)
        if answer.put_back and not asset.partners and asset.put_back(partition, answer.put_back):
            # The node's organization has rolled back what lay there.
            found = asset.find(partition)
            answer = self._ask(asset, partition, found)
        if not answer.admitted:
            recorded = self._recorded(asset, partition)
            if recorded is not None:
                return recorded
            raise self._not_admitted(asset, partition, found, answer)
        return self._noted(asset, partition, found, answer)

    def _kept_apart(self, asset: InputAsset, partition: str) -> Found | None:
        """What a step before made in the same way, where the decision rests on that; else None."""
        way = self.step.answer.way if self.step is not None else "staged"
        if asset.partners or way not in KEPT_APART:
            return None
        beside = replace(asset, place=asset.place.apart(way))
        try:
            found = beside.find(partition)
        except FileMissingError:
            return None
        answer = self._ask(beside, partition, found)
        return self._noted(beside, partition, found, answer) if answer.admitted else None

    def _recorded(self, asset: InputAsset, partition: str) -> Found | None:
        """New bytes that the node has recorded, and whose writer ended before it had their sidecar."""
        if asset.partners:
            return None
        for form, path in asset.paths(partition).items():
            for beside in unfinished(path)[-NEXT_MAX:]:
                file = read_file(beside)
                if file is None:
                    continue
                answer = self._ask(asset, partition, Found(file, form, b""))
                if not answer.admitted or not answer.sidecar:
                    continue
                asset.place.write(sidecar_of(beside), decoded_sidecar(answer.sidecar))
                return self._noted(asset, partition, asset.find(partition), answer)
        return None

    def _ask(self, asset: InputAsset, partition: str, found: Found) -> ReadAnswer:
        form = ReadForm(
            intent=self.step.answer.intent if self.step is not None else "",
            to_check=self.step is not None and self.step.only_checks,
            asset=asset.name,
            partition=partition,
            digest=found.file.digest,
            size=len(found.file.data),
            sidecar=base64.b64encode(found.sidecar).decode("ascii"),
        )
        try:
            return self._client().read(form)
        except NodeError as exc:
            what = f"{asset.words(partition)} cannot be verified"
            raise unanswered(ReadRefused, f"that reads {asset.name}", what, exc) from exc
        except ConfigError as exc:
            raise unavailable(f"that reads {asset.name}", exc) from exc

    def _noted(self, asset: InputAsset, partition: str, found: Found, answer: ReadAnswer) -> Found:
        if self.step is not None:
            self.step.reads[asset.name, partition] = answer.actuation
            if asset.partners:
                self.step.partner_reads.add(asset.name)
        return replace(found, rows=answer.rows)

    def _not_admitted(
        self, asset: InputAsset, partition: str, found: Found, answer: ReadAnswer
    ) -> GovernanceFailure:
        causes = answer.causes or [TermForm("read_refused")]
        reasons = "; ".join(cause.message or cause.code for cause in causes)
        extra = {
            "comity/input": dg.MetadataValue.text(asset.name),
            "comity/digest": dg.MetadataValue.text(found.file.digest),
        }
        if partition:
            extra["comity/partition"] = dg.MetadataValue.text(partition)
        return refused_locally(
            ReadRefused,
            f"{asset.words(partition)} is not admitted: {reasons} ({found.file.path})",
            causes,
            self.step.answer if self.step is not None else None,
            extra,
        )

    def _client(self) -> NodeClient:
        if self.step is not None:
            return self.step.client
        if self.gate is not None:
            return self.gate.client()
        if self.home is None:
            raise ConfigError(f"no node is named: set {HOME_VARIABLE}, or give the IO manager a home")
        return NodeClient.of_home(self.home)


def decoded_sidecar(sidecar: str) -> bytes:
    """The bytes of a sidecar that the node gave.

    Raises:
        FileError: it is not base64.
    """
    try:
        return base64.b64decode(sidecar, validate=True)
    except ValueError as exc:
        raise FileError(f"the node's sidecar is not base64: {exc}") from exc
