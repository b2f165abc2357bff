"""Founding and growing a coalition from real homes: drafts, signatures, joining, and everything that is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comity.attestation.authoring import NO_SALT
from comity.attestation.signing import SigningKey, add_signature
from comity.attestation.toml_text import date_of
from comity.node.authors import author_from_key
from comity.node.cards import format_card, read_card, require_distinct, write_card
from comity.node.coalition_file import CoalitionFile, format_coalition, parse_coalition
from comity.node.coalitions import (
    DAY_S,
    NamedPolicy,
    certificate_for,
    draft_genesis,
    draft_successor,
    draft_unsigned,
    epoch_of,
    require_joinable,
    require_successor,
    sign_draft,
    tolerance,
    verified,
)
from comity.node.home import NODE_KEY, ORGANIZATION_KEY, Home
from comity.node.keystore import companion, create_key
from comity.node.node_home import NewHome, make_home
from comity.node.tokens import read_token, read_tokens
from comity.protocol.errors import ConfigError
from comity.protocol.governance import Taxonomy
from comity.protocol.limits import ASK_AHEAD_S
from houses import (
    card_of,
    draft,
    found,
    hand_of,
    join,
    make_member,
    no_passphrase,
    short_folder,
    sign,
)
from world import BOARD, FOUR, INSTITUTE, NORTH, SOUTH, policy_body, taxonomy_body

NOW = int(time.time())


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def homes(place: Path) -> dict[str, Home]:
    return {member: make_member(place, member) for member in FOUR}


def signed_by_all(homes: dict[str, Home]) -> CoalitionFile:
    file = draft(list(homes.values()))
    for home in homes.values():
        file = sign(file, home)
    return file


# Homes and cards


def test_a_home_holds_keys_tokens_settings_and_a_card(place: Path) -> None:
    home = make_member(place, NORTH)
    card = read_card(home.card)
    assert (card.member, card.node) == (NORTH, f"spiffe://{NORTH}/node/n1")
    assert len({card.organization_key, card.node_key}) == 2
    assert card.transport_key != card.node_key.value
    tokens = read_tokens(home)
    assert len({*tokens.values()}) == 3
    assert "PRIVATE" not in home.card.read_text()
    with pytest.raises(ConfigError, match="already"):
        make_member(place, NORTH)


def test_a_card_reads_back_as_it_was_written(place: Path) -> None:
    home = make_member(place, NORTH, addresses=("node.north.example:4001", "192.0.2.7:4001"))
    card = card_of(home)
    assert card.addresses == ("/dns/node.north.example/tcp/4001", "/ip4/192.0.2.7/tcp/4001")
    write_card(home.card, card)
    assert card_of(home) == card
    assert home.card.read_text() == format_card(card)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("member = ", "membre = ", "membre: unknown key; did you mean member?"),
        ('suite = "ed25519"', 'suite = "rsa"', "organization_key"),
        ("/node/n1", "/Node/n1", "node: not a SPIFFE id"),
        (f'node = "spiffe://{NORTH}', f'node = "spiffe://{SOUTH}', f"node: not under {NORTH}"),
        ("transport_key = ", "# transport_key = ", "transport_key: missing"),
        ("addresses = []", 'addresses = ["nowhere"]', "addresses: not a list"),
    ],
)
def test_a_wrong_card_names_file_and_key(place: Path, old: str, new: str, named: str) -> None:
    home = make_member(place, NORTH)
    text = home.card.read_text()
    assert old in text
    home.card.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as excinfo:
        read_card(home.card)
    assert str(home.card) in str(excinfo.value)
    assert named in str(excinfo.value)


def test_small_order_keys_are_not_read_from_a_card(place: Path) -> None:
    home = make_member(place, NORTH)
    identity = "01" + "00" * 31
    own = card_of(home).node_key.value.hex()
    home.card.write_text(home.card.read_text().replace(own, identity))
    with pytest.raises(ConfigError, match="node_key"):
        read_card(home.card)


def test_the_organizations_key_may_lie_elsewhere(place: Path) -> None:
    stick = place / "stick" / "organization.pem"
    stick.parent.mkdir()
    home = make_member(place, NORTH, organization_key=stick)
    assert not home.key(ORGANIZATION_KEY).exists()
    assert stick.exists()
    author = author_from_key(stick, NORTH)
    assert author.signer.public == card_of(home).organization_key
    with pytest.raises(ConfigError, match="--organization-key"):
        hand_of(home).organization(None, None)
    # A second node of the same organization, with only the public half at hand.
    stick.unlink()
    second = Home(place / "second")
    card, _ = make_home(second, NewHome(NORTH, "n2", "127.0.0.1:4001", organization_key=stick), no_passphrase)
    assert card.organization_key == author.signer.public


def test_an_encrypted_organization_key_needs_its_passphrase(place: Path) -> None:
    home = Home(place / "north")
    make_home(home, NewHome(NORTH, "n1", "127.0.0.1:4001", encrypt=True), lambda _: b"secret")
    path = home.key(ORGANIZATION_KEY)
    assert b"ENCRYPTED" in path.read_bytes()
    assert author_from_key(path, NORTH, passphrase=lambda _: b"secret").member == NORTH
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        author_from_key(path, NORTH, passphrase=lambda _: b"guess")


def test_nothing_is_made_where_a_value_is_wrong(place: Path) -> None:
    home = Home(place / "north")
    for wrong in (
        NewHome("Clinic North", "n1", "127.0.0.1:4001"),
        NewHome(NORTH, "n 1", "127.0.0.1:4001"),
        NewHome(NORTH, "n1", "nowhere"),
        NewHome(NORTH, "n1", "127.0.0.1:4001", addresses=("node.example:0",)),
        NewHome(NORTH, f"spiffe://{SOUTH}/node/n1", "127.0.0.1:4001"),
    ):
        with pytest.raises(ConfigError):
            make_home(home, wrong, no_passphrase)
        assert not home.path.exists()


def test_tokens_that_others_can_read_are_refused(place: Path) -> None:
    home = make_member(place, NORTH)
    home.token("reader").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_tokens(home)
    home.token("bridge").write_bytes(b"short\n")
    with pytest.raises(ConfigError, match="not a token"):
        read_token(home.token("bridge"))


# Founding


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (1, "solo"),
        (2, "tolerates no fault"),
        (3, "tolerates no fault"),
        (4, "3 votes and tolerates 1 member that lies or is down"),
        (6, "5 votes and tolerates 1 member"),
        (7, "5 votes and tolerates 2 members"),
        (13, "9 votes and tolerates 4 members"),
    ],
)
def test_faults_are_said_in_words(members: int, said: str) -> None:
    assert said in tolerance(members)


def test_a_raised_quorum_is_said_too() -> None:
    said = tolerance(7, 6)
    assert "asks for 6 votes, more than the 5" in said
    assert "tolerates 2 members that lie, and decides with at most 1 member down" in said
    assert tolerance(7, 5) == tolerance(7)


def test_a_coalition_is_founded_when_all_have_signed(homes: dict[str, Home]) -> None:
    drafter, *others = homes.values()
    file = sign(draft(list(homes.values())), drafter)
    for index, home in enumerate(others):
        _, standing = verified(file)
        assert standing.epoch is None
        assert len(standing.unsigned) == len(standing.uncertified) == len(others) - index
        assert not standing.complete
        with pytest.raises(ConfigError, match="has to sign"):
            require_joinable(file, card_of(home), NOW)
        file = sign(parse_coalition(format_coalition(file)), home)
    holdings, standing = verified(file)
    assert standing.complete
    assert standing.epoch is not None
    assert standing.epoch.members.keys() == set(FOUR)
    assert holdings.governance() is not None
    for home in homes.values():
        join(file, home)


def test_signing_twice_is_signing_once(homes: dict[str, Home]) -> None:
    first = homes[NORTH]
    once = sign(draft(list(homes.values())), first, NOW)
    assert format_coalition(sign(once, first, NOW + 60)) == format_coalition(once)


def test_signatures_come_in_any_order(homes: dict[str, Home]) -> None:
    file = draft(list(homes.values()))
    forth, back = file, file
    for member in FOUR:
        forth = sign(forth, homes[member], NOW)
    for member in reversed(FOUR):
        back = sign(back, homes[member], NOW)
    assert format_coalition(forth) == format_coalition(back)


def test_a_stranger_signs_nothing(homes: dict[str, Home], place: Path) -> None:
    file = draft(list(homes.values()))
    stranger = make_member(place, "stranger.example")
    with pytest.raises(ConfigError, match="is no member by this draft; the members are"):
        sign(file, stranger)
    # One who claims to be a member, under another key.
    impostor = make_member(place / "impostor", NORTH)
    with pytest.raises(ConfigError, match="another organization key"):
        sign(file, impostor)


def test_a_signature_by_a_foreign_key_is_found(homes: dict[str, Home]) -> None:
    file = draft(list(homes.values()))
    assert file.draft is not None
    forged = replace(file, draft=add_signature(file.draft, SigningKey.from_seed(bytes(32))))
    with pytest.raises(ConfigError, match="does not verify"):
        verified(forged)


def test_a_changed_draft_is_another_coalition(homes: dict[str, Home]) -> None:
    """Whoever changes what was signed begins anew: the id of a coalition is that of its genesis."""
    one = draft(list(homes.values()))
    other = draft(list(homes.values()), quorum=4)
    assert one.coalition != other.coalition
    with pytest.raises(ConfigError):
        replace(one, draft=other.draft)


def test_a_drafter_is_a_member(homes: dict[str, Home], place: Path) -> None:
    outsider = make_member(place, "stranger.example")
    author = hand_of(outsider).organization(None, None)
    cards = [card_of(home) for home in homes.values()]
    with pytest.raises(ConfigError, match="own card"):
        draft_genesis("x", cards, taxonomy_body(), [NamedPolicy("main", policy_body())], author, NOW)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"publishers": ("nobody.example",)}, "publisher"),
        ({"quorum": 2}, "quorum of 2 of 4"),
        ({"quorum": 5}, "quorum of 5 of 4"),
    ],
)
def test_an_impossible_epoch_is_not_drafted(
    homes: dict[str, Home], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        draft(list(homes.values()), **options)


def test_two_cards_of_one_organization_are_one_too_many(homes: dict[str, Home]) -> None:
    card = card_of(homes[NORTH])
    with pytest.raises(ConfigError, match="two cards"):
        require_distinct([card, card])


def test_a_namespace_has_one_writer(place: Path) -> None:
    north = make_member(place, NORTH)
    south = make_member(place, SOUTH, namespaces=(NORTH,))
    with pytest.raises(ConfigError, match="two writers"):
        draft([north, south])


def test_policies_have_names_of_their_own(homes: dict[str, Home]) -> None:
    author = hand_of(homes[NORTH]).organization(None, None)
    cards = [card_of(home) for home in homes.values()]
    twice = [NamedPolicy("main", policy_body()), NamedPolicy("main", policy_body("// other\n"))]
    with pytest.raises(ConfigError, match="one name"):
        draft_genesis("x", cards, taxonomy_body(), twice, author, NOW)
    with pytest.raises(ConfigError, match="0 policies"):
        draft_genesis("x", cards, taxonomy_body(), [], author, NOW)


# Joining


def test_a_home_that_is_named_otherwise_does_not_join(homes: dict[str, Home], place: Path) -> None:
    file = signed_by_all(homes)
    outsider = make_member(place, "stranger.example")
    with pytest.raises(ConfigError, match="no member of epoch 0"):
        require_joinable(file, card_of(outsider), NOW)
    again = make_member(place / "again", NORTH)
    with pytest.raises(ConfigError, match="another organization key"):
        require_joinable(file, card_of(again), NOW)
    own = card_of(homes[NORTH])
    other_node = replace(own, node_key=card_of(again).node_key)
    with pytest.raises(ConfigError, match="no certificate"):
        require_joinable(file, other_node, NOW)
    other_road = replace(own, transport_key=card_of(again).transport_key)
    with pytest.raises(ConfigError, match="transport key"):
        require_joinable(file, other_road, NOW)


def test_joining_needs_a_right_clock(homes: dict[str, Home]) -> None:
    file = signed_by_all(homes)
    for wrong in (NOW - 400 * DAY_S, NOW + 400 * DAY_S):
        with pytest.raises(ConfigError, match=r"this machine's (time|clock)"):
            require_joinable(file, card_of(homes[NORTH]), wrong)


def test_a_file_that_lost_its_policy_is_not_joined(homes: dict[str, Home]) -> None:
    file = signed_by_all(homes)
    for kind in ("policy", "taxonomy"):
        less = replace(file, records=tuple(r for r in file.records if r.header.kind != kind))
        with pytest.raises(ConfigError, match="lacks"):
            require_joinable(less, card_of(homes[NORTH]), NOW)


def test_a_policy_that_the_epoch_does_not_name_changes_nothing(homes: dict[str, Home]) -> None:
    """A member that slips another policy into the file changes no rule: the epoch names bodies."""
    file = signed_by_all(homes)
    author = hand_of(homes[SOUTH]).organization(None, file.coalition)
    own = author.write_exact("policy", policy_body("// mine\n"), NOW, name="main", number=0)
    holdings = require_joinable(replace(file, records=(*file.records, own)), card_of(homes[NORTH]), NOW)
    governance = holdings.governance()
    assert governance is not None
    assert [bundle.policy.rules for bundle in governance.bundles] == [policy_body().rules]


def test_an_engine_that_the_coalition_does_not_accept_does_not_join(
    homes: dict[str, Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = signed_by_all(homes)
    monkeypatch.setattr("comity.node.coalitions.engine_id", lambda: bytes(32))
    with pytest.raises(ConfigError, match="engine that the coalition does not accept"):
        require_joinable(file, card_of(homes[NORTH]), NOW)


# Growing


def test_the_next_epoch_is_signed_by_old_and_new(homes: dict[str, Home], place: Path) -> None:
    file = signed_by_all(homes)
    newcomer = make_member(place, "uni.example")
    author = hand_of(homes[INSTITUTE]).organization(None, file.coalition)
    drafted = draft_successor(file, author, NOW, cards=[card_of(newcomer)])
    assert draft_unsigned(drafted) == tuple(sorted({*FOUR, "uni.example"} - {INSTITUTE}))
    grown = drafted
    for home in (*homes.values(), newcomer):
        assert grown.draft is not None
        grown = sign(grown, home)
    holdings, standing = verified(grown)
    assert standing.complete
    assert holdings.epoch.number == 1
    assert set(holdings.epoch.members) == {*FOUR, "uni.example"}
    assert grown.coalition == file.coalition
    join(grown, newcomer)
    require_successor(file, grown)
    with pytest.raises(ConfigError, match="this home knows epoch 1"):
        require_successor(grown, file)


def test_an_epoch_that_lacks_one_old_member_is_none(homes: dict[str, Home], place: Path) -> None:
    file = signed_by_all(homes)
    newcomer = make_member(place, "uni.example")
    author = hand_of(homes[NORTH]).organization(None, file.coalition)
    grown = draft_successor(file, author, NOW, cards=[card_of(newcomer)])
    for member in (NORTH, SOUTH, INSTITUTE):
        grown = sign(grown, homes[member])
    grown = sign(grown, newcomer)
    assert draft_unsigned(grown) == (BOARD,)
    assert grown.draft is not None
    forced = replace(grown, records=(*grown.records, grown.draft), draft=None)
    with pytest.raises(ConfigError, match="not signed by ethics-board"):
        verified(forced)


def test_other_policies_come_with_the_next_epoch(homes: dict[str, Home]) -> None:
    file = signed_by_all(homes)
    author = hand_of(homes[NORTH]).organization(None, file.coalition)
    changed = policy_body(policy_body().rules + "// changed\n")
    grown = draft_successor(file, author, NOW, policies=[NamedPolicy("main", changed)])
    for home in homes.values():
        grown = sign(grown, home)
    holdings, _ = verified(grown)
    governance = holdings.governance()
    assert governance is not None
    assert governance.bundles[0].policy.rules.endswith("// changed\n")
    assert epoch_of(grown.epochs[1]).taxonomy == epoch_of(grown.epochs[0]).taxonomy


def test_one_draft_at_a_time(homes: dict[str, Home], place: Path) -> None:
    file = draft(list(homes.values()))
    author = hand_of(homes[NORTH]).organization(None, file.coalition)
    card = card_of(make_member(place, "uni.example"))
    with pytest.raises(ConfigError, match="not founded"):
        draft_successor(file, author, NOW, cards=[card])
    founded = signed_by_all(homes)
    author = hand_of(homes[NORTH]).organization(None, founded.coalition)
    with pytest.raises(ConfigError, match="member already"):
        draft_successor(founded, author, NOW, cards=[card_of(homes[SOUTH])])
    drafted = draft_successor(founded, author, NOW, cards=[card])
    with pytest.raises(ConfigError, match="signed already"):
        draft_successor(drafted, author, NOW, cards=[card])


def test_a_node_key_is_renewed_by_another_certificate(homes: dict[str, Home]) -> None:
    file = signed_by_all(homes)
    home = homes[NORTH]
    held = certificate_for(file.records, card_of(home).node, card_of(home).node_key)
    assert held is not None
    # Nothing is signed while the one held lasts, and another one when it is about to end.
    assert sign(file, home, NOW) == file
    later = sign_draft(
        file, hand_of(home).organization(None, file.coalition), card_of(home), NOW + 350 * DAY_S
    )
    renewed = certificate_for(later.records, card_of(home).node, card_of(home).node_key)
    assert renewed is not None
    assert (renewed.id, renewed.header.number) != (held.id, held.header.number)
    assert renewed.header.number == held.header.number + 1
    # A new key for the node, e.g. after a restore.
    path = home.key(NODE_KEY)
    path.unlink()
    companion(path).unlink()
    fresh = create_key(path)
    card = replace(card_of(home), node_key=fresh.public)
    rekeyed = sign_draft(file, hand_of(home).organization(None, file.coalition), card, NOW)
    assert certificate_for(rekeyed.records, card.node, card.node_key) is not None


def test_another_coalition_is_not_joined_over_this_one(place: Path) -> None:
    one = found(place / "one", (NORTH, SOUTH))
    two = found(place / "two", (NORTH, SOUTH))
    held, other = (hand_of(homes[NORTH]).coalition() for homes in (one, two))
    with pytest.raises(ConfigError, match="another coalition already"):
        require_successor(held, other)


def test_an_epoch_body_has_a_salt_that_nobody_can_test(homes: dict[str, Home]) -> None:
    file = draft(
        list(homes.values()), taxonomy=Taxonomy(salt=bytes([7]) * 32, classes=taxonomy_body().classes)
    )
    assert file.draft is not None
    assert epoch_of(file.draft).salt != NO_SALT


# Time


def test_an_epoch_that_begins_later_is_not_signed(homes: dict[str, Home]) -> None:
    """A drafter's fast clock would stop the coalition until then."""
    first, second, *_ = homes.values()
    file = draft(list(homes.values()))
    assert file.draft is not None
    started = epoch_of(file.draft).started
    with pytest.raises(ConfigError) as caught:
        sign(file, second, now=started - ASK_AHEAD_S - 1)
    assert date_of(started) in str(caught.value)
    assert date_of(started - ASK_AHEAD_S - 1) in str(caught.value)
    assert "epoch 0 begins at" in str(caught.value)
    signed = sign(file, second, now=started - ASK_AHEAD_S)
    assert card_of(second).member not in draft_unsigned(signed)
    assert card_of(first).member not in draft_unsigned(signed)


def test_an_epoch_that_begins_later_is_neither_drafted_nor_joined(homes: dict[str, Home]) -> None:
    """Its successor would have to begin later still."""
    home = homes[NORTH]
    file = signed_by_all(homes)
    started = epoch_of(file.epochs[0]).started
    author = hand_of(home).organization(None, file.coalition)
    with pytest.raises(ConfigError, match="epoch 1 begins at"):
        draft_successor(file, author, started - ASK_AHEAD_S - 1, publishers=[NORTH])
    with pytest.raises(ConfigError, match="epoch 0 begins at"):
        require_joinable(file, card_of(home), started - ASK_AHEAD_S - 1)
    assert require_joinable(file, card_of(home), started - ASK_AHEAD_S).epoch.number == 0
