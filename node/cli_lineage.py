"""`comity lineage` and `comity verify`: where data comes from, and the proof of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comity.node.cli_terminal import (
    HomeOption,
    JsonOption,
    examples,
    new_app,
    reported,
    short,
    show,
    when,
)

if TYPE_CHECKING:
    from rich.console import Console

    from comity.attestation.offline import Report
    from comity.attestation.roots import Roots

app = new_app(
    "lineage", "Lineage: from what was made back through its inputs, and the bundle that proves it."
)


def register(root: typer.Typer) -> None:
    """Add the command that stands by itself."""
    root.command(
        "verify",
        epilog=examples(
            "comity verify survival.bundle --roots roots.toml",
            "comity verify survival.bundle --roots roots.toml --fingerprint 5ad0c4f1... --json",
        ),
    )(verify)


@app.command(
    "show",
    epilog=examples("comity lineage show released", "comity lineage show clinic-north.example/released"),
)
@reported
def show_lineage(
    name: Annotated[
        str,
        typer.Argument(metavar="ASSET", help="An asset, a partner's with its member; or an actuation's id."),
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The chain of actuations behind an asset: who made what, by whose votes, and what governs it."""
    from comity.node.signing_hand import Hand

    said: Any = Hand.of(home).reader().lineage(name)
    show(said, as_json, lambda out: _say_lineage(out, said))


def _say_lineage(out: Console, said: Any) -> None:
    by_id = {each["actuation"]: each for each in said["actuations"]}
    shown: set[str] = set()

    def say(actuation: str, depth: int) -> None:
        each = by_id.get(actuation)
        indent = "  " * depth
        if each is None:
            out.print(f"{indent}{short(actuation)}  not held here")
            return
        state = each.get("governance", {})
        again = " (as above)" if actuation in shown else ""
        out.print(f"{indent}{each['asset']} {each['partition']}".rstrip() + f"  {short(actuation)}{again}")
        if again:
            return
        shown.add(actuation)
        rows = f"{each['rows']} rows, " if each["rows"] else ""
        out.print(
            f"{indent}  made {when(each['made_at'])} by {each.get('requester', each['member'])}: {rows}"
            f"{each['size']} bytes, digest {short(each['digest'])}"
        )
        out.print(
            f"{indent}  permit {short(each['permit'])} by {', '.join(each.get('voters', [])) or 'unknown'}"
        )
        out.print(
            f"{indent}  owners {', '.join(state.get('owners', []))}; tier {state.get('tier')};"
            f" purpose {state.get('purpose')}"
        )
        for input_id in each["inputs"]:
            say(input_id, depth + 1)

    say(said["target"], 0)
    if not said["complete"]:
        out.print(f"{len(said['missing'])} ancestors are held by nodes that are not in reach.")


@app.command(
    "export",
    epilog=examples(
        "comity lineage export survival --out survival.bundle",
        "comity lineage export DECISION --out d.bundle",
    ),
)
@reported
def export(
    name: Annotated[
        str, typer.Argument(metavar="ASSET", help="An asset, or the id of an actuation, permit or refusal.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The bundle to write.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the bundle with which a stranger verifies an asset: all that it depends on, and nothing else.

    What partners hold is fetched from their nodes. Give the bundle away together with nothing; the roots travel
    on another road.
    """
    from comity.node.owner_files import PUBLIC, write_file
    from comity.node.signing_hand import Hand
    from comity.protocol.bundle import decode_bundle

    data = Hand.of(home).reader().bundle(name)
    bundle = decode_bundle(data)
    write_file(out, data, mode=PUBLIC)
    value = {
        "file": str(out),
        "bytes": len(data),
        "targets": [target.hex() for target in bundle.targets],
        "coalition": bundle.coalition.hex(),
        "records": len(bundle.records),
        "epochs": len(bundle.epochs),
    }

    def say(console: Console) -> None:
        console.print(f"Wrote {out}: {len(bundle.records)} records, {len(data)} bytes.")
        console.print(f"Anyone verifies it: comity verify {out} --roots roots.toml")

    show(value, as_json, say)


@reported
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle.")],
    roots: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The roots of the coalition, learned on another road than the bundle."
        ),
    ],
    fingerprint: Annotated[
        str, typer.Option(metavar="HEX", help="The fingerprint that the roots are known by; it is compared.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle with the roots alone: no node, no network, nothing of ours that you would have to trust.

    [bold]signed[/bold]: every signature, chain, certificate and content rule checks. [bold]re-judged[/bold]:
    moreover every vote was judged again and came out equal to the byte. Status 1, naming record and reason,
    where anything is wrong.
    """
    from comity.attestation.engine import engine_id
    from comity.attestation.offline import verify_bundle
    from comity.attestation.roots import fingerprint as fingerprint_of
    from comity.attestation.roots import parse_roots
    from comity.node.owner_files import read_file
    from comity.protocol.errors import VerificationError
    from comity.protocol.limits import BUNDLE_BYTES_MAX, ROOTS_BYTES_MAX

    pinned = parse_roots(read_file(roots, ROOTS_BYTES_MAX)[0], str(roots))
    found = fingerprint_of(pinned).hex()
    if fingerprint and not found.startswith("".join(fingerprint.split()).lower()):
        raise VerificationError("roots_other", f"the roots have the fingerprint {found}, not the one given")
    report = verify_bundle(read_file(bundle, BUNDLE_BYTES_MAX)[0], pinned, engine_id())
    value = {
        "verified": True,
        "level": report.level,
        "cosigned": report.cosigned,
        "fingerprint": found,
        "coalition": report.coalition.hex(),
        "coalition_name": pinned.name,
        "epoch": report.epoch_number,
        "records": report.records,
        "kinds": report.kinds,
        "votes_rejudged": report.votes_rejudged,
        "why_not_rejudged": report.why_not_rejudged,
        "targets": list(report.targets),
    }
    show(value, as_json, lambda out: _say_report(out, report, pinned, found))


def _say_report(out: Console, report: Report, pinned: Roots, found: str) -> None:
    out.print(f"Roots: {pinned.name}, pinned at epoch {pinned.epoch_number}")
    out.print(f"  fingerprint {found}")
    out.print("  Compare it with the one that the coalition itself tells you.")
    out.print(f"Level: {report.level}" + (f" ({report.why_not_rejudged})" if report.why_not_rejudged else ""))
    if not report.cosigned:
        out.print("Not cosigned: that these are the only records of their authors is not shown.")
    out.print(
        f"Verified: {report.records} records, up to epoch {report.epoch_number}"
        f", {report.votes_rejudged} votes judged again"
    )
    for kind, count in report.kinds.items():
        out.print(f"  {count} {kind}")
    for target in report.targets:
        what = " ".join(target.get(name, "") for name in ("outcome", "kind", "asset", "partition"))
        out.print(f"Target: {' '.join(what.split())} by {target['member']} ({short(target['id'])})")
