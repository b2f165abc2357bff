"""A launch ticket that names no run is for one: a second run with it is refused by all who saw the first."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from comity.attestation.exporting import export_bundle
from comity.attestation.launches import RUNS_PER_TICKET_MAX, Launches
from comity.attestation.offline import verify_bundle
from comity.attestation.roots import Roots
from comity.attestation.verification import verify
from comity.protocol.envelope import SignedRecord
from comity.protocol.records import decode_body
from world import BOARD, ENGINE, INSTITUTE, NORTH, SOUTH, START, World

WHO = "operator/a"


def with_operator() -> tuple[World, Any]:
    world = World()
    north = world[NORTH]
    north.credential(WHO)
    world.tell(north.credentials[WHO][1])
    return world, north


def one_use(north: Any, **changes: Any) -> SignedRecord:
    ticket: SignedRecord = north.ticket(WHO, ["plain/**"], run="", **changes)
    return ticket


def causes(pursuit: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(cause.code, dict(cause.parameters)) for cause in pursuit.causes]


def test_a_ticket_without_a_run_serves_every_step_of_the_first_run() -> None:
    world, north = with_operator()
    ticket = one_use(north)
    for asset in ("plain/a", "plain/b"):
        intent = north.intent(asset, who=WHO, run="run-1", under=ticket)
        assert world.decide(intent, (ticket,)).standing == "permitted"


def test_a_second_run_with_a_ticket_is_refused_by_all_who_saw_the_first() -> None:
    world, north = with_operator()
    ticket = one_use(north)
    first = north.intent("plain/a", who=WHO, run="run-1", under=ticket)
    assert world.decide(first, (ticket,)).standing == "permitted"
    second = world.decide(north.intent("plain/b", who=WHO, run="run-2", under=ticket), (ticket,))
    assert second.standing == "refused"
    assert causes(second) == [("ticket_used", {"ticket": ticket.id.hex()[:16], "run": "run-1"})]
    # Each vote names what it rests on, so a stranger judges it again to the byte.
    assert all(vote.body.adverse == (first.id,) for vote in second.votes.values())
    bundle = export_bundle((second.refusal.id,), world[NORTH].holdings)
    roots = Roots(world.genesis.id, 0, world.genesis.id, "test", START)
    report = verify_bundle(bundle.encoded(), roots, ENGINE)
    assert (report.level, report.votes_rejudged) == ("re-judged", len(second.votes))
    assert first.id in {record.id for record in bundle.records}


def test_who_never_saw_the_first_run_is_too_few_for_a_second() -> None:
    """Two quorums have an honest member in common, and that one has seen both."""
    world, north = with_operator()
    ticket = one_use(north)
    first = north.intent("plain/a", who=WHO, run="run-1", under=ticket)
    assert world.decide(first, (ticket,), down=(SOUTH,)).standing == "permitted"
    second = world.decide(north.intent("plain/b", who=WHO, run="run-2", under=ticket), (ticket,))
    modes = {member: str(vote.body.judgements[0].outcome.mode) for member, vote in second.votes.items()}
    assert modes == {NORTH: "refuse", SOUTH: "execute", INSTITUTE: "refuse", BOARD: "refuse"}
    assert second.standing == "refused"


def test_another_members_intent_under_a_ticket_takes_nothing_away() -> None:
    world, north = with_operator()
    ticket = one_use(north)
    foreign = world[SOUTH].intent("plain/a", run="run-of-south", under=ticket)
    for member in world.members.values():
        member.holdings.admit([foreign])
    own = north.intent("plain/a", who=WHO, run="run-1", under=ticket)
    assert world.decide(own, (ticket,)).standing == "permitted"


def test_runs_under_different_tickets_have_nothing_to_do_with_each_other() -> None:
    world, north = with_operator()
    for name in ("run-1", "run-2"):
        ticket = one_use(north, purpose="care" if name == "run-1" else "")
        intent = north.intent("plain/a", who=WHO, run=name, under=ticket)
        assert world.decide(intent, (ticket,)).standing == "permitted"


def test_a_ticket_that_names_its_run_is_measured_by_that_alone() -> None:
    world, north = with_operator()
    ticket = north.ticket(WHO, ["plain/**"], run="run-1")
    intent = north.intent("plain/a", who=WHO, run="run-1")
    assert world.decide(intent, (ticket,)).standing == "permitted"
    other = world.decide(north.intent("plain/b", who=WHO, run="run-2", under=ticket), (ticket,))
    assert causes(other) == [("ticket_bound", {"bound": "run", "subject": f"spiffe://{NORTH}/{WHO}"})]


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(6)), forgotten=st.booleans())
def test_whatever_came_first_every_later_run_is_known_to_be_another(
    order: list[int],
    forgotten: bool,  # noqa: FBT001  drawn, not passed by anybody
) -> None:
    """Also after a restart, from no more than what was told to be kept."""
    world, north = with_operator()
    ticket = one_use(north)
    intents = [
        north.intent(f"plain/{number}", who=WHO, run=f"run-{number % 3}", under=ticket) for number in range(6)
    ]
    directory = world[NORTH].holdings.directory
    kept: dict[bytes, SignedRecord] = {}
    launches = Launches()
    for number in order:
        verified = verify(intents[number], directory)
        if launches.add(verified) is not None:
            kept[verified.id] = verified.record
    assert len(kept) == RUNS_PER_TICKET_MAX
    if forgotten:
        launches = Launches(lambda _: [kept[i] for i in sorted(kept)])
    for intent in intents:
        verified = verify(intent, directory)
        others = launches.others(verified)
        assert others
        runs = {decode_body(kept[i]).run.run for i in others}  # type: ignore[attr-defined]
        assert verified.body.run.run not in runs
