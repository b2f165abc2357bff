"""`comity launch`: a run in Dagster, by the own key of whoever wants it."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from comity.node.cli_terminal import (
    NEGATIVE,
    HomeOption,
    JsonOption,
    PassphraseOption,
    StrictOption,
    examples,
    reported,
    show,
    warn,
)

if TYPE_CHECKING:
    from rich.console import Console

    from comity.node.orchestrator_http import RunState, Webserver

POLL_S: Final = 1.0
CONFIG_BYTES_MAX: Final = 1_048_576
_SHOWN: Final = ("comity/outcome", "comity/hold", "comity/needs", "comity/reason", "comity/narrowed_to")


def register(root: typer.Typer) -> None:
    """Add the command."""
    root.command(
        "launch",
        epilog=examples(
            "comity launch study --key op.pem --credential CREDENTIAL --url http://127.0.0.1:3000",
            "comity launch __ASSET_JOB --select released --key agent.pem --credential credential.bin"
            " --url http://127.0.0.1:3000 --wait 600",
        ),
    )(launch)


JobArgument = Annotated[
    str,
    typer.Argument(metavar="JOB", help="The job; __ASSET_JOB for assets that are in none, with --select."),
]
KeyOption = Annotated[
    Path, typer.Option("--key", metavar="FILE", help="Your own private key, or the agent's.")
]
CredentialOption = Annotated[
    str,
    typer.Option(
        "--credential",
        metavar="CREDENTIAL",
        help="The credential to act under: its id at the local node, or its file.",
    ),
]
UrlOption = Annotated[str, typer.Option("--url", metavar="URL", help="Dagster's webserver.")]
SelectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--select", metavar="ASSET", help="Only this asset of the job, e.g. `released`. May be repeated."
    ),
]
AssetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--asset",
        metavar="PATTERN",
        help="What the ticket allows to be made, without --select: `drafts/**`. Repeat it.",
    ),
]
PartitionOption = Annotated[
    str, typer.Option("--partition", metavar="KEY", help="The partition that is to be made.")
]
PurposeOption = Annotated[
    str, typer.Option("--purpose", metavar="NAME", help="The ticket is only for this purpose.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The run's configuration, as JSON.")
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag of the run. May be repeated.")
]
LocationOption = Annotated[
    str, typer.Option("--location", metavar="NAME", help="The job's code location, where several have it.")
]
RepositoryOption = Annotated[
    str, typer.Option("--repository", metavar="NAME", help="The job's repository there.")
]
MinutesOption = Annotated[
    int, typer.Option("--minutes", min=1, max=10_080, help="How long the ticket holds.")
]
WaitOption = Annotated[
    int,
    typer.Option("--wait", min=0, max=86_400, metavar="SECONDS", help="Wait so long for the run's end."),
]


@reported
def launch(  # options of a command
    job: JobArgument,
    key: KeyOption,
    credential: CredentialOption,
    url: UrlOption = "http://127.0.0.1:3000",
    select: SelectOption = None,
    asset: AssetOption = None,
    partition: PartitionOption = "",
    purpose: PurposeOption = "",
    config: ConfigOption = None,
    tag: TagOption = None,
    location: LocationOption = "",
    repository: RepositoryOption = "",
    minutes: MinutesOption = 60,
    wait: WaitOption = 0,
    strict: StrictOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Launch a run in Dagster with a launch ticket: signed by your own key, for this one run.

    The ticket travels in the run's tags. Whoever takes it from there can launch nothing else with it: it is for the
    first run that is asked for with it. With the credential as a file no node is needed here.
    """
    from comity.node.asking import TicketWords, beyond_credential, launch_ticket
    from comity.node.orchestrator_http import TICKET_TAG, Launch, Webserver
    from comity.node.signing_hand import Hand, credential_body
    from comity.protocol.errors import ConfigError

    patterns = tuple(select or asset or ())
    if not patterns:
        raise ConfigError("the ticket names what may be made: give --select ASSET, or --asset PATTERN")
    tags = _tags(tag or [])
    hand = Hand.of(home, passphrase_file)
    held = hand.credential(credential)
    holder = hand.holder(key, held)
    partitions = (partition,) if partition else ()
    words = TicketWords("", job, patterns, partitions, purpose, minutes)
    warnings = beyond_credential(credential_body(held), words, holder.member)
    warn(warnings, strict=strict)
    webserver = Webserver(url)
    place = webserver.find(job, location, repository)
    ticket = launch_ticket(holder, words)
    tags[TICKET_TAG] = base64.b64encode(ticket.encoded()).decode()
    run = webserver.launch(Launch(place, tuple(select or ()), partition, _config(config), tags))
    state = _waited(webserver, run, wait)
    _show(state, url, {"ticket": ticket.id.hex(), "warnings": warnings}, as_json=as_json)
    if wait and state.status != "SUCCESS":
        raise typer.Exit(NEGATIVE)


def _show(state: RunState, url: str, more: dict[str, Any], *, as_json: bool) -> None:
    tags = {name: state.tags[name] for name in _SHOWN if name in state.tags}
    where = f"{url.rstrip('/')}/runs/{state.run}"
    value = {"run": state.run, "url": where, "status": state.status, "tags": tags, **more}

    def say(console: Console) -> None:
        console.print(f"Run {state.run} is {state.status}: {where}", highlight=False)
        for name, text in tags.items():
            console.print(f"  {name.removeprefix('comity/')}: {text}", highlight=False, markup=False)

    show(value, as_json, say)


def _waited(webserver: Webserver, run: str, wait_s: int) -> RunState:
    deadline = time.monotonic() + wait_s
    state = webserver.state(run)
    while not state.ended and time.monotonic() < deadline:
        time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))
        state = webserver.state(run)
    return state


def _config(path: Path | None) -> dict[str, Any]:
    from comity.node.owner_files import read_file
    from comity.protocol.errors import ConfigError

    if path is None:
        return {}
    try:
        value: Any = json.loads(read_file(path, CONFIG_BYTES_MAX)[0])
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}: no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: the configuration of a run is a JSON object")
    return cast("dict[str, Any]", value)


def _tags(given: list[str]) -> dict[str, str]:
    from comity.protocol.errors import ConfigError

    tags: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name or name.startswith("comity/"):
            raise ConfigError(f"--tag {text!r}: KEY=VALUE, where KEY does not begin with comity/")
        tags[name] = value
    return tags
