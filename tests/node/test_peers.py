"""Whom a node connects with: what one member certifies costs no other its connection."""

from __future__ import annotations

from typing import Any

from comity.attestation.authoring import NO_SALT
from comity.gossip.transport import PEERS_MAX, check_peers
from comity.node.clock import ManualClock
from comity.node.core import Core, Identity
from comity.node.service import peers_from
from comity.node.store_memory import MemoryStore
from comity.protocol.envelope import SignedRecord
from comity.protocol.governance import NodeCertificate
from comity.protocol.identifiers import sha256
from comity.protocol.limits import NODES_PER_MEMBER_MAX
from world import BOARD, ENGINE, INSTITUTE, NORTH, SOUTH, START, YEAR, Organization, World, key

ADDRESS = "/ip4/192.0.2.1/tcp/4001"
HONEST = {f"spiffe://{name}/node/n1" for name in (INSTITUTE, BOARD)}


def transport_key(member: str) -> bytes:
    return sha256(f"transport {member}".encode())


def north_knows(world: World, *records: SignedRecord) -> Core:
    identity = Identity(NORTH, f"spiffe://{NORTH}/node/n1", world[NORTH].node)
    core = Core(identity, MemoryStore(), ManualClock(START), ENGINE, (world.genesis,))
    core.admit([*world.common, *records])
    return core


def certified(member: Organization, node: str, at: int, transport: bytes, **changes: Any) -> SignedRecord:
    body = NodeCertificate(
        salt=NO_SALT,
        node=f"spiffe://{member.name}/node/{node}",
        key=key(f"{member.name}/{node}/{at}").public,
        transport_key=transport,
        not_before=changes.get("not_before", START - YEAR),
        not_after=START + YEAR,
    )
    return member.owner.write("node_certificate", body, at, name=node)


def test_member_with_more_nodes_than_anybody_connects_with() -> None:
    """Its newest few are peers, and everybody else stays one."""
    world = World()
    south = world[SOUTH]
    many = [
        certified(south, f"x{n}", START - 1_000 + n, sha256(f"x{n}".encode())) for n in range(PEERS_MAX + 40)
    ]
    peers = peers_from(north_knows(world, *many), {})
    check_peers(peers, transport_key(NORTH))
    names = {peer.name for peer in peers}
    assert names >= HONEST
    newest = {record.header.name for record in many[-NODES_PER_MEMBER_MAX:]}
    assert names - HONEST == {f"spiffe://{SOUTH}/node/{name}" for name in newest}


def test_certificates_of_one_node_are_one_node_and_the_newest_counts() -> None:
    world = World()
    south = world[SOUTH]
    renewed = [
        certified(south, "n1", START - 1_000 + n, sha256(f"n1 {n}".encode()))
        for n in range(2 * NODES_PER_MEMBER_MAX)
    ]
    later = certified(south, "n1", START, sha256(b"later"), not_before=START + 60)
    second = certified(south, "n2", START - 5_000, sha256(b"n2"))
    core = north_knows(world, *renewed, later, second)
    said = {peer.name: peer.transport_key for peer in peers_from(core, {}) if SOUTH in peer.name}
    assert said == {
        f"spiffe://{SOUTH}/node/n1": sha256(f"n1 {len(renewed) - 1}".encode()),
        f"spiffe://{SOUTH}/node/n2": sha256(b"n2"),
    }
    core.admit([south.revoke(renewed[-1].id)])
    said = {peer.name: peer.transport_key for peer in peers_from(core, {}) if SOUTH in peer.name}
    assert said[f"spiffe://{SOUTH}/node/n1"] == sha256(f"n1 {len(renewed) - 2}".encode())


def test_member_that_certifies_anothers_transport_key() -> None:
    """Neither the one whose key it is nor we lose a connection by it."""
    world = World()
    south = world[SOUTH]
    for at in (START, START - 2 * YEAR):
        copies = [
            certified(south, f"x{n}", at, transport_key(name)) for n, name in enumerate((INSTITUTE, NORTH))
        ]
        known: dict[str, tuple[str, ...]] = dict.fromkeys(HONEST, (ADDRESS,))
        peers = peers_from(north_knows(world, *copies), known)
        assert {peer.name for peer in check_peers(peers, transport_key(NORTH)).values()} >= HONEST
        if at == START:
            peers = peers_from(north_knows(world, *copies), {})
            assert {peer.name for peer in check_peers(peers, transport_key(NORTH)).values()} >= HONEST


def test_a_suspended_node_is_a_peer_again_when_that_ends() -> None:
    world = World()
    certificate = world[BOARD].certificate
    by_another = world[SOUTH].suspend(certificate.id, START + 50)
    for until, is_peer in ((START + 1, False), (START, True)):
        core = north_knows(world, by_another, world[BOARD].suspend(certificate.id, until))
        assert (f"spiffe://{BOARD}/node/n1" in {peer.name for peer in peers_from(core, {})}) is is_peer
