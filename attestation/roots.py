"""Roots: what a stranger starts from, pinned in one small file.

Whoever verifies names the coalition and the newest epoch that it trusts, learned on a road of its own; the
fingerprint is what people compare. Nothing in a bundle can take the place of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from comity.attestation.toml_text import (
    DATE,
    DIGEST,
    ROOTS,
    date_of,
    digest_of,
    parse_toml,
    quote,
    require_kind,
    seconds_of,
)
from comity.protocol.encoding import Form, encode
from comity.protocol.errors import ConfigError, VerificationError
from comity.protocol.identifiers import Digest, Natural, ShortText, Timestamp, sha256
from comity.protocol.limits import ROOTS_BYTES_MAX

FINGERPRINT_DIGITS: Final = 64
FINGERPRINT_DIGITS_MIN: Final = 32
"""What two people compare at least: 128 bits. Whoever may choose the roots finds a shorter beginning by trying."""
_HEX: Final = frozenset("0123456789abcdef")
_HEADING: Final = """\
# Roots of a Comity coalition: what `comity verify --roots` starts from.
# Get this file, or its fingerprint, from the coalition itself, and never together with what you verify.
"""


class Roots(Form, frozen=True):
    """A coalition, and the newest of its epochs that the reader trusts.

    Attributes:
        coalition: id of the genesis epoch record.
        epoch_number, epoch: number and id of the pinned epoch record.
        name: what people call the coalition. It identifies nothing.
        made: when the pinned epoch was drafted, in whole seconds since 1970: all members write the same roots.
    """

    coalition: Digest
    epoch_number: Natural
    epoch: Digest
    name: ShortText
    made: Timestamp


_READERS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "name": ("text of at most 255 characters", lambda value: msgspec.convert(value, ShortText, strict=True)),
    "coalition": (f"{DIGEST}: the id of the genesis epoch record", digest_of),
    "epoch_number": ("a whole number from 0", lambda value: msgspec.convert(value, Natural, strict=True)),
    "epoch": (f"{DIGEST}: the id of the epoch record of that number", digest_of),
    "made": (DATE, seconds_of),
}
"""Every key, what it has to be, and how it is read; a ValueError says that it is not."""


def fingerprint(roots: Roots) -> bytes:
    """SHA-256 over the canonical encoding: what two people compare."""
    return sha256(encode(roots))


def require_fingerprint(given: str, roots: Roots, source: str = "roots.toml") -> None:
    """Compare roots with the fingerprint that somebody was told. Spaces in it and large letters do not matter.

    Raises:
        ConfigError: what is given is no fingerprint, or too little of one to tell roots apart.
        VerificationError: `roots_other`: it is the fingerprint of other roots.
    """
    digits = "".join(given.split()).lower()
    if not FINGERPRINT_DIGITS_MIN <= len(digits) <= FINGERPRINT_DIGITS or not _HEX.issuperset(digits):
        raise ConfigError(
            f"{given[: 2 * FINGERPRINT_DIGITS]!r} is no fingerprint: it is {FINGERPRINT_DIGITS} hex digits; at"
            f" least the first {FINGERPRINT_DIGITS_MIN} have to be given"
        )
    found = fingerprint(roots).hex()
    if not found.startswith(digits):
        raise VerificationError("roots_other", f"{source}: its fingerprint is {found}, not the one given")


def parse_roots(text: str | bytes, source: str = "roots.toml") -> Roots:
    """Read a roots file. `source` names it in errors.

    Raises:
        ConfigError: longer than `ROOTS_BYTES_MAX`, not TOML, a key is missing or unknown, or a value is not
            what it has to be; the message names the key. Or the genesis is pinned under another id than the
            coalition.
    """
    try:
        values = parse_toml(text, ROOTS_BYTES_MAX, source)
    except ConfigError as exc:
        raise ConfigError(f"{exc}; this is not {ROOTS}") from exc
    require_kind(values, ROOTS, source)
    for key in values:
        if key not in _READERS:
            raise ConfigError(f"{source}: {key}: unknown key; there are {', '.join(_READERS)}")
    read: dict[str, Any] = {}
    for key, (wanted, reader) in _READERS.items():
        if key not in values:
            raise ConfigError(f"{source}: {key}: missing; it is {wanted}")
        try:
            read[key] = reader(values[key])
        except ValueError as exc:
            # Errors of validation are ValueErrors too.
            raise ConfigError(f"{source}: {key}: not {wanted}") from exc
    roots = Roots(**read)
    if roots.epoch_number == 0 and roots.epoch != roots.coalition:
        raise ConfigError(
            f"{source}: epoch: the epoch of number 0 is the genesis, whose id the coalition has"
        )
    return roots


def format_roots(roots: Roots) -> str:
    """The text of a roots file, from which `parse_roots` reads the same."""
    return (
        f"{_HEADING}"
        f"# Fingerprint: {fingerprint(roots).hex()}\n\n"
        f"name = {quote(roots.name)}\n"
        f"coalition = {quote(roots.coalition.hex())}\n"
        f"epoch_number = {roots.epoch_number}\n"
        f"epoch = {quote(roots.epoch.hex())}\n"
        f"made = {date_of(roots.made)}\n"
    )
