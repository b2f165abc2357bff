"""The sentences of the pages under docs/spec, each with the section that it stands in.

Paragraphs, items of lists and rows of tables are read; blocks of examples and code are not. A row of a table is
one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec"

_BINDING = re.compile(r"\bMUST\b")
# What these words mean; a page that says so gives no rule.
_OF_THE_WORDS = re.compile(r"BCP 14|RFC 2119")
_HEADING = re.compile(r"^#+ (?P<title>.+)$")
_ITEM = re.compile(r"^ *(?:[0-9]+\.|[-*]) +(?=\S)")
_ROW = re.compile(r"^ *\|")
# A full stop ends a sentence where a capital, a code or the end of the block follows; `e.g.` and `i.e.` do not.
_END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.!?])[)*]*\s+(?=[A-Z`*(\[])")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence: the page without its ending, the number of the section (or its title), and the words."""

    page: str
    section: str
    text: str

    @property
    def binds(self) -> bool:
        """Whether it says MUST or MUST NOT."""
        return bool(_BINDING.search(self.text)) and not _OF_THE_WORDS.search(self.text)


def pages() -> list[Path]:
    """Every page of the specification, by name."""
    return sorted(SPEC.glob("*.md"))


def sentences_of(page: str, text: str) -> Iterator[Sentence]:
    """Return the sentences of one page, in their order, with line ends as spaces."""
    section, block = "", list[str]()
    fenced = False

    def whole() -> Iterator[Sentence]:
        said = " ".join(" ".join(block).split())
        block.clear()
        yield from (Sentence(page, section, part) for part in _END.split(said) if part)

    for line in [*text.splitlines(), ""]:
        if line.lstrip().startswith("```"):
            fenced = not fenced
            yield from whole()
        elif fenced or (line.startswith("    ") and not block and not _ROW.match(line)):
            continue
        elif heading := _HEADING.match(line):
            yield from whole()
            section = _section(heading["title"]) or section
        elif not line.strip() or _ROW.match(line) or _ITEM.match(line):
            yield from whole()
            if _ROW.match(line):
                yield Sentence(page, section, " ".join(line.split()))
            elif line.strip():
                block.append(_ITEM.sub("", line))
        else:
            block.append(line)


def _section(title: str) -> str:
    """A heading's number, or its words; nothing for that of a form or an example, which stands within a section."""
    number = re.match(r"(?:Step )?[0-9]+(?:\.[0-9]+)*", title)
    return number[0] if number else "" if title.startswith(("`", "Example")) else title


def sentences() -> list[Sentence]:
    """Return all sentences of all pages."""
    return [s for path in pages() for s in sentences_of(path.stem, path.read_text(encoding="utf-8"))]
