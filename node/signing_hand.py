"""What the commands sign with: an organization's key, or that of a person or agent, and where records go then."""

from __future__ import annotations

import base64
import getpass
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from comity.attestation.authoring import Author
from comity.node.authors import Passphrase, author_from_key
from comity.node.client import NodeClient
from comity.node.clock import SystemClock
from comity.node.coalition_file import CoalitionFile, read_coalition
from comity.node.config import Config, read_config
from comity.node.home import ORGANIZATION_KEY, Home, find_home
from comity.node.owner_files import PUBLIC, read_file, write_file
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import ConfigError, DecodeError
from comity.protocol.governance import Credential
from comity.protocol.identifiers import DIGEST_BYTES, AssetPattern, SpiffeId, member_of
from comity.protocol.limits import RECORD_BYTES_MAX
from comity.protocol.records import decode_body

PASSPHRASE_FILE_BYTES_MAX: Final = 4_096
DAY_S: Final = 24 * 3_600
PREFIX_MIN: Final = 6
"""Digits of an id that somebody has to type at least."""


def now() -> int:
    """Whole seconds since 1970, by this machine's clock."""
    return SystemClock().now()


def passphrase_from(file: Path | None) -> Passphrase:
    """How passphrases of encrypted keys are learned: from a file, or from whoever sits at the terminal."""

    def ask(key: Path) -> bytes:
        if file is not None:
            data, shared = read_file(file, PASSPHRASE_FILE_BYTES_MAX)
            if shared:
                raise ConfigError(f"{file}: others can read this passphrase: chmod 600 {file}")
            return data.rstrip(b"\r\n")
        if not sys.stdin.isatty():
            raise ConfigError(f"{key}: this key is encrypted; give its passphrase with --passphrase-file")
        return getpass.getpass(f"Passphrase of {key}: ").encode()

    return ask


@dataclass(frozen=True, slots=True)
class Hand:
    """The home that a command works with."""

    home: Home
    passphrase: Passphrase

    @classmethod
    def of(cls, home: Path | None, passphrase_file: Path | None = None) -> Hand:
        return cls(find_home(home, os.environ), passphrase_from(passphrase_file))

    def config(self) -> Config:
        """Raises: ConfigError: there is no home, or it has no sound settings."""
        self.require_made()
        return read_config(self.home.config)

    def require_made(self) -> None:
        """Check that this is a home at all: a command without `--home` looks where perhaps nothing is.

        Raises:
            ConfigError: it is none.
        """
        if not self.home.config.exists():
            raise ConfigError(
                f"{self.home.path} is no home of a node: --home DIR or COMITY_HOME says where it is, and"
                " `comity node init` makes one"
            )

    def coalition(self) -> CoalitionFile:
        """The coalition that the home belongs to.

        Raises:
            ConfigError: it belongs to none.
        """
        self.require_made()
        if not self.home.coalition.exists():
            raise ConfigError(
                f"{self.home.path} belongs to no coalition yet; `comity coalition join FILE` makes it a member"
            )
        return read_coalition(self.home.coalition)

    def coalition_id(self) -> bytes:
        """Raises: ConfigError: as `coalition`."""
        found = self.coalition().coalition
        if found is None:
            raise ConfigError(f"{self.home.coalition}: the coalition is not founded yet")
        return found

    def organization(self, key: Path | None, coalition: bytes | None) -> Author:
        """The organization itself, by its own key.

        Raises:
            ConfigError: the key is not here.
        """
        path = key or self.home.key(ORGANIZATION_KEY)
        self.require_made()
        if not path.exists():
            raise ConfigError(
                f"{path}: the organization's key is not here; --organization-key FILE says where it is kept"
            )
        return author_from_key(path, self.config().member, coalition=coalition, passphrase=self.passphrase)

    def holder(self, key: Path, credential: SignedRecord) -> Author:
        """Whoever holds a credential, by an own key.

        Raises:
            ConfigError: the key is not the one that the credential names.
        """
        body = credential_body(credential)
        author = author_from_key(
            key,
            credential.header.member,
            authority=credential.id,
            coalition=credential.header.coalition,
            passphrase=self.passphrase,
        )
        if author.signer.public != body.key:
            raise ConfigError(f"{key}: not the key that the credential of {body.subject} names")
        return author

    def credential(self, named: str) -> SignedRecord:
        """A credential, by its file or by its id at the local node, which may be shortened.

        Raises:
            ConfigError: it is none.
            NodeError: the node does not answer, or does not know it.
        """
        record = self.record(named, "credential")
        credential_body(record)
        return record

    def id_of(self, text: str, *kinds: str) -> str:
        """The whole id of a record that the local node holds, from the beginning of it.

        Args:
            kinds: those that are meant; any where none is named.

        Raises:
            ConfigError: it is no id, none begins so, several do, or it is that of another kind.
            NodeError: the node does not answer.
        """
        if is_id(text):
            return text
        if len(text) < PREFIX_MIN or len(text) > 2 * DIGEST_BYTES or not _HEX.issuperset(text):
            raise ConfigError(f"{text!r} is no id: 64 hex digits, or at least the first {PREFIX_MIN}")
        held: list[Any] = self.reader().ids(text)
        found = [each for each in held if not kinds or each["kind"] in kinds]
        wanted = " or ".join(kind.replace("_", " ") for kind in kinds) or "record"
        if len(found) == 1:
            return str(found[0]["id"])
        if found:
            raise ConfigError(f"{len(found)} ids begin with {text}: give more digits")
        if held:
            raise ConfigError(f"{text} begins the id of a {held[0]['kind']}, and {_a(wanted)} is wanted here")
        raise ConfigError(f"this node holds no {wanted} whose id begins with {text}")

    def record(self, named: str, *kinds: str) -> SignedRecord:
        """A record, by its file or by its id at the local node, which may be shortened.

        Args:
            kinds: those that a shortened id may mean; any where none is named.

        Raises:
            ConfigError: the file does not hold one, or no id, or several, begin so.
            NodeError: the node does not answer, or does not know it.
        """
        if is_id(named) or is_prefix(named):
            whole = self.id_of(named, *kinds)
            answer: Any = self.reader().record(whole)
            found = _decoded(base64.b64decode(answer["record"]), f"record {whole[:16]} of the node")
            if found.id.hex() != whole:
                raise ConfigError(f"the node answered with another record than {whole[:16]}")
            return found
        if not Path(named).exists() and "/" not in named and "." not in named:
            raise ConfigError(
                f"{named}: there is no such file, and an id of a record is 64 hex digits, or at least the first"
                f" {PREFIX_MIN}"
            )
        data, _ = read_file(Path(named), RECORD_BYTES_MAX)
        return _decoded(data, named)

    def reader(self) -> NodeClient:
        """Raises: ConfigError: the home has no token."""
        return NodeClient.of_home(self.home.path, "reader")

    def operator(self) -> NodeClient:
        """Raises: ConfigError: the home has no token."""
        return NodeClient.of_home(self.home.path, "operator")

    def bridge(self) -> NodeClient:
        """Raises: ConfigError: the home has no token."""
        return NodeClient.of_home(self.home.path, "bridge")

    def deliver(self, record: SignedRecord, out: Path | None, *, publish: bool = True) -> dict[str, Any]:
        """Write a record to a file, or publish it through the local node. Answers what was done.

        Raises:
            ConfigError: the file cannot be written.
            NodeError: the node does not answer, or refuses it.
        """
        done: dict[str, Any] = {"record": record.id.hex(), "kind": record.header.kind}
        if out is not None:
            write_file(out, record.encoded(), mode=PUBLIC)
            done["file"] = str(out)
        if publish:
            answer: Any = self.operator().submit_record(record.encoded())
            done |= {"published": True, "told": answer.get("told", [])}
        else:
            done["published"] = False
        return done


def _decoded(data: bytes, source: str) -> SignedRecord:
    try:
        return decode_record(data)
    except DecodeError as exc:
        raise ConfigError(f"{source}: not a signed record: {exc}") from exc


def credential_body(record: SignedRecord) -> Credential:
    """The body of a credential.

    Raises:
        ConfigError: the record is none.
    """
    try:
        body: Any = decode_body(record)
    except DecodeError as exc:
        raise ConfigError(f"record {record.id.hex()[:16]} is no credential: {exc}") from exc
    if not isinstance(body, Credential):
        raise ConfigError(f"record {record.id.hex()[:16]} is a {record.header.kind}, no credential")
    return body


_HEX: Final = frozenset("0123456789abcdef")


def is_id(text: str) -> bool:
    return len(text) == 2 * DIGEST_BYTES and _HEX.issuperset(text)


def is_prefix(text: str) -> bool:
    """Whether a text can be the beginning of an id, and is no file."""
    return PREFIX_MIN <= len(text) < 2 * DIGEST_BYTES and _HEX.issuperset(text) and not Path(text).exists()


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"


def whole_pattern(member: str, text: str) -> str:
    """An asset pattern as records hold it: without a domain it is within the member's own namespace.

    Raises:
        ConfigError: it is no pattern.
    """
    first = text.split("/", 1)[0]
    whole = text if (first == "*" and "/" in text) or "." in first else f"{member}/{text}"
    try:
        return msgspec.convert(whole, AssetPattern, strict=True)
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"{text!r} is no asset pattern; allowed are an asset such as `released`, `drafts/*` for one level"
            " below, `drafts/**` for all below, and with a member `clinic-north.example/released` or `*/released`"
        ) from exc


def whole_subject(member: str, text: str) -> str:
    """The SPIFFE id of a person, agent or code location of a member.

    Raises:
        ConfigError: it is none, or of another member.
    """
    whole = text if text.startswith("spiffe://") else f"spiffe://{member}/{text}"
    try:
        msgspec.convert(whole, SpiffeId, strict=True)
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"{text!r} is no subject; write e.g. `operator/7f3a`, in lower case and without a person's name"
        ) from exc
    if member_of(whole) != member:
        raise ConfigError(f"{whole} is not of {member}, and nobody credentials other organizations' people")
    return whole
