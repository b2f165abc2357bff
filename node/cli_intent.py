"""`comity intent`, `decision`, `waiting`, `approve`, `ticket`: what is asked for, and what became of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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

if TYPE_CHECKING:
    from rich.console import Console

    from comity.node.client import ExplainAnswer

app = new_app("intent", "Intents: what would be decided, what was asked for, where it stands.")
decision = new_app("decision", "Decisions: permits and refusals, with every vote.")


def register(root: typer.Typer) -> None:
    """Add the commands that stand by themselves."""
    root.command("waiting", epilog=examples("comity waiting", "comity waiting --json"))(waiting)
    root.command(
        "approve",
        epilog=examples("comity approve INTENT --key dpo.pem --credential CREDENTIAL --home HOME"),
    )(approve)
    root.command(
        "ticket",
        epilog=examples(
            "comity ticket --key op.pem --credential CREDENTIAL --run RUN --job study --asset released --out t.bin",
            "comity ticket --key agent.pem --credential credential.bin --run RUN --job study --asset 'drafts/**'"
            " --out t.bin",
        ),
    )(ticket)


# Intents


@app.command(
    "explain",
    epilog=examples(
        "comity intent explain --asset released --input patients --purpose survival_study",
        "comity intent explain --step step.json --json",
    ),
)
@reported
def explain(
    step: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The step as JSON, as a code location submits it; options add to it."
        ),
    ] = None,
    asset: Annotated[
        list[str] | None, typer.Option(metavar="ASSET", help="An output, e.g. released. May be repeated.")
    ] = None,
    partition: Annotated[str, typer.Option(metavar="KEY", help="The partition of the outputs.")] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A declared column of the outputs. May be repeated."),
    ] = None,
    input_asset: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="ASSET", help="An input; a partner's with its member. May be repeated."
        ),
    ] = None,
    purpose: Annotated[
        str, typer.Option(metavar="NAME", help="What for; otherwise the node's default.")
    ] = "",
    credential: Annotated[
        str, typer.Option(metavar="ID", help="The credential to act under; otherwise the node's own.")
    ] = "",
    ticket_file: Annotated[
        Path | None, typer.Option("--ticket", metavar="FILE", help="A launch ticket (see `comity ticket`).")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would be decided of a step now, and the smallest sets of needs that would lift a deferral.

    A dry run: nothing is filed, stored or sent. Status 1 where the step would not run.
    """
    from dataclasses import asdict

    from comity.node.asking import StepWords, step_form
    from comity.node.signing_hand import Hand

    words = StepWords(
        assets=tuple(asset or ()),
        partition=partition,
        columns=tuple(column or ()),
        inputs=tuple(input_asset or ()),
        purpose=purpose,
        credential=credential,
        ticket=ticket_file,
    )
    answer = Hand.of(home).bridge().explain(step_form(step, words))
    value = asdict(answer)

    show(value, as_json, lambda out: _say_explained(out, answer))
    if answer.outcome not in ("execute", "restrict", "ungoverned"):
        raise typer.Exit(NEGATIVE)


def _say_explained(out: Console, answer: ExplainAnswer) -> None:
    from comity.node.sentences import spelled

    out.print(f"It would be decided: {answer.outcome}")
    for output in answer.outputs:
        columns = "all columns" if output.all_columns else f"columns {', '.join(output.columns) or 'none'}"
        out.print(f"  {output.mode} {output.asset} {output.partition}".rstrip() + f": {columns}")
        for obligation in output.obligations:
            out.print(f"    under the obligation: {spelled(obligation)}")
    for cause in answer.causes:
        out.print(f"  because {spelled(cause)}")
    for need in answer.needs:
        out.print(f"  needs {spelled(need)}")
    for lift in answer.lifts:
        out.print("  would be lifted by " + " and ".join(spelled(need) for need in lift))


@app.command("list", epilog=examples("comity intent list"))
@reported
def list_intents(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The newest intents that the local node holds: its own with where they stand, others' as they were asked."""
    from comity.node.signing_hand import Hand

    rows: list[Any] = Hand.of(home).reader().intents()

    def say(out: Console) -> None:
        table(
            out,
            ("INTENT", "AT", "STANDING", "MEMBER", "ASSETS", "STEP", "RUN"),
            (
                (
                    short(each["intent"]),
                    when(each["at"]),
                    each["standing"],
                    each["member"],
                    " ".join(a["asset"] for a in each["assets"]),
                    each["step"],
                    each["run"],
                )
                for each in rows
            ),
            "No intents.",
        )

    show(rows, as_json, say)


@app.command("show", epilog=examples("comity intent show INTENT"))
@reported
def show_intent(
    intent: Annotated[str, typer.Argument(metavar="INTENT", help="Its id, or the beginning of it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """One intent: what is asked for, where it stands, who voted how, and what is missing."""
    from comity.node.asking import whole_id
    from comity.node.signing_hand import Hand

    client = Hand.of(home).reader()
    value: Any = client.intent(whole_id(intent, lambda: [each["intent"] for each in client.intents()]))
    show(value, as_json, lambda out: _say_intent(out, value))


def _say_intent(out: Console, said: Any) -> None:
    out.print(f"Intent {said['intent']} of {said['member']}: {said['standing']}")
    out.print(
        f"  asked at {when(said['at'])} by {said['requester']}, for {said['purpose']}, in {said['realm']}"
    )
    out.print(f"  run {said['run']}, job {said['job']}, step {said['step']}")
    for each in said["assets"]:
        out.print(f"  {each['asset']}: {each['items']} items")
    for member, vote in said.get("votes", {}).items():
        out.print(f"  {member}: {vote}")
    for cause in said.get("causes", ()):
        out.print(f"  because {_term(cause)}")
    for need in said.get("needs", ()):
        out.print(f"  needs {_term(need)}")
    for name in ("permit", "refusal"):
        if said.get(name):
            out.print(f"  {name}: {said[name]}")


def _term(said: Any) -> str:
    from comity.node.forms import TermForm
    from comity.node.sentences import spelled

    return spelled(TermForm(said["code"], said["parameters"], said["rule"], said["message"]))


# Decisions


@decision.command("list", epilog=examples("comity decision list"))
@reported
def list_decisions(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The newest permits and refusals that the local node holds."""
    from comity.node.signing_hand import Hand

    rows: list[Any] = Hand.of(home).reader().decisions()

    def say(out: Console) -> None:
        table(
            out,
            ("DECISION", "AT", "OUTCOME", "ASSETS", "INTENT", "STEP", "RUN"),
            (
                (
                    short(each["decision"]),
                    when(each["t"]),
                    each["outcome"],
                    " ".join(each["assets"]),
                    short(each["intent"]),
                    each["step"],
                    each["run"],
                )
                for each in rows
            ),
            "No decisions.",
        )

    show(rows, as_json, say)


@decision.command("show", epilog=examples("comity decision show DECISION", "comity decision show INTENT"))
@reported
def show_decision(
    named: Annotated[
        str, typer.Argument(metavar="DECISION", help="Its id, or that of its intent, or the beginning of it.")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """One decision, with every vote that carries it and why each voted so."""
    from comity.node.asking import whole_id
    from comity.node.signing_hand import Hand

    client = Hand.of(home).reader()

    def known() -> list[str]:
        return [each[name] for each in client.decisions() for name in ("decision", "intent")]

    value: Any = client.decision(whole_id(named, known))
    show(value, as_json, lambda out: _say_decision(out, value))


def _say_decision(out: Console, said: Any) -> None:
    out.print(f"{said['kind'].capitalize()} {said['decision']}: {said['outcome']}")
    out.print(f"  of intent {said['intent']} by {said['requester']}, decided for {when(said['t'])}")
    if said["expires"]:
        out.print(f"  to be started before {when(said['expires'])}")
    for output in said["outputs"]:
        columns = (
            "all columns" if output["all_columns"] else f"columns {', '.join(output['columns']) or 'none'}"
        )
        out.print(f"  {output['mode']} {output['asset']} {output['partition']}".rstrip() + f": {columns}")
        for obligation in output["obligations"]:
            out.print(f"    under the obligation: {_term(obligation)}")
    for vote in said["votes"]:
        modes = ", ".join(each["mode"] for each in vote["classes"])
        out.print(f"  {vote['member']} votes {modes}")
        for each in vote["classes"]:
            for cause in each["causes"]:
                out.print(f"    because {_term(cause)}")


# What stands by itself


@reported
def waiting(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What waits, for what, and what can be done about it."""
    from comity.node.signing_hand import Hand

    rows: list[Any] = Hand.of(home).reader().waiting()

    def say(out: Console) -> None:
        if not rows:
            out.print("Nothing waits.")
        for each in rows:
            assets = " ".join(a["asset"] for a in each["assets"])
            out.print(f"{each['intent']}  {each['standing']}  {assets}  (since {when(each['at'])})")
            for cause in each["causes"]:
                out.print(f"  because {_term(cause)}")
            for need in each["needs"]:
                out.print(f"  needs {_term(need)}")
                if need["deed"]:
                    out.print(f"    {need['deed']}")
            if each["goes_on_by_itself"]:
                out.print("  goes on by itself")

    show(rows, as_json, say)


@reported
def approve(
    intent: Annotated[str, typer.Argument(metavar="INTENT", help="Its id, or the beginning of it.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="Your own private key.")],
    credential: Annotated[
        str,
        typer.Option(metavar="CREDENTIAL", help="Your credential: its id at the local node, or its file."),
    ],
    hours: Annotated[
        int, typer.Option(min=1, max=168, help="How long the approval holds; an intent is open for a week.")
    ] = 168,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before signing.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the approval here instead of publishing it."),
    ] = None,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve an intent with your own key, bound to what is shown here.

    The intent is fetched from the local node, and the approval goes through it to the intent's author. An
    approval of one's own intent, or of one's delegates', does not count.
    """
    from comity.node.asking import approval, whole_id
    from comity.node.signing_hand import Hand
    from comity.protocol.errors import ConfigError

    hand = Hand.of(home, passphrase_file)
    client = hand.reader()
    intent_id = whole_id(intent, lambda: [each["intent"] for each in client.intents()])
    shown: Any = client.intent(intent_id)
    signed_intent = hand.record(intent_id)
    if not as_json:
        show(shown, as_json, lambda console: _say_intent(console, shown))
    if not yes and not as_json and sys.stdin.isatty() and not typer.confirm("Approve this?"):
        raise typer.Exit(NEGATIVE)
    holder = hand.holder(key, hand.credential(credential))
    try:
        record = approval(holder, signed_intent, hours=hours)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    done = hand.deliver(record, out, publish=out is None) | {"intent": intent_id, "approval": record.id.hex()}
    if as_json:
        print_json(done)
        return
    told = f", told {', '.join(done['told'])}" if done.get("told") else ""
    typer.echo(f"Approved by {record.id.hex()}{told}")


@reported
def ticket(
    key: Annotated[Path, typer.Option(metavar="FILE", help="Your own private key, or the agent's.")],
    credential: Annotated[
        str,
        typer.Option(
            metavar="CREDENTIAL", help="The credential to act under: its id at the local node, or its file."
        ),
    ],
    run: Annotated[str, typer.Option(metavar="ID", help="The run that it is for, by the orchestrator's id.")],
    job: Annotated[str, typer.Option(metavar="NAME", help="The job of the run.")],
    asset: Annotated[
        list[str],
        typer.Option(metavar="PATTERN", help="What the run may make: `released`, `drafts/**`. Repeat it."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the ticket is written.")],
    partition: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Only these partitions. May be repeated.")
    ] = None,
    purpose: Annotated[str, typer.Option(metavar="NAME", help="Only for this purpose.")] = "",
    minutes: Annotated[int, typer.Option(min=1, max=10_080, help="How long it holds.")] = 60,
    home: HomeOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a launch ticket: the word of a person or agent, by an own key, that it wants this run.

    A code location hands it in with the run's steps. With the credential as a file no node is needed.
    """
    from comity.node.asking import TicketWords, launch_ticket
    from comity.node.owner_files import write_file
    from comity.node.signing_hand import Hand

    hand = Hand.of(home, passphrase_file)
    holder = hand.holder(key, hand.credential(credential))
    words = TicketWords(
        run=run,
        job=job,
        assets=tuple(asset),
        partitions=tuple(partition or ()),
        purpose=purpose,
        minutes=minutes,
    )
    record = launch_ticket(holder, words)
    write_file(out, record.encoded())
    value = (
        {"ticket": record.id.hex(), "file": str(out), "credential": record.header.authority.hex()}
        if (record.header.authority)
        else {}
    )
    show(value, as_json, lambda console: console.print(f"Ticket {record.id.hex()} for run {run}, in {out}"))
