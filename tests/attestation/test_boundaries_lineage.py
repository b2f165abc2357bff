"""The edges of lineage: an actuation that differs from its permit in one thing, and owners' words to the second."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from altered import bodied, headed
from comity.attestation.findings import Finding
from comity.attestation.lineage import (
    Input,
    actuation_problem,
    claim_for,
    is_live,
    live_owners,
    owner_policies,
    owners_after,
    read_input,
    realm_problem,
    slope_findings,
    state_after,
    transitions_for,
)
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Actuation, Claim, Intent, Item, ItemClass, Permit
from comity.protocol.governance import Consent, OwnerPolicy
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import sha256
from comity.protocol.outcome import Extent, Mode, Obligation
from comity.protocol.verified import VerifiedRecord
from stories import permit_of
from world import BOARD, FOUR, INSTITUTE, NORTH, SOUTH, START, YEAR, World

OTHER = sha256(b"another")
ASSET = f"{NORTH}/plain/a"
OUTPUT = f"{INSTITUTE}/plain/out"


class Made:
    """Two partitions of one table, made by North from one input of the class and one of the second item."""

    def __init__(self, columns: tuple[str, ...] = ("x", "y", "z")) -> None:
        self.world = World()
        self.north = self.world[NORTH]
        first, second = (
            self.north.actuate(permit_of(self.world, self.north.intent(f"plain/in-{n}", run=f"in-{n}")))
            for n in range(2)
        )
        self.inputs = (first.id, second.id)
        items = (
            Item(generation=1, partition="mon", inputs=(first.id,)),
            Item(generation=1, partition="tue", inputs=(second.id,)),
        )
        group = ItemClass(ASSET, items, columns=columns)
        permit = permit_of(self.world, self.north.intent(groups=(group,), run="made"))
        actuation = self.north.actuate(permit)
        self.actuation, self.permit = self.held(actuation.id), self.held(permit.id)
        self.intent, self.start = self.held(self.permit.body.intent), self.held(self.actuation.body.start)
        votes = [self.held(i) for i in self.permit.body.votes]
        self.records = {r.id: r for r in (self.actuation, self.permit, self.intent, self.start, *votes)}
        self.epochs = self.north.holdings.epochs

    def held(self, record_id: bytes) -> VerifiedRecord[Any]:
        record = self.north.holdings.get(record_id)
        assert record is not None
        return record

    def problem(self, **instead: Any) -> str | None:
        """What is wrong where some of the records are others."""
        start = instead.get("start", self.start)
        records = {**self.records, self.start.id: start}
        found = actuation_problem(
            instead.get("actuation", self.actuation),
            instead.get("permit", self.permit),
            instead.get("intent", self.intent),
            {i: r for i, r in records.items() if r is not None and i not in instead.get("without", ())},
            instead.get("epochs", self.epochs),
        )
        return found.cause.code if found is not None else None

    def attempt(self, number: int) -> str | None:
        return self.problem(
            actuation=bodied(self.actuation, attempt=number), start=bodied(self.start, attempt=number)
        )


def test_an_actuation_exactly_as_it_was_permitted_is_lineage() -> None:
    made = Made()
    assert made.problem() is None
    assert isinstance(read_input(made.actuation.id, made.records, made.epochs), Input)


@pytest.mark.parametrize("lacking", ["actuation", "permit", "intent", "start"])
def test_a_record_that_is_not_named_is_asked_for(lacking: str) -> None:
    made = Made()
    record = getattr(made, lacking)
    relied = {i: r for i, r in made.records.items() if i != record.id}
    found = read_input(made.actuation.id, relied, made.epochs)
    assert isinstance(found, Finding)
    assert (found.mode, found.cause.code) == (Mode.DEFER, "lineage_missing")
    assert [need.parameters for need in found.needs] == [{"id": record.id.hex()[:16]}]


def test_only_what_was_promoted_is_an_input() -> None:
    made = Made()
    for wrong in (
        made.permit,
        headed(made.actuation, outcome="staged"),
        headed(made.actuation, governance=None),
    ):
        found = read_input(made.actuation.id, {**made.records, made.actuation.id: wrong}, made.epochs)
        assert isinstance(found, Finding)
        assert found.cause.code == "input_not_promoted"


def test_what_is_named_as_permit_or_intent_is_one() -> None:
    made = Made()
    assert made.problem(permit=made.intent) == "lineage_wrong"
    assert made.problem(intent=made.permit) == "lineage_wrong"


def test_lineage_of_an_epoch_or_a_coalition_that_is_not_known() -> None:
    made = Made()
    assert made.problem(epochs={}) == "epoch_unknown"
    assert made.problem(actuation=headed(made.actuation, coalition=OTHER)) == "lineage_foreign"


def test_lineage_whose_permit_lacks_a_vote() -> None:
    made = Made()
    assert made.problem(without=made.permit.body.votes[:1]) == "vote_missing"


@pytest.mark.parametrize("field", ["permit", "intent", "asset", "partition", "attempt"])
def test_a_start_of_other_work_carries_nothing(field: str) -> None:
    made = Made()
    other: dict[str, Any] = {
        "permit": OTHER,
        "intent": OTHER,
        "asset": OUTPUT,
        "partition": "tue",
        "attempt": 2,
    }
    assert made.problem(start=bodied(made.start, **{field: other[field]})) == "start_foreign"


def test_a_start_is_the_writers_own_and_a_start() -> None:
    made = Made()
    assert made.problem(start=headed(made.start, member=SOUTH)) == "start_foreign"
    assert made.problem(start=made.permit) == "start_foreign"
    assert made.problem(without=(made.start.id,)) == "start_missing"


def test_work_begins_before_the_permits_last_second() -> None:
    made = Made()
    expires = made.permit.body.expires
    assert made.problem(start=headed(made.start, at=expires - 1)) is None
    assert made.problem(start=headed(made.start, at=expires)) == "permit_expired"


def test_attempts_are_as_many_as_the_intent_says() -> None:
    made = Made()
    most = made.intent.body.attempts_max
    assert made.attempt(most) is None
    assert made.attempt(most + 1) == "attempts_used"


def test_somebody_elses_permit_permits_nothing() -> None:
    made = Made()
    actuation, start = headed(made.actuation, member=SOUTH), headed(made.start, member=SOUTH)
    assert made.problem(actuation=actuation, start=start) == "not_permitted"


@pytest.mark.parametrize("changes", [{"generation": 2}, {"previous": OTHER}])
def test_a_slot_that_was_not_asked_for(changes: dict[str, Any]) -> None:
    made = Made()
    assert made.problem(actuation=bodied(made.actuation, **changes)) == "not_permitted"


def content(made: Made, *columns: str) -> VerifiedRecord[Any]:
    return bodied(
        made.actuation, content=msgspec.structs.replace(made.actuation.body.content, columns=columns)
    )


def test_columns_are_those_of_the_claim() -> None:
    made = Made()
    assert made.problem(actuation=content(made, "x", "y", "z")) is None
    assert made.problem(actuation=content(made, "z")) is None
    assert made.problem(actuation=content(made)) is None
    assert made.problem(actuation=content(made, "x", "w")) == "column_not_permitted"
    free = Made(columns=())
    assert free.problem(actuation=content(free, "anything")) is None


def test_a_claim_of_columns_that_the_intent_lacks_allows_those_that_it_has() -> None:
    """Voters that all lie about the number of columns end no reader."""
    made = Made()
    wide = ((0, 9),)
    claim = made.permit.body.claims[0]
    claim = msgspec.structs.replace(claim, extent=msgspec.structs.replace(claim.extent, columns=wide))
    for vote_id in made.permit.body.votes:
        (judgement,) = made.records[vote_id].body.judgements
        extent = msgspec.structs.replace(judgement.outcome.extent, columns=wide)
        outcome = msgspec.structs.replace(judgement.outcome, extent=extent)
        said = msgspec.structs.replace(judgement, outcome=outcome)
        made.records[vote_id] = bodied(made.records[vote_id], judgements=(said,))
    permit = bodied(made.permit, claims=(claim,))
    assert made.problem(permit=permit) is None
    assert made.problem(permit=permit, actuation=content(made, "w")) == "column_not_permitted"


def test_inputs_are_those_that_were_asked_for() -> None:
    made = Made()
    for inputs in ((), made.inputs[:1], made.inputs):
        assert made.problem(actuation=bodied(made.actuation, inputs=inputs)) is None
    beyond = bodied(made.actuation, inputs=(*made.inputs, OTHER))
    assert made.problem(actuation=beyond) == "lineage_wrong"


@pytest.mark.parametrize(
    "changes",
    [
        {"tier": 1},
        {"realm": "preview/x"},
        {"owners": (NORTH, SOUTH)},
        {"purpose": "survival_study"},
        {"weight": 1},
        {"data_classes": ("released",)},
        {"authority_classes": ()},
    ],
)
def test_the_state_is_the_permits_and_not_the_writers(changes: dict[str, Any]) -> None:
    made = Made()
    before = made.actuation.header.governance
    assert before is not None
    state = msgspec.structs.replace(before, **changes)
    assert made.problem(actuation=headed(made.actuation, governance=state)) == "governance_state_wrong"


def test_the_realm_of_the_record_is_that_of_its_state() -> None:
    made = Made()
    assert made.problem(actuation=headed(made.actuation, realm="preview/x")) == "governance_state_wrong"


def test_obligations_become_restrictions_of_what_is_made() -> None:
    made = Made()
    claim = made.permit.body.claims[0]
    rows, older = Obligation(code="min_group_rows"), Obligation(code="delete_after")
    bound = msgspec.structs.replace(
        claim, obligations=(rows,), state=msgspec.structs.replace(claim.state, restrictions=(older,))
    )
    assert {o.code for o in state_after(bound).restrictions} == {"min_group_rows", "delete_after"}


# The claim of a slot


def slot_claim(index: int, *items: tuple[int, int]) -> Claim:
    state = GovernanceState(tier=0, realm="production", owners=(NORTH,), purpose="care", weight=0)
    return Claim(index=index, mode=Mode.EXECUTE, extent=Extent(items=items), state=state)


def found_claim(made: Made, asset: str, partition: str, *claims: Claim) -> Claim | None:
    intent: Intent = msgspec.structs.replace(
        made.intent.body,
        classes=(
            ItemClass(f"{NORTH}/plain/first", (Item(1, "mon"), Item(1, "tue"))),
            ItemClass(ASSET, (Item(1, "mon"), Item(1, "tue"), Item(1, "wed"))),
        ),
    )
    permit: Permit = msgspec.structs.replace(made.permit.body, claims=claims)
    actuation: Actuation = msgspec.structs.replace(made.actuation.body, asset=asset, partition=partition)
    return claim_for(permit, intent, actuation)


def test_a_claim_covers_the_items_of_its_extent_and_no_other() -> None:
    made = Made()
    first, second = slot_claim(0, (0, 1)), slot_claim(1, (0, 0), (2, 2))
    assert found_claim(made, ASSET, "mon", first, second) is second
    assert found_claim(made, ASSET, "wed", first, second) is second
    assert found_claim(made, ASSET, "tue", first, second) is None
    assert found_claim(made, f"{NORTH}/plain/first", "tue", first, second) is first
    assert found_claim(made, ASSET, "mon", first) is None


def test_a_claim_that_names_what_the_intent_lacks_covers_nothing() -> None:
    """Neither a class nor an item beyond the last; the others are not looked at."""
    made = Made()
    whole = slot_claim(1, (0, 2))
    assert found_claim(made, ASSET, "mon", whole) is whole
    assert found_claim(made, ASSET, "mon", slot_claim(1, (0, 3))) is None
    assert found_claim(made, ASSET, "mon", slot_claim(2, (0, 0)), whole) is None
    assert found_claim(made, ASSET, "mon", slot_claim(1, (1, 1)), whole) is whole


# What flows on


def flowing(made: Made, **changes: Any) -> Input:
    state = GovernanceState(tier=2, realm="production", owners=(NORTH, SOUTH), purpose="care", weight=0)
    return Input(made.actuation, msgspec.structs.replace(state, **changes))


def test_a_preview_stays_in_its_preview() -> None:
    made = Made()
    production, preview = flowing(made), flowing(made, realm="preview/x")
    assert realm_problem("production", [production]) is None
    assert realm_problem("preview/x", [production, preview]) is None
    for realm in ("production", "preview/y"):
        found = realm_problem(realm, [production, preview])
        assert found is not None
        assert found.cause.parameters["realm"] == "preview/x"


def transitions(
    made: Made, *records: SignedRecord, asset: str = OUTPUT, purpose: str = "care", t: int = START
) -> tuple[VerifiedRecord[Any], ...]:
    assert not made.north.holdings.admit(records).rejected
    relied = {record.id: made.held(record.id) for record in records}
    return transitions_for(asset, purpose, relied, made.north.holdings.epoch, t)


@pytest.mark.parametrize(
    ("tier_to", "kind", "by", "lacking"),
    [
        (1, "trust", (NORTH, SOUTH), set[str]()),
        (0, "trust", (NORTH, SOUTH), set[str]()),
        (2, "trust", (NORTH, SOUTH), {NORTH, SOUTH}),
        (1, "trust", (NORTH,), {SOUTH}),
        (1, "trust", (BOARD, INSTITUTE), {NORTH, SOUTH}),
        (1, "release", (NORTH, SOUTH), {NORTH, SOUTH}),
    ],
)
def test_trust_steps_down_where_every_owner_says_so(
    tier_to: int, kind: str, by: tuple[str, ...], lacking: set[str]
) -> None:
    made = Made()
    changes: dict[str, Any] = {"tier_to": tier_to} if kind == "trust" else {}
    records = [made.world[name].transition(OUTPUT, kind, **changes) for name in by]
    found = slope_findings(1, OUTPUT, [flowing(made)], transitions(made, *records))
    assert {str(need.parameters["member"]) for finding in found for need in finding.needs} == lacking
    assert all(finding.mode is Mode.DEFER for finding in found)


@pytest.mark.parametrize(("tier", "steps"), [(1, True), (2, False), (3, False)])
def test_trust_that_stays_or_rises_needs_no_word(tier: int, *, steps: bool) -> None:
    made = Made()
    assert bool(slope_findings(tier, OUTPUT, [flowing(made)], ())) == steps
    both = slope_findings(tier, OUTPUT, [flowing(made, tier=0), flowing(made)], ())
    assert bool(both) == steps


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"not_before": START}, True),
        ({"not_before": START + 1}, False),
        ({"not_after": START + 1}, True),
        ({"not_after": START}, False),
        ({"purpose": "care"}, True),
        ({"purpose": "survival_study"}, False),
    ],
)
def test_a_transition_holds_for_its_time_and_purpose(changes: dict[str, Any], *, holds: bool) -> None:
    made = Made()
    record = made.world[SOUTH].transition(OUTPUT, **changes)
    assert bool(transitions(made, record)) == holds


def test_a_transition_holds_for_the_outputs_that_it_names() -> None:
    made = Made()
    record = made.world[SOUTH].transition(OUTPUT)
    assert transitions(made, record)
    assert transitions(made, record, asset=f"{INSTITUTE}/plain/other") == ()


def test_a_transition_is_the_organizations_own_word() -> None:
    """Not a former key's: an epoch that lists another one hears it no more."""
    made = Made()
    record = made.world[SOUTH].transition(OUTPUT)
    made.north.holdings.admit([record])
    relied = {record.id: made.held(record.id)}
    others = World((BOARD, NORTH, INSTITUTE))[NORTH].holdings.epoch
    assert transitions_for(OUTPUT, "care", relied, others, START) == ()
    assert transitions_for(OUTPUT, "care", {made.intent.id: made.intent}, others, START) == ()


def test_owners_are_inherited_until_they_release() -> None:
    made = Made()
    inputs = [flowing(made), flowing(made, owners=(BOARD,))]
    release = made.world[SOUTH].transition(OUTPUT)
    step = made.world[BOARD].transition(OUTPUT, "trust", tier_to=0)
    assert owners_after(INSTITUTE, inputs, ()) == tuple(sorted(FOUR))
    held = transitions(made, release, step)
    assert owners_after(INSTITUTE, inputs, held) == tuple(sorted((BOARD, INSTITUTE, NORTH)))
    own = transitions(made, made.world[INSTITUTE].transition(OUTPUT))
    assert INSTITUTE in owners_after(INSTITUTE, inputs, own), "a writer releases itself from nothing"


# Consent


def test_the_newest_policy_of_each_owner_speaks() -> None:
    made = Made()
    records = [made.world[SOUTH].owner_policy(number) for number in (3, 12, 7)]
    records += [made.world[NORTH].owner_policy(5)]
    made.north.holdings.admit(records)
    relied = {record.id: made.held(record.id) for record in records}
    found = owner_policies({**relied, made.intent.id: made.intent}, made.north.holdings.epoch)
    assert {member: policy.header.number for member, policy in found.items()} == {SOUTH: 12, NORTH: 5}
    left = World((BOARD, NORTH, INSTITUTE))[NORTH].holdings.epoch
    assert set(owner_policies(relied, left)) == {NORTH}


def test_of_two_policies_with_one_number_the_one_with_the_smaller_id_is_read() -> None:
    """They are struck where adverse records are looked at; until then every voter reads the same one."""
    made = Made()
    records = [made.world[SOUTH].owner_policy(1, released=("standing", START + n)) for n in range(8)]
    made.north.holdings.admit(records)
    relied = {record.id: made.held(record.id) for record in records}
    found = owner_policies(relied, made.north.holdings.epoch)
    assert found[SOUTH].id == min(relied)


def policy(*consents: tuple[str, str, int]) -> OwnerPolicy:
    entries = tuple(Consent(data_class=name, mode=mode, until=until) for name, mode, until in consents)  # type: ignore[arg-type]
    return OwnerPolicy(salt=bytes(32), consents=entries)


@pytest.mark.parametrize(
    ("consents", "classes", "live"),
    [
        ((), ("a",), True),
        ((("a", "standing", START + 1),), ("a",), False),
        ((("a", "standing", START),), ("a",), True),
        ((("a", "live", START + 1),), ("a",), True),
        ((("a", "standing", START + 1),), ("a", "b"), True),
        ((("a", "standing", START + 1),), ("b", "a"), True),
        ((("a", "standing", START + 1), ("b", "standing", START + 1)), ("a", "b"), False),
        ((("*", "standing", START + 1),), ("a", "b"), False),
        ((("*", "standing", START + 1), ("a", "live", 0)), ("a",), True),
        ((("*", "live", 0), ("a", "standing", START + 1)), ("a",), False),
        ((("*", "standing", START + 1),), (), False),
        ((("a", "standing", START + 1),), (), True),
    ],
)
def test_an_owner_is_live_unless_it_stands_for_every_class(
    consents: tuple[tuple[str, str, int], ...], classes: tuple[str, ...], *, live: bool
) -> None:
    assert is_live(policy(*consents), classes, START) == live


def test_every_owner_of_an_input_that_has_no_standing_consent_is_live() -> None:
    made = Made()
    record = made.world[SOUTH].owner_policy(1, any_=("standing", START + YEAR))
    made.north.holdings.admit([record])
    policies = {SOUTH: made.held(record.id)}
    inputs = [flowing(made), flowing(made, owners=(BOARD,))]
    assert live_owners(inputs, {}, START) == tuple(sorted((BOARD, NORTH, SOUTH)))
    assert live_owners(inputs, policies, START) == tuple(sorted((BOARD, NORTH)))
