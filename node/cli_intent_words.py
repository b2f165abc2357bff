"""Intents and decisions in words: what `comity intent`, `decision`, `waiting` and `approve` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from comity.node.cli_terminal import short, when
from comity.node.cli_working import term
from comity.node.visible import named

if TYPE_CHECKING:
    from rich.console import Console

    from comity.node.client import ExplainAnswer

STANDINGS: Final = {
    "seen": "a partner's; whether it is decided is not known here",
    "asking": "the members are being asked",
    "deferred": "something named below is missing",
    "held": "too few members are in reach; it goes on by itself",
    "permitted": "decided; it may be carried out",
    "refused": "decided; it is not carried out",
    "expired": "open for too long, and over",
}
"""What a standing means."""

_MODES: Final = frozenset({"defer", "execute", "refuse", "restrict"})
"""What a vote says; anything else is why there is none."""


def slots_of(rows: Any) -> str:
    """Assets with their partitions, for one cell: `released`, `pooled@2026-01-01,2026-01-02`."""
    words: list[str] = []
    for row in rows:
        keys = [named(each) for each in row["partitions"] if each]
        more = row["items"] - len(row["partitions"])
        listed = ",".join(keys) + (f",... ({more} more)" if more > 0 else "")
        words.append(row["asset"] + (f"@{listed}" if listed else ""))
    return " ".join(words)


def standing_in_list(row: Any) -> str:
    """Where an intent stands; of a partner's undecided one what the own vote on it was."""
    vote = row.get("own_vote", "")
    return f"{row['standing']}, voted {vote}" if row["standing"] == "seen" and vote else str(row["standing"])


def say_explained(out: Console, answer: ExplainAnswer) -> None:
    """A dry run."""
    from comity.node.sentences import spelled

    out.print(f"It would be decided: {answer.outcome}")
    if answer.tier:
        out.print(
            f"  supposing a context of tier {answer.tier}"
            + (", as a governed step measures its own (--tier says another)" if answer.tier == 1 else "")
        )
    for output in answer.outputs:
        columns = "all columns" if output.all_columns else f"columns {', '.join(output.columns) or 'none'}"
        out.print(f"  {output.mode} {_slot(output.asset, output.partition)}: {columns}")
        for obligation in output.obligations:
            out.print(f"    under the obligation: {spelled(obligation)}")
    for cause in answer.causes:
        out.print(f"  because {spelled(cause)}")
    for need in answer.needs:
        out.print(f"  needs {spelled(need)}")
    for lift in answer.lifts:
        out.print("  would be lifted by " + " and ".join(spelled(need) for need in lift))


def _slot(asset: str, partition: str) -> str:
    return f"{asset} partition {named(partition)}" if partition else asset


def say_intent(out: Console, said: Any) -> None:
    """One intent: who asks for what, where it stands, what is missing."""
    meaning = STANDINGS.get(said["standing"], "")
    out.print(
        f"Intent {said['intent']} of {said['member']}: {said['standing']}"
        + (f" ({meaning})" if meaning else "")
    )
    out.print(
        f"  asked at {when(said['at'])} by {said['requester']}, for {said['purpose']}, in {said['realm']}"
    )
    run = said["body"]["run"]
    out.print(
        f"  run {named(run['run'])}, job {named(run['job'])}, step {named(run['step'])}"
        f" of {named(run['orchestrator'])}"
    )
    _say_code(out, said["body"])
    for group in said["body"]["classes"]:
        _say_class(out, group, said)
    for member, vote in said.get("votes", {}).items():
        out.print(f"  {member}: {vote}")
    for cause in said.get("causes", ()):
        out.print(f"  because {term(cause)}")
    for need in said.get("needs", ()):
        out.print(f"  needs {term(need)}")
    for name in ("permit", "refusal"):
        if said.get(name):
            out.print(f"  {name}: {said[name]}")
    out.print(f"  digest of what is asked: {said['digest']}")


def _say_code(out: Console, body: Any) -> None:
    code = body["code"]
    where = f" at {named(code['location'])}" if code.get("location") else ""
    revision = f", revision {named(code['revision'])}" if code.get("revision") else ""
    out.print(f"  code {code['digest']}{where}{revision}")
    out.print(
        f"  under the credential {body['credential']}; open until {when(body['expires'])}, at most"
        f" {body['attempts_max']} attempts"
    )


def _say_class(out: Console, group: Any, said: Any) -> None:
    """One output asset with everything that is asked for it: nothing of it is left out."""
    classed = ", ".join(said["data_classes"].get(group["asset"], ())) or "no data class"
    reversible = ", reversible" if group["reversible"] else ""
    media = f", as {named(group['media_type'])}" if group["media_type"] else ""
    out.print(f"  makes {group['asset']} ({classed}){media}{reversible}")
    for item in group["items"]:
        partition = f"partition {named(item['partition'])}, " if item["partition"] else ""
        before = f" after {short(item['previous'])}" if item.get("previous") else ""
        out.print(f"    {partition}generation {item['generation']}{before}")
        for actuation in item.get("inputs", ()):
            _say_input(out, "      ", actuation, said["inputs"])
    columns = ", ".join(named(each) for each in group["columns"])
    out.print(f"    columns {columns}" if columns else "    no columns are declared")
    for actuation in group["inputs"]:
        _say_input(out, "    ", actuation, said["inputs"])
    if not group["inputs"] and not any(item.get("inputs") for item in group["items"]):
        out.print("    from no governed input")


def _say_input(out: Console, indent: str, actuation: str, inputs: Any) -> None:
    known = inputs.get(actuation, {"held": False})
    if not known["held"]:
        out.print(f"{indent}from {actuation}, which is not held here")
        return
    out.print(
        f"{indent}from {_slot(known['asset'], known['partition'])}, generation {known['generation']}"
        f" ({short(actuation)}): owners {', '.join(known['owners']) or 'unknown'};"
        f" classes {', '.join(known['data_classes']) or 'none'}; tier {known['tier']}"
    )


def say_decision(out: Console, said: Any) -> None:
    """A permit or refusal with its votes."""
    out.print(f"{said['kind'].capitalize()} {said['decision']}: {said['outcome']}")
    out.print(f"  of intent {said['intent']} by {said['requester']}, decided for {when(said['t'])}")
    if said["expires"]:
        out.print(f"  to be started before {when(said['expires'])}")
    for output in said["outputs"]:
        columns = (
            "all columns" if output["all_columns"] else f"columns {', '.join(output['columns']) or 'none'}"
        )
        out.print(f"  {output['mode']} {_slot(output['asset'], output['partition'])}: {columns}")
        for obligation in output["obligations"]:
            out.print(f"    under the obligation: {term(obligation)}")
    for vote in said["votes"]:
        modes = ", ".join(each["mode"] for each in vote["classes"])
        out.print(f"  {vote['member']} votes {modes}")
        for each in vote["classes"]:
            for cause in each["causes"]:
                # A rule that restricts is no reason for a refusal: without the refusal it would still restrict.
                why = f"moreover restricted, by {term(cause)}" if _only_restricts(each, cause) else ""
                out.print("    " + (why or f"because {term(cause)}"))


def _only_restricts(judged: Any, cause: Any) -> bool:
    return judged["mode"] in ("refuse", "defer") and cause.get("mode") == "restrict"


def say_waiting(out: Console, rows: Any, member: str) -> None:
    """What waits: the own intents, and partners' for which somebody here is asked.

    Args:
        member: the own organization.
    """
    if not rows:
        out.print("Nothing waits.")
    for each in rows:
        whose = "" if each["member"] == member else f"  of {each['member']}, for your people's approval"
        out.print(
            f"{each['intent']}  {standing_in_list(each)}  {slots_of(each['assets'])}"
            f"  (since {when(each['at'])}){whose}"
        )
        for cause in each["causes"]:
            out.print(f"  because {term(cause)}")
        silent = [name for name, vote in each["votes"].items() if vote == "silent"]
        if silent and each["member"] == member:
            out.print(f"  silent: {', '.join(silent)}")
        without = [f"{n} ({v})" for n, v in each["votes"].items() if v not in _MODES and v != "silent"]
        if without and each["member"] == member:
            out.print(f"  gave no vote: {', '.join(without)}")
        for need in each["needs"]:
            out.print(f"  needs {term(need)}")
            if need["deed"]:
                out.print(f"    {need['deed']}")
        if each["goes_on_by_itself"]:
            out.print("  goes on by itself")
