"""The edges of the judgement: each condition of its steps alone, each time to the second, each bound to the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from altered import bodied, headed
from asked import Asked
from comity.attestation.authoring import NO_SALT
from comity.attestation.case import ClassWorking, Fault
from comity.attestation.judgement import judge
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Item, ItemClass, Observation, ScopeEpoch
from comity.protocol.governance import Consent, OwnerPolicy, ReferenceValues, Revocation
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import sha256
from comity.protocol.limits import (
    ADVERSE_PER_VOTE_MAX,
    ASK_AGE_S_MAX,
    ASK_AHEAD_S,
    LEASE_S,
    OWNERS_MAX,
    TERMS_MAX,
)
from comity.protocol.outcome import Mode, Obligation
from comity.protocol.verified import VerifiedRecord
from stories import permit_of
from world import INSTITUTE, NORTH, RULES, SOUTH, START, YEAR, World, policy_body

OTHER = sha256(b"another")


# Step 1


def test_what_fits_executes() -> None:
    asked = Asked()
    (judgement,) = asked.judged().classes
    assert judgement.outcome.mode is Mode.EXECUTE
    assert judgement.outcome.causes == ()


@pytest.mark.parametrize(
    ("of", "alter", "code"),
    [
        ("ask", lambda r: bodied(r, intent=OTHER), "ask_not_the_requesters"),
        ("ask", lambda r: headed(r, member=SOUTH), "ask_not_the_requesters"),
        ("ask", lambda r: bodied(r, epochs=(ScopeEpoch(OTHER, r.body.epochs[0].epoch),)), "scope_wrong"),
        ("ask", lambda r: bodied(r, epochs=(ScopeEpoch(r.body.epochs[0].scope, OTHER),)), "scope_wrong"),
        ("ask", lambda r: bodied(r, epochs=r.body.epochs * 2), "scope_wrong"),
        ("ask", lambda r: headed(r, coalition=OTHER), "record_foreign"),
        ("intent", lambda r: headed(r, coalition=OTHER), "record_foreign"),
        ("ask", lambda r: replace(r, role="subject"), "record_foreign"),
        ("intent", lambda r: replace(r, role="organization"), "record_foreign"),
        ("ask", lambda r: headed(r, member="gone.example"), "not_a_member"),
        ("intent", lambda r: headed(r, member="gone.example"), "not_a_member"),
        ("ask", lambda r: replace(r, root_key=OTHER), "node_key_not_in_force"),
        ("intent", lambda r: replace(r, root_key=OTHER), "node_key_not_in_force"),
        ("ask", lambda r: replace(r, valid_until=START), "node_key_not_in_force"),
        ("intent", lambda r: replace(r, valid_until=START), "node_key_not_in_force"),
        ("intent", lambda r: replace(r, valid_from=START + 1), "node_key_not_in_force"),
        ("intent", lambda r: replace(r, valid_from=START, valid_until=START + 1), None),
        ("intent", lambda r: bodied(r, expires=START), "intent_expired"),
        ("intent", lambda r: bodied(r, expires=START + 1), None),
        ("intent", lambda r: headed(r, at=START - ASK_AGE_S_MAX), None),
        ("intent", lambda r: headed(r, at=START - ASK_AGE_S_MAX - 1), "intent_expired"),
        ("intent", lambda r: headed(r, at=START + ASK_AHEAD_S), None),
        ("intent", lambda r: headed(r, at=START + ASK_AHEAD_S + 1), "intent_early"),
        ("ask", lambda r: headed(r, realm="preview/x"), "realm_mixed"),
    ],
)
def test_intent_and_ask_fit_each_other_the_epoch_and_the_time(
    of: str, alter: Callable[[VerifiedRecord[Any]], VerifiedRecord[Any]], code: str | None
) -> None:
    asked = Asked()
    altered: dict[str, Any] = {of: alter(getattr(asked, of))}
    found = asked.judged(**altered).classes[0].outcome
    if code is None:
        assert found.mode is Mode.EXECUTE
    else:
        assert found.mode is Mode.REFUSE
        assert code in {cause.code for cause in found.causes}


def test_an_intent_that_was_taken_back_or_reported_is_refused() -> None:
    asked = Asked()
    back = asked.institute.revoke(asked.intent.id)
    assert "intent_revoked" in asked.codes([back])
    said = asked.institute.observe(asked.intent.id, "failed")
    assert asked.codes([said]) == {"observation_failed"}


@pytest.mark.parametrize(("count", "many"), [(ADVERSE_PER_VOTE_MAX - 1, False), (ADVERSE_PER_VOTE_MAX, True)])
def test_more_against_it_than_a_vote_names_refuses(count: int, *, many: bool) -> None:
    asked = Asked()
    junk = [asked.institute.credential(f"operator/{n}") for n in range(count)]
    asked.relied += junk
    body = Revocation(salt=NO_SALT, reason="key_lost")
    back = [asked.institute.owner.write("revocation", body, START, subject=(record.id,)) for record in junk]
    assert ("adverse_many" in asked.codes(back)) == many
    assert len(asked.judged(back).adverse) == count


# Step 2


def test_a_credential_that_was_never_named_is_missing_and_not_revoked() -> None:
    asked = Asked()
    asked.relied = []
    assert "credential_missing" in asked.codes()
    assert "credential_revoked" not in asked.codes()
    assert asked.working().bundles == ()


def test_approvals_are_read_only_beside_a_sound_chain() -> None:
    asked = Asked("pooled")
    asked.relied = [asked.institute.approve("automation/main", asked.intent.record)]
    assert "credential_missing" in asked.codes()
    assert "approval_not_counted" not in asked.codes()
    assert asked.working().approvals == ()


def test_the_requester_is_the_credentials_subject_and_of_the_intents_member() -> None:
    asked = Asked()
    another = bodied(asked.intent, requester=f"spiffe://{INSTITUTE}/operator/else")
    assert "requester_wrong" in asked.codes(intent=another)
    south = asked.world[SOUTH].credential("automation/lent", kind="automation", assets=(f"{INSTITUTE}/**",))
    asked.relied = [south]
    lent = bodied(asked.intent, requester=f"spiffe://{SOUTH}/automation/lent", credential=south.id)
    assert "requester_wrong" in asked.codes(intent=lent)


# Steps 5 and 6


@pytest.mark.parametrize(
    ("groups", "codes"),
    [
        ((ItemClass(f"{INSTITUTE}/plain/a", (Item(1, "x"), Item(1, "y"))),), [set[str]()]),
        ((ItemClass(f"{INSTITUTE}/plain/a", (Item(1, "x"), Item(2, "x"))),), [{"item_twice"}]),
        (
            tuple(ItemClass(f"{INSTITUTE}/plain/a", (Item(1, "x"),)) for _ in range(2)),
            [set[str](), {"item_twice"}],
        ),
        (
            tuple(ItemClass(f"{INSTITUTE}/plain/{a}", (Item(1, "x"),)) for a in "ab"),
            [set[str](), set[str]()],
        ),
        ((ItemClass(f"{INSTITUTE}/plain/a", (Item(1),), columns=("c", "d", "c")),), [{"column_twice"}]),
        ((ItemClass(f"{INSTITUTE}/plain/a", (Item(1),), columns=("c", "d")),), [set[str]()]),
    ],
)
def test_each_item_and_column_is_asked_for_once(groups: tuple[ItemClass, ...], codes: list[set[str]]) -> None:
    asked = Asked(groups=groups)
    assert [asked.codes(index=i) for i in range(len(groups))] == codes


class Inputs:
    """Actuations of the institute with their certificates, under governance states of one's own choosing."""

    def __init__(self, count: int) -> None:
        self.world = World()
        self.institute = self.world[INSTITUTE]
        self.ids: list[bytes] = []
        self.records: dict[bytes, VerifiedRecord[Any]] = {}
        for number in range(count):
            intent = self.institute.intent(f"plain/in-{number}", run=f"in-{number}")
            made = self.institute.actuate(permit_of(self.world, intent))
            body = self.held(made.id).body
            permit = self.held(body.permit)
            for record_id in (made.id, body.permit, body.intent, body.start, *permit.body.votes):
                self.records[record_id] = self.held(record_id)
            self.ids.append(made.id)

    def held(self, record_id: bytes) -> VerifiedRecord[Any]:
        record = self.institute.holdings.get(record_id)
        assert record is not None
        return record

    def govern(self, number: int, **changes: Any) -> None:
        """Let the voters have said something else of the state, and the writer with them."""
        actuation = self.records[self.ids[number]]
        before = actuation.header.governance
        assert before is not None
        state: GovernanceState = msgspec.structs.replace(before, **changes)
        permit = self.records[actuation.body.permit]
        for vote_id in permit.body.votes:
            (judgement,) = self.records[vote_id].body.judgements
            said = msgspec.structs.replace(judgement, state=state)
            self.records[vote_id] = bodied(self.records[vote_id], judgements=(said,))
        (claim,) = permit.body.claims
        self.records[permit.id] = bodied(permit, claims=(msgspec.structs.replace(claim, state=state),))
        self.records[actuation.id] = headed(actuation, governance=state, realm=state.realm)

    def judged(self, *numbers: int, groups: tuple[ItemClass, ...] | None = None) -> ClassWorking:
        inputs = tuple(self.ids[n] for n in numbers)
        asked = Asked("plain/out", world=self.world, inputs=inputs, groups=groups)
        case = asked.case()
        return asked.working(relied={**case.relied, **self.records})


def codes_of(working: ClassWorking) -> set[str]:
    return {cause.code for cause in working.judgement.outcome.causes}


def names(count: int, start: int = 0) -> tuple[str, ...]:
    return tuple(f"m{n:03}.example" for n in range(start, start + count))


def test_owners_are_as_many_as_a_state_can_name() -> None:
    inputs = Inputs(1)
    inputs.govern(0, owners=names(OWNERS_MAX - 1))
    fits = inputs.judged(0)
    assert "owners_many" not in codes_of(fits)
    assert len(fits.judgement.state.owners) == OWNERS_MAX
    inputs.govern(0, owners=names(OWNERS_MAX))
    many = inputs.judged(0)
    assert "owners_many" in codes_of(many)
    assert many.judgement.outcome.mode is Mode.REFUSE
    assert len(many.judgement.state.owners) == OWNERS_MAX


@pytest.mark.parametrize("field", ["data_classes", "restrictions"])
def test_terms_are_as_many_as_a_state_can_name(field: str) -> None:
    inputs = Inputs(2)
    terms: tuple[Any, ...] = tuple(f"class-{n:03}" for n in range(TERMS_MAX + 1))
    if field == "restrictions":
        terms = tuple(Obligation(code=f"term_{n:03}") for n in range(TERMS_MAX + 1))
    inputs.govern(0, **{field: terms[: TERMS_MAX - 1]})
    inputs.govern(1, **{field: terms[TERMS_MAX - 1 : TERMS_MAX]})
    fits = inputs.judged(0, 1)
    assert "classes_many" not in codes_of(fits)
    inputs.govern(1, **{field: terms[TERMS_MAX - 1 :]})
    many = inputs.judged(0, 1)
    assert "classes_many" in codes_of(many)
    assert many.judgement.outcome.mode is Mode.REFUSE
    assert len(getattr(many.judgement.state, field)) <= TERMS_MAX


def test_items_of_one_class_have_inputs_alike() -> None:
    """All or none, and of one governance; which ones is left to each item."""
    inputs = Inputs(3)
    inputs.govern(2, owners=(INSTITUTE, NORTH))
    one, two, other = inputs.ids

    def mixed(*items: tuple[bytes, ...]) -> bool:
        listed = tuple(Item(1, str(n), inputs=ids) for n, ids in enumerate(items))
        return "class_mixed" in codes_of(inputs.judged(groups=(ItemClass(f"{INSTITUTE}/plain/out", listed),)))

    state = inputs.records[one].header.governance
    assert state is not None
    inputs.govern(1, **msgspec.structs.asdict(state))
    assert not mixed((one,), (two,))
    assert not mixed((one,), (one, two))
    assert not mixed((), ())
    assert not mixed((one,))
    assert mixed((one,), ())
    assert mixed((one,), (other,))
    assert mixed((one,), (one, other))


# Steps 7 and 8


@pytest.mark.parametrize(("least", "low"), [(0, False), (600_000, False), (600_001, True)])
def test_the_least_weight_is_reached_or_named(least: int, *, low: bool) -> None:
    asked = Asked(world=World(policy=policy_body(weight_min=least)))
    outcome = asked.judged().classes[0].outcome
    assert ("weight_low" in {cause.code for cause in outcome.causes}) == low
    assert [need.parameters for need in outcome.needs] == ([{"weight": least}] if low else [])
    assert outcome.mode is (Mode.DEFER if low else Mode.EXECUTE)


@pytest.mark.parametrize("leasts", [(0, 700_000), (700_000, 0), (650_000, 700_000)])
def test_of_several_least_weights_the_greatest_is_reached(leasts: tuple[int, ...]) -> None:
    asked = Asked()
    case = asked.case()
    (bundle,) = case.governance.bundles
    bundles = tuple(
        replace(bundle, policy=msgspec.structs.replace(bundle.policy, weight_min=least)) for least in leasts
    )
    outcome = asked.judged(governance=replace(case.governance, bundles=bundles)).classes[0].outcome
    assert [need.parameters for need in outcome.needs] == [{"weight": 700_000}]


def test_a_note_on_an_approval_is_told_only_where_something_is_lacking() -> None:
    for asset, told in (("plain/a", False), ("pooled", True)):
        asked = Asked(asset)
        approval = asked.institute.approve("automation/main", asked.intent.record)
        asked.relied.append(approval)
        assert ("approval_not_counted" in asked.codes()) == told


ERRS = """
@id("errs") @mode("refuse") @reason("errs") forbid(principal, action == Action::"materialize", resource is Asset)
when { context.weight * 9223372036854775807 > 0 };
"""


def test_a_rule_that_errs_is_a_fault_of_the_whole() -> None:
    asked = Asked(world=World(policy=policy_body(RULES + ERRS)))
    assert isinstance(judge(asked.case()), Fault)


def test_a_fault_that_only_an_adverse_record_brings_is_a_fault_too() -> None:
    """A newer owner policy whose rules err: who holds it abstains."""
    inputs = Inputs(1)
    asked = Asked("plain/out", world=inputs.world, inputs=tuple(inputs.ids))
    old = inputs.institute.owner_policy(1)
    rules = '@id("ok") permit(principal, action, resource);' + ERRS
    new = inputs.institute.owner_policy(2, rules=rules)
    asked.relied.append(old)
    relied = {**asked.case().relied, **inputs.records}
    assert not isinstance(judge(asked.case(relied=relied)), Fault)
    assert isinstance(judge(asked.case([new], relied=relied)), Fault)


def test_nothing_is_fresh_in_this_version() -> None:
    rule = """
    @id("stale") @mode("refuse") @reason("evidence_fresh")
    forbid(principal, action == Action::"materialize", resource is Asset) when { context.fresh };
    """
    asked = Asked(world=World(policy=policy_body(RULES + rule)))
    asked.relied.append(asked.institute.evidence(asked.intent.record))
    assert asked.codes() == set()


# The end of a vote


def ends(asked: Asked, *records: SignedRecord) -> int:
    asked.relied += records
    return asked.judged().expires - START


def test_a_vote_ends_with_the_first_thing_that_it_may_rest_on() -> None:
    assert ends(Asked()) == LEASE_S
    asked = Asked()
    assert asked.judged(intent=bodied(asked.intent, expires=START + 7)).expires == START + 7
    assert asked.judged(intent=replace(asked.intent, valid_until=START + 6)).expires == START + 6


@pytest.mark.parametrize("end", [1, 50, LEASE_S - 1])
@pytest.mark.parametrize(
    "kind", ["credential", "launch_ticket", "observation", "reference_values", "transition", "owner_policy"]
)
def test_a_vote_ends_with_each_kind_that_ends(kind: str, end: int) -> None:
    """Whether it is used or not; what has ended at t, or has no end, shortens nothing."""
    for until, expected in ((START + end, end), (START, LEASE_S)):
        asked = Asked()
        record = ending(asked, kind, until)
        assert ends(asked, record) == expected


def ending(asked: Asked, kind: str, until: int) -> SignedRecord:
    institute = asked.institute
    if kind == "credential":
        return institute.credential("operator/short", not_after=until)
    if kind == "launch_ticket":
        return institute.ticket("automation/main", ["plain/a"], not_after=until)
    if kind == "observation":
        body = Observation(salt=NO_SALT, claim="check", not_after=until)
        return institute.node.write("observation", body, START, subject=(OTHER,), outcome="passed")
    if kind == "reference_values":
        return institute.owner.write(
            "reference_values", ReferenceValues(salt=NO_SALT, not_after=until), START
        )
    if kind == "transition":
        return institute.transition(f"{INSTITUTE}/plain/else", not_after=until)
    consents = (Consent("a", "standing", START + YEAR), Consent("b", "standing", until))
    policy = OwnerPolicy(salt=NO_SALT, consents=consents)
    return institute.owner.write("owner_policy", policy, START, name="owner")
