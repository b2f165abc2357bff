"""Members that are away, and what becomes of it: one of four, an owner, two of four, and how each of them returns.

In between a credential is revoked, which whoever is away learns of when it returns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from comity.node.client import NotPermittedError, StartForm
from demo_main.nodes import MEET_S, until
from demo_main.phases_work import as_agent, require_made, spelled
from demo_main.processes import DemoError
from demo_main.runs import Run
from demo_main.stage import Stage
from demo_main.tampering import one_value_changed

ABSENT_WAIT_S: Final = "8"
"""How long the institute's step waits: longer than votes are waited for (5 s), so that it sees who is silent."""
GOES_ON_S: Final = 90.0
"""Until an intent goes on after whom it waited for is back."""
DRAFT: Final = "drafts/events_by_ecog"
DRAFT_JOB: Final = "make_events_by_ecog"


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
            records=_made_under(said) | {f"vote_{vote['member']}": vote["vote"] for vote in permit["votes"]},
            runs={"decided": run.id},
        )


def _made_under(said: Any) -> dict[str, str]:
    """The records that a materialization names."""
    return {
        "intent": said["comity/intent"],
        "permit": said["comity/permit"],
        "actuation": said["comity/record"],
    }


def revoke(stage: Stage) -> None:
    """The agent's credential is revoked: what it was permitted and has not begun is refused, and all that it asks."""
    cast, story = stage.cast, stage.story
    with story.phase("revoke", "While the Ethics Board is away, the operator revokes the agent's credential"):
        with one_value_changed(cast.institute.assets / "pooled.parquet", "time"):
            stopped = as_agent(stage, DRAFT_JOB, DRAFT)
        intent = str(stopped.failure().get("comity/intent", ""))
        permit = stage.intent(intent)["permit"]
        operator = cast.operator
        done = stage.commands.comity(
            operator.account,
            operator.place,
            *("credential", "revoke", stage.credentials[cast.agent.path], "--reason", "key_lost"),
            *("--under", stage.credentials[operator.path], "--key", operator.key),
            *("--home", operator.organization.home),
        )
        stage.revocation = done["revocation"]
        started = _start_refused(stage, intent)
        story.say(
            f"the agent had a permit for {DRAFT} under which nothing was begun, for its input had been changed; the "
            f"credential is revoked ({cast.board.title} does not hear of it); starting under that permit -> {started}"
        )
        after = as_agent(stage, DRAFT_JOB, DRAFT)
        failure = after.failure()
        story.say(
            f"the agent asks again, its input as it was -> {failure.get('comity/outcome')}: "
            f"{spelled(failure.get('comity/causes', []))}"
        )
        standing = stage.intent(intent)
        story.claim(
            "revocation_refused",
            {
                "it was permitted before": bool(permit) and not stopped.made,
                "the permit starts nothing more": started == "adverse_held",
                "the same intent is refused": failure.get("comity/intent") == intent
                and bool(standing["refusal"]),
                "for the revocation": "credential_revoked" in after.codes("comity/causes"),
                "nothing was made": not after.made,
            },
            records={
                "intent": intent,
                "permit": permit,
                "revocation": stage.revocation,
                "refusal": standing["refusal"],
            },
            runs={"permitted": stopped.id, "refused": after.id},
        )


def _start_refused(stage: Stage, intent: str) -> str:
    """The code with which the institute's node refuses to begin work under an intent's permit."""
    try:
        stage.node(stage.cast.institute).client("bridge").start(StartForm(intent=intent, asset=DRAFT))
    except NotPermittedError as exc:
        return exc.code
    return "started"


def bring_board_back(stage: Stage) -> None:
    """Who was away returns, and knows what it missed before it votes."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "caught_up", "The Ethics Board is back; it votes when it has gone through what it missed"
    ):
        board = stage.node(cast.board)
        board.start()
        board.wait_until_ready()
        stage.node(cast.institute).wait_until_connected(*(each.member for each in cast.organizations))
        board.wait_until_voting()
        stage.look_at_decisions()
        held = stage.record(cast.board, stage.revocation)
        asked = as_agent(stage, DRAFT_JOB, DRAFT)
        intent = str(asked.failure().get("comity/intent", ""))
        own = _vote_of_board(stage, intent)
        causes = [cause["code"] for cause in own["causes"]]
        story.say(
            f"it holds the revocation {stage.revocation[:16]} of {held['member']}; the agent asks once more, and the "
            f"first vote of {cast.board.title} since it is back is {own['votes'][cast.board.member]}: "
            f"{spelled(own['causes'])}"
        )
        story.claim(
            "caught_up",
            {
                "it holds what it missed": held["kind"] == "revocation",
                "its first vote knows it": own["votes"][cast.board.member] == "refuse"
                and "credential_revoked" in causes,
                "nothing was made": not asked.made,
            },
            records={"revocation": stage.revocation, "intent": intent},
            runs={"refused": asked.id},
        )


def _vote_of_board(stage: Stage, intent: str) -> dict[str, Any]:
    """What the Ethics Board's node says of a partner's intent, when it has voted on it."""
    board = stage.cast.board
    found: dict[str, Any] = {}

    def voted() -> bool:
        found.update(stage.node(board).client().intent(intent))
        return board.member in found["votes"]

    until(voted, MEET_S, f"the vote of {board.title}")
    return found


def lose_north(stage: Stage) -> None:
    """A live owner is down: the others are enough for a quorum, and it is deferred, naming the owner."""
    cast, story = stage.cast, stage.story
    with story.phase("owner_down", "Clinic North's node is killed, whose consent is live"):
        stage.node(cast.north).kill()
        run = stage.make("make_enrolment", COMITY_WAIT_S=ABSENT_WAIT_S)
        failure = run.failure()
        needs = failure.get("comity/needs", [])
        owners = [need["parameters"].get("member") for need in needs if need["code"] == "consent"]
        votes = failure.get("comity/votes", {})
        standing = stage.intent(failure["comity/intent"])["standing"]
        others = sorted(each.member for each in (cast.south, cast.institute, cast.board))
        supporting = sorted(member for member, mode in votes.items() if mode in ("execute", "restrict"))
        story.say(
            f"enrolment -> {failure.get('comity/outcome')} although {len(supporting)} of {len(votes)} support it "
            f"({', '.join(cast.titles[m] for m in supporting)}): {spelled(needs)}"
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


def lose_two(stage: Stage) -> None:
    """Two of four are down: no quorum is in reach, and what is asked for is held, naming both."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "two_down", "The Ethics Board's node is killed too: two of four, and no quorum in reach"
    ):
        stage.node(cast.board).kill()
        run = stage.make(DRAFT_JOB, COMITY_WAIT_S=ABSENT_WAIT_S)
        failure = run.failure()
        stage.held = str(failure.get("comity/intent", ""))
        votes = failure.get("comity/votes", {})
        away = sorted((cast.north.member, cast.board.member))
        words = ("waiting", "--home", cast.institute.home)
        waiting: dict[str, Any] = next(
            (row for row in stage.comity(cast.institute, *words) if row["intent"] == stage.held),
            {"standing": "", "votes": {}, "goes_on_by_itself": False},
        )
        said = stage.commands.run(cast.institute.account, cast.institute.place, "comity", *words).output
        silent = sorted(member for member, mode in waiting["votes"].items() if mode == "silent")
        story.say(
            f"{DRAFT} -> {failure.get('comity/outcome')}: {len(votes) - len(silent)} votes of 3; `comity waiting` "
            f"says who gave none: {', '.join(cast.titles[m] for m in silent)}"
        )
        story.claim(
            "held_then_executed",
            {
                "nothing was made": run.status == "FAILURE" and not run.made,
                "held": (failure.get("comity/outcome"), waiting["standing"]) == ("held", "held"),
                "it names the two": silent == away and all(member in said for member in away),
                "it goes on by itself": waiting["goes_on_by_itself"],
            },
            records={"intent": stage.held},
            runs={"held": run.id},
        )


def bring_both_back(stage: Stage) -> None:
    """The owner and the quorum are back, and both intents go on by themselves."""
    cast, story = stage.cast, stage.story
    with story.phase(
        "both_back", "Both nodes are back; what was deferred and what was held go on by themselves"
    ):
        waiting = [row["intent"] for row in stage.node(cast.institute).client().waiting()]
        deferred = next((intent for intent in waiting if intent != stage.held), "")
        if stage.held not in waiting or not deferred:
            raise DemoError(f"not what was deferred and what is held waits at the institute: {waiting}")
        for organization in (cast.north, cast.board):
            stage.node(organization).start()
        for organization in (cast.north, cast.board):
            stage.node(organization).wait_until_ready()
        bridge = stage.node(cast.institute).client("bridge")
        # Both before anything is run again: then it was no run that asked.
        outcomes = {intent: str(bridge.step(intent, GOES_ON_S).outcome) for intent in (deferred, stage.held)}
        _wait_for_the_next_second(stage, outcomes)
        for intent, job, asset, claim in (
            (deferred, "make_enrolment", "enrolment", "owner_back_executed"),
            (stage.held, DRAFT_JOB, DRAFT, "held_then_executed"),
        ):
            run = stage.make(job)
            require_made(run, asset)
            _went_on(stage, claim, intent, run, asset, outcomes[intent])
        stage.look_at_decisions()


def _went_on(stage: Stage, claim: str, intent: str, run: Run, asset: str, outcome: str) -> None:
    said = run.made[asset]
    stage.story.say(f"{asset} -> {outcome} under the same intent {intent[:16]}; run again, it is made")
    stage.story.claim(
        claim,
        {"by itself": outcome == "execute", "the same intent": said["comity/intent"] == intent},
        records=_made_under(said),
        runs={"executed": run.id},
    )


def _wait_for_the_next_second(stage: Stage, intents: Iterable[str]) -> None:
    """A permit's time is a whole second. A run that begins in a later one has not asked for it, as everybody sees."""
    client = stage.node(stage.cast.institute).client()
    newest = max(
        (row["t"] for row in client.decisions() if row["intent"] in set(intents)),
        default=0,
    )
    until(lambda: bool(client.status()["now"] > newest), MEET_S, "the next second")
