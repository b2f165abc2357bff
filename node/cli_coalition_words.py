"""What a coalition file says, in words: members, rules, classification, and what a draft would change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from comity.node.cli_terminal import table, when
from comity.node.visible import named

if TYPE_CHECKING:
    from rich.console import Console

ENGINE_DIGITS: Final = 16
_NO_NODE: Final[Mapping[str, Any]] = {"node": "-", "certified": False, "addresses": ()}
_MARKS: Final[Mapping[str, str]] = {"added": "+", "removed": "-", "changed": "~"}
_WORDS: Final[Mapping[str, str]] = {
    "weight_min": "least weight",
    "class": "class of authority",
    "rules": "text of the rules",
}


def say_standing(out: Console, said: Any) -> None:
    """Who belongs and who has signed."""
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
            for node in member["nodes"] or (_NO_NODE,)
        ),
        "No members yet.",
    )
    out.print(f"Policies: {', '.join(said['policies']) or 'none'}. Signed from {when(said['started'])}.")
    if said["unsigned"]:
        out.print(f"Waits for the signature of {', '.join(said['unsigned'])}: comity coalition sign FILE")
    # Whoever has still to sign certifies its node by that.
    alone = [
        node["node"]
        for member in said["members"]
        for node in member["nodes"]
        if member["signed"] and not node["certified"]
    ]
    if alone:
        out.print(f"Without a certificate: {', '.join(alone)}; its organization signs the file again.")
    if said["missing"]:
        out.print(f"The file lacks {', '.join(said['missing'])}.")
    if said["complete"]:
        out.print("It is complete: everyone can join with it (comity coalition join FILE).")
    if said["fingerprint"] and said["state"] == "founded":
        out.print(f"Fingerprint of its roots, to compare by another road: {said['fingerprint']}")


def say_warnings(out: Console, warnings: Sequence[Any]) -> None:
    """What is allowed and was perhaps not meant."""
    for each in warnings:
        where = f"{each['file']}:{each['line']}:{each['column']}: " if each["line"] else f"{each['file']}: "
        hint = f" ({each['hint']})" if each["hint"] else ""
        out.print(f"{where}warning: {each['message']} [{each['code']}]{hint}")


# Rules and classification


def say_governance(out: Console, said: Any, *, full: bool = False) -> None:
    """By which rules an epoch decides. `full` adds the text of the rules."""
    out.print(f"Rules of epoch {said['epoch']}")
    out.print(f"  {said['n']} members, {said['f']} faults tolerated, a quorum is {said['quorum']}")
    out.print(f"  Publishers of reference values: {', '.join(said['publishers']) or 'none'}")
    out.print(f"  Engines: {', '.join(engine[:ENGINE_DIGITS] for engine in said['engines'])}")
    if not said["engine_accepted"]:
        out.print("    This version judges by another engine: votes of a node that runs it do not count.")
    for missing in said["missing"]:
        out.print(f"  The file lacks {missing}: what it says cannot be seen here.")
    table(
        out,
        ("  CLASS OF AUTHORITY", "WEIGHT (ppm)", "WITHIN", "ISSUED BY"),
        (
            (f"  {c['name']}", c["weight"], c["within"] or "-", ", ".join(c["issuers"]) or "all members")
            for c in said["classes"]
        ),
        "  No classes of authority.",
    )
    for policy in said["policies"]:
        _say_policy(out, policy, full=full)


def _say_policy(out: Console, policy: Any, *, full: bool) -> None:
    out.print("")
    observers = f"; observers {', '.join(policy['observers'])}" if policy["observers"] else ""
    out.print(f"Policy {policy['name']}: an intent weighs at least {policy['weight_min']} ppm{observers}")
    table(
        out,
        ("  RULE", "MODE", "ON", "REASON", "ASKS FOR"),
        (
            (
                f"  {rule['id']}",
                rule["mode"],
                ", ".join(rule["actions"]),
                rule["reason"] or ("always" if rule["always"] else "-"),
                "; ".join((*rule["needs"], *rule["obliges"])) or "-",
            )
            for rule in policy["rules"]
        ),
        "  No rules: everything is refused.",
    )
    for problem in policy["problems"]:
        out.print(f"  Does not compile: {problem}")
    table(
        out,
        ("  ASSETS", "DATA CLASS", "ROWS BY", "COLUMNS"),
        (
            (f"  {a['pattern']}", a["data_class"], a["rows_by"] or "-", _columns(a["columns"]))
            for a in policy["assets"]
        ),
        "  No assets: it governs nothing.",
    )
    table(
        out,
        ("  PURPOSE", "COLUMNS NEEDED", "WAYS"),
        (
            (
                f"  {p['name']}",
                ", ".join(map(named, p["columns"])) or "-",
                ", ".join(map(named, p["ways"])) or "staged",
            )
            for p in policy["purposes"]
        ),
        "  No purposes.",
    )
    if full:
        out.print(f"  Text of the rules of {policy['name']}:")
        for line in policy["text"].splitlines():
            out.print(f"    {line}")


def _columns(columns: Sequence[Any]) -> str:
    return ", ".join(f"{named(column['name'])}: {column['class']}" for column in columns) or "-"


# What a draft changes


def say_changes(out: Console, changes: Sequence[Any], before: int) -> None:
    """What a draft changes in the epoch before it: every rule with its old and its new text."""
    if not changes:
        out.print(f"Nothing changes against epoch {before} but the signatures.")
        return
    out.print(f"Changes against epoch {before}: + added, - removed, ~ changed")
    for each in changes:
        what = f"{_WORDS.get(each['what'], each['what'])} {each['name']}".rstrip()
        note = f" ({each['note']})" if "note" in each else ""
        out.print(f"  {_MARKS[each['change']]} {what}{note}")
        for mark, value in (("-", each["before"]), ("+", each["after"])):
            for line in _lines(each["what"], value):
                out.print(f"      {mark} {line}")


def _lines(what: str, value: Any) -> list[str]:
    """A value before or after, a line for each part."""
    if value in ("", None):
        return []
    written = _WRITTEN.get(what)
    if written is not None:
        return [written(value)]
    if isinstance(value, str):
        return value.splitlines()
    if isinstance(value, list):
        listed: list[Any] = [*value]
        return [", ".join(map(str, listed)) or "none"]
    return [str(value)]


_WRITTEN: Final[Mapping[str, Callable[[Any], str]]] = {
    "asset": lambda a: (
        f"data class {a['data_class']}; rows by {a['rows_by'] or '-'}; columns {_columns(a['columns'])}"
    ),
    "class": lambda c: (
        f"weight {c['weight']} ppm; within {c['within'] or '-'}; issued by"
        f" {', '.join(c['issuers']) or 'all members'}"
    ),
    "engines": lambda value: ", ".join(engine[:ENGINE_DIGITS] for engine in value),
    "member": lambda m: f"writes {', '.join(m['namespaces'])}; keys {', '.join(m['keys'])}",
    "purpose": lambda p: f"columns {', '.join(map(named, p['columns'])) or '-'}",
    "weight_min": lambda value: f"{value} ppm",
}
