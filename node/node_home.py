"""Making the home of a node: keys, tokens, settings, and the card."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from comity.attestation.signing import SigningKey
from comity.node.address import dial_address, listen_address
from comity.node.authors import Passphrase
from comity.node.cards import Card, read_card, write_card
from comity.node.config import Config, write_config
from comity.node.home import NODE_KEY, ORGANIZATION_KEY, TRANSPORT_KEY, Home
from comity.node.keystore import companion, create_key, is_encrypted, load_key, load_public
from comity.node.tokens import make_tokens
from comity.protocol.errors import ConfigError
from comity.protocol.governance import PublicKey


@dataclass(frozen=True, slots=True)
class NewHome:
    """What a home is made for.

    Attributes:
        node: the node's name under the organization, e.g. `n1`, or its whole SPIFFE id.
        addresses: where others reach it; empty for where it listens.
        namespaces: domains beside the organization's own.
        organization_key: a file outside of the home.
        encrypt: whether a new organization key is encrypted.
    """

    member: str
    node: str
    listen: str
    addresses: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    purpose: str = ""
    organization_key: Path | None = None
    encrypt: bool = False


def make_home(home: Home, wanted: NewHome, passphrase: Passphrase) -> tuple[Card, list[str]]:
    """Make a home. Answers with its card, and notes for whoever made it.

    Raises:
        ConfigError: there is a node already, or a value is not what it has to be.
    """
    if home.config.exists():
        raise ConfigError(f"{home.config}: there is a node in this home already; nothing was changed")
    node = (
        wanted.node if wanted.node.startswith("spiffe://") else f"spiffe://{wanted.member}/node/{wanted.node}"
    )
    try:
        listen = listen_address(wanted.listen)
        addresses = tuple(map(dial_address, wanted.addresses))
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    # Everything is checked before anything is made.
    config = Config(member=wanted.member, node=node, listen=listen, purpose=wanted.purpose)
    notes: list[str] = []
    if not addresses:
        addresses = _reachable(listen, notes)
    home.create()
    organization = _organization_key(home, wanted, passphrase)
    node_key = create_key(home.key(NODE_KEY))
    transport = create_key(home.key(TRANSPORT_KEY))
    make_tokens(home)
    card = Card(
        member=wanted.member,
        namespaces=tuple(sorted({wanted.member, *wanted.namespaces})),
        organization_key=organization,
        node=node,
        node_key=node_key.public,
        transport_key=transport.public.value,
        addresses=addresses,
    )
    write_card(home.card, card)
    # Last: a home with settings is a whole one.
    write_config(home.config, config)
    return read_card(home.card), notes


def _reachable(listen: str, notes: list[str]) -> tuple[str, ...]:
    """The address on the card, where the one listened on is one that others can use."""
    _, kind, host, _, port = listen.split("/")
    if port == "0":
        notes.append(
            "the port is chosen anew at every start, so the card holds no address: others are dialled"
        )
        return ()
    if kind.startswith("ip") and ipaddress.ip_address(host).is_unspecified:
        notes.append(
            "it listens on every address, so the card holds none: add the one that others reach it at"
        )
        return ()
    if kind.startswith("ip") and ipaddress.ip_address(host).is_loopback:
        notes.append("it is reached from this machine only: --listen and --address change that")
    return (listen,)


def _organization_key(home: Home, wanted: NewHome, passphrase: Passphrase) -> PublicKey:
    """The organization's public key: of the file that is named, or of a new one."""
    path = wanted.organization_key or home.key(ORGANIZATION_KEY)
    if path.exists():
        return organization_public(path, passphrase)
    if wanted.organization_key is not None and companion(path).exists():
        # The private key is offline, and only its companion is here.
        return load_public(companion(path))
    secret = passphrase(path) if wanted.encrypt else None
    key: SigningKey = create_key(path, passphrase=secret)
    return key.public


def organization_public(path: Path, passphrase: Passphrase) -> PublicKey:
    """The public half of a private key file, without the passphrase where the companion lies beside it."""
    if companion(path).exists():
        return load_public(companion(path))
    return load_key(path, passphrase=passphrase(path) if is_encrypted(path) else None).public
