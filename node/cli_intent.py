"""`comity intent` and `decision`: what would be decided, what is asked for, and what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from comity.node.cli_intent_words import say_decision, say_explained, say_intent, slots_of, standing_in_list
from comity.node.cli_progress import work
from comity.node.cli_terminal import (
    NEGATIVE,
    HomeOption,
    JsonOption,
    examples,
    new_app,
    reported,
    short,
    show,
    table,
    when,
)
from comity.node.cli_working import say_workings

if TYPE_CHECKING:
    from rich.console import Console

RUN_DIGITS: Final = 12
"""Of a run's id so much is listed: enough to tell runs apart. `show` and `--json` have the whole."""

app = new_app("intent", "Intents: what would be decided, what was asked for, where it stands.")
decision = new_app("decision", "Decisions: permits and refusals, with every vote.")


InputsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="ASSET[@PARTITION]",
        help="An input; a partner's with its member. Of an asset with partitions, where none is named, the one"
        " of the output, or else all. May be repeated.",
    ),
]
TierOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=3,
        help="The tier of the context to suppose; otherwise 1, as a governed step measures it.",
    ),
]


# Intents


@app.command(
    "explain",
    epilog=examples(
        "comity intent explain --asset released --input patients --purpose survival_study",
        "comity intent explain --asset report --partition 2026-01 --input orders@2026-01-01 --input orders@2026-01-02",
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
    input_asset: InputsOption = None,
    purpose: Annotated[
        str, typer.Option(metavar="NAME", help="What for; otherwise the node's default.")
    ] = "",
    credential: Annotated[
        str, typer.Option(metavar="ID", help="The credential to act under; otherwise the node's own.")
    ] = "",
    ticket_file: Annotated[
        Path | None, typer.Option("--ticket", metavar="FILE", help="A launch ticket (see `comity ticket`).")
    ] = None,
    run: Annotated[
        str, typer.Option(metavar="ID", help="The run that asks; otherwise that of the ticket.")
    ] = "",
    job: Annotated[
        str, typer.Option(metavar="NAME", help="The job of the run; otherwise that of the ticket.")
    ] = "",
    tier: TierOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what would be decided of a step now, and the smallest sets of needs that would lift a deferral.

    A dry run: nothing is filed, stored or sent. Status 1 where the step would not run. Nothing is measured: the
    step is judged as if govern(defs) had measured its context.
    """
    from dataclasses import asdict

    from comity.node.asking import StepWords, step_form
    from comity.node.signing_hand import Hand

    hand = Hand.of(home)
    words = StepWords(
        assets=tuple(asset or ()),
        partition=partition,
        columns=tuple(column or ()),
        inputs=tuple(input_asset or ()),
        purpose=purpose,
        credential=hand.id_of(credential, "credential") if credential else "",
        ticket=ticket_file,
        run=run,
        job=job,
    )
    answer = hand.bridge().explain(step_form(step, words), tier)
    value = asdict(answer)

    show(value, as_json, lambda out: say_explained(out, answer))
    if answer.outcome not in ("execute", "restrict", "ungoverned"):
        raise typer.Exit(NEGATIVE)


@app.command("list", epilog=examples("comity intent list"))
@reported
def list_intents(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The newest intents that the local node holds: its own with where they stand, others' as far as it is known here.

    A partner's intent is [bold]seen[/bold] until a decision on it reaches this node; then stands beside it how
    this organization voted.
    """
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
                    standing_in_list(each),
                    each["member"],
                    slots_of(each["assets"]),
                    each["step"],
                    each["run"][:RUN_DIGITS],
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
    from comity.node.signing_hand import Hand

    hand = Hand.of(home)
    value: Any = hand.reader().intent(hand.id_of(intent, "intent"))
    show(value, as_json, lambda out: say_intent(out, value))


# Decisions


@decision.command("list", epilog=examples("comity decision list"))
@reported
def list_decisions(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The newest permits and refusals that the local node holds: its own, and those that reached it.

    A partner's decision comes here with what it made, when that is read here; nobody is told of all of them.
    """
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
                    slots_of(each["slots"]),
                    short(each["intent"]),
                    each["step"],
                    each["run"][:RUN_DIGITS],
                )
                for each in rows
            ),
            "No decisions.",
        )
        out.print("A partner's decision is here once it has reached this node: with data that is read here.")

    show(rows, as_json, say)


@decision.command(
    "show",
    epilog=examples(
        "comity decision show DECISION",
        "comity decision show INTENT --working",
        "comity decision show VOTE --working --json",
    ),
)
@reported
def show_decision(
    named: Annotated[
        str, typer.Argument(metavar="DECISION", help="Its id, or that of its intent, or the beginning of it.")
    ],
    working: Annotated[
        bool,
        typer.Option(
            "--working",
            help="Judge every vote again and show how it came about: credentials, evidence, approvals, weights,"
            " rules, inputs, and what speaks against it. Also for an intent without a decision, and for one vote.",
        ),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """One decision, with every vote that carries it and why each voted so.

    With `--working` the status is 1 where a vote is not what comes out here, or cannot be judged again.
    """
    from comity.node.signing_hand import Hand

    hand = Hand.of(home)
    client = hand.reader()
    wanted = hand.id_of(named, "permit", "refusal", "intent", *(("vote",) if working else ()))
    if not working:
        value: Any = client.decision(wanted)
        show(value, as_json, lambda out: say_decision(out, value))
        return
    with work("the node judges again, and fetches what other members hold", as_json=as_json):
        found: Any = client.workings(wanted)
    decided: Any = client.decision(found["decision"]) if found["decision"] else {}

    def say(out: Console) -> None:
        say_decision(out, decided) if decided else out.print(f"Intent {found['intent']}: not decided")
        say_workings(out, found)

    show(decided | found, as_json, say)
    if found["votes_missing"] or not all(v["equal"] for w in found["workings"] for v in w["votes"]):
        raise typer.Exit(NEGATIVE)
