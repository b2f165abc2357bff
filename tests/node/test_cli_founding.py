"""Founding and verifying by commands, as people do it who have not done it before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from comity.attestation.roots import format_roots, parse_roots
from comity.node.coalition_file import read_coalition, write_coalition
from comity.node.home import Home
from comity.protocol.identifiers import sha256
from command_line import Said, comity
from houses import make_member, short_folder
from stories import Pooled
from world import NORTH, SOUTH

UNI = "uni.example"


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def homes(place: Path) -> dict[str, Home]:
    """Two members without a coalition, and a policy to start from."""
    comity("policy", "template", place / "site")
    return {member: make_member(place, member, listen="127.0.0.1:4001") for member in (NORTH, SOUTH)}


def draft(place: Path, homes: dict[str, Home], *words: object, status: int = 0) -> Said:
    return comity(
        *("coalition", "new", "--name", "study", "--home", homes[NORTH].path),
        *(word for home in homes.values() for word in ("--card", home.card)),
        *("--taxonomy", place / "site/taxonomy.toml", "--policy", place / "site/policy.toml"),
        *("--out", place / "co.toml", *words),
        status=status,
    )


def founded(place: Path, homes: dict[str, Home]) -> Path:
    draft(place, homes)
    comity("coalition", "sign", place / "co.toml", "--home", homes[SOUTH].path)
    join(place / "co.toml", homes.values())
    return place / "co.toml"


def join(file: Path, homes: Iterable[Home]) -> None:
    for home in homes:
        comity("coalition", "join", file, "--home", home.path)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# What is shown


def test_show_says_by_which_rules(place: Path, homes: dict[str, Home]) -> None:
    draft(place, homes, "--publisher", SOUTH)
    text = comity("coalition", "show", place / "co.toml").output
    for words in (
        "2 members, 0 faults tolerated, a quorum is 2",
        f"Publishers of reference values: {SOUTH}",
        "data-protection-officer",
        "quasi-identifiers  restrict  include",
        "*/patients  health",
        "inst: quasi_identifier, time: plain, status: plain",
        "survival_study",
    ):
        assert words in text, words
    assert "when {" not in text
    assert (
        'when { resource.column_class == "quasi_identifier" };'
        in comity("coalition", "show", place / "co.toml", "--full").output
    )
    said = comity("coalition", "show", place / "co.toml", "--json").json
    assert [rule["id"] for rule in said["governance"]["policies"][0]["rules"]] == [
        "base",
        "base-columns",
        "quasi-identifiers",
    ]
    assert [(m["member"], m["signed"]) for m in said["members"]] == [(NORTH, True), (SOUTH, False)]
    # Who signs sees them first.
    signed = comity("coalition", "sign", place / "co.toml", "--home", homes[SOUTH].path).output
    assert signed.index("quasi-identifiers") < signed.index("It is complete")
    # And of the home, too.
    join(place / "co.toml", homes.values())
    assert "quasi-identifiers" in comity("coalition", "show", "--home", homes[SOUTH].path).output


def test_a_signer_sees_what_changes_and_what_is_superseded_is_not_in_force(
    place: Path, homes: dict[str, Home]
) -> None:
    founded(place, homes)
    rules = place / "site/policy.cedar"
    edit(rules, '@mode("restrict")', '@mode("refuse")')
    rules.write_text(
        rules.read_text()
        + '@id("more") permit(principal, action == Action::"include", resource is Column);\n'
    )
    edit(place / "site/policy.toml", 'data_class = "health"', 'data_class = "raw"')
    file = place / "next.toml"
    words = ("policy", "publish", place / "site/policy.toml", "--home", homes[NORTH].path, "--out", file)
    published = comity(*words).output
    before = file.read_bytes()
    for text in (
        published,
        comity("coalition", "show", file).output,
        comity("coalition", "sign", file, "--home", homes[SOUTH].path).output,
    ):
        assert "~ rule main/quasi-identifiers" in text
        assert '- @id("quasi-identifiers") @mode("restrict")' in text
        assert '+ @id("quasi-identifiers") @mode("refuse")' in text
        assert "+ rule main/more" in text
        assert "~ asset main/*/patients" in text
        assert "rule main/base" not in text
    assert file.read_bytes() != before
    join(file, homes.values())
    said = comity("coalition", "show", "--home", homes[NORTH].path, "--json").json
    assert said["policies"] == ["main"]
    assert [policy["rules"][2]["mode"] for policy in said["governance"]["policies"]] == ["refuse"]
    assert "restrict" not in comity("coalition", "show", "--home", homes[NORTH].path, "--full").output


def test_nobody_signs_rules_that_the_file_lacks(place: Path, homes: dict[str, Home]) -> None:
    draft(place, homes)
    file = place / "co.toml"
    whole = read_coalition(file)
    less = replace(whole, records=tuple(r for r in whole.records if r.header.kind != "policy"))
    write_coalition(file, less)
    before = file.read_bytes()
    said = comity("coalition", "sign", file, "--home", homes[SOUTH].path, status=2)
    assert "co.toml: it lacks the policy" in said.errors
    assert file.read_bytes() == before
    assert "cannot be seen here" in comity("coalition", "show", file).output


# What is drafted


def test_a_draft_is_linted_with_its_taxonomy_and_classification(place: Path, homes: dict[str, Home]) -> None:
    edit(place / "site/policy.cedar", '== "quasi_identifier"', '== "quasi_identifer"')
    said = draft(place, homes).output
    assert "warning: " in said
    assert "quasi_identifer" in said
    comity("coalition", "sign", place / "co.toml", "--home", homes[SOUTH].path)
    join(place / "co.toml", homes.values())
    # A class that was renamed in the classification, and not in the rules.
    rules = place / "site/policy.cedar"
    rules.write_text(
        rules.read_text().replace("quasi_identifer", "quasi_identifier")
        + '@id("approve") @mode("defer") @reason("approval_missing") @needs("approval(class=data-steward)")\n'
        'forbid(principal, action == Action::"materialize", resource in DataClass::"released");\n'
    )
    edit(place / "site/policy.toml", 'data_class = "released"', 'data_class = "given"')
    words = ("policy", "publish", place / "site/policy.toml", "--home", homes[NORTH].path)
    said = comity(*words, "--out", place / "next.toml", "--json").json
    assert ["released" in each["message"] for each in said["warnings"]] == [True]
    assert "warning: " in comity(*words, "--out", place / "again.toml").output


def test_an_epoch_in_which_nothing_changes_is_not_drafted(place: Path, homes: dict[str, Home]) -> None:
    founded(place, homes)
    words = ("policy", "publish", place / "site/policy.toml", "--home", homes[NORTH].path)
    said = comity(*words, "--out", place / "next.toml", status=2)
    assert "nothing changes" in said.errors
    assert not (place / "next.toml").exists()
    edit(place / "site/taxonomy.toml", "weight = 600000", "weight = 500000")
    comity(*words, "--taxonomy", place / "site/taxonomy.toml", "--out", place / "next.toml")


def test_nothing_is_written_over_without_force(place: Path, homes: dict[str, Home]) -> None:
    file = founded(place, homes)
    make_member(place, UNI)
    edit(place / "site/policy.cedar", '@mode("restrict")', '@mode("refuse")')
    out, home = place / "out.toml", ("--home", homes[NORTH].path)
    out.write_text("mine\n")
    for words in (
        ("coalition", "admit", place / "uni/card.toml", *home),
        ("policy", "publish", place / "site/policy.toml", *home),
        ("coalition", "sign", file, *home),
        ("coalition", "roots", *home),
    ):
        assert "--force" in comity(*words, "--out", out, status=2).errors
        assert out.read_text() == "mine\n"
        comity(*words, "--out", out, "--force")
        assert out.read_text() != "mine\n"
        out.write_text("mine\n")
    assert "--force" in draft(place, homes, status=2).errors


def test_a_quorum_that_cannot_be_says_which_can(place: Path, homes: dict[str, Home]) -> None:
    said = draft(place, homes, "--quorum", "3", status=2)
    assert "a quorum of 3 of 2 members cannot be: it is 2 at least" in said.errors


def test_a_card_without_an_address_is_said(place: Path) -> None:
    comity("policy", "template", place / "site")
    homes = {NORTH: make_member(place, NORTH), SOUTH: make_member(place, SOUTH, listen="127.0.0.1:4001")}
    said = draft(place, homes, "--json").json["warnings"]
    assert [(each["file"], each["code"]) for each in said] == [(f"card of {NORTH}", "card_without_address")]
    # An unsigned member's node has no certificate, which is not said beside that it has not signed.
    text = comity("coalition", "show", place / "co.toml").output
    assert "Waits for the signature" in text
    assert "Without a certificate" not in text


def test_a_member_without_a_dot_is_said(place: Path) -> None:
    said = comity("node", "init", "--member", "beta", place / "beta", "--json").json
    assert any("beta has no dot" in note for note in said["notes"])
    assert comity("node", "init", "--json", status=2).json["error"]["code"] == "option_wrong"


def test_a_file_of_another_kind_is_called_what_it_is(place: Path, homes: dict[str, Home]) -> None:
    file = founded(place, homes)
    card, roots = homes[NORTH].card, homes[NORTH].roots
    words: tuple[tuple[tuple[object, ...], str], ...] = (
        (("coalition", "show", card), "card.toml: this is the card of a node, not a coalition file"),
        (("coalition", "show", roots), "roots.toml: this is a roots file, not a coalition file"),
        (
            ("coalition", "admit", place / "site/taxonomy.toml", "--home", homes[NORTH].path),
            "taxonomy.toml: this is a taxonomy, not the card of a node",
        ),
        (("policy", "lint", place / "site/taxonomy.toml"), "this is a taxonomy, not a policy"),
        (("taxonomy", "check", place / "site/policy.toml"), "this is a policy, not a taxonomy"),
        (("verify", file, "--roots", file), "co.toml: this is a coalition file, not a roots file"),
    )
    for command, said in words:
        assert said in comity(*command, status=2).errors


# A failed command changes nothing


def test_a_short_fingerprint_is_no_comparison(place: Path, homes: dict[str, Home]) -> None:
    """A swapped file whose fingerprint only begins alike, or a variable that was never set."""
    draft(place, homes)
    file = place / "co.toml"
    comity("coalition", "sign", file, "--home", homes[SOUTH].path)
    true = comity("coalition", "show", file, "--json").json["fingerprint"]
    for given, status in (("", 2), (true[0], 2), (true[:31], 2), (sha256(b"").hex(), 1)):
        said = comity(
            *("coalition", "join", file, "--home", homes[NORTH].path, "--fingerprint", given, "--json"),
            status=status,
        )
        assert said.json["error"]["code"] == ("config_wrong" if status == 2 else "roots_other")
        assert not homes[NORTH].coalition.exists()
        assert not homes[NORTH].roots.exists()
    comity("coalition", "join", file, "--home", homes[NORTH].path, "--fingerprint", true.upper())


def test_a_newcomer_may_sign_before_the_old_members(place: Path, homes: dict[str, Home]) -> None:
    founded(place, homes)
    uni = make_member(place, UNI)
    file = place / "next.toml"
    comity("coalition", "admit", uni.card, "--home", homes[NORTH].path, "--out", file)
    comity("coalition", "sign", file, "--home", uni.path)
    assert comity("coalition", "show", file, "--json").json["unsigned"] == [SOUTH]
    assert "+ member uni.example" in comity("coalition", "show", file).output
    comity("coalition", "sign", file, "--home", homes[SOUTH].path)
    join(file, (*homes.values(), uni))


def test_a_failed_join_changes_nothing(place: Path, homes: dict[str, Home]) -> None:
    file = founded(place, homes)
    edit(place / "site/policy.cedar", '@mode("restrict")', '@mode("refuse")')
    north, south = homes.values()
    comity("policy", "publish", place / "site/policy.toml", "--home", north.path, "--out", place / "n.toml")
    comity("coalition", "sign", place / "n.toml", "--home", south.path)
    before = (north.coalition.read_bytes(), north.roots.read_bytes())
    north.token("operator").unlink()
    comity("coalition", "join", place / "n.toml", "--home", north.path, status=2)
    assert (north.coalition.read_bytes(), north.roots.read_bytes()) == before
    assert not north.roots_of(1).exists()
    assert file.exists()


# Roots of every epoch, and bundles of earlier ones


def test_roots_of_every_epoch_are_kept_and_are_the_same_for_all(place: Path, homes: dict[str, Home]) -> None:
    founded(place, homes)
    north, south = homes.values()
    first = north.roots.read_text()
    edit(place / "site/policy.cedar", '@mode("restrict")', '@mode("refuse")')
    file = place / "next.toml"
    comity("policy", "publish", place / "site/policy.toml", "--home", north.path, "--out", file)
    comity("coalition", "sign", file, "--home", south.path)
    # What people may write differently in their copies has no part in the roots.
    edit(file, 'name = "study"', 'name = "our study"')
    for home in (north, south):
        comity("coalition", "join", file, "--home", home.path)
        assert home.roots_of(0).read_text() == first
        assert home.roots_of(1).read_text() == home.roots.read_text() != first
        assert comity("coalition", "roots", "--epoch", "0", "--home", home.path).output == first
        assert comity("coalition", "roots", "--home", home.path).output == home.roots.read_text()
    out = place / "roots-0.toml"
    said = comity("coalition", "roots", file, "--epoch", "0", "--out", out, "--json").json
    assert out.read_text() == first
    assert said["fingerprint"] in first
    assert parse_roots(first).epoch_number == said["epoch_number"] == 0
    refused = comity("coalition", "roots", "--epoch", "2", "--home", north.path, status=2)
    assert "there are 0 to 1" in refused.errors


def test_a_bundle_that_ends_before_the_pin_names_the_way_out(tmp_path: Path) -> None:
    story = Pooled.told()
    bundle, newer = tmp_path / "pool.bundle", tmp_path / "roots.toml"
    bundle.write_bytes(story.bundle().encoded())
    newer.write_text(format_roots(msgspec.structs.replace(story.roots(), epoch_number=1, epoch=b"\x01" * 32)))
    said = comity("verify", bundle, "--roots", newer, "--json", status=1)
    assert said.json["error"]["code"] == "pin_not_reached"
    assert "comity coalition roots --epoch N" in said.json["error"]["hint"]
    earlier = tmp_path / "roots-0.toml"
    earlier.write_text(format_roots(story.roots()))
    comity("verify", bundle, "--roots", earlier)


def test_what_is_no_bundle_is_called_what_it_is(tmp_path: Path) -> None:
    story = Pooled.told()
    roots, file = tmp_path / "roots.toml", tmp_path / "some.bundle"
    roots.write_text(format_roots(story.roots()))
    whole = story.bundle().encoded()
    middle = len(whole) // 2
    for data, words in (
        (b"", "the file is empty"),
        (roots.read_bytes(), "no bundle, but a text"),
        (whole[:-10], "cut short"),
        (whole + b"\x00", "damaged"),
        (b"\x81\xa1a\x01", "it has other parts"),
        (bytes(middle) + whole[middle:], "no bundle"),
        (whole.replace(b"production", b"Production", 1), "cannot be read"),
    ):
        file.write_bytes(data)
        said = comity("verify", file, "--roots", roots, "--json", status=1)
        message = said.json["error"]["message"]
        assert words in message, (words, message)
        assert message.startswith(f"{file}: ")
        assert not any(word in message for word in ("ExtraData", "ValueError", "Expected", "regex", "Form"))
