"""The edges of what counts against an ask: who is entitled, what can be taken back, and how much a vote names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from comity.attestation.adverse import Adverse, concerned_ids, weigh_adverse
from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.findings import refuse
from comity.attestation.speaking import Speakers
from comity.protocol.accountability import Misbehaviour
from comity.protocol.contradictions import slot_of
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Ask, ScopeEpoch
from comity.protocol.governance import Revocation
from comity.protocol.governance_state import GovernanceState
from comity.protocol.limits import ADVERSE_PER_VOTE_MAX, CHAIN_MAX
from comity.protocol.verified import VerifiedRecord
from stories import permit_of
from world import BOARD, INSTITUTE, NORTH, SOUTH, START, YEAR, World


class Table:
    """An intent of the institute with its ask, and a hand to lay records beside it."""

    def __init__(self) -> None:
        self.world = World()
        self.institute = self.world[INSTITUTE]
        self.intent = self.verified(self.institute.intent("plain/a"))
        body = Ask(
            salt=NO_SALT,
            intent=self.intent.id,
            t=START,
            epochs=(ScopeEpoch(scope=self.world.genesis.id, epoch=self.world.genesis.id),),
            relied=(),
        )
        self.ask = self.verified(self.institute.node.write("ask", body, START, subject=(self.intent.id,)))

    def verified(self, record: SignedRecord) -> VerifiedRecord[Any]:
        self.institute.holdings.admit([record])
        held = self.institute.holdings.get(record.id)
        assert held is not None
        return held

    def weigh(
        self,
        candidates: Iterable[SignedRecord],
        relied: Iterable[SignedRecord] = (),
        known: Iterable[SignedRecord] = (),
        observers: Iterable[str] = (),
        *,
        asked: bool = True,
    ) -> Adverse:
        return weigh_adverse(
            [self.verified(record) for record in candidates],
            self.intent,
            self.ask if asked else None,
            {record.id: self.verified(record) for record in relied},
            {record.id: self.verified(record) for record in known},
            Speakers(self.institute.holdings.epoch, self.world.taxonomy, frozenset(observers), self.links()),
        )

    def links(self) -> dict[bytes, VerifiedRecord[Any]]:
        """Every credential that the institute holds."""
        return {record.id: record for record in self.institute.holdings.state.of_kind("credential")}

    def said_of(self, subject: bytes, by: str = INSTITUTE, outcome: str = "failed") -> SignedRecord:
        return self.world[by].observe(subject, outcome)

    def made(self, run: str = "made") -> SignedRecord:
        """An actuation of the institute's, of `plain/made`."""
        return self.institute.actuate(permit_of(self.world, self.institute.intent("plain/made", run=run)))


def taken_back(by: Author, subject: bytes) -> SignedRecord:
    return by.write("revocation", Revocation(salt=NO_SALT, reason="key_lost"), START, subject=(subject,))


# What concerns an ask


def test_what_falls_with_its_authority_brings_its_authority_in() -> None:
    table = Table()
    institute = table.institute
    made = table.verified(table.made())
    ticket = table.verified(institute.ticket("automation/main", ["plain/a"]))
    other = table.world[SOUTH].certificate.id
    observed = table.verified(table.world[SOUTH].observe(made.id, "passed"))
    alone = concerned_ids((made,), table.intent, None)
    assert alone == {made.id, table.intent.id, institute.certificate.id}
    foreign = replace(table.intent, record=observed.record)
    assert concerned_ids((made,), foreign, None) == {made.id, observed.id, other}, "not what made lineage"
    assert concerned_ids((observed,), table.intent, None) >= {observed.id, other}
    credential = institute.credentials["automation/main"][1].id
    assert concerned_ids((ticket,), table.intent, table.ask) == {
        ticket.id,
        credential,
        table.intent.id,
        table.ask.id,
        institute.certificate.id,
    }


def test_the_organizations_own_records_bring_no_authority_in() -> None:
    table = Table()
    link = table.verified(table.institute.credential("operator/a"))
    assert link.authority is None
    assert concerned_ids((link,), link, link) == {link.id}


@pytest.mark.parametrize("of", ["intent", "ask"])
def test_the_authority_of_intent_and_ask_is_concerned(of: str) -> None:
    """Each by itself: another node may ask for what one node filed."""
    table = Table()
    second = table.institute.certify("n2")
    table.verified(second)
    author = table.institute.node_author("n2", second)
    body = getattr(table, of).body
    record = author.write(of, msgspec.structs.replace(body, salt=NO_SALT), START)
    setattr(table, of, table.verified(record))
    found = table.weigh([taken_back(table.institute.owner, second.id)], known=[second])
    assert found.struck == {second.id: "revoked"}


def test_only_what_was_promoted_has_a_slot() -> None:
    table = Table()
    made = table.verified(table.made())
    assert slot_of(made) == (INSTITUTE, f"{INSTITUTE}/plain/made", "", 1)
    assert slot_of(table.intent) is None
    staged = table.institute.node.write(
        "actuation",
        msgspec.structs.replace(made.body, salt=NO_SALT),
        START + 3,
        outcome="staged",
        governance=made.header.governance,
    )
    assert slot_of(table.verified(staged)) is None
    observed = table.verified(table.said_of(made.id, outcome="passed"))
    assert slot_of(observed) is None


def test_each_effect_by_itself_makes_another_judgement() -> None:
    assert not Adverse().counts()
    assert Adverse(struck={b"a": "revoked"}).counts()
    assert Adverse(against={b"a": (refuse("observation_failed"),)}).counts()


# Who takes back what


def test_taking_back_says_so() -> None:
    table = Table()
    link = table.institute.credential("operator/a")
    record = taken_back(table.institute.owner, link.id)
    found = table.weigh([record], [link])
    assert found.struck == {link.id: "revoked"}
    assert found.ids == (record.id,)
    assert not found.against


def test_what_was_decided_and_done_cannot_be_taken_back() -> None:
    """Votes, permits, starts and actuations stand, whoever would take them back."""
    table = Table()
    made = table.verified(table.made())
    permit = table.verified(table.institute.holdings.get(made.body.permit).record)  # type: ignore[union-attr]
    start = table.verified(table.institute.holdings.get(made.body.start).record)  # type: ignore[union-attr]
    votes = [table.institute.holdings.get(i) for i in permit.body.votes]
    for done in (made, permit, start, *votes):
        assert done is not None
        member = table.world[done.member]
        for author in (member.owner, member.node):
            assert table.weigh([taken_back(author, done.id)], [done.record]) == Adverse()


def test_who_may_take_back_what_a_holder_signed() -> None:
    """The organization, the signer, and every key above it; nobody else of the same member, and no other member."""
    table = Table()
    institute = table.institute
    top = institute.credential("operator/top", delegations=3)
    middle = institute.credential("operator/middle", under="operator/top", delegations=2)
    low = institute.credential("agent/low", under="operator/middle", delegations=1)
    side = institute.credential("operator/side", delegations=1)
    ticket = institute.ticket("agent/low", ["plain/a"])
    holders = {who: institute.credentials[who][0] for who in ("operator/top", "operator/middle", "agent/low")}
    entitled = [institute.owner, *holders.values()]
    strangers = [institute.credentials["operator/side"][0], institute.node, table.world[SOUTH].owner]
    for record in (top, middle, low, side):
        table.verified(record)
    links = [low, middle, top]
    for author in entitled:
        assert table.weigh([taken_back(author, ticket.id)], [ticket, *links]).struck == {ticket.id: "revoked"}
        assert table.weigh([taken_back(author, ticket.id)], [ticket], links).struck == {ticket.id: "revoked"}
    for author in strangers:
        assert table.weigh([taken_back(author, ticket.id)], [ticket, *links]) == Adverse()
    above = taken_back(holders["operator/top"], ticket.id)
    assert table.weigh([above], [ticket], [low]) == Adverse(), (
        "the way upwards ends where a link is not at hand"
    )
    assert table.weigh([taken_back(holders["agent/low"], top.id)], links) == Adverse(), "downwards only"


def test_what_nobody_relies_on_is_not_concerned() -> None:
    table = Table()
    link = table.institute.credential("operator/a")
    record = taken_back(table.institute.owner, link.id)
    assert table.weigh([record]) == Adverse()
    assert table.weigh([record], known=[link]) == Adverse()


def test_one_record_acts_on_each_subject_that_it_names() -> None:
    """A subject that is not concerned hides no other."""
    table = Table()
    links = [table.institute.credential(f"operator/{n}") for n in range(4)]
    body = Revocation(salt=NO_SALT, reason="key_lost")
    record = table.institute.owner.write("revocation", body, START, subject=tuple(x.id for x in links))
    found = table.weigh([record], links[1:3])
    assert found.struck == {link.id: "revoked" for link in links[1:3]}
    assert found.ids == (record.id,)


def test_the_intent_and_the_ask_can_be_taken_back() -> None:
    table = Table()
    for record in (table.intent, table.ask):
        found = table.weigh([taken_back(table.institute.owner, record.id)])
        assert found.struck == ({record.id: "revoked"} if record is table.intent else {})


def test_a_node_takes_back_what_it_signed_itself() -> None:
    """Under its own key; another node of the member is not asked."""
    table = Table()
    second = table.institute.certify("n2")
    table.verified(second)
    evidence = table.institute.evidence(table.intent.record)
    other = table.institute.node_author("n2", second)
    assert table.weigh([taken_back(table.institute.node, evidence.id)], [evidence]).struck == {
        evidence.id: "revoked"
    }
    assert table.weigh([taken_back(other, evidence.id)], [evidence]) == Adverse()


def test_a_certificate_that_is_not_at_hand_cannot_be_struck() -> None:
    table = Table()
    record = taken_back(table.institute.owner, table.institute.certificate.id)
    assert table.weigh([record]) == Adverse()
    assert table.weigh([record], known=[table.institute.certificate]).counts()


# Who reports


def test_a_report_against_the_ask_is_named_where_there_is_one() -> None:
    table = Table()
    said = table.said_of(table.ask.id)
    found = table.weigh([said])
    assert (found.ids, set(found.against)) == ((said.id,), {table.ask.id})
    assert table.weigh([said], asked=False) == Adverse()


@pytest.mark.parametrize(
    ("by", "observers", "counts"),
    [
        (INSTITUTE, (), True),
        (NORTH, (), True),
        (SOUTH, (), False),
        (SOUTH, (SOUTH,), True),
        (SOUTH, (BOARD,), False),
    ],
)
def test_writer_owner_and_observer_report_what_was_made(
    by: str, observers: tuple[str, ...], *, counts: bool
) -> None:
    table = Table()
    made = table.verified(table.made())
    state = made.header.governance
    assert state is not None
    shared = msgspec.structs.replace(state, owners=(NORTH, INSTITUTE))
    actuation = _again(table, made, shared)
    said = table.said_of(actuation.id, by)
    found = table.weigh([said], [actuation], observers=observers)
    assert found.counts() == counts
    if counts:
        assert found.ids == (said.id,)
        assert not found.struck
        assert [f.cause.code for f in found.against[actuation.id]] == ["observation_failed"]
        assert found.against[actuation.id][0].cause.parameters == {"member": by}


def _again(table: Table, made: VerifiedRecord[Any], state: GovernanceState) -> SignedRecord:
    body = msgspec.structs.replace(made.body, salt=NO_SALT, partition="again")
    return table.institute.node.write("actuation", body, START + 9, outcome="promoted", governance=state)


@pytest.mark.parametrize("outcome", ["failed", "disputed", "withdrawn"])
def test_an_observation_that_is_taken_up_strikes_the_one_that_it_names(outcome: str) -> None:
    table = Table()
    passed = table.world[NORTH].observe(table.intent.id, "passed")
    said = table.said_of(passed.id, NORTH, outcome)
    found = table.weigh([said], [passed])
    assert found.struck == {passed.id: outcome}
    assert not found.against
    assert table.weigh([table.said_of(passed.id, SOUTH, outcome)], [passed]) == Adverse()


def test_several_reports_are_all_told() -> None:
    table = Table()
    reports = [table.said_of(table.intent.id, INSTITUTE, outcome) for outcome in ("failed", "disputed")]
    found = table.weigh(reports)
    assert {f.cause.code for f in found.against[table.intent.id]} == {
        "observation_failed",
        "observation_disputed",
    }
    assert found.ids == tuple(sorted(report.id for report in reports))


def test_adverse_record_without_an_outcome_does_nothing() -> None:
    table = Table()
    body = Misbehaviour(salt=NO_SALT, rule="two_of_something", records=(b"one", b"two"))
    record = table.institute.node.write("misbehaviour", body, START, subject=(table.intent.id,))
    assert table.weigh([record]) == Adverse()


def test_adverse_record_that_is_relied_on_acts_and_is_not_named() -> None:
    """Whoever judges again sees it in the ask."""
    table = Table()
    said = table.said_of(table.intent.id)
    found = table.weigh([], [said])
    assert found.ids == ()
    assert found.counts()
    assert table.intent.id in found.against
    assert table.weigh([said], [said]).ids == ()


# What falls with what


def test_what_hangs_on_a_struck_credential_falls_to_the_last_link() -> None:
    table = Table()
    institute = table.institute
    links = [
        institute.credential(
            f"agent/{number}",
            under=f"agent/{number - 1}" if number else None,
            delegations=CHAIN_MAX - number,
        )
        for number in range(CHAIN_MAX + 1)
    ]
    ticket = institute.ticket(f"agent/{CHAIN_MAX}", ["plain/a"])
    found = table.weigh([taken_back(institute.owner, links[0].id)], [*links, ticket])
    assert found.struck == {record.id: "revoked" for record in (*links, ticket)}
    assert len(found.ids) == 1


def test_what_falls_is_followed_so_many_links_and_no_further() -> None:
    """Whoever judges again follows as many: the number is part of the rule."""
    table = Table()
    below = CHAIN_MAX + 3
    links = [
        table.institute.credential(
            f"agent/{number}", under=f"agent/{number - 1}" if number else None, delegations=0
        )
        for number in range(below + 1)
    ]
    found = table.weigh([taken_back(table.institute.owner, links[0].id)], links)
    assert set(found.struck) == {link.id for link in links[: CHAIN_MAX + 2]}


def test_lineage_does_not_fall_with_a_certificate() -> None:
    table = Table()
    made = table.made()
    certificate = table.institute.certificate
    evidence = table.institute.evidence(table.intent.record)
    found = table.weigh([taken_back(table.institute.owner, certificate.id)], [made, evidence], [certificate])
    assert found.struck == {certificate.id: "revoked", evidence.id: "revoked"}


def test_what_was_struck_for_another_reason_keeps_it() -> None:
    table = Table()
    link = table.institute.credential("operator/a")
    approval = table.institute.approve("operator/a", table.intent.record)
    back, withdrawn = (
        taken_back(table.institute.owner, link.id),
        table.said_of(approval.id, outcome="withdrawn"),
    )
    table.verified(link)
    found = table.weigh([back, withdrawn], [link, approval])
    assert found.struck == {link.id: "revoked", approval.id: "withdrawn"}


# What may stand only once


def test_rivals_strike_each_other_whether_relied_on_or_held() -> None:
    table = Table()
    south = table.world[SOUTH]
    one = south.owner_policy(3, released=("standing", START + YEAR))
    two = south.owner_policy(3, released=("standing", START + YEAR - 1))
    both = {one.id: "rivalled", two.id: "rivalled"}
    held = table.weigh([two], [one])
    assert (held.struck, held.ids, dict(held.added)) == (both, (two.id,), {})
    relied = table.weigh([], [one, two])
    assert (relied.struck, relied.ids) == (both, ())
    assert table.weigh([one], [one]) == Adverse(), "nothing is its own rival"


def test_newer_owner_policy_takes_the_place_of_the_older_and_not_the_reverse() -> None:
    table = Table()
    south = table.world[SOUTH]
    old, new = south.owner_policy(3), south.owner_policy(4)
    found = table.weigh([new], [old])
    assert (found.struck, found.ids, set(found.added)) == ({old.id: "superseded"}, (new.id,), {new.id})
    assert table.weigh([old], [new]) == Adverse()
    within = table.weigh([], [old, new])
    assert (within.struck, within.ids) == ({old.id: "superseded"}, ())
    of_another = table.world[NORTH].owner_policy(9)
    assert table.weigh([of_another], [old]) == Adverse()


def test_older_owner_policy_that_was_revoked_stays_revoked() -> None:
    table = Table()
    south = table.world[SOUTH]
    old = south.owner_policy(3)
    for number in range(4, 12):
        # Whichever id comes first, both effects are there, and the newer one stands in any case.
        new = south.owner_policy(number)
        record = taken_back(south.owner, old.id)
        found = table.weigh([new, record], [old])
        assert found.struck == {old.id: "revoked"}
        assert set(found.added) == {new.id}


def test_what_has_the_name_of_an_owner_policy_and_is_none_takes_no_place() -> None:
    table = Table()
    south = table.world[SOUTH]
    policy = south.owner_policy(4)
    body = table.verified(south.credential("operator/a")).body
    for number in (1, 9):
        named = south.owner.write(
            "credential", msgspec.structs.replace(body, salt=NO_SALT), START, name="owner", number=number
        )
        assert table.weigh([policy], [named]) == Adverse()
        assert table.weigh([named], [policy]) == Adverse()


def test_adverse_records_are_no_rivals() -> None:
    table = Table()
    link = table.institute.credential("operator/a")
    twins = [
        table.institute.owner.write(
            "revocation",
            Revocation(salt=NO_SALT, reason=reason),
            START,
            subject=(link.id,),
            name="taken",
            number=1,
        )
        for reason in ("key_lost", "left")
    ]
    for relied in ([link, *twins], [link, twins[0]]):
        assert table.weigh(twins, relied).struck == {link.id: "revoked"}


def test_only_governance_has_numbers_that_say_what_stands() -> None:
    """A name that a node gives its starts makes them no rivals."""
    table = Table()
    start = table.verified(table.institute.holdings.get(table.verified(table.made()).body.start).record)  # type: ignore[union-attr]
    twins = [
        table.institute.node.write(
            "start",
            msgspec.structs.replace(start.body, salt=NO_SALT, attempt=attempt),
            START,
            name="again",
            number=1,
        )
        for attempt in (2, 3)
    ]
    assert table.weigh([], twins) == Adverse()
    assert table.weigh(twins[1:], twins[:1]) == Adverse()


def test_two_of_one_slot_strike_each_other() -> None:
    table = Table()
    one, two = table.made("one"), table.made("two")
    found = table.weigh([two], [one])
    assert found.struck == {one.id: "slot_twice", two.id: "slot_twice"}
    assert found.ids == (two.id,)


# How much a vote names


@pytest.mark.parametrize("count", [ADVERSE_PER_VOTE_MAX - 1, ADVERSE_PER_VOTE_MAX, ADVERSE_PER_VOTE_MAX + 3])
def test_what_a_vote_cannot_name_has_no_effect(count: int) -> None:
    table = Table()
    links = [table.institute.credential(f"operator/{n}") for n in range(count)]
    records = [taken_back(table.institute.owner, link.id) for link in links]
    found = table.weigh(records, links)
    named = sorted(record.id for record in records)[:ADVERSE_PER_VOTE_MAX]
    assert found.ids == tuple(named)
    assert found.overflows == (count >= ADVERSE_PER_VOTE_MAX)
    assert set(found.struck) == {record.header.subject[0] for record in records if record.id in named}


def test_what_is_relied_on_acts_also_where_a_vote_is_full() -> None:
    table = Table()
    links = [table.institute.credential(f"operator/{n}") for n in range(ADVERSE_PER_VOTE_MAX)]
    full = [taken_back(table.institute.owner, link.id) for link in links]
    last = max(record.id for record in full)
    reports = (table.institute.observe(table.intent.id, "failed", weight=n) for n in range(2_000))
    behind = next(report for report in reports if report.id > last)
    found = table.weigh(full, [*links, behind])
    assert set(found.against) == {table.intent.id}
    assert len(found.ids) == ADVERSE_PER_VOTE_MAX
