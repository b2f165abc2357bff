"""Every stable code with what is said of it: found by code, and by what is near to a code that is none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Final

from comity.node import (
    cause_texts_asking,
    cause_texts_bridge,
    cause_texts_data,
    cause_texts_local,
    cause_texts_nodes,
    cause_texts_votes,
)
from comity.node.cause_page import FAMILIES, CausePage, Family
from comity.node.forms import TermForm
from comity.node.sentences import cause_sentence, deed_for, need_sentence, spelled

_TEXTS: Final = (
    cause_texts_asking,
    cause_texts_data,
    cause_texts_votes,
    cause_texts_nodes,
    cause_texts_local,
    cause_texts_bridge,
)
NEAR_MAX: Final = 3
"""Codes that are offered in the place of one that there is not."""


@cache
def pages() -> Mapping[str, tuple[CausePage, ...]]:
    """Code to what is said of it, once for each family that has it, in the order of the families."""
    order = list(FAMILIES)
    found: dict[str, list[CausePage]] = {}
    for module in _TEXTS:
        for page in module.PAGES:
            found.setdefault(page.code, []).append(page)
    return {
        code: tuple(sorted(listed, key=lambda page: order.index(page.family)))
        for code, listed in sorted(found.items())
    }


def page_for(code: str, *families: Family) -> CausePage | None:
    """What is said of a code, in the first of these families that has it; None where it is a policy's own."""
    listed = pages().get(code, ())
    for family in families or tuple(FAMILIES):
        for page in listed:
            if page.family == family:
                return page
    return None


def near(code: str) -> tuple[str, ...]:
    """Codes that are written almost so, or that contain what was given."""
    within = [each for each in pages() if code and code in each]
    close = difflib.get_close_matches(code, list(pages()), n=NEAR_MAX)
    return tuple(dict.fromkeys([*close, *within]))[:NEAR_MAX]


def example_of(page: CausePage) -> tuple[str, ...]:
    """The lines by which the commands show a cause or a need of this code; none for other families."""
    parameters = dict(page.example)
    if page.family == "cause":
        return (
            f"because {spelled(TermForm(page.code, parameters, message=cause_sentence(page.code, parameters)))}",
        )
    if page.family == "need":
        term = TermForm(page.code, parameters, message=need_sentence(page.code, parameters))
        deed = deed_for(term, "INTENT")
        return (f"needs {spelled(term)}", *((f"  {deed}",) if deed else ()))
    return ()
