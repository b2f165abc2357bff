"""Ending with the process that started this one, even if that one is killed.

    python die_with_parent.py PARENT PROGRAM ARGUMENTS

becomes the program, which ends with the parent. On Linux the kernel sees to it; elsewhere the program is only
started. It has to be the last step before the program, for a change of user forgets the wish.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def end_with(parent: int) -> None:
    """Have this process killed when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the process that started this one has ended")


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  # it becomes what the demo names
