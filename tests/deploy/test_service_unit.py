"""The systemd unit: systemd takes it, it gives few rights, and the node tells its manager what the unit waits for."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from comity.node.readiness import Readiness
from comity.protocol.errors import ConfigError
from houses import environment, found, short_folder
from machine_tools import ROOT, said_by, tool
from world import NORTH

UNIT = ROOT / "deploy/comity-node.service"
EXPOSURE_MAX = 1.5
"""Of 10, as systemd-analyze counts it; a unit that says nothing has 9.6."""
READY_S = 60.0


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def ear(place: Path) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(place / "notify"))
        heard.settimeout(READY_S)
        yield heard


def said(ear: socket.socket) -> str:
    return ear.recv(4_096).decode()


def settings() -> dict[str, list[str]]:
    """The settings of the unit; those that may be said more than once keep all that is said."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def root_with_the_unit(place: Path) -> Path:
    """A tree in which systemd finds the unit, and the program that it starts."""
    units = place / "root/etc/systemd/system"
    units.mkdir(parents=True)
    (units / UNIT.name).write_text(UNIT.read_text())
    program = place / "root" / settings()["ExecStart"][0].split()[0].lstrip("/")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for target in ("network-online", "time-sync", "multi-user", "sysinit", "basic", "shutdown"):
        (units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    for slice_ in ("system", "-"):
        (units / f"{slice_}.slice").write_text("[Slice]\n")
    return place / "root"


def test_systemd_takes_the_unit(place: Path) -> None:
    root = root_with_the_unit(place)
    analyze = tool("systemd-analyze", "systemd")
    # What it warns of goes to the error output with status 0: nothing may be said at all.
    assert said_by(analyze, "verify", "--man=no", f"--root={root}", UNIT.name) == ""


def test_a_unit_with_a_fault_is_told(place: Path) -> None:
    root = root_with_the_unit(place)
    copy = root / "etc/systemd/system" / UNIT.name
    copy.write_text(copy.read_text().replace("ProtectSystem=", "ProtectSytem="))
    analyze = tool("systemd-analyze", "systemd")
    assert "ProtectSytem" in said_by(analyze, "verify", "--man=no", f"--root={root}", UNIT.name, status=None)


def test_the_unit_leaves_the_node_few_rights(place: Path) -> None:
    root = root_with_the_unit(place)
    analyze = tool("systemd-analyze", "systemd")
    words = ("security", "--offline=true", f"--root={root}", "--no-pager")
    report = said_by(analyze, *words, f"--threshold={int(EXPOSURE_MAX * 10)}", UNIT.name)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert level is not None, report
    assert float(level[1]) <= EXPOSURE_MAX
    assert subprocess.run(
        [analyze, *words, "--threshold=1", UNIT.name], capture_output=True, check=False
    ).returncode


def test_the_unit_does_not_hammer_and_lets_a_commit_finish() -> None:
    unit = {name: values[-1] for name, values in settings().items()}
    assert unit["Type"] == "notify"
    assert unit["Restart"] == "on-failure"
    assert "2" in unit["RestartPreventExitStatus"].split()
    # All starts that are allowed fit into the interval, or the limit would never be reached.
    assert int(unit["StartLimitBurst"]) * int(unit["RestartSec"].rstrip("s")) < 600
    assert unit["StartLimitIntervalSec"] == "10min"
    assert unit["KillSignal"] == "SIGTERM"
    assert int(unit["TimeoutStopSec"].rstrip("s")) >= 30


def start(place: Path, **more: str) -> subprocess.Popen[str]:
    homes = found(place, (NORTH,))
    command = [sys.executable, "-P", "-m", "comity.node.cli", "node", "start", "--json"]
    return subprocess.Popen(
        [*command, "--home", str(homes[NORTH].path), "--log-file", str(place / "log")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(**more),
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_node_says_that_it_serves_lives_and_ends(place: Path, ear: socket.socket) -> None:
    process = start(place, NOTIFY_SOCKET=str(place / "notify"), WATCHDOG_USEC="2000000")
    try:
        first = said(ear)
        assert first.splitlines()[0] == "READY=1"
        assert re.fullmatch(r"STATUS=\S+ serves epoch 0", first.splitlines()[1])
        assert process.stdout is not None
        answered = json.loads(process.stdout.readline())
        assert Path(answered["socket"]).is_socket()
        assert [said(ear) for _ in range(3)] == ["WATCHDOG=1"] * 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        heard = said(ear)
        while heard == "WATCHDOG=1":
            heard = said(ear)
        assert heard == "STOPPING=1"
        assert "node_stopped" in (place / "log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_an_abstract_name_is_told_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("")  # The system gives it an abstract name.
        heard.settimeout(10)
        name = heard.getsockname()[1:].decode()
        Readiness.of_environment({"NOTIFY_SOCKET": f"@{name}"}).ready("well")
        assert said(heard) == "READY=1\nSTATUS=well"


async def test_signs_of_life_come_twice_in_the_managers_patience(
    ear: socket.socket, place: Path, autojump_clock: MockClock
) -> None:
    readiness = Readiness.of_environment(
        {"NOTIFY_SOCKET": str(place / "notify"), "WATCHDOG_USEC": "60000000"}
    )
    with trio.move_on_after(95):
        await readiness.watch()
    ear.setblocking(False)
    assert [said(ear) for _ in range(4)] == ["WATCHDOG=1"] * 4
    with pytest.raises(BlockingIOError):
        said(ear)


async def test_without_a_manager_nobody_is_told() -> None:
    readiness = Readiness.of_environment({"WATCHDOG_USEC": "60000000"})
    readiness.ready("well")
    readiness.stopping()
    with trio.fail_after(1):
        await readiness.watch()


def test_a_manager_that_is_gone_or_does_not_read_stops_nothing(place: Path) -> None:
    Readiness.of_environment({"NOTIFY_SOCKET": str(place / "gone")}).ready("well")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(place / "deaf"))
        readiness = Readiness.of_environment({"NOTIFY_SOCKET": str(place / "deaf")})
        for _ in range(2_000):
            readiness.stopping()


@pytest.mark.parametrize(
    "variables",
    [
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "9" * 400},
        {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "-1"},
    ],
    ids=["relative", "long", "word", "none", "huge", "negative"],
)
def test_variables_of_no_manager_are_refused(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Readiness.of_environment(variables)
