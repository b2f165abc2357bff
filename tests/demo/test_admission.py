"""A fifth organization joins the running demo by doing what docs/join.md says, and nothing else."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from houses import short_folder
from served_demo import ServedDemo
from terminal import Terminal
from transcripts import Typed, steps_of, words_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("served_demo")]

PAGE = Path(__file__).parents[2] / "docs/join.md"
DRAFTER, MEMBERS = "institute", ("north", "south", "board")
EAST, ENROLMENT = "clinic-east.example", "clinic-east.example/enrolment"
FINGERPRINT = re.compile(r"Fingerprint: ([0-9a-f]{64})")
WORD = re.compile(r"(?<![$_])\b[A-Z]{3,}\b(?![_=])")
"""A word in capitals that is no name of a variable."""


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        folder.chmod(0o755)
        mail = folder / "mail"
        mail.mkdir()
        mail.chmod(0o1777)
        (folder / "east").mkdir(mode=0o700)
        yield folder


def free_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def asked(terminal: Terminal, command: str) -> Any:
    return json.loads(terminal.type(f"{command} --json"))


def test_a_fifth_organization_joins_as_the_page_says(served: ServedDemo, place: Path) -> None:
    assert served.running, "the demo has ended: the test that looks at its end comes after this one"
    assert str(PAGE) in "".join(served.told)
    page = PAGE.read_text()
    words = {"ADDRESS": free_address(), "MAIL": str(place / "mail"), "DEMO": str(served.place)}
    newcomer = Terminal(place / "east")
    members = {name: Terminal(place, str(served.place / f"as-{name}")) for name in (DRAFTER, *MEMBERS)}
    who = {"newcomer": {EAST: newcomer}, "drafter": {DRAFTER: members[DRAFTER]}}
    who["member"] = {name: members[name] for name in MEMBERS}

    def filled(text: str, **more: str) -> str:
        known = words | more
        assert set(WORD.findall(text)) <= known.keys() & words_of(page), f"what stands for what in {text}?"
        return WORD.sub(lambda word: known[word[0]], text)

    try:
        for step in steps_of(page):
            if not isinstance(step, Typed):
                (newcomer.folder / step.name).write_text(step.text)
                continue
            for name, terminal in who[step.who].items():
                said = terminal.type(filled(step.command, MEMBER=name))
                step.require_shown(said)
                if "coalition roots" in step.command:
                    (words["FINGERPRINT"],) = FINGERPRINT.findall(said)
        decided_by_five(newcomer, members)
    finally:
        newcomer.close()


def decided_by_five(newcomer: Terminal, members: dict[str, Terminal]) -> None:
    """All five nodes are connected and in the new epoch, and each has voted on the intent of the fifth."""
    for each in (newcomer, *members.values()):
        said = asked(each, "comity node status --until all --within 60")
        assert (said["epoch"], said["reachable"], said["quorum"]) == (1, 5, 4)
    (decision,) = [row for row in asked(newcomer, "comity decision list") if row["member"] == EAST]
    shown = asked(newcomer, f"comity decision show {decision['decision']}")
    assert (shown["outcome"], shown["assets"]) == ("execute", [ENROLMENT])
    assert len({vote["member"] for vote in shown["votes"]}) >= 4
    for each in members.values():
        (intent,) = [row for row in asked(each, "comity intent list") if row["member"] == EAST]
        assert (intent["intent"], intent["own_vote"]) == (shown["intent"], "execute")
    lineage = asked(newcomer, "comity lineage show enrolment")
    assert {each["asset"] for each in lineage["actuations"]} == {
        ENROLMENT,
        *(
            f"clinic-{name}.example/{asset}"
            for name in ("north", "south")
            for asset in ("patients", "released")
        ),
    }
