"""`comity node`: a node's home, running it, and how it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from comity.node.cli_progress import work
from comity.node.cli_terminal import (
    NEGATIVE,
    HomeOption,
    JsonOption,
    PassphraseOption,
    examples,
    new_app,
    print_json,
    reported,
    short,
    show,
    table,
    when,
)
from comity.node.cli_working import term

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from comity.node.cards import Card
    from comity.node.client import NodeClient
    from comity.node.home import Home
    from comity.node.run import Ready

app = new_app("node", "A node: make its home, run it, see how it is.")
config = new_app("config", "The settings of a node.")

POLL_S: Final = 0.2
WITHIN_S_MAX: Final = 3_600.0


AddressesOption = Annotated[
    list[str] | None,
    typer.Option(metavar="ADDRESS", help="Where others reach it, if not where it listens. May be repeated."),
]
NamespacesOption = Annotated[
    list[str] | None,
    typer.Option(metavar="DOMAIN", help="A further domain in which the organization writes assets."),
]
NewOrganizationKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--organization-key",
        metavar="FILE",
        help="The organization's key elsewhere, e.g. on a stick: used if it is there, else made there.",
    ),
]


@app.command(
    "init",
    epilog=examples(
        "comity node init --member clinic-north.example ~/.comity",
        "comity node init --member clinic-north.example --listen 0.0.0.0:4001"
        " --address node.clinic-north.example:4001 HOME",
        "comity node init --member clinic-north.example --organization-key /media/stick/organization.pem HOME",
    ),
)
@reported
def init(
    member: Annotated[
        str,
        typer.Option(
            metavar="DOMAIN", help="The organization: its domain in lower case, e.g. clinic-north.example."
        ),
    ],
    home: Annotated[
        Path | None,
        typer.Argument(
            metavar="HOME", help="The folder to make; otherwise COMITY_HOME, otherwise ~/.comity."
        ),
    ] = None,
    node: Annotated[
        str, typer.Option(metavar="NAME", help="The node's name within the organization.")
    ] = "n1",
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where it listens for other nodes: host:port.")
    ] = "/ip4/127.0.0.1/tcp/4001",
    address: AddressesOption = None,
    namespace: NamespacesOption = None,
    organization_key: NewOrganizationKeyOption = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt a new organization key with a passphrase.")
    ] = False,
    purpose: Annotated[str, typer.Option(metavar="NAME", help="The purpose of steps that name none.")] = "",
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a node's home: keys, tokens, settings, and the public card to give to others.

    The organization's key signs epochs, certificates and credentials. A running node never needs it: keep it
    elsewhere once the node is certified.
    """
    from comity.node.node_home import NewHome, make_home
    from comity.node.signing_hand import Hand

    hand = Hand.of(home, passphrase_file)
    wanted = NewHome(
        member=member,
        node=node,
        listen=listen,
        addresses=tuple(address or ()),
        namespaces=tuple(namespace or ()),
        purpose=purpose,
        organization_key=organization_key,
        encrypt=encrypt,
    )
    card, notes = make_home(hand.home, wanted, hand.passphrase)
    if "." not in card.member:
        notes.append(
            f"{card.member} has no dot: an organization is named by its domain, e.g. {card.member}.example, and"
            f" keeps that name. If it is not meant, remove {hand.home.path} and make it again"
        )
    value = {
        "home": str(hand.home.path),
        "member": card.member,
        "node": card.node,
        "card": str(hand.home.card),
        "settings": str(hand.home.config),
        "addresses": list(card.addresses),
        "notes": notes,
    }

    show(value, as_json, lambda out: _say_made(out, hand.home, card, notes))


def _say_made(out: Console, home: Home, card: Card, notes: list[str]) -> None:
    out.print(f"Made {home.path} for {card.node}.")
    out.print(f"  Public card:  {home.card}")
    out.print(
        f"  Settings:     {home.config}; after a change of them: comity config check --home {home.word}"
    )
    for note in notes:
        out.print(f"  Note: {note}")
    out.print(
        "Next: give the card to whoever drafts the coalition, or to a member of one that is to take you in"
    )
    out.print("(comity coalition admit). Or draft one yourself, with the cards of the others:")
    out.print("  comity policy template site/")
    out.print(
        f"  comity coalition new --home {home.word} --name NAME --card {home.card} --card OTHER.toml"
        " --taxonomy site/taxonomy.toml --policy site/policy.toml"
    )


@app.command(
    "start",
    epilog=examples(
        "comity node start --home HOME", "comity node start --home HOME --json --log-file node.log"
    ),
)
@reported
def start(
    home: HomeOption = None,
    log_file: Annotated[
        Path | None,
        typer.Option("--log-file", metavar="FILE", help="Append the log here instead of the error output."),
    ] = None,
    until_eof: Annotated[
        bool,
        typer.Option(
            "--until-eof",
            help="End when the standard input does, too: for a program that starts a node and may be killed.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the node in the foreground until it is interrupted (Ctrl-C). Prints one line when it is ready.

    With `--json` that line is an object with `ready`, `address` and `socket`. The log is one JSON object per
    line, or words where it goes to a terminal (`log_format`), and holds no bodies, tokens or keys. In another terminal
    `comity node status` says whom it reaches.
    """
    import os
    import sys

    import trio

    from comity.node.lifeline import end_with_input
    from comity.node.log_lines import configure_log
    from comity.node.readiness import Readiness
    from comity.node.run import read_house, run_node
    from comity.node.signing_hand import Hand
    from comity.node.tokens import make_tokens
    from comity.protocol.errors import ConfigError

    if until_eof:
        end_with_input()
    place = Hand.of(home).home
    if place.tokens.is_dir():
        # One that was lost is made anew: whoever held a copy reads it again.
        make_tokens(place)
    house = read_house(place)
    readiness = Readiness.of_environment(os.environ)
    try:
        stream = log_file.open("a", encoding="utf-8") if log_file is not None else sys.stderr
    except OSError as exc:
        raise ConfigError(f"{log_file}: cannot be written: {exc.strerror}") from exc
    configure_log(house.config.log_level, stream, house.config.log_format)

    def ready(said: Ready) -> None:
        if as_json:
            print_json(_ready_value(said))
        else:
            where = ", ".join(said.addresses) or "no address"
            print(f"{said.node} is ready: listens on {where}, answers on {said.socket}", flush=True)  # noqa: T201

    async def run() -> None:
        await run_node(house, ready=ready, readiness=readiness)

    try:
        trio.run(run)
    except KeyboardInterrupt:
        # Before the node took over the signals.
        raise typer.Exit(130) from None


def _ready_value(said: Ready) -> dict[str, object]:
    """The line of a node that is ready, for programs."""
    return {
        "ready": True,
        "address": said.addresses[0] if said.addresses else "",
        "addresses": list(said.addresses),
        "socket": str(said.socket),
        "member": said.member,
        "node": said.node,
        "coalition": said.coalition,
        "epoch": said.epoch,
    }


@app.command(
    "status",
    epilog=examples("comity node status", "comity node status --until all --within 30 --json"),
)
@reported
def status(
    home: HomeOption = None,
    until: Annotated[
        Literal["quorum", "all"] | None,
        typer.Option(
            help="Wait until it runs and votes, and a quorum, or all members, are in reach; status 1 if not in time."
        ),
    ] = None,
    within: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, max=WITHIN_S_MAX, help="How long to wait at most.")
    ] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """How the node is: whom it reaches, whether a decision can come about, and what is open."""
    from comity.node.signing_hand import Hand

    with work("waiting", as_json=as_json) as shown:
        said = awaited_status(Hand.of(home).reader(), until, within if until is not None else 0.0, shown.told)
    show(said, as_json, lambda out: _say_status(out, said))
    if until is not None and not _reached(said, until):
        raise typer.Exit(NEGATIVE)


def awaited_status(
    client: NodeClient, until: str | None, within_s: float, told: Callable[[str], None] = lambda _: None
) -> Any:
    """What the node says of itself, once that is what is waited for or the time is over.

    Args:
        told: hears what is waited for.
    """
    from comity.node.client import NodeNotRunningError

    deadline = time.monotonic() + within_s
    while True:
        late = time.monotonic() >= deadline
        try:
            said: Any = client.status()
        except NodeNotRunningError:
            # Whoever waits may have started it a moment ago.
            if late:
                raise
            told("waiting for the node to start")
        else:
            if late or until is None or _reached(said, until):
                return said
            told(_waits_for(said, until))
        time.sleep(POLL_S)


def _reached(said: Any, until: str) -> bool:
    if not (said["governance_complete"] and said["votes"]):
        return False
    return bool(said["quorum_reachable"] if until == "quorum" else said["reachable"] == len(said["members"]))


def _waits_for(said: Any, until: str) -> str:
    """What is waited for, in one line."""
    if not said["governance_complete"]:
        return "waiting for taxonomy and policies"
    wanted = said["quorum"] if until == "quorum" else len(said["members"])
    if said["reachable"] < wanted:
        return f"waiting: {said['reachable']} members in reach, wanted are {wanted}"
    return "waiting: the node goes through what others hold, and does not vote yet"


def _say_status(out: Console, said: Any) -> None:
    out.print(f"{said['node']} runs since {when(said['started'])}")
    out.print(f"Coalition {said['coalition_name']}, epoch {said['epoch']}: {said['tolerance']}.")
    decides = "a decision can come about" if said["quorum_reachable"] else "no quorum is in reach"
    out.print(
        f"{said['reachable']} of {len(said['members'])} members in reach, a quorum is {said['quorum']}: {decides}."
    )
    if not said["votes"]:
        out.print(
            "It does not vote yet: on nothing that was asked before it began, and not before it has gone through the"
            f" records of {said['quorum'] - 1} other members."
        )
    if not said["governance_complete"]:
        out.print("Taxonomy or policies of the epoch have not arrived yet: nothing can be judged.")
    if not said["engine_accepted"]:
        out.print(
            "This version judges by an engine that the coalition does not accept: its votes do not count."
        )
    table(
        out,
        ("MEMBER", "IN REACH", "SINCE"),
        (
            (
                each["member"],
                "this node" if each["self"] else "yes" if each["connected"] else "no",
                when(each["since"]) if each["since"] else "never since this node began",
            )
            for each in said["members"]
        ),
        "",
    )
    for each in said["members"]:
        if each["misbehaviour"]["count"]:
            _say_misbehaviour(out, each["member"], each["misbehaviour"], counted=each["counted"])
    for name, proofs in said["misbehaviour_of_others"].items():
        _say_misbehaviour(out, name, proofs, counted=True)
    listed = ", ".join(f"{count} {standing}" for standing, count in said["intents"].items())
    out.print(f"Own intents: {listed or 'none'}.")
    for each in said["waiting"]:
        needs = " and ".join(term(need) for need in each["needs"])
        out.print(
            f"  {short(each['intent'])} {each['standing']}: {' '.join(each['assets'])}"
            + (f"; needs {needs}" if needs else "")
        )
    if said["waiting"]:
        out.print("`comity waiting` says why, and what to do.")


def _say_misbehaviour(out: Console, member: str, said: Any, *, counted: bool) -> None:
    proofs = said["proofs"]
    rules = ", ".join(sorted({each["rule"] for each in proofs}))
    held = "1 proof is held" if said["count"] == 1 else f"{said['count']} proofs are held"
    without = "" if counted else "; its votes make up no quorum before the next epoch"
    out.print(f"{member} is shown to have contradicted itself ({rules}): {held}{without}.")
    first = short(proofs[0]["id"])
    out.print(f"For anybody to verify: comity lineage export {first} --out proof.bundle")


@config.command("check", epilog=examples("comity config check", "comity config check --home HOME"))
@reported
def check(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Check what a node needs to start: settings, keys, tokens, card and coalition file. Nothing is started.

    What is wrong is named with file, line and key, and with the nearest name that would be right.
    """
    from comity.node.config_check import check_home
    from comity.node.signing_hand import Hand

    hand = Hand.of(home)
    checked = check_home(hand.home)
    value = {
        "home": str(hand.home.path),
        "node": checked.config.node,
        "listen": checked.config.listen,
        "coalition": checked.coalition is not None,
        "warnings": list(checked.warnings),
    }

    def say(out: Console) -> None:
        for each in checked.warnings:
            out.print(f"warning: {each}")
        out.print(
            f"{hand.home.config} and the files beside it are sound: {checked.config.node}, {checked.config.listen}"
        )
        if checked.coalition is None:
            out.print("It belongs to no coalition yet: comity coalition join FILE")

    show(value, as_json, say)
