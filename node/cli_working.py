"""How votes came about, in words: what `comity decision show --working` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comity.node.cli_terminal import short, when

if TYPE_CHECKING:
    from rich.console import Console

_RECOGNISED = {
    2: "recognised by reference values",
    0: "compared with no reference values, for nobody publishes any",
    33: "not recognised",
}


def term(said: Any) -> str:
    """A cause, a need or an obligation of an answer, for people."""
    from comity.node.forms import TermForm
    from comity.node.sentences import spelled

    return spelled(TermForm(said["code"], said["parameters"], said["rule"], said["message"]))


def say_workings(out: Console, said: Any) -> None:
    """The workings of a round of votes."""
    for vote in said["votes_missing"]:
        out.print(f"The vote {short(vote)} is named by the decision and not held here.")
    for working in said["workings"]:
        _say_working(out, working)


def _say_working(out: Console, said: Any) -> None:
    names = ", ".join(vote["member"] for vote in said["votes"])
    out.print(f"Working of {names}, judged again here from what the votes rest on")
    if not said["computed"]:
        problem = said["problem"]
        out.print(f"  cannot be judged again: {problem['message'] or problem['code']} [{problem['code']}]")
        for gone in said["missing"]:
            why = "was erased here" if gone["why"] == "erased" else "is not held here, nor by who is in reach"
            out.print(f"    record {short(gone['record'])} {why}")
        return
    for vote in said["votes"]:
        same = "equal to the signed vote to the byte"
        other = f"DIFFERS from the signed vote in {', '.join(vote['differs'])}"
        if "engine" in vote["differs"]:
            other += f": it was judged by engine {short(vote['engine'])}, here is {short(said['engine'])}"
        out.print(f"  {vote['member']}: {same if vote['equal'] else other}")
    out.print(f"  asked for {when(said['t'])} under epoch {said['epoch']}, on {said['relied']} records")
    _say_authority(out, said["authority"])
    _say_evidence(out, said["evidence"])
    for each in said["approvals"]:
        counts = f"counts as {', '.join(each['classes'])}" if each["counts"] else f"no: {each['because']}"
        out.print(f"  approval {short(each['approval'])} of {each['member']}: {counts}")
    if not said["approvals"]:
        out.print("  approvals: none")
    _say_adverse(out, said["adverse"])
    for each in said["classes"]:
        _say_class(out, each)


def _say_authority(out: Console, said: Any) -> None:
    for level, link in enumerate(said["credentials"]):
        role = "credential" if level == 0 else "under credential"
        held = f"{link['subject']} ({link['kind']}: {', '.join(link['classes'])})"
        struck = f", {link['struck']}" if link["struck"] else ""
        out.print(f"  {role} {short(link['credential'])}: {held}, until {when(link['not_after'])}{struck}")
    ticket = said["ticket"]
    if ticket is not None:
        out.print(f"  launch ticket {short(ticket['ticket'])}, until {when(ticket['not_after'])}")
    if said["problem"] is not None:
        out.print(f"  {said['problem']['mode']}, because {term(said['problem'])}")


def _say_evidence(out: Console, said: Any) -> None:
    for each in said["attestations"]:
        out.print(
            f"  evidence {short(each['attestation'])} of {each['member']}: {each['type']}, Python {each['python']},"
            f" {each['distributions_count']} distributions ({short(each['distributions'])}),"
            f" {each['code_files']} files of code ({short(each['code'])})"
        )
    found = _RECOGNISED.get(said["executables"], str(said["executables"]))
    appraised = (
        f"; context {found}; freshness {said['freshness']}" if said["attestations"] else ": no evidence"
    )
    out.print(f"  tier {said['tier']}{appraised}")
    if said["problem"] is not None:
        out.print(f"  {said['problem']['mode']}, because {term(said['problem'])}")


def _say_adverse(out: Console, said: Any) -> None:
    for each in said["records"]:
        what = f"{each['kind']} {each['outcome']}".rstrip()
        about = ", ".join(short(subject) for subject in each["about"])
        out.print(f"  against it: {what} {short(each['record'])} of {each['member']}, about {about}")
    for each in said["struck"]:
        out.print(f"    counts no more: {short(each['record'])} ({each['because']})")
    if said["more_than_named"]:
        out.print("    more counts against it than a vote can name")
    if not said["records"] and not said["struck"]:
        out.print("  against it: nothing")


def _say_class(out: Console, said: Any) -> None:
    items = "1 item" if said["items"] == 1 else f"{said['items']} items"
    out.print(f"  {said['asset']} ({items}): {_outcome(said['outcome'])}")
    if "without_adverse" in said:
        out.print(f"    without what speaks against it: {_outcome(said['without_adverse'])}")
    for cause in said["outcome"]["causes"]:
        if not cause["rule"]:
            # What rules say stands with their policy, below.
            out.print(f"    because {term(cause)}")
    for need in said["outcome"]["needs"]:
        out.print(f"    needs {term(need)}")
    weight = said["weight"]
    terms = ", ".join(f"{t['code']} {t['source']} {t['ppm']}" for t in weight["terms"])
    out.print(f"    weight {weight['ppm']} ppm, at least {said['weight_min']} wanted: {terms or 'no terms'}")
    for each in said["policies"]:
        whose = "" if each["of"] == "epoch" else f" of owner {each['of']}"
        fired = f"; rules {', '.join(each['rules'])}" if each["rules"] else "; no rule speaks against it"
        out.print(f"    policy {each['name']} ({short(each['digest'])}){whose}: {_outcome(each)}{fired}")
        for cause in each["causes"]:
            out.print(f"      because {term(cause)}")
        for obligation in each["obligations"]:
            out.print(f"      under the obligation: {term(obligation)}")
    for each in said["inputs"]:
        _say_input(out, each)
    for each in said["transitions"]:
        what = (
            "releases its say over it"
            if each["type"] == "release"
            else f"lets trust fall to tier {each['tier_to']}"
        )
        out.print(f"    transition {short(each['transition'])}: {each['member']} {what}")
    if said["live"]:
        out.print(f"    consent is live: a permit needs the votes of {', '.join(said['live'])}")
    state = said["state"]
    out.print(
        f"    then governed by: owners {', '.join(state['owners'])}; tier {state['tier']}; realm {state['realm']};"
        f" classes {', '.join(state['data_classes']) or 'none'}"
    )


def _outcome(said: Any) -> str:
    """A mode, with the columns that are left where not all are."""
    if said["mode"] != "restrict":
        return str(said["mode"])
    return f"restrict, to {', '.join(said['columns']) or 'rows'}"


def _say_input(out: Console, said: Any) -> None:
    if said["problem"] is not None:
        out.print(f"    input {short(said['actuation'])}: {said['problem']['mode']}, {term(said['problem'])}")
        return
    state = said["state"]
    slot = f"{said['asset']} {said['partition']}".rstrip()
    out.print(
        f"    input {slot}, generation {said['generation']} ({short(said['actuation'])}): lineage verified;"
        f" owners {', '.join(state['owners'])}; tier {state['tier']}; weight {state['weight']} ppm"
    )
