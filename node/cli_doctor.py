"""`comity node doctor`: what is wrong with a home and its node, and by which command it is mended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import typer

from comity.node.cli_terminal import NEGATIVE, HomeOption, JsonOption, examples, reported, show

if TYPE_CHECKING:
    from rich.console import Console

    from comity.node.doctor_findings import Finding

_MARKS: Final = {"ok": "ok       ", "warning": "warning  ", "wrong": "WRONG    ", "not tried": "not tried"}


def register(node: typer.Typer) -> None:
    """Add the command to those of `comity node`."""
    node.command("doctor", epilog=examples("comity node doctor", "comity node doctor --home HOME --json"))(
        doctor
    )


@reported
def doctor(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Say what is wrong with a node's home and its node, and by which command it is mended. Nothing is changed.

    It works whether the node runs or not; what needs a running node is then not tried. Status 1 where something is
    wrong; a warning is none.
    """
    from dataclasses import asdict

    from comity.node.clock import SystemClock
    from comity.node.doctor import examine
    from comity.node.home import find_home

    place = find_home(home, os.environ)
    found = examine(place, SystemClock(), os.environ)
    wrong = any(finding.verdict == "wrong" for finding in found)
    value = {"home": str(place.path), "sound": not wrong, "checks": [asdict(finding) for finding in found]}
    show(value, as_json, lambda out: _say(out, found))
    if wrong:
        raise typer.Exit(NEGATIVE)


def _say(out: Console, found: list[Finding]) -> None:
    for finding in found:
        about = f" {finding.about}:" if finding.about else ""
        out.print(f"{_MARKS[finding.verdict]}  {finding.check}:{about} {finding.sentence}")
        if finding.command and finding.verdict != "ok":
            out.print(f"             {finding.command}")
    counted = {
        verdict: sum(finding.verdict == verdict for finding in found)
        for verdict in ("wrong", "warning", "not tried")
    }
    out.print(", ".join(f"{count} {verdict}" for verdict, count in counted.items()) + ".")
