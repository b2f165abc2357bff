"""Letting other users reach the programs of the demo where these lie below a folder that is closed to them.

Root's Python often lies below /root, which nobody else may enter. Instead of opening that folder to everybody,
the demo sees it through a mount namespace of its own: an empty folder in its place, in which nothing shows but
what is needed, under the same paths. Nobody else sees a change, and it is gone with the demo's processes.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
_PASSED_THROUGH: Final = b"mode=0711"
_OTHERS_ENTER: Final = 0o001


def closed_folders(needed: Iterable[Path]) -> dict[Path, list[Path]]:
    """The topmost folders that other users may not enter, each with what is needed below it."""
    found: dict[Path, list[Path]] = {}
    for path in needed:
        whole = path.resolve()
        for parent in reversed(whole.parents):
            if not parent.stat().st_mode & _OTHERS_ENTER:
                found.setdefault(parent, []).append(whole)
                break
    return found


def open_doors(needed: Iterable[Path]) -> str:
    """Make these folders reachable for other users, for this process and those that it starts.

    To be called before there are other threads, for each has its own view. Returns a sentence about what was
    done, empty where nothing was needed or possible.
    """
    closed = closed_folders(needed)
    if not closed or sys.platform != "linux" or os.geteuid() != 0:
        return ""
    libc = ctypes.CDLL(None, use_errno=True)
    here = Path.cwd()
    if libc.unshare(CLONE_NEWNS) != 0:
        return ""
    _mount(libc, b"none", Path("/"), None, MS_REC | MS_PRIVATE, None)
    for folder, below in closed.items():
        handles = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in _topmost(below)}
        _mount(libc, b"tmpfs", folder, b"tmpfs", 0, _PASSED_THROUGH)
        for path, handle in handles.items():
            path.mkdir(parents=True)
            for parent in path.parents:
                if parent == folder:
                    break
                parent.chmod(0o711)
            _mount(libc, f"/proc/self/fd/{handle}".encode(), path, None, MS_BIND, None)
            os.close(handle)
    os.chdir(here)
    return (
        f"{', '.join(map(str, closed))}, where Python or this repository lies, is closed to them: they see nothing "
        "of it but that"
    )


def _topmost(paths: Iterable[Path]) -> list[Path]:
    """The paths without those that lie below another one."""
    listed = sorted(set(paths))
    return [path for path in listed if not any(other in path.parents for other in listed)]


def _mount(
    libc: ctypes.CDLL, source: bytes, target: Path, kind: bytes | None, flags: int, data: bytes | None
) -> None:
    if libc.mount(source, os.fsencode(target), kind, ctypes.c_ulong(flags), data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount: {os.strerror(number)}", str(target))
