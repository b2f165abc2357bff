"""Bodies of the accountability records.

Spec: docs/spec/accountability.md.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from comity.protocol.encoding import Form
from comity.protocol.governance import Salt
from comity.protocol.identifiers import Code, ShortText
from comity.protocol.limits import RECORD_BYTES_MAX


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
