"""Texts of records, made safe to look at.

A partition, a step or a reason is whatever its author wrote: on a terminal it could move the cursor, turn the
direction of reading, or begin a line that looks like one of ours.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@+=~-]+")
_SPACES: Final = re.compile(r"  +")


def visible(text: str) -> str:
    r"""The text with every character that cannot be seen as an escape: `\x1b`, `\n`, `\u202e`.

    Those are Unicode's control, format, private, unassigned and surrogate characters, and every separator but the
    space. What is visible already stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def visible_word(text: str) -> str:
    """A free text within a line: as `visible`, and blanks in a row as escapes, or it could fill a line with them."""
    return _SPACES.sub(lambda found: r"\x20" * len(found.group()), visible(text))


def named(text: str) -> str:
    """A free text among others: as it is where it is one plain word, else in quotes, so that its end is seen."""
    if _PLAIN.fullmatch(text):
        return text
    shown = visible_word(text).replace('"', '\\"')
    return f'"{shown}"'


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def json_line(value: Any, *, indent: int | None = None) -> str:
    """JSON that is safe to look at, too: what cannot be seen is escaped as JSON does it."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=False, indent=indent)
    if indent is None and text.isprintable():
        return text
    return "\n".join(
        "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in line)
        for line in text.split("\n")
    )
