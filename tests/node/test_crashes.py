"""A node that dies at any boundary of what it does: it never contradicts itself, and goes on with what it promised."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from comity.attestation.holdings import Holdings
from comity.protocol.contradictions import slot_of
from crashing import Death, Story
from world import ENGINE, FOUR, NORTH, SOUTH, World

ASSET = "plain/a"


def told(victim: str, dies_at: int | None, death: Death) -> Story:
    story = Story(World(FOUR), victim, dies_at, death)
    for run in ("run-1", "run-2"):
        story.make(NORTH, ASSET, run)
    return story


def boundaries(victim: str) -> Iterator[int]:
    """All of a run in which nobody dies."""
    story = told(victim, None, "kill")
    assert not story.died
    yield from range(story.passed)


def check(story: Story) -> None:
    """What everybody sees of a node that died once."""
    assert story.auditor.take_contradictions() == (), "it said two things"
    for core in story.cores.values():
        assert core.holdings.state.of_kind("misbehaviour") == []
    stored = {record.id: record for store in story.stores.values() for record in store.of_kind("actuation")}
    heard = [r.record for i in tuple(story.auditor._execution) if (r := story.auditor.get(i)) is not None]
    everything = {**stored, **{record.id: record for record in heard if record.header.kind == "actuation"}}
    witness = Holdings(ENGINE)
    witness.adopt(story.world.genesis)
    witness.admit([*story.world.common, *everything.values()])
    made = {
        (slot, i)
        for i in everything
        if (r := witness.get(i)) is not None and (slot := slot_of(r)) is not None
    }
    (head,) = story.stores[NORTH].heads(f"{NORTH}/{ASSET}")
    assert head.actuation in {record_id for _, record_id in made}
    assert len({slot for slot, _ in made}) == len(made)
    # Where the answer to what was recorded is lost, the step that is run again makes one generation more.
    assert head.generation in (2, 3)


@pytest.mark.parametrize("death", ["kill", "power", "set_back", "disk"])
@pytest.mark.parametrize("victim", [NORTH, SOUTH], ids=["requester", "voter"])
def test_killed_at_every_boundary(victim: str, death: Death) -> None:
    """Before and after each commit, and before each message: once in each run.

    Whoever comes back is asked again what it was asked before, with a record at hand that makes its answer another.
    """
    count = 0
    for dies_at in boundaries(victim):
        story = told(victim, dies_at, death)
        assert story.died
        check(story)
        count += 1
    assert count >= (36 if victim == NORTH else 8)


def test_a_boundary_is_the_same_run_every_time() -> None:
    one, other = (told(NORTH, 7, "kill") for _ in range(2))
    assert [sorted(story.stores[NORTH]._records) for story in (one,)] == [
        sorted(story.stores[NORTH]._records) for story in (other,)
    ]
