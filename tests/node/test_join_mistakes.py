"""What docs/join.md says can go wrong does, and is said in the words that the page quotes."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from comity.node import cli_node
from comity.node.client import NodeClient, NodeNotRunningError
from command_line import comity
from houses import short_folder

PAGE = Path(__file__).parents[2] / "docs/join.md"
NEWCOMER = Path(__file__).with_name("newcomer.md")
ROW = re.compile(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \|$", re.MULTILINE)
TEMPLATE = ("--taxonomy", "site/taxonomy.toml", "--policy", "site/policy.toml")
OF_A_RUNNING_NODE = {"this node has no automation credential", "no promoted actuation of"}
"""Said by a node that runs, as `newcomer.md` shows."""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with short_folder() as folder:
        monkeypatch.chdir(folder)
        yield folder


def quoted() -> set[str]:
    """What the page quotes: the first column of the table of what can go wrong."""
    return set(ROW.findall(PAGE.read_text().split("## What can go wrong")[1]))


def test_every_mistake_of_the_page_is_said_so(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = list(mistakes(address))
    missing = {words for words in quoted() if not any(words in each for each in said)}
    assert missing == OF_A_RUNNING_NODE
    assert all(words in NEWCOMER.read_text() for words in OF_A_RUNNING_NODE)


def mistakes(address: str) -> Iterator[str]:
    """Make each, as somebody on that road would, and yield what the commands say."""

    def wrong(*words: str, status: int = 2) -> str:
        said = comity(*words, status=status)
        return said.output + said.errors

    init = ("node", "init", "--listen", address, "--member")
    comity(*init, "clinic-north.example", "north")
    yield wrong(*init, "clinic-north.example", "north")
    comity(*init, "clinic-east.example", "east")
    comity("policy", "template", "site")
    yield wrong("node", "start", "--home", "north")
    comity("coalition", "new", "--home", "north", "--name", "study", "--card", "north/card.toml", *TEMPLATE)
    yield wrong("coalition", "join", "coalition.toml", "--home", "north", "--fingerprint", "abc")
    yield wrong("coalition", "join", "coalition.toml", "--home", "north", "--fingerprint", "0" * 64, status=1)
    comity("coalition", "join", "coalition.toml", "--home", "north")
    yield wrong("node", "start", "--home", "north")
    yield wrong("node", "status", "--home", "north", status=3)
    yield wrong("coalition", "admit", "north/card.toml", "--home", "north")
    yield wrong("coalition", "admit", "east/card.toml", "--home", "north", status=0)
    yield wrong("coalition", "merge", "next.toml")
    yield wrong("coalition", "join", "next.toml", "--home", "east")
    yield wrong("coalition", "sign", "next.toml", "--home", "nowhere")
    comity(*init, "clinic-east.example", "east-anew")
    yield wrong("coalition", "sign", "next.toml", "--home", "east-anew")


def test_a_newcomer_is_shown_all_rules_before_it_signs_and_a_member_what_changes(place: Path) -> None:
    for name in ("north", "east"):
        comity("node", "init", "--member", f"clinic-{name}.example", "--listen", "127.0.0.1:4101", name)
    comity("policy", "template", "site")
    comity("coalition", "new", "--home", "north", "--name", "study", "--card", "north/card.toml", *TEMPLATE)
    comity("coalition", "join", "coalition.toml", "--home", "north")
    comity("coalition", "admit", "east/card.toml", "--home", "north")
    shown = {
        name: comity("coalition", "sign", "next.toml", "--home", name, "--out", f"{name}.toml").output
        for name in ("north", "east")
    }
    assert all("+ member clinic-east.example" in said for said in shown.values())
    assert {name: "Policy main" in said for name, said in shown.items()} == {"north": False, "east": True}


class Starting:
    """A node that is asked before it answers."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any] | None] = [None, {"votes": False}, {"votes": True}]

    def status(self) -> Any:
        answer = self.answers.pop(0)
        if answer is None:
            raise NodeNotRunningError("nobody listens")
        counts = {"quorum": 2, "reachable": 2, "members": {"north": {}, "south": {}}}
        return {"governance_complete": True, "quorum_reachable": True, **counts, **answer}


def test_who_waits_for_a_node_waits_for_its_start_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_node, "POLL_S", 0.0)
    assert cli_node.awaited_status(cast(NodeClient, Starting()), "quorum", 60.0)["votes"] is True
    with pytest.raises(NodeNotRunningError):
        cli_node.awaited_status(cast(NodeClient, Starting()), "quorum", 0.0)
