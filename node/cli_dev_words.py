"""What `comity dev` says to people: that it is ready, what to try, and what became of a project's assets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comity.node.cli_terminal import short, table
from comity.node.visible import word

if TYPE_CHECKING:
    from rich.console import Console


def say_ready(out: Console, made: dict[str, Any], *, runs: bool) -> None:
    """Three nodes run.

    Args:
        runs: something is run once, and then all of it ends: there is nothing to try.
    """
    out.print(
        f"Ready after {made['seconds']} s: the coalition {made['coalition_name']} ({short(made['coalition'])}), three"
        f" throw-away members, realm {made['realm']}."
    )
    if runs:
        _say_project(out, made["project"], made["unbound"])
        return
    out.print("")
    rows = ((each["member"], each["pid"], each["home"]) for each in made["members"])
    table(out, ("MEMBER", "PROCESS", "HOME"), rows, "")
    out.print("")
    if "first" in made:
        out.print(
            f"A first decision was made, on the asset {made['first']['asset']}: {made['first']['outcome']}."
        )
    if "project" in made:
        _say_project(out, made["project"], made["unbound"])
        out.print(f"Dagster's webserver answers on {made['webserver']}")
    _say_next(out, made)


def _say_next(out: Console, made: dict[str, Any]) -> None:
    third = made["members"][-1]
    lines = (
        ("comity node status", "who is in reach, and whether anything can be decided"),
        ("comity decision list", "what was decided; `comity decision show ID` says who voted why"),
        (
            f"comity lineage show {made['first']['asset'] if 'first' in made else 'ASSET'}",
            "where an asset comes from",
        ),
        ("comity waiting", "what waits, and for what"),
        (
            f"kill {third['pid']}",
            f"{third['member']} fails: of three, none may, and what is asked then is held",
        ),
        (f"comity node start --home {word(third['home'])}", "it comes back, and what was held goes on"),
    )
    out.print("Try, in another terminal:")
    out.print(f"  export COMITY_HOME={word(made['members'][0]['home'])}")
    for command, why in lines:
        out.print(f"  {command}")
        out.print(f"      {why}")
    out.print(f"Rules, in {made['folder']}/site, and how to go on from here: docs/dev.md.")
    end = "leaves the folder" if made["kept"] else "removes the folder"
    out.print(f"Ctrl-C ends the nodes and {end}.")


def _say_project(out: Console, project: Any, unbound: str) -> None:
    assets, jobs = project["assets"], project["jobs"]
    out.print(
        f"The project has {len(assets)} assets to make"
        + (f", and the jobs {', '.join(jobs)}" if jobs else "")
        + ". Its io_manager is replaced by one that keeps tables in this folder."
    )
    loose = [each for each in assets if each["unbound"]]
    for each in loose:
        out.print(f"  {each['asset']}: {each['unbound']}")
    if loose:
        out.print(
            "  These are refused (output_not_bound); --unbound allow lets them be made, without a content that"
            " lineage names."
            if unbound == "refuse"
            else "  These are made (--unbound allow), and their records name no content: partners admit none of it."
        )


def say_end(out: Console, end: dict[str, Any]) -> None:
    """Why it ended, and what became of what was run once."""
    if "run" in end:
        _say_run(out, end["run"], end["folder"] if end["kept"] else "")
    elif end["reason"] != "interrupted":
        out.print(f"It ended by itself: {end['reason']}.")
    if end["kept"]:
        out.print(f"{end['folder']} is kept. To go on with it: comity dev --keep {end['folder']}")


def _say_run(out: Console, run: Any, kept: str) -> None:
    table(
        out,
        ("ASSETS", "PARTITION", "OUTCOME", "CONTENT", "INTENT"),
        (
            (
                " ".join(each["assets"]) or "-",
                each["partition"] or "-",
                each["outcome"] + (f" ({', '.join(each['causes'])})" if each["causes"] else ""),
                each["bound"] or "-",
                short(each["intent"]) or "-",
            )
            for each in run["outcomes"]
        ),
        "Nothing was run.",
    )
    for each in run["outcomes"]:
        if each["message"]:
            out.print(each["message"])
    if run["first_made_s"] is not None:
        out.print(
            f"The first governed materialization was recorded {run['first_made_s']} s after the command."
        )
    out.print(f"The run {'has succeeded' if run['success'] else 'has failed'}: {run['run']}")
    if not kept:
        out.print("The files were removed with the folder; --keep DIR leaves them.")
