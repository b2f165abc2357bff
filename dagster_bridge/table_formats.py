"""The formats that tables are kept in, and why one cannot be written. Light: it imports no table library."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from comity.node.client import TermForm
from comity.protocol.errors import ComityError

Format: TypeAlias = Literal["parquet", "csv"]

MEDIA_TYPES: Final[dict[Format, str]] = {
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv",
}
FORMATS: Final[dict[str, Format]] = {"parquet": "parquet", "csv": "csv"}


class UnwritableError(ComityError):
    """A value cannot be brought within its permit, or is no table that can be written or read.

    Attributes:
        cause: a stable code with parameters.
    """

    def __init__(self, cause: TermForm) -> None:
        super().__init__(cause.message or cause.code)
        self.cause = cause
