"""What may go wrong: a file that was tampered with, members that are down, and a stranger who checks it all."""

from __future__ import annotations

import json
import shutil
from typing import Any, Final

from demo_main.lineage import read_lineage
from demo_main.phases_work import require_made
from demo_main.pictures import draw_curves, draw_lineage
from demo_main.processes import DemoError, Finished
from demo_main.stage import Stage
from demo_main.tampering import one_value_changed

DEFERRED_WAIT_S: Final = "8"
"""How long the institute's step waits: longer than votes are waited for (5 s), so that it sees who is silent."""
GOES_ON_S: Final = 90.0
"""Until an intent goes on after the owner that it waited for is back."""
SILENT: Final = "silent"


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
            f"the institute's read -> {failure.get('comity/outcome')}: {_spelled(causes)}"
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


def _spelled(terms: list[dict[str, Any]]) -> str:
    return "; ".join(term["message"] or term["code"] for term in terms)


def lose_board(stage: Stage) -> None:
    """One of four members is down: the others decide without its vote."""
    cast, story = stage.cast, stage.story
    with story.phase("one_down", "The Ethics Board's node is killed; the others decide without its vote"):
        board = stage.node(cast.board)
        pid = board.pid
        board.kill()
        run = stage.make("make_enrolment")
        require_made(run, "enrolment")
        said = run.made["enrolment"]
        permit = stage.decision(cast.institute, said["comity/permit"])
        voters = {vote["member"] for vote in permit["votes"]}
        votes = stage.intent(said["comity/intent"])["votes"]
        story.say(
            f"process {pid} is gone; enrolment -> {said['comity/outcome']} with {len(voters)} votes: "
            f"{', '.join(sorted(cast.titles[member] for member in voters))}; "
            f"{cast.board.title}: {votes[cast.board.member]}"
        )
        story.claim(
            "decided_with_one_member_down",
            {
                "the board is down": not board.up,
                "the others decided": voters == {cast.north.member, cast.south.member, cast.institute.member},
            },
            records={
                "intent": said["comity/intent"],
                "permit": said["comity/permit"],
                "actuation": said["comity/record"],
            }
            | {f"vote_{vote['member']}": vote["vote"] for vote in permit["votes"]},
            runs={"decided": run.id},
        )


def lose_north(stage: Stage) -> None:
    """A live owner is down: the others are enough for a quorum, and it is deferred, naming the owner."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "owner_down", "The Ethics Board is back; Clinic North's node is killed, whose consent is live"
    ):
        board = stage.node(cast.board)
        board.start()
        board.wait_until_ready()
        stage.node(cast.institute).wait_until_connected(*(each.member for each in cast.organizations))
        board.wait_until_voting()
        stage.look_at_decisions()
        stage.node(cast.north).kill()
        run = stage.make("make_enrolment", COMITY_WAIT_S=DEFERRED_WAIT_S)
        failure = run.failure()
        needs = failure.get("comity/needs", [])
        owners = [need["parameters"].get("member") for need in needs if need["code"] == "consent"]
        votes = failure.get("comity/votes", {})
        standing = stage.intent(failure["comity/intent"])["standing"]
        others = sorted(each.member for each in (cast.south, cast.institute, cast.board))
        supporting = sorted(member for member, mode in votes.items() if mode in ("execute", "restrict"))
        story.say(
            f"enrolment -> {failure.get('comity/outcome')} although {len(supporting)} of {len(votes)} support it "
            f"({', '.join(cast.titles[m] for m in supporting)}): {_spelled(needs)}"
        )
        story.claim(
            "live_owner_deferred",
            {
                "nothing was made": run.status == "FAILURE" and not run.made,
                "deferred": (failure.get("comity/outcome"), standing) == ("defer", "deferred"),
                "the owner is named": owners == [cast.north.member],
                "all others support it": supporting == others,
            },
            records={"intent": failure.get("comity/intent", "")},
            runs={"deferred": run.id},
        )


def bring_north_back(stage: Stage) -> None:
    """The owner is back, and the intent goes on by itself."""
    cast, story = stage.cast, stage.story
    with story.phase("owner_back", "Clinic North's node is back; the deferred intent goes on by itself"):
        waiting = [row["intent"] for row in stage.node(cast.institute).client().waiting()]
        if not waiting:
            raise DemoError("nothing waits at the institute")
        north = stage.node(cast.north)
        north.start()
        north.wait_until_ready()
        answer = stage.node(cast.institute).client("bridge").step(waiting[0], GOES_ON_S)
        run = stage.make("make_enrolment")
        require_made(run, "enrolment")
        said = run.made["enrolment"]
        story.say(
            f"enrolment -> {answer.outcome} under the same intent {waiting[0][:16]}; run again, it is made"
        )
        story.claim(
            "owner_back_executed",
            {"the same intent": said["comity/intent"] == waiting[0]},
            records={
                "intent": waiting[0],
                "permit": said["comity/permit"],
                "actuation": said["comity/record"],
            },
            runs={"executed": run.id},
        )
        stage.look_at_decisions()
