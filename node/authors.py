"""Authors from key files: whoever holds a private key here can write records in its owner's name.

The salt key of an author is derived from its private key, so that it needs no file of its own and the same
author saying the same thing writes the same record.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Final

from comity.attestation.authoring import Author
from comity.attestation.signing import SigningKey
from comity.node.keystore import is_encrypted, load_seed

Passphrase = Callable[[Path], bytes]
"""Asks for the passphrase of a key file; called only where the file is encrypted."""

_SALT_KEY_DOMAIN: Final = b"comity salt key v1"


def salt_key_of(seed: bytes) -> bytes:
    """The secret from which an author's salts are derived: nobody gets from it to the key, or to other salts."""
    return hmac.digest(seed, _SALT_KEY_DOMAIN, "sha256")


def author_from_key(
    path: Path,
    member: str,
    *,
    authority: bytes | None = None,
    coalition: bytes | None = None,
    passphrase: Passphrase | None = None,
) -> Author:
    """An author who signs with the key in a file.

    Args:
        authority: the node certificate or credential that vouches for the key; None for an organization's own.
        coalition: the id of the genesis; None only to write a genesis.

    Raises:
        ConfigError: the key cannot be read.
    """
    secret = passphrase(path) if passphrase is not None and is_encrypted(path) else None
    seed = load_seed(path, passphrase=secret)
    return Author(
        member=member,
        signer=SigningKey.from_seed(seed),
        salt_key=salt_key_of(seed),
        authority=authority,
        coalition=coalition,
    )
