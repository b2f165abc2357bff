"""While the demo is served: commands are given as an organization gives them, and nodes that were killed come back."""

from __future__ import annotations

import io
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd

from demo_main.accounts import Account
from demo_main.commands import Commands
from demo_main.nodes import Node
from demo_main.organizations import ACCOUNTS, Cast, Organization
from demo_main.processes import DemoError, Supervisor
from demo_main.serving import bring_back, program_within
from demo_main.stage import Stage
from demo_main.story import Story


@dataclass
class FakeNode:
    """A node that starts, or does not come up."""

    organization: Organization
    up: bool = True
    comes_up: bool = True
    starts: list[str] = field(default_factory=list[str])
    pid: int = 4711

    def start(self) -> None:
        self.starts.append(self.organization.name)

    def wait_until_ready(self) -> dict[str, Any]:
        if not self.comes_up:
            raise DemoError(f"the node of {self.organization.title} is not ready")
        self.up = True
        return {"ready": True}


def stage_at(place: Path, out: io.StringIO, **nodes: FakeNode) -> Stage:
    supervisor = Supervisor()
    cast_of = Cast.at(place, dict.fromkeys(ACCOUNTS, Account()))
    return Stage(
        cast_of,
        Story(out),
        supervisor,
        Commands(supervisor),
        cast(dict[str, Node], nodes),
        {},
        pd.DataFrame(),
        place / "results",
    )


def test_only_what_was_taken_away_is_brought_back(tmp_path: Path) -> None:
    out = io.StringIO()
    members = Cast.at(tmp_path, dict.fromkeys(ACCOUNTS, Account()))
    north, board = FakeNode(members.north, up=False), FakeNode(members.board)
    stage = stage_at(tmp_path, out, north=north, board=board)
    bring_back(stage)
    assert (north.starts, board.starts) == (["north"], [])
    assert "Clinic North is back: process 4711" in out.getvalue()
    bring_back(stage)
    assert north.starts == ["north"]
    assert "every node is running" in out.getvalue()


def test_a_node_that_does_not_come_up_ends_nothing(tmp_path: Path) -> None:
    out = io.StringIO()
    members = Cast.at(tmp_path, dict.fromkeys(ACCOUNTS, Account()))
    north = FakeNode(members.north, up=False, comes_up=False)
    south = FakeNode(members.south, up=False)
    bring_back(stage_at(tmp_path, out, north=north, south=south))
    assert "the node of Clinic North is not ready" in out.getvalue()
    assert "Clinic South is back" in out.getvalue()


def test_a_command_is_given_as_its_organization(tmp_path: Path) -> None:
    place = tmp_path / "a place"
    stage = stage_at(place, io.StringIO())
    institute = stage.cast.institute
    institute.place.mkdir(parents=True)
    program = program_within(stage, institute, own_view=False)
    done = subprocess.run(
        [program, "sh", "-c", 'pwd; printf "%s\\n" "$COMITY_HOME" "$1"', "sh", "a word; and more"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == [str(institute.place), str(institute.home), "a word; and more"]
