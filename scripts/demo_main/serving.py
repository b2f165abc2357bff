"""Leave it running, say what there is to look at and to try, and bring back the nodes that were taken away."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Final

from demo_main.commands import program
from demo_main.organizations import Organization
from demo_main.processes import DemoError, Interrupted
from demo_main.runs import environment_of
from demo_main.stage import Stage

WAIT_S: Final = "8"
"""How long a step that is tried waits for its decision: longer than votes are waited for."""
VARIABLES: Final = (
    "PATH",
    "HOME",
    "DAGSTER_HOME",
    "DAGSTER_DISABLE_TELEMETRY",
    "COMITY_HOME",
    "COMITY_EXCHANGE",
    "COMITY_WAIT_S",
)
"""The variables that make a command the organization's."""
JOIN: Final = Path(__file__).parents[2] / "docs/join.md"
DEFINITIONS: Final = "project/definitions.py"
BRING_BACK: Final = signal.SIGUSR1


def serve(stage: Stage, *, own_view: bool) -> None:
    """Say what to try, and wait until somebody wants the demo to end.

    Args:
        own_view: whether the demo sees folders that others see differently (`doors`).
    """
    story = stage.story
    signal.signal(BRING_BACK, _noticed)
    with story.phase("serve", "All nodes are running. Ctrl-C ends them. In another terminal:"):
        programs = [program_within(stage, each, own_view=own_view) for each in stage.cast.organizations]
        within = program_of(stage, stage.cast.institute)
        _show(stage, "To look at:", _to_look_at(stage, within))
        _show(stage, "To try, one after the other:", _to_try(stage, within))
        story.say(
            f"Each organization's files are under {stage.cast.place}: node/ is its node's home, assets/ its data. "
            f"{program_of(stage, stage.cast.north)} COMMAND is a command as Clinic North gives it; the others have "
            "one, too."
        )
        # The handler of Ctrl-C raises.
        with contextlib.suppress(Interrupted):
            while True:
                signal.pause()
                bring_back(stage)
        # They would run nothing when the demo has ended.
        for each in programs:
            each.unlink(missing_ok=True)


def bring_back(stage: Stage) -> None:
    """Start every node that is down, and say which."""
    back = [node for node in stage.nodes.values() if not node.up]
    for node in back:
        node.start()
    for node in back:
        try:
            node.wait_until_ready()
        except DemoError as exc:
            stage.story.say(str(exc))
            continue
        stage.story.say(f"{node.organization.title} is back: process {node.pid}")
    if not back:
        stage.story.say("every node is running")


def _noticed(number: int, frame: FrameType | None) -> None:
    """That the signal came is all: whoever pauses goes on."""
    del number, frame


def _show(stage: Stage, heading: str, rows: Iterable[tuple[str, str]]) -> None:
    stage.story.say(heading)
    for what, command in rows:
        stage.story.say(f"  {what}:")
        stage.story.show(command)


def _to_look_at(stage: Stage, within: Path) -> list[tuple[str, str]]:
    bundle, roots = stage.results / "survival.bundle", stage.results / "roots.toml"
    return [
        ("who is there, and how many faults are tolerated", f"{within} comity node status"),
        ("what was decided", f"{within} comity decision list"),
        (
            "by whose votes, and how each of them came about, judged again",
            f"{within} comity decision show {_permit_of_survival(stage)[:16]} --working",
        ),
        (
            "Clinic North's runs in Dagster's own pages: what was begun, and what was not, and why",
            stage.service(stage.cast.north).url,
        ),
        (
            "what waits for people at Clinic South: a link for a browser on this machine",
            f"{program_of(stage, stage.cast.south)} comity page",
        ),
        ("where survival comes from", f"{within} comity lineage show survival"),
        ("the same for a stranger", f"{program('comity')} verify {bundle} --roots {roots}"),
    ]


def _to_try(stage: Stage, within: Path) -> list[tuple[str, str]]:
    cast = stage.cast
    make = f"{within} dagster asset materialize --select enrolment -f {DEFINITIONS}"
    pages = ("Dagster's own pages, at http://127.0.0.1:3000", f"{within} dagster-webserver -f {DEFINITIONS}")
    if not Path(program("dagster-webserver")).exists():
        # It may bring another Dagster, which what runs now must not see.
        uv, python = Path(__file__).parents[1] / "_uv", program("python")
        pages = (
            "for Dagster's own pages end this, give this command, and start the demo again",
            f"{uv} pip install --python {python} 'dagster-webserver<1.14'",
        )
    return [
        ("take Clinic North's node away, whose consent is live", f"kill -9 {stage.node(cast.north).pid}"),
        (f"make enrolment again: it waits {WAIT_S} s, and is deferred", make),
        ("what waits, and for whom", f"{within} comity waiting"),
        ("bring back what was taken away", f"kill -{BRING_BACK.name.removeprefix('SIG')} {os.getpid()}"),
        ("within half a minute it has gone on by itself, and nothing waits", f"{within} comity waiting"),
        ("make enrolment again: it is made", make),
        (
            "take the Ethics Board's node away instead: enrolment is made, by the votes of the three others",
            f"kill -9 {stage.node(cast.board).pid}",
        ),
        (
            "have a fifth organization join, once every node is back: the page says each step",
            f"less {JOIN}",
        ),
        pages,
    ]


def program_of(stage: Stage, organization: Organization) -> Path:
    """Where the program lies that runs a command as an organization does."""
    return stage.cast.place / f"as-{organization.name}"


def program_within(stage: Stage, organization: Organization, *, own_view: bool) -> Path:
    """Write a program that runs a command as an organization does: its user, its folder, its variables."""
    variables = environment_of(organization, stage.cast.exchange, {"COMITY_WAIT_S": WAIT_S})
    assigned = (f"{name}={shlex.quote(variables[name])}" for name in VARIABLES)
    change = f"cd {shlex.quote(str(organization.place))} && exec"
    words = ["env", *assigned, "sh", "-c", shlex.quote(f'{change} "$@"'), "sh", '"$@"']
    uid = organization.account.uid
    if uid is not None:
        words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *words]
        if own_view:
            words = ["nsenter", "--mount", f"--target={os.getpid()}", *words]
    path = program_of(stage, organization)
    path.write_text(f"#!/bin/sh\n# A command as {organization.title} gives it.\nexec {' '.join(words)}\n")
    path.chmod(0o755)
    return path


def _permit_of_survival(stage: Stage) -> str:
    """The decision that `survival` was made under."""
    wanted = [f"{stage.cast.institute.member}/survival"]
    rows = (row for row in stage.decisions.values() if row["assets"] == wanted and row["outcome"] != "refuse")
    return str(max(rows, key=lambda row: row["t"])["decision"])
