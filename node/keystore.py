"""Private keys in files.

A file holds one Ed25519 key as PKCS#8 in PEM (RFC 5958, RFC 8410): encrypted under a passphrase, or in plain
text for the owner alone. Beside it lies a public companion in JSON with suite, public key and key id, which
everyone may read. No secret stands in a message, log or repr.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from comity.attestation.signing import SigningKey, key_id, key_problem
from comity.node.owner_files import PUBLIC, read_file, write_file
from comity.protocol.errors import ConfigError
from comity.protocol.governance import PublicKey

KEY_FILE_BYTES_MAX: Final = 16_384
"""An encrypted Ed25519 key takes some 400 bytes; the largest suite foreseen (ML-DSA-65), some 6,000."""
PASSPHRASE_BYTES_MAX: Final = 1_023
"""What OpenSSL takes."""
SEED_BYTES: Final = 32
_ENCRYPTED: Final = re.compile(rb"^-----BEGIN ENCRYPTED PRIVATE KEY-----\s*$", re.MULTILINE)


def companion(path: Path) -> Path:
    """The public file beside a private one: `node.pem` has `node.pub.json`."""
    return path.with_name(f"{path.name.removesuffix('.pem')}.pub.json")


def create_key(path: Path, *, passphrase: bytes | None = None, seed: bytes | None = None) -> SigningKey:
    """Make a key, or keep the one of `seed`, in a new file, with its companion beside it.

    Raises:
        ConfigError: there is a file already, the passphrase is empty or too long, or it cannot be written.
    """
    if passphrase is not None and not 1 <= len(passphrase) <= PASSPHRASE_BYTES_MAX:
        raise ConfigError(f"{path}: a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes")
    private = Ed25519PrivateKey.generate() if seed is None else _private_of(seed)
    key = SigningKey.from_seed(private.private_bytes_raw())
    if path.exists():
        raise ConfigError(f"{path}: is there already; no key is ever overwritten")
    protection = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    data = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)
    write_file(path, data, replace=False)
    write_companion(path, key.public)
    return key


def write_companion(path: Path, key: PublicKey) -> None:
    """Write the public file beside a private one, e.g. where it was lost.

    Raises:
        ConfigError: it cannot be written.
    """
    value = {"suite": key.suite, "public": key.value.hex(), "key_id": key_id(key).hex()}
    write_file(companion(path), (json.dumps(value, indent=2) + "\n").encode(), mode=PUBLIC)


def load_key(path: Path, *, passphrase: bytes | None = None) -> SigningKey:
    """Read a private key.

    Raises:
        ConfigError: the file is missing, damaged, of another kind, readable by others though not encrypted,
            or does not fit its companion; or the passphrase is missing or wrong.
    """
    return SigningKey.from_seed(load_seed(path, passphrase=passphrase))


def load_seed(path: Path, *, passphrase: bytes | None = None) -> bytes:
    """Read a private key's 32 bytes, for who needs them as such (the transport). Mind where they go.

    Raises:
        ConfigError: as `load_key`.
    """
    data, shared = read_file(path, KEY_FILE_BYTES_MAX)
    encrypted = _ENCRYPTED.search(data) is not None
    if shared and not encrypted:
        raise ConfigError(f"{path}: others can read or write this private key: chmod 600 {path}")
    if encrypted and not passphrase:
        raise ConfigError(f"{path}: this key is encrypted, and no passphrase was given")
    try:
        private = load_pem_private_key(data, password=passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without its cause: what a parser says of a private key stays inside.
        reason = (
            "the passphrase is wrong, or the file is damaged" if encrypted else "not a private key in PEM"
        )
        raise ConfigError(f"{path}: {reason}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 key")
    seed = private.private_bytes_raw()
    beside = companion(path)
    if beside.exists() and load_public(beside) != SigningKey.from_seed(seed).public:
        raise ConfigError(f"{beside}: not the public key of {path.name}")
    return seed


def is_encrypted(path: Path) -> bool:
    """Whether a passphrase is needed to read the key.

    Raises:
        ConfigError: the file cannot be read.
    """
    return _ENCRYPTED.search(read_file(path, KEY_FILE_BYTES_MAX)[0]) is not None


def load_public(path: Path) -> PublicKey:
    """Read a public companion.

    Raises:
        ConfigError: the file is missing or malformed, its key may not be admitted, or its id is not the
            key's.
    """
    data, _ = read_file(path, KEY_FILE_BYTES_MAX)
    try:
        value: Any = json.loads(data)
        key = msgspec.convert(
            {"suite": value["suite"], "value": bytes.fromhex(value["public"])}, PublicKey, strict=True
        )
        stated = bytes.fromhex(value["key_id"])
    except (ValueError, TypeError, KeyError, RecursionError, msgspec.ValidationError) as exc:
        raise ConfigError(
            f"{path}: not a public key file: an object with `suite`, and `public` and `key_id` in hex"
        ) from exc
    problem = key_problem(key)
    if problem is not None:
        raise ConfigError(f"{path}: {problem}")
    if stated != key_id(key):
        raise ConfigError(f"{path}: `key_id` is not the id of the key `public`")
    return key


def _private_of(seed: bytes) -> Ed25519PrivateKey:
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"an Ed25519 seed has {SEED_BYTES} bytes, not {len(seed)}")
    return Ed25519PrivateKey.from_private_bytes(seed)
