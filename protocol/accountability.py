"""Bodies of the accountability records.

Spec: docs/spec/accountability.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from comity.protocol.encoding import Form
from comity.protocol.governance import Salt
from comity.protocol.identifiers import Code, Digest, Natural, ShortText
from comity.protocol.limits import RECORD_BYTES_MAX, SIGNED_NOTE_BYTES_MAX


class Checkpoint(Form, frozen=True):
    """How far one log of the signing node goes, and the root of the tree over it (RFC 9162, section 2.1).

    `signature` is the node key's signature over the text of the checkpoint (C2SP tlog-checkpoint), so that readers of
    that format verify it without this record.
    """

    salt: Salt
    log: Literal["execution", "governance"]
    origin: ShortText
    size: Natural
    root: Digest
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=SIGNED_NOTE_BYTES_MAX)]
    critical: tuple[ShortText, ...] = ()


class Cosignature(Form, frozen=True):
    """The node has checked that a log only grew to the checkpoint that the header's subject names.

    `signature` is one of C2SP cosignature/v1 over that checkpoint's text, with the header's `at` as its time.
    """

    salt: Salt
    checkpoint: Digest
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=SIGNED_NOTE_BYTES_MAX)]
    critical: tuple[ShortText, ...] = ()


class Misbehaviour(Form, frozen=True):
    """A proof that an author contradicted itself: the records that cannot both be honest, whole.

    `rule` is `two_votes`, `two_asks` or `two_actuations`. It needs no trust in its author.
    """

    salt: Salt
    rule: Code
    records: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=RECORD_BYTES_MAX)], ...],
        msgspec.Meta(min_length=2, max_length=2),
    ]
    critical: tuple[ShortText, ...] = ()


class Erased(Form, frozen=True):
    """The body of the record that the header's subject names was erased: on which ground."""

    salt: Salt
    ground: Code
    critical: tuple[ShortText, ...] = ()
