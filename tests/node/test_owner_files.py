"""Small files: whole or not at all, and only for whom they are."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from comity.node.owner_files import OWNER_ONLY, PUBLIC, read_file, write_file
from comity.protocol.errors import ConfigError


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("mode", [OWNER_ONLY, PUBLIC])
def test_a_file_has_its_mode_whatever_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    old = os.umask(umask)
    try:
        write_file(tmp_path / "f", b"x", mode=mode)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode
    assert read_file(tmp_path / "f", 1) == (b"x", mode == PUBLIC)


def test_a_file_is_replaced_unless_it_may_not_be(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_file(path, b"old", replace=False)
    write_file(path, b"new")
    with pytest.raises(ConfigError, match="f: cannot be written: File exists"):
        write_file(path, b"newest", replace=False)
    assert read_file(path, 3)[0] == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_reading_is_bounded_and_waits_for_nobody(tmp_path: Path) -> None:
    write_file(tmp_path / "f", b"xxx")
    with pytest.raises(ConfigError, match="longer than 2 bytes"):
        read_file(tmp_path / "f", 2)
    os.mkfifo(tmp_path / "pipe")
    for wrong in ("pipe", "."):
        with pytest.raises(ConfigError, match=r"not a regular file|cannot be read"):
            read_file(tmp_path / wrong, 2)
    with pytest.raises(ConfigError, match="absent: cannot be read: No such file"):
        read_file(tmp_path / "absent", 2)


DYING = """
import os, signal, sys
from pathlib import Path
from comity.node import owner_files

path, calls = Path(sys.argv[1]), 0

def dying(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

for dies_at in range(1, 50):
    path.write_bytes(b"old" * 50_000)
    child = os.fork()
    if not child:
        for name in ("open", "fdopen", "fchmod", "fsync", "close"):
            setattr(os, name, dying(getattr(os, name)))
        Path.replace = dying(Path.replace)
        Path.unlink = dying(Path.unlink)
        owner_files.write_file(path, b"new" * 60_000)
        os._exit(0)
    died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    data = path.read_bytes()
    print({b"old" * 50_000: "old", b"new" * 60_000: "new"}.get(data, "broken"))
    if not died:
        break
"""


def test_whenever_a_writer_dies_the_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    """Killed before each of its calls to the system in turn."""
    said = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path / "f")], capture_output=True, text=True, check=True
    )
    states = said.stdout.split()
    assert set(states) == {"old", "new"}
    assert states == sorted(states, reverse=True)
    assert len(states) > 6
