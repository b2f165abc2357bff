"""Every process of the demo: started as its user, waited for with a deadline, and ended with the demo.

A process is the head of its own group, and it is the group that is ended: nothing that a node or a run
starts outlives the demo, however the demo ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from demo_main.accounts import Account

END_WAIT_S: Final = 10.0
"""How long processes may take to end by themselves before they are killed."""
LOG_SHOWN: Final = 30
"""Lines of a log that an error shows."""


class DemoError(Exception):
    """The demo cannot go on; the message says why, for people."""


class Interrupted(BaseException):  # as KeyboardInterrupt: nothing went wrong
    """Somebody wants the demo to end."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has ended."""

    status: int
    output: str
    errors: str


@dataclass(slots=True)
class Running:
    """A process that stays. `lines` are what it has written to its output, None at the end."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    lines: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue[str | None])

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, within_s: float) -> str:
        """The next line of its output.

        Raises:
            DemoError: it has ended, or says nothing in time.
        """
        try:
            found = self.lines.get(timeout=within_s)
        except queue.Empty:
            raise DemoError(f"{self.name} says nothing within {within_s:g} s\n{self.tail()}") from None
        if found is None:
            raise DemoError(f"{self.name} has ended (status {self.process.wait()})\n{self.tail()}")
        return found

    def write(self, line: str) -> None:
        """Give it a line of input.

        Raises:
            DemoError: it does not listen any more.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError) as exc:
            raise DemoError(f"{self.name} has ended\n{self.tail()}") from exc

    def tail(self) -> str:
        """The end of its log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"    | {line}" for line in lines[-LOG_SHOWN:])


class Supervisor:
    """Starts processes and ends them all. Programs may be run from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._ended = False

    def run(
        self,
        argv: Sequence[str],
        account: Account,
        env: Mapping[str, str],
        cwd: Path,
        timeout_s: float,
    ) -> Finished:
        """Run a program to its end.

        Raises:
            DemoError: it does not end in time.
        """
        process = self._start(argv, account, env, cwd, subprocess.PIPE, subprocess.DEVNULL)
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{' '.join(argv)} does not end within {timeout_s:g} s") from None
        finally:
            self._end_group(process.pid, signal.SIGKILL)
            # Once more, for the rest of what it said and for the pipes to be closed.
            process.communicate()
            self._forget(process)
        return Finished(process.returncode, output, errors)

    def start(
        self, name: str, argv: Sequence[str], account: Account, env: Mapping[str, str], cwd: Path, log: Path
    ) -> Running:
        """Start a process that stays until it is ended. Called from the main thread only: it ends with that."""
        wrapper = Path(__file__).with_name("die_with_parent.py")
        account.file(log, b"")
        with log.open("ab") as errors:
            process = self._start(
                [sys.executable, "-I", "-S", str(wrapper), str(os.getpid()), *argv],
                account,
                env,
                cwd,
                errors,
                subprocess.PIPE,
            )
        running = Running(name, process, log)
        threading.Thread(target=_collect, args=(running,), name=f"output of {name}", daemon=True).start()
        return running

    def kill(self, running: Running) -> None:
        """End a process at once, as a loss of power would."""
        self._end_group(running.pid, signal.SIGKILL)
        running.process.wait()
        self._forget(running.process)

    def end_all(self) -> None:
        """End every process: asked first, then killed. Nothing can be started after."""
        with self._lock:
            self._ended = True
            processes = dict(self._processes)
        for pid in processes:
            self._end_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + END_WAIT_S
        for process in processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
        for pid, process in processes.items():
            # The head may be gone while others of its group are not.
            self._end_group(pid, signal.SIGKILL)
            process.wait()
            self._forget(process)

    def _start(
        self,
        argv: Sequence[str],
        account: Account,
        env: Mapping[str, str],
        cwd: Path,
        errors: int | IO[bytes],
        given: int,
    ) -> subprocess.Popen[str]:
        with self._lock:
            if self._ended:
                raise DemoError("the demo is ending")
            process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=dict(env),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
                # The exchange is read by partners; everything else lies below folders of mode 0700.
                umask=0o022,
                **account.identity(),
            )
            self._processes[process.pid] = process
        return process

    def _forget(self, process: subprocess.Popen[str]) -> None:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        with self._lock:
            self._processes.pop(process.pid, None)

    @staticmethod
    def _end_group(pid: int, number: signal.Signals) -> None:
        # EPERM: on macOS, for a group of which only the dead are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


def _collect(running: Running) -> None:
    """Read a process's output to its end, so that it never waits for a reader."""
    assert running.process.stdout is not None
    with contextlib.suppress(ValueError, OSError), running.process.stdout as output:
        for line in output:
            running.lines.put(line.rstrip("\n"))
    running.lines.put(None)
