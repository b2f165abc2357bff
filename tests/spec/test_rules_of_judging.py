"""Rules of docs/spec that a voter, a requester, an engine and a maker of bundles keep, and no other test shows."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from comity.attestation import engine as engine_module
from comity.attestation.case import Fault
from comity.attestation.engine import results_digest, vectors
from comity.attestation.exporting import export_bundle
from comity.attestation.holdings import Holdings
from comity.attestation.judgement import judge
from comity.attestation.offline import case_of, differences, read_unpinned
from comity.attestation.requester import AskAgain, Declined, IntentFiled, SendAsk
from comity.attestation.voter import AskArrived, Decline, SendVote, StoreVote
from comity.protocol import records
from comity.protocol.bundle import Bundle
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import LocalProtocolError, VerificationError
from comity.protocol.execution import Intent
from stories import Pooled, permit_of
from world import ENGINE, FOUR, INSTITUTE, NORTH, SOUTH, START, World, policy_body, taxonomy_body

STORY = Pooled.told()
WHOLE = STORY.bundle()


def lacking(record: SignedRecord) -> Holdings:
    """All that the story's bundle holds but one record, which nobody vouches for a key by."""
    holdings = Holdings(ENGINE)
    for epoch in WHOLE.epochs:
        holdings.adopt(epoch)
    admission = holdings.admit(other for other in WHOLE.records if other.id != record.id)
    assert not admission.rejected
    return holdings


def kinds_of(bundle: Bundle) -> list[SignedRecord]:
    """One record of each kind that vouches for no key, but the targets."""
    found = {r.header.kind: r for r in bundle.records if r.id not in bundle.targets}
    return [found[kind] for kind in sorted(found) if kind not in ("node_certificate", "credential")]


@pytest.mark.parametrize("record", kinds_of(WHOLE), ids=lambda record: record.header.kind)
def test_a_bundle_that_lacks_something_is_not_made(record: SignedRecord) -> None:
    """Nor one without the taxonomy or a policy of an epoch that a vote names."""
    with pytest.raises(VerificationError) as caught:
        export_bundle(WHOLE.targets, lacking(record))
    assert caught.value.reason == "record_missing"


def test_a_requester_signs_one_ask_for_a_round() -> None:
    """Asked again and again: a t that lies ahead of its clock, as after a start, is not used twice either."""
    world = World(FOUR)
    north = world[NORTH]
    north.reset(started=START - 3)
    world.tell(*world.common, only=(NORTH,))
    intent = north.intent("plain/a")
    asks: list[Any] = []
    effects = list(north.requester.handle(START, IntentFiled(intent, ())))
    for tenth in range(40):
        now = START + tenth / 10
        for effect in effects:
            if isinstance(effect, SendAsk):
                asks.append(effect.ask)
                for name in FOUR:
                    # All decline, so that it may ask once more.
                    effects = list(north.requester.handle(now, Declined(name, effect.ask.id, "clock")))
        effects = list(north.requester.handle(now, AskAgain(intent.id)))
    rounds = [north.holdings.get(ask.id).body.t for ask in {a.id: a for a in asks}.values()]  # type: ignore[union-attr]
    assert len(rounds) > 1
    assert len(set(rounds)) == len(rounds)


def test_a_vote_that_nobody_could_read_is_not_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form's bounds are smaller than what the judgement says: the voter abstains, and stores nothing."""
    world = World(FOUR)
    pursuit = world.decide(world[NORTH].intent("plain/a"))
    monkeypatch.setitem(records._BYTES_MAX, "vote", 100)
    fresh = World(FOUR)[SOUTH]
    effects = fresh.voter.handle(START, AskArrived(pursuit.ask.record, (pursuit.intent.record,)))
    (decline,) = [effect for effect in effects if isinstance(effect, Decline)]
    assert decline.code == "vote_large"
    assert not any(isinstance(effect, StoreVote | SendVote) for effect in effects)


def test_an_engine_that_cannot_judge_the_vectors_has_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an id it names itself in no vote: a node does not begin."""
    monkeypatch.setattr(engine_module, "judge", lambda _: Fault("policy_fault", "planted"))
    with pytest.raises(LocalProtocolError, match="policy_fault"):
        results_digest(vectors())


def test_sets_of_ids_are_read_in_any_order() -> None:
    """Inputs of an intent and of what is made: nobody depends on how a writer has sorted them."""
    world = World(FOUR)
    north = world[NORTH]
    inputs = [north.actuate(permit_of(world, north.intent(f"plain/{name}"))).id for name in "ab"]
    intent = north.intent("plain/c", inputs=inputs)
    turned = _inputs_turned(intent, north.node)
    pursuits = [world.decide(each) for each in (intent, turned)]
    assert [pursuit.standing for pursuit in pursuits] == ["permitted", "permitted"]
    said = [[vote.body.judgements for _, vote in sorted(p.votes.items())] for p in pursuits]
    assert said[0] == said[1]
    made = north.actuate(pursuits[1].permit.record)
    after = north.intent("plain/d", inputs=(made.id,))
    assert north.holdings.get(made.id) is not None
    body: Any = north.holdings.get(made.id).body  # type: ignore[union-attr]
    assert list(body.inputs) == sorted(inputs, reverse=True)
    assert world.decide(after).standing == "permitted"


def _inputs_turned(intent: SignedRecord, author: Any) -> SignedRecord:
    body: Any = records.decode_body(intent)
    assert isinstance(body, Intent)
    (group,) = body.classes
    turned = msgspec.structs.replace(group, inputs=tuple(sorted(group.inputs, reverse=True)))
    return author.write(  # type: ignore[no-any-return]
        "intent", msgspec.structs.replace(body, classes=(turned,)), intent.header.at, realm="production"
    )


def test_sets_of_governance_are_read_in_any_order() -> None:
    """Classes of the taxonomy, observers, publishers, and what a credential grants, turned round."""
    policy, taxonomy = policy_body(observers=(NORTH, SOUTH)), taxonomy_body()
    turned_policy = policy_body(observers=(SOUTH, NORTH), purposes=tuple(reversed(policy.purposes)))
    turned_taxonomy = msgspec.structs.replace(taxonomy, classes=tuple(reversed(taxonomy.classes)))
    granted: dict[str, Any] = {
        "classes": ("agent", "data-steward"),
        "actions": ("approve", "materialize"),
        "assets": (f"{INSTITUTE}/**", f"{INSTITUTE}/plain/*"),
        "realms": ("preview/x", "production"),
        "purposes": ("care", "survival_study"),
    }
    said: list[Any] = []
    for way in (1, -1):
        world = World(
            FOUR,
            policy=(policy, turned_policy)[way < 0],
            taxonomy=(taxonomy, turned_taxonomy)[way < 0],
            publishers=(NORTH, SOUTH)[::way],
        )
        institute = world[INSTITUTE]
        grants = {name: value[::way] for name, value in granted.items()}
        world.tell(institute.credential("automation/sets", kind="automation", held_by="node/n1", **grants))
        intent = institute.intent("plain/a", who="automation/sets")
        pursuit = world.decide(intent, (institute.evidence(intent),))
        (claim,) = pursuit.permit.body.claims
        # The state lists what the credential grants in its order, and says the same.
        state = msgspec.structs.replace(
            claim.state, authority_classes=tuple(sorted(claim.state.authority_classes))
        )
        said.append((claim.mode, claim.extent, claim.obligations, claim.live, state))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("judgements", ()),
        ("adverse", (bytes(32),)),
        ("working", bytes(32)),
        ("expires", START + 1),
        ("engine", bytes(32)),
        ("epoch", bytes(32)),
        ("scope", bytes(32)),
    ],
)
def test_a_vote_is_judged_again_in_every_field(field: str, value: Any) -> None:
    """Whatever one field says otherwise than the rules give is found, and nothing else is blamed."""
    held, governances = read_unpinned(WHOLE.encoded())
    vote = next(record for record in held.values() if record.header.kind == "vote")
    # The world of the tests judges by an engine of its own, which the bundle's epoch names.
    governance = dataclasses.replace(governances[vote.body.epoch], engine=ENGINE)
    case = case_of(vote, held, governance)
    judgement = judge(case)
    assert not isinstance(judgement, Fault)
    assert differences(case, judgement, vote) == ()
    bent = dataclasses.replace(vote, body=msgspec.structs.replace(vote.body, **{field: value}))
    assert differences(case, judgement, bent) == (field,)
