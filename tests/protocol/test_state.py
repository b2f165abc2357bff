"""State is a function of the set of records: arrival order never matters (law 5)."""

from __future__ import annotations

import functools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from comity.attestation.verification import KeyDirectory, verify
from comity.protocol.execution import Observation
from comity.protocol.governance import Epoch, OwnerPolicy, Revocation
from comity.protocol.records import decode_body
from comity.protocol.state import ORGANIZATION, AnyRecord, State, number_key
from specimens import NORTH, SALT, SOUTH, T0, Pen, certificate, digest, specimens

GENESIS = specimens()["epoch"]
SUBJECTS = tuple(sorted(digest(f"subject {i}") for i in range(3)))


@functools.cache
def pool() -> tuple[AnyRecord, ...]:
    """Records with equal and different authors, names, numbers and subjects; some adverse."""
    directory = KeyDirectory()
    epoch = decode_body(GENESIS)
    assert isinstance(epoch, Epoch)
    directory.admit_members(epoch.members)
    records = [certificate(NORTH, GENESIS.id), certificate(SOUTH, GENESIS.id)]
    for record in records:
        directory.admit(verify(record, directory))
    for member in (NORTH, SOUTH):
        owner = Pen(member, member, None, GENESIS.id)
        records += [
            owner.write("owner_policy", OwnerPolicy(SALT, ()), at, name="owner", number=number)
            for number, at in ((1, T0), (1, T0 + 1), (2, T0))
        ]
        records += [
            owner.write("revocation", Revocation(SALT, "key_lost"), subject=about)
            for about in (SUBJECTS[:1], SUBJECTS[:2], SUBJECTS[2:])
        ]
        records += [
            owner.write("observation", Observation(SALT, "check"), subject=SUBJECTS[1:2], outcome=outcome)
            for outcome in ("failed", "passed")
        ]
    return tuple(verify(record, directory) for record in records)


arrivals = st.lists(st.integers(0, 17), max_size=30).map(lambda indices: [pool()[i] for i in indices])


def anybody(subject: bytes) -> set[tuple[str, bytes]]:
    """All keys that signed something in the pool may take back."""
    return {(r.member, ORGANIZATION if r.role == "organization" else r.header.key) for r in pool()}


def everything(state: State) -> Any:
    """All that a state answers."""
    return (
        [r.id for r in state],
        len(state),
        {kind: [r.id for r in state.of_kind(kind)] for kind in ("owner_policy", "revocation", "observation")},
        [[r.id for r in state.adverse_about(SUBJECTS[i:j], anybody)] for i in range(3) for j in range(i, 4)],
        [[r.id for r in state.rivals(r)] for r in pool()],
        [[r.id for r in state.successors(r)] for r in pool()],
        [(state.get(r.id) is not None, r.id in state) for r in pool()],
    )


@given(arrivals, st.randoms())
def test_arrival_order_and_repetition_do_not_matter(arrived: list[AnyRecord], dice: Any) -> None:
    shuffled = arrived + arrived[:5]
    dice.shuffle(shuffled)
    assert everything(State(arrived)) == everything(State(shuffled))


@given(arrivals, arrivals)
def test_two_holdings_that_exchange_everything_agree(left: list[AnyRecord], right: list[AnyRecord]) -> None:
    one, other = State(left), State(right)
    for record in right:
        one.add(record)
    for record in left:
        other.add(record)
    assert everything(one) == everything(other)


@given(arrivals)
def test_the_answers_are_those_of_the_plain_set(arrived: list[AnyRecord]) -> None:
    state, held = State(arrived), {r.id: r for r in arrived}
    assert {r.id for r in state.adverse_about(SUBJECTS, anybody)} == {
        i for i, r in held.items() if r.is_adverse() and set(r.header.subject) & set(SUBJECTS)
    }
    for record in pool():
        key = number_key(record)
        assert {r.id for r in state.rivals(record)} == {
            i for i, r in held.items() if key is not None and number_key(r) == key and i != record.id
        }
        header = record.header
        assert {r.id for r in state.successors(record)} == {
            i
            for i, r in held.items()
            if (r.header.kind, r.header.member, r.header.name) == (header.kind, header.member, header.name)
            and r.header.number > header.number
        }


def test_a_record_is_new_once() -> None:
    state = State()
    assert [state.add(pool()[0]), state.add(pool()[0])] == [True, False]


def test_equal_numbers_are_rivals_only_under_one_key() -> None:
    policies = [r for r in pool() if r.header.kind == "owner_policy" and r.member == NORTH]
    state = State(pool())
    assert [len(state.rivals(r)) for r in policies] == [1, 1, 0]
    assert [len(state.successors(r)) for r in policies] == [1, 1, 0]


def test_what_has_no_name_has_no_rivals() -> None:
    revocations = [r for r in pool() if r.header.kind == "revocation"]
    assert all(number_key(r) is None for r in revocations)
    assert all(State(pool()).rivals(r) == () for r in revocations)
