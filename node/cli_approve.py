"""`comity waiting`, `approve`, `ticket`: what waits for people, and what they sign with their own keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comity.node.cli_intent_words import say_intent, say_waiting
from comity.node.cli_terminal import (
    NEGATIVE,
    ForceOption,
    HomeOption,
    JsonOption,
    PassphraseOption,
    StrictOption,
    examples,
    reported,
    require_free,
    show,
    warn,
)

if TYPE_CHECKING:
    from rich.console import Console

    from comity.node.signing_hand import Hand


HoursOption = Annotated[
    int, typer.Option(min=1, max=168, help="How long the approval holds; an intent is open for a week.")
]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.command("waiting", epilog=examples("comity waiting", "comity waiting --json"))(waiting)
    root.command(
        "approve",
        epilog=examples(
            "comity approve INTENT --key dpo.pem --credential CREDENTIAL --home HOME",
            "comity approve INTENT --key dpo.pem --credential CREDENTIAL --withdraw",
        ),
    )(approve)
    root.command(
        "ticket",
        epilog=examples(
            "comity ticket --key op.pem --credential CREDENTIAL --run RUN --job study --asset released --out t.bin",
            "comity ticket --key agent.pem --credential credential.bin --run RUN --job study --asset 'drafts/**'"
            " --out t.bin",
        ),
    )(ticket)


@reported
def waiting(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What waits, for what, and what can be done about it.

    The intents of the own node, and those of partners that this organization's own vote deferred for an approval
    which its people may give.
    """
    from comity.node.signing_hand import Hand

    hand = Hand.of(home)
    rows: list[Any] = hand.reader().waiting()
    show(rows, as_json, lambda out: say_waiting(out, rows, hand.config().member))


@reported
def approve(
    intent: Annotated[str, typer.Argument(metavar="INTENT", help="Its id, or the beginning of it.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="Your own private key.")],
    credential: Annotated[
        str,
        typer.Option(metavar="CREDENTIAL", help="Your credential: its id at the local node, or its file."),
    ],
    hours: HoursOption = 168,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before signing; needed where there is no terminal.")
    ] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take back what you have approved of it, instead of approving.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the approval here instead of publishing it."),
    ] = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve an intent with your own key, bound to what is shown here; or take that back.

    The intent is fetched from the local node, and the approval goes through it to the intent's author. An
    approval of one's own intent, or of one's delegates', does not count. What was decided before an approval was
    withdrawn stands; a permit that it was needed for is not started any more.
    """
    from comity.node.asking import approval, approval_notes, shown_intent
    from comity.node.signing_hand import Hand
    from comity.protocol.errors import ConfigError

    hand = Hand.of(home, passphrase_file)
    intent_id = hand.id_of(intent, "intent")
    if withdraw:
        _take_back(hand, intent_id, key, credential, out, as_json=as_json)
        return
    signed_intent = hand.record(intent_id)
    shown = shown_intent(hand.reader().intent(intent_id), signed_intent)
    held = hand.credential(credential)
    holder = hand.holder(key, held)
    notes = approval_notes(shown, held)

    def say(console: Console) -> None:
        say_intent(console, shown)
        for note in notes:
            console.print(f"  Note: {note}")

    if not as_json:
        show(shown, as_json, say)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise ConfigError(
                "nothing is signed that nobody has said yes to: look at it above, and add --yes"
            )
        if not typer.confirm("Approve this?"):
            raise typer.Exit(NEGATIVE)
    try:
        record = approval(holder, signed_intent, hours=hours)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    done = hand.deliver(record, out, publish=out is None)
    done |= {"intent": intent_id, "approval": record.id.hex(), "notes": notes}

    def say_done(console: Console) -> None:
        told = f", told {', '.join(done['told'])}" if done.get("told") else ""
        written = f", written to {out}" if out is not None else ""
        console.print(f"Approved by {record.id.hex()}{told}{written}")

    show(done, as_json, say_done)


def _take_back(
    hand: Hand, intent_id: str, key: Path, credential: str, out: Path | None, *, as_json: bool
) -> None:
    """Withdraw every approval of an intent that this key has signed and that counts."""
    from comity.node.asking import withdrawal
    from comity.protocol.errors import ConfigError

    shown: Any = hand.reader().intent(intent_id)
    holder = hand.holder(key, hand.credential(credential))
    mine = [
        row["approval"]
        for row in shown["approvals"]
        if row["key"] == holder.signer.key_id.hex() and row["state"] == "counts"
    ]
    if not mine:
        raise ConfigError(f"this key has signed no approval of {intent_id[:16]} that counts now")
    if out is not None and len(mine) > 1:
        raise ConfigError(f"{len(mine)} approvals are to be taken back, and --out takes one")
    done = [
        hand.deliver(withdrawal(holder, each), out, publish=out is None) | {"approval": each} for each in mine
    ]

    def say(console: Console) -> None:
        for each in done:
            where = (
                f"written to {out}" if out is not None else f"told {', '.join(each['told']) or 'nobody else'}"
            )
            console.print(f"Withdrew the approval {each['approval']} by {each['record']}, {where}")

    show({"intent": intent_id, "withdrawn": done}, as_json, say)


@reported
def ticket(
    key: Annotated[Path, typer.Option(metavar="FILE", help="Your own private key, or the agent's.")],
    credential: Annotated[
        str,
        typer.Option(
            metavar="CREDENTIAL", help="The credential to act under: its id at the local node, or its file."
        ),
    ],
    job: Annotated[str, typer.Option(metavar="NAME", help="The job of the run.")],
    asset: Annotated[
        list[str],
        typer.Option(metavar="PATTERN", help="What the run may make: `released`, `drafts/**`. Repeat it."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the ticket is written.")],
    run: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="The run that it is for, by the orchestrator's id; without it one run: the first that comes with it.",
        ),
    ] = "",
    partition: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Only these partitions. May be repeated.")
    ] = None,
    purpose: Annotated[str, typer.Option(metavar="NAME", help="Only for this purpose.")] = "",
    minutes: Annotated[int, typer.Option(min=1, max=10_080, help="How long it holds.")] = 60,
    strict: StrictOption = False,
    force: ForceOption = False,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a launch ticket: the word of a person or agent, by an own key, that it wants this run.

    A code location hands it in with the run's steps. With the credential as a file no node is needed.
    """
    from comity.node.asking import TicketWords, beyond_credential, launch_ticket
    from comity.node.owner_files import write_file
    from comity.node.signing_hand import Hand, credential_body

    hand = Hand.of(home, passphrase_file)
    held = hand.credential(credential)
    holder = hand.holder(key, held)
    words = TicketWords(
        run=run,
        job=job,
        assets=tuple(asset),
        partitions=tuple(partition or ()),
        purpose=purpose,
        minutes=minutes,
    )
    warnings = beyond_credential(credential_body(held), words, holder.member)
    warn(warnings, strict=strict)
    require_free(out, force=force)
    record = launch_ticket(holder, words)
    write_file(out, record.encoded(), replace=force)
    told = f"run {run}" if run else "one run"
    value = {"ticket": record.id.hex(), "file": str(out), "credential": held.id.hex(), "warnings": warnings}
    show(value, as_json, lambda console: console.print(f"Ticket {record.id.hex()} for {told}, in {out}"))
