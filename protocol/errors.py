"""The errors of the system, by whose fault they are.

A refusal is a value, never one of these. Errors of other libraries are translated into these in one
named place per adapter. "The data is bad" and "the road is bad" share no parent below the root.
"""

from __future__ import annotations


class ComityError(Exception):
    """Root of every error that Comity raises on purpose."""


class DecodeError(ComityError):
    """Bytes are not what they claim to be: malformed, not canonical, too large, or of another version."""


class VerificationError(ComityError):
    """Well-formed, but not genuine: a signature, key, certificate, chain or digest does not check.

    Attributes:
        reason: a stable code, e.g. `signature_wrong`.
        record: the id of the record that failed, where there is one.
    """

    def __init__(self, reason: str, detail: str, record: bytes | None = None) -> None:
        where = f" (record {record.hex()[:16]})" if record is not None else ""
        super().__init__(f"{reason}: {detail}{where}")
        self.reason = reason
        self.detail = detail
        self.record = record


class LocalProtocolError(ComityError):
    """This program broke its own rules: a bug here, never a remote's fault."""


class TransportError(ComityError):
    """The road failed. It says nothing about any record; trying again may help."""


class StoreError(ComityError):
    """The disk failed or the store is not ours to write. The node stops."""


class ConfigError(ComityError):
    """The operator's input is wrong. The message names the file, the key and what is allowed."""
