"""What commands say where something is wrong: exit statuses, the file, what was wrong, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comity.attestation.signing import SigningKey, add_signature
from comity.node.coalition_file import read_coalition, write_coalition
from command_line import Said, comity
from houses import found, make_member, short_folder
from world import NORTH, SOUTH


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def error_of(said: Said) -> Any:
    return said.json["error"]


def test_errors_are_said_to_people_and_to_programs(place: Path) -> None:
    said = comity("coalition", "show", place / "absent.toml", status=2)
    assert said.output == ""
    assert said.errors.startswith("comity: ")
    assert "absent.toml" in said.errors
    said = comity("coalition", "show", place / "absent.toml", "--json", status=2)
    assert error_of(said)["code"] == "config_wrong"
    assert "absent.toml" in error_of(said)["message"]


def test_a_node_that_does_not_run_is_status_3(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH]
    for words in (
        ("node", "status"),
        ("waiting",),
        ("intent", "list"),
        ("decision", "list"),
        ("credential", "list"),
        ("lineage", "show", "released"),
        ("owner-policy", "publish", "--consent", "*=live"),
        ("intent", "explain", "--asset", "released"),
    ):
        said = comity(*words, "--home", home.path, "--json", status=3)
        assert error_of(said)["code"] == "node_not_running"
        assert "comity node start --home" in error_of(said)["hint"]


def test_a_home_without_a_node_is_status_2(place: Path) -> None:
    said = comity("node", "status", "--home", place / "nothing", status=2)
    assert "comity node init" in said.errors


def test_settings_are_checked_without_a_start(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH]
    assert comity("config", "check", "--home", home.path, "--json").json["coalition"] is True
    text = home.config.read_text()
    home.config.write_text(text.replace("security = ", "securty = "))
    assert "did you mean security?" in comity("config", "check", "--home", home.path, status=2).errors
    home.config.write_text(text)
    home.key("transport").chmod(0o644)
    assert "chmod 600" in comity("config", "check", "--home", home.path, status=2).errors


def test_wrong_options_are_status_2() -> None:
    assert comity("node", "statsu", status=2).errors
    assert comity("verify", "x", status=2).errors
    assert comity("credential", "issue", "--kind", "robot", status=2).errors


def test_a_wrong_option_is_said_to_programs_too() -> None:
    for words, part in (
        (("node", "statsu"), "statsu"),
        (("verify", "x"), "--roots"),
        (("credential", "issue", "--kind", "robot"), "robot"),
        (("node", "status", "--withn", "3"), "--withn"),
    ):
        said = comity(*words, "--json", status=2)
        assert error_of(said)["code"] == "option_wrong"
        assert part in error_of(said)["message"]
        assert said.errors.startswith("comity: ")
    # What is no error stays what it is.
    assert "Usage" in comity("verify", "--help", "--json").output


def test_errors_name_the_file_and_what_to_do(place: Path) -> None:
    homes = found(place, (NORTH, SOUTH))
    north, stranger = homes[NORTH], make_member(place, "stranger.example")
    damaged = place / "damaged.toml"
    text = north.coalition.read_text()
    damaged.write_text(text + "\n[unknown]\n")
    bundle = place / "no.bundle"
    bundle.write_bytes(b"no bundle")
    home = ("--home", north.path)
    cases: tuple[tuple[tuple[object, ...], tuple[str, ...], int], ...] = (
        (("coalition", "show", damaged), ("damaged.toml",), 2),
        (
            ("coalition", "sign", north.coalition, "--home", stranger.path),
            ("coalition.toml: stranger.example is no member", "comity coalition admit CARD"),
            2,
        ),
        (
            ("coalition", "join", north.coalition, "--home", stranger.path),
            ("coalition.toml: stranger.example is no member", "comity coalition admit CARD"),
            2,
        ),
        (
            ("coalition", "join", north.coalition, *home, "--fingerprint", "00" * 32),
            ("coalition.toml: its fingerprint is", "do not join"),
            1,
        ),
        (("key", "new", place / "nowhere/key"), (f"no folder {place / 'nowhere'}",), 2),
        (("node", "init", "--member", "Bad Name", place / "x"), ("'Bad Name' is not the organization",), 2),
        (("verify", bundle, "--roots", north.roots), ("no.bundle: no bundle",), 1),
        (("record", "show", "zz", *home), ("no such file, and an id of a record is 64 hex digits",), 2),
        (("decision", "show", "zzzzzzz", *home), ("is no id: 64 hex digits",), 2),
    )
    for words, parts, status in cases:
        said = comity(*words, status=status)
        for part in parts:
            assert part in said.errors, (words, said)
        assert "regex" not in said.errors


def test_a_file_whose_signatures_do_not_check_is_named(place: Path) -> None:
    """Whatever command reads it."""
    home = found(place, (NORTH,))[NORTH]
    file = read_coalition(home.coalition)
    epoch = add_signature(file.epochs[0], SigningKey.from_seed(bytes(32)))
    others = [record for record in file.records if record.header.kind != "epoch"]
    forged = place / "forged.toml"
    write_coalition(forged, replace(file, records=(*others, epoch)))
    for words in (("show",), ("sign",), ("join",)):
        said = comity("coalition", *words, forged, "--home", home.path, status=2)
        assert "forged.toml: the coalition file does not verify" in said.errors
