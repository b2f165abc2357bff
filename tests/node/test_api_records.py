"""Records over the local API: what people sign and hand in, who is told, and how the coalition grows."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_calls import SOLO, coalition, equip, solo, step, submit, submit_record
from comity.attestation.authoring import NO_SALT
from comity.node.client import (
    NodeError,
    NotFoundError,
)
from comity.node.credentialing import Wish, issued
from comity.node.keystore import companion, create_key
from comity.node.publications import owner_policy_record
from comity.node.signing_hand import now
from comity.protocol.execution import Observation
from comity.protocol.governance import Policy
from houses import found, hand_of, inhabited, join, short_folder, sign, street
from world import NORTH, SOUTH, policy_body


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


async def test_governance_records_reach_every_member(place: Path) -> None:
    async with inhabited(found(place)) as houses:
        north = houses[NORTH]
        record = owner_policy_record(
            hand_of(north.home).organization(None, coalition(north)), ["*=live"], None
        )
        said = await submit_record(north, record)
        assert said["told"] == sorted(set(houses) - {NORTH})
        assert (await submit_record(north, record))["new"] is False
        for house in houses.values():
            shown = await house.ask(lambda client: client.record(record.id.hex()), "reader")
            assert shown["kind"] == "owner_policy"
            assert base64.b64decode(shown["record"]) == record.encoded()


async def test_what_is_no_record_of_a_person_is_not_taken(place: Path) -> None:
    homes = found(place, SOLO)
    other = found(place / "other", (SOUTH,))
    async with inhabited(homes) as houses:
        house = houses[NORTH]

        async def refused(data: bytes) -> str:
            with pytest.raises(NodeError) as excinfo:
                await house.ask(lambda client: client.submit_record(data), "operator")
            return excinfo.value.code

        assert await refused(b"garbage") == "record_unreadable"
        credential = await equip(house)
        changed = bytearray(credential.encoded())
        changed[200] ^= 1
        assert await refused(bytes(changed)) in ("record_unreadable", "record_refused")
        foreign, _ = issued(hand_of(other[SOUTH]), Wish("node/n1", "automation", ("agent",), node_key=True))
        assert await refused(foreign.encoded()) == "record_refused"
        answer = await submit(house, step("plain/a"))
        permit = await house.ask(lambda client: client.record(answer.permit), "reader")
        assert await refused(base64.b64decode(permit["record"])) == "kind_not_taken"
        path = house.home.path / "stranger.pem"
        create_key(path)
        unpublished, _ = issued(
            hand_of(house.home),
            Wish("operator/x", "person", ("agent",), public=companion(path), delegations=1),
        )
        holder = hand_of(house.home).holder(path, unpublished)
        body = Observation(salt=NO_SALT, claim="check")
        early = holder.write("observation", body, now(), subject=(credential.id,), outcome="passed")
        assert await refused(early.encoded()) == "authority_unknown"


async def test_an_unknown_record_is_not_found(place: Path) -> None:
    async with solo(place) as house:
        with pytest.raises(NotFoundError):
            await house.ask(lambda client: client.record("ab" * 32), "reader")
        with pytest.raises(NotFoundError):
            await house.ask(lambda client: client.decision("ab" * 32), "reader")
        with pytest.raises(NotFoundError) as excinfo:
            await house.ask(lambda client: client.lineage("plain/never"), "reader")
        assert "plain/never" in str(excinfo.value)


async def test_a_newcomer_is_admitted_while_all_run(place: Path) -> None:
    """The next epoch is handed to one node; the others take it, and the newcomer is a peer of all."""
    from comity.node.coalition_file import read_coalition
    from comity.node.coalitions import draft_successor
    from houses import card_of, make_member

    homes = found(place)
    newcomer = make_member(place, "uni.example")
    async with street() as here:
        houses = {member: await here.start(home) for member, home in homes.items()}
        for house in houses.values():
            await house.until(lambda said: said["reachable"] == 4)
        hand = hand_of(homes[NORTH])
        held = read_coalition(homes[NORTH].coalition)
        file = draft_successor(
            held, hand.organization(None, held.coalition), now(), cards=[card_of(newcomer)]
        )
        for home in (*homes.values(), newcomer):
            file = sign(file, home)
        join(file, newcomer)
        fifth = await here.start(newcomer)
        north = houses[NORTH]
        for record in (*file.epochs, *file.of_kind("node_certificate")):
            await submit_record(north, record)
        for house in (*houses.values(), fifth):
            said = await house.until(lambda said: said["reachable"] == 5 and said["epoch"] == 1)
            assert said["quorum"] == 4
        await equip(fifth)
        assert (await submit(fifth, step("plain/a"))).outcome == "execute"


async def test_what_is_governed_is_written_down_for_programs_beside(place: Path) -> None:
    async with solo(place) as house:
        said = json.loads(house.home.governed.read_text())
        assert said == {
            "member": NORTH,
            "patterns": sorted(rule.pattern for rule in policy().assets),
        }


def policy() -> Policy:
    return policy_body()
