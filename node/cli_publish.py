"""Records that an organization signs and publishes: transitions, owner policies, reference values; and any other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from comity.node.cli_terminal import (
    HomeOption,
    JsonOption,
    OrganizationKeyOption,
    OutOption,
    PassphraseOption,
    StrictOption,
    examples,
    new_app,
    print_json,
    reported,
    short,
    show,
    table,
    warn,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from comity.node.signing_hand import Hand
    from comity.protocol.envelope import SignedRecord

transition = new_app("transition", "Transitions: an owner releases its say, or lets trust step down.")
owner_policy = new_app("owner-policy", "Owner policies: how an owner consents to the use of its data.")
reference = new_app("reference", "Reference values: execution contexts that a publisher recognises.")
record = new_app("record", "Signed records: hand one in, look at one.")


def _deliver(
    hand: Hand,
    signed: SignedRecord,
    out: Path | None,
    sentence: str,
    *,
    as_json: bool,
    warnings: Sequence[str] = (),
) -> None:
    done = hand.deliver(signed, out, publish=out is None) | {"warnings": list(warnings)}

    def say(console: Console) -> None:
        console.print(f"{sentence} Record {signed.id.hex()}")
        console.print(f"  written to {out}" if out is not None else "  published: every member learns of it")

    show(done, as_json, say)


@transition.command(
    "publish",
    epilog=examples(
        "comity transition publish --asset institute.example/survival --purpose survival_study",
        "comity transition publish --type trust --tier-to 0 --asset institute.example/pooled --days 30",
    ),
)
@reported
def publish_transition(
    asset: Annotated[
        str, typer.Option(metavar="PATTERN", help="The outputs that it speaks of, with their writer.")
    ],
    kind: Annotated[
        Literal["release", "trust"],
        typer.Option(
            "--type", help="release: give up the say over these outputs; trust: allow a lower tier."
        ),
    ] = "release",
    purpose: Annotated[
        str, typer.Option(metavar="NAME", help="Only for outputs made for this purpose; for any if not said.")
    ] = "",
    tier_to: Annotated[
        int, typer.Option(min=0, max=3, help="With --type trust: the lowest tier that the data may flow to.")
    ] = 0,
    days: Annotated[int, typer.Option(min=1, max=3_650, help="How long it holds.")] = 90,
    strict: StrictOption = False,
    out: OutOption = None,
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign an owner's explicit step, with the organization's key.

    Whoever owns an input owns the output, too, until it releases its say by such a record.
    """
    from comity.node.known_names import known_names
    from comity.node.publications import transition_record
    from comity.node.signing_hand import Hand, whole_pattern

    hand = Hand.of(home, passphrase_file)
    author = hand.organization(organization_key, hand.coalition_id())
    whole = whole_pattern(author.member, asset)
    known = known_names(hand)
    warnings = known.asset_warnings((whole,)) + known.purpose_warnings((purpose,)) if known else []
    if whole != asset:
        warnings.append(f"{asset} is taken for {whole}: name another's output with its writer")
    warn(warnings, strict=strict)
    signed = transition_record(author, kind, asset, purpose=purpose, tier_to=tier_to, days=days)
    what = "releases its say over" if kind == "release" else f"lets its data flow to tier {tier_to} in"
    sentence = f"{author.member} {what} {whole}" + (f", made for {purpose}." if purpose else ".")
    _deliver(hand, signed, out, sentence, as_json=as_json, warnings=warnings)


@transition.command("list", epilog=examples("comity transition list", "comity transition list --json"))
@reported
def list_transitions(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The explicit steps of owners that the local node holds: whose, for which outputs, and whether they count."""
    from comity.node.signing_hand import Hand

    rows: list[Any] = Hand.of(home).reader().transitions()

    def say(out: Console) -> None:
        table(
            out,
            ("TRANSITION", "MEMBER", "TYPE", "ASSET", "PURPOSE", "TIER", "STATE", "UNTIL"),
            (
                (
                    short(each["transition"]),
                    each["member"],
                    each["type"],
                    each["asset"],
                    each["purpose"] or "any",
                    each["tier_to"] if each["type"] == "trust" else "-",
                    each["state"],
                    when(each["not_after"]),
                )
                for each in rows
            ),
            "No transitions.",
        )

    show(rows, as_json, say)


@transition.command("withdraw", epilog=examples("comity transition withdraw TRANSITION"))
@reported
def withdraw_transition(
    named: Annotated[
        str,
        typer.Argument(
            metavar="TRANSITION", help="Its id at the local node, or the beginning of it; or its file."
        ),
    ],
    out: OutOption = None,
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back an explicit step, with the organization's key. What was decided with it stands."""
    from comity.node.credentialing import revoked
    from comity.node.signing_hand import Hand

    hand = Hand.of(home, passphrase_file)
    signed = revoked(hand, named, "withdrawn", organization_key=organization_key, kinds=("transition",))
    sentence = f"{signed.header.member} takes back {short(signed.header.subject[0].hex())}."
    _deliver(hand, signed, out, sentence, as_json=as_json)


@owner_policy.command(
    "publish",
    epilog=examples(
        "comity owner-policy publish --consent '*=live'",
        "comity owner-policy publish --consent released=standing:90 --consent '*=live' --rules own.cedar",
    ),
)
@reported
def publish_owner_policy(
    consent: Annotated[
        list[str],
        typer.Option(
            metavar="CLASS=MODE",
            help="For a data class, or * for every other one: `live` (our vote is needed each time) or"
            " `standing:DAYS`. May be repeated.",
        ),
    ],
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Cedar rules that bind whoever uses our data.")
    ] = None,
    strict: StrictOption = False,
    out: OutOption = None,
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how this organization consents to the use of data that it owns. The newest such record counts.

    A data class that is neither named nor covered by `*` is live.
    """
    from comity.node.known_names import known_names
    from comity.node.publications import owner_policy_record
    from comity.node.signing_hand import Hand

    hand = Hand.of(home, passphrase_file)
    author = hand.organization(organization_key, hand.coalition_id())
    signed = owner_policy_record(author, consent, rules)
    classes = [text.partition("=")[0] for text in consent]
    known = known_names(hand)
    warnings = known.data_class_warnings(classes) if known else []
    warn(warnings, strict=strict)
    others = "" if "*" in classes else "; every other class is live: our vote is needed each time"
    sentence = f"Owner policy of {author.member}: {', '.join(consent)}{others}."
    _deliver(hand, signed, out, sentence, as_json=as_json, warnings=warnings)


@reference.command(
    "publish",
    epilog=examples(
        "comity reference publish --distributions HEX --code HEX --days 30",
        "comity reference publish --from-intent INTENT",
    ),
)
@reported
def publish_reference(
    distributions: Annotated[
        list[str] | None,
        typer.Option(metavar="HEX", help="A digest of installed distributions. May be repeated."),
    ] = None,
    code: Annotated[
        list[str] | None,
        typer.Option(metavar="HEX", help="A digest of a code location's files. May be repeated."),
    ] = None,
    from_intent: Annotated[
        str,
        typer.Option(metavar="INTENT", help="Take both from the evidence of this intent, at the local node."),
    ] = "",
    days: Annotated[int, typer.Option(min=1, max=3_650, help="How long they hold.")] = 90,
    out: OutOption = None,
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish measurements of contexts that this organization recognises. Only the epoch's publishers count.

    A newer record does not take back an older one: each holds until its own end.
    """
    from comity.node.publications import measured_for, reference_record
    from comity.node.signing_hand import Hand

    hand = Hand.of(home, passphrase_file)
    installed, files = list(distributions or ()), list(code or ())
    if from_intent:
        measured = measured_for(hand, from_intent)
        installed.append(measured[0])
        files.append(measured[1])
    author = hand.organization(organization_key, hand.coalition_id())
    signed = reference_record(author, installed, files, days=days)
    _deliver(
        hand, signed, out, f"{author.member} recognises {len(files)} code measurements.", as_json=as_json
    )


@record.command("submit", epilog=examples("comity record submit approval.bin"))
@reported
def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A signed record, as --out writes it.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hand a signed record to the local node, which tells those whom it concerns."""
    from comity.node.signing_hand import Hand

    hand = Hand.of(home)
    done = hand.deliver(hand.record(str(file)), None)
    show(done, as_json, lambda console: console.print(f"The node has taken {done['kind']} {done['record']}."))


@record.command("show", epilog=examples("comity record show RECORD", "comity record show credential.bin"))
@reported
def show_record(
    named: Annotated[
        str,
        typer.Argument(
            metavar="RECORD", help="Its id at the local node, or the beginning of it; or its file."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the record's bytes here, too.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show any record: header, body and signatures, as they were signed. A file's record is not verified."""
    from comity.node.owner_files import PUBLIC, write_file
    from comity.node.publications import described
    from comity.node.signing_hand import Hand

    signed = Hand.of(home).record(named)
    if out is not None:
        write_file(out, signed.encoded(), mode=PUBLIC)
    value = described(signed)

    def say(console: Console) -> None:
        from comity.node.visible import json_line

        for line in json_line(value, indent=2).split("\n"):
            console.print(line)

    if as_json:
        print_json(value)
    else:
        show(value, as_json, say)
