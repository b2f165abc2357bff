"""Attacks by words: what somebody may say of what others made, how much of it, and in which characters."""

from __future__ import annotations

from typing import Any

import pytest

from comity.attestation import holdings as holdings_module
from comity.attestation import offline as offline_module
from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.exporting import export_bundle
from comity.attestation.offline import verify_bundle
from comity.attestation.policy_rules import compile_rules
from comity.attestation.roots import Roots
from comity.attestation.voter import adverse_to
from comity.protocol.bundle import Bundle
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError, VerificationError
from comity.protocol.execution import Item, ItemClass, Observation, Verification
from comity.protocol.governance import Consent, OwnerPolicy
from comity.protocol.limits import ADVERSE_PER_SUBJECT_MAX, OWNER_RULES_BYTES_MAX
from stories import permit_of, released, share
from world import BOARD, ENGINE, INSTITUTE, NORTH, SOUTH, START, YEAR, Organization, World, policy_body


class Read:
    """The institute reads what north made, and somebody says something against it."""

    def __init__(self, **options: Any) -> None:
        self.world = World(**options)
        self.north = self.world[NORTH]
        self.made = self.north.actuate(permit_of(self.world, self.north.intent("plain/a")))
        share(self.world, NORTH, INSTITUTE)
        self.runs = 0

    def agent(self, **changes: Any) -> Author:
        """An agent of north's, by default one that observes all that north makes."""
        bounds: dict[str, Any] = {"kind": "agent", "actions": ("observe",), **changes}
        self.world.tell(self.north.credential("agent/a", **bounds))
        return self.north.credentials["agent/a"][0]

    def credential(self) -> SignedRecord:
        return self.north.credentials["agent/a"][1]

    def decide(self) -> Any:
        self.runs += 1
        institute = self.world[INSTITUTE]
        return self.world.decide(
            institute.intent("plain/x", inputs=(self.made.id,), run=f"reads-{self.runs}")
        )

    def standing(self) -> str:
        standing: str = self.decide().standing
        return standing


def failed(author: Author, subject: bytes, at: int = START, number: int = 0) -> SignedRecord:
    body = Observation(salt=NO_SALT, claim="check", parameters={"number": number} if number else {})
    return author.write("observation", body, at, subject=(subject,), outcome="failed")


# Who may report


@pytest.mark.parametrize(
    "bounds",
    [
        {"actions": ("approve",)},
        {"assets": (f"{NORTH}/plain/another",)},
        {"not_after": START},
        {"not_before": START + 1},
        {"classes": ("unpublished",)},
    ],
)
def test_agent_that_reports_beyond_its_credential(bounds: dict[str, Any]) -> None:
    read = Read()
    read.world.tell(failed(read.agent(**bounds), read.made.id))
    assert read.standing() == "permitted"


def test_agent_that_widens_its_own_credential_to_report() -> None:
    read = Read()
    read.agent(assets=(f"{NORTH}/plain/another",))
    read.world.tell(
        read.north.credential("agent/b", under="agent/a", actions=("observe",), delegations=0, kind="agent")
    )
    read.world.tell(failed(read.north.credentials["agent/b"][0], read.made.id))
    assert read.standing() == "permitted"


@pytest.mark.parametrize("actions", [("observe",), ("materialize",), ("approve", "observe")])
@pytest.mark.parametrize("kind", ["observation", "verification"])
def test_agent_that_reports_within_its_credential_is_heard(kind: str, actions: tuple[str, ...]) -> None:
    """And whoever judges again hears the same."""
    read = Read()
    agent = read.agent(actions=actions)
    if kind == "observation":
        said = failed(agent, read.made.id)
    else:
        said = agent.write(
            "verification", Verification(salt=NO_SALT), START, subject=(read.made.id,), outcome="failed"
        )
    read.world.tell(said)
    pursuit = read.decide()
    assert pursuit.standing == "refused"
    assert f"{kind}_failed" in {cause.code for cause in pursuit.causes}
    assert all(vote.body.adverse == (said.id,) for vote in pursuit.votes.values())
    rejudged(read.world, pursuit)


def rejudged(world: World, pursuit: Any) -> None:
    certificate = pursuit.refusal or pursuit.permit
    bundle = export_bundle((certificate.id,), world[INSTITUTE].holdings).encoded()
    roots = Roots(world.genesis.id, 0, world.genesis.id, "x", START)
    assert verify_bundle(bundle, roots, ENGINE).level == "re-judged"


@pytest.mark.parametrize("sort", ["owner", "node"])
def test_organization_and_node_report_as_ever(sort: str) -> None:
    read = Read()
    read.world.tell(failed(getattr(read.north, sort), read.made.id))
    assert read.standing() == "refused"


def test_agent_that_reports_against_an_intent_covers_all_that_it_would_make() -> None:
    for assets, standing in ((f"{NORTH}/plain/**", "refused"), (f"{NORTH}/plain/b", "permitted")):
        read = Read()
        intent = read.north.intent("plain/b", "plain/c", run="two")
        read.world.tell(failed(read.agent(assets=(assets,)), intent.id))
        assert read.world.decide(intent).standing == standing


def test_person_that_takes_its_own_approval_back_needs_no_more_than_its_key() -> None:
    world = World()
    north, board = world[NORTH], world[BOARD]
    world.tell(
        board.credential(
            "operator/dpo", classes=("data-protection-officer",), actions=("approve",), assets=("*/**",)
        )
    )
    intent = north.intent("pooled")
    approval = board.approve("operator/dpo", intent)
    world.tell(approval)
    author = board.credentials["operator/dpo"][0]
    body = Observation(salt=NO_SALT, claim="approval")
    world.tell(author.write("observation", body, START, subject=(approval.id,), outcome="withdrawn"))
    pursuit = world.decide(intent)
    assert pursuit.standing == "deferred"
    assert "approval_missing" in {cause.code for cause in pursuit.causes}


# What is taken back


def test_report_of_an_agent_whose_credential_was_revoked() -> None:
    """Nothing that a lost key says, before or after, holds up what was made; its organization says it once."""
    read = Read()
    agent = read.agent()
    read.world.tell(failed(agent, read.made.id))
    assert read.standing() == "refused"
    read.world.tell(read.north.revoke(read.credential().id))
    assert read.standing() == "permitted"
    read.world.tell(failed(agent, read.made.id, number=1))
    pursuit = read.decide()
    assert pursuit.standing == "permitted"
    assert all(vote.body.adverse == () for vote in pursuit.votes.values())
    rejudged(read.world, pursuit)


def test_report_of_an_agent_whose_delegator_was_revoked() -> None:
    read = Read()
    read.agent(delegations=2)
    read.world.tell(
        read.north.credential("agent/b", under="agent/a", actions=("observe",), delegations=1, kind="agent")
    )
    read.world.tell(failed(read.north.credentials["agent/b"][0], read.made.id))
    assert read.standing() == "refused"
    read.world.tell(read.north.revoke(read.credential().id))
    assert read.standing() == "permitted"


@pytest.mark.parametrize("by", ["owner", "itself"])
@pytest.mark.parametrize("sort", ["owner", "node", "agent"])
def test_report_that_was_taken_back_bars_nothing(sort: str, by: str) -> None:
    read = Read()
    author = read.agent() if sort == "agent" else getattr(read.north, sort)
    said = failed(author, read.made.id)
    read.world.tell(said)
    assert read.standing() == "refused"
    read.world.tell(read.north.revoke(said.id, by=read.north.owner if by == "owner" else author))
    pursuit = read.decide()
    assert pursuit.standing == "permitted"
    rejudged(read.world, pursuit)


def test_report_that_somebody_else_takes_back_stands() -> None:
    read = Read()
    other = read.north.credential("operator/other", actions=("observe",))
    read.world.tell(other)
    said = failed(read.north.node, read.made.id)
    read.world.tell(said)
    for author in (
        read.world[SOUTH].owner,
        read.world[SOUTH].node,
        read.north.credentials["operator/other"][0],
    ):
        read.world.tell(read.north.revoke(said.id, by=author))
    assert read.standing() == "refused"


# How much of it


def test_flood_of_reports_by_who_is_entitled_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision looks at a bounded number of them, however many are held."""
    read = Read()
    liar = read.world[SOUTH]
    flood = [failed(liar.node, read.made.id, number=n + 1) for n in range(3 * ADVERSE_PER_SUBJECT_MAX)]
    read.world.tell(*flood)
    holdings = read.world[INSTITUTE].holdings
    assert all(record.id in holdings.state for record in flood)
    assert len(adverse_to({read.made.id}, holdings)[0]) == ADVERSE_PER_SUBJECT_MAX
    assert read.standing() == "permitted"
    # Who is entitled is heard beside it, and the organization's own word before all that its agents say.
    agents = [failed(read.agent(), read.made.id, number=n + 1) for n in range(2 * ADVERSE_PER_SUBJECT_MAX)]
    read.world.tell(*agents)
    said = failed(read.north.owner, read.made.id)
    read.world.tell(said)
    looked_at = adverse_to({read.made.id}, holdings)[0]
    assert said.id in looked_at
    assert len(looked_at) == 2 * ADVERSE_PER_SUBJECT_MAX
    assert read.standing() == "refused"


def test_flood_of_reports_is_cut_alike_in_whatever_order_it_arrives() -> None:
    read = Read()
    flood = [failed(read.north.node, read.made.id, number=n + 1) for n in range(ADVERSE_PER_SUBJECT_MAX + 40)]
    flood += [failed(read.north.owner, read.made.id, number=n + 1) for n in range(9)]
    read.world.tell(*flood, only=[INSTITUTE])
    read.world.tell(*reversed(flood), only=[BOARD])
    one, other = (adverse_to({read.made.id}, read.world[name].holdings)[0] for name in (INSTITUTE, BOARD))
    assert set(one) == set(other)
    assert {record.id for record in flood[-9:]} <= set(one)


# Owner policies


def consenting(member: Organization, name: str, number: int, *consents: Consent) -> SignedRecord:
    body = OwnerPolicy(salt=NO_SALT, consents=consents)
    return member.owner.write("owner_policy", body, START - 400, name=name, number=number)


def test_consent_that_is_withdrawn_under_another_name() -> None:
    """An owner policy has one name, so a number says which of two is the newer."""
    world = World()
    south, institute = world[SOUTH], world[INSTITUTE]
    made = released(world, SOUTH)
    share(world, SOUTH, INSTITUTE)
    standing = Consent(data_class="*", mode="standing", until=START + YEAR)
    for name in ("old", "", "Owner", "owner "):
        lax = consenting(south, name, 5, standing)
        (rejected,) = institute.holdings.admit([lax]).rejected
        assert isinstance(rejected[1], VerificationError)
        assert rejected[1].reason == "name_wrong"
    world.tell(consenting(south, "owner", 1))
    intent = institute.intent("plain/x", inputs=(made.id,))
    assert world.decide(intent, down=(SOUTH,)).standing == "deferred"


def test_rules_of_an_owner_that_occupy_everybody() -> None:
    """They are bounded in bytes, and so is what each arrival costs everybody."""
    world = World()
    south = world[SOUTH]
    head = '@id("ok") permit(principal, action, resource); // '
    right = south.owner_policy(rules=head + "x" * (OWNER_RULES_BYTES_MAX - len(head)))
    assert world[NORTH].holdings.admit([right]).admitted
    for beyond in ("x" * (OWNER_RULES_BYTES_MAX + 1 - len(head)), "\u00e9" * (OWNER_RULES_BYTES_MAX // 2)):
        with pytest.raises(ValueError, match="at most 8192 bytes"):
            south.owner_policy(2, rules=head + beyond)


def test_bundles_of_rules_that_no_epoch_names_are_compiled_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    compiled: list[str] = []

    def counted(text: str) -> Any:
        compiled.append(text)
        return compile_rules(text)

    monkeypatch.setattr(holdings_module, "compile_rules", counted)
    idle = world[SOUTH].owner.write("policy", policy_body("nonsense"), START, name="idle")
    assert world[NORTH].holdings.admit([idle]).admitted
    assert compiled == []
    assert world.decide(world[NORTH].intent("plain/a")).standing == "permitted"


def test_rules_that_no_target_depends_on_are_compiled_by_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    compiled: list[bytes] = []
    monkeypatch.setattr(offline_module, "require_rules", lambda record: compiled.append(record.id))
    monkeypatch.setattr(holdings_module, "require_rules", lambda record: compiled.append(record.id))
    policies = [world[SOUTH].owner_policy(n) for n in range(3)]
    bundle = Bundle(
        world.genesis.id, (policies[0].id,), (world.genesis,), tuple(sorted(policies, key=lambda r: r.id))
    )
    roots = Roots(world.genesis.id, 0, world.genesis.id, "x", START)
    with pytest.raises(VerificationError, match="record_foreign"):
        verify_bundle(bundle.encoded(), roots, ENGINE)
    assert compiled == []
    alone = Bundle(world.genesis.id, (policies[0].id,), (world.genesis,), (policies[0],))
    assert verify_bundle(alone.encoded(), roots, ENGINE).records == 1
    assert compiled == [policies[0].id]


def test_rules_that_do_not_compile_are_found_by_a_reader() -> None:
    world = World()
    broken = world[SOUTH].owner_policy(rules="nonsense")
    bundle = Bundle(world.genesis.id, (broken.id,), (world.genesis,), (broken,))
    roots = Roots(world.genesis.id, 0, world.genesis.id, "x", START)
    with pytest.raises(VerificationError, match="record_unreadable"):
        verify_bundle(bundle.encoded(), roots, ENGINE)


# In which characters


@pytest.mark.parametrize(
    "partition", ["2024\x1b[2K\x1b[1A re-judged", "a\nb", "\x9b2J", "abc\u202edef", "\u2066x"]
)
def test_partition_that_rewrites_a_terminal(partition: str) -> None:
    """What people see beside their own words cannot write over them: nobody holds such a record."""
    world = World()
    north = world[NORTH]
    said_in: tuple[dict[str, Any], ...] = (
        {"partition": partition},
        {"columns": (partition,)},
        {"media_type": partition},
    )
    for changes in said_in:
        item = Item(generation=1, partition=changes.pop("partition", ""))
        group = ItemClass(asset=f"{NORTH}/plain/a", items=(item,), **changes)
        intent = north.intent(groups=(group,))
        (rejected,) = world[SOUTH].holdings.admit([intent]).rejected
        assert isinstance(rejected[1], DecodeError)
    for parameters in ({"x": partition}, {partition: "x"}):
        body = Observation(salt=NO_SALT, claim="check", parameters=parameters)  # type: ignore[arg-type]
        said = north.node.write("observation", body, START, subject=(bytes(32),), outcome="passed")
        assert world[SOUTH].holdings.admit([said]).rejected


def test_partitions_in_any_script_are_admitted() -> None:
    world = World()
    north = world[NORTH]
    for partition in ("Übersicht 2024", "患者", "مريض", "a\u200db"):
        group = ItemClass(asset=f"{NORTH}/plain/a", items=(Item(generation=1, partition=partition),))
        assert world.decide(north.intent(groups=(group,), run=partition)).standing == "permitted"
