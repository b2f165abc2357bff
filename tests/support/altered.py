"""Verified records that differ from what was signed in one thing: as if their author had signed that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from comity.protocol.verified import VerifiedRecord


def headed(record: VerifiedRecord[Any], **changes: Any) -> VerifiedRecord[Any]:
    """The record with another header."""
    header = msgspec.structs.replace(record.header, **changes)
    return replace(record, record=replace(record.record, header=header))


def bodied(record: VerifiedRecord[Any], **changes: Any) -> VerifiedRecord[Any]:
    """The record with another body."""
    return replace(record, body=msgspec.structs.replace(record.body, **changes))
