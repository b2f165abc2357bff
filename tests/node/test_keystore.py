"""Private keys in files: who can read them, what is said of them, and what they sign."""

from __future__ import annotations

import json
import stat
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from comity.attestation.signing import SigningKey, verify_signature
from comity.node.keystore import (
    companion,
    create_key,
    is_encrypted,
    load_key,
    load_public,
    load_seed,
    write_companion,
)
from comity.protocol.errors import ConfigError

SEED = bytes(range(32))
PASSPHRASE = b"correct horse"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.pem"


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_key_comes_back_as_it_was_made(path: Path, passphrase: bytes | None) -> None:
    made = create_key(path, passphrase=passphrase)
    loaded = load_key(path, passphrase=passphrase)
    assert (loaded.key_id, loaded.public) == (made.key_id, made.public)
    assert verify_signature(load_public(companion(path)), b"message", loaded.sign(b"message"))
    assert is_encrypted(path) == (passphrase is not None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(companion(path).stat().st_mode) == 0o644


def test_two_keys_are_two_keys(tmp_path: Path) -> None:
    assert create_key(tmp_path / "a.pem").key_id != create_key(tmp_path / "b.pem").key_id


def test_a_given_seed_is_kept(path: Path) -> None:
    key = create_key(path, seed=SEED)
    assert key.key_id == SigningKey.from_seed(SEED).key_id
    assert load_seed(path) == SEED
    for wrong in (b"", SEED[1:]):
        with pytest.raises(ConfigError, match="32 bytes"):
            create_key(path.with_name("other.pem"), seed=wrong)


def test_the_file_is_read_by_any_other_program_too(path: Path) -> None:
    """PKCS#8 in PEM, as RFC 8410 section 7 shows it for Ed25519."""
    create_key(path, seed=SEED)
    key = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
    assert path.read_bytes() == key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    stated = json.loads(companion(path).read_text())
    assert stated["suite"] == "ed25519"
    assert stated["public"] == key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    assert stated["key_id"] == SigningKey.from_seed(SEED).key_id.hex()


def test_an_encrypted_file_holds_no_secret_in_the_clear(path: Path) -> None:
    create_key(path, passphrase=PASSPHRASE, seed=SEED)
    assert b"ENCRYPTED" in path.read_bytes()
    path.chmod(0o644)
    assert load_seed(path, passphrase=PASSPHRASE) == SEED


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_in_the_clear_that_others_reach_is_refused(path: Path, mode: int) -> None:
    create_key(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        load_key(path)


def test_no_key_is_ever_overwritten(path: Path) -> None:
    first = create_key(path)
    with pytest.raises(ConfigError, match="no key is ever overwritten"):
        create_key(path)
    assert load_key(path).key_id == first.key_id


@pytest.mark.parametrize("passphrase", [None, b"", b"wrong horse"])
def test_a_wrong_or_missing_passphrase_is_told(path: Path, passphrase: bytes | None) -> None:
    create_key(path, passphrase=PASSPHRASE)
    with pytest.raises(ConfigError, match="passphrase"):
        load_key(path, passphrase=passphrase)


@pytest.mark.parametrize("passphrase", [b"", b"x" * 1_024])
def test_a_passphrase_that_protects_nothing_or_is_too_long_is_refused(path: Path, passphrase: bytes) -> None:
    with pytest.raises(ConfigError, match="passphrase"):
        create_key(path, passphrase=passphrase)
    assert not path.exists()


def test_a_passphrase_for_a_key_in_the_clear_is_not_needed(path: Path) -> None:
    made = create_key(path)
    assert load_key(path, passphrase=PASSPHRASE).key_id == made.key_id


def test_other_files_are_not_keys(path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    public = ed25519.Ed25519PrivateKey.from_private_bytes(SEED).public_key()
    contents = [
        b"",
        b"hello",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        b"x" * 20_000,
    ]
    for content in contents:
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match=str(path)):
            load_key(path)
    with pytest.raises(ConfigError, match="No such file"):
        load_key(path.with_name("absent.pem"))


def test_a_stolen_secret_is_in_no_message(path: Path) -> None:
    """Neither repr nor any error, with all that it says of its causes, holds seed or passphrase."""
    create_key(path, passphrase=PASSPHRASE, seed=SEED)
    said = [repr(load_key(path, passphrase=PASSPHRASE)), str(load_key(path, passphrase=PASSPHRASE))]
    damaged = path.read_bytes().replace(b"M", b"N", 3)
    for content, passphrase in ((path.read_bytes(), b"wrong horse"), (damaged, PASSPHRASE)):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_key(path, passphrase=passphrase)
        said += traceback.format_exception(caught.value)
    text = "".join(line for line in said if not line.lstrip().startswith("File "))
    for secret in (SEED.hex(), SEED.decode("latin1"), "correct horse", "wrong horse", repr(SEED)):
        assert secret not in text


# The public companion


def test_a_companion_of_another_key_is_told(path: Path) -> None:
    create_key(path)
    write_companion(path, SigningKey.from_seed(SEED).public)
    with pytest.raises(ConfigError, match=r"node.pub.json: not the public key of node.pem"):
        load_key(path)
    companion(path).unlink()
    load_key(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"key_id": "00" * 32}, "`key_id` is not the id"),
        ({"public": "01" + "00" * 31}, "prime-order"),
        ({"public": "00" * 31}, "32 bytes"),
        ({"public": "zz"}, "not a public key file"),
        ({"public": 7}, "not a public key file"),
        ({"suite": "rsa"}, "not known here"),
        ({"suite": None}, "not a public key file"),
    ],
)
def test_a_companion_that_is_wrong_is_told(path: Path, change: dict[str, object], problem: str) -> None:
    create_key(path)
    stated = json.loads(companion(path).read_text())
    companion(path).write_text(json.dumps({**stated, **change}))
    with pytest.raises(ConfigError, match=problem):
        load_public(companion(path))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 10_000])
def test_a_companion_that_is_none_is_told(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a public key file"):
        load_public(path)
