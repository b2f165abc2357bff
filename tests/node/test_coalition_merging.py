"""A draft that members signed side by side: one coalition again, and no two coalitions by mistake."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from comity.attestation.signing import SigningKey, add_signature
from comity.node.coalition_file import (
    CoalitionFile,
    NodeEntry,
    format_coalition,
    read_coalition,
    write_coalition,
)
from comity.node.coalition_merging import Copy, merge_copies
from comity.node.coalitions import (
    certify,
    draft_successor,
    merged_records,
    require_joinable,
    sign_draft,
    verified,
)
from comity.node.home import Home
from comity.protocol.errors import ConfigError
from command_line import comity
from houses import card_of, draft, found, hand_of, join, make_member, short_folder, sign
from world import BOARD, FOUR, INSTITUTE, NORTH, SOUTH

NOW = int(time.time())


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def homes(place: Path) -> dict[str, Home]:
    return {member: make_member(place, member) for member in FOUR}


def copies(*files: CoalitionFile) -> list[Copy]:
    return [Copy(f"copy-{number}.toml", file) for number, file in enumerate(files)]


def signed_apart(homes: dict[str, Home]) -> list[CoalitionFile]:
    """One draft, and a copy of it for each member, signed by that member alone (and its drafter)."""
    file = draft(list(homes.values()))
    return [sign(file, home, NOW) for home in homes.values()]


def test_copies_that_were_signed_side_by_side_are_one_coalition(homes: dict[str, Home]) -> None:
    apart = signed_apart(homes)
    merged = merge_copies(copies(*apart))
    _, standing = verified(merged)
    assert standing.complete
    for home in homes.values():
        require_joinable(merged, card_of(home), NOW)
    # No order makes another file, and it is the one that goes from hand to hand.
    for order in permutations(apart):
        assert format_coalition(merge_copies(copies(*order))) == format_coalition(merged)
    handed = apart[0]
    for home in homes.values():
        handed = sign(handed, home, NOW)
    assert handed == merged
    # In steps, and again with what is merged already.
    half = merge_copies(copies(*apart[:2]))
    assert verified(half)[1].unsigned == tuple(sorted(FOUR[2:]))
    assert format_coalition(merge_copies(copies(half, *apart[1:], merged))) == format_coalition(merged)


def test_one_copy_may_be_complete_already(homes: dict[str, Home]) -> None:
    """A member that signed late hands in a draft of what the others have founded."""
    first, *others = signed_apart(homes)
    whole = merge_copies(copies(first, *others))
    assert whole.draft is None
    assert merge_copies(copies(first, whole)) == merge_copies(copies(whole, first)) == whole


def test_a_member_that_signs_two_copies_has_one_certificate(homes: dict[str, Home]) -> None:
    """Two of one number would be rivals, and its node would have none."""
    file = draft(list(homes.values()))
    north, *others = homes.values()
    twice = [sign(file, north, NOW), sign(file, north, NOW + 60)]
    assert twice[0].of_kind("node_certificate") != twice[1].of_kind("node_certificate")
    forth, back = merge_copies(copies(*twice)), merge_copies(copies(*reversed(twice)))
    assert len(forth.of_kind("node_certificate")) == 1
    assert forth.records == back.records
    whole = merge_copies(copies(forth, *(sign(file, home, NOW) for home in others)))
    require_joinable(whole, card_of(north), NOW + 120)


def test_different_drafts_are_not_merged(homes: dict[str, Home]) -> None:
    one = draft(list(homes.values()))
    other = draft(list(homes.values()), quorum=4)
    with pytest.raises(
        ConfigError, match=r"copy-1.toml holds another draft than copy-0.toml: .* agree on one"
    ):
        merge_copies(copies(sign(one, homes[SOUTH]), sign(other, homes[BOARD])))


def test_two_drafts_of_the_next_epoch_are_not_merged(homes: dict[str, Home], place: Path) -> None:
    founded = merge_copies(copies(*signed_apart(homes)))

    def grown(by: str, newcomer: str) -> CoalitionFile:
        card = card_of(make_member(place, newcomer))
        return draft_successor(
            founded, hand_of(homes[by]).organization(None, founded.coalition), NOW, cards=[card]
        )

    one, other = grown(NORTH, "uni.example"), grown(SOUTH, "lab.example")
    with pytest.raises(ConfigError, match=r"copy-1.toml holds another epoch 1 than copy-0.toml"):
        merge_copies(copies(one, other))
    # Beside the founded file either is what comes next.
    assert merge_copies(copies(founded, one)) == merge_copies(copies(one, founded))


def test_the_next_epoch_is_merged_too(homes: dict[str, Home], place: Path) -> None:
    founded = merge_copies(copies(*signed_apart(homes)))
    newcomer = make_member(place, "uni.example")
    author = hand_of(homes[INSTITUTE]).organization(None, founded.coalition)
    drafted = draft_successor(founded, author, NOW, cards=[card_of(newcomer)])
    apart = [sign(drafted, home, NOW) for home in (*homes.values(), newcomer)]
    # The newcomer's certificate stands under a key that no epoch gives it yet.
    assert verified(apart[-1])[1].unsigned == tuple(sorted({*FOUR} - {INSTITUTE}))
    # Whoever takes the founded part of such a file takes nothing that it could not verify.
    assert verified(merged_records(founded, apart[-1]))[1].complete
    merged = merge_copies(copies(*apart))
    assert verified(merged)[1].complete
    assert len(merged.epochs) == 2
    join(merged, newcomer)


def test_a_newcomers_forged_certificate_is_found(homes: dict[str, Home], place: Path) -> None:
    founded = merge_copies(copies(*signed_apart(homes)))
    newcomer, forger = make_member(place, "uni.example"), make_member(place / "forger", "uni.example")
    author = hand_of(homes[INSTITUTE]).organization(None, founded.coalition)
    drafted = draft_successor(founded, author, NOW, cards=[card_of(newcomer)])
    stranger = hand_of(forger).organization(None, founded.coalition)
    forged = certify(stranger, card_of(newcomer), NOW, days=30, number=1)
    with pytest.raises(ConfigError, match="does not verify"):
        verified(replace(drafted, records=(*drafted.records, forged)))


def test_a_foreign_coalition_is_not_merged(homes: dict[str, Home], place: Path) -> None:
    foreign = read_coalition(found(place / "foreign", (NORTH,))[NORTH].coalition)
    with pytest.raises(ConfigError, match=r"copy-1.toml is of another coalition than copy-0.toml"):
        merge_copies(copies(signed_apart(homes)[0], foreign))


def test_a_copy_that_does_not_verify_is_named(homes: dict[str, Home]) -> None:
    good, bad, *_ = signed_apart(homes)
    assert bad.draft is not None
    forged = replace(bad, draft=add_signature(bad.draft, SigningKey.from_seed(bytes(32))))
    with pytest.raises(ConfigError, match=r"^copy-1.toml: the coalition file does not verify"):
        merge_copies(copies(good, forged))


def test_a_file_without_an_epoch_is_named(homes: dict[str, Home]) -> None:
    empty = CoalitionFile(name="study", made=NOW)
    with pytest.raises(ConfigError, match=r"copy-1.toml: holds no epoch yet"):
        merge_copies(copies(signed_apart(homes)[0], empty))
    with pytest.raises(ConfigError, match="no coalition file"):
        merge_copies([])


def test_one_name_with_two_keys_is_refused(homes: dict[str, Home], place: Path) -> None:
    """A node whose keys were made anew between two signatures: its organization says which hold."""
    file = draft(list(homes.values()))
    again = make_member(place / "again", NORTH)
    author = hand_of(homes[NORTH]).organization(None, file.coalition)
    other = sign_draft(file, author, card_of(again), NOW)
    with pytest.raises(ConfigError, match=f"spiffe://{NORTH}/node/n1"):
        merge_copies(copies(sign(file, homes[NORTH], NOW), other))


def test_addresses_of_all_copies_are_kept(homes: dict[str, Home]) -> None:
    file = sign(draft(list(homes.values())), homes[NORTH], NOW)
    moved = []
    for entry in file.members:
        nodes = tuple(
            NodeEntry(n.node, n.key, n.transport_key, ("/ip4/127.0.0.1/tcp/4009",)) for n in entry.nodes
        )
        moved.append(replace(entry, nodes=nodes))
    merged = merge_copies(copies(file, replace(file, members=tuple(moved))))
    for entry, before in zip(merged.members, file.members, strict=True):
        assert entry.nodes[0].addresses == (*before.nodes[0].addresses, "/ip4/127.0.0.1/tcp/4009")


# The command


def test_members_sign_copies_and_one_merges_them(homes: dict[str, Home], place: Path) -> None:
    file = draft(list(homes.values()))
    paths = []
    for member, home in homes.items():
        path = place / f"from-{member}.toml"
        write_coalition(path, file)
        comity("coalition", "sign", path, "--home", home.path)
        paths.append(path)
    out = place / "coalition.toml"
    said = comity("coalition", "merge", *paths[:3], "--out", out, "--json").json
    assert (said["complete"], said["unsigned"], said["file"]) == (False, [FOUR[3]], str(out))
    text = comity("coalition", "merge", out, paths[3]).output
    assert "It is complete" in text
    for home in homes.values():
        comity("coalition", "join", out, "--home", home.path)


def test_what_cannot_be_merged_is_status_2(homes: dict[str, Home], place: Path) -> None:
    one, other = place / "one.toml", place / "other.toml"
    write_coalition(one, draft(list(homes.values())))
    write_coalition(other, draft(list(homes.values()), quorum=4))
    before = one.read_bytes()
    for words, part in (
        ((one,), "name the copies that the others signed"),
        ((one, one), "name the copies that the others signed"),
        ((one, place / "absent.toml"), "absent.toml"),
        ((one, other), "other.toml holds another draft"),
    ):
        said = comity("coalition", "merge", *words, "--json", status=2)
        assert part in said.json["error"]["message"]
    assert comity("coalition", "merge", status=2).errors
    assert one.read_bytes() == before
