"""`comity why` and `comity cause`: why something is as it is, what each code means, and who can mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from comity.node.cli_terminal import (
    HomeOption,
    JsonOption,
    examples,
    reported,
    short,
    show,
    when,
)
from comity.node.visible import named, word

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from comity.node.cause_page import CausePage, Family

STANDINGS_OPEN: Final = frozenset({"asking", "deferred", "held"})
_MODES: Final = frozenset({"defer", "execute", "refuse", "restrict", "silent"})
"""What `votes` says of a member; anything else is the code of why it gave none."""

_OF_RULES: Final = frozenset({"rows_by_missing"})
"""Causes of our own that name a policy's rule."""


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.command(
        "why",
        epilog=examples(
            "comity why released",
            "comity why clinic-north.example/orders@2026-01-02",
            "comity why 7d0ad2f4-3f6b-4b1e-9d5c-2f2f6d1f9a10",
            "comity why INTENT --json",
        ),
    )(why)
    root.command("cause", epilog=examples("comity cause owner_silent", "comity cause --json"))(cause)


# Codes


@reported
def cause(
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE", help="A code of a cause, a need, a decline or an error; all without one."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What a code means, who can mend it, and by which command. It needs no node and no network.

    Codes of a policy's own rules are explained by whoever wrote the policy: comity coalition show --full.
    """
    from comity.node.cause_pages import near, pages
    from comity.node.problems import Refused

    if code is None:
        rows = [{"code": each, "families": list(map(_plain, listed))} for each, listed in pages().items()]
        show(rows, as_json, _say_codes)
        return
    listed = pages().get(code, ())
    if not listed:
        close = ", ".join(near(code))
        raise Refused(
            "not_found",
            f"there is no code {code!r:.80} of Comity's own",
            404,
            (f"nearest is {close}; " if close else "")
            + "a code of a policy's rule is in `comity coalition show --full`",
        )
    value = {"code": code, "families": list(map(_plain, listed))}

    def say(out: Console) -> None:
        for page in listed:
            _say_page(out, page)

    show(value, as_json, say)


def _plain(page: CausePage) -> dict[str, Any]:
    return {
        "family": page.family,
        "effect": page.effect,
        "meaning": page.meaning,
        "who": page.who,
        "how": page.how,
        "commands": list(page.commands),
        "related": list(page.related),
    }


def _say_codes(out: Console) -> None:
    from comity.node.cause_page import FAMILIES
    from comity.node.cause_pages import pages

    for family, what in FAMILIES.items():
        out.print(f"{family}: {what}")
        codes = [c for c, listed in pages().items() if any(page.family == family for page in listed)]
        out.print(f"  {', '.join(codes)}")


def _say_page(out: Console, page: CausePage) -> None:
    from comity.node.cause_page import FAMILIES
    from comity.node.cause_pages import example_of

    effect = f"; it {page.effect}" if page.effect in ("refuses", "defers") else ""
    out.print(f"{page.code} ({FAMILIES[page.family]}{effect})")
    out.print(f"  {page.meaning}")
    for line in example_of(page):
        out.print(f"    e.g. {line}" if not line.startswith(" ") else f"         {line}")
    out.print(f"  Who can mend it: {page.who}.")
    out.print(f"  {page.how}")
    for command in page.commands:
        out.print(f"    {command}")
    if page.related:
        out.print(f"  Related: {', '.join(page.related)}")


# Why


@reported
def why(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A run; an asset, with its partition after an @; or the id of an intent, a decision, a vote, a start"
            " or an actuation. Of ids the first six digits suffice.",
        ),
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Why something is as it is: what was wanted, by whom, what was decided by which votes, and what is missing.

    Each cause with its code, what that means, who can mend it, and by which command. Of an asset the decision behind
    its newest actuation, or why there is none; of a run the intent of each step.
    """
    from comity.node.signing_hand import Hand
    from comity.node.why import NAME_BYTES_MAX
    from comity.protocol.errors import ConfigError

    if len(what) > NAME_BYTES_MAX:
        raise ConfigError(f"a name has 1 to {NAME_BYTES_MAX} bytes")
    found: Any = Hand.of(home).reader().why(what)
    value = found | {"codes": {code: list(map(_plain, listed)) for code, listed in _explained(found)}}
    show(value, as_json, lambda out: _say_why(out, found))


def _explained(found: Any) -> Iterable[tuple[str, tuple[CausePage, ...]]]:
    """The codes that stand in an answer, each with what is said of it; a policy's own are not among them."""
    from comity.node.cause_pages import pages

    codes: set[str] = set()
    for each in found["intents"]:
        asked: Any = each["intent"]
        votes: list[Any] = each["decision"]["votes"] if each["decision"] is not None else []
        codes |= {term["code"] for term in (*asked.get("causes", ()), *asked.get("needs", ()))}
        codes |= {vote for vote in asked.get("votes", {}).values() if vote not in _MODES}
        for vote in votes:
            for group in vote["classes"]:
                codes |= {term["code"] for term in (*group["causes"], *group["needs"], *group["obligations"])}
    return [(code, pages()[code]) for code in sorted(codes) if code in pages()]


def _say_why(out: Console, found: Any) -> None:
    if found["what"] == "asset":
        _say_asset(out, found)
    elif found["what"] == "run":
        out.print(f"Run {named(found['name'])}: {_counted(found)} known here.")
    elif found["what"] != "intent":
        out.print(f"{found['what'].replace('_', ' ').capitalize()} {found['name']}: the intent behind it.")
    for each in found["intents"]:
        _say_told(out, each, found)
    if found["intents_more"]:
        out.print(f"{found['intents_more']} older intents of it are not shown.")


def _counted(found: Any) -> str:
    count = len(found["intents"]) + found["intents_more"]
    return "one intent is" if count == 1 else f"{count} intents are"


def _say_asset(out: Console, found: Any) -> None:
    slot = found["name"] + (f"@{found['partition']}" if found["partition"] else "")
    if found["actuation"]:
        out.print(
            f"{slot}: the newest promoted actuation known here is {short(found['actuation'])}, generation"
            f" {found['generation']}."
        )
        return
    out.print(f"{slot}: no promoted actuation is known here.")
    path = found["name"].partition("/")[2]
    own = found["name"].startswith(f"{found['member']}/")
    if not found["governed"]:
        out.print("  No policy in force speaks of it: what writes it is not decided, and makes no lineage.")
    elif not found["intents"] and own:
        out.print("  Nobody has asked to make it. A dry run says what would be decided:")
        out.print(f"    comity intent explain --asset {word(path)}")
    elif not found["intents"]:
        out.print("  Its writer's node holds it, if it was made; it comes here when a step here reads it.")
        out.print("    comity node status")


def _say_told(out: Console, each: Any, found: Any) -> None:
    """One intent: what was wanted, where it stands, why, and what came of it."""
    from comity.node.cli_intent_words import STANDINGS, slots_of

    asked, decided = each["intent"], each["decision"]
    standing = asked["standing"]
    meaning = STANDINGS.get(standing, "")
    out.print(
        f"Intent {short(asked['intent'])} of {asked['member']}: {standing}"
        + (f", {meaning}" if meaning else "")
    )
    wanted = slots_of(asked["assets"])
    step = f", step {named(asked['step'])}" if asked["step"] else ""
    out.print(f"  wanted: {wanted}, for {asked['purpose']}, in {asked['realm']}")
    out.print(f"  by {asked['requester']}, in run {named(asked['run'])}{step}, {when(asked['at'])}")
    if decided is not None:
        _say_decided(out, decided)
    if decided is None or standing in STANDINGS_OPEN:
        _say_open(out, asked)
    _say_work(out, each, found)


def _say_decided(out: Console, decided: Any) -> None:
    """A decision with its votes, and each cause once, with whose vote says it."""
    voters = ", ".join(
        f"{vote['member']} {_lowest(vote)}"
        for vote in sorted(decided["votes"], key=lambda vote: vote["member"])
    )
    count = "one vote" if len(decided["votes"]) == 1 else f"{len(decided['votes'])} votes"
    quorum = f" where {decided['quorum']} decide" if decided["quorum"] else ""
    out.print(
        f"  decided: {decided['outcome']}, {when(decided['t'])}, by {count}{quorum}: {voters or 'not held here'}"
    )
    for output in decided["outputs"]:
        columns = (
            "all columns" if output["all_columns"] else f"columns {', '.join(output['columns']) or 'none'}"
        )
        at = f"@{output['partition']}" if output["partition"] else ""
        out.print(f"    {output['mode']} {output['asset']}{at}: {columns}")
    said: dict[str, tuple[Any, set[str]]] = {}
    for vote in decided["votes"]:
        for group in vote["classes"]:
            for term in group["causes"]:
                key = repr((term["code"], term["rule"], sorted(term["parameters"].items())))
                said.setdefault(key, (term, set()))[1].add(vote["member"])
    for term, members in said.values():
        whose = "" if len(members) == len(decided["votes"]) else f" (said by {', '.join(sorted(members))})"
        _say_term(out, "because", term, whose, ("cause",))
    for obligation in _obligations(decided):
        _say_term(out, "under the obligation:", obligation, "", ("obligation",))


def _obligations(decided: Any) -> list[Any]:
    found: dict[str, Any] = {}
    for output in decided["outputs"]:
        for each in output["obligations"]:
            found.setdefault(repr((each["code"], sorted(each["parameters"].items()))), each)
    return list(found.values())


def _lowest(vote: Any) -> str:
    order = ("refuse", "defer", "restrict", "execute")
    return min((str(group["mode"]) for group in vote["classes"]), key=order.index)


def _say_open(out: Console, asked: Any) -> None:
    """What is not decided: who said what, why, and what is missing."""
    for member, vote in asked.get("votes", {}).items():
        if vote in _MODES:
            out.print(f"  {member}: {vote}")
            continue
        _say_term(out, f"{member} gave no vote:", {"code": vote}, "", ("decline",))
    for term in asked.get("causes", ()):
        _say_term(out, "because", term, "", ("cause", "node"))
    for need in asked.get("needs", ()):
        _say_term(out, "missing:", need, "", ("need", "node"), asked["intent"])


def _say_term(
    out: Console, begins: str, term: Any, whose: str, families: tuple[Family, ...], intent: str = ""
) -> None:
    """A cause or a need with its code, what that means, who can mend it and how."""
    from comity.node.cause_pages import page_for
    from comity.node.forms import TermForm
    from comity.node.sentences import deed_for, spelled

    form = TermForm(term["code"], term.get("parameters", {}), term.get("rule", ""), term.get("message", ""))
    words = spelled(form)
    code = f" [{form.code}]" if form.message else ""
    out.print(f"  {begins} {words}{code}{whose}")
    # A policy's author may give a rule any reason, one of ours among them.
    page = page_for(form.code, *families) if not form.rule or form.code in _OF_RULES else None
    if page is None:
        out.print("      a rule of the policy; its text: comity coalition show --full")
        return
    out.print(f"      {page.meaning}")
    out.print(f"      Mended by {page.who}. {page.how}")
    deed = deed_for(form, intent) if intent else ""
    deeds = (deed,) if deed.startswith("comity ") else page.commands
    for command in deeds:
        out.print(f"        {command}")


def _say_work(out: Console, each: Any, found: Any) -> None:
    """What began and was made under the permit."""
    for row in each["work"]:
        at = f"@{row['partition']}" if row["partition"] else ""
        newest = ", the newest" if row["record"] == found["actuation"] else ""
        if row["kind"] == "start":
            out.print(f"  started: {row['asset']}{at}, attempt {row['attempt']}, {when(row['at'])}")
        else:
            out.print(
                f"  {row['state']}: {row['asset']}{at}, {short(row['record'])}, {when(row['at'])}{newest}"
            )
    decided = each["decision"]
    if decided is None or decided["kind"] != "permit" or each["work"]:
        return
    over = found["now"] >= decided["expires"]
    out.print(
        "  nothing was begun under this permit that is known here"
        + (
            "; it has ended, and the step asks again when it runs"
            if over
            else f"; it holds until {when(decided['expires'])}"
        )
    )
