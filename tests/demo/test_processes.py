"""Whatever way the demo ends, no process of it stays."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo_main.accounts import Account, choose_accounts, may_read
from demo_main.processes import DemoError, Running, Supervisor
from demo_main.runs import WITH_FITS, WITHOUT_THREADS

ENV = {"PATH": "/usr/bin:/bin"}
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's wish is Linux's")
FAMILY = "trap '' TERM; sleep 600 & echo $!; wait"
"""A shell that starts another process, says which; neither ends when asked."""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    supervisor.end_all()


def start(supervisor: Supervisor, folder: Path, script: str) -> Running:
    argv = ["/bin/sh", "-c", script]
    return supervisor.start("a shell", argv, Account(), ENV, folder, folder / "log")


def wait_for_end(pid: int, within_s: float = 10.0) -> None:
    """Wait until a process that is not ours has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([handle], [], [], within_s)
        assert ready, f"process {pid} is still there"
    finally:
        os.close(handle)


@LINUX_ONLY
def test_the_end_takes_the_whole_family(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo_main.processes.END_WAIT_S", 0.2)
    running = start(supervisor, tmp_path, FAMILY)
    child = int(running.line(10))
    supervisor.end_all()
    wait_for_end(child)
    assert running.process.poll() == -signal.SIGKILL


@LINUX_ONLY
def test_a_killed_one_takes_its_family_along(supervisor: Supervisor, tmp_path: Path) -> None:
    running = start(supervisor, tmp_path, FAMILY)
    child = int(running.line(10))
    supervisor.kill(running)
    wait_for_end(child)


@LINUX_ONLY
def test_processes_end_with_a_demo_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import pathlib, sys
from demo_main.accounts import Account
from demo_main.processes import Supervisor
folder = pathlib.Path({str(tmp_path)!r})
running = Supervisor().start("a shell", ["/bin/sleep", "600"], Account(), {ENV!r}, folder, folder / "log")
print(running.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "scripts"},
        cwd=Path(__file__).parents[2],
    ) as demo:
        assert demo.stdout is not None
        pid = int(demo.stdout.readline())
        demo.kill()
        demo.wait()
        wait_for_end(pid)


def test_a_process_that_ends_early_is_named_with_its_log(supervisor: Supervisor, tmp_path: Path) -> None:
    running = start(supervisor, tmp_path, "echo one; echo no such thing >&2; exit 3")
    assert running.line(10) == "one"
    with pytest.raises(DemoError, match=r"a shell has ended \(status 3\)\n    \| no such thing"):
        running.line(10)


def test_silence_has_a_deadline(supervisor: Supervisor, tmp_path: Path) -> None:
    running = start(supervisor, tmp_path, "exec sleep 600")
    with pytest.raises(DemoError, match="says nothing within"):
        running.line(0.05)


def test_a_program_that_does_not_end_is_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="does not end within"):
        supervisor.run(["/bin/sleep", "600"], Account(), ENV, tmp_path, 0.05)


def test_nothing_starts_after_the_end(tmp_path: Path) -> None:
    supervisor = Supervisor()
    supervisor.end_all()
    with pytest.raises(DemoError, match="ending"):
        supervisor.run(["/bin/true"], Account(), ENV, tmp_path, 1)


def test_accounts_cannot_look_into_each_others_folders(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001 and os.geteuid() == 0 and folder != Path("/"):
            folder.chmod(0o711)
    accounts = choose_accounts(("one", "two"), tmp_path)
    places = {name: account.folder(tmp_path / name) for name, account in accounts.by_name.items()}
    for name, account in accounts.by_name.items():
        account.file(places[name] / "secret", b"of " + name.encode())
    one, two = accounts.by_name["one"], accounts.by_name["two"]
    assert may_read(one, places["one"] / "secret")
    if accounts.separate:
        assert not may_read(two, places["one"])
        assert not may_read(one, places["two"] / "secret")
    else:
        assert places["one"].stat().st_mode & 0o077 == 0
        assert "0700" in accounts.sentence


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 is the first to count threads at a fork")
def test_a_worker_has_no_threads_when_it_forks() -> None:
    # Asked for as an error, this warning is lost, because fork() cannot raise it: so it has to be printed.
    program = f"import os, {', '.join(WITH_FITS)}; os.fork() or os._exit(0)"
    done = subprocess.run(
        [sys.executable, "-P", "-W", "always:This process:DeprecationWarning", "-c", program],
        env=ENV | WITHOUT_THREADS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
