"""Nodes that die, lose power, fill their disks and hear one way only. A failure prints the seed that repeats it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from comity.attestation import requester as requester_module
from comity.attestation import voter as voter_module
from comity.attestation.voter import StoreVote
from comity.node.core import Core
from crashing import Death, MortalStore
from restarts import DEADLINE_S, Storm, Town

SEEDS = int(os.environ.get("COMITY_SEEDS", "24"))


def told(seed: int, storm: Storm | None = None) -> Town:
    """Everybody makes something, and wants what is refused, and what is disputed meanwhile."""
    town = Town(seed, storm or Storm())
    for index, name in enumerate(sorted(town.world.members)):
        for at, asset in (
            (0.0, "plain/a"),
            (20.0, "plain/b"),
            (40.0, "plain/disputed"),
            (60.0, "forbidden/a"),
        ):
            town.want(name, asset, at + index)
        for at in (41.0, 45.0, 50.0, 60.0):
            town.dispute(name, at + index)
    return town


def is_over(town: Town) -> bool:
    """Whether all that is right is made, all that is wrong refused, and everybody is back."""
    names = set(town.world.members)
    made = {(name, asset) for name in names for asset in ("plain/a", "plain/b")}
    return (
        made <= town.made
        and {(name, "forbidden/a") for name in names} <= town.refused
        and None not in town.cores.values()
    )


def weather(seed: int) -> Town:
    """One run, to its end, and what must hold of it."""
    town = told(seed)
    town.run_until(lambda: is_over(town), DEADLINE_S)
    town.check()
    town.check_slots()
    assert is_over(town), f"seed {seed}: after the storm only {town.made} and refused {town.refused}"
    assert not {name for name, asset in town.made if asset == "forbidden/a"}
    return town


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nodes_that_die_contradict_nothing_and_go_on(seed: int) -> None:
    weather(seed)


def test_every_fault_happens() -> None:
    """A storm in which nothing happens would show nothing."""
    counts: dict[str, int] = {}
    for seed in range(4):
        town = told(seed)
        town.run_until(lambda: is_over(town), DEADLINE_S)  # noqa: B023
        for what, count in town.counts.items():
            counts[what] = counts.get(what, 0) + count
    assert all(counts.get(what, 0) >= 2 for what in ("kill", "power", "disk", "full", "deaf")), counts


def test_a_storm_is_the_same_every_time() -> None:
    traces = []
    for seed in (3, 3, 4):
        town = told(seed)
        town.run(120.0)
        traces.append(town.trace)
    assert traces[0] == traces[1] != traces[2]


# Faults that are planted, to see that they are found


def planted_no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voters and requesters that take up a t from before their process began."""
    for module in (voter_module, requester_module):
        monkeypatch.setattr(module, "START_MARGIN_S", -1_000_000)


def planted_vote_before_storing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vote that is sent and never stored."""
    original = Core._carry_out
    monkeypatch.setattr(
        Core,
        "_carry_out",
        lambda core, effects: original(core, tuple(e for e in effects if not isinstance(e, StoreVote))),
    )


def planted_votes_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that has lost its votes whenever it is opened."""
    original = MortalStore.reborn

    def reborn(store: MortalStore, death: Death) -> MortalStore:
        again = original(store, death)
        for record_id in [i for i, r in again._records.items() if _kind(r) == "vote"]:
            del again._records[record_id]
        return again

    monkeypatch.setattr(MortalStore, "reborn", reborn)


def _kind(kept: Any) -> str:
    return str(getattr(kept, "record", kept).header.kind)


@pytest.mark.parametrize(
    "plant",
    [planted_no_margin, planted_vote_before_storing, planted_votes_forgotten],
)
def test_planted_faults_are_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        all_seeds()


def all_seeds() -> None:
    for seed in range(SEEDS):
        weather(seed)
