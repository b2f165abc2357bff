"""What every store promises: one suite for all adapters."""

from __future__ import annotations

import dataclasses
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comity.attestation.signing import SigningKey, add_signature
from comity.node.store import Cursor, Head, IntentRow, Store, Withheld, slot_subject
from comity.node.store_memory import MemoryStore
from comity.node.store_sqlite import SqliteStore
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import LocalProtocolError, StoreError
from comity.protocol.identifiers import sha256
from said import COALITION, say

OTHER_COALITION = sha256(b"another coalition")
X, Y, Z = (sha256(bytes([i])) for i in range(3))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.sqlite3")
    yield made
    made.close()


def ids(records: list[SignedRecord] | tuple[SignedRecord, ...]) -> list[bytes]:
    return [record.id for record in records]


def without_body(record: SignedRecord) -> SignedRecord:
    return dataclasses.replace(record, body_bytes=None)


# Records


def test_records_come_back_as_they_were_signed(store: Store) -> None:
    records = [say("vote", "a", subject=[X]), say("credential", "b"), without_body(say("permit", "c"))]
    store.put(records)
    assert [r.encoded() for r in store.get(ids(records))] == [r.encoded() for r in records]
    assert store.get(ids(records)) == records


def test_get_answers_in_the_order_asked_for_and_leaves_out_what_is_not_held(store: Store) -> None:
    first, second, absent = say("vote", "1"), say("vote", "2"), say("vote", "3")
    store.put([first, second])
    assert store.get([second.id, absent.id, first.id]) == [second, first]
    assert store.holds([second.id, absent.id, first.id]) == {first.id, second.id}


def test_putting_twice_is_putting_once(store: Store) -> None:
    record, other = say("credential", "1", subject=[X]), say("credential", "2")
    assert store.put([record]) == (record.id,)
    assert store.put([record, other, other]) == (other.id,)
    assert store.about(X) == [record]
    assert store.feed(COALITION, 0, records_max=9, bytes_max=10_000).records == (record, other)


def test_the_first_copy_stays(store: Store) -> None:
    record = say("credential", "1")
    copy = add_signature(record, SigningKey.from_seed(b"\x09" * 32))
    assert copy.id == record.id
    store.put([record])
    store.put([copy])
    assert store.get([record.id])[0].signatures == record.signatures


def test_a_body_that_was_left_out_is_taken_from_a_later_copy(store: Store) -> None:
    record = say("vote", "1")
    store.put([without_body(record)])
    assert store.put([record]) == ()
    assert store.get([record.id]) == [record]


def test_an_erased_body_never_comes_back(store: Store) -> None:
    record = say("vote", "1", subject=[X])
    store.put([record])
    assert store.erase_body(record.id)
    assert not store.erase_body(record.id)
    store.put([record])
    assert store.get([record.id]) == [without_body(record)]
    assert store.about(X) == [without_body(record)]
    assert not store.erase_body(X)


def test_what_a_quorums_state_rests_on_is_not_erased(store: Store) -> None:
    record = say("credential", "1")
    store.put([record])
    with pytest.raises(LocalProtocolError, match="keeps its body"):
        store.erase_body(record.id)
    assert store.get([record.id]) == [record]


def test_ids_are_found_by_their_bounds(store: Store) -> None:
    records = sorted((say("vote", "1"), say("permit", "2"), say("credential", "3")), key=lambda r: r.id)
    store.put(records)
    first, second, third = ((record.id, record.header.kind) for record in records)
    assert store.ids(bytes(32), b"\xff" * 32, 9) == [first, second, third]
    assert store.ids(bytes(32), b"\xff" * 32, 2) == [first, second]
    assert store.ids(second[0], third[0], 9) == [second, third]
    assert store.ids(second[0], second[0], 9) == [second]
    assert store.ids(bytes(32), bytes(32), 9) == []


def test_about_finds_by_subject_and_kind(store: Store) -> None:
    vote, permit, both = say("vote", subject=[X]), say("permit", subject=[X]), say("vote", subject=[X, Y])
    store.put([vote, permit, both, say("vote", subject=[Z])])
    assert set(ids(store.about(X))) == {vote.id, permit.id, both.id}
    assert set(ids(store.about(X, "vote"))) == {vote.id, both.id}
    assert store.about(Y) == [both]
    assert store.about(Y, "permit") == []


def test_about_leaves_out_what_speaks_against_where_only_work_is_wanted(store: Store) -> None:
    """Anybody may publish much of it; it must not push out of the answer what is asked for."""
    vote, passed = say("vote", subject=[X]), say("observation", subject=[X], outcome="passed")
    against = [say("observation", str(n), subject=[X], outcome="failed") for n in range(9)]
    store.put([vote, *against, say("revocation", subject=[X]), passed])
    assert set(ids(store.about(X, execution=True, limit=2))) == {vote.id, passed.id}
    assert store.about(X, "observation", execution=True) == [passed]
    assert len(store.about(X)) == 12


def test_answers_do_not_depend_on_the_order_of_arrival(store: Store) -> None:
    records = [say("vote", str(i), subject=[X], at=1_000 + i % 3) for i in range(20)]
    random.Random(7).shuffle(records)
    store.put(records)
    assert ids(store.about(X)) == sorted(ids(records))
    newest = sorted(records, key=lambda r: (r.header.at, r.id), reverse=True)
    assert store.of_kind("vote") == newest


def test_a_record_is_found_under_what_it_was_filed_under(store: Store) -> None:
    """Also under what no header can name, so that nobody else's record stands there."""
    filed, other = say("vote", "1", subject=[X]), say("vote", "2")
    under = slot_subject(COALITION, "clinic-north.example", "clinic-north.example/a", "", 1)
    store.put([filed, other])
    for _ in range(2):
        store.file_under(under, filed.id)
    store.file_under(under, Y)
    assert store.about(under) == [filed]
    assert store.about(X) == [filed]
    assert len(under) > len(X)
    later = slot_subject(COALITION, "clinic-north.example", "clinic-north.example/a", "", 2)
    assert later != under
    assert store.about(later) == []


def test_about_goes_on_behind_an_id(store: Store) -> None:
    records = [say("vote", str(i), subject=[X]) for i in range(7)]
    store.put(records)
    pages = [store.about(X, limit=3)]
    while pages[-1]:
        pages.append(store.about(X, after=pages[-1][-1].id, limit=3))
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert ids(list(itertools.chain(*pages))) == sorted(ids(records))


def test_of_kind_goes_on_before_a_record(store: Store) -> None:
    records = [say("permit", str(i), at=1_000 + i // 3) for i in range(7)]
    store.put(records)
    found: list[SignedRecord] = []
    before = None
    while page := store.of_kind("permit", before=before, limit=2):
        found += page
        before = (page[-1].header.at, page[-1].id)
    assert found == sorted(records, key=lambda r: (r.header.at, r.id), reverse=True)


@pytest.mark.parametrize("kind", ["policy", "vote"])
def test_of_kind_narrows_by_coalition_member_and_name(store: Store, kind: str) -> None:
    plain = say(kind)
    named = say(kind, name="main", number=1)
    successor = say(kind, name="main", number=2)
    foreign = say(kind, name="main", member="clinic-south.example")
    elsewhere = say(kind, coalition=OTHER_COALITION)
    store.put([plain, named, successor, foreign, elsewhere, say("permit", name="main")])
    assert len(store.of_kind(kind)) == 5
    assert set(ids(store.of_kind(kind, coalition=COALITION))) == set(ids([plain, named, successor, foreign]))
    assert set(ids(store.of_kind(kind, name="main"))) == set(ids([named, successor, foreign]))
    assert set(ids(store.of_kind(kind, name="main", member="clinic-north.example"))) == {
        named.id,
        successor.id,
    }
    assert store.of_kind(kind, coalition=OTHER_COALITION, member="clinic-north.example") == [elsewhere]
    assert set(ids(store.of_kind(kind, name=""))) == {plain.id, elsewhere.id}


# The feed


def test_the_feed_has_what_everyone_needs_and_nothing_else(store: Store) -> None:
    credential = say("credential", "1")
    failed = say("observation", outcome="failed")
    passed = say("observation", outcome="passed")
    revoked = say("revocation", "1")
    store.put([credential, say("vote"), passed, failed, say("intent"), revoked])
    page = store.feed(COALITION, 0, records_max=100, bytes_max=100_000)
    assert page.records == (credential, failed, revoked)
    assert (page.next, page.end) == (3, 3)


def test_the_feed_of_one_coalition_says_nothing_of_another(store: Store) -> None:
    genesis = say("epoch", coalition=None)
    ours, theirs, successor = (
        say("policy"),
        say("policy", coalition=OTHER_COALITION),
        say("policy", coalition=genesis.id),
    )
    store.put([ours, theirs, genesis, successor])
    pages = [
        store.feed(c, 0, records_max=9, bytes_max=10_000) for c in (COALITION, OTHER_COALITION, genesis.id)
    ]
    assert [page.records for page in pages] == [(ours,), (theirs,), (genesis, successor)]
    # Not even how much there is: positions are counted for each coalition alone.
    assert [(page.next, page.end) for page in pages] == [(1, 1), (1, 1), (2, 2)]


def test_the_feed_is_read_in_pages(store: Store) -> None:
    records = [say("credential", str(i)) for i in range(5)]
    store.put(records)
    first = store.feed(COALITION, 0, records_max=2, bytes_max=100_000)
    second = store.feed(COALITION, first.next, records_max=9, bytes_max=100_000)
    assert (first.records, second.records) == (tuple(records[:2]), tuple(records[2:]))
    assert (first.next, first.end, second.next) == (2, 5, 5)
    late = say("credential", "late")
    store.put([late])
    assert store.feed(COALITION, second.next, records_max=9, bytes_max=9).records == (late,)


def test_a_page_of_the_feed_is_bounded_in_bytes_but_never_empty_in_vain(store: Store) -> None:
    records = [say("credential", str(i) * 500) for i in range(4)]
    store.put(records)
    size = len(records[0].encoded())
    assert len(store.feed(COALITION, 0, records_max=9, bytes_max=2 * size).records) == 2
    assert len(store.feed(COALITION, 0, records_max=9, bytes_max=2 * size - 1).records) == 1
    assert len(store.feed(COALITION, 0, records_max=9, bytes_max=1).records) == 1


def test_a_cursor_beyond_the_end_can_be_told(store: Store) -> None:
    store.put([say("credential")])
    page = store.feed(COALITION, 50, records_max=9, bytes_max=9)
    assert (page.records, page.next, page.end) == ((), 50, 1)


def test_an_empty_store_has_an_empty_feed_and_an_incarnation(store: Store) -> None:
    page = store.feed(COALITION, 0, records_max=9, bytes_max=9)
    assert (page.records, page.next, page.end) == ((), 0, 0)
    assert len(store.incarnation) == 16


def test_cursors_are_kept_per_peer_and_coalition(store: Store) -> None:
    north, south = Cursor(b"n" * 16, 7), Cursor(b"s" * 16, 8)
    assert store.cursor("north", COALITION) is None
    store.set_cursor("north", COALITION, Cursor(b"o" * 16, 99))
    store.set_cursor("north", COALITION, north)
    store.set_cursor("south", COALITION, south)
    assert (store.cursor("north", COALITION), store.cursor("south", COALITION)) == (north, south)
    assert store.cursor("north", OTHER_COALITION) is None


# This node's own logs


def test_own_logs_have_no_gap(store: Store) -> None:
    votes = [say("vote", str(i)) for i in range(3)]
    revoked = say("revocation")
    elsewhere = say("vote", coalition=OTHER_COALITION)
    store.put([votes[0]], own=True)
    store.put([say("vote", "of another")])
    store.put([votes[1], revoked, elsewhere, votes[1], votes[2]], own=True)
    assert store.own_log(COALITION, "execution") == ids(votes)
    assert store.own_log(COALITION, "governance") == [revoked.id]
    assert store.own_log(OTHER_COALITION, "execution") == [elsewhere.id]
    assert store.own_log(COALITION, "execution", first=1, limit=1) == [votes[1].id]
    assert store.own_log_size(COALITION, "execution") == 3
    assert store.own_log_size(OTHER_COALITION, "governance") == 0


def test_an_own_record_that_came_back_from_a_peer_first_still_gets_its_index(store: Store) -> None:
    record = say("vote")
    store.put([record])
    store.put([record], own=True)
    store.put([record], own=True)
    assert store.own_log(COALITION, "execution") == [record.id]


def test_a_batch_that_fails_leaves_no_gap(store: Store) -> None:
    kept, lost, last = say("credential", "kept"), say("credential", "lost"), say("credential", "last")
    store.put([kept], own=True)

    def write_and_fail() -> None:
        with store.batch():
            store.put([lost], own=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    store.put([last], own=True)
    assert store.own_log(COALITION, "governance") == [kept.id, last.id]
    page = store.feed(COALITION, 0, records_max=9, bytes_max=10_000)
    assert (page.records, page.end) == ((kept, last), 2)


# What is said once

Once = Callable[[Store, bytes, int, SignedRecord], SignedRecord]
ONCE: dict[str, Once] = {
    "vote": lambda store, intent, t, record: store.vote_once(intent, t, record),
    "ask": lambda store, intent, t, record: store.ask_once(intent, t, record),
    "start": lambda store, permit, attempt, record: store.start_once(
        permit, "a.example/b", "", attempt, record
    ),
}


@pytest.mark.parametrize("kind", ONCE)
def test_the_first_word_stands(store: Store, kind: str) -> None:
    first, second = say(kind, "yes", subject=[X]), say(kind, "no", subject=[X])
    assert ONCE[kind](store, X, 5, first) is first
    assert ONCE[kind](store, X, 5, second) == first
    assert ONCE[kind](store, X, 5, first) == first
    assert store.about(X) == [first]
    assert store.own_log(COALITION, "execution") == [first.id]


@pytest.mark.parametrize("kind", ONCE)
def test_another_round_intent_or_coalition_is_another_word(store: Store, kind: str) -> None:
    said = [say(kind, "1"), say(kind, "2"), say(kind, "3"), say(kind, "4", coalition=OTHER_COALITION)]
    for (intent, t), record in zip([(X, 5), (X, 6), (Y, 5), (X, 5)], said, strict=True):
        assert ONCE[kind](store, intent, t, record) is record
    assert store.get(ids(said)) == said


def test_a_start_is_of_one_output(store: Store) -> None:
    said = [say("start", str(i)) for i in range(3)]
    assert store.start_once(X, "a.example/b", "", 1, said[0]) is said[0]
    assert store.start_once(X, "a.example/b", "2026", 1, said[1]) is said[1]
    assert store.start_once(X, "a.example/c", "", 1, said[2]) is said[2]
    assert store.start_once(X, "a.example/c", "", 1, said[0]) == said[2]


def test_a_vote_and_an_ask_of_one_round_are_two_things(store: Store) -> None:
    ask, vote = say("ask"), say("vote")
    assert store.ask_once(X, 5, ask) is ask
    assert store.vote_once(X, 5, vote) is vote


@pytest.mark.parametrize("kind", ONCE)
def test_nothing_else_takes_the_place_of_a_vote_ask_or_start(store: Store, kind: str) -> None:
    with pytest.raises(LocalProtocolError, match="permit"):
        ONCE[kind](store, X, 5, say("permit"))
    assert store.of_kind("permit") == []


def test_two_threads_that_vote_at_once_have_one_vote(store: Store) -> None:
    rounds = 30
    barrier = threading.Barrier(2, timeout=10)
    answers: dict[tuple[str, int], bytes] = {}

    def vote(name: str) -> None:
        for t in range(rounds):
            barrier.wait()
            answers[name, t] = store.vote_once(X, t, say("vote", name, number=t)).id

    threads = [threading.Thread(target=vote, args=(name,)) for name in ("yes", "no")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(answers) == 2 * rounds
    assert all(answers["yes", t] == answers["no", t] for t in range(rounds))
    assert store.own_log(COALITION, "execution") == [answers["yes", t] for t in range(rounds)]


# Batches


def test_a_batch_happens_whole_or_not_at_all(store: Store) -> None:
    def write_and_fail() -> None:
        with store.batch():
            store.put([say("vote", "1", subject=[X])])
            store.vote_once(X, 5, say("vote", "2"))
            store.set_cursor("north", COALITION, Cursor(b"n" * 16, 1))
            store.save_intent(intent_row(X))
            store.raise_head(Head(COALITION, "a.example/b", "", 1, X))
            store.save_withheld([Withheld(X, "a.example/b", "min_group_rows", "inst", 3)])
            assert store.about(X)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert store.about(X) == []
    assert store.of_kind("vote") == []
    assert store.own_log(COALITION, "execution") == []
    assert store.cursor("north", COALITION) is None
    assert store.intent(X) is None
    assert store.heads("a.example/b") == []
    assert store.withheld(X) == []
    other = say("vote", "3")
    assert store.vote_once(X, 5, other) is other


def test_a_batch_sees_what_it_wrote(store: Store) -> None:
    with store.batch(durable=True):
        store.put([say("vote", subject=[X])])
        assert len(store.about(X)) == 1
        with store.batch():
            assert len(store.of_kind("vote")) == 1
    assert len(store.about(X)) == 1


def test_a_write_that_failed_spoils_its_batch(store: Store) -> None:
    def broken() -> Iterator[SignedRecord]:
        yield say("vote", "1")
        raise ZeroDivisionError

    def write_and_go_on() -> None:
        with store.batch():
            store.put([say("vote", "2")])
            with pytest.raises(ZeroDivisionError):
                store.put(broken())

    with pytest.raises(LocalProtocolError, match="none of it is kept"):
        write_and_go_on()
    assert store.of_kind("vote") == []


def test_nothing_in_a_batch_is_more_durable_than_the_batch(store: Store) -> None:
    with pytest.raises(LocalProtocolError), store.batch():
        store.start_once(X, "a.example/b", "", 1, say("start"))
    assert store.of_kind("start") == []


# What this node knows for itself


def intent_row(intent: bytes, **fields: object) -> IntentRow:
    row = IntentRow(intent, "run-1", "step-1", b"dedup", "asking", b"state", 1_000)
    return dataclasses.replace(row, **fields)  # type: ignore[arg-type]


def test_an_intent_has_its_newest_state(store: Store) -> None:
    store.save_intent(intent_row(X))
    store.save_intent(intent_row(X, status="decided", state=b"", updated=1_005))
    store.save_intent(intent_row(Y))
    assert store.intent(X) == intent_row(X, status="decided", state=b"", updated=1_005)
    assert store.intent(Z) is None


def test_intents_are_found_by_what_is_given(store: Store) -> None:
    rows = {
        X: intent_row(X, updated=1_003),
        Y: intent_row(Y, status="held", run="run-2", updated=1_001),
        Z: intent_row(Z, status="decided", step="step-2", dedup=b"other", updated=1_001),
    }
    for row in rows.values():
        store.save_intent(row)
    by_update = [rows[X], *(rows[i] for i in sorted([Y, Z]))]
    assert store.intents() == by_update
    assert store.intents(limit=1) == [rows[X]]
    assert store.intents(status=["asking", "held"]) == [rows[X], rows[Y]]
    assert store.intents(status=["held", "held"]) == [rows[Y]]
    assert store.intents(status=[]) == []
    assert store.intents(dedup=b"dedup") == [rows[X], rows[Y]]
    assert store.intents(dedup=b"dedup", status=["asking"]) == [rows[X]]
    assert store.intents(run="run-1", step="step-2") == [rows[Z]]
    with pytest.raises(LocalProtocolError, match="17 statuses"):
        store.intents(status=[str(i) for i in range(17)])


def test_a_head_only_rises(store: Store) -> None:
    low, high = Head(COALITION, "a.example/b", "", 1, X), Head(COALITION, "a.example/b", "", 2, Y)
    rival = Head(COALITION, "a.example/b", "", 2, Z)
    assert store.raise_head(low) == low
    assert store.raise_head(high) == high
    assert store.raise_head(low) == high
    assert store.raise_head(rival) == high
    assert store.heads("a.example/b") == [high]


def test_heads_are_found_by_asset_partition_and_coalition(store: Store) -> None:
    heads = [
        Head(coalition, asset, partition, 1, X)
        for asset in ("a.example/b", "a.example/c")
        for coalition in sorted([COALITION, OTHER_COALITION])
        for partition in ("", "2025", "2026")
    ]
    for head in reversed(heads):
        store.raise_head(head)
    assert store.heads("a.example/b") == heads[:6]
    assert store.heads("a.example/b", "2026") == [heads[2], heads[5]]
    assert store.heads("a.example/c", coalition=heads[9].coalition) == heads[9:]
    assert store.heads("a.example/c", "", coalition=heads[9].coalition) == [heads[9]]
    assert store.heads("a.example") == []
    first = min(COALITION, OTHER_COALITION)
    assert store.heads_below("a.example", first, limit=10) == [h for h in heads if h.coalition == first]
    assert store.heads_below("a.example", first, limit=2) == heads[:2]
    assert store.heads_below("a.exampl", first, limit=10) == []


def test_what_was_withheld_is_known_here_and_in_no_record(store: Store) -> None:
    row = Withheld(X, "a.example/b", "min_group_rows", "inst", 11, ("4", "10", "33"))
    other = Withheld(X, "a.example/b", "min_group_rows", "inst", 2, (), "2026")
    store.save_withheld(
        [dataclasses.replace(row, rows=1), other, row, Withheld(Y, "a.example/b", "o", "c", 1)]
    )
    assert store.withheld(X) == [row, other]
    assert store.about(X) == []
    assert store.own_log(COALITION, "execution") == []
    assert store.feed(COALITION, 0, records_max=9, bytes_max=9).end == 0
    most = dataclasses.replace(row, values=("x" * 100,) * 10_000)
    store.save_withheld([most])
    assert store.withheld(X) == [most, other]
    for values in (("x" * 60_000,) * 20, ("x",) * 10_001, ("x" * 65_537,)):
        with pytest.raises(LocalProtocolError):
            store.save_withheld([dataclasses.replace(row, values=values)])
    assert store.withheld(X) == [most, other]


def test_a_closed_store_does_nothing(store: Store) -> None:
    store.put([say("vote")])
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.put([say("vote", "late")]),
        lambda: store.get([X]),
        lambda: store.holds([X]),
        lambda: store.of_kind("vote"),
        lambda: store.intent(X),
        lambda: store.vote_once(X, 1, say("vote")),
        store.maintain,
    ]
    for call in calls:
        with pytest.raises(StoreError, match="closed"):
            call()


def test_a_store_is_not_closed_inside_of_a_batch(store: Store) -> None:
    with pytest.raises(LocalProtocolError, match="inside of a batch"), store.batch():
        store.close()
    store.put([say("vote")])
    assert len(store.of_kind("vote")) == 1


def test_maintenance_changes_nothing(store: Store) -> None:
    records = [say("credential", str(i)) for i in range(50)]
    store.put(records)
    store.maintain()
    assert store.get(ids(records)) == records
