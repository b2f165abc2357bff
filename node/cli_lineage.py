"""`comity lineage` and `comity verify`: where data comes from, and the proof of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from comity.node.cli_progress import work
from comity.node.cli_terminal import (
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
from comity.node.cli_working import term
from comity.node.visible import named

if TYPE_CHECKING:
    from rich.console import Console

    from comity.attestation.offline import Report
    from comity.attestation.roots import Roots
    from comity.protocol.bundle import Bundle

_FETCHES: Final = "the node gathers the records, and fetches what other members hold"

PartitionOption = Annotated[
    str | None,
    typer.Option("--partition", metavar="KEY", help="The partition that is meant, where there are several."),
]

app = new_app(
    "lineage", "Lineage: from what was made back through its inputs, and the bundle that proves it."
)


def register(root: typer.Typer) -> None:
    """Add the command that stands by itself."""
    root.command(
        "verify",
        epilog=examples(
            "comity verify survival.bundle --roots roots.toml",
            "comity verify survival.bundle --roots roots.toml --fingerprint FINGERPRINT --json",
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
        typer.Argument(
            metavar="ASSET",
            help="An asset, a partner's with its member; or an actuation's id, or the beginning of it.",
        ),
    ],
    partition: PartitionOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The chain of actuations behind an asset: who made what, by whose votes, and what governs it.

    Of an asset with several partitions their list, where none is named.
    """
    from comity.node.signing_hand import Hand

    with work(_FETCHES, as_json=as_json):
        said: Any = Hand.of(home).reader().lineage(name, partition)
    say = _say_lineage if "target" in said else _say_partitions
    show(said, as_json, lambda out: say(out, said))


def _say_partitions(out: Console, said: Any) -> None:
    out.print(f"{said['asset']} has {len(said['partitions'])} partitions here: --partition KEY shows one.")
    table(
        out,
        ("PARTITION", "GENERATION", "MADE", "ACTUATION"),
        (
            (named(each["partition"]), each["generation"], when(each["made_at"]), short(each["actuation"]))
            for each in said["partitions"]
        ),
        "",
    )


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
        slot = f"{each['asset']} {named(each['partition'])}" if each["partition"] else each["asset"]
        out.print(f"{indent}{slot}  {short(actuation)}{again}")
        if again:
            return
        shown.add(actuation)
        rows = f"{each['rows']} rows, " if each["rows"] else ""
        out.print(
            f"{indent}  made {when(each['made_at'])} by {each.get('requester', each['member'])}: {rows}"
            f"{each['size']} bytes, digest {short(each['digest'])}"
        )
        voters = ", ".join(each.get("voters", [])) or "unknown"
        out.print(f"{indent}  {each.get('mode', 'permitted')}: permit {short(each['permit'])} by {voters}")
        if each.get("columns_withheld"):
            out.print(f"{indent}    withheld columns: {', '.join(each['columns_withheld'])}")
        for obligation in each.get("obligations", ()):
            out.print(f"{indent}    under the obligation: {term(obligation)}")
        out.print(
            f"{indent}  owners {', '.join(state.get('owners', []))}; tier {state.get('tier')};"
            f" purpose {state.get('purpose')}"
        )
        if each.get("against"):
            out.print(f"{indent}  {each['state']}: may not be used, {', '.join(each['against'])}")
        for mark in each.get("marks", ()):
            if mark["kind"] == "observation":
                out.print(
                    f"{indent}  marked: {mark['of']}, which it was made from, was found wrong"
                    f" (said {when(mark['at'])} in {short(mark['record'])}); what was made stands"
                )
                continue
            out.print(
                f"{indent}  marked: its {mark['of_kind'].replace('_', ' ')} {short(mark['of'])} was taken back"
                f" {when(mark['at'])} by the {mark['kind']} {short(mark['record'])}; what was made stands"
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
        "comity lineage export orders_by_day --partition 2026-01-02 --out orders.bundle",
        "comity lineage export DECISION --out d.bundle",
    ),
)
@reported
def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ASSET",
            help="An asset, or the id of an actuation, permit, refusal or proof of misbehaviour.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The bundle to write.")],
    partition: PartitionOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the bundle with which a stranger verifies an asset: all that it depends on, and nothing else.

    What partners hold is fetched from their nodes. Give the bundle away together with nothing; the roots travel
    on another road. Of an asset with several partitions one has to be named.
    """
    from comity.node.owner_files import PUBLIC, write_file
    from comity.node.signing_hand import Hand
    from comity.protocol.bundle import decode_bundle

    with work(_FETCHES, as_json=as_json):
        data = Hand.of(home).reader().bundle(name, partition)
    bundle = decode_bundle(data)
    write_file(out, data, mode=PUBLIC)
    value = {
        "file": str(out),
        "bytes": len(data),
        "targets": [target.hex() for target in bundle.targets],
        "target": _target_of(bundle),
        "coalition": bundle.coalition.hex(),
        "records": len(bundle.records),
        "epochs": len(bundle.epochs),
    }

    def say(console: Console) -> None:
        console.print(f"Wrote {out} of {value['target']}: {len(bundle.records)} records, {len(data)} bytes.")
        console.print(f"Anyone verifies it: comity verify {out} --roots roots.toml")

    show(value, as_json, say)


def _target_of(bundle: Bundle) -> str:
    """What a bundle is about, for people."""
    from comity.protocol.execution import Actuation
    from comity.protocol.records import decode_body

    (target,) = [record for record in bundle.records if record.id in bundle.targets][:1]
    body: Any = decode_body(target)
    if isinstance(body, Actuation):
        partition = f" partition {named(body.partition)}" if body.partition else ""
        return f"{body.asset}{partition}, generation {body.generation}"
    return f"{target.header.kind} {short(target.id.hex())}"


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
        str | None,
        typer.Option(
            metavar="HEX",
            help="The fingerprint that the roots are known by, 64 digits, or at least the first 32; it is compared.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle with the roots alone: no node, no network, nothing of ours that you would have to trust.

    [bold]signed[/bold]: every signature, chain, certificate and content rule checks. [bold]re-judged[/bold]:
    moreover every vote was judged again and came out equal to the byte. Status 1, naming record and reason,
    where anything is wrong.

    A bundle that ends before the epoch which the roots pin verifies with roots of an earlier epoch; every member
    has them: `comity coalition roots --epoch N`.
    """
    from comity.attestation.engine import engine_id
    from comity.attestation.offline import verify_bundle
    from comity.attestation.roots import fingerprint as fingerprint_of
    from comity.attestation.roots import parse_roots, require_fingerprint
    from comity.node.owner_files import read_file
    from comity.node.problems import Refused
    from comity.protocol.errors import DecodeError, VerificationError
    from comity.protocol.limits import BUNDLE_BYTES_MAX

    # What is too long for roots is said by their reader, with the word that these are none.
    pinned = parse_roots(read_file(roots, BUNDLE_BYTES_MAX)[0], str(roots))
    if fingerprint is not None:
        require_fingerprint(fingerprint, pinned, str(roots))
    found = fingerprint_of(pinned).hex()
    data, _ = read_file(bundle, BUNDLE_BYTES_MAX)
    try:
        with work("reading the bundle", as_json=as_json) as shown:
            report = verify_bundle(data, pinned, engine_id(), shown.told)
    except DecodeError as exc:
        raise DecodeError(f"{bundle}: {_no_bundle(data, str(exc))}") from exc
    except VerificationError as exc:
        if exc.reason != "pin_not_reached":
            raise
        raise Refused(exc.reason, str(exc), hint=_EARLIER_ROOTS) from exc
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


_EARLIER_ROOTS = (
    "get roots of an epoch that the bundle reaches from a member (comity coalition roots --epoch N), on the same road"
    " as these and never with the bundle; or have the bundle exported again"
)
_RECORD_OF_BUNDLE = re.compile(r"(?:record|epoch) \d+(?=: )")


def _no_bundle(data: bytes, problem: str) -> str:
    """Why bytes are no bundle, without the words of the library that reads them."""
    if not data:
        return "no bundle: the file is empty"
    record = _RECORD_OF_BUNDLE.match(problem)
    if record is not None:
        return f"a damaged bundle, or one of another version: its {record.group()} cannot be read"
    if problem.startswith("not a "):
        return "no bundle, though it is written as one would be: it has other parts"
    if not problem.startswith("malformed MessagePack"):
        return f"a damaged bundle, or one of another version: {problem.partition(': ')[0]}"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "no bundle, or one that was cut short or damaged"
    return "no bundle, but a text" if text.isprintable() or "\n" in text else "no bundle"


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
        if target.get("accused"):
            out.print(f"  It shows that {target['accused']} contradicted itself: {target['rule']}.")
