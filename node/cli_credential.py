"""`comity credential` and `comity key`: who may do what in an organization's name."""

from __future__ import annotations

from enum import StrEnum
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
    reported,
    short,
    show,
    table,
    warn,
    when,
)

if TYPE_CHECKING:
    from rich.console import Console

    from comity.node.signing_hand import Hand
    from comity.protocol.envelope import SignedRecord
    from comity.protocol.governance import Credential


class Action(StrEnum):
    """What a credential allows."""

    MATERIALIZE = "materialize"
    APPROVE = "approve"
    OBSERVE = "observe"


app = new_app(
    "credential", "Credentials: issue, list and revoke authority of people, agents and code locations."
)
keys = new_app("key", "Keys of people and agents.")

UnderOption = Annotated[
    str,
    typer.Option(
        "--under", metavar="CREDENTIAL", help="The delegator's credential: its id at the node, or its file."
    ),
]
HolderKeyOption = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="The delegator's own private key, with --under."),
]


PublicOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The subject's public key (see `comity key new`)."),
]
ActionsOption = Annotated[
    list[Action] | None,
    typer.Option(help="What it allows. May be repeated; materialize where nothing is said."),
]
AssetsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Assets: `released`, `drafts/**`, `*/pooled`; with --action approve those of the intents that may be"
        " approved, partners' with their member or `*`. All own ones if not said.",
    ),
]
PurposesOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A purpose. May be repeated; any where none is said."),
]
RealmsOption = Annotated[
    list[str] | None, typer.Option(metavar="REALM", help="production, or preview/NAME. May be repeated.")
]
WaitOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=3_600,
        metavar="SECONDS",
        help="Wait so long until a quorum of members has acknowledged it; status 1 where it has not by then.",
    ),
]
PreviousOption = Annotated[
    str, typer.Option(metavar="CREDENTIAL", help="The credential of the same subject that it continues.")
]


@keys.command("new", epilog=examples("comity key new dpo.pem", "comity key new agent.pem --encrypt"))
@reported
def key_new(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The private key's file; nothing is overwritten.")
    ],
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Encrypt it with a passphrase.")] = False,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a person's or agent's own key: a private file, and beside it a public one to have credentialed.

    The private file stays with whoever it belongs to; nobody else, and no node, ever needs it.
    """
    from comity.node.keystore import companion, create_key
    from comity.node.signing_hand import passphrase_from

    secret = passphrase_from(passphrase_file)(file) if encrypt else None
    key = create_key(file, passphrase=secret)
    value = {
        "private": str(file),
        "public": str(companion(file)),
        "key_id": key.key_id.hex(),
        "encrypted": encrypt,
    }

    def say(out: Console) -> None:
        out.print(f"Private key: {file}. Keep it, and give it to nobody.")
        out.print(f"Public key:  {companion(file)}. Have the organization issue a credential for it:")
        out.print(
            f"  comity credential issue --subject operator/7f3a --kind person --public {companion(file)} ..."
        )

    show(value, as_json, say)


@app.command(
    "issue",
    epilog=examples(
        "comity credential issue --subject node/n1 --kind automation --node-key --class data-steward",
        "comity credential issue --subject operator/7f3a --kind person --public op.pub.json"
        " --class analyst --class analyst/agent --action materialize --asset '**' --delegations 1",
        "comity credential issue --subject agent/a1 --kind agent --public agent.pub.json --class analyst/agent"
        " --asset 'drafts/**' --days 30 --under CREDENTIAL --key op.pem",
    ),
)
@reported
def issue(
    subject: Annotated[
        str,
        typer.Option(metavar="NAME", help="Whom it is for, without a person's name: e.g. operator/7f3a."),
    ],
    kind: Annotated[Literal["person", "agent", "automation"], typer.Option(help="What the subject is.")],
    authority_class: Annotated[
        list[str],
        typer.Option(
            "--class",
            metavar="CLASS",
            help="A class of the taxonomy, as `comity coalition show` lists them. May be repeated.",
        ),
    ],
    public: PublicOption = None,
    node_key: Annotated[
        bool, typer.Option("--node-key", help="The node's own key holds it: for runs that nobody signs for.")
    ] = False,
    action: ActionsOption = None,
    asset: AssetsOption = None,
    purpose: PurposesOption = None,
    realm: RealmsOption = None,
    days: Annotated[int, typer.Option(min=1, max=3_650, help="How long it holds.")] = 90,
    delegations: Annotated[
        int, typer.Option(min=0, max=7, help="How many further links may be delegated below it.")
    ] = 0,
    previous: PreviousOption = "",
    under: UnderOption = "",
    key: HolderKeyOption = None,
    out: OutOption = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="With --out: publish it through the local node, too.")
    ] = False,
    strict: StrictOption = False,
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Issue a credential: signed by the organization's key, or delegated with `--under` and the delegator's own key.

    A delegated credential only narrows: in classes, actions, assets, purposes, realms and time. It is published
    through the local node, or written to a file with `--out`. A class, purpose or asset that nobody published has
    no effect, and is warned of.
    """
    from comity.node.credentialing import Wish, issued
    from comity.node.signing_hand import Hand

    hand = Hand.of(home, passphrase_file)
    wish = Wish(
        subject=subject,
        kind=kind,
        classes=tuple(authority_class),
        public=public,
        node_key=node_key,
        actions=tuple(each.value for each in action or (Action.MATERIALIZE,)),
        assets=tuple(asset or ()),
        purposes=tuple(purpose or ()),
        realms=tuple(realm or ("production",)),
        days=days,
        delegations=delegations,
        previous=previous,
    )
    record, body = issued(hand, wish, under=under, key=key, organization_key=organization_key)
    warnings = _warnings(hand, body, named=bool(asset))
    warn(warnings, strict=strict)
    done = hand.deliver(record, out, publish=out is None or publish) | {"warnings": warnings}
    value = {"credential": record.id.hex(), "subject": body.subject, "not_after": body.not_after} | done

    show(value, as_json, lambda console: _say_issued(console, record, body, value))


def _warnings(hand: Hand, body: Credential, *, named: bool) -> list[str]:
    """What of a credential has no effect, or probably another one than was meant.

    Args:
        named: its assets were named, and are not by default all own ones.
    """
    from comity.node.known_names import known_names

    known = known_names(hand)
    warnings: list[str] = []
    if known is not None:
        warnings += known.class_warnings(body.classes) + known.purpose_warnings(body.purposes)
        warnings += known.asset_warnings(body.assets)
    if "approve" in body.actions and not named:
        warnings.append(
            f"it approves only intents for {', '.join(body.assets)}: name partners' with --asset, e.g. '*/pooled'"
        )
    return warnings


def _say_issued(console: Console, record: SignedRecord, body: Credential, done: dict[str, Any]) -> None:
    console.print(f"Credential {record.id.hex()}")
    console.print(f"  {body.subject} may {', '.join(body.actions)} {', '.join(body.assets)}")
    purposes = f", for {', '.join(body.purposes)} only" if body.purposes else ", for any purpose"
    console.print(
        f"  as {', '.join(body.classes)}{purposes}, in {', '.join(body.realms)}, until {when(body.not_after)}"
    )
    if "file" in done:
        console.print(f"  written to {done['file']}")
    if done["published"]:
        console.print("  published: every member learns of it")
    if body.subject_kind == "automation":
        console.print("  the node acts under it where its own key holds it and a run has no ticket")


@app.command(
    "list", epilog=examples("comity credential list", "comity credential list --member clinic-south.example")
)
@reported
def list_credentials(
    member: Annotated[str, typer.Option(metavar="DOMAIN", help="Only those of this member.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The credentials that the local node holds: whose, for what, and whether they are in force."""
    from comity.node.signing_hand import Hand

    rows: list[Any] = [
        each for each in Hand.of(home).reader().credentials() if member in ("", each["member"])
    ]

    def say(out: Console) -> None:
        table(
            out,
            ("CREDENTIAL", "SUBJECT", "KIND", "CLASSES", "ACTIONS", "STATE", "UNTIL"),
            (
                (
                    short(each["credential"]),
                    each["subject"],
                    each["subject_kind"],
                    " ".join(each["classes"]),
                    " ".join(each["actions"]),
                    each["state"]
                    + (f", no class {' '.join(each['classes_unknown'])}" if each["classes_unknown"] else ""),
                    when(each["not_after"]),
                )
                for each in rows
            ),
            "No credentials.",
        )

    show(rows, as_json, say)


@app.command(
    "revoke",
    epilog=examples(
        "comity credential revoke CREDENTIAL --reason key_lost",
        "comity credential revoke CREDENTIAL --wait 60",
        "comity credential revoke CREDENTIAL --under DELEGATORS-CREDENTIAL --key op.pem",
    ),
)
@reported
def revoke(
    credential: Annotated[
        str,
        typer.Argument(
            metavar="CREDENTIAL", help="The credential, or node certificate: its id, or its file."
        ),
    ],
    reason: Annotated[
        str, typer.Option(metavar="CODE", help="Why: lower-case letters, digits and underscores.")
    ] = "withdrawn",
    wait: WaitOption = 0,
    under: UnderOption = "",
    key: HolderKeyOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a credential or a node's certificate: by the organization's key, or by whoever delegated it.

    Whoever holds the revocation counts the credential no more, and refuses what it permitted and has not begun.
    What was begun stands. It is effective once a quorum has acknowledged it: from then nothing new is permitted under
    the credential, whoever has not heard of it yet, and ten minutes later nothing begins.
    """
    from comity.node.credentialing import effective_within, revoked, standing_before
    from comity.node.signing_hand import Hand

    hand = Hand.of(home, passphrase_file)
    before = standing_before(hand, credential)
    record = revoked(hand, credential, reason, under=under, key=key, organization_key=organization_key)
    done = hand.deliver(record, out, publish=out is None)
    value: dict[str, Any] = {
        "revocation": record.id.hex(),
        "revoked": record.header.subject[0].hex(),
        "subject": before.subject,
        "already": before.revoked,
        "left": list(before.others),
    } | done
    reach = effective_within(hand, record.id.hex(), wait) if wait and out is None else None
    if reach is not None:
        value |= {each: reach[each] for each in ("acknowledged", "missing", "quorum", "effective")}

    def say(console: Console) -> None:
        again = " again: it was revoked before" if before.revoked else ""
        whose = f" of {before.subject}" if before.subject else ""
        console.print(f"Revoked the credential{whose} {value['revoked']}{again}")
        told = ", ".join(value.get("told", ())) or "nobody else"
        where = f"written to {out}" if out is not None else f"published, told {told}"
        console.print(f"  the record that says so is {record.id.hex()}, {where}")
        if before.automation:
            left = ", ".join(short(each) for each in before.others)
            console.print(
                f"  a run without a ticket acts under the newest that is left: {left}"
                if left
                else "  no other lets this node act for a run without a ticket"
            )
        if reach is not None:
            console.print(f"  {_reached(reach)}")

    show(value, as_json, say)
    if reach is not None and not reach["effective"]:
        raise typer.Exit(1)


def _reached(row: Any) -> str:
    """How far a revocation has come, in words."""
    count = f"{len(row['acknowledged'])} of {len(row['acknowledged']) + len(row['missing'])} members acknowledged it"
    if row["effective"]:
        return f"effective: {count}, {row['quorum']} are needed"
    return f"not effective yet: {count}, {row['quorum']} are needed; missing: {', '.join(row['missing'])}"


@app.command(
    "revocations", epilog=examples("comity credential revocations", "comity credential revocations --json")
)
@reported
def list_revocations(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What was revoked or suspended, and whether it is effective: whether a quorum has acknowledged it.

    A member acknowledges it by itself, when each of its nodes has it on disk.
    """
    from comity.node.signing_hand import Hand

    rows: list[Any] = Hand.of(home).reader().revocations()

    def say(out: Console) -> None:
        table(
            out,
            ("RECORD", "KIND", "TAKES BACK", "REASON", "AT", "EFFECTIVE"),
            (
                (
                    short(each["record"]),
                    each["kind"],
                    " ".join(_named(target) for target in each["takes_back"]),
                    each["reason"],
                    when(each["at"]),
                    _reached(each),
                )
                for each in rows
            ),
            "Nothing was taken back.",
        )

    show(rows, as_json, say)


def _named(target: Any) -> str:
    """A record that is taken back: by whom it is held, or by its id."""
    name = target["subject"] or short(target["record"])
    return name if target["counts"] else f"{name} (without effect)"
