"""`comity exec`: a process without an orchestrator, under the same decisions and into the same lineage."""

from __future__ import annotations

import base64
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from comity.node.cli_terminal import NEGATIVE, STATUSES, HomeOption, JsonOption, print_json, reported, short
from comity.node.visible import visible

DEFERRED: Final = 75
"""Not decided yet: what `sysexits.h` calls a temporary failure. Run it again, with the run that was named."""
INTENT_BYTES_MAX: Final = 262_144
"""An intent file: some hundred lines."""
ENTRY_POINTS: Final = "comity.process"
PACKAGES: Final = frozenset({"pandas", "pyarrow"})
"""What reads tables back; `comity[dagster]` brings them."""

Process: TypeAlias = Callable[[Mapping[str, Any], str, Callable[[str], None]], dict[str, Any]]
"""What runs a process: the values of an intent file, its name, and who is told of what it waits for. A report."""

_EPILOG: Final = (
    "[bold]Examples[/bold]\n\n"
    "[cyan]comity exec --intent release.toml -- Rscript release.R[/cyan]\n\n"
    "[cyan]comity exec --intent release.toml --wait 600 --json -- ./release.sh all[/cyan]\n\n"
    "[bold]Exit status:[/bold] the command's own, once it was started, and 128 and the number of the signal that ended"
    f" it; 1 also where what it made is not promoted; {DEFERRED} not decided yet."
    f" {STATUSES.replace('[bold]Exit status:[/bold] ', 'Before the command starts: ')}"
)


def register(root: typer.Typer) -> None:
    """Add the command."""
    root.command("exec", epilog=_EPILOG)(exec_process)


@reported
def exec_process(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="The command, and its arguments.")],
    intent: Annotated[
        Path,
        typer.Option(
            "--intent", metavar="FILE", help="What is made, from what, and what for (docs/exec.md)."
        ),
    ],
    wait: Annotated[
        int,
        typer.Option(
            min=0,
            max=7 * 24 * 3_600,
            metavar="SECONDS",
            help="How long to wait for a decision that is deferred, or for a quorum.",
        ),
    ] = 0,
    run: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="The run that this is; one that was deferred goes on under its intent. Else a new one.",
        ),
    ] = "",
    credential: Annotated[
        str, typer.Option(metavar="ID", help="The credential to act under; otherwise the node's own.")
    ] = "",
    ticket: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A launch ticket (see `comity ticket`).")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a command under a permit, and make what it writes lineage.

    The intent file says what is made, from which inputs and what for. The command is started once that is permitted,
    its inputs are verified and its start is recorded. It finds inputs and outputs in environment variables
    (COMITY_INPUT_NAME, COMITY_OUTPUT_NAME; what its permit allows is in COMITY_PERMITTED). When it has ended with 0,
    what it wrote is read back and held against the permit: it takes the place of the version before, with the
    records that vouch for it beside it, or it is discarded, and a record says why. Otherwise nothing is.

    Signals are passed on. What is said here goes to the error output. With --json the report is the output, and what
    the command prints goes to the error output.
    """
    report = _process()(
        _values(intent, command, wait, run, credential, ticket, home, as_json=as_json), str(intent), _say
    )
    status = _status(report)
    if as_json:
        print_json(report)
    else:
        _say_report(report)
    if status:
        raise typer.Exit(status)


def _values(
    intent: Path,
    command: list[str],
    wait: int,
    run: str,
    credential: str,
    ticket: Path | None,
    home: Path | None,
    *,
    as_json: bool,
) -> dict[str, Any]:
    """The values of the intent file, and of the command line, which nobody writes into a file."""
    from comity.node.owner_files import read_file
    from comity.node.signing_hand import Hand
    from comity.node.toml_document import read_toml
    from comity.protocol.errors import ConfigError
    from comity.protocol.limits import RECORD_BYTES_MAX

    document = read_toml(intent, INTENT_BYTES_MAX)
    hand = Hand.of(home)
    hand.require_made()
    ours = {
        "home": str(hand.home.path),
        "folder": str(intent.resolve().parent),
        "run": run or uuid.uuid4().hex,
        "command": command,
        "wait_s": wait,
        "quiet_output": as_json,
    }
    if ticket is not None:
        ours["ticket"] = base64.b64encode(read_file(ticket, RECORD_BYTES_MAX)[0]).decode("ascii")
    if credential:
        ours["credential"] = hand.id_of(credential, "credential")
    mine = sorted(ours.keys() & document.values.keys() - {"credential"})
    if mine:
        raise ConfigError(f"{intent}: {mine[0]}: the command line says this, not the intent file")
    return document.values | ours


def _process() -> Process:
    """What runs processes, as it is installed.

    Raises:
        ConfigError: it is not.
    """
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    from comity.protocol.errors import ConfigError

    found = list(entry_points(group=ENTRY_POINTS))
    missing = sorted(name for name in PACKAGES if find_spec(name) is None)
    if not found or missing:
        what = missing[0] if missing else "what keeps files"
        raise ConfigError(
            f"this needs the packages that read tables ({what} is missing): pip install 'comity[dagster]'"
        )
    process: Process = found[0].load()
    return process


def _status(report: Mapping[str, Any]) -> int:
    """The exit status that a report gives."""
    if report["status"] is None:
        return DEFERRED if report["outcome"] in ("defer", "held") else NEGATIVE
    if report["status"]:
        return int(report["status"])
    made = [each["became"] for each in report["outputs"].values()]
    return 0 if all(became in ("promoted", "ungoverned") for became in made) else NEGATIVE


def _say(text: str) -> None:
    sys.stderr.write(f"comity: {visible(text)}\n")
    sys.stderr.flush()


def _say_report(report: Mapping[str, Any]) -> None:
    """What became of it, on the error output: the output is the command's."""
    intent = f" (intent {short(report['intent'])})" if report["intent"] else ""
    if report["status"] is None:
        _say(f"not started: {report['outcome']}{intent}")
        for cause in report["causes"]:
            _say(f"  because {_term(cause)}")
        for need in report["needs"]:
            _say(f"  needs {_term(need)}")
        for member, vote in report["votes"].items():
            _say(f"  {member}: {vote}")
        if report["outcome"] in ("defer", "held"):
            _say(f"  goes on under the same intent with --run {report['run']}")
        return
    if report["status"]:
        _say(f"nothing is promoted: the command ended with {report['status']}{intent}")
        return
    for name, made in report["outputs"].items():
        became = made["became"].replace("_", " ")
        record = f" by {short(made['actuation'])}" if made["actuation"] else ""
        _say(f"{name}: {became}{record}, {made['file']}{intent}")
        for cause in made["causes"]:
            _say(f"  because {_term(cause)}")


def _term(term: Mapping[str, Any]) -> str:
    inside = ", ".join(f"{name}={value}" for name, value in sorted(term["parameters"].items()))
    return str(term["message"] or (f"{term['code']}({inside})" if inside else term["code"]))
