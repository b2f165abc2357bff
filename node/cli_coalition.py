"""`comity coalition`: found a coalition, sign its epochs, join it, admit others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comity.node.cli_coalition_words import say_changes, say_governance, say_standing, say_warnings
from comity.node.cli_terminal import (
    NEGATIVE,
    ForceOption,
    HomeOption,
    JsonOption,
    OrganizationKeyOption,
    PassphraseOption,
    examples,
    naming,
    new_app,
    reported,
    require_free,
    show,
)

if TYPE_CHECKING:
    from rich.console import Console

    from comity.node.client import NodeClient
    from comity.node.coalition_file import CoalitionFile

app = new_app("coalition", "A coalition: draft it, sign it, join it, admit others.")

CardsOption = Annotated[
    list[Path],
    typer.Option("--card", metavar="FILE", help="The public card of a member's node. Once per member."),
]
PolicyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="A policy: TOML with the classification and the name of the Cedar file, at least one. May be repeated.",
    ),
]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="The coalition file to write.")]


@app.command(
    "new",
    epilog=examples(
        "comity policy template site/",
        "comity coalition new --home HOME --name study --card north/card.toml --card south/card.toml"
        " --taxonomy site/taxonomy.toml --policy site/policy.toml --out coalition.toml",
        "comity coalition sign coalition.toml --home OTHER-HOME",
    ),
)
@reported
def new(
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What people call the coalition. It identifies nothing.")
    ],
    card: CardsOption,
    taxonomy: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The taxonomy: TOML with the classes of authority. `comity policy template` writes one.",
        ),
    ],
    policy: PolicyFiles = None,
    publisher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN", help="A member whose reference values of contexts count. May be repeated."
        ),
    ] = None,
    quorum: Annotated[
        int,
        typer.Option(
            min=0,
            max=13,
            help="Votes that a decision needs, to have it need more than the size asks for: 3 of 4, 5 of 7.",
        ),
    ] = 0,
    out: OutFile = Path("coalition.toml"),
    force: ForceOption = False,
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draft a coalition from its members' cards, and sign the draft with this organization's key.

    Send the file to every member; each looks at it with `comity coalition show`, signs it with
    `comity coalition sign` and passes it on, or all sign copies, which `comity coalition merge` puts together.
    Signed by all, it is the file with which everyone joins.
    """
    from comity.node.cards import card_warnings, read_card, require_distinct
    from comity.node.coalition_file import write_coalition
    from comity.node.coalition_view import standing_of
    from comity.node.coalitions import NamedPolicy, draft_genesis, sign_draft
    from comity.node.governance_files import read_policies, read_taxonomy, warnings_of
    from comity.node.governance_names import name_warnings, require_members
    from comity.node.signing_hand import Hand, now

    require_free(out, force=force)
    hand = Hand.of(home, passphrase_file)
    cards = [read_card(path) for path in card]
    require_distinct(cards)
    sources = read_policies(policy or ())
    classes = read_taxonomy(taxonomy)
    members = [each.member for each in cards]
    require_members("--publisher", publisher or (), members)
    author = hand.organization(organization_key, None)
    policies = [NamedPolicy(source.name, source.policy) for source in sources]
    file = draft_genesis(
        name, cards, classes, policies, author, now(), publishers=publisher or (), quorum=quorum
    )
    warnings = [
        *card_warnings(cards),
        *name_warnings(policy or (), taxonomy, members),
        *warnings_of(sources, classes, file.draft),
    ]
    file = sign_draft(file, author, read_card(hand.home.card), now())
    value = standing_of(file) | {"file": str(out), "warnings": warnings}
    write_coalition(out, file, replace=force)
    show(value, as_json, lambda console: _say_drafted(console, value))


def _say_drafted(console: Console, value: dict[str, Any]) -> None:
    say_warnings(console, value["warnings"])
    say_standing(console, value)
    console.print(
        f"Next: send {value['file']} to {', '.join(value['unsigned']) or 'all members'}. Each looks at it"
    )
    console.print("(`comity coalition show`), signs it (`comity coalition sign`) and sends it back.")


@app.command(
    "sign", epilog=examples("comity coalition show coalition.toml", "comity coalition sign coalition.toml")
)
@reported
def sign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The coalition file; it is changed in place.")],
    days: Annotated[
        int, typer.Option(min=1, max=3_650, help="How long the certificate of this home's node holds.")
    ] = 365,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the signed file here instead.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before signing.")] = False,
    force: ForceOption = False,
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the epoch in a coalition file with this organization's key, and certify this home's node in it.

    Shows what you sign first: all rules where you do not belong to the coalition yet, else what the next epoch
    changes in them; on a terminal it asks. `comity coalition show --full` has the text of all rules. Signing twice
    is signing once.
    """
    from comity.node.cards import read_card
    from comity.node.coalition_file import read_coalition, write_coalition
    from comity.node.coalition_view import changes_of, standing_of
    from comity.node.coalitions import require_author, sign_draft, verified
    from comity.node.signed_successors import keep_to_successor
    from comity.node.signing_hand import Hand, now

    require_free(out, file, force=force)
    hand = Hand.of(home, passphrase_file)
    given = read_coalition(file)
    with naming(file):
        verified(given)
        require_author(given)
        changes = changes_of(given)
        _require_visible(given)
    member = hand.config().member
    if not as_json:
        show(changes, as_json, lambda console: _say_draft(console, given, changes, member))
    asks = given.draft is not None and not yes and not as_json and sys.stdin.isatty()
    if asks and not typer.confirm("Sign this?"):
        raise typer.Exit(NEGATIVE)
    author = hand.organization(organization_key, given.coalition)
    with naming(file):
        keep_to_successor(hand.home, author.member, given.draft)
        signed = sign_draft(given, author, read_card(hand.home.card), now(), days=days)
        # A file that would not verify is never written: the members would be left without one.
        value = standing_of(signed) | {"file": str(out or file), "changes": changes}
    write_coalition(out or file, signed)
    show(value, as_json, lambda console: say_standing(console, value))


def _require_visible(file: CoalitionFile) -> None:
    """Check that the rules of a draft are in the file: nobody signs what cannot be seen.

    Raises:
        ConfigError: they are not.
    """
    from comity.node.coalition_view import bodies_missing
    from comity.protocol.errors import ConfigError

    missing = bodies_missing(file, file.draft) if file.draft is not None else []
    if missing:
        raise ConfigError(
            f"it lacks {', '.join(missing)}: what you would sign cannot be seen; get the file from its drafter again"
        )


def _say_draft(console: Console, file: CoalitionFile, changes: list[dict[str, Any]], signer: str) -> None:
    """What is about to be signed: the rules where they are new, at least to who signs, else what changes in them."""
    from comity.node.coalition_view import governance_of
    from comity.node.coalitions import epoch_of

    if file.draft is None:
        return
    belongs = file.epochs and signer in {member.id for member in epoch_of(file.epochs[-1]).members}
    if not belongs:
        say_governance(console, governance_of(file, file.draft))
    if file.epochs:
        say_changes(console, changes, len(file.epochs) - 1)
    console.print("")


@app.command(
    "show",
    epilog=examples(
        "comity coalition show coalition.toml",
        "comity coalition show coalition.toml --full",
        "comity coalition show --json",
    ),
)
@reported
def show_file(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The coalition file; otherwise that of the home.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="The text of the rules, too.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a coalition file says once every record in it is verified: who belongs, by which rules, and who has signed.

    Shown are the rules of the epoch that is being signed, with what they change, else of the one in force.
    """
    from comity.node.coalition_file import read_coalition
    from comity.node.coalition_view import changes_of, governance_of, newest_epoch, standing_of
    from comity.node.signing_hand import Hand

    hand = Hand.of(home)
    given = read_coalition(file) if file is not None else hand.coalition()
    with naming(file or hand.home.coalition):
        standing = standing_of(given)
        newest = newest_epoch(given)
        governance = governance_of(given, newest) if newest is not None else None
        changes = changes_of(given)
    value = standing | {"governance": governance, "changes": changes}

    def say(console: Console) -> None:
        say_standing(console, value)
        if governance is not None:
            console.print("")
            say_governance(console, governance, full=full)
        if given.draft is not None and given.epochs:
            console.print("")
            say_changes(console, changes, len(given.epochs) - 1)

    show(value, as_json, say)


@app.command(
    "join",
    epilog=examples(
        "comity coalition join coalition.toml --home HOME",
        "comity coalition join coalition.toml --fingerprint FINGERPRINT",
    ),
)
@reported
def join(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The coalition file, signed by all members.")],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            metavar="HEX",
            help="The fingerprint that the other members read out, 64 digits, or at least the first 32; joining"
            " compares it.",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a coalition file and make this home's node a member: write coalition.toml, roots.toml and roots/.

    Also brings a newer epoch to a home that belongs to the coalition already; a running node takes it at once.
    """
    from comity.attestation.roots import require_fingerprint
    from comity.node.cards import read_card
    from comity.node.coalition_file import read_coalition
    from comity.node.coalition_view import standing_of
    from comity.node.coalitions import merged_records, require_joinable, require_successor
    from comity.node.home_coalition import keep_coalition
    from comity.node.signing_hand import Hand, now

    hand = Hand.of(home)
    given = read_coalition(file)
    card = read_card(hand.home.card)
    held = hand.coalition() if hand.home.coalition.exists() else given
    with naming(file):
        require_joinable(given, card, now())
        require_successor(held, given)
    given = merged_records(held, given)
    if fingerprint is not None:
        require_fingerprint(fingerprint, given.roots(), f"do not join with {file}")
    # All that can fail is tried before anything is written.
    value = standing_of(given) | {"home": str(hand.home.path), "roots": str(hand.home.roots)}
    client = hand.operator()
    keep_coalition(hand.home, given)
    told, problem = _tell_node(client, given)
    value |= {"node_told": told, "node_problem": problem}

    def say(console: Console) -> None:
        say_standing(console, value)
        console.print(
            f"Wrote {hand.home.coalition} and {hand.home.roots}; roots of earlier epochs are beside it in roots/."
        )
        if told:
            console.print("The running node has taken it.")
        elif problem:
            console.print(f"The running node has not taken it: {problem}. Start it again.")
        else:
            console.print(f"Next: comity node start --home {hand.home.word}")
            console.print(
                f"Then, in another terminal: comity node status --home {hand.home.word} --until all"
            )

    show(value, as_json, say)


@app.command(
    "admit",
    epilog=examples(
        "comity coalition admit newcomer/card.toml --home HOME --out next.toml",
        "comity coalition sign next.toml --home EVERY-MEMBERS-HOME",
        "comity coalition join next.toml --home EVERY-MEMBERS-HOME",
    ),
)
@reported
def admit(
    card: Annotated[list[Path], typer.Argument(metavar="CARD", help="The public cards of the newcomers.")],
    out: OutFile = Path("next.toml"),
    force: ForceOption = False,
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draft the next epoch, with more members. All members sign it, the old ones and the new ones.

    Then every member joins with the file; running nodes take the new epoch without a restart.
    """
    from comity.node.cards import card_warnings, read_card, require_distinct
    from comity.node.coalition_file import write_coalition
    from comity.node.coalition_view import changes_of, standing_of
    from comity.node.coalitions import draft_successor, sign_draft
    from comity.node.signed_successors import keep_to_successor
    from comity.node.signing_hand import Hand, now

    require_free(out, force=force)
    hand = Hand.of(home, passphrase_file)
    held = hand.coalition()
    cards = [read_card(path) for path in card]
    require_distinct(cards)
    author = hand.organization(organization_key, held.coalition)
    file = draft_successor(held, author, now(), cards=cards)
    changes = changes_of(file)
    keep_to_successor(hand.home, author.member, file.draft, drafted_now=True)
    file = sign_draft(file, author, read_card(hand.home.card), now())
    value = standing_of(file) | {
        "file": str(out),
        "changes": changes,
        "warnings": card_warnings(cards, held.members),
    }
    write_coalition(out, file, replace=force)
    show(value, as_json, lambda console: _say_drafted(console, value))


@app.command(
    "merge",
    epilog=examples(
        "comity coalition merge coalition.toml from-south.toml from-board.toml",
        "comity coalition merge copies/north.toml copies/south.toml --out coalition.toml",
    ),
)
@reported
def merge(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Copies of one coalition file; the first is changed in place."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the merged file here instead.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put together copies of one coalition file that members signed side by side.

    Send the same draft to everyone at once; each signs its copy with `comity coalition sign` and sends it back.
    Nothing is signed here and no key is needed: what comes out has the signatures and certificates of all copies.
    """
    from comity.node.coalition_file import read_coalition, write_coalition
    from comity.node.coalition_merging import Copy, merge_copies
    from comity.node.coalition_view import standing_of
    from comity.protocol.errors import ConfigError

    if len({path.resolve() for path in files}) < 2:  # noqa: PLR2004  two are the fewest that can be merged
        raise ConfigError(
            "one file alone is merged with nothing: name the copies that the others signed, too"
        )
    require_free(out, *files, force=force)
    merged = merge_copies([Copy(str(path), read_coalition(path)) for path in files])
    value = standing_of(merged) | {"file": str(out or files[0]), "merged": [str(path) for path in files]}
    write_coalition(out or files[0], merged)

    def say(console: Console) -> None:
        say_standing(console, value)
        console.print(f"Wrote {value['file']}.")

    show(value, as_json, say)


@app.command(
    "roots",
    epilog=examples(
        "comity coalition roots --home HOME",
        "comity coalition roots --epoch 0 --out roots-0.toml",
    ),
)
@reported
def roots(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The coalition file; otherwise that of the home.")
    ] = None,
    epoch: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="The epoch to pin; the newest if not said.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write them here instead of printing them.")
    ] = None,
    force: ForceOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The roots with which a stranger verifies what this coalition decides, and their fingerprint.

    A bundle that was exported before an epoch verifies with roots that pin an epoch which it reaches: give those
    of an earlier epoch to whoever holds an older bundle.
    """
    from comity.attestation.roots import fingerprint, format_roots
    from comity.node.coalition_file import read_coalition
    from comity.node.coalitions import verified
    from comity.node.owner_files import PUBLIC, write_file
    from comity.node.signing_hand import Hand

    require_free(out, force=force)
    hand = Hand.of(home)
    given = read_coalition(file) if file is not None else hand.coalition()
    with naming(file or hand.home.coalition):
        verified(given)
        pinned = given.roots(epoch)
    text = format_roots(pinned)
    value = {
        "name": pinned.name,
        "coalition": pinned.coalition.hex(),
        "epoch_number": pinned.epoch_number,
        "epoch": pinned.epoch.hex(),
        "made": pinned.made,
        "fingerprint": fingerprint(pinned).hex(),
        "file": str(out) if out is not None else "",
    }
    if out is not None:
        write_file(out, text.encode(), mode=PUBLIC, replace=force)

    def say(console: Console) -> None:
        lines = text.splitlines() if out is None else (f"Wrote {out}, fingerprint {value['fingerprint']}",)
        for line in lines:
            console.print(line)

    show(value, as_json, say)


def _tell_node(client: NodeClient, file: CoalitionFile) -> tuple[bool, str]:
    """Give the file's records to the home's node, if it runs. Epochs first: the others are judged under them.

    Answers whether it has them, and why it did not take them.
    """
    from comity.node.client import NodeError, NodeNotRunningError

    try:
        for record in (*file.epochs, *(r for r in file.records if r.header.kind != "epoch")):
            client.submit_record(record.encoded())
    except NodeNotRunningError:
        return False, ""
    except NodeError as exc:
        # The home is joined; what the node lacks it reads when it starts.
        return False, exc.message
    return True, ""
