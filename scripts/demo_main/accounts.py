"""Who owns which home: as root a user of its own for every organization and person, otherwise this user.

No user is made: numeric ids that nobody has serve as well, for the kernel knows nothing else.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

BLOCK: Final = 16
"""Ids of one demo: more than it has organizations and people."""
FIRST_ID: Final = 40_000
BLOCKS: Final = 1_500
"""All below 65,536, which is what a container without privileges has. Demos at the same time have other blocks."""
_PROBE_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine. `uid` is None where everything runs as whoever started the demo."""

    uid: int | None = None

    def identity(self) -> dict[str, Any]:
        """The arguments with which `subprocess` starts a program as this user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.uid, "extra_groups": []}

    def give(self, path: Path, mode: int) -> Path:
        """Make this user the owner of a file or folder."""
        path.chmod(mode)
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)
        return path

    def folder(self, path: Path, mode: int = 0o700) -> Path:
        """A folder of this user."""
        path.mkdir(parents=True, exist_ok=True)
        return self.give(path, mode)

    def file(self, path: Path, data: bytes, mode: int = 0o600) -> Path:
        """A file of this user, in a folder that is there."""
        path.write_bytes(data)
        return self.give(path, mode)


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts of a demo, and one sentence that says what they are."""

    by_name: dict[str, Account]
    sentence: str

    @property
    def separate(self) -> bool:
        return all(account.uid is not None for account in self.by_name.values())


def choose_accounts(names: Sequence[str], place: Path) -> Accounts:
    """Accounts for these names: separate users where that is possible.

    Args:
        place: the folder that holds all homes; every account has to reach it.
    """
    shared = dict.fromkeys(names, Account())
    if os.geteuid() != 0:
        return Accounts(
            shared,
            "not root: all run as this user, and the homes have mode 0700, which keeps other users out",
        )
    first = _free_block()
    if first is None:
        return Accounts(shared, "no free user ids: all run as root, and the homes have mode 0700")
    accounts = {name: Account(first + index) for index, name in enumerate(names)}
    problem = _problem(accounts[names[0]], place)
    if problem is not None:
        return Accounts(shared, f"all run as root, and the homes have mode 0700, for {problem}")
    last = first + len(names) - 1
    return Accounts(accounts, f"root: each has a user of its own (ids {first} to {last}), homes of mode 0700")


def _free_block() -> int | None:
    """The first id of a block in which nobody has one; by the process's own id, so that two demos differ."""
    for attempt in range(BLOCKS):
        first = FIRST_ID + BLOCK * ((os.getpid() + attempt) % BLOCKS)
        if not any(_taken(first + index) for index in range(BLOCK)):
            return first
    return None


def _taken(number: int) -> bool:
    for look in (pwd.getpwuid, grp.getgrgid):
        try:
            look(number)
        except KeyError:
            continue
        return True
    return False


def _problem(account: Account, place: Path) -> str | None:
    """Why another user cannot run the demo's programs, or None."""
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", "import comity.protocol.kinds"],
            cwd=place,
            env={"PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            **account.identity(),
        )
    except PermissionError as exc:
        return f"other users may not be used here ({exc.strerror}: {exc.filename or place})"
    except (OSError, subprocess.SubprocessError):
        return f"other users cannot reach {Path(sys.prefix).parent} (clone it elsewhere to change that)"
    return None


def may_read(account: Account, path: Path) -> bool:
    """Whether a program of this account can list a folder or read a file. Tried, not computed."""
    what = "list(path.iterdir()) if path.is_dir() else path.read_bytes()"
    return _can(account, what, path)


def may_write(account: Account, folder: Path) -> bool:
    """Whether a program of this account can make a file in a folder. Tried, not computed."""
    return _can(account, "new = path / 'intrusion'; new.touch(exist_ok=False); new.unlink()", folder)


def _can(account: Account, what: str, path: Path) -> bool:
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import pathlib, sys; path = pathlib.Path(sys.argv[1]); {what}",
            str(path),
        ],
        cwd="/",
        env={},
        check=False,
        capture_output=True,
        timeout=_PROBE_TIMEOUT_S,
        **account.identity(),
    )
    return done.returncode == 0
