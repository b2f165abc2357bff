"""Which successor of each epoch an organization has signed from its home: one, and never another.

Two successors of one epoch that all have signed would be two coalitions of one name. Every old member has to sign
either, so one member that keeps to the first rules the second out. Whoever drafts may draft anew, for the others
have signed one of its drafts at most (docs/spec/epochs.md section 5).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from comity.node.coalitions import epoch_of
from comity.node.home import Home
from comity.node.owner_files import OWNER_ONLY, read_file, write_file
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ConfigError

SIGNED_BYTES_MAX: Final = 1_048_576
"""Some five thousand epochs: a coalition that changes every day has one for more than ten years."""


class Signed(msgspec.Struct, frozen=True):
    """The successor of one epoch that was signed here, by its id.

    Attributes:
        drafter: the member that it names as its author.
        here: whether a command drafted it in this home. That is not for the draft to say: whatever came in a file and
            names this member may be of another's making, and was signed once all the same.
    """

    draft: str
    drafter: str
    here: bool = False


def keep_to_successor(
    home: Home, member: str, draft: SignedRecord | None, *, drafted_now: bool = False
) -> None:
    """Note which successor is about to be signed, on disk before its signature leaves; refuse a second one.

    A genesis follows nothing, and of no draft there is nothing to note.

    Args:
        drafted_now: whether this command has made the draft. It may then take the place of one that this home drafted
            before. What came in a file may not, whomever it names as its author.

    Raises:
        ConfigError: another successor of the same epoch was signed here before, or the note cannot be kept.
    """
    before = epoch_of(draft).previous if draft is not None else None
    if draft is None or before is None:
        return
    path = home.signed_successors
    wanted = Signed(draft.id.hex(), draft.header.member, here=drafted_now)
    with _alone(path):
        signed: dict[str, Signed] = {}
        if path.exists():
            try:
                signed = msgspec.json.decode(read_file(path, SIGNED_BYTES_MAX)[0], type=dict[str, Signed])
            except msgspec.MsgspecError as exc:
                raise ConfigError(f"{path}: not a list of signed epochs: {exc}") from exc
        kept = signed.get(before.hex(), wanted)
        if kept.draft == wanted.draft:
            wanted = kept
        elif not (drafted_now and kept.here):
            raise ConfigError(
                f"{member} has signed another epoch {draft.header.number} here, {kept.draft[:16]} by {kept.drafter},"
                f" and this is {wanted.draft[:16]}: nobody signs two successors of one epoch, for two that all have"
                " signed would tear the coalition apart. Finish the first one. Only where every copy of it is"
                f" destroyed, take its entry out of {path}"
            )
        signed[before.hex()] = wanted
        write_file(path, msgspec.json.format(msgspec.json.encode(signed), indent=2))


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """One command at a time reads the note and writes it: two at once would each see that nothing was signed yet."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, OWNER_ONLY)
    except OSError as exc:
        raise ConfigError(f"{lock}: cannot be opened: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
