"""What a page has people type: its console blocks, in their order, with the lines of output that it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK = re.compile(r"^```(console|python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"(?P<who>[a-z-]*)\$ (?P<command>.+)")
_NAMED = re.compile(r"[Aa]s `([^`]+)`:\s*\Z")


@dataclass(frozen=True)
class Typed:
    """A command, who types it, and lines that its output has among others, in this order."""

    who: str
    command: str
    shown: tuple[str, ...] = ()

    def require_shown(self, output: str) -> None:
        """Check that the output has the lines of the page. Spaces are the terminal's."""
        rest = _plain(output)
        for line in self.shown:
            before, found, rest = rest.partition(_plain(line))
            assert found, f"{self.command}\ndoes not say {line!r} after {before!r} but:\n{output}"


@dataclass(frozen=True)
class Written:
    """A file that the page has people write."""

    name: str
    text: str


def steps_of(page: str) -> Iterator[Typed | Written]:
    """The commands and files of a page, in the order in which it names them."""
    for block in _BLOCK.finditer(page):
        if block[1] != "console":
            named = _NAMED.search(page[: block.start()])
            assert named is not None, f"nothing says under which name to write this:\n{block[2]}"
            yield Written(named[1], block[2])
        else:
            yield from _typed(block[2].replace("\\\n", " "))


def words_of(page: str) -> set[str]:
    """The words in capitals that a page says are to be replaced: the first column of its tables."""
    return set(re.findall(r"^\| `([A-Z]+)` \|", page, re.MULTILINE))


def _typed(block: str) -> Iterator[Typed]:
    who, command, shown = "", "", list[str]()
    for line in block.splitlines():
        prompt = _PROMPT.fullmatch(line)
        if prompt is None:
            shown.append(line)
            continue
        if command:
            yield Typed(who, command, tuple(shown))
        who, command, shown = prompt["who"], " ".join(prompt["command"].split()), []
    assert command, f"nothing is typed in this block:\n{block}"
    yield Typed(who, command, tuple(shown))


def _plain(text: str) -> str:
    return " ".join(text.split())
