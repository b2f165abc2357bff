"""docs/operate.md: its commands are those of `comity`, and its figures those of the files that it is about."""

from __future__ import annotations

import re

from command_line import problem_of
from machine_tools import ROOT

PAGE = (ROOT / "docs/operate.md").read_text()
UNIT = (ROOT / "deploy/comity-node.service").read_text()
IMAGE = (ROOT / "deploy/Dockerfile").read_text()


def test_commands_of_the_page_exist() -> None:
    lines = re.findall(r"^\$ (comity .*)$", PAGE, re.MULTILINE)
    assert len(lines) >= 5
    assert [problem for line in lines if (problem := problem_of(line))] == []


def test_what_the_container_is_told_is_a_command_too() -> None:
    told = re.findall(r"comity-node \\\n +(node init .*)$", PAGE, re.MULTILINE)
    assert len(told) == 1
    assert problem_of(f"comity {told[0]}") == ""


def test_places_and_users_are_those_of_the_files() -> None:
    assert "ExecStart=/opt/comity/bin/comity node start\n" in UNIT
    assert "COMITY_HOME=/var/lib/comity " in UNIT
    assert "User=comity\n" in UNIT
    assert "USER 10001:10001\n" in IMAGE
    for said in ("/opt/comity", "/var/lib/comity", "user `comity`", "10001"):
        assert said in PAGE
