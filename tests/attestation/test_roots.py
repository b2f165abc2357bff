"""Roots: one small file, one fingerprint, and an error that says what is wrong."""

from __future__ import annotations

import hashlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.attestation.roots import (
    FINGERPRINT_DIGITS,
    FINGERPRINT_DIGITS_MIN,
    Roots,
    fingerprint,
    format_roots,
    parse_roots,
    require_fingerprint,
)
from comity.attestation.toml_text import date_of, parse_toml, quote, seconds_of
from comity.protocol.errors import ConfigError, VerificationError
from comity.protocol.identifiers import UNSHOWN
from comity.protocol.limits import INT_MAX, ROOTS_BYTES_MAX

DIGESTS = st.binary(min_size=32, max_size=32)
TEXT = st.from_regex(f"[^{UNSHOWN}]{{0,255}}", fullmatch=True)
ROOTS = st.builds(
    Roots,
    coalition=DIGESTS,
    epoch_number=st.integers(1, INT_MAX),
    epoch=DIGESTS,
    name=TEXT,
    made=st.integers(0, 253_402_300_799),
)
EXAMPLE = Roots(
    coalition=b"\x01" * 32,
    epoch_number=3,
    epoch=b"\x02" * 32,
    name='the "lung" coalition',
    made=1_767_225_600,
)
TEXT_OF_EXAMPLE = f"""
name = 'the "lung" coalition'
coalition = "{"01" * 32}"
epoch_number = 3
epoch = "{"02" * 32}"
made = 2026-01-01T00:00:00Z
"""


def test_a_file_written_by_hand_is_read() -> None:
    assert parse_roots(TEXT_OF_EXAMPLE) == EXAMPLE
    assert parse_roots(TEXT_OF_EXAMPLE.encode()) == EXAMPLE


@given(ROOTS)
def test_what_is_written_is_read(roots: Roots) -> None:
    assert parse_roots(format_roots(roots)) == roots


def test_the_fingerprint_is_the_digest_of_the_canonical_encoding() -> None:
    value = {
        "coalition": b"\x01" * 32,
        "epoch": b"\x02" * 32,
        "epoch_number": 3,
        "made": 1_767_225_600,
        "name": 'the "lung" coalition',
    }
    assert fingerprint(EXAMPLE) == hashlib.sha256(msgpack.packb(value)).digest()
    assert fingerprint(EXAMPLE).hex() in format_roots(EXAMPLE)


@given(ROOTS, ROOTS)
def test_roots_differ_where_their_fingerprints_differ(left: Roots, right: Roots) -> None:
    assert (left == right) == (fingerprint(left) == fingerprint(right))


@pytest.mark.parametrize(
    ("line", "key", "allowed"),
    [
        ("name = 7", "name", "text"),
        (f'name = "{"x" * 256}"', "name", "255"),
        (f'coalition = "{"01" * 31}"', "coalition", "64 hex digits"),
        (f'coalition = "{"0A" * 32}"', "coalition", "lower case"),
        (f'coalition = "{"0 1 " * 16}"', "coalition", "64 hex digits"),
        (f'coalition = "{"zz" * 32}"', "coalition", "64 hex digits"),
        ("coalition = 1", "coalition", "64 hex digits"),
        ("epoch_number = -1", "epoch_number", "whole number"),
        ("epoch_number = true", "epoch_number", "whole number"),
        ("epoch_number = 3.0", "epoch_number", "whole number"),
        ("epoch_number = 9223372036854775808", "epoch_number", "whole number"),
        ("epoch_number = 0", "epoch", "genesis"),
        ("epoch = []", "epoch", "64 hex digits"),
        ("made = 2026-01-01T00:00:00", "made", "UTC"),
        ("made = 2026-01-01T00:00:00+01:00", "made", "UTC"),
        ("made = 2026-01-01T00:00:00.5Z", "made", "whole seconds"),
        ("made = 1969-12-31T23:59:59Z", "made", "UTC"),
        ("made = 2026-01-01", "made", "UTC"),
        ("made = 1767225600", "made", "UTC"),
    ],
)
def test_a_wrong_value_is_named(line: str, key: str, allowed: str) -> None:
    changed = line.split(" ", maxsplit=1)[0]
    text = "\n".join(
        line if kept.startswith(f"{changed} ") else kept for kept in TEXT_OF_EXAMPLE.splitlines()
    )
    with pytest.raises(ConfigError, match=rf"^my roots: {key}: .*{allowed}"):
        parse_roots(text, "my roots")


@pytest.mark.parametrize("key", ["name", "coalition", "epoch_number", "epoch", "made"])
def test_a_missing_key_is_named(key: str) -> None:
    text = "\n".join(line for line in TEXT_OF_EXAMPLE.splitlines() if not line.startswith(f"{key} "))
    with pytest.raises(ConfigError, match=f"roots.toml: {key}: missing"):
        parse_roots(text)


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(ConfigError, match="witness: unknown key"):
        parse_roots(TEXT_OF_EXAMPLE + 'witness = "x"')


@pytest.mark.parametrize(
    "hostile",
    [
        "x" * (ROOTS_BYTES_MAX + 1),
        "ä" * (ROOTS_BYTES_MAX // 2 + 1),
        b"name = '\xff'",
        "name = '\ud800'",
        "a = " + "[" * 30_000,
        "a = " + "9" * 5_000,
        "a = 2026-99-99T00:00:00Z",
        "a." * 5_000 + "a = 1",
        "name = 'x'\nname = 'y'",
        "[name]\n[name]",
        "\0",
    ],
)
def test_hostile_text_is_a_config_error(hostile: str | bytes) -> None:
    with pytest.raises(ConfigError, match=r"roots.toml:"):
        parse_roots(hostile)


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300)))
def test_any_text_is_roots_or_a_config_error(text: str | bytes) -> None:
    with pytest.raises(ConfigError):
        parse_roots(text)


@given(st.text(st.characters(codec="utf-8")))
def test_quoted_text_is_read_as_it_was(text: str) -> None:
    assert parse_toml(f"a = {quote(text)}", 10_000, "x") == {"a": text}


@given(st.integers(0, 253_402_300_799))
def test_a_written_date_is_read_as_it_was(seconds: int) -> None:
    assert seconds_of(parse_toml(f"a = {date_of(seconds)}", 100, "x")["a"]) == seconds


def test_a_fingerprint_is_compared_whole_or_by_half() -> None:
    """Whoever may choose roots finds some with any short beginning: 128 bits are compared at least."""
    whole = fingerprint(EXAMPLE).hex()
    for told in (whole, whole.upper(), f" {whole[:32]} {whole[32:]}\n", whole[:FINGERPRINT_DIGITS_MIN]):
        require_fingerprint(told, EXAMPLE)
    for told in (
        "",
        " ",
        whole[0],
        whole[: FINGERPRINT_DIGITS_MIN - 1],
        whole + "0",
        f"{whole[:-1]}g",
        "é" * FINGERPRINT_DIGITS,
    ):
        with pytest.raises(ConfigError, match="is no fingerprint"):
            require_fingerprint(told, EXAMPLE)
    other = format(int(whole[0], 16) ^ 1, "x") + whole[1:]
    for told in (other, other[:FINGERPRINT_DIGITS_MIN], whole[1:]):
        with pytest.raises(VerificationError, match="not the one given"):
            require_fingerprint(told, EXAMPLE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\nmembers = []\ncoalition = "ab"\nepoch_number = 0\nepoch = "ab"\n', "a coalition file"),
        ("[records]\nepoch = []\n", "a coalition file"),
        ("organization_key = 1\n", "the card of a node"),
        ("[[classes]]\n", "a taxonomy"),
        ('rules = "policy.cedar"\n', "a policy"),
        ('listen = "x"\n', "the settings of a node"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"my roots: this is {said}, not a roots file"):
        parse_roots(text, "my roots")


def test_what_is_no_text_is_no_roots_file() -> None:
    with pytest.raises(ConfigError, match="my roots: not UTF-8 text; this is not a roots file"):
        parse_roots(b"\xff\x00", "my roots")
