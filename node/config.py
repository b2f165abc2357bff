"""The node's settings: `node.toml`, read whole and checked before anything starts.

A key that nobody reads is an error, for it was meant to do something. Every error names file, line and key,
and what is allowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias, cast, get_args

import msgspec

from comity.attestation.toml_text import DIGEST, SETTINGS, digest_of, quote
from comity.node.address import (
    ADDRESSES_MAX,
    FORM,
    LOOPBACK_FORM,
    WEBHOOK_FORM,
    dial_address,
    listen_address,
    loopback_address,
    webhook_url,
)
from comity.node.owner_files import write_file
from comity.node.toml_document import Key, TomlDocument, read_toml, toml_document
from comity.protocol.errors import ConfigError
from comity.protocol.identifiers import Code, MemberId, SpiffeId, member_of

CONFIG_BYTES_MAX: Final = 65_536
"""Settings written by hand, with addresses of every peer."""
WAIT_S_MAX: Final = 600
"""The longest that one call of the local API may wait."""
PEERS_MAX: Final = 256
"""Peers whose addresses may be overridden: as many as one node connects to."""
PATH_BYTES_MAX: Final = 1_024

Security: TypeAlias = Literal["noise", "tls"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["auto", "json", "words"]


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one node.

    Attributes:
        member: the organization, e.g. `clinic-north.example`.
        node: this node's name under the organization, e.g. `spiffe://clinic-north.example/node/n1`.
        listen: the multiaddress for peers.
        security: how connections between nodes are encrypted.
        gossip: whether this node tells and hears of news by gossip; without it the next pull brings them.
        store: file of the store; relative to the home.
        log_level: the least that is logged.
        log_format: how it is written.
        metrics_listen: `host:port` on the loopback where metrics are served; empty where they are not.
        page_listen: `host:port` on the loopback of the people's page; empty where there is none.
        notify_webhook: the URL that is told what waits for people; empty where none is.
        notify_secret_file: file of the secret that signs it, relative to the home; empty where nothing does.
        purpose: the purpose of steps that name none; empty where they must.
        automation: id of the credential of runs that nobody signed a ticket for; None where there are none.
        wait_default_s, wait_max_s: how long a call waits for a decision when it does not say, and at most.
        peers: addresses of nodes, in the place of those that the coalition file gives.

    Raises:
        ConfigError: a value is not what it has to be.
    """

    member: str
    node: str
    listen: str = "/ip4/127.0.0.1/tcp/4001"
    security: Security = "noise"
    gossip: bool = True
    store: Path = Path("store.sqlite3")
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    metrics_listen: str = ""
    page_listen: str = ""
    notify_webhook: str = ""
    notify_secret_file: str = ""
    purpose: str = ""
    automation: bytes | None = None
    wait_default_s: int = 60
    wait_max_s: int = WAIT_S_MAX
    peers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        values = {setting.field: getattr(self, setting.field) for setting in _SETTINGS}
        for setting in _SETTINGS:
            value = values[setting.field]
            if value is None and setting.optional:
                continue
            try:
                same = setting.read(setting.raw(value)) == value
            except msgspec.ValidationError as exc:
                # What a schema says of a pattern helps nobody.
                raise ConfigError(f"{setting.field}: {value!r:.80} is not {setting.wanted}") from exc
            except (ValueError, AttributeError, TypeError) as exc:
                raise ConfigError(f"{setting.field}: {exc}; it is {setting.wanted}") from exc
            if not same:
                raise ConfigError(f"{setting.field}: {value!r} is not {setting.wanted}")
        found = _disagreement(values)
        if found is not None:
            raise ConfigError(f"{found[0]}: {found[1]}")
        object.__setattr__(self, "peers", MappingProxyType(dict(self.peers)))

    def store_path(self, home: Path) -> Path:
        return home / self.store


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class _Setting:
    """One key of the file.

    `read` makes its value of what TOML holds and raises ValueError where that is not what is `wanted`;
    `raw` is the way back. `table` is empty at the top of the file. `required` keys have no default; the
    value of an `optional` one may be None. `choices` are the words that a value is one of.
    """

    name: str
    wanted: str
    read: Callable[[Any], Any]
    comment: str
    raw: Callable[[Any], Any] = _same
    table: str = ""
    required: bool = False
    optional: bool = False
    example: str = ""
    choices: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """The attribute of `Config`."""
        return f"{self.table}_{self.name}" if self.table else self.name

    @property
    def key(self) -> Key:
        return (self.table, self.name) if self.table else (self.name,)


def _typed(form: Any) -> Callable[[Any], Any]:
    return lambda value: msgspec.convert(value, form, strict=True)


def _path(value: Any) -> Path:
    text: str = msgspec.convert(value, str, strict=True)
    if not 1 <= len(text.encode()) <= PATH_BYTES_MAX or "\0" in text:
        raise ValueError("it is empty, or too long")
    return Path(text)


def _loopback(value: Any) -> str:
    text: str = msgspec.convert(value, str, strict=True)
    return text if text == "" else loopback_address(text)


def _path_text(value: Any) -> str:
    return "" if value == "" else str(_path(value))


def _webhook(value: Any) -> str:
    text: str = msgspec.convert(value, str, strict=True)
    return text if text == "" else webhook_url(text)


def _purpose(value: Any) -> Any:
    return value if value == "" else msgspec.convert(value, Code, strict=True)


def _listen(value: Any) -> str:
    address = listen_address(msgspec.convert(value, str, strict=True))
    if address.startswith("/dns"):
        raise ValueError(
            f"{value!r}: an IP address of this machine is needed, not a name; 0.0.0.0 stands for all of them"
        )
    return address


def _addresses(value: Any) -> tuple[str, ...]:
    listed = msgspec.convert(value, list[str], strict=True)
    if not 1 <= len(listed) <= ADDRESSES_MAX:
        raise ValueError(f"{len(listed)} addresses")
    return tuple(map(dial_address, listed))


def _peers(value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict) or len(_table(value)) > PEERS_MAX:
        raise ValueError("it is no table, or too long")
    return {msgspec.convert(peer, SpiffeId): _addresses(listed) for peer, listed in _table(value).items()}


def _table(value: Any) -> dict[str, Any]:
    """A value that was found to be a table."""
    return cast("dict[str, Any]", value)


_NODE: Final = "the SPIFFE id of a node, e.g. `spiffe://clinic-south.example/node/n1`"
_ADDRESSES: Final = f"a list of 1 to {ADDRESSES_MAX} addresses: {FORM}"
_SETTINGS: Final = (
    _Setting(
        "member",
        "the organization's domain in lower case, e.g. `clinic-north.example`",
        _typed(MemberId),
        "The organization that this node belongs to.",
        required=True,
    ),
    _Setting(
        "node",
        "a SPIFFE id under the organization, e.g. `spiffe://clinic-north.example/node/n1`",
        _typed(SpiffeId),
        "The name of this node. Its certificate carries the same one.",
        required=True,
    ),
    _Setting(
        "listen",
        FORM,
        _listen,
        "Where other nodes reach this one: `host:port`. 127.0.0.1 is reached from this machine only.",
    ),
    _Setting(
        "security",
        " or ".join(f'"{word}"' for word in get_args(Security)),
        _typed(Security),
        'How connections are encrypted: "noise", or "tls" where all nodes are set to it.',
        choices=get_args(Security),
    ),
    _Setting(
        "gossip",
        "true or false",
        _typed(bool),
        "Whether news spread by gossip, too. Everything holds without it; what is new arrives some seconds later.",
    ),
    _Setting(
        "store",
        f"the path of a file, of at most {PATH_BYTES_MAX} bytes",
        _path,
        "The file that holds all records, relative to this folder. One process uses it at a time.",
        raw=str,
    ),
    _Setting(
        "log_level",
        ", ".join(f'"{word}"' for word in get_args(LogLevel)),
        _typed(LogLevel),
        'The least that is logged: "debug", "info", "warning" or "error".',
        choices=get_args(LogLevel),
    ),
    _Setting(
        "log_format",
        ", ".join(f'"{word}"' for word in get_args(LogFormat)),
        _typed(LogFormat),
        'How: "json", "words", or "auto": words on a terminal, JSON elsewhere.',
        choices=get_args(LogFormat),
    ),
    _Setting(
        "metrics_listen",
        LOOPBACK_FORM,
        _loopback,
        "Where Prometheus reads the metrics, without a token, on this machine only. Off where it is not set.",
        example="127.0.0.1:9464",
    ),
    _Setting(
        "purpose",
        "a name of lower-case letters, digits and underscores, as the coalition's policy lists it",
        _purpose,
        "What the data is used for where a step does not say so.",
        example="research",
    ),
    _Setting(
        "automation",
        f"{DIGEST}: the id of a credential",
        digest_of,
        "The credential of runs that no person or agent asked for with a ticket, such as schedules.",
        raw=bytes.hex,
        optional=True,
        example="0" * 64,
    ),
    _Setting(
        "default_s",
        f"whole seconds from 0 to {WAIT_S_MAX}",
        _typed(Annotated[int, msgspec.Meta(ge=0, le=WAIT_S_MAX)]),
        "How many seconds a step waits for a decision before it fails; the intent stays open.",
        table="wait",
    ),
    _Setting(
        "max_s",
        f"whole seconds from 0 to {WAIT_S_MAX}",
        _typed(Annotated[int, msgspec.Meta(ge=0, le=WAIT_S_MAX)]),
        "The longest that any call may wait.",
        table="wait",
    ),
    _Setting(
        "listen",
        LOOPBACK_FORM,
        _loopback,
        "Where a browser on this machine finds the people's page; `comity page` lets one in. Off where it is not set.",
        table="page",
        example="127.0.0.1:8410",
    ),
    _Setting(
        "webhook",
        WEBHOOK_FORM,
        _webhook,
        "What is told, as JSON, what waits for people, what was refused or held, and what was decided then.",
        table="notify",
        example="https://alerts.clinic-north.example/comity",
    ),
    _Setting(
        "secret_file",
        f"the path of a file, of at most {PATH_BYTES_MAX} bytes",
        _path_text,
        "The secret, 32 bytes or more, that signs what the webhook is told, relative to this folder.",
        table="notify",
        example="webhook.secret",
    ),
    _Setting(
        "peers",
        f"a table of node names, each with {_ADDRESSES}",
        _peers,
        "Addresses of other nodes, in the place of those in coalition.toml.",
        raw=lambda peers: {name: list(addresses) for name, addresses in peers.items()},
    ),
)
_HEADING: Final = """\
# Settings of a Comity node. What follows a # says nothing to the node; remove the # to set a key.
# Check the file after a change with `comity config check`.
"""
_PEERS_EXAMPLE: Final = '# "spiffe://clinic-south.example/node/n1" = ["node.clinic-south.example:4001"]'


def read_config(path: Path) -> Config:
    """Read `node.toml`.

    Raises:
        ConfigError: the file is missing or not TOML; a key is unknown or missing; a value is not what it has
            to be.
    """
    return _config(read_toml(path, CONFIG_BYTES_MAX))


def parse_config(text: str | bytes, source: str = "node.toml") -> Config:
    """Read the text of a `node.toml`. `source` names it in errors.

    Raises:
        ConfigError: as `read_config`.
    """
    return _config(toml_document(text, CONFIG_BYTES_MAX, source))


def _config(document: TomlDocument) -> Config:
    document.require_kind(SETTINGS)
    _reject_unknown(document)
    values: dict[str, Any] = {}
    for setting in _SETTINGS:
        holder: Any = document.values.get(setting.table, {}) if setting.table else document.values
        if setting.name not in holder:
            if setting.required:
                raise document.error(setting.key, f"missing; it is {setting.wanted}")
            continue
        try:
            values[setting.field] = setting.read(holder[setting.name])
        except ValueError as exc:
            key, value, wanted = _wrong_place(setting, holder[setting.name])
            raise document.error(key, _problem(exc, value, wanted, setting.choices)) from exc
    defaults = {field.name: field.default for field in fields(Config)}
    found = _disagreement(defaults | values)
    if found is not None:
        key = next(setting.key for setting in _SETTINGS if setting.field == found[0])
        raise document.error(key, found[1])
    return Config(**values)


def _problem(exc: ValueError, value: Any, wanted: str, choices: tuple[str, ...]) -> str:
    """What is wrong with a value, what it has to be, and which of the choices was probably meant."""
    if not isinstance(exc, msgspec.ValidationError):
        # An address says itself how it is written.
        return str(exc) if wanted in str(exc) else f"{exc}; it is {wanted}"
    near = difflib.get_close_matches(str(value), choices, n=1)
    # What a schema says of a pattern helps nobody.
    return f"{value!r:.80} is not {wanted}" + (f"; did you mean {near[0]}?" if near else "")


def _reject_unknown(document: TomlDocument) -> None:
    tables = {setting.table for setting in _SETTINGS if setting.table}
    top = [*(setting.name for setting in _SETTINGS if not setting.table), *sorted(tables)]
    for key, value in document.values.items():
        if key not in top:
            raise document.unknown((key,), top)
        if key in tables:
            known = [setting.name for setting in _SETTINGS if setting.table == key]
            if not isinstance(value, dict):
                raise document.error((key,), f"not a table; write [{key}] on a line of its own")
            for name in _table(value):
                if name not in known:
                    raise document.unknown((key, name), known)


def _wrong_place(setting: _Setting, raw: Any) -> tuple[Key, Any, str]:
    """The key whose value is wrong, inside of a table of peers too, the value, and what it has to be."""
    if setting.name == "peers" and isinstance(raw, dict):
        for peer, listed in _table(raw).items():
            try:
                msgspec.convert(peer, SpiffeId)
            except ValueError:
                return ("peers", peer), peer, _NODE
            try:
                _addresses(listed)
            except ValueError:
                return ("peers", peer), listed, _ADDRESSES
    return setting.key, cast("Any", raw), setting.wanted


def _disagreement(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """A field whose value does not go with another's, and why not."""
    if member_of(values["node"]) != values["member"]:
        return "node", f"not under the organization {values['member']}: spiffe://{values['member']}/node/NAME"
    if values["wait_default_s"] > values["wait_max_s"]:
        return "wait_default_s", f"more than max_s, which is {values['wait_max_s']}"
    return None


def format_config(config: Config) -> str:
    """The text of a `node.toml` with a comment for every key, from which `parse_config` reads the same."""
    lines = [_HEADING]
    table = ""
    for setting in _SETTINGS:
        value = getattr(config, setting.field)
        if setting.name == "peers":
            lines += [f"# {setting.comment}", "[peers]"]
            lines += [f"{quote(peer)} = {_literal(list(value[peer]))}" for peer in sorted(value)]
            lines += [] if value else [_PEERS_EXAMPLE]
            continue
        if setting.table != table:
            table = setting.table
            lines.append(f"[{table}]")
        lines.append(f"# {setting.comment}")
        if value is None or value == "":
            lines.append(f"# {setting.name} = {_literal(setting.example)}\n")
        else:
            lines.append(f"{setting.name} = {_literal(setting.raw(value))}\n")
    return "\n".join(lines) + "\n"


def write_config(path: Path, config: Config, *, replace: bool = False) -> None:
    """Write a `node.toml` for people to read and change.

    Raises:
        ConfigError: it cannot be written, or is there already and `replace` is false.
    """
    write_file(path, format_config(config).encode(), replace=replace)


def _literal(value: str | int | list[str]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return str(value)
