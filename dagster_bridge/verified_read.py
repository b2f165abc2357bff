"""Reading a version of an asset: found, read once, verified by the node, and only then given to be parsed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import dagster as dg

from comity.dagster_bridge.apart import KEPT_APART
from comity.dagster_bridge.failures import (
    GovernanceFailure,
    ReadRefused,
    refused_locally,
    unanswered,
    unavailable,
)
from comity.dagster_bridge.files import FileError, FileMissingError
from comity.dagster_bridge.gate import HOME_VARIABLE, Gate
from comity.dagster_bridge.governed_assets import read_governed_assets
from comity.dagster_bridge.governed_step import GovernedStep
from comity.node.client import NodeClient, NodeError, ReadAnswer, ReadForm, TermForm
from comity.protocol.errors import ConfigError

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Found(Generic[C]):
    """A version as it was read, once, with what lay beside it. `C` is its content in the store's own form.

    Attributes:
        digest: SHA-256 (hex) of its bytes, or of the form that stands for them.
        where: its place, for people.
        recovered: it was put in place only now.
        rows: what its record says, where it was verified.
    """

    content: C
    digest: str
    size: int
    where: str
    sidecar: bytes
    recovered: bool = False
    rows: int | None = None


class InputAsset(Protocol[C]):
    """An asset that is to be read, in the store that keeps it."""

    @property
    def name(self) -> str:
        """Its id; of a partner's with the member."""
        ...

    @property
    def partners(self) -> bool:
        """Whether it is a partner's: then nothing in its place is changed."""
        ...

    def apart(self, way: str) -> InputAsset[C]:
        """The same asset where what is made in another way is kept."""
        ...

    def find(self, partition: str) -> Found[C]:
        """The version in the place of one partition. An own one that was recorded and not put in place is, first.

        Raises:
            FileMissingError: there is none.
            FileError: it cannot be read, or there are several and nothing says which counts.
        """
        ...

    def unfinished(self, partition: str) -> Iterator[Found[C]]:
        """What is staged, `NEXT_MAX` at most, the oldest first, each read when it is asked for."""
        ...

    def finish(self, partition: str, found: Found[C], sidecar: bytes) -> None:
        """Put in place what is staged and was recorded.

        Raises:
            FileError: the disk refuses.
        """
        ...

    def put_back(self, partition: str, digest: str) -> bool:
        """Put a version from before, by its digest, back in its place; whether it is kept.

        Raises:
            FileError: the disk refuses.
        """
        ...

    def words(self, partition: str) -> str:
        """One partition of the asset, for people."""
        ...


def words_of(name: str, partition: str) -> str:
    """One partition of an asset, for people."""
    return f"partition {partition} of {name}" if partition else name


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: a step of a run, or, without a gate, something outside of any run.

    `stated` are the inputs that the node was told of when the step was asked for.
    """

    gate: Gate | None
    step: GovernedStep | None
    home: Path | None
    stated: frozenset[str] = frozenset()

    def verifies(self, asset: InputAsset[Any]) -> bool:
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

    def admitted(self, asset: InputAsset[C], partition: str) -> Found[C]:
        """The version of one partition that the node admits.

        Raises:
            ReadRefused: it admits none.
            NodeUnavailable: nobody knows.
            FileError: there is none, or several.
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
            if (again.digest, again.sidecar) != (found.digest, found.sidecar):
                # Its writer was putting it in place just now.
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

    def _kept_apart(self, asset: InputAsset[C], partition: str) -> Found[C] | None:
        """What a step before made in the same way, where the decision rests on that; else None."""
        way = self.step.answer.way if self.step is not None else "staged"
        if asset.partners or way not in KEPT_APART:
            return None
        beside = asset.apart(way)
        try:
            found = beside.find(partition)
        except FileMissingError:
            return None
        answer = self._ask(beside, partition, found)
        return self._noted(beside, partition, found, answer) if answer.admitted else None

    def _recorded(self, asset: InputAsset[C], partition: str) -> Found[C] | None:
        """What the node has recorded, and whose writer ended before it had put it in its place."""
        if asset.partners:
            return None
        for staged in asset.unfinished(partition):
            answer = self._ask(asset, partition, staged)
            if not answer.admitted or not answer.sidecar:
                continue
            asset.finish(partition, staged, decoded_sidecar(answer.sidecar))
            found = asset.find(partition)
            if found.digest == staged.digest:
                return self._noted(asset, partition, found, answer)
        return None

    def _ask(self, asset: InputAsset[C], partition: str, found: Found[C]) -> ReadAnswer:
        form = ReadForm(
            intent=self.step.answer.intent if self.step is not None else "",
            to_check=self.step is not None and self.step.only_checks,
            asset=asset.name,
            partition=partition,
            digest=found.digest,
            size=found.size,
            sidecar=base64.b64encode(found.sidecar).decode("ascii"),
        )
        try:
            return self._client().read(form)
        except NodeError as exc:
            what = f"{asset.words(partition)} cannot be verified"
            raise unanswered(ReadRefused, f"that reads {asset.name}", what, exc) from exc
        except ConfigError as exc:
            raise unavailable(f"that reads {asset.name}", exc) from exc

    def _noted(self, asset: InputAsset[C], partition: str, found: Found[C], answer: ReadAnswer) -> Found[C]:
        if self.step is not None:
            self.step.reads[asset.name, partition] = answer.actuation
            if asset.partners:
                self.step.partner_reads.add(asset.name)
        return replace(found, rows=answer.rows)

    def _not_admitted(
        self, asset: InputAsset[C], partition: str, found: Found[C], answer: ReadAnswer
    ) -> GovernanceFailure:
        causes = answer.causes or [TermForm("read_refused")]
        reasons = "; ".join(cause.message or cause.code for cause in causes)
        extra = {
            "comity/input": dg.MetadataValue.text(asset.name),
            "comity/digest": dg.MetadataValue.text(found.digest),
        }
        if partition:
            extra["comity/partition"] = dg.MetadataValue.text(partition)
        return refused_locally(
            ReadRefused,
            f"{asset.words(partition)} is not admitted: {reasons} ({found.where})",
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
