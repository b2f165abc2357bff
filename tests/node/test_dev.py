"""`comity dev` as people run it: three real node processes, which end with it, however it ends."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from comity.node.home import SOCKET_BYTES_MAX
from command_line import comity
from houses import environment, short_folder

READY_S = 300.0
END_S = 60.0
MEMBERS = ["first.dev.test", "second.dev.test", "third.dev.test"]
PROJECT = """
import dagster as dg
import pandas as pd

@dg.asset
def patients() -> pd.DataFrame:
    print("a project may print what it likes")
    return pd.DataFrame({"age": [30, 40]})

@dg.asset
def counted(patients: pd.DataFrame) -> pd.DataFrame:
    return patients.describe().reset_index()

@dg.asset
def written() -> None:
    pass

@dg.asset
def late(written) -> pd.DataFrame:
    return pd.DataFrame()

defs = dg.Definitions(
    assets=[patients, counted, written, late],
    resources={"io_manager": dg.FilesystemIOManager(base_dir="/nonexistent/real-data")},
)
"""


class Dev:
    """One `comity dev --json`, in a process of its own, with its temporary files below `place`."""

    def __init__(self, place: Path, *words: object) -> None:
        self.errors = place / "errors.log"
        self.temporary = place / "t"
        self.temporary.mkdir(exist_ok=True)
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "comity.node.cli", "dev", "--json", *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(TMPDIR=str(self.temporary)),
                start_new_session=True,
            )

    def line(self) -> Any:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], READY_S)[0], self.errors.read_text()
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        return json.loads(line)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(END_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(END_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@contextlib.contextmanager
def dev(place: Path, *words: object) -> Generator[Dev]:
    started = Dev(place, *words)
    try:
        yield started
    finally:
        started.close()


def until_gone(pids: list[int]) -> None:
    """Wait until no such process is left; a zombie whose new parent has not looked yet is gone, too."""
    deadline = time.monotonic() + END_S
    left = set(pids)
    while left:
        assert time.monotonic() < deadline, left
        left = {pid for pid in left if alive(pid)}
        select.select([], [], [], 0.05)


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


@pytest.mark.slow
@pytest.mark.xdist_group("dev")
def test_three_members_decide_end_with_the_command_and_go_on_from_a_kept_folder(place: Path) -> None:
    folder = place / "d"
    with dev(place, "--keep", folder) as first:
        ready = first.line()
        assert (ready["ready"], ready["realm"], ready["kept"]) == (True, "preview/dev", True)
        assert [each["member"] for each in ready["members"]] == MEMBERS
        assert ready["first"]["outcome"] == "execute"
        for each in ready["members"]:
            home = Path(each["home"])
            said = comity("node", "status", "--home", home, "--json").json
            assert (said["votes"], said["reachable"], said["coalition"]) == (True, 3, ready["coalition"])
            assert home.stat().st_mode & 0o777 == 0o700
            assert Path(each["socket"]).is_socket()
        home = ready["members"][0]["home"]
        (decision,) = comity("decision", "list", "--home", home, "--json").json
        assert (
            len(comity("decision", "show", decision["decision"], "--home", home, "--json").json["votes"]) == 3
        )
        (made,) = comity("lineage", "show", "hello", "--home", home, "--json").json["actuations"]
        assert made["asset"] == "first.dev.test/hello"
        # Nobody can clear away behind a process that is killed; nothing of it runs on all the same.
        pids = [each["pid"] for each in ready["members"]]
        assert all(map(alive, pids))
        first.process.kill()
        until_gone(pids)

    with dev(place, "--keep", folder) as second:
        again = second.line()
        assert again["coalition"] == ready["coalition"]
        # A second one on the same folder is told so, and takes nothing from the first.
        wrong = comity("dev", "--keep", folder, "--json", status=2).json["error"]["message"]
        assert "running" in wrong
        assert second.end(signal.SIGINT) == 0
        end = second.line()
        assert (end["ended"], end["reason"], end["kept"]) == (True, "interrupted", True)
        until_gone([each["pid"] for each in again["members"]])
    assert not Path(again["members"][0]["socket"]).exists()
    assert (folder / "site" / "policy.cedar").exists()


@pytest.mark.slow
@pytest.mark.xdist_group("dev")
def test_a_project_is_governed_without_a_change_of_its_files(place: Path) -> None:
    pytest.importorskip("dagster")
    project = place / "project" / "definitions.py"
    project.parent.mkdir()
    project.write_text(PROJECT)
    with dev(place, "--dagster", project.parent, "--materialize", "*") as run:
        ready = run.line()
        assert ready["ready"] is True
        end = run.line()
        assert run.process.wait(END_S) == 1, "one asset is refused, so the run has failed"
        until_gone([each["pid"] for each in ready["members"]])
    outcomes = {name: each for each in end["run"]["outcomes"] for name in each["assets"]}
    assert {name: each["outcome"] for name, each in outcomes.items()} == {
        "patients": "execute",
        "counted": "execute",
        "written": "refuse",
        "late": "not begun",
    }
    assert outcomes["written"]["causes"] == ["output_not_bound"]
    assert outcomes["counted"]["bound"] == "bound"
    assert end["run"]["first_made_s"] > 0
    # The project is as it was, and nothing of the coalition is left.
    assert project.read_text() == PROJECT
    assert not end["kept"]
    assert list(run.temporary.glob("comity-dev-*")) == []


@pytest.mark.slow
@pytest.mark.xdist_group("dev")
def test_interrupted_before_it_is_ready_it_leaves_nothing(place: Path) -> None:
    folder = place / "d"
    with dev(place, "--keep", folder) as run:
        deadline = time.monotonic() + READY_S
        while not (started := nodes_of(folder)):
            assert time.monotonic() < deadline, run.errors.read_text()
            select.select([], [], [], 0.05)
        assert run.end(signal.SIGTERM) == 130
        assert run.line()["reason"] == "interrupted"
        until_gone(started)
    assert list(folder.iterdir()) == []


def nodes_of(folder: Path) -> list[int]:
    """The processes that were started on homes of this folder."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if f"--home {folder}/" in line]


@pytest.mark.slow
@pytest.mark.xdist_group("dev")
def test_a_project_that_does_not_load_is_shown_where_it_fails(place: Path) -> None:
    pytest.importorskip("dagster")
    broken = place / "broken.py"
    broken.write_text("import json\n\ndef read():\n    return json.loads('{')\n\ndefs = read()\n")
    folder = place / "d"
    with dev(place, "--dagster", broken, "--materialize", "*", "--keep", folder) as run:
        error = run.line()["error"]
        assert run.process.wait(END_S) == 2
    lines = error["message"].splitlines()
    assert "JSONDecodeError" in lines[0]
    assert any(f'File "{broken}", line 4' in line for line in lines)
    assert "importlib" not in error["message"]
    # What failed leaves nothing: the same folder can be named again.
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.xdist_group("dev")
def test_the_webserver_serves_the_governed_project_and_ends_with_the_command(place: Path) -> None:
    (place / "project.py").write_text(PROJECT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with dev(place, "--dagster", place / "project.py", "--port", port) as run:
        ready = run.line()
        assert {each["asset"] for each in ready["project"]["assets"] if each["unbound"]} == {"written"}
        query = json.dumps({"query": "{ assetNodes { assetKey { path } } }"}).encode()
        request = urllib.request.Request(  # noqa: S310  our own loopback
            f"{ready['webserver']}/graphql", query, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            nodes = json.loads(answer.read())["data"]["assetNodes"]
        assert {each["assetKey"]["path"][0] for each in nodes} == {"patients", "counted", "written", "late"}
        assert run.end(signal.SIGTERM) == 0
    with socket.socket() as tried:
        assert tried.connect_ex(("127.0.0.1", port)) != 0


# What is given wrong


def wrong(*words: object) -> str:
    message = comity("dev", *words, "--json", status=2).json["error"]["message"]
    assert isinstance(message, str)
    return message


def test_a_path_that_is_none(place: Path) -> None:
    assert "no such file or folder" in wrong("--dagster", place / "nowhere")
    assert "no such file or folder" in wrong("--dagster", place / "nowhere.py")
    (place / "notes.txt").write_text("")
    assert "no Python file" in wrong("--dagster", place / "notes.txt")
    assert "no definitions.py" in wrong("--dagster", place)
    (place / "pyproject.toml").write_text("[tool.dagster]\nmodule_name = 'no module'\n")
    assert "no name of a module" in wrong("--dagster", place)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--once", "nightly"), "name it with --dagster"),
        (("--dagster", "a_module", "--once", "nightly", "--materialize", "*"), "not both"),
        (("--dagster", "a_module", "--partition", "2026-01-01"), "goes with"),
    ],
)
def test_options_that_do_not_go_together(words: tuple[str, ...], said: str) -> None:
    assert said in wrong(*words)


def test_a_folder_that_cannot_be_used(place: Path) -> None:
    (place / "letter.txt").write_text("dear")
    assert "not empty" in wrong("--keep", place)
    assert "is no folder" in wrong("--keep", place / "letter.txt")
    assert [each.name for each in place.iterdir()] == ["letter.txt"]
    assert "too long" in wrong("--keep", place / ("x" * SOCKET_BYTES_MAX))


def test_a_port_that_is_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = wrong("--dagster", "a_module", "--port", port)
    assert str(port) in message
    assert "--port" in message


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*missing: str) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))

    without("dagster_webserver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "dagster-webserver" in wrong("--dagster", "a_module", "--port", port)
    without("dagster")
    assert "comity[dagster]" in wrong("--dagster", "a_module", "--materialize", "*")


def test_help_teaches() -> None:
    said = " ".join(comity("dev", "--help").output.replace("│", " ").split())
    for words in (
        "throw-away",
        "preview/dev",
        "none is protected",
        "--materialize",
        "comity node init",
        "govern(defs)",
    ):
        assert words in said, words


def test_a_node_ends_with_the_input_of_who_started_it(place: Path) -> None:
    """Without a home it ends at once, so the rope is looked at by itself: a program that waits for ever."""
    words = [sys.executable, "-P", "-m", "comity.node.lifeline", sys.executable, "-c"]
    waits = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    guard = subprocess.Popen(
        [*words, waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
    )
    assert guard.stdin is not None
    assert guard.stdout is not None
    pid = int(guard.stdout.readline())
    assert alive(pid)
    guard.stdin.close()
    assert guard.wait(END_S) != 0
    until_gone([pid])
    guard.stdout.close()
