"""Texts of records, made safe to look at.

A partition, a step or a reason is whatever its author wrote: on a terminal it could move the cursor, turn the
direction of reading, or begin a line that looks like one of ours.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any, Final

_IGNORABLE: Final = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
)
"""Letters and marks that are drawn as nothing: the code points of Unicode's property Default_Ignorable_Code_Point
(DerivedCoreProperties.txt, Unicode 17; UAX 44 says what it means, UAX 31 that names had better not hold them) which
`str.isprintable` takes for visible. Fillers of Hangul, inherent vowels of Khmer, joiners and variation selectors; all
others of the property are of the categories that it does not."""
_BLANK: Final = "\u2800\U00013441\U00013442\U00016fe4\U0001d159"
"""Signs that are not of that property and whose glyph is empty by their name in UnicodeData.txt: Braille pattern blank,
full and half blank of Egyptian hieroglyphs, filler of Khitan small script, null notehead."""
_UNSEEN: Final = re.compile(f"[{_IGNORABLE}{_BLANK}]")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@+=~-]+")
_SPACES: Final = re.compile(r"  +")


def visible(text: str) -> str:
    r"""The text with every character that cannot be seen as an escape: `\x1b`, `\n`, `\u202e`.

    Those are Unicode's control, format, private, unassigned and surrogate characters, every separator but the space,
    and letters, marks and signs that are drawn as nothing. What is visible already stays as it is.
    """
    if is_visible(text):
        return text
    return "".join(each if is_visible(each) else _escaped(each) for each in text)


def is_visible(text: str) -> bool:
    """Whether every character can be seen, or is the space."""
    return text.isprintable() and _UNSEEN.search(text) is None


def visible_word(text: str) -> str:
    """A free text within a line: as `visible`, and blanks in a row as escapes, or it could fill a line with them."""
    return _SPACES.sub(lambda found: r"\x20" * len(found.group()), visible(text))


def named(text: str) -> str:
    """A free text among others: as it is where it is one plain word, else in quotes, so that its end is seen."""
    if _PLAIN.fullmatch(text):
        return text
    shown = visible_word(text).replace('"', '\\"')
    return f'"{shown}"'


def word(text: object) -> str:
    """A path or name as one word of a command that people are shown, for a shell of POSIX."""
    return shlex.quote(str(text))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def json_line(value: Any, *, indent: int | None = None) -> str:
    """JSON that is safe to look at, too: what cannot be seen is escaped as JSON does it."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=False, indent=indent)
    if indent is None and is_visible(text):
        return text
    return "\n".join(
        "".join(each if is_visible(each) else json.dumps(each)[1:-1] for each in line)
        for line in text.split("\n")
    )
