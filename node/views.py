"""What a node shows: its state as plain values that JSON can hold. Functions of the core, run in its thread.

Digests and ids are lower-case hex, times whole seconds since 1970. Listings are bounded and newest first.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from typing import Any, Final, TypeAlias

import msgspec

from comity.node.accusing import proofs_held
from comity.node.attendance import Seen
from comity.node.coalitions import tolerance
from comity.node.core import Core
from comity.node.entitlements import approvals_shown
from comity.node.forms import GovernanceForm, PartnerAsset, TermForm
from comity.node.heads import standing
from comity.node.plain_values import plain
from comity.node.problems import Refused
from comity.node.revocations import state_of
from comity.node.sentences import deed_for
from comity.node.standings import (
    approvals_wanted,
    data_classes_of,
    inputs_shown,
    mode_of,
    newest_decision,
    own_vote,
    partner_view,
    standing_of,
)
from comity.node.steps import (
    answer,
    permitted_outputs,
)
from comity.node.terms import cause_form, need_form, obligation_form
from comity.node.work import lineage_problem
from comity.protocol.errors import DecodeError
from comity.protocol.execution import Actuation, Attestation, Intent, Permit, Refusal, Vote
from comity.protocol.governance import AssetRule, Credential, NodeCertificate, Policy
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import member_of
from comity.protocol.records import decode_body
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
Json: TypeAlias = Any

LISTED_MAX: Final = 200
"""Rows of one listing: what a person looks through, and a few hundred kilobytes at most."""
STATUS_WAITING_MAX: Final = 5
"""Waiting intents that the status names: so many lines are read at a glance, and a listing has the others."""
PARTITIONS_LISTED_MAX: Final = 8
"""Partitions of one asset that a listing names."""
WAITING: Final = frozenset({"asking", "deferred", "held"})
"""The standings of intents that may still be decided."""
PARTNER_SLOTS_MAX: Final = 2_000
"""Slots of one namespace that are looked at for what partners publish, by name: nobody crowds out another member."""


# The node and its coalition


def status(
    core: Core, connected: frozenset[str], addresses: tuple[str, ...], seen: Mapping[str, Seen]
) -> Json:
    """How the node is: whom it reaches, whether a decision can come about, and what is open.

    Args:
        connected: members of whom a node is connected.
        addresses: where this node listens.
        seen: node name to whether it is connected, and since when.
    """
    epoch, me = core.holdings.epoch, core.identity
    reachable = (connected | {me.member}) & set(epoch.members)
    standings = Counter(pursuit.standing for pursuit in core.requester.pursuits())
    governance = core.holdings.governance()
    proofs = proofs_held(core.holdings)
    return {
        "member": me.member,
        "node": me.node,
        "coalition": core.coalition.hex(),
        "coalition_name": epoch.body.coalition_name,
        "epoch": epoch.number,
        "engine": core.holdings.engine.hex(),
        "engine_accepted": core.holdings.engine in epoch.body.engines,
        "governance_complete": governance is not None,
        "listens": list(addresses),
        "started": core.clock.started,
        "now": core.clock.now(),
        # Of what it was asked before it began it knows nothing, so it votes on nothing from then.
        "votes": core.voter.votes(core.clock.now()),
        "members": [
            {
                "member": name,
                "connected": name in reachable,
                "self": name == me.member,
                "since": core.clock.started if name == me.member else _since(name, reachable, seen),
                "counted": name not in core.holdings.discounted(epoch.id),
                "misbehaviour": proofs.get(name, {"count": 0, "proofs": []}),
                "nodes": [
                    {"node": node, "connected": each.connected, "since": each.since}
                    for node, each in sorted(seen.items())
                    if member_of(node) == name
                ],
            }
            for name in sorted(epoch.members)
        ],
        "misbehaviour_of_others": {n: each for n, each in proofs.items() if n not in epoch.members},
        "quorum": epoch.quorum,
        "reachable": len(reachable),
        "quorum_reachable": len(reachable) >= epoch.quorum,
        "faults_tolerated": epoch.faults,
        "tolerance": tolerance(len(epoch.members), epoch.quorum),
        "intents": dict(sorted(standings.items())),
        "waiting": _waiting_first(core),
    }


def _since(member: str, reachable: AbstractSet[str], seen: Mapping[str, Seen]) -> int:
    """Since when a member can be asked, or cannot; 0 where it never could since this node began."""
    up = member in reachable
    times = [s.since for node, s in seen.items() if member_of(node) == member and s.connected == up]
    return (min if up else max)(times, default=0)


def _waiting_first(core: Core) -> list[Json]:
    """The newest intents that wait, in short: `waiting` says it in full."""
    pursuits = [pursuit for pursuit in core.requester.pursuits() if pursuit.standing in WAITING]
    pursuits.sort(key=lambda pursuit: (pursuit.intent.header.at, pursuit.intent.id), reverse=True)
    return [
        {
            "intent": pursuit.intent.id.hex(),
            "standing": pursuit.standing,
            "at": pursuit.intent.header.at,
            "assets": [group.asset for group in pursuit.intent.body.classes],
            "needs": [asdict(need_form(need)) for need in pursuit.needs],
        }
        for pursuit in pursuits[:STATUS_WAITING_MAX]
    ]


def coalition(core: Core, addresses: dict[str, tuple[str, ...]]) -> Json:
    """Who belongs, by which rules, and how many faults are tolerated.

    Args:
        addresses: node name to addresses, as far as they are known.
    """
    epoch = core.holdings.epoch
    governance = core.holdings.governance()
    certificates = core.holdings.state.of_kind("node_certificate")
    return {
        "name": epoch.body.coalition_name,
        "coalition": core.coalition.hex(),
        "epoch": epoch.number,
        "epoch_id": epoch.id.hex(),
        "certificate": epoch.body.certificate,
        "started": epoch.body.started,
        "quorum": epoch.quorum,
        "faults_tolerated": epoch.faults,
        "tolerance": tolerance(len(epoch.members), epoch.quorum),
        "members": [
            {
                "member": member.id,
                "namespaces": list(member.namespaces),
                "keys": [plain(key) for key in member.keys],
                "nodes": _nodes(core, certificates, member.id, addresses),
            }
            for member in epoch.members.values()
        ],
        "publishers": list(epoch.body.publishers),
        "engines": [engine.hex() for engine in epoch.body.engines],
        "authority_classes": [plain(each) for each in governance.taxonomy.classes] if governance else [],
        "policies": [_policy(core, digest) for digest in epoch.body.policies],
    }


def _nodes(
    core: Core, certificates: list[AnyRecord], member: str, addresses: dict[str, tuple[str, ...]]
) -> list[Json]:
    nodes: dict[str, tuple[int, Json]] = {}
    for record in certificates:
        body = record.body
        if record.member != member or not isinstance(body, NodeCertificate):
            continue
        row = {
            "node": body.node,
            "certificate": record.id.hex(),
            "not_after": body.not_after,
            "in_force": body.not_before <= core.clock.now() < body.not_after,
            "revoked": state_of(core, record) == "revoked",
            "addresses": list(addresses.get(body.node, ())),
        }
        held = nodes.get(body.node)
        if held is None or record.header.number > held[0]:
            nodes[body.node] = (record.header.number, row)
    return [nodes[name][1] for name in sorted(nodes)]


def _policy(core: Core, digest: bytes) -> Json:
    record = core.holdings.with_body("policy", digest)
    if record is None:
        return {"digest": digest.hex(), "held": False}
    body: Policy = record.body
    return {
        "digest": digest.hex(),
        "held": True,
        "name": record.header.name,
        "record": record.id.hex(),
        "published_by": record.member,
        "assets": [_rule(rule) for rule in body.assets],
        "purposes": [plain(purpose) for purpose in body.purposes],
        "weight_min": body.weight_min,
        "rules": body.rules,
    }


def _rule(rule: AssetRule) -> Json:
    return {"pattern": rule.pattern, "data_class": rule.data_class, "rows_by": rule.rows_by} | {
        "columns": {column.name: column.column_class for column in rule.columns}
    }


def governed(core: Core) -> Json | None:
    """The patterns of what signed policy in force speaks of; None until all of it has arrived."""
    governance = core.holdings.governance()
    if governance is None:
        return None
    patterns = {rule.pattern for bundle in governance.bundles for rule in bundle.policy.assets}
    return {"member": core.identity.member, "patterns": sorted(patterns)}


def credentials(core: Core) -> Json:
    """The credentials that are held, this organization's first."""
    rows: list[Json] = []
    now = core.clock.now()
    governance = core.holdings.governance()
    known = {each.name for each in governance.taxonomy.classes} if governance is not None else set[str]()
    for record in core.holdings.state.of_kind("credential"):
        body = record.body
        if not isinstance(body, Credential):
            continue
        state = "expired" if now >= body.not_after else "not yet" if now < body.not_before else "in force"
        state = state_of(core, record) or state
        rows.append(
            {"credential": record.id.hex(), "member": record.member, "state": state}
            | {"under": record.authority.hex() if record.authority is not None else ""}
            | {"classes_unknown": sorted(set(body.classes) - known) if known else []}
            | plain(body)
        )
    mine = core.identity.member
    return sorted(rows, key=lambda row: (row["member"] != mine, row["subject"], -row["not_before"]))


# Intents and decisions


def intents(core: Core) -> Json:
    """The newest intents that are held: this node's own with where they stand, others' as far as it is known here."""
    found = core.store.of_kind("intent", coalition=core.coalition, limit=LISTED_MAX)
    return [intent_row(core, r) for f in found if (r := core.holdings.get(f.id)) is not None]


def intent_row(core: Core, record: AnyRecord) -> Json:
    """One intent in short."""
    body: Intent = record.body
    own = core.requester.pursuit(record.id) is not None
    vote = None if own else own_vote(core, record.id)
    return {
        "intent": record.id.hex(),
        "member": record.member,
        "at": record.header.at,
        "realm": record.header.realm,
        "standing": standing_of(core, record),
        "own_vote": mode_of(vote) if vote is not None else "",
        "requester": body.requester,
        "purpose": body.purpose,
        "run": body.run.run,
        "step": body.run.step,
        "job": body.run.job,
        "assets": _slots(body),
    }


def _slots(body: Intent) -> list[Json]:
    """What an intent would make: each asset with how many items, and the partitions of the first ones."""
    return [
        {
            "asset": group.asset,
            "items": len(group.items),
            "partitions": [item.partition for item in group.items[:PARTITIONS_LISTED_MAX]],
        }
        for group in body.classes
    ]


def intent(core: Core, intent_id: bytes) -> Json:
    """One intent: where it stands, with votes, causes and needs, and its record.

    Raises:
        Refused: `not_found`.
    """
    record = _held(core, intent_id, "intent", Intent)
    shown = intent_row(core, record) | {
        "body": plain(record.body),
        "inputs": inputs_shown(core, record.body),
        "data_classes": data_classes_of(core, record.body),
        "digest": record.header.body.digest.hex(),
        "evidence": _evidence(core, intent_id),
        "approvals": approvals_shown(core, record),
        "record": _encoded(record),
    }
    pursuit = core.requester.pursuit(intent_id)
    if pursuit is None:
        return shown | partner_view(core, record)
    standing = asdict(answer(core, intent_id))
    return (
        shown
        | {name: standing[name] for name in ("outcome", "outputs", "causes", "needs", "votes", "expires")}
        | {
            "asks": pursuit.asks,
            "ask": pursuit.ask.id.hex() if pursuit.ask is not None else "",
            "permit": pursuit.permit.id.hex() if pursuit.permit is not None else "",
            "refusal": pursuit.refusal.id.hex() if pursuit.refusal is not None else "",
        }
    )


def _evidence(core: Core, intent_id: bytes) -> list[Json]:
    """What the execution context measured of itself, as far as it is held."""
    bodies = (record.body for record in core.holdings.about(intent_id))
    return [{"type": b.type} | plain(b.context) for b in bodies if isinstance(b, Attestation)]


def decisions(core: Core) -> Json:
    """The newest permits and refusals that are held."""
    found = [
        record
        for kind in ("permit", "refusal")
        for record in core.store.of_kind(kind, coalition=core.coalition, limit=LISTED_MAX)
    ]
    found.sort(key=lambda record: (record.header.at, record.id), reverse=True)
    return [_decision_row(core, r) for f in found[:LISTED_MAX] if (r := core.holdings.get(f.id)) is not None]


def _decision_row(core: Core, record: AnyRecord) -> Json:
    body: Permit | Refusal = record.body
    asked = core.holdings.get(body.intent)
    modes = [str(claim.mode) for claim in body.claims] if isinstance(body, Permit) else ["refuse"]
    permitted = isinstance(body, Permit)
    if permitted and asked is not None and len(modes) < len(asked.body.classes):
        modes.append("restrict")
    return {
        "decision": record.id.hex(),
        "kind": record.header.kind,
        "outcome": "refuse" if not permitted else "restrict" if "restrict" in modes else "execute",
        "member": record.member,
        "intent": body.intent.hex(),
        "t": body.t,
        "expires": body.expires if isinstance(body, Permit) else 0,
        "assets": [group.asset for group in asked.body.classes] if asked is not None else [],
        "slots": _slots(asked.body) if asked is not None else [],
        "requester": asked.body.requester if asked is not None else "",
        "run": asked.body.run.run if asked is not None else "",
        "step": asked.body.run.step if asked is not None else "",
    }


def decision(core: Core, decision_id: bytes) -> Json:
    """One permit or refusal with every vote that carries it. An intent's id finds its newest decision.

    Raises:
        Refused: `not_found`.
    """
    record = core.holdings.get(decision_id)
    if record is not None and isinstance(record.body, Intent):
        record = newest_decision(core, record)
    if record is None or not isinstance(record.body, Permit | Refusal):
        raise Refused(
            "not_found",
            f"no decision {decision_id.hex()[:16]} is held here",
            404,
            "`comity decision list` shows those that are; the votes of an intent without one: --working",
        )
    body = record.body
    asked = core.holdings.get(body.intent)
    votes: list[AnyRecord] = [v for i in body.votes if (v := core.holdings.get(i)) is not None]
    votes.sort(key=lambda vote: vote.member)
    modes = _rule_modes(core)
    shown = _decision_row(core, record) | {
        "ask": body.ask.hex(),
        "epoch": body.epoch.hex(),
        "votes": [_vote(vote, modes) for vote in votes],
        "votes_missing": sorted({i.hex() for i in body.votes} - {vote.id.hex() for vote in votes}),
        "outputs": [],
        "record": _encoded(record),
    }
    if asked is not None and isinstance(body, Permit):
        shown["outputs"] = [asdict(output) for output in permitted_outputs(asked.body, body)]
        shown["governance"] = [
            {"asset": asked.body.classes[claim.index].asset} | plain(claim.state) for claim in body.claims
        ]
    return shown


def _rule_modes(core: Core) -> dict[str, str]:
    """What the rules of the policies in force do to an outcome, by their ids."""
    governance = core.holdings.governance()
    bundles = governance.bundles if governance is not None else ()
    return {rule.id: str(rule.effects.mode) for bundle in bundles for rule in bundle.rules.rules}


def _vote(record: VerifiedRecord[Vote], modes: Mapping[str, str]) -> Json:
    body = record.body
    return {
        "vote": record.id.hex(),
        "member": record.member,
        "expires": body.expires,
        "engine": body.engine.hex(),
        "adverse": [adverse.hex() for adverse in body.adverse],
        "classes": [
            {
                "mode": str(judgement.outcome.mode),
                "weight": judgement.weight,
                "live": list(judgement.live),
                "causes": [
                    asdict(cause_form(cause)) | {"mode": modes.get(cause.rule, "")}
                    for cause in judgement.outcome.causes
                ],
                "needs": [asdict(need_form(need)) for need in judgement.outcome.needs],
                "obligations": [asdict(obligation_form(each)) for each in judgement.outcome.obligations],
            }
            for judgement in body.judgements
        ],
    }


def waiting(core: Core) -> Json:
    """The intents that wait for something, with what would help and what to do.

    This node's own, and those of partners that wait for an approval which this organization's people may give.
    """
    rows: list[Json] = []
    for pursuit in core.requester.pursuits():
        if pursuit.standing not in WAITING:
            continue
        standing = answer(core, pursuit.intent.id)
        rows.append(
            intent_row(core, pursuit.intent)
            | {
                "causes": [asdict(cause) for cause in standing.causes],
                "needs": [_needed(need, pursuit.intent) for need in standing.needs],
                "votes": standing.votes,
                "asks": pursuit.asks,
                "goes_on_by_itself": pursuit.standing != "deferred" or pursuit.ask_next is not None,
            }
        )
    for asked, needs in approvals_wanted(core):
        known = partner_view(core, asked)
        rows.append(
            intent_row(core, asked)
            | {
                "causes": known["causes"],
                "needs": [_needed(need, asked) for need in needs],
                "votes": known["votes"],
                "asks": 0,
                "goes_on_by_itself": False,
            }
        )
    rows.sort(key=lambda row: (row["at"], row["intent"]), reverse=True)
    return rows[:LISTED_MAX]


def _needed(need: TermForm, asked: AnyRecord) -> Json:
    return asdict(need) | {"deed": deed_for(need, asked.id.hex())}


# Records


def record(core: Core, record_id: bytes) -> Json:
    """Any record that is held, decoded.

    Raises:
        Refused: `not_found`.
    """
    found = core.store.get([record_id])
    if not found:
        raise Refused(
            "not_found", f"no record {record_id.hex()[:16]} is held here, nor by who is in reach", 404
        )
    signed = found[0]
    try:
        body = plain(decode_body(signed))
    except DecodeError as exc:
        body = {"unreadable": str(exc)}
    return {
        "id": signed.id.hex(),
        "kind": signed.header.kind,
        "member": signed.header.member,
        "at": signed.header.at,
        "header": plain(signed.header),
        "body": body,
        "record": base64.b64encode(signed.encoded()).decode(),
    }


def _held(core: Core, record_id: bytes, what: str, form: type[msgspec.Struct]) -> AnyRecord:
    found = core.holdings.get(record_id)
    if found is None or not isinstance(found.body, form):
        raise Refused(
            "not_found",
            f"no {what} {record_id.hex()[:16]} is held here, nor by who is in reach",
            404,
            f"`comity {what} list` shows those that are held",
        )
    return found


def _encoded(found: AnyRecord) -> str:
    return base64.b64encode(found.record.encoded()).decode()


# What partners publish


def partner_assets(core: Core) -> list[PartnerAsset]:
    """The newest promoted actuation of every slot of other members, as far as it is held and sound here."""
    rows: list[PartnerAsset] = []
    partners = (m for m in core.holdings.epoch.members.values() if m.id != core.identity.member)
    for domain in (domain for partner in partners for domain in partner.namespaces):
        for head in core.store.heads_below(domain, core.coalition, limit=PARTNER_SLOTS_MAX):
            stands = standing(core.holdings, head)
            made = core.holdings.get(stands.actuation) if stands is not None else None
            if made is None or not isinstance(made.body, Actuation) or made.header.governance is None:
                continue
            if lineage_problem(core, made) is None:
                rows.append(_partner_asset(made, made.header.governance))
    return sorted(rows, key=lambda row: (row.asset, row.partition))


def _partner_asset(made: VerifiedRecord[Actuation], state: GovernanceState) -> PartnerAsset:
    body = made.body
    return PartnerAsset(
        asset=body.asset,
        partition=body.partition,
        actuation=made.id.hex(),
        digest=body.content.digest.hex(),
        media_type=body.content.media_type,
        generation=body.generation,
        made_at=made.header.at,
        rows=body.content.rows,
        columns=list(body.content.columns),
        governance=governance_form(state),
    )


def governance_form(state: GovernanceState) -> GovernanceForm:
    """The governance state of data in the words of the API."""
    return GovernanceForm(
        tier=state.tier,
        realm=state.realm,
        owners=list(state.owners),
        purpose=state.purpose,
        weight=state.weight,
        data_classes=list(state.data_classes),
        authority_classes=list(state.authority_classes),
        restrictions=[obligation_form(each) for each in state.restrictions],
    )


def published_names(core: Core) -> list[str]:
    """Ids of partners' assets that policy names without a wildcard but for the member: what may be asked for."""
    governance = core.holdings.governance()
    names: set[str] = set()
    for bundle in governance.bundles if governance is not None else ():
        for rule in bundle.policy.assets:
            member, _, path = rule.pattern.partition("/")
            if not path or "*" in path:
                continue
            domains = [d for m in core.holdings.epoch.members.values() for d in m.namespaces]
            names |= {f"{domain}/{path}" for domain in domains if member in ("*", domain)}
    return sorted(n for n in names if core.holdings.epoch.writer_of(n) != core.identity.member)
