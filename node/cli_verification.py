"""`comity verification`: what somebody found who looked at a version, said in the organization's name."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

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
from comity.protocol.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from comity.node.client import NodeClient, TermForm

app = new_app("verification", "Verifications: look at a version of an asset, and say what was found.")

CHUNK_BYTES: Final = 1_048_576
PartitionOption = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Of an asset with several partitions, the one that is meant."),
]
NameArgument = Annotated[
    str, typer.Argument(metavar="ASSET", help="An asset, a partner's with its member; or an actuation's id.")
]


@app.command(
    "publish",
    epilog=examples(
        "comity verification publish released --failed --check row_count_wrong",
        "comity verification publish clinic-north.example/released --file released.parquet",
        "comity verification publish ACTUATION --passed --check reviewed_by_hand",
    ),
)
@reported
def publish(
    name: NameArgument,
    failed: Annotated[bool, typer.Option("--failed", help="It is wrong.")] = False,
    passed: Annotated[bool, typer.Option("--passed", help="It is right.")] = False,
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="What was looked at: lower-case letters, digits, underscores. May be repeated.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its bytes: their digest and size are held against the record."),
    ] = None,
    partition: PartitionOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say in the organization's name what was found in a version; the node signs, and every member learns of it.

    With a file the outcome is whether its bytes are those that the record names. A failed verification by its writer,
    by an owner, or by an observer that a policy names counts: nobody may use the version any more, its writer's node
    takes it back, and what was made from it is marked. That of others is held and moves nobody.
    """
    from comity.node.client import VerificationForm
    from comity.node.signing_hand import Hand

    if failed and passed:
        raise ConfigError("--failed or --passed, not both")
    if not (failed or passed or file):
        raise ConfigError("say --failed or --passed, or give the bytes with --file")
    hand = Hand.of(home)
    checks = [_term(code) for code in check or ()]
    if file is not None:
        name, found = _compared(hand.reader(), name, partition, file)
        partition = None
        checks += found
        failed = failed or bool(found)
    form = VerificationForm(name, "failed" if failed else "passed", partition, checks)
    said = hand.operator().verify_version(form)

    def say(out: Console) -> None:
        slot = f"partition {said.partition} of {said.asset}" if said.partition else said.asset
        out.print(f"{said.outcome}: {slot}, {short(said.actuation)}. Verification {said.verification}")
        for each in checks:
            out.print(f"  {each.code}" + (f": {each.message}" if each.message else ""))
        if said.outcome == "failed":
            out.print(
                "  it counts: nobody may use the version, and its writer's node takes it back"
                if said.counts
                else "  it does not count: only the writer, an owner or an observer of the policy may speak against it"
            )

    show(asdict(said), as_json, say)
    if file is not None and failed:
        raise typer.Exit(NEGATIVE)


def _term(code: str) -> TermForm:
    from comity.node.client import TermForm

    return TermForm(code)


def _compared(reader: NodeClient, name: str, partition: str | None, file: Path) -> tuple[str, list[TermForm]]:
    """The version that is meant, by its id, and how a file differs from what its record names."""
    from comity.node.client import TermForm

    digest, size = _digest_of(file)
    found: Any = reader.lineage(name, partition)
    if "partitions" in found:
        raise ConfigError(
            f"{found['asset']} has {len(found['partitions'])} partitions: name one with --partition"
        )
    made = next(each for each in found["actuations"] if each["actuation"] == found["target"])
    if (made["digest"], made["size"]) == (digest, size):
        return found["target"], []
    message = f"{file} has {size} bytes with digest {digest[:16]}; made were {made['size']} with {made['digest'][:16]}"
    return found["target"], [TermForm("content_changed", {"asset": made["asset"]}, message=message)]


def _digest_of(file: Path) -> tuple[str, int]:
    """The digest of a file's bytes, and their number. It may be larger than memory."""
    digest, size = hashlib.sha256(), 0
    try:
        with file.open("rb") as opened:
            while data := opened.read(CHUNK_BYTES):
                digest.update(data)
                size += len(data)
    except OSError as exc:
        raise ConfigError(f"{file}: {exc.strerror}") from exc
    return digest.hexdigest(), size


@app.command(
    "list", epilog=examples("comity verification list released", "comity verification list released --json")
)
@reported
def list_said(
    name: NameArgument,
    partition: PartitionOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was said for and against a version: by whom, and whether it counts."""
    from comity.node.signing_hand import Hand

    said: Any = Hand.of(home).reader().said_of_version(name, partition)

    def say(out: Console) -> None:
        slot = f"partition {said['partition']} of {said['asset']}" if said["partition"] else said["asset"]
        out.print(f"{slot}, generation {said['generation']}, {short(said['actuation'])}: {said['state']}")
        table(
            out,
            ("RECORD", "KIND", "MEMBER", "OUTCOME", "WHAT", "AT", "COUNTS"),
            (
                (
                    short(each["record"]),
                    each["kind"],
                    each["member"],
                    each["outcome"],
                    each["claim"] or ", ".join(c["code"] for c in each["checks"]) or "-",
                    when(each["at"]),
                    "withdrawn" if each["withdrawn"] else "yes" if each["counts"] else "no",
                )
                for each in said["said"]
            ),
            "Nothing was said of it.",
        )

    show(said, as_json, say)


@app.command("withdraw", epilog=examples("comity verification withdraw RECORD"))
@reported
def withdraw(
    record: Annotated[
        str,
        typer.Argument(
            metavar="RECORD", help="The verification or observation: its id, or the beginning of it."
        ),
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back what this node said of a version. What follows of it is said no more; what was taken back stays so."""
    from comity.node.client import WithdrawalForm
    from comity.node.signing_hand import Hand

    hand = Hand.of(home)
    found: Any = hand.reader().ids(record)
    if len(found) != 1:
        raise ConfigError(f"{record}: {len(found)} records that are held here have an id that begins so")
    said = hand.operator().withdraw_verification(WithdrawalForm(found[0]["id"]))
    show(
        asdict(said),
        as_json,
        lambda out: out.print(f"Taken back by {said.revocation}; every member learns of it."),
    )
