"""The conformance vectors: one coalition's asks of every kind, each with one voter's vote.

`scripts/conformance` writes them into the package; a test compares.
"""

from __future__ import annotations

from typing import Any

import msgspec

from comity.attestation.adverse import ANCESTOR_FAILED
from comity.attestation.authoring import NO_SALT
from comity.attestation.exporting import export_bundle
from comity.attestation.holdings import Holdings
from comity.attestation.voter import AskArrived, SendVote
from comity.protocol.bundle import Bundle
from comity.protocol.contradictions import proof_of
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Item, ItemClass
from comity.protocol.identifiers import sha256
from comity.protocol.limits import ADVERSE_PER_VOTE_MAX, LEASE_S, TERMS_MAX
from next_epochs import successor
from stories import COLUMNS, permit_of, released, share
from world import BOARD, INSTITUTE, NORTH, SOUTH, START, YEAR, World


class _Telling:
    """The world, what the parts of the story hand on, and the votes that were cast."""

    def __init__(self) -> None:
        self.world = World()
        self.votes: list[bytes] = []
        self.inputs: list[bytes] = []
        self.made = b""

    def ask(self, intent: SignedRecord, *offered: SignedRecord) -> Any:
        pursuit = self.world.decide(intent, offered)
        chosen = pursuit.votes.get(BOARD) or next(iter(pursuit.votes.values()))
        self.votes.append(chosen.id)
        self.world[intent.header.member].holdings.admit([v.record for v in pursuit.votes.values()])
        return pursuit


def build() -> Bundle:
    """Every outcome, cause and need that the judgement knows, as far as this world can bring it about."""
    telling = _Telling()
    parts = (
        _plain,
        _lineage,
        _tiers,
        _approvals,
        _delegation,
        _adverse,
        _contradictions,
        _owners_rules,
        _marks,
        _descendants,
        _epochs,
    )
    for part in parts:
        part(telling)
    return export_bundle(telling.votes, _everything(telling.world))


def _plain(telling: _Telling) -> None:
    """Plain work, refused work, both in one intent."""
    north = telling.world[NORTH]
    telling.ask(north.intent("plain/a"))
    telling.ask(north.intent("forbidden/a"))
    telling.ask(north.intent("plain/a", "forbidden/b", run="both"))
    telling.ask(north.intent(f"{SOUTH}/plain/a"))


def _lineage(telling: _Telling) -> None:
    """Lineage, restriction, owners, consent, transitions."""
    world = telling.world
    north = telling.world[NORTH]
    south = telling.world[SOUTH]
    institute = telling.world[INSTITUTE]
    for name in (NORTH, SOUTH):
        telling.inputs.append(released(world, name).id)
        share(world, name, INSTITUTE)
    restricted = north.intent(
        "released", inputs=(), columns=COLUMNS, purpose="survival_study", run="restricted"
    )
    telling.ask(restricted)
    telling.ask(
        north.intent("released", columns=("inst", "age"), purpose="survival_study", run="nothing-left")
    )
    telling.ask(institute.intent("plain/live", inputs=telling.inputs))
    world.tell(south.owner_policy(1, released=("standing", START + YEAR)))
    telling.ask(institute.intent("plain/standing", inputs=telling.inputs))
    world.tell(
        south.owner_policy(
            2,
            released=("standing", START + YEAR),
            rules='@id("ok") permit(principal, action, resource);\n'
            '@id("agents") @mode("refuse") @reason("owner_admits_no_agents")\n'
            'forbid(principal, action == Action::"materialize", resource) when { principal.kind == "agent" };',
        )
    )
    made = institute.actuate(permit_of(world, institute.intent("plain/made", inputs=telling.inputs)))
    world.tell(north.transition(f"{INSTITUTE}/plain/after"), south.transition(f"{INSTITUTE}/plain/after"))
    telling.ask(institute.intent("plain/after", inputs=(made.id,)))
    telling.ask(institute.intent("plain/unknown", inputs=(sha256(b"no such actuation"),)))
    telling.made = made.id


def _tiers(telling: _Telling) -> None:
    """Tier and slope."""
    world = telling.world
    institute = telling.world[INSTITUTE]
    guarded = institute.intent("guarded")
    telling.ask(guarded)
    attested = institute.intent("guarded", run="attested")
    high = institute.actuate(telling.ask(attested, institute.evidence(attested)).permit.record)
    telling.ask(institute.intent("plain/low", inputs=(high.id,)))
    world.tell(institute.transition(f"{INSTITUTE}/plain/down", "trust", tier_to=0))
    telling.ask(institute.intent("plain/down", inputs=(high.id,)))
    spliced = institute.intent("guarded", run="spliced")
    telling.ask(spliced, institute.evidence(attested))


def _approvals(telling: _Telling) -> None:
    """Approvals."""
    world = telling.world
    south = telling.world[SOUTH]
    institute = telling.world[INSTITUTE]
    south.credential(
        "operator/dpo",
        classes=("data-protection-officer",),
        actions=("approve",),
        assets=(f"{INSTITUTE}/**",),
    )
    world.tell(south.credentials["operator/dpo"][1])
    pooled = institute.intent("pooled")
    telling.ask(pooled)
    approved = institute.intent("pooled", run="approved")
    institute.holdings.admit([south.approve("operator/dpo", approved)])
    telling.ask(approved)
    stale = institute.intent("pooled", run="stale")
    institute.holdings.admit([south.approve("operator/dpo", stale, not_after=START - 1)])
    telling.ask(stale)


def _delegation(telling: _Telling) -> None:
    """Delegation, tickets, bounds, expiry."""
    world = telling.world
    institute = telling.world[INSTITUTE]
    institute.credential("operator/lead", delegations=2)
    institute.credential(
        "agent/fitter", kind="agent", under="operator/lead", assets=(f"{INSTITUTE}/plain/**",), delegations=0
    )
    institute.credential("agent/wide", kind="agent", under="operator/lead", delegations=2)
    institute.credential("automation/old", kind="automation", held_by="node/n1", not_after=START)
    institute.credential(
        "automation/preview", kind="automation", held_by="node/n1", realms=("preview/feature",)
    )
    world.tell(*(record for _, record in institute.credentials.values()))
    telling.ask(
        institute.intent("plain/fit", who="agent/fitter"), institute.ticket("agent/fitter", ["plain/fit"])
    )
    telling.ask(institute.intent("plain/fit", who="agent/fitter", run="run-2"))
    telling.ask(
        institute.intent("plain/fit", who="agent/fitter", run="run-3"),
        institute.ticket("agent/fitter", ["plain/other"], run="run-3"),
    )
    telling.ask(
        institute.intent("guarded", who="agent/fitter", run="run-4"),
        institute.ticket("agent/fitter", ["guarded"], run="run-4"),
    )
    telling.ask(
        institute.intent("plain/fit", who="agent/wide", run="run-5"),
        institute.ticket("agent/wide", ["plain/fit"], run="run-5"),
    )
    telling.ask(
        institute.intent("plain/agent", who="agent/fitter", run="run-6", inputs=telling.inputs),
        institute.ticket("agent/fitter", ["plain/**"], run="run-6"),
    )
    once = institute.ticket("agent/fitter", ["plain/**"], run="")
    for run, asset in (("run-7", "plain/one"), ("run-7", "plain/two"), ("run-8", "plain/one")):
        telling.ask(institute.intent(asset, who="agent/fitter", run=run, under=once), once)
    telling.ask(institute.intent("plain/one", who="agent/fitter", run="run-9"), once)
    telling.ask(institute.intent("plain/old", who="automation/old"))
    preview = telling.ask(institute.intent("plain/p", who="automation/preview", realm="preview/feature"))
    trial = institute.actuate(preview.permit.record)
    telling.ask(institute.intent("plain/q", inputs=(trial.id,)))


def _adverse(telling: _Telling) -> None:
    """Classes, corroboration, adverse records."""
    world = telling.world
    north = telling.world[NORTH]
    institute = telling.world[INSTITUTE]
    own = institute.actuate(permit_of(world, institute.intent("plain/own")))
    mixed = ItemClass(
        asset=f"{INSTITUTE}/plain/mixed",
        items=(
            Item(generation=1, partition="a", inputs=(own.id,)),
            Item(generation=1, partition="b", inputs=(telling.made,)),
        ),
    )
    telling.ask(institute.intent(groups=(mixed,)))
    corroborated = institute.intent("plain/corroborated", inputs=(own.id,))
    institute.holdings.admit([north.observe(own.id, "passed", weight=200_000)])
    telling.ask(corroborated)
    world.tell(institute.observe(own.id, "failed"))
    telling.ask(institute.intent("plain/failed", inputs=(own.id,)))
    institute.credential("automation/lost", kind="automation", held_by="node/n1")
    lost = institute.credentials["automation/lost"][1]
    world.tell(lost, institute.revoke(lost.id))
    telling.ask(institute.intent("plain/lost", who="automation/lost"))


def _contradictions(telling: _Telling) -> None:
    """A slot made twice, whose other actuation is held, or only the proof; an ask that is one of two; two votes."""
    world = telling.world
    institute = telling.world[INSTITUTE]
    made = [
        institute.actuate(permit_of(world, institute.intent("plain/slot", run=run))) for run in ("1", "2")
    ]
    one, two = (institute.holdings.get(record.id) for record in made)
    telling.ask(institute.intent("plain/both", inputs=(made[0].id, made[1].id)))
    world.tell(_proof(world, one, two))
    telling.ask(institute.intent("plain/proved", inputs=(made[1].id,)))
    pursuit = world.decide(institute.intent("plain/asked", run="asked"))
    body = msgspec.structs.replace(pursuit.ask.body, salt=NO_SALT, relied=())
    second = institute.node.write("ask", body, START, subject=(pursuit.intent.id,))
    board = world[BOARD]
    board.holdings.admit([second])
    world.tell(_proof(world, pursuit.ask, board.holdings.get(second.id)), only=[BOARD])
    board.voter = type(board.voter)(board.node, board.holdings, START - 3600)
    (vote,) = [
        effect.vote
        for effect in board.voter.handle(START, AskArrived(pursuit.ask.record, pursuit.attached))
        if isinstance(effect, SendVote)
    ]
    board.holdings.admit([vote])
    telling.votes.append(vote.id)


def _proof(world: World, one: Any, other: Any) -> SignedRecord:
    body = proof_of(one, other)
    assert body is not None
    return world[NORTH].node.write("misbehaviour", body, START, subject=(one.id, other.id))


def _owners_rules(telling: _Telling) -> None:
    """More obligations than can be recorded; a consent that only a voter holds, and that ends soon."""
    world = telling.world
    south = telling.world[SOUTH]
    institute = telling.world[INSTITUTE]
    rules = '@id("ok") permit(principal, action, resource);\n'
    for rows in range(2, 3 + TERMS_MAX):
        rules += (
            f'@id("r{rows}") @mode("restrict") @reason("small_group") @obliges("min_group_rows(rows={rows})")\n'
            'forbid(principal, action == Action::"materialize", resource);\n'
        )
    standing = ("standing", START + YEAR)
    world.tell(south.owner_policy(3, released=standing, rules=rules))
    telling.ask(institute.intent("released", columns=COLUMNS, inputs=telling.inputs, run="obliged"))
    world.tell(south.owner_policy(4, released=standing))
    world.tell(south.owner_policy(5, released=("standing", START + 90)), only=[BOARD])
    telling.ask(institute.intent("plain/short", inputs=telling.inputs, run="short"))


def _marks(telling: _Telling) -> None:
    """Something made under a credential that was taken back since, for an owner who minds and in the eyes of all."""
    world = telling.world
    south = telling.world[SOUTH]
    institute = telling.world[INSTITUTE]
    rules = (
        '@id("ok") permit(principal, action, resource);\n'
        '@id("wary") @mode("defer") @reason("input_marked_unseen") @needs("approval(class=data-steward)")\n'
        'forbid(principal, action == Action::"materialize", resource) when { context.input_marked };'
    )
    world.tell(south.owner_policy(6, released=("standing", START + YEAR), rules=rules))
    telling.ask(institute.intent("plain/unmarked", inputs=telling.inputs, run="unmarked"))
    world.tell(south.revoke(south.credentials["automation/main"][1].id))
    telling.ask(institute.intent("plain/marked", inputs=telling.inputs, run="marked"))
    telling.ask(institute.intent("plain/marked", inputs=telling.inputs[:1], run="half"))
    # Said again, more often than a vote has room for, it is said once.
    again = [
        south.suspend(south.credentials["automation/main"][1].id, START + YEAR + n)
        for n in range(ADVERSE_PER_VOTE_MAX + 4)
    ]
    world.tell(*again)
    telling.ask(institute.intent("plain/marked", inputs=telling.inputs, run="often"))
    # An ask that rests on another intent, whose credential was taken back: nobody reads what was made under that.
    other = institute.credential("automation/other", kind="automation", held_by="node/n1", delegations=1)
    world.tell(other, institute.revoke(other.id))
    telling.ask(
        institute.intent("plain/beside"), institute.intent("plain/x", who="automation/other", run="x")
    )


def _descendants(telling: _Telling) -> None:
    """Something whose input was found wrong since: said by who owns a part of it, by who owns none, and often."""
    world = telling.world
    institute, south, board = world[INSTITUTE], world[SOUTH], world[BOARD]
    for run, said in (
        ("below", ()),
        ("of-a-stranger", (board.observe(telling.made, "disputed", claim=ANCESTOR_FAILED),)),
        ("below-marked", (south.observe(telling.made, "disputed", claim=ANCESTOR_FAILED),)),
        (
            "below-often",
            tuple(
                institute.observe(telling.made, "disputed", claim=ANCESTOR_FAILED, weight=n)
                for n in range(ADVERSE_PER_VOTE_MAX + 4)
            ),
        ),
    ):
        world.tell(*said)
        telling.ask(institute.intent("plain/below", inputs=(telling.made,), run=run))
    # Of what was not made it says what every report does.
    intent = institute.intent("plain/beside", run="intended")
    world.tell(institute.observe(intent.id, "disputed", claim=ANCESTOR_FAILED))
    telling.ask(intent)


def _epochs(telling: _Telling) -> None:
    """An input whose permit is of long after the next epoch began."""
    world = telling.world
    institute = telling.world[INSTITUTE]
    late = institute.actuate(permit_of(world, institute.intent("plain/late")))
    for member in world.members.values():
        member.holdings.adopt(successor(world, START - LEASE_S - 1))
    telling.ask(institute.intent("plain/superseded", inputs=(late.id,)))


def _everything(world: World) -> Holdings:
    """One member that holds what all of them hold."""
    holdings = world[BOARD].holdings
    for name in world.members:
        share(world, name, BOARD)
    return holdings
