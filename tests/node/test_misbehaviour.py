"""Members that contradict themselves, between whole nodes: who proves it, who hears of it, and what is started then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import trio

from comity.attestation.accusing import PROOFS_OF_RULE_MAX
from comity.attestation.authoring import NO_SALT
from comity.node import drafts, steps, views, work
from comity.node.answering import answer_peer
from comity.node.core import Core
from comity.node.forms import ActuationForm, OutputForm, StartForm, StepAnswer, StepForm
from comity.node.permit_use import is_spoken_against
from comity.node.portions import in_frames
from comity.node.problems import Refused
from comity.node.store_memory import MemoryStore
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Item, ItemClass
from comity.protocol.frames import AskFrame, DeclineFrame, OfferFrame, VoteFrame, decode_answer, encode_frame
from comity.protocol.identifiers import sha256
from comity.protocol.limits import FRAME_BYTES_MAX
from nodes import RunningNode, running, still, until
from stories import permit_of
from world import BOARD, FOUR, INSTITUTE, NORTH, SOUTH, START, World

pytestmark = pytest.mark.usefixtures("gossip")


@pytest.fixture
def autojump(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock


def step(output: str) -> StepForm:
    return StepForm(
        orchestrator="dagster",
        run="run-1",
        step=output,
        job="job",
        code=sha256(b"code").hex(),
        outputs=[OutputForm(asset=output)],
    )


async def decided(node: RunningNode, world: World, form: StepForm) -> StepAnswer:
    credential = world[node.name].credentials["automation/main"][1].id
    defaults = drafts.Defaults(purpose="care", credential=credential)
    answer = await node.service.call(lambda: steps.submit(node.core, form, defaults))
    intent = bytes.fromhex(answer.intent)

    def settled() -> bool:
        pursuit = node.core.requester.pursuit(intent)
        return pursuit is not None and pursuit.standing != "asking"

    await node.service.wait_for(intent, settled, 30)
    return await node.service.call(lambda: steps.answer(node.core, intent))


def second_vote(core: Core, world: World, answer: StepAnswer, liar: str) -> SignedRecord:
    """Another vote of a member, on an ask that it has voted on."""
    pursuit = core.requester.pursuit(bytes.fromhex(answer.intent))
    assert pursuit is not None
    body: Any = pursuit.votes[liar].body
    changed = msgspec.structs.replace(body, salt=NO_SALT, expires=body.expires - 1)
    return world[liar].node.write("vote", changed, body.t, subject=(body.intent,))


def proofs(node: RunningNode) -> list[Any]:
    return node.core.holdings.state.of_kind("misbehaviour")


def permitted_by(node: RunningNode, answer: StepAnswer) -> set[str]:
    pursuit = node.core.requester.pursuit(bytes.fromhex(answer.intent))
    assert pursuit is not None
    assert pursuit.permit is not None
    found = [node.core.holdings.get(i) for i in pursuit.permit.body.votes]
    return {vote.member for vote in found if vote is not None}


def start(node: RunningNode, answer: StepAnswer) -> Any:
    output = answer.outputs[0]
    return work.start(node.core, StartForm(answer.intent, output.asset, output.partition))


async def test_who_is_shown_two_votes_proves_it_to_everybody(autojump: object) -> None:
    """And starts nothing under a permit that has no quorum without the liar, until it has asked again."""
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        answer = await decided(north, world, step("plain/a"))
        liar = next(member for member in sorted(permitted_by(north, answer)) if member != NORTH)
        twin = second_vote(north.core, world, answer, liar)
        await north.service.call(lambda: north.core.admit([twin]))
        await until(lambda: all(len(proofs(node)) == 1 for node in nodes.values()))
        (proof,) = proofs(nodes[BOARD])
        assert proof.member == NORTH
        with pytest.raises(Refused) as caught:
            await north.service.call(lambda: start(north, answer))
        assert caught.value.code == "voted_twice"
        assert liar in caught.value.message
        again = await decided(north, world, step("plain/a"))
        assert again.intent == answer.intent
        await until(lambda: liar not in permitted_by(north, again))
        await north.service.call(lambda: start(north, again))
        for node in nodes.values():
            said = views.status(node.core, frozenset(FOUR), (), {})
            shown = {
                m["member"]: (m["counted"], [p["rule"] for p in m["misbehaviour"]["proofs"]])
                for m in said["members"]
            }
            assert shown == {name: (name != liar, ["two_votes"] if name == liar else []) for name in FOUR}


async def test_two_actuations_are_proved_by_who_sees_both(autojump: object) -> None:
    """Who was shown one of both hears of it by the governance log, and admits it no more."""
    world = World(FOUR)
    institute = world[INSTITUTE]
    made = [institute.actuate(permit_of(world, institute.intent("plain/own", run=run))) for run in ("1", "2")]
    certificates = [institute.holdings.get(i) for i in tuple(institute.holdings._execution)]
    records = [r.record for r in certificates if r is not None]
    async with running(world) as nodes:
        north, south = nodes[NORTH], nodes[SOUTH]
        await south.service.call(lambda: south.core.admit([r for r in records if r.id != made[1].id]))
        one = south.core.holdings.get(made[0].id)
        assert one is not None
        assert work.lineage_problem(south.core, one) is None
        await north.service.call(lambda: north.core.admit(records))
        await until(lambda: all(proofs(node) for node in nodes.values()))
        problem = work.lineage_problem(south.core, one)
        assert problem is not None
        assert problem.cause.parameters == {"reason": "slot_twice"}
        # All that hold both may say so; nobody says so twice.
        assert len({(r.member, r.header.subject) for r in proofs(south)}) == len(proofs(south))


async def test_own_contradictions_are_told_to_the_operator_only(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        answer = await decided(north, world, step("plain/a"))
        twin = second_vote(north.core, world, answer, NORTH)
        await north.service.call(lambda: north.core.admit([twin]))
        assert proofs(north) == []
        assert north.core.holdings.take_contradictions() == ()


async def test_a_proof_is_kept_over_a_restart(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        answer = await decided(north, world, step("plain/a"))
        liar = next(member for member in sorted(permitted_by(north, answer)) if member != NORTH)
        twin = second_vote(north.core, world, answer, liar)
        await north.service.call(lambda: north.core.admit([twin]))
        await north.stop()
        again = north.reborn()
        assert again.core.holdings.discounted(world.genesis.id) == {liar}
        again.core.admit([twin, *(v.record for v in north.core.requester.pursuits()[0].votes.values())])
        again.core.drain()
        assert len(proofs(again)) == 1, "what is proved is not proved again"


def test_words_about_nothing_use_up_no_proof() -> None:
    """Votes under no epoch, asks for no intent and actuations without a permit: then a real one of each is proven."""
    world = World(FOUR)
    south = world[SOUTH]
    vote = world.decide(world[NORTH].intent("plain/a")).votes[SOUTH]
    asked = world.decide(south.intent("plain/s"))
    made = [south.actuate(permit_of(world, south.intent("plain/m", run=run))) for run in ("1", "2")]
    kept = [south.holdings.get(i) for i in tuple(south.holdings._execution)]
    core = still(world, NORTH)
    for number in range(PROOFS_OF_RULE_MAX["two_asks"] + 5):
        for twin in (1, 2):
            nothing = sha256(b"nothing %d" % number)
            body = msgspec.structs.replace(
                vote.body, salt=NO_SALT, intent=nothing, epoch=nothing, expires=START + twin
            )
            ask = msgspec.structs.replace(
                asked.ask.body, salt=NO_SALT, intent=nothing, relied=(sha256(b"%d" % twin),)
            )
            core.admit([south.node.write("vote", body, START), south.node.write("ask", ask, START)])
        core.drain()
    assert core.holdings.state.of_kind("misbehaviour") == []
    twin_vote = msgspec.structs.replace(vote.body, salt=NO_SALT, expires=vote.body.expires - 1)
    twin_ask = msgspec.structs.replace(asked.ask.body, salt=NO_SALT, relied=())
    core.admit([r.record for r in kept if r is not None and r.header.kind != "vote"])
    core.admit(
        [vote.record, south.node.write("vote", twin_vote, START), south.node.write("ask", twin_ask, START)]
    )
    core.admit(made)
    core.drain()
    core.drain()
    written = {record.body.rule for record in core.holdings.state.of_kind("misbehaviour")}
    assert written == {"two_votes", "two_asks", "two_actuations"}


def test_who_contradicts_itself_without_end_costs_a_bounded_number_of_proofs() -> None:
    """Of votes one for each epoch, however many there are."""
    world = World(FOUR)
    vote = world.decide(world[NORTH].intent("plain/a")).votes[SOUTH]
    core = still(world, NORTH)
    for number in range(40):
        body = msgspec.structs.replace(vote.body, salt=NO_SALT, expires=START + 1 + number)
        core.admit([world[SOUTH].node.write("vote", body, START, subject=(vote.body.intent,))])
        core.drain()
    assert len(core.holdings.state.of_kind("misbehaviour")) == 1
    at_once = still(world, BOARD)
    twins = [msgspec.structs.replace(vote.body, salt=NO_SALT, expires=START + number) for number in (1, 2, 3)]
    at_once.admit([world[SOUTH].node.write("vote", body, START) for body in twins])
    at_once.drain()
    at_once.drain()
    assert len(at_once.holdings.state.of_kind("misbehaviour")) == 1
    asked = world.decide(world[SOUTH].intent("plain/s"))
    core.admit([asked.intent.record])
    for number in range(PROOFS_OF_RULE_MAX["two_asks"] + 10):
        ask = msgspec.structs.replace(asked.ask.body, salt=NO_SALT, relied=(sha256(b"%d" % number),))
        core.admit([world[SOUTH].node.write("ask", ask, START)])
        core.drain()
    rules = Counter(record.body.rule for record in core.holdings.state.of_kind("misbehaviour"))
    assert rules == {"two_votes": 1, "two_asks": PROOFS_OF_RULE_MAX["two_asks"]}


def test_an_answer_that_is_no_vote_is_not_held_without_being_kept() -> None:
    """Else whoever answers an ask with an adverse record decides what is forgotten at the next restart."""
    world = World(FOUR)
    north = world[NORTH]
    core = still(world, NORTH)
    core.admit([north.intent("plain/a")])
    core.file(north.intent("plain/a"), ())
    (pursuit,) = core.requester.pursuits()
    assert pursuit.ask is not None
    revocation = world[SOUTH].revoke(world[SOUTH].certificate.id)
    core.receive_answer(SOUTH, pursuit.ask.id, encode_frame(VoteFrame(vote=revocation.encoded())))
    assert core.holdings.peek(revocation.id) is None
    assert pursuit.declined == {SOUTH: "answer_unreadable"}
    assert [record.id for record in core.admit([revocation]).admitted] == [revocation.id]


async def test_what_was_promoted_is_on_disk_before_anybody_hears_of_it(
    autojump: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a loss of power makes an honest writer fill the slot again."""
    world = World(FOUR)
    durably: list[set[bytes]] = []
    original = MemoryStore.batch

    @contextmanager
    def watched(store: MemoryStore, *, durable: bool = False) -> Generator[None]:
        before = set(store.ids(bytes(32), b"\xff" * 32, 1_000_000))
        with original(store, durable=durable):
            yield
            if durable:
                durably.append(
                    {i for i, _ in store.ids(bytes(32), b"\xff" * 32, 1_000_000)} - {i for i, _ in before}
                )

    async with running(world) as nodes:
        north = nodes[NORTH]
        answer = await decided(north, world, step("plain/a"))
        output = answer.outputs[0]
        started = await north.service.call(lambda: start(north, answer))
        form = ActuationForm(
            intent=answer.intent,
            start=started.start,
            asset=output.asset,
            partition=output.partition,
            digest=sha256(b"x").hex(),
            size=1,
            media_type="text/csv",
        )
        monkeypatch.setattr(MemoryStore, "batch", watched)
        await north.service.call(lambda: work.actuate(north.core, form))
        (head,) = north.store.heads(f"{NORTH}/plain/a")
        assert any(head.actuation in ids for ids in durably)


def test_offers_fit_into_frames() -> None:
    records = [bytes([number]) * 1_000_000 for number in range(9)]
    portions = list(in_frames(records))
    assert [record for portion in portions for record in portion] == records
    assert len(portions) == 3
    assert all(len(encode_frame(OfferFrame(records=portion))) <= FRAME_BYTES_MAX for portion in portions)


def test_a_store_that_has_another_vote_has_the_last_word_every_time() -> None:
    """A clock that was set back over a restart: an ask of a round that was voted on is delivered twice."""
    world = World(FOUR)
    pursuit = world.decide(world[NORTH].intent("plain/a"))
    store = MemoryStore(bytes(16))
    attached = tuple(record.encoded() for record in pursuit.attached)
    first = still(world, SOUTH, store)
    frame = encode_frame(AskFrame(ask=pursuit.ask.record.encoded(), records=attached))
    assert isinstance(decode_answer(bytes(answer_peer(first, frame))), VoteFrame)  # type: ignore[arg-type]
    body = msgspec.structs.replace(pursuit.ask.body, salt=NO_SALT, relied=pursuit.ask.body.relied[:-1])
    other = world[NORTH].node.write("ask", body, START, subject=(pursuit.intent.id,))
    second = still(world, SOUTH, store)
    again = encode_frame(AskFrame(ask=other.encoded(), records=attached))
    for _ in range(3):
        answer = decode_answer(bytes(answer_peer(second, again)))  # type: ignore[arg-type]
        assert isinstance(answer, DeclineFrame)
        assert answer.code == "voted_before"


def test_who_says_again_what_voters_knew_takes_no_permit_away() -> None:
    """A second record with the effect of one that they named changes nothing; one with another effect does."""
    world = World(FOUR)
    institute = world[INSTITUTE]
    own = institute.actuate(permit_of(world, institute.intent("plain/own")))
    world.tell(institute.observe(own.id, "failed"))
    classes = tuple(
        ItemClass(asset=f"{INSTITUTE}/plain/{name}", items=(Item(generation=1),), inputs=inputs)
        for name, inputs in (("x", (own.id,)), ("y", ()))
    )
    pursuit = world.decide(institute.intent(groups=classes))
    assert pursuit.standing == "permitted"
    assert [claim.index for claim in pursuit.permit.body.claims] == [1]
    assert not is_spoken_against(institute.holdings, pursuit.intent, pursuit.permit)
    world.tell(institute.observe(own.id, "failed", claim="once_more"))
    assert not is_spoken_against(institute.holdings, pursuit.intent, pursuit.permit)
    world.tell(institute.observe(pursuit.intent.id, "disputed"))
    assert is_spoken_against(institute.holdings, pursuit.intent, pursuit.permit)


async def test_a_revocation_after_the_decision_asks_again(autojump: object) -> None:
    world = World(FOUR)
    async with running(world) as nodes:
        north, south = nodes[NORTH], nodes[SOUTH]
        answer = await decided(north, world, step("plain/a"))
        assert not spoken_against(north, answer)
        credential = world[NORTH].credentials["automation/main"][1].id
        await south.service.call(lambda: south.core.publish([world[NORTH].revoke(credential)]))
        await until(lambda: spoken_against(north, answer))
        with pytest.raises(Refused) as caught:
            await north.service.call(lambda: start(north, answer))
        assert caught.value.code == "adverse_held"
        again = await decided(north, world, step("plain/a"))
        await until(lambda: steps.answer(north.core, bytes.fromhex(again.intent)).outcome == "refuse")


def spoken_against(node: RunningNode, answer: StepAnswer) -> bool:
    pursuit = node.core.requester.pursuit(bytes.fromhex(answer.intent))
    assert pursuit is not None
    assert pursuit.permit is not None
    return is_spoken_against(node.core.holdings, pursuit.intent, pursuit.permit)


async def test_a_slot_is_not_made_twice_by_who_has_made_it(autojump: object) -> None:
    """Also where the first one is no head here."""
    world = World(FOUR)
    async with running(world) as nodes:
        north = nodes[NORTH]
        answer = await decided(north, world, step("plain/a"))
        made = world[NORTH].actuate(permit_of(world, world[NORTH].intent("plain/a", run="elsewhere")))
        await north.service.call(lambda: north.core.admit([made]))
        assert north.store.heads(f"{NORTH}/plain/a") == []
        with pytest.raises(Refused) as caught:
            await north.service.call(lambda: start(north, answer))
        assert caught.value.code == "slot_taken"
