"""Names and digests, checked where they enter.

Names are SPIFFE ids (https://github.com/spiffe/spiffe, SPIFFE-ID section 2) with opaque people. A member is
named by its trust domain; everything that it owns begins with that name. All names are ASCII in lower case,
so that no two spellings look alike.

Spec: docs/spec/names.md.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Final, TypeAlias

import msgspec

from comity.protocol.limits import INT_MAX, INT_MIN, NAME_BYTES_MAX

DIGEST_BYTES: Final = 32

Digest: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
"""A SHA-256 digest. The id of a record is one."""

RecordId: TypeAlias = Digest
KeyId: TypeAlias = Digest

Int: TypeAlias = Annotated[int, msgspec.Meta(ge=INT_MIN, le=INT_MAX)]
Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
Timestamp: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]
"""Whole seconds since 1970-01-01T00:00:00Z, to the end of the year 9999."""

PartsPerMillion: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SEGMENT = r"[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?"
_MEMBER = rf"{_LABEL}(?:\.{_LABEL})*"

MemberId: TypeAlias = Annotated[str, msgspec.Meta(pattern=rf"^{_MEMBER}\Z", max_length=NAME_BYTES_MAX)]
"""The trust domain of an organization, e.g. `clinic-north.example`."""

SpiffeId: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=rf"^spiffe://{_MEMBER}(?:/{_SEGMENT})+\Z", max_length=NAME_BYTES_MAX)
]
"""A node, person, agent or code location, e.g. `spiffe://clinic-north.example/operator/7f3a`."""

_ASSET_SEGMENT = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_])?"
AssetId: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=rf"^{_MEMBER}(?:/{_ASSET_SEGMENT})+\Z", max_length=NAME_BYTES_MAX)
]
"""The writer's trust domain and the asset's path, e.g. `clinic-north.example/released`."""

AssetPattern: TypeAlias = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^(?:\*|{_MEMBER})(?:/{_ASSET_SEGMENT})*(?:/\*\*|/\*)?\Z", max_length=NAME_BYTES_MAX
    ),
]
"""An asset id, or one whose first segment is `*` (any member) or whose last is `*` (one segment) or `**` (the rest)."""

ClassName: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=rf"^{_SEGMENT}(?:/{_SEGMENT})*\Z", max_length=NAME_BYTES_MAX)
]
"""An authority class or data class, e.g. `health/data-steward`."""

Realm: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=rf"^(?:production|preview/{_SEGMENT})\Z", max_length=NAME_BYTES_MAX)
]
"""`production`, or `preview/<name>`, whose outcomes never reach production."""

UNSHOWN: Final = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""What moves a cursor or turns the direction of a line (a part of a class of a regular expression): the control
characters C0, DEL and C1, the separators of lines and paragraphs, and the bidi controls of UAX #9. A text that people
read beside others' must not be able to write over them."""
SHOWN: Final = rf"^[^{UNSHOWN}]*\Z"

ShortText: TypeAlias = Annotated[str, msgspec.Meta(pattern=SHOWN, max_length=NAME_BYTES_MAX)]
"""Words of a person or a program: any Unicode but what nobody can see."""
Code: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,63}\Z")]
"""A stable code of a cause, need, obligation or claim."""

PRODUCTION: Final = "production"

_DOMAIN_OF = re.compile(rf"^(?:spiffe://)?({_MEMBER})(?:/|\Z)")


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def member_of(name: str) -> str:
    """The trust domain that a SPIFFE id or an asset id begins with; empty where there is none."""
    found = _DOMAIN_OF.match(name)
    return found.group(1) if found else ""


def pattern_matches(pattern: str, asset: str) -> bool:
    """Whether an asset id falls under an `AssetPattern`."""
    if "*" not in pattern:
        return pattern == asset
    wanted, given = pattern.split("/"), asset.split("/")
    if wanted[0] not in ("*", given[0]):
        return False
    for index, part in enumerate(wanted[1:], start=1):
        if part == "**":
            return len(given) > index
        if index >= len(given) or part not in ("*", given[index]):
            return False
    return len(wanted) == len(given)


def pattern_within(inner: str, outer: str) -> bool:
    """Whether every asset that `inner` matches is matched by `outer` too. Sound, and exact for this grammar."""
    left, right = inner.split("/"), outer.split("/")
    if right[0] != "*" and left[0] != right[0]:
        return False
    for index, part in enumerate(right[1:], start=1):
        if part == "**":
            return len(left) > index
        if index >= len(left) or left[index] == "**":
            return False
        if part != "*" and left[index] != part:
            return False
    return len(left) == len(right)
