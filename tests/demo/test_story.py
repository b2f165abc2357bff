"""What the demo claims at its end: nothing counts that was not seen, each time that it was stated."""

from __future__ import annotations

import io

from demo_main.story import CLAIMS, Story


def told(*without: str) -> Story:
    story = Story(io.StringIO())
    for name in CLAIMS:
        if name not in without:
            story.claim(name, {"seen": True}, records={"record": "00"}, runs={"run": "1"})
    return story


def test_a_demo_is_complete_when_everything_was_seen() -> None:
    assert told().complete
    assert list(told().missing()) == []


def test_what_was_never_stated_is_missing() -> None:
    story = told("curves_equal")
    assert not story.complete
    assert list(story.missing()) == ["curves_equal"]


def test_one_look_that_fails_is_enough_and_is_named() -> None:
    out = io.StringIO()
    story = Story(out)
    story.claim("restricted", {"columns": True, "the right rows": True}, records={"north": "01"})
    story.claim("restricted", {"columns": True, "the right rows": False}, records={"south": "02"})
    assert story.claims == {"restricted": False}
    assert "NOT OBSERVED: restricted: the right rows" in out.getvalue()
    assert story.proofs["restricted"].records == {"north": "01", "south": "02"}
    story.claim("restricted", {"the right rows": True})
    assert story.claims == {"restricted": False}


def test_phases_keep_what_was_said_and_how_long_they_took() -> None:
    story = Story(io.StringIO())
    with story.phase("one", "The first part"):
        story.say("something was seen")
    (phase,) = story.phases
    assert (phase.name, phase.said) == ("one", ["something was seen"])
    assert phase.seconds >= 0
