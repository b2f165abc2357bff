"""A stranger with a bundle and roots: what is verified, and that nothing may be changed."""

from __future__ import annotations

import dataclasses
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.attestation.authoring import NO_SALT
from comity.attestation.offline import verify_bundle
from comity.attestation.roots import Roots
from comity.protocol.bundle import Bundle, decode_bundle
from comity.protocol.envelope import SignedRecord, assemble
from comity.protocol.errors import ComityError, DecodeError, VerificationError
from comity.protocol.identifiers import sha256
from stories import Pooled
from world import ENGINE, INSTITUTE, NORTH, START, Organization, World

STORY = Pooled.told()
DATA = STORY.bundle().encoded()
ROOTS = STORY.roots()


def reason_of(data: bytes, roots: Roots = ROOTS) -> str:
    with pytest.raises(VerificationError) as caught:
        verify_bundle(data, roots, ENGINE)
    return caught.value.reason


def test_a_whole_bundle_is_judged_again() -> None:
    report = verify_bundle(DATA, ROOTS, ENGINE)
    assert report.level == "re-judged"
    assert report.cosigned is False
    assert report.votes_rejudged == report.kinds["vote"] >= 15
    assert report.targets[0]["asset"] == f"{INSTITUTE}/plain/pool"


def test_another_engine_only_checks_signatures() -> None:
    report = verify_bundle(DATA, ROOTS, sha256(b"another engine"))
    assert report.level == "signed"
    assert report.why_not_rejudged


def test_a_refusal_is_verified_too() -> None:
    report = verify_bundle(STORY.refusal_bundle().encoded(), ROOTS, ENGINE)
    assert report.level == "re-judged"
    assert report.targets[0]["kind"] == "refusal"


def test_bundle_is_the_same_every_time() -> None:
    assert Pooled.told().bundle().encoded() == DATA


@given(st.integers(0, len(DATA) * 8 - 1))
def test_any_changed_bit_is_found(position: int) -> None:
    changed = bytearray(DATA)
    changed[position // 8] ^= 1 << (position % 8)
    with pytest.raises((DecodeError, VerificationError)):
        verify_bundle(bytes(changed), ROOTS, ENGINE)


def test_bytes_changed_everywhere() -> None:
    """Every 37th byte, each with another value: a walk over the whole bundle."""
    rng = Random(1)
    for position in range(rng.randrange(37), len(DATA), 37):
        changed = bytearray(DATA)
        changed[position] ^= rng.randrange(1, 256)
        with pytest.raises(ComityError):
            verify_bundle(bytes(changed), ROOTS, ENGINE)


def test_any_missing_record_is_named() -> None:
    bundle = decode_bundle(DATA)
    for index in range(len(bundle.records)):
        records = bundle.records[:index] + bundle.records[index + 1 :]
        with pytest.raises(VerificationError) as caught:
            verify_bundle(dataclasses.replace(bundle, records=records).encoded(), ROOTS, ENGINE)
        assert caught.value.reason in {"record_missing", "authority_missing"}


def test_reordered_records_are_refused() -> None:
    bundle = decode_bundle(DATA)
    swapped = (bundle.records[1], bundle.records[0], *bundle.records[2:])
    with pytest.raises(DecodeError, match="order"):
        verify_bundle(dataclasses.replace(bundle, records=swapped).encoded(), ROOTS, ENGINE)
    twice = (bundle.records[0], *bundle.records)
    with pytest.raises(DecodeError, match="order"):
        verify_bundle(dataclasses.replace(bundle, records=twice).encoded(), ROOTS, ENGINE)


def test_foreign_record_is_named() -> None:
    bundle = decode_bundle(DATA)
    stray = STORY.world[NORTH].observe(STORY.target.id, "passed")
    records = tuple(sorted((*bundle.records, stray), key=lambda r: r.id))
    assert reason_of(dataclasses.replace(bundle, records=records).encoded()) == "record_foreign"
    other = World(("a.example", "b.example"))["a.example"].certificate
    records = tuple(sorted((*bundle.records, other), key=lambda r: r.id))
    assert reason_of(dataclasses.replace(bundle, records=records).encoded()) == "record_foreign"


def test_bundle_that_is_its_own_root() -> None:
    """A whole coalition of the forger's own, under the roots of the real one."""
    own = World((*sorted(STORY.world.members)[:3], "mallory.example"))
    pursuit = own.decide(own[NORTH].intent("plain/a"))
    target = own[NORTH].actuate(pursuit.permit.record)
    from comity.attestation.exporting import export_bundle

    forged = export_bundle((target.id,), own[NORTH].holdings)
    assert reason_of(forged.encoded()) == "roots_other"
    pretended = dataclasses.replace(forged, coalition=ROOTS.coalition)
    assert reason_of(pretended.encoded()) in {"roots_other", "record_foreign"}


def test_roots_of_another_coalition() -> None:
    other = World(("a.example", "b.example")).genesis.id
    roots = Roots(coalition=other, epoch_number=0, epoch=other, name="other", made=START)
    assert reason_of(DATA, roots) == "roots_other"


def test_pin_that_the_chain_misses() -> None:
    missed = msgspec.structs.replace(ROOTS, epoch=sha256(b"another epoch"))
    assert reason_of(DATA, missed) == "pin_missed"
    ahead = msgspec.structs.replace(ROOTS, epoch_number=3)
    assert reason_of(DATA, ahead) == "pin_not_reached"


def test_signature_of_another_record() -> None:
    bundle = decode_bundle(DATA)
    one, two = bundle.records[0], bundle.records[1]
    signature = dataclasses.replace(one.signatures[0], value=two.signatures[0].value)
    forged = assemble(one.header_bytes, one.body_bytes, (signature,))
    records = (forged, *bundle.records[1:])
    assert reason_of(dataclasses.replace(bundle, records=records).encoded()) == "signature_wrong"


def test_vote_that_no_judgement_gives() -> None:
    """Three members sign what the rules do not give: signatures check, judging again does not."""
    world = World()
    north = world[NORTH]
    pursuit = world.decide(north.intent("forbidden/a"))
    from comity.attestation.tally import full_extents
    from comity.protocol.execution import Claim, Permit
    from comity.protocol.outcome import Mode, execute

    full = full_extents(pursuit.intent.body)[0]
    votes = []
    for name, vote in sorted(pursuit.votes.items())[:3]:
        judgement = msgspec.structs.replace(vote.body.judgements[0], outcome=execute(full))
        bent = msgspec.structs.replace(vote.body, judgements=(judgement,), salt=NO_SALT)
        votes.append(world[name].node.write("vote", bent, START, subject=(pursuit.intent.id,)))
    state = pursuit.votes[NORTH].body.judgements[0].state
    body = Permit(
        salt=NO_SALT,
        intent=pursuit.intent.id,
        ask=pursuit.ask.id,
        t=START,
        scope=world.genesis.id,
        epoch=world.genesis.id,
        claims=(Claim(index=0, mode=Mode.EXECUTE, extent=full, state=state),),
        votes=tuple(sorted(v.id for v in votes)),
        expires=START + 600,
    )
    permit = north.node.write("permit", body, START, subject=(pursuit.intent.id,))
    north.holdings.admit([*votes, permit])
    from comity.attestation.exporting import export_bundle

    bundle: Bundle = export_bundle((permit.id,), north.holdings)
    roots = Roots(coalition=world.genesis.id, epoch_number=0, epoch=world.genesis.id, name="x", made=START)
    with pytest.raises(VerificationError) as caught:
        verify_bundle(bundle.encoded(), roots, ENGINE)
    assert caught.value.reason == "judgement_differs"
    assert verify_bundle(bundle.encoded(), roots, sha256(b"no engine")).level == "signed"


def test_work_started_after_the_permit_ended() -> None:
    world = World()
    north = world[NORTH]
    pursuit = world.decide(north.intent("plain/a"))
    made = north.actuate(pursuit.permit.record)
    start = north.holdings.get(made_start(north, made))
    assert start is not None
    late = north.node.write(
        "start", msgspec.structs.replace(start.body, salt=NO_SALT), pursuit.permit.body.expires + 1
    )
    north.holdings.admit([late])
    body = north.holdings.get(made.id).body  # type: ignore[union-attr]
    forged = north.node.write(
        "actuation",
        msgspec.structs.replace(body, start=late.id, salt=NO_SALT),
        START + 9,
        outcome="promoted",
        governance=made.header.governance,
    )
    north.holdings.admit([forged])
    from comity.attestation.exporting import export_bundle

    bundle = export_bundle((forged.id,), north.holdings)
    roots = Roots(coalition=world.genesis.id, epoch_number=0, epoch=world.genesis.id, name="x", made=START)
    with pytest.raises(VerificationError) as caught:
        verify_bundle(bundle.encoded(), roots, ENGINE)
    assert caught.value.reason == "permit_expired"


def made_start(organization: Organization, actuation: SignedRecord) -> bytes:
    record = organization.holdings.get(actuation.id)
    assert record is not None
    start: bytes = record.body.start
    return start


def test_two_actuations_of_one_slot() -> None:
    world = World()
    north = world[NORTH]
    made = []
    for run in ("one", "two"):
        pursuit = world.decide(north.intent("plain/a", run=run))
        made.append(north.actuate(pursuit.permit.record).id)
    from comity.attestation.exporting import export_bundle

    bundle = export_bundle(made, north.holdings)
    roots = Roots(coalition=world.genesis.id, epoch_number=0, epoch=world.genesis.id, name="x", made=START)
    with pytest.raises(VerificationError) as caught:
        verify_bundle(bundle.encoded(), roots, ENGINE)
    assert caught.value.reason == "slot_twice"
