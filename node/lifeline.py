"""A process that ends with whoever started it, even where that one is killed and can say nothing any more.

The rope is the standard input: its other end is held by whoever started the process, and the system lets it go when
that one ends, however it ends. Nothing is written to it.

    python -m comity.node.lifeline PROGRAM ARGUMENTS

is the same for a program that knows nothing of this: it is started as the head of a group, and the whole group is
ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Final

END_S: Final = 10.0
"""A process that was asked to end and has not by then is ended without being asked."""
_READ_BYTES: Final = 4_096


def end_with_input() -> None:
    """Have this process end when its standard input does: as by SIGTERM, and after `END_S` without mercy."""
    threading.Thread(target=_end_this_process, name="lifeline", daemon=True).start()


def _wait_for_end_of_input() -> None:
    """Read the standard input to its end. Past Python's own buffer, whose lock would hold up the interpreter's end."""
    with contextlib.suppress(OSError):
        while os.read(0, _READ_BYTES):
            pass


def _end_this_process() -> None:
    _wait_for_end_of_input()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(END_S)
    os._exit(1)


def signal_group(head: int, number: signal.Signals) -> None:
    """Send a signal to a process and all of its group that are left.

    Args:
        head: id of the process that began the group.
    """
    # EPERM: on macOS, for a group of which only the dead are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(head, number)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    signal_group(process.pid, signal.SIGINT)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        signal_group(process.pid, signal.SIGKILL)


def _end_group_with_input(process: subprocess.Popen[bytes]) -> None:
    _wait_for_end_of_input()
    _end_group(process)


def run(argv: Sequence[str]) -> int:
    """Run a program as the head of a group until it ends, or the standard input does. Returns its exit status."""

    def ended(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, ended)
    process = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603  as asked
    threading.Thread(target=_end_group_with_input, args=(process,), name="lifeline", daemon=True).start()
    try:
        return process.wait()
    except (KeyboardInterrupt, SystemExit):
        _end_group(process)
        raise
    finally:
        # The head may be gone while others of its group are not.
        signal_group(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
