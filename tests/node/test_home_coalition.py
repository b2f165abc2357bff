"""What a home keeps of its coalition: brought up to date by its node, and the same for all members."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from comity.attestation.roots import parse_roots
from comity.node.coalition_file import CoalitionFile, read_coalition, write_coalition
from comity.node.coalitions import certify, draft_successor, require_joinable, verified
from comity.node.home import Home
from comity.node.home_coalition import Learned, bring_up_to_date, continued, keep_coalition
from comity.protocol.errors import ConfigError
from command_line import comity
from houses import DEADLINE_S, card_of, found, hand_of, inhabited, make_member, short_folder, sign
from world import NORTH, SOUTH

UNI = "uni.example"
NOW = int(time.time())


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def grown(homes: dict[str, Home], newcomer: Home) -> CoalitionFile:
    """The next epoch with one more member, signed by all."""
    held = read_coalition(homes[NORTH].coalition)
    author = hand_of(homes[NORTH]).organization(None, held.coalition)
    file = draft_successor(held, author, NOW, cards=[card_of(newcomer)])
    for home in (*homes.values(), newcomer):
        file = sign(file, home)
    return file


def learned_from(file: CoalitionFile) -> Learned:
    return Learned(
        file.epochs,
        (*file.of_kind("taxonomy"), *file.of_kind("policy")),
        file.of_kind("node_certificate"),
    )


async def test_a_node_that_is_told_of_an_epoch_writes_it_into_its_home(place: Path) -> None:
    """One member joins with the file; the other's node hears of it, and what its home hands out follows."""
    homes = found(place, (NORTH, SOUTH))
    newcomer = make_member(place, UNI, listen="127.0.0.1:4001")
    file = place / "next.toml"
    write_coalition(file, grown(homes, newcomer))
    async with inhabited(homes) as houses:
        await trio.to_thread.run_sync(
            lambda: comity("coalition", "join", file, "--home", homes[NORTH].path, "--json")
        )
        await houses[SOUTH].until(lambda said: said["epoch"] == 1)
        with trio.fail_after(DEADLINE_S):
            while parse_roots(homes[SOUTH].roots.read_text()).epoch_number != 1:
                await houses[SOUTH].ask(lambda client: client.status(), "reader")
    assert homes[SOUTH].roots.read_text() == homes[NORTH].roots.read_text()
    for number in (0, 1):
        pinned = parse_roots(homes[SOUTH].roots_of(number).read_text())
        assert pinned.epoch_number == number
        assert pinned == parse_roots(homes[NORTH].roots_of(number).read_text())
    said = comity("coalition", "show", "--home", homes[SOUTH].path, "--json").json
    assert (said["epoch"], [member["member"] for member in said["members"]]) == (1, [NORTH, SOUTH, UNI])


def test_a_file_is_continued_by_what_a_node_learned(place: Path) -> None:
    homes = found(place, (NORTH, SOUTH))
    newcomer = make_member(place, UNI)
    held = read_coalition(homes[SOUTH].coalition)
    newer = grown(homes, newcomer)
    got = continued(held, learned_from(newer))
    assert got.epochs == newer.epochs
    assert verified(got)[1].complete
    require_joinable(got, card_of(homes[SOUTH]), int(time.time()))
    require_joinable(got, card_of(newcomer), int(time.time()))
    # Again, with nothing new; and a node that knows less than the file takes nothing away.
    assert continued(got, learned_from(newer)) == got
    assert continued(newer, learned_from(held)) == newer


def test_a_draft_that_others_finished_is_a_draft_no_more(place: Path) -> None:
    homes = found(place, (NORTH, SOUTH))
    newer = grown(homes, make_member(place, UNI))
    held = read_coalition(homes[SOUTH].coalition)
    open_draft = replace(held, members=newer.members, draft=newer.epochs[1])
    assert continued(open_draft, learned_from(newer)).draft is None
    assert continued(open_draft, learned_from(held)) == open_draft


def test_a_nodes_many_certificates_do_not_fill_the_file(place: Path) -> None:
    """A newcomer's organization may sign any number; the newest of each of its nodes is written."""
    homes = found(place, (NORTH, SOUTH))
    newcomer = make_member(place, UNI)
    newer = grown(homes, newcomer)
    author = hand_of(newcomer).organization(None, newer.coalition)
    card = card_of(newcomer)
    more = [
        certify(author, replace(card, node=f"spiffe://{UNI}/node/x{index}"), NOW, days=1, number=number)
        for index in range(80)
        for number in (1, 2)
    ]
    learned = learned_from(newer)
    got = continued(
        read_coalition(homes[SOUTH].coalition),
        replace(learned, certificates=(*learned.certificates, *more)),
    )
    entry = next(entry for entry in got.members if entry.id == UNI)
    assert len(entry.nodes) == 64
    written = [r for r in got.of_kind("node_certificate") if r.header.member == UNI]
    assert len(written) == 64
    assert {r.header.number for r in written if r.header.name != card.node} == {2}


def test_another_chain_changes_no_home(place: Path) -> None:
    homes = found(place / "one", (NORTH, SOUTH))
    others = found(place / "two", (NORTH, SOUTH))
    home = homes[NORTH]
    before = home.coalition.read_bytes()
    with pytest.raises(ConfigError, match="another epoch 0"):
        bring_up_to_date(home, learned_from(read_coalition(others[NORTH].coalition)))
    assert home.coalition.read_bytes() == before


def test_what_is_new_is_written_once(place: Path) -> None:
    homes = found(place, (NORTH, SOUTH))
    home = homes[SOUTH]
    newer = grown(homes, make_member(place, UNI))
    assert bring_up_to_date(home, learned_from(newer))
    assert not bring_up_to_date(home, learned_from(newer))
    assert home.roots_of(1).read_text() == home.roots.read_text()


def test_a_home_that_cannot_be_written_says_so(place: Path) -> None:
    homes = found(place, (NORTH,))
    home = homes[NORTH]
    home.roots_of(0).parent.write_text("in the way")
    with pytest.raises(ConfigError, match="roots: cannot be made"):
        keep_coalition(home, read_coalition(home.coalition))
