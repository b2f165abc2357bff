"""One record of every kind that has a schema, made from fixed seeds: the same bytes in every run.

They hang together (the permit names the votes, the votes the ask), as far as their forms can say it. Nothing
judges them. The keys are test keys: their seeds stand in the golden vectors.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from comity.attestation.signing import SigningKey, add_signature, sign_record
from comity.protocol.accountability import Checkpoint, Cosignature, Erased, Misbehaviour
from comity.protocol.ballots import Commit, Prepare, Proposal
from comity.protocol.encoding import Form, encode
from comity.protocol.envelope import Header, SignedRecord, body_reference
from comity.protocol.execution import (
    Actuation,
    Appraisal,
    Ask,
    Attestation,
    Challenge,
    Claim,
    ClassJudgement,
    CodeReference,
    Content,
    ContextMeasurement,
    Intent,
    Item,
    ItemClass,
    LaunchTicket,
    Metering,
    Observation,
    Permit,
    Refusal,
    RunReference,
    ScopeEpoch,
    ShareRelease,
    Start,
    Transition,
    Verification,
    Vote,
)
from comity.protocol.governance import (
    Acknowledgement,
    Address,
    AssetRule,
    AuthorityClass,
    ColumnClass,
    Comment,
    Consent,
    Credential,
    Endorsement,
    Epoch,
    Member,
    NodeCertificate,
    OwnerPolicy,
    Policy,
    Purpose,
    ReferenceValues,
    Revocation,
    Suspension,
    Taxonomy,
)
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import sha256
from comity.protocol.outcome import Cause, Extent, Mode, Obligation, Outcome

T0 = 1_800_000_000
YEAR = 365 * 24 * 3600
NORTH, SOUTH = "north.example", "south.example"
RULES = '@id("base")\npermit(principal, action, resource);\n'


def digest(name: str) -> bytes:
    """A digest that stands for something outside of the specimens."""
    return sha256(f"comity specimen: {name}".encode())


def seed_of(name: str) -> bytes:
    return sha256(f"comity specimen key: {name}".encode())


@functools.cache
def key(name: str) -> SigningKey:
    return SigningKey.from_seed(seed_of(name))


@dataclass(frozen=True)
class Pen:
    """Who writes: a member, one of its keys, and what vouches for the key."""

    member: str
    name: str
    authority: bytes | None = None
    coalition: bytes | None = None

    def write(self, kind: str, body: Form, at: int = T0, **header: Any) -> SignedRecord:
        """Sign a record. The body's salt follows from kind and author."""
        salted = msgspec.structs.replace(body, salt=digest(f"salt {kind} {self.name}"))
        data = encode(salted)
        return sign_record(self.header(kind, data, at, **header), data, key(self.name))

    def header(self, kind: str, body_bytes: bytes, at: int = T0, **changes: Any) -> Header:
        header = Header(
            v=1,
            kind=kind,
            member=self.member,
            key=key(self.name).key_id,
            at=at,
            realm="production",
            body=body_reference(body_bytes),
            authority=self.authority,
            coalition=self.coalition,
            scopes=(self.coalition,) if self.coalition is not None else (),
        )
        return msgspec.structs.replace(header, **changes)


SALT = bytes(32)
"""What a body holds before it is written."""

STATE = GovernanceState(
    tier=1,
    realm="production",
    owners=(NORTH,),
    purpose="survival_study",
    weight=600_000,
    data_classes=("health/released",),
    authority_classes=("health/data-steward",),
)
FIVE_ROWS = Obligation(code="min_group_rows", parameters={"column": "inst", "rows": 5})
RESTRICTED = Outcome(
    mode=Mode.RESTRICT,
    extent=Extent(items=((0, 0),), columns=((1, 2), (4, 4))),
    obligations=(FIVE_ROWS,),
    causes=(
        Cause(code="quasi_identifier", rule="quasi-identifiers", parameters={"columns": "inst"}),
        Cause(code="small_group", rule="small-groups"),
    ),
)
REFUSED = Outcome(
    mode=Mode.REFUSE,
    extent=Extent(items=((0, 0),), columns=((0, 4),)),
    causes=(Cause(code="credential_expired", parameters={"not_after": T0}),),
)


def taxonomy() -> Taxonomy:
    return Taxonomy(
        salt=digest("salt taxonomy north"),
        classes=(
            AuthorityClass(name="health", weight=0, issuers=(NORTH,)),
            AuthorityClass(name="health/data-steward", weight=600_000, within="health"),
        ),
    )


def policy() -> Policy:
    return Policy(
        salt=digest("salt policy north"),
        language="cedar-4",
        rules=RULES,
        assets=(
            AssetRule(
                pattern="*/released",
                data_class="health/released",
                columns=(ColumnClass(name="inst", column_class="quasi_identifier"),),
                rows_by="inst",
            ),
            AssetRule(pattern="north.example/**", data_class="health"),
        ),
        purposes=(Purpose(name="survival_study", columns=("sex", "status", "time")),),
        observers=(SOUTH,),
        weight_min=100_000,
    )


def genesis_body() -> Epoch:
    return Epoch(
        salt=SALT,
        coalition_name="specimens",
        started=T0 - YEAR,
        certificate="unanimous",
        members=tuple(
            Member(id=name, keys=(key(name).public,), namespaces=(name,)) for name in (NORTH, SOUTH)
        ),
        suites=("ed25519",),
        engines=(digest("engine"),),
        vectors=digest("vectors of the engine"),
        taxonomy=sha256(encode(taxonomy())),
        policies=(sha256(encode(policy())),),
        publishers=(NORTH,),
    )


@functools.cache
def specimens() -> Mapping[str, SignedRecord]:
    """One record of each kind, by the name of its kind."""
    made: dict[str, SignedRecord] = {}
    founder = Pen(NORTH, NORTH)
    genesis = add_signature(founder.write("epoch", genesis_body(), T0 - YEAR), key(SOUTH))
    made["epoch"] = genesis
    owner = Pen(NORTH, NORTH, None, genesis.id)
    for kind, body in (("taxonomy", taxonomy()), ("policy", policy())):
        data = encode(body)
        made[kind] = sign_record(owner.header(kind, data, T0 - YEAR, name=kind), data, key(NORTH))
    _governance(made, owner)
    nodes = {
        member: Pen(member, f"{member}/node/n1", certificate(member, genesis.id).id, genesis.id)
        for member in (NORTH, SOUTH)
    }
    made["node_certificate"] = certificate(NORTH, genesis.id)
    _asked(made, nodes[NORTH])
    _decided(made, nodes)
    _done(made, nodes[NORTH], owner)
    return MappingProxyType(made)


def certificate(member: str, coalition: bytes) -> SignedRecord:
    """The certificate of a member's one node."""
    body = NodeCertificate(
        salt=SALT,
        node=f"spiffe://{member}/node/n1",
        key=key(f"{member}/node/n1").public,
        transport_key=digest(f"transport key {member}"),
        not_before=T0 - YEAR,
        not_after=T0 + YEAR,
    )
    return Pen(member, member, None, coalition).write("node_certificate", body, T0 - YEAR, name="n1")


def _governance(made: dict[str, SignedRecord], owner: Pen) -> None:
    consents = (
        Consent(data_class="*", mode="live"),
        Consent(data_class="health/released", mode="standing", until=T0 + YEAR),
    )
    made["owner_policy"] = owner.write(
        "owner_policy", OwnerPolicy(salt=SALT, consents=consents), name="owner", number=1
    )
    credential = Credential(
        salt=SALT,
        subject=f"spiffe://{NORTH}/operator/7f3a",
        subject_kind="person",
        key=key(f"{NORTH}/operator/7f3a").public,
        classes=("health/data-steward",),
        actions=("approve", "materialize"),
        assets=("north.example/**",),
        realms=("preview/trial", "production"),
        not_before=T0 - 1000,
        not_after=T0 + YEAR,
        purposes=("survival_study",),
        delegations=1,
    )
    made["credential"] = owner.write("credential", credential, name="operator/7f3a")
    made["revocation"] = owner.write(
        "revocation",
        Revocation(salt=SALT, reason="key_lost", compromised_since=T0 - 100),
        T0 + 900,
        subject=(made["credential"].id,),
    )
    values = ReferenceValues(
        salt=SALT, distributions=(digest("distributions"),), code=(digest("code"),), not_after=T0 + YEAR
    )
    made["reference_values"] = owner.write("reference_values", values, name="pipeline", number=3)
    made["transition"] = owner.write(
        "transition",
        Transition(
            salt=SALT,
            type="release",
            asset="*/survival",
            not_before=T0 - 1000,
            not_after=T0 + YEAR,
            purpose="survival_study",
        ),
    )


def _asked(made: dict[str, SignedRecord], node: Pen) -> None:
    credential = made["credential"].id
    columns = ("inst", "time", "status", "age", "sex")
    group = ItemClass(
        asset=f"{NORTH}/released",
        items=(Item(generation=2, partition="2026-01", previous=digest("actuation before")),),
        columns=columns,
        inputs=(digest("actuation of patients"),),
        media_type="text/csv",
        reversible=True,
    )
    intent = Intent(
        salt=SALT,
        requester=f"spiffe://{NORTH}/operator/7f3a",
        credential=credential,
        purpose="survival_study",
        code=CodeReference(digest=digest("code"), location="pipeline", revision="4f2c"),
        run=RunReference(orchestrator="dagster", run="run-1", step="released", job="release"),
        classes=(group,),
        expires=T0 + 7 * 24 * 3600,
        attempts_max=3,
    )
    made["intent"] = node.write("intent", intent)
    person = Pen(NORTH, f"{NORTH}/operator/7f3a", credential, node.coalition)
    ticket = LaunchTicket(
        salt=SALT,
        run="run-1",
        job="release",
        assets=(f"{NORTH}/released",),
        not_before=T0 - 60,
        not_after=T0 + 3600,
        partitions=("2026-01",),
    )
    made["launch_ticket"] = person.write("launch_ticket", ticket)
    approval = Observation(
        salt=SALT,
        claim="approval",
        shown=made["intent"].header.body.digest,
        not_after=T0 + 3600,
        weight=50_000,
        parameters={"form": "v2", "page": 1},
    )
    made["observation"] = person.write(
        "observation", approval, subject=(made["intent"].id,), outcome="approved"
    )
    context = ContextMeasurement(
        python="cpython-3.11.7",
        platform="linux-x86_64",
        distributions=digest("distributions"),
        distributions_count=41,
        code=digest("code"),
        code_files=7,
    )
    evidence = Attestation(
        salt=SALT, type="software", intent=made["intent"].id, context=context, binding=digest("binding")
    )
    made["attestation"] = node.write("attestation", evidence)
    relied = ("attestation", "credential", "launch_ticket", "observation")
    made["ask"] = node.write(
        "ask", ask_body(node.coalition or b"", made["intent"].id, [made[k].id for k in relied])
    )


def ask_body(coalition: bytes, intent: bytes, relied: list[bytes]) -> Ask:
    return Ask(
        salt=SALT,
        intent=intent,
        t=T0 + 10,
        epochs=(ScopeEpoch(scope=coalition, epoch=coalition),),
        relied=tuple(sorted(relied)),
    )


def vote_body(made: Mapping[str, SignedRecord], outcome: Outcome) -> Vote:
    return Vote(
        salt=SALT,
        intent=made["intent"].id,
        ask=made["ask"].id,
        t=T0 + 10,
        scope=made["epoch"].id,
        epoch=made["epoch"].id,
        engine=digest("engine"),
        expires=T0 + 610,
        judgements=(ClassJudgement(outcome=outcome, weight=600_000, state=STATE, live=(SOUTH,)),),
        working=digest("working"),
    )


def _decided(made: dict[str, SignedRecord], nodes: Mapping[str, Pen]) -> None:
    north, south = nodes[NORTH], nodes[SOUTH]
    made["vote"] = north.write("vote", vote_body(made, RESTRICTED))
    second = south.write("vote", vote_body(made, RESTRICTED))
    common: dict[str, Any] = {
        "salt": SALT,
        "intent": made["intent"].id,
        "ask": made["ask"].id,
        "t": T0 + 10,
        "scope": made["epoch"].id,
        "epoch": made["epoch"].id,
    }
    claim = Claim(
        index=0,
        mode=Mode.RESTRICT,
        extent=RESTRICTED.extent,
        state=STATE,
        obligations=RESTRICTED.obligations,
        live=(SOUTH,),
    )
    votes = tuple(sorted((made["vote"].id, second.id)))
    made["permit"] = north.write(
        "permit", Permit(**common, claims=(claim,), votes=votes, expires=T0 + 610), T0 + 11
    )
    contrary = north.write("vote", vote_body(made, REFUSED))
    made["misbehaviour"] = south.write(
        "misbehaviour",
        Misbehaviour(
            salt=SALT,
            rule="two_votes",
            records=tuple(r.encoded() for r in sorted((made["vote"], contrary), key=lambda r: r.id)),
        ),
        T0 + 12,
        subject=tuple(sorted((made["vote"].id, contrary.id))),
    )
    no = tuple(sorted(nodes[m].write("vote", vote_body(made, REFUSED)).id for m in (NORTH, SOUTH)))
    made["refusal"] = north.write("refusal", Refusal(**common, votes=no), T0 + 11)


def _done(made: dict[str, SignedRecord], node: Pen, owner: Pen) -> None:
    start = Start(
        salt=SALT,
        intent=made["intent"].id,
        permit=made["permit"].id,
        asset=f"{NORTH}/released",
        attempt=1,
        run=RunReference(orchestrator="dagster", run="run-1", step="released", job="release"),
        partition="2026-01",
    )
    made["start"] = node.write("start", start, T0 + 20)
    actuation = Actuation(
        salt=SALT,
        intent=made["intent"].id,
        permit=made["permit"].id,
        start=made["start"].id,
        asset=f"{NORTH}/released",
        generation=2,
        attempt=1,
        content=Content(
            digest=digest("content"),
            size=4096,
            media_type="text/csv",
            rows=86,
            columns=("time", "status", "sex"),
        ),
        metering=Metering(authority=made["credential"].id, rows=86, bytes=4096, duration_ms=1200),
        inputs=(digest("actuation of patients"),),
        partition="2026-01",
        previous=digest("actuation before"),
        attestation=made["attestation"].id,
    )
    state = msgspec.structs.replace(STATE, restrictions=(FIVE_ROWS,))
    made["actuation"] = node.write("actuation", actuation, T0 + 30, outcome="promoted", governance=state)
    made["verification"] = node.write(
        "verification",
        Verification(salt=SALT, checks=(Cause(code="row_count", parameters={"rows": 86}),)),
        T0 + 40,
        subject=(made["actuation"].id,),
        outcome="passed",
    )
    _later(made, node, owner)
    made["erased"] = owner.write(
        "erased", Erased(salt=SALT, ground="retention_ended"), T0 + YEAR, subject=(made["launch_ticket"].id,)
    )


def _later(made: dict[str, SignedRecord], node: Pen, owner: Pen) -> None:
    """Records of kinds that have little use yet."""
    ballot: dict[str, Any] = {"salt": SALT, "previous": made["epoch"].id, "epoch": digest("epoch after")}
    made["proposal"] = owner.write(
        "proposal", Proposal(**ballot, ballot=2, prepared=(digest("prepare"),)), T0 + 50
    )
    made["prepare"] = owner.write("prepare", Prepare(**ballot, ballot=2), T0 + 51)
    made["commit"] = owner.write("commit", Commit(**ballot, ballot=2), T0 + 52)
    made["address"] = node.write(
        "address",
        Address(
            salt=SALT,
            addresses=("/ip4/192.0.2.7/tcp/4001", "/dns4/n1.north.example/tcp/4001"),
            not_after=T0 + YEAR,
        ),
        name="address",
        number=4,
    )
    credential = (made["credential"].id,)
    made["suspension"] = owner.write(
        "suspension",
        Suspension(salt=SALT, reason="under_review", until=T0 + 3600),
        T0 + 60,
        subject=credential,
    )
    made["acknowledgement"] = node.write(
        "acknowledgement", Acknowledgement(salt=SALT), T0 + 61, subject=(made["revocation"].id,)
    )
    remark = Comment(salt=SALT, code="reviewed", parameters={"form": "v2", "page": 3})
    made["comment"] = owner.write("comment", remark, T0 + 62, subject=credential)
    made["endorsement"] = owner.write(
        "endorsement",
        Endorsement(
            salt=SALT,
            type="snp",
            media_type="application/pkix-cert",
            blob=b"a certificate",
            not_before=T0 - YEAR,
            not_after=T0 + YEAR,
        ),
    )
    made["challenge"] = node.write("challenge", Challenge(salt=SALT, nonce=digest("nonce")), T0 + 5)
    _attested_and_logged(made, node)


def _attested_and_logged(made: dict[str, SignedRecord], node: Pen) -> None:
    evidence = made["attestation"].id
    made["appraisal"] = node.write(
        "appraisal",
        Appraisal(
            salt=SALT,
            attestation=evidence,
            tier=1,
            claims={"configuration": 2, "executables": 3, "hardware": -1},
            fresh=True,
            endorsements=(made["endorsement"].id,),
        ),
        T0 + 9,
        subject=(evidence,),
        outcome="affirming",
    )
    made["share_release"] = node.write(
        "share_release",
        ShareRelease(
            salt=SALT,
            intent=made["intent"].id,
            permit=made["permit"].id,
            version=made["actuation"].id,
            context_key=digest("public key of the context"),
            index=1,
            commitment=digest("share"),
            sealed=b"a sealed share",
        ),
        T0 + 21,
    )
    text = b"north.example/n1/governance\n7\n" + base64.b64encode(digest("root")) + b"\n"
    signed = key(node.name).sign(text)
    made["checkpoint"] = node.write(
        "checkpoint",
        Checkpoint(
            salt=SALT,
            log="governance",
            origin="north.example/n1/governance",
            size=7,
            root=digest("root"),
            signature=signed,
        ),
        T0 + 70,
    )
    cosigned = key(node.name).sign(b"cosignature/v1\ntime %d\n" % (T0 + 71) + text)
    made["cosignature"] = node.write(
        "cosignature",
        Cosignature(salt=SALT, checkpoint=made["checkpoint"].id, signature=cosigned),
        T0 + 71,
        subject=(made["checkpoint"].id,),
    )
