"""The edges of credentials, launch tickets and approvals: each condition alone, and each time to the second."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from comity.attestation.approvals import approvals_for
from comity.attestation.authoring import NO_SALT
from comity.attestation.credentials import Chain, bound_problem, read_chain, ticket_for, widened
from comity.attestation.findings import Finding
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Item, ItemClass, Observation
from comity.protocol.governance import AuthorityClass, Credential, Taxonomy
from comity.protocol.identifiers import sha256
from comity.protocol.limits import CHAIN_MAX
from comity.protocol.outcome import Mode
from comity.protocol.verified import VerifiedRecord
from world import BOARD, INSTITUTE, NORTH, SOUTH, START, World, key, taxonomy_body

DPO = "data-protection-officer"
APPROVER = "operator/dpo"
ASSETS = (f"{INSTITUTE}/**",)


def held(world: World, *records: SignedRecord) -> dict[bytes, VerifiedRecord[Any]]:
    """Records as an ask that relies on exactly these would bring them."""
    holdings = world[INSTITUTE].holdings
    assert not holdings.admit(records).rejected
    found = {record.id: holdings.get(record.id) for record in records}
    return {i: record for i, record in found.items() if record is not None}


def read(world: World, last: SignedRecord, *above: SignedRecord, t: int = START) -> Chain | Finding:
    return read_chain(last.id, held(world, last, *above), world[INSTITUTE].holdings.epoch, world.taxonomy, t)


def code_of(found: object) -> str:
    assert isinstance(found, Finding)
    return found.cause.code


# Chains


def test_a_credential_is_in_force_from_its_first_second_to_before_its_last() -> None:
    world = World()
    link = world[INSTITUTE].credential("operator/a", not_before=START, not_after=START + 10)
    assert code_of(read(world, link, t=START - 1)) == "credential_early"
    assert isinstance(read(world, link, t=START), Chain)
    assert isinstance(read(world, link, t=START + 9), Chain)
    assert code_of(read(world, link, t=START + 10)) == "credential_expired"


def test_a_link_above_that_has_ended_ends_what_hangs_on_it() -> None:
    """Each link's time is looked at, also where the one below could not have been narrowed to it."""
    world = World()
    institute = world[INSTITUTE]
    lead = institute.credential("operator/lead", not_before=START - 20, not_after=START + 10)
    below = institute.credential(
        "agent/a", under="operator/lead", delegations=0, not_before=START - 20, not_after=START + 10
    )
    assert isinstance(read(world, below, lead, t=START + 9), Chain)
    assert code_of(read(world, below, lead, t=START + 10)) == "credential_expired"


def chain_of(world: World, links: int) -> list[SignedRecord]:
    institute = world[INSTITUTE]
    records: list[SignedRecord] = []
    for number in range(links):
        under = f"agent/{number - 1}" if number else None
        records.append(institute.credential(f"agent/{number}", under=under, delegations=links - 1 - number))
    return records[::-1]


def test_a_chain_has_at_most_so_many_links() -> None:
    world = World()
    found = read(world, *chain_of(world, CHAIN_MAX))
    assert isinstance(found, Chain)
    assert len(found.links) == CHAIN_MAX
    assert code_of(read(world, *chain_of(world, CHAIN_MAX + 1))) == "credential_chain_long"


def test_only_a_credential_is_a_link() -> None:
    world = World()
    record = world[INSTITUTE].certificate
    assert code_of(read(world, record)) == "credential_wrong"


def test_a_missing_link_is_named() -> None:
    world = World()
    lead, agent = chain_of(world, 2)[::-1]
    held(world, lead)
    found = read(world, agent)
    assert code_of(found) == "credential_missing"
    assert isinstance(found, Finding)
    assert found.mode is Mode.DEFER
    assert found.needs[0].parameters == {"id": lead.id.hex()[:16]}


def test_a_root_is_signed_by_a_key_that_the_epoch_lists() -> None:
    """A key that the organization had under another epoch roots nothing from then on."""
    world, other = World(), World((BOARD, NORTH, SOUTH))
    link = world[INSTITUTE].credential("operator/a")
    relied = held(world, link)
    here, there = world[INSTITUTE].holdings.epoch, other[NORTH].holdings.epoch
    assert isinstance(read_chain(link.id, relied, here, world.taxonomy, START), Chain)
    assert code_of(read_chain(link.id, relied, there, world.taxonomy, START)) == "credential_unrooted"


def test_credential_that_a_node_signed_roots_nothing() -> None:
    """A certificate vouches for a node's key and is no link: only organizations and holders delegate."""
    world = World()
    institute = world[INSTITUTE]
    own = next(iter(held(world, institute.credentials["automation/main"][1]).values())).body
    signed = institute.node.write("credential", own, START - 500, name="signed")
    assert code_of(read(world, signed, institute.certificate)) == "credential_wrong"
    assert code_of(read(world, signed)) == "credential_missing"


@pytest.mark.parametrize(
    ("issuers", "code"),
    [((), None), ((INSTITUTE,), None), ((NORTH,), "authority_class_not_issued")],
)
def test_an_authority_class_is_issued_by_those_whom_the_taxonomy_names(
    issuers: tuple[str, ...], code: str | None
) -> None:
    body = Taxonomy(salt=sha256(b"t"), classes=(AuthorityClass("data-steward", 600_000, issuers=issuers),))
    world = World(taxonomy=body)
    found = read(world, world[INSTITUTE].credential("operator/a"))
    assert code is None if isinstance(found, Chain) else code_of(found) == code
    assert isinstance(found, Chain) == (code is None)


def test_every_class_of_a_root_is_published() -> None:
    world = World()
    link = world[INSTITUTE].credential("operator/a", classes=("data-steward", "invented"))
    found = read(world, link)
    assert code_of(found) == "authority_class_unknown"
    assert isinstance(found, Finding)
    assert found.cause.parameters == {"authority_class": "invented"}


ABOVE = Credential(
    salt=NO_SALT,
    subject=f"spiffe://{INSTITUTE}/operator/lead",
    subject_kind="person",
    key=key("lead").public,
    classes=("a", "b"),
    actions=("materialize",),
    assets=(f"{INSTITUTE}/plain/**",),
    realms=("production",),
    purposes=("care",),
    not_before=START,
    not_after=START + 100,
    delegations=1,
)


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, None),
        ({"delegations": 1}, "delegations"),
        ({"delegations": 2}, "delegations"),
        ({"not_before": START - 1}, "validity"),
        ({"not_after": START + 101}, "validity"),
        ({"not_before": START + 1, "not_after": START + 99}, None),
        ({"classes": ("a",)}, None),
        ({"classes": ("a", "c")}, "classes"),
        ({"actions": ("approve",)}, "actions"),
        ({"realms": ("preview/x",)}, "realms"),
        ({"purposes": ()}, "purposes"),
        ({"purposes": ("care", "study")}, "purposes"),
        ({"assets": (f"{INSTITUTE}/plain/a", f"{INSTITUTE}/other")}, "assets"),
        ({"assets": (f"{INSTITUTE}/plain/a", f"{INSTITUTE}/plain/b")}, None),
    ],
)
def test_each_way_to_widen_a_credential_is_named(changes: dict[str, Any], bound: str | None) -> None:
    below = msgspec.structs.replace(ABOVE, **{"delegations": 0, **changes})
    assert widened(below, ABOVE) == bound


def test_who_may_serve_every_purpose_may_delegate_any() -> None:
    every = msgspec.structs.replace(ABOVE, purposes=())
    below = msgspec.structs.replace(ABOVE, delegations=0)
    assert widened(below, every) is None
    assert widened(msgspec.structs.replace(below, purposes=()), every) is None


def test_a_pattern_may_lie_within_any_of_those_above() -> None:
    above = msgspec.structs.replace(ABOVE, assets=(f"{INSTITUTE}/x", f"{INSTITUTE}/plain/**"))
    assert widened(msgspec.structs.replace(ABOVE, delegations=0), above) is None


@pytest.mark.parametrize(
    ("changes", "action", "asset", "realm", "purpose", "bound"),
    [
        ({}, "materialize", "plain/a", "production", "care", None),
        ({"purposes": ("care",)}, "materialize", "plain/a", "production", "care", None),
        ({}, "approve", "plain/a", "production", "care", "actions"),
        (
            {"assets": (f"{INSTITUTE}/x", f"{INSTITUTE}/plain/*")},
            "materialize",
            "plain/a",
            "production",
            "",
            None,
        ),
        ({"assets": (f"{INSTITUTE}/x",)}, "materialize", "plain/a", "production", "care", "assets"),
        ({}, "materialize", "plain/a", "preview/x", "care", "realms"),
        ({"purposes": ("care",)}, "materialize", "plain/a", "production", "study", "purposes"),
    ],
)
def test_each_bound_of_a_credential_is_named(
    changes: dict[str, Any], action: str, asset: str, realm: str, purpose: str, bound: str | None
) -> None:
    world = World()
    chain = read(world, world[INSTITUTE].credential("operator/a", **changes))
    assert isinstance(chain, Chain)
    problem = bound_problem(chain, action, f"{INSTITUTE}/{asset}", realm, purpose)
    assert (problem.cause.parameters["bound"] if problem else None) == bound


# Launch tickets


def ticketed(world: World, intent: SignedRecord, *tickets: SignedRecord, who: str, t: int = START) -> Any:
    chain = read(world, world[INSTITUTE].credentials[who][1])
    assert isinstance(chain, Chain)
    verified = held(world, intent)[intent.id]
    return ticket_for(verified, chain, held(world, *tickets), t)


@pytest.mark.parametrize(
    ("changes", "code", "bound"),
    [
        ({}, None, None),
        ({"not_before": START + 1}, "ticket_expired", None),
        ({"not_before": START, "not_after": START + 1}, None, None),
        ({"not_after": START}, "ticket_expired", None),
        ({"run": "another"}, "ticket_bound", "run"),
        # One for whichever run comes first covers only an intent that names it.
        ({"run": ""}, "ticket_bound", "run"),
        ({"job": "another"}, "ticket_bound", "job"),
        ({"purpose": "care"}, None, None),
        ({"purpose": "study"}, "ticket_bound", "purpose"),
        ({"assets": ("plain/a",)}, "ticket_bound", "assets"),
        ({"assets": ("plain/a", "plain/b")}, None, None),
        ({"partitions": ("mon", "tue")}, None, None),
        ({"partitions": ("mon", "tue", "wed")}, None, None),
        ({"partitions": ("mon",)}, "ticket_bound", "partitions"),
    ],
)
def test_a_ticket_covers_run_job_purpose_assets_and_partitions(
    changes: dict[str, Any], code: str | None, bound: str | None
) -> None:
    world = World()
    institute = world[INSTITUTE]
    institute.credential("operator/a")
    groups = (
        ItemClass(f"{INSTITUTE}/plain/a", (Item(generation=1, partition="mon"),)),
        ItemClass(f"{INSTITUTE}/plain/b", (Item(generation=1, partition="mon"), Item(1, "tue"))),
    )
    intent = institute.intent(who="operator/a", groups=groups)
    fields: dict[str, Any] = {"assets": ("plain/**",), **changes}
    ticket = institute.ticket("operator/a", **fields)
    found = ticketed(world, intent, ticket, who="operator/a")
    if code is None:
        assert isinstance(found, VerifiedRecord)
        assert found.id == ticket.id
    else:
        assert code_of(found) == code
        assert found.cause.parameters.get("bound") == bound


def test_a_ticket_that_does_not_fit_hides_no_other_that_does() -> None:
    world = World()
    institute = world[INSTITUTE]
    institute.credential("operator/a")
    intent = institute.intent("plain/a", who="operator/a")
    good = institute.ticket("operator/a", ["plain/a"])
    wrong = [institute.ticket("operator/a", ["plain/b"], run=f"run-{n}") for n in range(4)]
    assert ticketed(world, intent, *wrong, good, who="operator/a").id == good.id
    assert code_of(ticketed(world, intent, *wrong, who="operator/a")) == "ticket_bound"


def test_a_ticket_of_somebody_else_is_none() -> None:
    world = World()
    institute = world[INSTITUTE]
    institute.credential("operator/a")
    institute.credential("operator/b")
    intent = institute.intent("plain/a", who="operator/a")
    world.tell(institute.credentials["operator/b"][1])
    other = institute.ticket("operator/b", ["plain/a"])
    found = ticketed(world, intent, other, who="operator/a")
    assert code_of(found) == "ticket_missing"
    assert found.mode is Mode.DEFER


def test_what_a_holder_signed_besides_is_no_ticket() -> None:
    world = World()
    institute = world[INSTITUTE]
    institute.credential("operator/a", actions=("materialize", "approve"))
    intent = institute.intent("plain/a", who="operator/a")
    world.tell(institute.credentials["operator/a"][1])
    approval = institute.approve("operator/a", intent)
    assert code_of(ticketed(world, intent, approval, who="operator/a")) == "ticket_missing"


def test_only_automation_under_the_intents_own_key_needs_no_ticket() -> None:
    world = World()
    institute = world[INSTITUTE]
    cases = (
        ("automation/own", "automation", "node/n1", None),
        ("operator/node", "person", "node/n1", "ticket_missing"),
        ("automation/apart", "automation", None, "ticket_missing"),
    )
    for who, kind, held_by, code in cases:
        institute.credential(who, kind=kind, held_by=held_by)
        found = ticketed(world, institute.intent("plain/a", who=who), who=who)
        assert (None if found is None else code_of(found)) == code, who


# Approvals


class Asked:
    """An intent of the institute that waits for the word of South's officer."""

    def __init__(self, *assets: str) -> None:
        self.world = World()
        self.intent = self.world[INSTITUTE].intent(*(assets or ("pooled",)), run="asked")
        self.officer()

    def officer(self, member: str = SOUTH, **changes: Any) -> SignedRecord:
        fields: dict[str, Any] = {"classes": (DPO,), "actions": ("approve",), "assets": ASSETS, **changes}
        return self.world[member].credential(APPROVER, **fields)

    def approvals(
        self,
        *approvals: SignedRecord,
        without_chain: bool = False,
        who: str = "automation/main",
        t: int = START,
    ) -> tuple[frozenset[str], list[str]]:
        """The classes that approved, and the reasons why others do not count."""
        world, institute = self.world, self.world[INSTITUTE]
        links = [c for m in (SOUTH, INSTITUTE) for _, c in world[m].credentials.values()]
        relied = held(world, *links, *approvals)
        requester = read_chain(
            institute.credentials[who][1].id, relied, institute.holdings.epoch, world.taxonomy, START
        )
        assert isinstance(requester, Chain)
        if without_chain:
            relied = {r.id: relied[r.id] for r in approvals}
        verified = held(world, self.intent)[self.intent.id]
        classes, notes = approvals_for(
            verified, requester, relied, institute.holdings.epoch, world.taxonomy, t
        )
        assert all(note.mode is Mode.EXECUTE for note in notes)
        return classes, [str(note.cause.parameters["reason"]) for note in notes]


def test_an_approval_counts_by_the_classes_of_its_author() -> None:
    asked = Asked()
    mine = asked.world[SOUTH].approve(APPROVER, asked.intent)
    assert asked.approvals(mine) == (frozenset({DPO}), [])
    assert asked.approvals() == (frozenset(), [])


def test_approval_that_says_anything_but_approved() -> None:
    asked = Asked()
    holder, _ = asked.world[SOUTH].credentials[APPROVER]
    body = Observation(salt=NO_SALT, claim="approval", shown=asked.intent.header.body.digest)
    said = holder.write("observation", body, START, subject=(asked.intent.id,), outcome="passed")
    assert asked.approvals(said) == (frozenset(), ["not_an_approval"])


@pytest.mark.parametrize("by", ["owner", "node"])
def test_approval_by_a_key_that_is_nobodys_own(by: str) -> None:
    """An organization or its node approves nothing: a person does, by the key of a credential."""
    asked = Asked()
    body = Observation(salt=NO_SALT, claim="approval", shown=asked.intent.header.body.digest)
    author = getattr(asked.world[SOUTH], by)
    said = author.write("observation", body, START, subject=(asked.intent.id,), outcome="approved")
    assert asked.approvals(said) == (frozenset(), ["not_an_approval"])


def test_observation_that_is_no_approval_approves_nothing() -> None:
    asked = Asked()
    said = asked.world[SOUTH].approve(APPROVER, asked.intent, claim="check")
    assert asked.approvals(said) == (frozenset(), [])


def test_approval_whose_header_names_another_intent() -> None:
    """What was shown may be equal: the approval is for the intent that its header lists."""
    asked = Asked()
    other = asked.world[INSTITUTE].intent("pooled", run="other")
    holder, _ = asked.world[SOUTH].credentials[APPROVER]
    body = Observation(salt=NO_SALT, claim="approval", shown=asked.intent.header.body.digest)
    said = holder.write("observation", body, START, subject=(other.id,), outcome="approved")
    assert asked.approvals(said) == (frozenset(), ["another_intent"])


@pytest.mark.parametrize(("not_after", "counts"), [(0, True), (START + 1, True), (START, False)])
def test_approval_ends_with_its_last_second(not_after: int, *, counts: bool) -> None:
    asked = Asked()
    said = asked.world[SOUTH].approve(APPROVER, asked.intent, not_after=not_after)
    assert asked.approvals(said) == ((frozenset({DPO}), []) if counts else (frozenset(), ["expired"]))


def test_approval_whose_chain_is_not_relied_on() -> None:
    asked = Asked()
    said = asked.world[SOUTH].approve(APPROVER, asked.intent)
    assert asked.approvals(said, without_chain=True) == (frozenset(), ["credential_missing"])


def test_approval_by_the_requester_under_another_name() -> None:
    """The key of the node that asks, in a credential for somebody else."""
    asked = Asked()
    asked.world[INSTITUTE].credential(
        APPROVER, held_by="node/n1", classes=(DPO,), actions=("approve",), assets=ASSETS
    )
    said = asked.world[INSTITUTE].approve(APPROVER, asked.intent)
    assert asked.approvals(said) == (frozenset(), ["own_intent"])


def test_approval_by_the_requester_under_another_key() -> None:
    asked = Asked()
    asked.world[INSTITUTE].credential("operator/both")
    requester = asked.world[INSTITUTE].credentials["operator/both"]
    second = asked.world[INSTITUTE].credential(
        "operator/both", held_by="second key", classes=(DPO,), actions=("approve",), assets=ASSETS
    )
    said = asked.world[INSTITUTE].approve("operator/both", asked.intent)
    asked.world[INSTITUTE].credentials["operator/first"] = requester
    assert second.id != requester[1].id
    assert asked.approvals(said, who="operator/first") == (frozenset(), ["own_intent"])


def test_approval_by_whoever_delegated_to_the_requester() -> None:
    asked = Asked()
    institute = asked.world[INSTITUTE]
    institute.credential(
        "operator/lead", classes=(DPO,), actions=("approve", "materialize"), assets=ASSETS, delegations=2
    )
    institute.credential("agent/a", under="operator/lead", classes=(DPO,), actions=("materialize",))
    said = institute.approve("operator/lead", asked.intent)
    assert asked.approvals(said, who="agent/a") == (frozenset(), ["own_intent"])


def test_approval_that_its_credential_does_not_cover_wholly() -> None:
    """Every class of the intent lies within the approver's bounds, not only the first."""
    asked = Asked("pooled", "plain/b")
    fields: dict[str, Any] = {"classes": (DPO,), "actions": ("approve",)}
    asked.world[SOUTH].credential(APPROVER, assets=(f"{INSTITUTE}/pooled",), **fields)
    said = asked.world[SOUTH].approve(APPROVER, asked.intent)
    assert asked.approvals(said) == (frozenset(), ["credential_bound"])
    both = (f"{INSTITUTE}/pooled", f"{INSTITUTE}/plain/b")
    asked.world[SOUTH].credential(APPROVER, assets=both, **fields)
    said = asked.world[SOUTH].approve(APPROVER, asked.intent)
    assert asked.approvals(said) == (frozenset({DPO}), [])


def test_approvals_of_several_are_all_told() -> None:
    asked = Asked()
    asked.world[SOUTH].credential(
        "operator/two", classes=("data-steward",), actions=("approve",), assets=ASSETS
    )
    first = asked.world[SOUTH].approve(APPROVER, asked.intent)
    second = asked.world[SOUTH].approve("operator/two", asked.intent)
    stale = asked.world[SOUTH].approve(APPROVER, asked.intent, not_after=START)
    assert asked.approvals(first, second, stale) == (frozenset({DPO, "data-steward"}), ["expired"])
    assert {entry.name for entry in taxonomy_body().classes} >= {DPO, "data-steward"}
