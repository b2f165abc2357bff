"""The public card of a node: what an organization gives to those with whom it founds or joins a coalition.

It holds no secret and proves nothing: the organization's signature under the epoch does. What is on it is
compared when the coalition file is signed, by everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from comity.attestation.signing import key_problem
from comity.attestation.toml_text import CARD, DIGEST, digest_of, quote
from comity.node.address import ADDRESSES_MAX, FORM, dial_address
from comity.node.coalition_file import MemberEntry, NodeEntry
from comity.node.owner_files import PUBLIC, write_file
from comity.node.toml_document import TomlDocument, read_toml
from comity.protocol.errors import ConfigError
from comity.protocol.governance import PublicKey
from comity.protocol.identifiers import MemberId, SpiffeId, member_of
from comity.protocol.limits import NAMESPACES_PER_MEMBER_MAX

CARD_BYTES_MAX: Final = 16_384
"""A few keys and addresses."""
_HEADING: Final = """\
# The public card of a Comity node. It holds no secret: give it to whoever drafts the coalition.
# The addresses may be changed here, if others reach this node at another one than it listens on.
"""
_KEY: Final = '{ suite = "ed25519", public = "64 hex digits" }'


@dataclass(frozen=True, slots=True)
class Card:
    """An organization with one node, as others need to know them.

    Attributes:
        member: the organization's domain.
        namespaces: the domains in which it writes assets; its own is among them.
        organization_key: the key that signs epochs and certificates.
        node: the node's SPIFFE id.
        addresses: multiaddresses where others reach it; none for a node that only dials out.
    """

    member: str
    namespaces: tuple[str, ...]
    organization_key: PublicKey
    node: str
    node_key: PublicKey
    transport_key: bytes
    addresses: tuple[str, ...] = ()

    def entry(self) -> MemberEntry:
        node = NodeEntry(self.node, self.node_key, self.transport_key, self.addresses)
        return MemberEntry(self.member, (self.organization_key,), self.namespaces, (node,))


def format_card(card: Card) -> str:
    """The text of a card, from which `parse_card` reads the same."""
    return (
        f"{_HEADING}\n"
        f"member = {quote(card.member)}\n"
        f"namespaces = {_list(card.namespaces)}\n"
        f"organization_key = {_written(card.organization_key)}\n"
        f"node = {quote(card.node)}\n"
        f"node_key = {_written(card.node_key)}\n"
        f"transport_key = {quote(card.transport_key.hex())}\n"
        f"addresses = {_list(card.addresses)}\n"
    )


def write_card(path: Path, card: Card) -> None:
    """Raises: ConfigError: it cannot be written."""
    write_file(path, format_card(card).encode(), mode=PUBLIC)


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        ConfigError: the file is missing or not TOML, a key is unknown or missing, or a value is not what it has
            to be; the message names file, line and key.
    """
    return _card(read_toml(path, CARD_BYTES_MAX))


def _card(document: TomlDocument) -> Card:
    document.require_kind(CARD)
    readers: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "member": ("a domain in lower case", _typed(MemberId)),
        "namespaces": (
            f"a list of 1 to {NAMESPACES_PER_MEMBER_MAX} domains in lower case",
            lambda value: msgspec.convert(value, tuple[MemberId, ...], strict=True),
        ),
        "organization_key": (f"an admissible key: {_KEY}", _public_key),
        "node": ("a SPIFFE id under the member", _typed(SpiffeId)),
        "node_key": (f"an admissible key: {_KEY}", _public_key),
        "transport_key": (DIGEST, digest_of),
        "addresses": (f"a list of at most {ADDRESSES_MAX} addresses: {FORM}", _addresses),
    }
    for key in document.values:
        if key not in readers:
            raise document.unknown((key,), tuple(readers))
    read: dict[str, Any] = {}
    for key, (wanted, reader) in readers.items():
        if key not in document.values:
            raise document.error((key,), f"missing; it is {wanted}")
        try:
            read[key] = reader(document.values[key])
        except ValueError as exc:
            raise document.error((key,), f"not {wanted}") from exc
    card = Card(**read)
    if member_of(card.node) != card.member:
        raise document.error(("node",), f"not under {card.member}")
    if not 1 <= len(card.namespaces) <= NAMESPACES_PER_MEMBER_MAX:
        raise document.error(("namespaces",), f"{len(card.namespaces)} domains")
    return card


def _typed(form: Any) -> Callable[[Any], Any]:
    return lambda value: msgspec.convert(value, form, strict=True)


def _addresses(value: Any) -> tuple[str, ...]:
    listed = msgspec.convert(value, list[str], strict=True)
    if len(listed) > ADDRESSES_MAX:
        raise ValueError("too many addresses")
    return tuple(map(dial_address, listed))


def _public_key(value: Any) -> PublicKey:
    written = msgspec.convert(value, dict[str, str], strict=True)
    if written.keys() != {"suite", "public"}:
        raise ValueError("it has other parts")
    key = msgspec.convert(
        {"suite": written["suite"], "value": bytes.fromhex(written["public"])}, PublicKey, strict=True
    )
    problem = key_problem(key)
    if problem is not None:
        raise ValueError(problem)
    return key


def _written(key: PublicKey) -> str:
    return f"{{ suite = {quote(key.suite)}, public = {quote(key.value.hex())} }}"


def _list(items: tuple[str, ...]) -> str:
    return f"[{', '.join(map(quote, items))}]"


def card_warnings(cards: Sequence[Card], members: Sequence[MemberEntry] = ()) -> list[dict[str, Any]]:
    """What is doubtful in where nodes are reached, each as `comity policy lint` says it.

    Args:
        members: those of the coalition that the cards are to enter.
    """
    warnings: list[dict[str, Any]] = []
    taken = {address: node.node for entry in members for node in entry.nodes for address in node.addresses}
    for card in cards:
        if not card.addresses:
            message = "it has no address, so nobody can dial this node; it dials the others"
            hint = "comity node init --address HOST:PORT, or `addresses` in the card"
            warnings.append(_warning(card, "card_without_address", message, hint))
        for address in card.addresses:
            if address in taken:
                message = f"{address} is the address of {taken[address]}, too: one of the two cannot be reached there"
                hint = "comity node init --listen HOST:PORT with another port"
                warnings.append(_warning(card, "card_address_taken", message, hint))
            taken.setdefault(address, card.node)
    return warnings


def _warning(card: Card, code: str, message: str, hint: str) -> dict[str, Any]:
    place = {"file": f"card of {card.member}", "line": 0, "column": 0}
    return place | {"code": code, "message": message, "hint": hint}


def require_distinct(cards: list[Card]) -> None:
    """Check that every card is of another organization.

    Raises:
        ConfigError: two are of the same one.
    """
    seen: set[str] = set()
    for card in cards:
        if card.member in seen:
            raise ConfigError(f"two cards are of {card.member}; a coalition takes one of each organization")
        seen.add(card.member)
