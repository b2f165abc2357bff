"""The epoch chain: who agreed to what, and which epoch may not stand whoever signed it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.attestation.epochs import (
    EpochState,
    chain,
    epoch_problem,
    faults_tolerated,
    found,
    quorum_of,
    signatures_missing,
    succeed,
)
from comity.attestation.signing import add_signature, key_id
from comity.protocol.encoding import encode
from comity.protocol.envelope import SignedRecord, assemble, body_reference, seal_header
from comity.protocol.errors import DecodeError, VerificationError
from comity.protocol.governance import Epoch, Member, PublicKey
from comity.protocol.limits import MEMBERS_MAX
from specimens import SALT, T0, Pen, digest, key, specimens

A, B, C, D = "a.example", "b.example", "c.example", "d.example"


def member(name: str, *keys: str, namespaces: tuple[str, ...] = ()) -> Member:
    return Member(name, tuple(key(k).public for k in keys or (name,)), namespaces or (name,))


def body_of(*members: Member, **changes: Any) -> Epoch:
    body = Epoch(
        salt=SALT,
        coalition_name="four",
        started=T0,
        certificate="unanimous",
        members=members,
        suites=("ed25519",),
        engines=(digest("engine"),),
        vectors=digest("vectors"),
        taxonomy=digest("taxonomy"),
        policies=(digest("policy"),),
    )
    return msgspec.structs.replace(body, **changes)


def signed(
    body: Epoch, *signers: str, author: str = A, pen: str | None = None, **header: Any
) -> SignedRecord:
    """An epoch signed by exactly these keys."""
    record = Pen(author, pen or author).write("epoch", body, T0, **header)
    for name in signers:
        record = add_signature(record, key(name))
    wanted = {key(name).key_id for name in signers}
    return assemble(
        record.header_bytes, record.body_bytes, tuple(s for s in record.signatures if s.key in wanted)
    )


def genesis(*names: str, **changes: Any) -> SignedRecord:
    return signed(body_of(*(member(name) for name in names), **changes), *names)


def after(current: EpochState, body: Epoch, *signers: str, **header: Any) -> SignedRecord:
    linked = msgspec.structs.replace(body, previous=body.previous or current.id)
    fields: dict[str, Any] = {"coalition": current.coalition, "number": current.number + 1, **header}
    return signed(linked, *signers, **fields)


def refused(record: SignedRecord, reason: str, current: EpochState | None = None) -> None:
    with pytest.raises(VerificationError) as caught:
        succeed(current, record) if current is not None else found(record)
    assert caught.value.reason == reason


FIRST = found(genesis(A, B, C))

# Counting


@pytest.mark.parametrize("n", range(1, MEMBERS_MAX + 1))
def test_quorums_are_available_and_overlap_in_an_honest_member(n: int) -> None:
    f, q = faults_tolerated(n), quorum_of(n)
    assert n - f >= q, "those that are left decide"
    assert 2 * q - n > f, "two quorums share an honest member"
    assert q > f
    assert 3 * f < n <= 3 * f + 3


def test_quorums_by_number() -> None:
    assert [(n, quorum_of(n), faults_tolerated(n)) for n in (1, 2, 3, 4, 7, 10, 13)] == [
        (1, 1, 0),
        (2, 2, 0),
        (3, 3, 0),
        (4, 3, 1),
        (7, 5, 2),
        (10, 7, 3),
        (13, 9, 4),
    ]


@pytest.mark.parametrize(
    ("n", "quorum", "counted", "faults"), [(4, 0, 3, 1), (4, 3, 3, 1), (4, 4, 4, 0), (7, 6, 6, 1)]
)
def test_a_stricter_quorum_tolerates_fewer_absentees(n: int, quorum: int, counted: int, faults: int) -> None:
    names = [f"m{i}.example" for i in range(n)]
    state = found(signed(body_of(*map(member, names), quorum=quorum), *names, author=names[0]))
    assert (state.quorum, state.faults) == (counted, faults)


@pytest.mark.parametrize("quorum", [1, 2, 5])
def test_a_quorum_below_two_thirds_or_above_all_is_refused(quorum: int) -> None:
    refused(genesis(A, B, C, D, quorum=quorum), "quorum_low")


# A genesis


def test_a_genesis_is_signed_by_all() -> None:
    state = found(genesis(A, B, C))
    assert state.coalition == state.id
    assert (state.number, state.quorum, state.faults) == (0, 3, 0)
    assert list(state.members) == [A, B, C]
    assert not state.is_solo
    assert found(genesis(A)).is_solo
    assert found(specimens()["epoch"]).quorum == 2


@pytest.mark.parametrize("missing", [A, B, C])
def test_a_missing_signature_is_named(missing: str) -> None:
    signers = [name for name in (A, B, C) if name != missing]
    record = signed(body_of(member(A), member(B), member(C)), *signers, author=signers[0])
    refused(record, "epoch_unsigned")
    with pytest.raises(VerificationError, match=missing):
        found(record)
    assert signatures_missing(record, (member(A), member(B), member(C))) == (missing,)


def test_a_signature_by_a_key_of_no_member_is_refused() -> None:
    refused(signed(body_of(member(A), member(B)), A, B, "stranger"), "key_unknown")


def test_a_forged_signature_is_refused() -> None:
    record = genesis(A, B)
    forged = tuple(
        type(s)(s.key, s.suite, bytes(64)) if s.key == key(B).key_id else s for s in record.signatures
    )
    refused(assemble(record.header_bytes, record.body_bytes, forged), "signature_wrong")


def test_a_signature_that_nobody_needs_is_refused() -> None:
    """Else two copies of one certificate would differ in a byte that nothing checks."""
    two_keys = body_of(member(A, A, "a2"), member(B))
    assert found(signed(two_keys, A, B)).number == 0
    assert found(signed(two_keys, "a2", B, pen="a2")).number == 0
    refused(signed(two_keys, A, "a2", B), "epoch_wrong")


@pytest.mark.parametrize(("author", "pen"), [("stranger.example", A), (B, A), (A, "a2")])
def test_the_author_of_an_epoch_is_a_member_that_signed(author: str, pen: str) -> None:
    body = body_of(member(A, A, "a2"), member(B))
    refused(signed(body, A, B, author=author, pen=pen), "author_wrong")


def test_an_epoch_rests_on_no_authority() -> None:
    body = body_of(member(A), member(B))
    refused(signed(body, A, B, authority=digest("certificate")), "author_wrong")


def test_a_genesis_has_no_predecessor() -> None:
    refused(genesis(A, B, previous=digest("before")), "epoch_wrong")
    refused(signed(body_of(member(A)), A, coalition=FIRST.id, number=1), "epoch_wrong")


def test_a_genesis_is_not_a_ballots() -> None:
    refused(genesis(A, B, certificate="ballot"), "epoch_wrong")


def test_another_kind_is_no_epoch() -> None:
    vote = specimens()["vote"]
    refused(vote, "epoch_wrong")
    refused(vote, "epoch_wrong", FIRST)


def test_the_body_is_the_one_that_was_signed() -> None:
    record = genesis(A, B)
    other = encode(body_of(member(A), member(B), coalition_name="five"))
    with pytest.raises(DecodeError):
        assemble(record.header_bytes, other, record.signatures)
    swapped = msgspec.structs.replace(record.header, body=body_reference(other))
    refused(assemble(seal_header(swapped), other, record.signatures), "signature_wrong")


# What may not stand


def test_a_key_that_stands_twice_is_counted_for_nobody() -> None:
    """One key for two members would be two votes of one organization."""
    refused(signed(body_of(member(A), member(B, A)), A), "key_duplicate")
    refused(signed(body_of(member(A, A, A)), A), "key_duplicate")
    refused(signed(body_of(member(A), member(B, B, A)), A, B), "key_duplicate")


def test_members_are_sorted_and_unique() -> None:
    refused(signed(body_of(member(B), member(A)), A, B), "epoch_wrong")
    refused(signed(body_of(member(A), member(A, "a2")), A, "a2"), "epoch_wrong")


def test_a_namespace_has_one_writer() -> None:
    refused(signed(body_of(member(A), member(B, namespaces=(A, B))), A, B), "epoch_wrong")
    refused(signed(body_of(member(A, namespaces=(A, A))), A), "epoch_wrong")


def test_a_writer_is_found_by_the_namespace_and_not_by_the_name() -> None:
    state = found(signed(body_of(member(A, namespaces=("x.example", "y.example")), member(B)), A, B))
    assert state.writer_of("x.example/released") == state.writer_of("y.example/a/b") == A
    assert state.writer_of(f"{B}/released") == B
    assert state.writer_of(f"{A}/released") is None
    assert state.writer_of("sub.x.example/released") is None


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (PublicKey("ed25519", (1).to_bytes(32, "little")), "key_inadmissible"),
        (PublicKey("ed25519", b"k" * 31), "key_inadmissible"),
        (PublicKey("ml-dsa-65", b"k" * 32), "key_inadmissible"),
    ],
    ids=["identity", "short", "suite"],
)
def test_a_key_that_is_not_admissible_is_refused(bad: PublicKey, reason: str) -> None:
    refused(signed(body_of(Member(A, (key(A).public, bad), (A,))), A), reason)


def test_a_key_is_of_a_suite_that_the_epoch_accepts() -> None:
    refused(genesis(A, suites=("ml-dsa-65",)), "key_inadmissible")
    refused(genesis(A, suites=("ed25519", "ml-dsa-65")), "suite_unknown")


def test_what_this_version_does_not_decide_by_is_refused() -> None:
    refused(genesis(A, B, council=(A,)), "epoch_wrong")
    refused(genesis(A, B, publishers=("stranger.example",)), "epoch_wrong")
    assert found(genesis(A, B, publishers=(A, B))).body.publishers == (A, B)


def test_too_many_members_are_no_epoch() -> None:
    names = [f"m{i:02}.example" for i in range(MEMBERS_MAX + 1)]
    record = signed(body_of(*map(member, names)), *names, author=names[0])
    with pytest.raises(DecodeError, match="not a Epoch"):
        found(record)


# Successors


def test_a_successor_is_signed_by_all_old_and_all_new_members() -> None:
    body = body_of(member(A), member(B), member(D))
    state = succeed(FIRST, after(FIRST, body, A, B, C, D))
    assert (state.number, state.coalition) == (1, FIRST.id)
    assert list(state.members) == [A, B, D]
    for missing in (A, B, C, D):
        signers = [name for name in (A, B, C, D) if name != missing]
        refused(after(FIRST, body, *signers, author=signers[0]), "epoch_unsigned", FIRST)


def test_who_leaves_may_write_the_epoch_without_it() -> None:
    body = body_of(member(A), member(B))
    assert list(succeed(FIRST, after(FIRST, body, A, B, C, author=C)).members) == [A, B]


def test_a_member_changes_its_key_with_the_old_and_the_new() -> None:
    body = body_of(member(A, "a2"), member(B), member(C))
    assert succeed(FIRST, after(FIRST, body, A, "a2", B, C)).organization_keys(A) == {key("a2").key_id}
    refused(after(FIRST, body, "a2", B, C, pen="a2"), "epoch_unsigned", FIRST)
    refused(after(FIRST, body, A, B, C), "epoch_unsigned", FIRST)


def test_a_successor_names_its_predecessor() -> None:
    body = body_of(member(A), member(B), member(C))
    assert succeed(FIRST, after(FIRST, body, A, B, C)).number == 1
    wrong: dict[str, dict[str, Any]] = {
        "epoch_foreign": {"coalition": digest("another")},
        "epoch_wrong": {"number": 2},
    }
    for reason, header in wrong.items():
        refused(after(FIRST, body, A, B, C, **header), reason, FIRST)
    refused(after(FIRST, body_of(*body.members, previous=digest("x")), A, B, C), "epoch_wrong", FIRST)


def test_a_genesis_is_no_successor() -> None:
    refused(genesis(A, B, C), "epoch_foreign", FIRST)


def test_a_ballot_is_not_accepted_yet() -> None:
    refused(
        after(FIRST, body_of(member(A), member(B), member(C), certificate="ballot"), A, B, C),
        "epoch_wrong",
        FIRST,
    )


def test_time_does_not_run_backwards() -> None:
    members = (member(A), member(B), member(C))
    refused(after(FIRST, body_of(*members, started=T0 - 1), A, B, C), "epoch_wrong", FIRST)
    assert succeed(FIRST, after(FIRST, body_of(*members, started=T0), A, B, C)).number == 1


def test_a_signature_of_a_newcomer_cannot_be_taken_from_elsewhere() -> None:
    """D consented to epoch 1 of this chain, and to nothing that follows another genesis."""
    other = found(genesis(A, B, C, coalition_name="other"))
    body = body_of(member(A), member(B), member(C), member(D))
    there, here = after(other, body, A, B, C, D), after(FIRST, body, A, B, C)
    stolen = next(s for s in there.signatures if s.key == key(D).key_id)
    record = assemble(here.header_bytes, here.body_bytes, tuple(sorted((*here.signatures, stolen))))
    refused(record, "signature_wrong", FIRST)


def test_a_chain_is_read_from_its_genesis() -> None:
    second = after(FIRST, body_of(member(A), member(B), member(C)), A, B, C)
    third = after(succeed(FIRST, second), body_of(member(A), member(B)), A, B, C)
    records = (genesis(A, B, C), second, third)
    assert [state.number for state in chain(records)] == [0, 1, 2]
    for wrong in (records[1:], records[::2], records[:2] + records[1:], ()):
        with pytest.raises(VerificationError):
            chain(wrong)


# Whatever the members


@given(
    st.lists(st.sampled_from([f"m{i}.example" for i in range(6)]), min_size=1, max_size=6), st.integers(0, 8)
)
def test_what_stands_has_one_order_one_writer_each_and_overlapping_quorums(
    names: list[str], quorum: int
) -> None:
    body = body_of(*map(member, names), quorum=quorum)
    problem = epoch_problem(body)
    n = len(names)
    stands = names == sorted(set(names)) and (quorum == 0 or quorum_of(n) <= quorum <= n)
    assert (problem is None) == stands
    if stands:
        counted = quorum or quorum_of(n)
        assert 2 * counted - n > faults_tolerated(n)
        assert len({key_id(k) for m in body.members for k in m.keys}) == n
