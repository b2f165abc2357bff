"""What is wrong with what is written: a write beyond its permit, and a version found wrong after it was used."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any, Final

from demo_main.nodes import MEET_S, until
from demo_main.phases_work import require_made, spelled
from demo_main.stage import Stage

LAST: Final = "enrolment"
"""What the institute has made from the version that is found wrong."""


def discard(stage: Stage) -> None:
    """A program of Clinic South writes by itself, and more than it may: what it wrote is seen by no reader."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "discard", "A program of Clinic South writes all columns by itself; its permit names five"
    ):
        path = cast.exchange / cast.south.member / "released.parquet"
        before = path.read_bytes()
        run_id = str(uuid.uuid4())
        ticket = stage.ticket(cast.stewards["south"], "release_again", "released", run=run_id)
        run = stage.worker(cast.south).run(
            "release_again", {"COMITY_TICKET": str(ticket), "DEMO_WRITES_BY_ITSELF": "1"}, run_id
        )
        failure = run.failure()
        story.say(f"released -> {failure.get('comity/outcome')}: {spelled(failure.get('comity/causes', []))}")
        intent = str(failure.get("comity/intent", ""))
        standing: dict[str, Any] = stage.node(cast.south).client().intent(intent)
        story.say("what was staged is gone, and what partners read is what it was")
        story.claim(
            "staged_write_discarded",
            {
                "it was permitted in part": bool(standing["permit"]),
                "for a column too many": "staged_column_not_permitted" in run.codes("comity/causes"),
                "nothing was made": run.status == "FAILURE" and not run.made,
                "what was there stays": path.read_bytes() == before,
            },
            records={"intent": intent, "permit": standing["permit"]},
            runs={"discarded": run.id},
        )


def find_wrong(stage: Stage) -> None:
    """Clinic South finds that its correction was wrong: the version goes back, and what was made from it is marked."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "found_wrong", "Clinic South finds that its correction was wrong, after the institute has used it"
    ):
        path = cast.exchange / cast.south.member / "released.parquet"
        wrong = hashlib.sha256(path.read_bytes()).hexdigest()
        south, institute = stage.node(cast.south).client(), stage.node(cast.institute).client()
        used = _newest(institute.lineage(f"{cast.institute.member}/{LAST}"))
        said = stage.comity(
            cast.south,
            *("verification", "publish", "released", "--failed", "--check", "follow_up_wrong"),
            *("--home", cast.south.home),
        )
        registry = cast.south.place / "registry" / "patients.csv"
        cast.south.account.file(registry, stage.registry_before)

        def marked() -> bool:
            marks = _newest(institute.lineage(used["actuation"]))["marks"]
            return any(mark["kind"] == "observation" for mark in marks)

        until(marked, MEET_S, f"what was made from it to be marked by {cast.institute.title}")
        row = _newest(south.lineage(said["actuation"]))
        run = stage.worker(cast.south).run("follow")
        require_made(run, "follow_up")
        read = [each["actuation"] for each in run.made["follow_up"]["comity/inputs"]]
        back = hashlib.sha256(path.read_bytes()).hexdigest()
        story.say(
            f"{said['asset']}, generation 2: {row['state']} by its own node; the one before stands again"
        )
        story.say(
            f"the next program of {cast.south.title} that reads it puts its bytes back: {wrong[:12]} became {back[:12]}"
        )
        story.say(f"{LAST}, which {cast.institute.title} made from it, is marked: an ancestor failed")
        story.claim(
            "rolled_back",
            {
                "it counts": said["counts"],
                "rolled back": row["state"] == "rolled_back",
                "other bytes lie there": back != wrong,
                "the one before is read": read == [stage.released_before],
            },
            records={"version": said["actuation"], "verification": said["verification"], "stands": read[0]},
            runs={"read": run.id},
        )
        story.claim(
            "descendant_marked",
            {"it was made from it": said["actuation"] in used["inputs"], "it is marked": marked()},
            records={"version": said["actuation"], "descendant": used["actuation"]},
        )


def _newest(lineage: Any) -> dict[str, Any]:
    """The row of a lineage that is of what was asked for."""
    row: dict[str, Any] = lineage["actuations"][0]
    return row
