"""`comity coalition`: found a coalition, sign its epochs, join it, admit others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comity.node.cli_terminal import (
    HomeOption,
    JsonOption,
    OrganizationKeyOption,
    PassphraseOption,
    examples,
    new_app,
    reported,
    show,
    table,
    when,
)

if TYPE_CHECKING:
    from rich.console import Console

    from comity.node.coalition_file import CoalitionFile
    from comity.node.signing_hand import Hand

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
        help="A policy: TOML with the classification and the name of the Cedar file. May be repeated.",
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
        Path, typer.Option(metavar="FILE", help="The taxonomy: TOML with the classes of authority.")
    ],
    policy: PolicyFiles = None,
    publisher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN", help="A member whose reference values of contexts count. May be repeated."
        ),
    ] = None,
    quorum: Annotated[
        int, typer.Option(min=0, max=13, help="Votes that a decision needs, if more than two thirds and one.")
    ] = 0,
    out: OutFile = Path("coalition.toml"),
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draft a coalition from its members' cards, and sign the draft with this organization's key.

    Send the file to every member; each looks at it with `comity coalition show`, signs it with
    `comity coalition sign` and passes it on. Signed by all, it is the file with which everyone joins.
    """
    from comity.node.cards import read_card, require_distinct
    from comity.node.coalition_file import write_coalition
    from comity.node.coalitions import NamedPolicy, draft_genesis, sign_draft
    from comity.node.governance_files import read_policy, read_taxonomy
    from comity.node.signing_hand import Hand, now
    from comity.protocol.errors import ConfigError

    hand = Hand.of(home, passphrase_file)
    cards = [read_card(path) for path in card]
    require_distinct(cards)
    sources = [read_policy(path) for path in policy or ()]
    if not sources:
        raise ConfigError(
            "a coalition has at least one policy: --policy FILE; `comity policy template` starts one"
        )
    for source in sources:
        source.require_sound()
    author = hand.organization(organization_key, None)
    file = draft_genesis(
        name,
        cards,
        read_taxonomy(taxonomy),
        [NamedPolicy(source.name, source.policy) for source in sources],
        author,
        now(),
        publishers=publisher or (),
        quorum=quorum,
    )
    file = sign_draft(file, author, read_card(hand.home.card), now())
    write_coalition(out, file)
    value = _standing(file) | {"file": str(out)}
    show(value, as_json, lambda console: _say_standing(console, value))


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
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the epoch in a coalition file with this organization's key, and certify this home's node in it.

    Look at the file with `comity coalition show` first: what you sign is who belongs and by which rules.
    Signing twice is signing once.
    """
    from comity.node.cards import read_card
    from comity.node.coalition_file import read_coalition, write_coalition
    from comity.node.coalitions import sign_draft, verified
    from comity.node.signing_hand import Hand, now

    hand = Hand.of(home, passphrase_file)
    given = read_coalition(file)
    verified(given)
    author = hand.organization(organization_key, given.coalition)
    signed = sign_draft(given, author, read_card(hand.home.card), now(), days=days)
    write_coalition(out or file, signed)
    value = _standing(signed) | {"file": str(out or file)}
    show(value, as_json, lambda console: _say_standing(console, value))


@app.command("show", epilog=examples("comity coalition show coalition.toml", "comity coalition show --json"))
@reported
def show_file(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The coalition file; otherwise that of the home.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a coalition file says once every record in it is verified: who belongs, and who still has to sign."""
    from comity.node.coalition_file import read_coalition
    from comity.node.signing_hand import Hand

    given = read_coalition(file) if file is not None else Hand.of(home).coalition()
    value = _standing(given)
    show(value, as_json, lambda console: _say_standing(console, value))


@app.command(
    "join",
    epilog=examples(
        "comity coalition join coalition.toml --home HOME",
        "comity coalition join coalition.toml --fingerprint 5ad0c4f1...",
    ),
)
@reported
def join(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The coalition file, signed by all members.")],
    fingerprint: Annotated[
        str,
        typer.Option(
            metavar="HEX", help="The fingerprint that the other members read out; joining compares it."
        ),
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a coalition file and make this home's node a member: write coalition.toml and roots.toml.

    Also brings a newer epoch to a home that belongs to the coalition already; a running node takes it at once.
    """
    from comity.attestation.roots import fingerprint as fingerprint_of
    from comity.attestation.roots import format_roots
    from comity.node.cards import read_card
    from comity.node.coalition_file import read_coalition, write_coalition
    from comity.node.coalitions import merged_records, require_joinable, require_successor
    from comity.node.owner_files import PUBLIC, write_file
    from comity.node.signing_hand import Hand, now
    from comity.protocol.errors import ConfigError

    hand = Hand.of(home)
    given = read_coalition(file)
    require_joinable(given, read_card(hand.home.card), now())
    held = hand.coalition() if hand.home.coalition.exists() else given
    require_successor(held, given)
    given = merged_records(held, given)
    found = fingerprint_of(given.roots()).hex()
    if fingerprint and not found.startswith(_compact(fingerprint)):
        raise ConfigError(f"the fingerprint of this file is {found}, another than the one given: do not join")
    write_coalition(hand.home.coalition, given)
    write_file(hand.home.roots, format_roots(given.roots()).encode(), mode=PUBLIC)
    told = _tell_node(hand, given)
    value = _standing(given) | {"home": str(hand.home.path), "roots": str(hand.home.roots), "node_told": told}

    def say(console: Console) -> None:
        _say_standing(console, value)
        console.print(f"Wrote {hand.home.coalition} and {hand.home.roots}.")
        if told:
            console.print("The running node has taken it.")
        else:
            console.print(f"Next: comity node start --home {hand.home.path}")

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
    card: Annotated[list[Path], typer.Argument(metavar="CARD...", help="The public cards of the newcomers.")],
    out: OutFile = Path("next.toml"),
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draft the next epoch, with more members. All members sign it, the old ones and the new ones.

    Then every member joins with the file; running nodes take the new epoch without a restart.
    """
    from comity.node.cards import read_card, require_distinct
    from comity.node.coalition_file import write_coalition
    from comity.node.coalitions import draft_successor, sign_draft
    from comity.node.signing_hand import Hand, now

    hand = Hand.of(home, passphrase_file)
    held = hand.coalition()
    cards = [read_card(path) for path in card]
    require_distinct(cards)
    author = hand.organization(organization_key, held.coalition)
    file = draft_successor(held, author, now(), cards=cards)
    file = sign_draft(file, author, read_card(hand.home.card), now())
    write_coalition(out, file)
    value = _standing(file) | {"file": str(out)}
    show(value, as_json, lambda console: _say_standing(console, value))


def _compact(text: str) -> str:
    return "".join(text.split()).lower()


def _tell_node(hand: Hand, file: CoalitionFile) -> bool:
    """Give the file's records to the home's node, if it runs. Epochs first: the others are judged under them."""
    from comity.node.client import NodeNotRunningError

    try:
        client = hand.operator()
        for record in (*file.epochs, *(r for r in file.records if r.header.kind != "epoch")):
            client.submit_record(record.encoded())
    except NodeNotRunningError:
        return False
    return True


def _standing(file: CoalitionFile) -> dict[str, Any]:
    """What a file says, verified, as plain values.

    Raises:
        ConfigError: it does not verify.
    """
    from comity.attestation.roots import fingerprint
    from comity.node.coalitions import epoch_of, tolerance, verified

    _, standing = verified(file)
    newest = (
        epoch_of(file.draft) if file.draft is not None else epoch_of(file.epochs[-1]) if file.epochs else None
    )
    state = (
        "founded" if standing.epoch is not None and file.draft is None else "draft" if newest else "gathering"
    )
    members = newest.members if newest is not None else ()
    nodes = {entry.id: entry.nodes for entry in file.members}
    return {
        "name": file.name,
        "coalition": file.coalition.hex() if file.coalition is not None else "",
        "state": state,
        "complete": standing.complete,
        "epoch": standing.epoch.number if standing.epoch is not None else None,
        "draft": file.draft.header.number if file.draft is not None else None,
        "members": [
            {
                "member": member.id,
                "signed": member.id not in standing.unsigned,
                "nodes": [
                    {
                        "node": node.node,
                        "addresses": list(node.addresses),
                        "certified": node.node not in standing.uncertified,
                    }
                    for node in nodes.get(member.id, ())
                ],
            }
            for member in members
        ],
        "unsigned": list(standing.unsigned),
        "uncertified": list(standing.uncertified),
        "missing": list(standing.missing),
        "quorum": newest.quorum or 2 * len(members) // 3 + 1 if newest is not None else 0,
        "tolerance": tolerance(len(members)) if members else "",
        "started": newest.started if newest is not None else 0,
        "policies": [record.header.name for record in file.of_kind("policy")],
        "publishers": list(newest.publishers) if newest is not None else [],
        "fingerprint": fingerprint(file.roots()).hex() if file.epochs else "",
    }


def _say_standing(out: Console, said: dict[str, Any]) -> None:
    number = said["draft"] if said["draft"] is not None else said["epoch"]
    out.print(f"Coalition {said['name']}: epoch {number}, {said['state']}. {said['tolerance'].capitalize()}.")
    table(
        out,
        ("MEMBER", "SIGNED", "NODE", "CERTIFIED", "ADDRESSES"),
        (
            (
                member["member"],
                "yes" if member["signed"] else "no",
                node["node"].rsplit("/", 1)[-1],
                "yes" if node["certified"] else "no",
                " ".join(node["addresses"]) or "-",
            )
            for member in said["members"]
            for node in member["nodes"]
        ),
        "No members yet.",
    )
    out.print(f"Policies: {', '.join(said['policies']) or 'none'}. Signed from {when(said['started'])}.")
    if said["unsigned"]:
        out.print(f"Waits for the signature of {', '.join(said['unsigned'])}: comity coalition sign FILE")
    if said["uncertified"]:
        out.print(
            f"Without a certificate: {', '.join(said['uncertified'])}; its organization signs the file again."
        )
    if said["missing"]:
        out.print(f"The file lacks {', '.join(said['missing'])}.")
    if said["complete"]:
        out.print("It is complete: everyone can join with it (comity coalition join FILE).")
    if said["fingerprint"] and said["state"] == "founded":
        out.print(f"Fingerprint of its roots, to compare by another road: {said['fingerprint']}")
