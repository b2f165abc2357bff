"""What a governed code location says of its gate, so that whoever launches its runs can ask as the gate will.

`govern` puts it into the metadata of the definitions, which other processes read and which the user interface does not
show. It is what the code server's process measured of itself; each step measures its own process again.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import dagster as dg
import msgspec

from comity.dagster_bridge.storage import Reversibility
from comity.node.client import ContextForm
from comity.protocol.errors import ConfigError
from comity.protocol.identifiers import sha256

GATE_PREFIX: Final = "comity/gate/"
FACTS_BYTES_MAX: Final = 1_048_576
"""Some ten thousand names of assets."""


class GateFacts(msgspec.Struct, frozen=True):
    """How the gate of a code location asks.

    `asks_at_step`: it signs a ticket of its own for each run, so only its steps can ask. `stores` says by asset
    what its store can do about a version that was found wrong.
    """

    code: str
    context: ContextForm
    purpose: str = ""
    credential: str = ""
    location: str = ""
    revision: str = ""
    asks_at_step: bool = False
    stores: dict[str, Reversibility] = {}  # msgspec copies it


class SeveralGatesError(ConfigError):
    """Definitions that were governed with different options were merged: which asset is whose is not known outside."""


def announce(definitions: dg.Definitions, facts: GateFacts) -> None:
    """Say it in the metadata of definitions, in place.

    Raises:
        ConfigError: this Dagster keeps the metadata so that nothing can be added.
    """
    metadata: Any = definitions.metadata
    if not isinstance(metadata, MutableMapping):
        raise ConfigError(
            f"Dagster {dg.__version__} keeps the metadata of definitions in a way that is not known"
        )
    data = msgspec.json.encode(facts, order="deterministic")
    metadata[GATE_PREFIX + sha256(data).hex()[:16]] = dg.TextMetadataValue(data.decode())


def gate_facts(metadata: Mapping[str, object]) -> GateFacts | None:
    """What a code location's metadata says; None where its definitions are not governed.

    Raises:
        SeveralGatesError: it says several things.
        ConfigError: it is not what `announce` writes.
    """
    said = [value for key, value in sorted(metadata.items()) if key.startswith(GATE_PREFIX)]
    if not said:
        return None
    first, *others = (_read(value) for value in said)
    bare = msgspec.structs.replace(first, stores={})
    if any(msgspec.structs.replace(other, stores={}) != bare for other in others):
        raise SeveralGatesError("definitions of this code location were governed with different options")
    stores = {name: kind for each in (first, *others) for name, kind in each.stores.items()}
    return msgspec.structs.replace(first, stores=dict(sorted(stores.items())))


def _read(value: object) -> GateFacts:
    text = value.value if isinstance(value, dg.TextMetadataValue) else None
    if not isinstance(text, str) or len(text) > FACTS_BYTES_MAX:
        raise ConfigError("the gate of the code location says nothing that can be read")
    try:
        return msgspec.json.decode(text, type=GateFacts)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ConfigError(f"the gate of the code location was made by another version: {exc}") from exc
