"""What the page shows: the views of the local API with what each code means beside them. Functions of the core."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, cast

from comity.node import views
from comity.node.cause_pages import pages
from comity.node.cli_intent_words import STANDINGS
from comity.node.core import Core
from comity.node.entitlements import entitlements
from comity.node.problems import Refused
from comity.node.standings import newest_decision
from comity.node.why import why
from comity.protocol.execution import Intent, Permit, Refusal
from comity.protocol.verified import VerifiedRecord

Json: TypeAlias = Any

DECIDED_MAX: Final = 50
"""Decisions of one listing of the page: what a person looks through."""
_FAMILIES: Final = frozenset({"cause", "need", "obligation", "decline", "node"})
"""Families whose codes stand in what the page shows."""


def waiting(core: Core, public: str) -> Json:
    """What waits, with what each code means; of what waits for an approval whether that of a key would help.

    Args:
        public: the person's public key; empty where the browser has none.

    Raises:
        Refused: `form_invalid`.
    """
    rows: list[Any] = views.waiting(core)
    for row in rows:
        record = core.holdings.get(bytes.fromhex(row["intent"]))
        wanted = _classes_wanted(row["needs"])
        if public and wanted and record is not None:
            found = entitlements(core, record, public, wanted)
            row["may"] = any(each["may"] for each in found)
            row["why"] = "" if row["may"] or not found else found[0]["why"]
    return {"rows": rows, "codes": codes_in(rows), "standings": STANDINGS} | _here(core)


def decided(core: Core) -> Json:
    """The newest decisions."""
    return {"rows": views.decisions(core)[:DECIDED_MAX]} | _here(core)


def told(core: Core, name: str) -> Json:
    """Why a run, an asset or anything with an id is as it is; as `comity why` says it.

    Raises:
        Refused: as `why`.
    """
    found = why(core, name)
    return found | {"codes": codes_in(found), "standings": STANDINGS} | _here(core)


def votes_missing(core: Core, name: str) -> tuple[bytes, ...]:
    """The votes, of the decision that an id names or that is the newest on an intent, that are not held here."""
    try:
        named = core.holdings.get(bytes.fromhex(name))
    except ValueError:
        return ()
    if named is not None and isinstance(named.body, Intent):
        named = newest_decision(core, named)
    if named is None or not isinstance(named.body, Permit | Refusal):
        return ()
    held = core.store.holds(named.body.votes)
    return tuple(vote for vote in named.body.votes if vote not in held)


def intent(core: Core, intent_id: bytes, public: str) -> Json:
    """One intent for whoever may approve it.

    Its record as it was signed, what the node knows beside it, and whether a key's approval would help.

    Args:
        public: the person's public key; empty where the browser has none.

    Raises:
        Refused: `not_found`, `form_invalid`.
    """
    shown = views.intent(core, intent_id)
    record = core.holdings.get(intent_id)
    if record is None or not isinstance(record.body, Intent):
        raise Refused("not_found", f"no intent {intent_id.hex()[:16]} is held here", 404)
    asked = cast("VerifiedRecord[Intent]", record)
    # What was given and holds no more is wanted again, also before anybody has asked again and been told so.
    ended = (row for row in shown["approvals"] if row["state"] in ("withdrawn", "expired"))
    wanted = _classes_wanted(shown.get("needs", ())).union(*(row["classes"] for row in ended))
    return (
        shown
        | {
            "record": base64.b64encode(record.record.encoded()).decode(),
            "wanted": sorted(wanted),
            "entitlements": entitlements(core, asked, public, wanted) if public else [],
            "codes": codes_in(shown),
            "standings": STANDINGS,
        }
        | _here(core)
    )


def _classes_wanted(needs: Iterable[Any]) -> frozenset[str]:
    return frozenset(str(need["parameters"].get("class")) for need in needs if need["code"] == "approval")


def _here(core: Core) -> dict[str, Any]:
    return {"member": core.identity.member, "now": core.clock.now()}


def codes_in(value: Any) -> dict[str, Json]:
    """What is said of each code of Comity's own that stands in a view, once for each family that has it."""
    found = {code for code in _codes(value) if code in pages()}
    return {
        code: [
            {
                "family": page.family,
                "meaning": page.meaning,
                "who": page.who,
                "how": page.how,
                "commands": list(page.commands),
            }
            for page in pages()[code]
            if page.family in _FAMILIES
        ]
        for code in sorted(found)
    }


def _codes(value: Any) -> Iterable[str]:
    """Every code of a view: of causes, needs and obligations, and of why a member gave no vote."""
    if isinstance(value, Mapping):
        held = cast("Mapping[str, Any]", value)
        if isinstance(held.get("code"), str):
            yield held["code"]
        if isinstance(held.get("votes"), Mapping):
            yield from (word for word in held["votes"].values() if isinstance(word, str))
        for each in held.values():
            yield from _codes(each)
    elif isinstance(value, list | tuple):
        for each in cast("list[Any]", value):
            yield from _codes(each)
