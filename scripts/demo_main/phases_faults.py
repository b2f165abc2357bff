"""What may go wrong with what travels: a stranger checks a bundle, and two wrong files are put in a partner's place."""

from __future__ import annotations

import json
import shutil
import uuid
from typing import Any

from comity.dagster_bridge.files import sidecar_of
from demo_main.lineage import read_lineage
from demo_main.patients import corrected
from demo_main.phases_work import RELEASED, require_made, spelled
from demo_main.pictures import draw_curves, draw_lineage
from demo_main.processes import Finished
from demo_main.stage import Stage
from demo_main.tampering import older_in_place, one_value_changed


def export(stage: Stage) -> None:
    """The lineage of `survival` as a bundle, checked by somebody who has nothing else but the roots."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "verify", "A stranger verifies the lineage of survival, with a bundle, the roots, and no node"
    ):
        bundle, roots = stage.results / "survival.bundle", stage.results / "roots.toml"
        asset = f"{cast.institute.member}/survival"
        out = cast.institute.place / bundle.name
        stage.comity(cast.institute, "lineage", "export", asset, "--out", out, "--home", cast.institute.home)
        shutil.copyfile(out, bundle)
        shutil.copyfile(cast.institute.home / "roots.toml", roots)
        for path in (bundle, roots):
            path.chmod(0o644)
        lineage = read_lineage(bundle)
        empty = cast.stranger.folder(cast.place / "stranger")
        done = stage.commands.run(
            cast.stranger, empty, "comity", "verify", bundle, "--roots", roots, "--json"
        )
        report: dict[str, Any] = json.loads(done.output) if done.output.strip() else {}
        story.say(
            f"{lineage.records} records, of which {len(lineage.made)} say that something was made; level "
            f"{report.get('level')}: {report.get('votes_rejudged')} votes were judged again and are equal to the "
            f"byte; roots {str(report.get('fingerprint'))[:16]}"
        )
        changed = bytearray(bundle.read_bytes())
        changed[len(changed) // 2] ^= 1
        flipped = cast.stranger.file(empty / "flipped.bundle", bytes(changed))
        again = stage.commands.run(
            cast.stranger, empty, "comity", "verify", flipped, "--roots", roots, "--json"
        )
        story.say(f"with one bit changed: status {again.status}, {_error_of(again)}")
        story.claim(
            "bundle_verified",
            {
                "verified": done.status == 0,
                "judged again": report.get("level") == "re-judged",
                "a changed bit is found": again.status != 0,
            },
            records={"survival_actuation": stage.survival}
            | {f"{made.member}/{made.name}": made.id for made in lineage.made},
        )
        if done.status != 0:
            story.say(f"comity verify: {done.errors or done.output}")
        draw_curves(stage.fits, stage.direct, stage.results / "curves.png")
        draw_lineage(lineage, cast.titles, stage.results / "lineage.png", stage.results / "lineage.svg")


def _error_of(done: Finished) -> str:
    """What a command that failed says, without the name of the file."""
    try:
        error: Any = json.loads(done.output)["error"]
    except (ValueError, KeyError, TypeError):
        return (done.errors or done.output).strip()[:160]
    code = error["code"]
    message = str(error["message"]).rpartition(".bundle: ")[2].removeprefix(f"{code}: ")
    return f"{code}: {message}"


def tamper(stage: Stage) -> None:
    """A partner's file is changed so that it stays readable; whoever reads it says no."""
    cast, story = stage.cast, stage.story
    with story.phase("tamper", "One value in Clinic South's file is changed; the file stays readable"):
        story.say(
            "from here on the institute makes enrolment, a small asset of its own: how many patients each clinic has "
            "released. It reads both clinics' files anew each time"
        )
        path = cast.exchange / cast.south.member / "released.parquet"
        with one_value_changed(path, "time") as change:
            run = stage.make("make_enrolment")
        failure = run.failure()
        causes = failure.get("comity/causes", [])
        story.say(
            f"{path.parent.name}/{path.name}, row {change.row}: {change.column} {change.before} became {change.after}; "
            f"the institute's read -> {failure.get('comity/outcome')}: {spelled(causes)}"
        )
        intent = stage.intent(failure["comity/intent"])
        again = stage.make("make_enrolment")
        require_made(again, "enrolment")
        said = again.made["enrolment"]
        story.say(f"with the file as it was: enrolment -> {said['comity/outcome']}, under the same intent")
        story.claim(
            "tampered_input_refused",
            {
                "still readable": change.still_readable,
                "nothing was made": run.status == "FAILURE" and not run.made,
                "because of its content": "content_changed" in run.codes("comity/causes"),
                "of that very input": failure.get("comity/input") == f"{cast.south.member}/released",
                "then the same intent": said["comity/intent"] == intent["intent"],
            },
            records={
                "intent": intent["intent"],
                "permit": intent["permit"],
                "actuation": said["comity/record"],
            },
            runs={"refused": run.id, "restored": again.id},
        )


def replay(stage: Stage) -> None:
    """A partner's file of before is put in place of its newest: genuine bytes, and not those that were decided on."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "replay", "Clinic South corrects a follow-up and releases again; its older file is put back in place"
    ):
        path = cast.exchange / cast.south.member / "released.parquet"
        older, beside = path.read_bytes(), sidecar_of(path).read_bytes()
        registry = cast.south.place / "registry" / "patients.csv"
        rows, said_of_it = corrected(registry)
        stage.registry_before = registry.read_bytes()
        cast.south.account.file(registry, rows.to_csv(index=False).encode())
        run_id = str(uuid.uuid4())
        ticket = stage.ticket(cast.stewards["south"], "release", *RELEASED, run=run_id)
        newer = stage.worker(cast.south).run("release", {"COMITY_TICKET": str(ticket)}, run_id)
        require_made(newer, "patients", "released")
        with older_in_place(path, older, sidecar_of(path), beside) as change:
            run = stage.make("make_enrolment")
        failure = run.failure()
        causes = failure.get("comity/causes", [])
        story.say(f"{said_of_it}; released again, and the older file put back with all that vouched for it")
        story.say(f"the institute's read -> {failure.get('comity/outcome')}: {spelled(causes)}")
        again = stage.make("make_enrolment")
        require_made(again, "enrolment")
        said = again.made["enrolment"]
        read = [each["actuation"] for each in said["comity/inputs"]]
        story.say(f"with the newest in place: enrolment -> {said['comity/outcome']}, under the same intent")
        story.claim(
            "replayed_input_refused",
            {
                "the files differ": change.differ,
                "nothing was made": run.status == "FAILURE" and not run.made,
                "because it is another generation": "lineage_of_another" in run.codes("comity/causes"),
                "of that very input": failure.get("comity/input") == f"{cast.south.member}/released",
                "then the same intent": said["comity/intent"] == failure.get("comity/intent"),
                "from the newest": newer.made["released"]["comity/record"] in read,
            },
            records={
                "intent": said["comity/intent"],
                "permit": said["comity/permit"],
                "actuation": said["comity/record"],
                "newest": newer.made["released"]["comity/record"],
            },
            runs={"released": newer.id, "refused": run.id, "restored": again.id},
        )
