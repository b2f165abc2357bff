"""What `comity waiting` prints of an intent that waits for members."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from comity.node.cli_intent_words import say_waiting
from world import BOARD, INSTITUTE, NORTH, SOUTH

ROW: dict[str, Any] = {
    "intent": "ab" * 32,
    "member": NORTH,
    "standing": "held",
    "assets": [{"asset": "plain/a", "partitions": [""], "items": 1}],
    "at": 1_800_000_000,
    "causes": [],
    "needs": [],
    "votes": {NORTH: "execute", BOARD: "refuse", SOUTH: "silent", INSTITUTE: "starting"},
    "goes_on_by_itself": True,
}


def printed(member: str) -> str:
    out = Console(width=200, record=True, color_system=None)
    with out.capture() as captured:
        say_waiting(out, [ROW], member)
    return captured.get()


def test_a_held_intent_names_who_gave_no_vote_and_why() -> None:
    text = printed(NORTH)
    assert f"silent: {SOUTH}\n" in text
    assert f"gave no vote: {INSTITUTE} (starting)\n" in text
    assert BOARD not in text
    assert "goes on by itself" in text


def test_a_partners_intent_says_nothing_of_its_voters() -> None:
    text = printed(SOUTH)
    assert "silent" not in text
    assert "gave no vote" not in text
