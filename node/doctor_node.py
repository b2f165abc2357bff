"""The doctor's look at the running node: whether it answers, whom it reaches, and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from comity.attestation.toml_text import date_of
from comity.node.client import NodeClient, NodeError, NodeNotRunningError
from comity.node.coalitions import DAY_S
from comity.node.doctor_findings import Check, Examination, Finding, not_tried, ok
from comity.node.doctor_machine import newest_epoch
from comity.protocol.errors import ConfigError

TIMEOUT_S: Final = 10.0
"""A node that needs longer for its state is too busy to be of use."""
CREDENTIAL_DAYS_MIN: Final = 14
"""With less left a credential is warned of: time to issue the next, also over a holiday."""
LISTED_MAX: Final = 5
"""Credentials that are named one by one."""
_ROUTES: Final[dict[str, Callable[[NodeClient], Any]]] = {
    "status": NodeClient.status,
    "coalition": NodeClient.coalition,
    "credentials": NodeClient.credentials,
    "waiting": NodeClient.waiting,
    "owner_policies": NodeClient.owner_policies,
}
_DOWN: Final = "it needs a running node"


def answering(examined: Examination) -> Iterator[Finding]:
    """The node answers on its socket."""
    start = f"comity node start --home {examined.home.word}"
    try:
        client = NodeClient.of_home(examined.home.path, "reader", TIMEOUT_S)
        for name, ask in _ROUTES.items():
            examined.answers[name] = ask(client)
    except NodeNotRunningError:
        left = examined.home.socket.exists()
        said = "no node runs here" + (
            "; the socket of one that was ended is removed at the next start" if left else ""
        )
        yield Finding("node", "warning", said, command=start)
        return
    except NodeError as exc:
        yield Finding("node", "wrong", f"{exc.message} [{exc.code}]", command=f"comity cause {exc.code}")
        return
    except ConfigError as exc:
        yield Finding("node", "wrong", str(exc), command=start)
        return
    said = examined.answers["status"]
    if not said["governance_complete"]:
        what = "it runs, and taxonomy or policies of the epoch have not arrived: nothing can be judged"
        yield Finding("node", "warning", what, command="comity node status --until quorum")
    elif not said["votes"]:
        what = "it runs, and does not vote yet: it goes through the records of other members first"
        yield Finding("node", "warning", what, command="comity node status --until quorum")
    else:
        yield ok("node", f"it runs since {date_of(said['started'])}, and votes")


def epoch(examined: Examination) -> Iterator[Finding]:
    """The coalition file is not older than what the node decides by."""
    file = examined.file
    if file is None or file.coalition is None:
        yield not_tried("epoch", "it needs a founded coalition")
        return
    newest = file.epochs[-1]
    number = len(file.epochs) - 1
    join = f"comity coalition join FILE --home {examined.home.word}"
    if examined.runs:
        said = examined.answers["status"]
        held, held_id = int(said["epoch"]), str(examined.answers["coalition"]["epoch_id"])
        if said["coalition"] != file.coalition.hex():
            yield Finding("epoch", "wrong", "the node runs in another coalition than the file", command=join)
            return
    else:
        path = examined.store
        found = newest_epoch(path, file.coalition) if path is not None and path.exists() else None
        if found is None:
            yield not_tried("epoch", "the store holds none yet, or cannot be read")
            return
        held, held_id = found[0], found[1].hex()
    if held == number and held_id != newest.id.hex():
        said = f"file and node know two different epochs {number}: one of them was tampered with"
        yield Finding("epoch", "wrong", said, command="comity coalition show --full")
    elif held < number:
        yield Finding(
            "epoch",
            "warning",
            f"the file is at epoch {number}, the node at {held}: it takes the newer one when it starts",
            command=f"comity node start --home {examined.home.word}",
        )
    elif held > number:
        said = f"the node is at epoch {held}, the file at {number}: the node writes it when it runs"
        yield Finding("epoch", "warning", said, command=f"comity node start --home {examined.home.word}")
    else:
        yield ok("epoch", f"file and {'node' if examined.runs else 'store'} are at epoch {number}")


def peers(examined: Examination) -> Iterator[Finding]:
    """Each other member: in reach or not, since when, and where it is dialled."""
    if not examined.runs:
        yield not_tried("peer", _DOWN)
        return
    addresses = {
        member["member"]: [address for node in member["nodes"] for address in node["addresses"]]
        for member in examined.answers["coalition"]["members"]
    }
    for member in examined.answers["status"]["members"]:
        if member["self"]:
            continue
        name, since = member["member"], member["since"]
        if member["connected"]:
            yield ok("peer", f"in reach since {date_of(since)}", name)
            continue
        when = f"not in reach since {date_of(since)}" if since else "not in reach since this node began"
        dialled = addresses.get(name, [])
        where = f"; it is dialled at {', '.join(dialled)}" if dialled else "; no address of it is known here"
        yield Finding("peer", "warning", when + where, name, "comity node status")


def quorum(examined: Examination) -> Iterator[Finding]:
    """So many members are in reach that something can be decided."""
    if not examined.runs:
        yield not_tried("quorum", _DOWN)
        return
    said = examined.answers["status"]
    counted = (
        f"{said['reachable']} of {len(said['members'])} members are in reach, and {said['quorum']} decide"
    )
    if said["quorum_reachable"]:
        yield ok("quorum", counted)
    else:
        yield Finding(
            "quorum",
            "wrong",
            f"{counted}: nothing can be decided",
            command="comity node status --until quorum",
        )


def credentials(examined: Examination) -> Iterator[Finding]:
    """The organization's credentials that end soon, and that there is one for automation."""
    if not examined.runs:
        yield not_tried("credentials", _DOWN)
        return
    member, now = examined.answers["status"]["member"], examined.clock.now()
    held = [
        row
        for row in examined.answers["credentials"]
        if row["member"] == member and row["state"] == "in force"
    ]
    # Who has a newer one of the same sort needs no word about the older.
    newest: dict[tuple[str, str], Any] = {}
    for row in sorted(held, key=lambda row: row["not_after"]):
        newest[row["subject"], row["subject_kind"]] = row
    ending = [row for row in newest.values() if row["not_after"] < now + CREDENTIAL_DAYS_MIN * DAY_S]
    for row in ending[:LISTED_MAX]:
        options = (
            "--kind automation --node-key"
            if row["subject_kind"] == "automation"
            else f"--kind {row['subject_kind']}"
        )
        yield Finding(
            "credentials",
            "warning",
            f"the credential for {row['subject_kind']} ends on {date_of(row['not_after'])}",
            row["subject"],
            f"comity credential issue {options} --subject {row['subject']} --class CLASS"
            f" --previous {row['credential']}",
        )
    if len(ending) > LISTED_MAX:
        said = f"{len(ending) - LISTED_MAX} more end within {CREDENTIAL_DAYS_MIN} days"
        yield Finding("credentials", "warning", said, command="comity credential list")
    unknown = sorted({name for row in newest.values() for name in row["classes_unknown"]})
    if unknown:
        said = f"the taxonomy in force does not have {', '.join(unknown)}: whatever rests on that is refused"
        yield Finding("credentials", "warning", said, command="comity coalition show")
    if not any(row["subject_kind"] == "automation" for row in newest.values()):
        yield Finding(
            "credentials",
            "warning",
            "there is none for automation: runs without a launch ticket cannot be decided",
            command="comity credential issue --kind automation --node-key --subject SUBJECT --class CLASS",
        )
    elif not ending and not unknown:
        yield ok(
            "credentials", f"{len(newest)} in force, none of which ends within {CREDENTIAL_DAYS_MIN} days"
        )


def owner_policy(examined: Examination) -> Iterator[Finding]:
    """The own owner policy names data classes that there are, and its standing consents hold."""
    if not examined.runs:
        yield not_tried("owner_policy", _DOWN)
        return
    member, now = examined.answers["status"]["member"], examined.clock.now()
    publish = "comity owner-policy publish --consent CONSENT"
    own = next((row for row in examined.answers["owner_policies"] if row["member"] == member), None)
    if own is None:
        yield ok("owner_policy", "there is none: this organization is asked by its vote each time")
        return
    found = False
    if own["classes_unknown"]:
        found = True
        said = f"it speaks of {', '.join(own['classes_unknown'])}, and no policy in force gives an asset that class"
        yield Finding("owner_policy", "warning", said, command=publish)
    for consent in own["consents"]:
        if consent["mode"] == "standing" and consent["until"] < now + CREDENTIAL_DAYS_MIN * DAY_S:
            found = True
            ends = "ended" if consent["until"] <= now else "ends"
            said = f"the standing consent for {consent['data_class']} {ends} on {date_of(consent['until'])}"
            yield Finding(
                "owner_policy", "warning", f"{said}: from then its vote is asked for", command=publish
            )
    if not found:
        yield ok("owner_policy", f"{len(own['consents'])} consents, all of classes that there are")


CHECKS: Final[tuple[Check, ...]] = (epoch, peers, quorum, credentials, owner_policy)
