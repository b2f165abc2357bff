"""`comity dev --dagster`: the processes of Dagster beside the three nodes, and what they answer."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any, Final, Literal

from comity.node.dev import DevFolder
from comity.node.dev_processes import POLL_S, Child, Household, ProcessEndedError, environment, tail_of
from comity.node.dev_project import (
    Project,
    answer_file,
    bridge_words,
    dagster_environment,
    webserver_words,
    write_location,
)
from comity.node.owner_files import read_file
from comity.protocol.errors import ConfigError

LOAD_S: Final = 120.0
"""Importing Dagster and the project."""
RUN_S_MAX: Final = 24 * 3_600.0
"""One run of `--once` or `--materialize`: as long as a day's work takes, and not for ever."""
SERVE_S: Final = 120.0
"""Until the webserver answers."""
ASK_S: Final = 2.0
ANSWER_BYTES_MAX: Final = 16 * 1_048_576


class ProjectFailedError(ConfigError):
    """The project does not load, or has not what was asked for: a file that was given is wrong."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done with a project.

    Attributes:
        once: run once and end, instead of serving the webserver.
        job: to run; empty for the assets of `select`.
    """

    project: Project
    once: bool
    job: str
    select: str
    partition: str
    port: int
    unbound: Literal["refuse", "allow"]


@dataclass(slots=True)
class Bench:
    """The program that loads the project while the nodes come up, and perhaps runs a part of it."""

    folder: DevFolder
    work: Work
    child: Child

    def look(self) -> None:
        """See whether it goes well so far.

        Raises:
            ProjectFailedError: the project does not load.
        """
        if self.child.process.poll() not in (None, 0):
            self._answer()

    def wait_until_loaded(self) -> Any:
        """Wait for the project's description.

        Raises:
            ProjectFailedError: it does not load.
        """
        deadline = time.monotonic() + LOAD_S
        while not answer_file(self.folder).exists() and self.child.process.poll() is None:
            self._require_before(deadline, LOAD_S, "to load the project")
            time.sleep(POLL_S)
        return self._answer()

    def run(self) -> Any:
        """Have it run what it has loaded, and wait for what became of it.

        Raises:
            ProjectFailedError: the project has not what was asked for.
        """
        self.child.tell("go")
        deadline = time.monotonic() + RUN_S_MAX
        while self.child.process.poll() is None:
            self._require_before(deadline, RUN_S_MAX, "to run")
            time.sleep(POLL_S)
        said = self._answer()
        if "outcomes" not in said:
            raise ProcessEndedError(f"{self.child.name} has ended within the run{self.child.tail()}")
        return said

    def _require_before(self, deadline: float, within_s: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise ProcessEndedError(f"waited {within_s:g} s for {self.child.name} {what}{self.child.tail()}")

    def _answer(self) -> Any:
        path = answer_file(self.folder)
        if not path.exists():
            raise ProcessEndedError(f"{self.child.name} has ended without an answer{self.child.tail()}")
        said: Any = json.loads(read_file(path, ANSWER_BYTES_MAX)[0])
        if "problem" in said:
            lines = said.get("traceback", [])
            raise ProjectFailedError("\n  ".join([f"the project does not run: {said['problem']}", *lines]))
        return said


def load(household: Household, work: Work) -> Bench:
    """Begin to load the project, governed.

    Raises:
        ConfigError: the generated code location cannot be written.
        ProcessEndedError: Python cannot be started.
    """
    folder = household.folder
    write_location(folder, work.project, work.unbound)
    answer_file(folder).unlink(missing_ok=True)
    more = ("--job", work.job, "--select", work.select, "--partition", work.partition) if work.once else ()
    words = bridge_words("once" if work.once else "describe", folder, *more)
    log = folder.logs / "dagster.log"
    child = household.start("Dagster", words, log, _environment(folder))
    return Bench(folder, work, child)


def serve(household: Household, work: Work) -> str:
    """Start Dagster's webserver and daemon, and wait until it answers. Returns its address.

    Raises:
        ProcessEndedError: it does not.
    """
    folder = household.folder
    log = folder.logs / "webserver.log"
    words = webserver_words(folder, work.port)
    child = household.start("Dagster's webserver", words, log, _environment(folder))
    deadline = time.monotonic() + SERVE_S
    while not _answers(work.port):
        if child.process.poll() is not None:
            raise ProcessEndedError(f"{child.name} has ended{tail_of(log)}")
        if time.monotonic() > deadline:
            raise ProcessEndedError(f"{child.name} does not answer within {SERVE_S:g} s{tail_of(log)}")
        time.sleep(POLL_S)
    return f"http://127.0.0.1:{work.port}"


def _environment(folder: DevFolder) -> dict[str, str]:
    return environment(**dagster_environment(folder))


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_S)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def first_made(outcomes: list[Any]) -> float:
    """When the first governed materialization was recorded, in seconds since 1970; 0 where none was."""
    times = [
        float(each["at"]) for each in outcomes if each["outcome"] in ("execute", "restrict") and each["at"]
    ]
    return min(times, default=0.0)
