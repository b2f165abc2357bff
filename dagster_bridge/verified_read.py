"""Reading a file of an asset: found, read once, verified by the node, and only then given to be parsed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from comity.dagster_bridge.failures import ReadRefused, refused_locally, unanswered, unavailable
from comity.dagster_bridge.files import (
    SIDECAR_BYTES_MAX,
    FileError,
    Place,
    ReadFile,
    read_file,
    sidecar_of,
)
from comity.dagster_bridge.gate import HOME_VARIABLE, Gate
from comity.dagster_bridge.governed_assets import read_governed_assets
from comity.dagster_bridge.governed_step import GovernedStep
from comity.dagster_bridge.table_formats import Format
from comity.node.client import NodeClient, NodeError, ReadForm, TermForm
from comity.protocol.errors import ConfigError


@dataclass(frozen=True, slots=True)
class InputAsset:
    """An asset that is to be read: its id, whose it is, and where its files may lie."""

    name: str
    partners: bool
    place: Place
    path: Sequence[str]
    forms: tuple[Format, ...]

    def find(self, partition: str) -> tuple[ReadFile, Format]:
        """The file of one partition, read once.

        Raises:
            FileError: there is none, or there are several and nothing says which counts.
        """
        paths: dict[Format, Path] = {form: self.place.path(self.path, partition, form) for form in self.forms}
        found: list[tuple[ReadFile, Format]] = []
        for form, path in paths.items():
            file = read_file(path)
            if file is not None:
                found.append((file, form))
        if len(found) != 1:
            where = " and ".join(str(path) for path in paths.values())
            raise FileError(f"{len(found) or 'no'} files for {self.name} at {where}")
        return found[0]


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: a step of a run, or, without a gate, something outside of any run."""

    gate: Gate | None
    step: GovernedStep | None
    home: Path | None

    def verifies(self, asset: InputAsset) -> bool:
        """Whether the bytes are verified before use.

        A partner's always are. The node has said it for the inputs of a step. Outside of a run they are,
        unless the node's list of governed assets rules it out.
        """
        if asset.partners:
            return True
        if self.step is not None:
            return self.step.verifies(asset.name)
        if self.gate is not None:
            return False
        governed = read_governed_assets(self.home)
        return governed is None or governed.name([asset.name])

    def verify(self, asset: InputAsset, partition: str, file: ReadFile) -> None:
        """Have the node verify bytes. Returns if they are admitted.

        Raises:
            ReadRefused: they are not.
            NodeUnavailable: nobody knows.
        """
        sidecar = read_file(sidecar_of(file.path), SIDECAR_BYTES_MAX)
        form = ReadForm(
            intent=self.step.answer.intent if self.step is not None else "",
            asset=asset.name,
            partition=partition,
            digest=file.digest,
            size=len(file.data),
            sidecar=base64.b64encode(sidecar.data).decode("ascii") if sidecar is not None else "",
        )
        try:
            answer = self._client().read(form)
        except NodeError as exc:
            what = f"{asset.name} cannot be verified"
            raise unanswered(ReadRefused, f"that reads {asset.name}", what, exc) from exc
        except ConfigError as exc:
            raise unavailable(f"that reads {asset.name}", exc) from exc
        if not answer.admitted:
            causes = answer.causes or [TermForm("read_refused")]
            reasons = "; ".join(cause.message or cause.code for cause in causes)
            raise refused_locally(
                ReadRefused,
                f"{asset.name} is not admitted: {reasons} ({file.path})",
                causes,
                self.step.answer if self.step is not None else None,
                {
                    "comity/input": dg.MetadataValue.text(asset.name),
                    "comity/digest": dg.MetadataValue.text(file.digest),
                },
            )
        if self.step is not None:
            self.step.reads[asset.name, partition] = answer.actuation

    def _client(self) -> NodeClient:
        if self.step is not None:
            return self.step.client
        if self.gate is not None:
            return self.gate.client()
        if self.home is None:
            raise ConfigError(f"no node is named: set {HOME_VARIABLE}, or give the IO manager a home")
        return NodeClient.of_home(self.home)
