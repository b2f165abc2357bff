"""A request of a program beside the node that is not granted: a value of the API, with a stable code."""

from __future__ import annotations

from comity.protocol.errors import ComityError


class Refused(ComityError):  # noqa: N818  # it is an answer, not a fault
    """The node does not do what it was asked to do locally. It becomes a `Problem` with an HTTP status."""

    def __init__(self, code: str, message: str, status: int = 409, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.hint = hint
