"""Every sentence of docs/spec that says MUST has its tests: rules.toml names them, here the two are compared."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from spec_sentences import Sentence, pages, sentences, sentences_of

TESTS = Path(__file__).resolve().parents[1]
RULES: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "rules.toml").read_text("utf-8"))["rule"]
BINDING = [sentence for sentence in sentences() if sentence.binds]


def says(rule: dict[str, Any], sentence: Sentence) -> bool:
    at = (rule["page"], rule["section"]) == (sentence.page, sentence.section)
    return at and sentence.text.startswith(rule["says"])


@cache
def functions_of(path: str) -> frozenset[str]:
    """The test functions of a file that are collected: those at its top."""
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def test_every_rule_has_one_row() -> None:
    rows = {sentence: sum(says(rule, sentence) for rule in RULES) for sentence in BINDING}
    assert len(BINDING) > 90
    wrong = [
        f"{s.page}.md section {s.section}: {count} rows: {s.text}" for s, count in rows.items() if count != 1
    ]
    assert wrong == []


def test_every_row_is_of_one_rule() -> None:
    found = [(rule["page"], rule["says"], sum(says(rule, s) for s in BINDING)) for rule in RULES]
    assert [row for row in found if row[2] != 1] == []


def test_rows_stand_in_the_order_of_the_pages() -> None:
    order = [next(i for i, s in enumerate(BINDING) if says(rule, s)) for rule in RULES]
    assert order == sorted(order)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule['page']}: {rule['says'][:40]}")
def test_the_tests_of_a_row_exist(rule: dict[str, Any]) -> None:
    assert set(rule) == {"page", "section", "says", "shown_by"}
    named = rule["shown_by"]
    assert named
    assert len(set(named)) == len(named)
    for each in named:
        path, _, name = each.partition("::")
        assert name in functions_of(path), each


def test_sentences_are_cut_as_they_are_meant() -> None:
    """A page with every part that a page can have."""
    text = """\
# Title

The key words MUST are those of BCP 14.

## 1. First

A reader MUST look. It MUST NOT, e.g. Sundays, sleep
and eat.

    an example MUST not count

### `Form`

| a | b |
|---|---|
| `x` | it MUST stand |

1. One MAY.
2. Two MUST
   go on.

```
code MUST not count
```

### 1.2 Second

**Bold.** `this` MUST be.
"""
    found = [(s.section, s.text) for s in sentences_of("page", text) if s.binds]
    assert found == [
        ("1", "A reader MUST look."),
        ("1", "It MUST NOT, e.g. Sundays, sleep and eat."),
        ("1", "| `x` | it MUST stand |"),
        ("1", "Two MUST go on."),
        ("1.2", "`this` MUST be."),
    ]


def test_no_word_of_the_pages_is_lost() -> None:
    """As many MUST as the pages have, but for those that say what the word means."""
    written = Counter({path.stem: path.read_text("utf-8").count("MUST") for path in pages()})
    read = Counter(s.page for s in sentences() for _ in range(s.text.count("MUST")))
    assert {page: count for page, count in read.items() if count} == {p: c for p, c in written.items() if c}
