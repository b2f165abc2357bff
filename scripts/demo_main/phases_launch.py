"""What is not launched: a run that nobody has asked for, and a second one with somebody else's ticket."""

from __future__ import annotations

from comity.node.orchestrator_http import TICKET_TAG, Launch
from demo_main.founding import start_service
from demo_main.stage import Stage


def ask(stage: Stage) -> None:
    """A click at Clinic North, and a ticket that was copied from the tags of a run. Neither begins."""
    cast, story = stage.cast, stage.story
    # It sees what the clinics have released when it loads; meanwhile the clinics go on.
    start_service(stage, cast.institute)
    with story.phase(
        "asked",
        "Somebody clicks at Clinic North, and somebody copies the steward's ticket from the run's tags",
    ):
        service = stage.service(cast.north)
        place = service.web.find("release")
        ticket = service.web.state(stage.launched).tags[TICKET_TAG]
        clicked = service.web.launch(Launch(place, ("released",)))
        copied = service.web.launch(Launch(place, tags={TICKET_TAG: ticket}))
        first = service.wait_for(clicked, "FAILURE", outcome="refuse")
        second = service.wait_for(copied, "FAILURE", outcome="refuse")
        runs = {"clicked": service.read(clicked), "copied": service.read(copied)}
        story.say(f"a click, for released -> {first.tags['comity/outcome']}: {first.tags['comity/reason']}")
        story.say(
            f"another run with that ticket -> {second.tags['comity/outcome']}: {second.tags['comity/reason']}"
        )
        began = {name: "PIPELINE_START" in run.events for name, run in runs.items()}
        story.claim(
            "ticket_required",
            {
                "refused, for nobody asked": "nobody_asked" in first.tags["comity/reason"].split(", "),
                "it did not begin": not began["clicked"] and not runs["clicked"].made,
            },
            runs={"clicked": clicked},
        )
        story.claim(
            "second_run_refused",
            {
                "refused, for the ticket is used": second.tags["comity/reason"] == "ticket_used",
                "with the very ticket": second.tags[TICKET_TAG] == ticket,
                "it did not begin": not began["copied"] and not runs["copied"].made,
            },
            runs={"first": stage.launched, "second": copied},
        )
