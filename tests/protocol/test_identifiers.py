"""Names: which are names, and which patterns lie within which."""

from __future__ import annotations

import functools
import itertools
import re
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.protocol.identifiers import (
    AssetId,
    AssetPattern,
    ClassName,
    Code,
    MemberId,
    Realm,
    SpiffeId,
    Timestamp,
    member_of,
    pattern_matches,
    pattern_within,
)


def is_a(name: Any, kind: Any) -> bool:
    try:
        msgspec.convert(name, kind, strict=True)
    except msgspec.ValidationError:
        return False
    return True


GOOD: list[tuple[Any, list[Any]]] = [
    (MemberId, ["a", "clinic-north.example", "x1.y2.z3", "0", "a" * 63, ".".join(["a" * 63] * 3)]),
    (SpiffeId, ["spiffe://a/b", "spiffe://clinic.example/operator/7f3a", "spiffe://a/b.c_d-e/f"]),
    (AssetId, ["a/b", "clinic.example/Released", "a/_b/c.d-e/F_"]),
    (AssetPattern, ["*", "a", "a/b", "*/b", "*/*", "*/**", "a/*", "a/**", "*/b/c/**", "a/b/*"]),
    (ClassName, ["health", "health/data-steward", "a/b/c"]),
    (Realm, ["production", "preview/x", "preview/feature-1.2_b"]),
    (Code, ["a", "no_quorum", "a" * 64]),
    (Timestamp, [0, 253_402_300_799]),
]
BAD: list[tuple[Any, list[Any]]] = [
    (
        MemberId,
        [
            "",
            "A",
            "-a",
            "a-",
            "a..b",
            ".a",
            "a.",
            "a/b",
            "a\n",
            " a",
            "é",
            "a" * 64,
            "a_b",
            ".".join(["a" * 63] * 5),
        ],
    ),
    (
        SpiffeId,
        [
            "spiffe://a",
            "spiffe://a/",
            "spiffe:///b",
            "http://a/b",
            "spiffe://A/b",
            "spiffe://a/B",
            "spiffe://a/b/",
        ],
    ),
    (
        SpiffeId,
        ["spiffe://a//b", "spiffe://a/b\n", "spiffe://a/..", "spiffe://a/.", "spiffe://a/" + "b" * 255],
    ),
    (
        AssetId,
        ["a", "a/", "/a", "a//b", "a/*", "a/.b", "a/b.", "a/..", "a/b\n", "A/b", "a/é", "a/-b", "a/b c"],
    ),
    (
        AssetPattern,
        ["**", "**/a", "a/**/b", "a/*/b", "*a", "a/b*", "*.example/a", "", "a/", "*/*/*", "a/***", "a/**\n"],
    ),
    (ClassName, ["", "Health", "/a", "a/", "a//b", "a\n", "a b"]),
    (Realm, ["", "prod", "Production", "production/x", "preview", "preview/", "preview/a/b", "production\n"]),
    (Code, ["", "A", "1a", "_a", "a-b", "a" * 65, "a\n", "a.b"]),
    (Timestamp, [-1, 253_402_300_800, 1.0, True, "0"]),
]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in GOOD for name in names])
def test_a_name(kind: Any, name: Any) -> None:
    assert is_a(name, kind)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in BAD for name in names])
def test_no_name(kind: Any, name: Any) -> None:
    assert not is_a(name, kind)


@pytest.mark.parametrize("kind", [MemberId, SpiffeId, AssetId, AssetPattern, ClassName, Realm, Code])
@pytest.mark.parametrize(
    "hostile", ["a" * 60_000, "a." * 30_000, "a-" * 30_000, "a/" * 30_000 + "!", "*/" * 30_000]
)
def test_a_hostile_name_is_refused_at_once(kind: Any, hostile: str) -> None:
    before = time.process_time()
    assert not is_a(hostile, kind)
    member_of(hostile)
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("spiffe://clinic.example/node/n1", "clinic.example"),
        ("clinic.example/released", "clinic.example"),
        ("clinic.example", "clinic.example"),
        ("*/released", ""),
        ("Clinic.example/a", ""),
        ("spiffe://", ""),
        ("", ""),
        ("clinic.example\n/a", ""),
        ("clinic.example.", ""),
    ],
)
def test_a_name_belongs_to_the_member_that_it_begins_with(name: str, member: str) -> None:
    assert member_of(name) == member


# Patterns

WORLD = tuple(
    "/".join((member, *path))
    for member in ("m.example", "n.example", "o.example")
    for length in range(1, 5)
    for path in itertools.product(("a", "b", "c"), repeat=length)
)
"""Every asset of three members with paths of up to four segments from three letters."""

PATTERNS = tuple(
    "/".join((member, *path, *tail))
    for member in ("m.example", "n.example", "*")
    for length in range(3)
    for path in itertools.product(("a", "b"), repeat=length)
    for tail in ((), ("*",), ("**",))
)
PAIRS = tuple(itertools.product(PATTERNS, repeat=2))


def model(pattern: str) -> re.Pattern[str]:
    """The same pattern as a regular expression, which is the specification."""
    parts = [re.escape(part) for part in pattern.split("/")]
    text = "/".join(parts).replace(re.escape("**"), ".+").replace(re.escape("*"), "[^/]+")
    return re.compile(text)


@functools.cache
def matched(pattern: str) -> frozenset[str]:
    return frozenset(asset for asset in WORLD if pattern_matches(pattern, asset))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_what_its_model_matches(pattern: str) -> None:
    assert is_a(pattern, AssetPattern)
    assert matched(pattern) == {asset for asset in WORLD if model(pattern).fullmatch(asset)}


def test_within_is_sound() -> None:
    """A delegated credential that lies within the one above it reaches no asset that that one does not."""
    wrong = [pair for pair in PAIRS if pattern_within(*pair) and not matched(pair[0]) <= matched(pair[1])]
    assert wrong == []


def test_within_is_exact_where_the_inner_matches_anything() -> None:
    wrong = [
        (inner, outer)
        for inner, outer in PAIRS
        if matched(inner) and matched(inner) <= matched(outer) and not pattern_within(inner, outer)
    ]
    assert wrong == []


@given(st.sampled_from(PATTERNS), st.sampled_from(PATTERNS), st.sampled_from(PATTERNS))
def test_within_is_an_order(left: str, middle: str, right: str) -> None:
    if pattern_within(left, middle) and pattern_within(middle, right):
        assert pattern_within(left, right)


@pytest.mark.parametrize(
    ("inner", "outer", "within"),
    [
        ("m.example/a", "m.example/**", True),
        ("m.example/a/**", "m.example/**", True),
        ("m.example/**", "m.example/*", False),
        ("m.example/*", "m.example/**", True),
        ("*/a", "m.example/a", False),
        ("m.example/a", "*/a", True),
        ("*/**", "*/**", True),
        ("m.example/a", "m.example/a/b", False),
        ("m.example/a/b", "m.example/*", False),
        ("n.example/a", "m.example/**", False),
        ("m.example", "m.example/**", False),
    ],
)
def test_within_by_example(inner: str, outer: str, *, within: bool) -> None:
    assert pattern_within(inner, outer) is within
