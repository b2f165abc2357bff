"""The notation of the examples in docs/spec: `{name: value, ...}`, with shortened digests and things left out.

`...` and `<words>` stand for something that is not shown, and `[...3]` for three of it. A code with parameters is
`code(name=value)`, and a cause stands without its rule; digests are the first digits; in brackets of a list `...`
stands for the rest of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec"

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<rest>\.\.\.\d*)
    | (?P<left_out><[^>]*>)
    | (?P<text>"(?:\\.|[^"\\])*")
    | (?P<sign>[{}\[\](),]|:(?=\s))
    | (?P<word>(?:[^\s{}\[\](),":]|:(?!\s))+)
    )""",
    re.VERBOSE,
)


class Unshown:
    """Something that an example leaves out. It equals anything."""

    def __repr__(self) -> str:
        return "..."


REST = Unshown()


def example_of(page: str) -> str:
    """The text of a page's example, up to the first section of its rules."""
    text = (SPEC / f"{page}.md").read_text(encoding="utf-8")
    return re.split(r"^#{2,3} ", text.partition("# Example\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def shown(text: str, label: str = "") -> Any:
    """The first value in braces behind a label, as lists, maps, texts and integers."""
    start = text.index("{", text.index(label))
    value, _ = _value(text, start)
    return value


def _take(text: str, at: int) -> tuple[str, str, int]:
    found = _TOKEN.match(text, at)
    assert found is not None, text[at : at + 40]
    kind = str(found.lastgroup)
    return kind, found[kind], found.end()


def _value(text: str, at: int) -> tuple[Any, int]:
    kind, said, after = _take(text, at)
    if kind in ("rest", "left_out"):
        return REST, after
    if kind == "text":
        return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], said[1:-1]), after
    if said == "{":
        return _entries(text, after)
    if said == "[":
        return _items(text, after)
    assert kind == "word", said
    following, mark, behind = _take(text, after) if after < len(text) else ("", "", after)
    if following == "sign" and mark == "(" and text[after] == "(":
        return _term(said, text, behind)
    if re.fullmatch(r"-?(?:0|[1-9]\d{0,18})", said):
        return int(said), after
    return _words(said, text, after)


def _words(first: str, text: str, at: int) -> tuple[str, int]:
    words = [first]
    while True:
        kind, said, after = _take(text, at)
        if kind != "word":
            return " ".join(words), at
        words.append(said)
        at = after


def _entries(text: str, at: int) -> tuple[dict[str, Any], int]:
    entries: dict[str, Any] = {}
    while True:
        kind, name, at = _take(text, at)
        if name == "}":
            return entries, at
        if kind == "rest":
            entries["..."] = REST
        elif kind == "word":
            _, colon, at = _take(text, at)
            assert colon == ":", name
            entries[name], at = _value(text, at)


def _items(text: str, at: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    while True:
        _, mark, after = _take(text, at)
        if mark == "]":
            return items, after
        if mark == ",":
            at = after
            continue
        item, at = _value(text, at)
        items.append(item)


def _term(code: str, text: str, at: int) -> tuple[dict[str, Any], int]:
    end = text.index(")", at)
    parameters: dict[str, Any] = {}
    name = ""
    for part in text[at:end].split(","):
        if "=" in part:
            name, _, value = part.strip().partition("=")
            parameters[name] = int(value) if value.isdecimal() else value
        else:
            # A list in one parameter, as causes write names of columns.
            parameters[name] += f",{part.strip()}"
    return {"code": code, **({"parameters": parameters} if parameters else {})}, end + 1


def differs(example: Any, real: Any, where: str = "") -> str | None:
    """Where an example says something else than a plain value of the code, or None."""
    if example is REST:
        return None
    if isinstance(real, bytes):
        real = real.hex()
        # Digits alone are read as a number.
        return None if real.startswith(str(example)) else f"{where}: {example} for {real}"
    if isinstance(example, dict) and isinstance(real, dict):
        left = {name: item for name, item in example.items() if name != "..."}
        if set(left) <= {"code", "parameters"}:
            real = {name: item for name, item in real.items() if name != "rule"}
        if "..." not in example and set(left) != set(real):
            return f"{where}: {sorted(set(left) ^ set(real))}"
        for name, item in left.items():
            if name not in real:
                return f"{where}: no {name}"
            if (found := differs(item, real[name], f"{where}.{name}")) is not None:
                return found
        return None
    if isinstance(example, list) and isinstance(real, list | tuple):
        return _list_differs(example, real, where)
    if isinstance(example, str) and isinstance(real, dict):
        return differs({"code": example}, real, where)
    return None if example == real else f"{where}: {example!r} for {real!r}"


def _list_differs(example: list[Any], real: list[Any] | tuple[Any, ...], where: str) -> str | None:
    if example and example[-1] is REST:
        example, real = example[:-1], real[: len(example) - 1]
    if len(example) != len(real):
        return f"{where}: {len(example)} for {len(real)}"
    for index, (item, other) in enumerate(zip(example, real, strict=True)):
        if (found := differs(item, other, f"{where}[{index}]")) is not None:
            return found
    return None
