"""A small world for tests: organizations with keys, a coalition, policies, credentials, and intents.

Everything follows from names, so the same world has the same bytes in every run. Nothing here judges: it
writes records with the product's own `Author` and hands them to the product.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.evidence import binding_of
from comity.attestation.holdings import Holdings
from comity.attestation.requester import (
    VOTES_WAIT_S,
    Declined,
    Effect,
    IntentFiled,
    Requester,
    SendAsk,
    StoreOwn,
    TimePassed,
    VoteArrived,
)
from comity.attestation.signing import SigningKey, add_signature
from comity.attestation.voter import AskArrived, Decline, SendVote, Voter
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import (
    Actuation,
    Attestation,
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
    RunReference,
    Start,
    Transition,
)
from comity.protocol.governance import (
    AssetRule,
    AuthorityClass,
    ColumnClass,
    Consent,
    Credential,
    Epoch,
    Member,
    NodeCertificate,
    OwnerPolicy,
    Policy,
    Purpose,
    Revocation,
    Suspension,
    Taxonomy,
)
from comity.protocol.identifiers import sha256

START = 1_800_000_000
"""The world's present, in whole seconds."""
YEAR = 365 * 24 * 3600
ENGINE = sha256(b"engine of the tests")

NORTH, SOUTH, INSTITUTE, BOARD = (
    "clinic-north.example",
    "clinic-south.example",
    "institute.example",
    "ethics-board.example",
)
FOUR = (NORTH, SOUTH, BOARD, INSTITUTE)

RULES = """
@id("base") permit(principal, action == Action::"materialize", resource is Asset);
@id("base-columns") permit(principal, action == Action::"include", resource is Column);

@id("quasi-identifiers") @mode("restrict") @reason("quasi_identifier")
forbid(principal, action == Action::"include", resource is Column)
when { resource.column_class == "quasi_identifier" && context.purpose == "survival_study" };

@id("unneeded") @mode("restrict") @reason("column_not_needed")
forbid(principal, action == Action::"include", resource is Column)
when { context.purpose == "survival_study" && resource.column_class != "quasi_identifier" }
unless { resource.named };

@id("small-groups") @mode("restrict") @reason("small_group") @obliges("min_group_rows(rows=5)")
forbid(principal, action == Action::"materialize", resource in DataClass::"released");

@id("dpo") @mode("defer") @reason("approval_missing") @needs("approval(class=data-protection-officer)")
forbid(principal, action == Action::"materialize", resource in DataClass::"pooled")
unless { context.approvals.contains("data-protection-officer") };

@id("tier") @mode("defer") @reason("tier_low") @needs("tier(at_least=1)")
forbid(principal, action == Action::"materialize", resource in DataClass::"guarded")
when { context.tier < 1 };

@id("never") @mode("refuse") @reason("forbidden_class")
forbid(principal, action == Action::"materialize", resource in DataClass::"forbidden");
"""

COLUMNS = ("inst", "time", "status", "age", "sex", "ph_ecog", "meal_cal", "age_decade")
NEEDED = ("time", "status", "sex", "ph_ecog", "age_decade")


def key(name: str) -> SigningKey:
    return SigningKey.from_seed(sha256(f"test key {name}".encode()))


def policy_body(rules: str = RULES, **changes: Any) -> Policy:
    quasi = tuple(
        ColumnClass(name=c, column_class="quasi_identifier")
        if c in ("inst", "age")
        else ColumnClass(c, "plain")
        for c in COLUMNS
    )
    body = Policy(
        salt=sha256(b"salt of the policy"),
        language="cedar-4",
        rules=rules,
        assets=(
            AssetRule("*/patients", "health"),
            AssetRule("*/released", "released", columns=quasi, rows_by="inst"),
            AssetRule("*/pooled", "pooled"),
            AssetRule("*/survival", "aggregate"),
            AssetRule("*/guarded", "guarded"),
            AssetRule("*/forbidden/**", "forbidden"),
            AssetRule("*/plain/**", "plain"),
        ),
        purposes=(Purpose("survival_study", NEEDED), Purpose("care")),
    )
    return msgspec.structs.replace(body, **changes)


def taxonomy_body() -> Taxonomy:
    return Taxonomy(
        salt=sha256(b"salt of the taxonomy"),
        classes=(
            AuthorityClass("data-steward", 600_000),
            AuthorityClass("data-protection-officer", 800_000),
            AuthorityClass("agent", 200_000),
        ),
    )


CONTEXT = ContextMeasurement(
    python="cpython-3.11.7",
    platform="linux-x86_64",
    distributions=sha256(b"distributions"),
    distributions_count=3,
    code=sha256(b"code"),
    code_files=1,
)


@dataclass
class Organization:
    """One member: its keys, its node, and what it holds."""

    name: str
    coalition: bytes
    epoch: SignedRecord
    owner: Author = field(init=False)
    node: Author = field(init=False)
    certificate: SignedRecord = field(init=False)
    holdings: Holdings = field(init=False)
    voter: Voter = field(init=False)
    requester: Requester = field(init=False)
    credentials: dict[str, tuple[Author, SignedRecord]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.owner = Author(
            self.name, key(self.name), sha256(f"salt {self.name}".encode()), None, self.coalition
        )
        self.certificate = self.certify("n1")
        self.node = self.node_author("n1", self.certificate)
        self.reset()

    def reset(self, started: int = START - 3600) -> None:
        """Begin again with empty holdings."""
        self.holdings = Holdings(ENGINE)
        self.holdings.adopt(self.epoch)
        self.voter = Voter(self.node, self.holdings, started)
        self.requester = Requester(self.node, self.holdings, started)

    def certify(self, node: str, **changes: Any) -> SignedRecord:
        body = NodeCertificate(
            salt=NO_SALT,
            node=f"spiffe://{self.name}/node/{node}",
            key=key(f"{self.name}/node/{node}").public,
            transport_key=sha256(f"transport {self.name}".encode()),
            not_before=START - YEAR,
            not_after=START + YEAR,
        )
        return self.owner.write(
            "node_certificate", msgspec.structs.replace(body, **changes), START - YEAR, name=node
        )

    def node_author(self, node: str, certificate: SignedRecord) -> Author:
        return Author(
            self.name,
            key(f"{self.name}/node/{node}"),
            sha256(f"salt node {self.name}".encode()),
            certificate.id,
            self.coalition,
        )

    def credential(
        self,
        who: str,
        *,
        kind: str = "person",
        under: str | None = None,
        held_by: str | None = None,
        **changes: Any,
    ) -> SignedRecord:
        """Issue a credential to `who`, e.g. `operator/7f3a`, from the organization or from a holder's key.

        `held_by` names the key that holds it, e.g. `node/n1` for automation.
        """
        subject = f"spiffe://{self.name}/{who}"
        body = Credential(
            salt=NO_SALT,
            subject=subject,
            subject_kind=kind,  # type: ignore[arg-type]
            key=key(f"{self.name}/{held_by or who}").public,
            classes=("data-steward",),
            actions=("materialize",),
            assets=(f"{self.name}/**",),
            realms=("production",),
            not_before=START - 1000,
            not_after=START + YEAR // 2,
            delegations=1,
        )
        body = msgspec.structs.replace(body, **changes)
        issuer = self.owner if under is None else self.credentials[under][0]
        record = issuer.write("credential", body, START - 500, name=who)
        holder = Author(
            self.name,
            key(f"{self.name}/{held_by or who}"),
            sha256(f"salt {subject}".encode()),
            record.id,
            self.coalition,
        )
        self.credentials[who] = (holder, record)
        return record

    def owner_policy(self, number: int = 1, rules: str = "", **consents: tuple[str, int]) -> SignedRecord:
        """Consent by data class, e.g. `released=("standing", until)`; `any_` stands for `*`."""
        entries = tuple(
            Consent(data_class="*" if name == "any_" else name, mode=mode, until=until)  # type: ignore[arg-type]
            for name, (mode, until) in sorted(consents.items())
        )
        body = OwnerPolicy(salt=NO_SALT, consents=entries, rules=rules)
        return self.owner.write("owner_policy", body, START - 400, name="owner", number=number)

    def transition(self, asset: str, kind: str = "release", **changes: Any) -> SignedRecord:
        body = Transition(
            salt=NO_SALT,
            type=kind,  # type: ignore[arg-type]
            asset=asset,
            not_before=START - 1000,
            not_after=START + YEAR,
        )
        return self.owner.write("transition", msgspec.structs.replace(body, **changes), START - 300)

    def revoke(self, subject: bytes, by: Author | None = None, kind: str = "revocation") -> SignedRecord:
        return (by or self.owner).write(
            kind, Revocation(salt=NO_SALT, reason="key_lost"), START, subject=(subject,)
        )

    def suspend(self, subject: bytes, until: int, by: Author | None = None) -> SignedRecord:
        body = Suspension(salt=NO_SALT, reason="under_review", until=until)
        return (by or self.owner).write("suspension", body, START, subject=(subject,))

    def intent(
        self,
        *assets: str,
        who: str = "automation/main",
        inputs: Sequence[bytes] = (),
        columns: Sequence[str] = (),
        run: str = "run-1",
        purpose: str = "care",
        realm: str = "production",
        author: Author | None = None,
        groups: tuple[ItemClass, ...] | None = None,
        at: int = START,
        under: SignedRecord | None = None,
        **changes: Any,
    ) -> SignedRecord:
        """An intent for assets of this organization (local names), or for given classes; under a launch ticket."""
        classes = groups or tuple(
            ItemClass(
                asset=asset if "/" in asset and "." in asset.split("/")[0] else f"{self.name}/{asset}",
                items=(Item(generation=1),),
                columns=tuple(columns),
                inputs=tuple(sorted(inputs)),
                reversible=True,
            )
            for asset in assets
        )
        holder, credential = self.credentials[who]
        body = Intent(
            salt=NO_SALT,
            requester=f"spiffe://{holder.member}/{who}",
            credential=credential.id,
            purpose=purpose,
            code=CodeReference(digest=sha256(b"code")),
            run=RunReference("dagster", run, "step", "job"),
            classes=classes,
            expires=START + 7 * 24 * 3600,
            attempts_max=3,
        )
        return (author or self.node).write(
            "intent",
            msgspec.structs.replace(body, **changes),
            at,
            realm=realm,
            subject=(under.id,) if under is not None else (),
        )

    def ticket(self, who: str, assets: Sequence[str], run: str = "run-1", **changes: Any) -> SignedRecord:
        holder, _ = self.credentials[who]
        body = LaunchTicket(
            salt=NO_SALT,
            run=run,
            job="job",
            assets=tuple(f"{self.name}/{asset}" for asset in assets),
            not_before=START - 60,
            not_after=START + 3600,
        )
        return holder.write("launch_ticket", msgspec.structs.replace(body, **changes), START)

    def approve(self, who: str, intent: SignedRecord, **changes: Any) -> SignedRecord:
        holder, _ = self.credentials[who]
        body = Observation(salt=NO_SALT, claim="approval", shown=intent.header.body.digest)
        return holder.write(
            "observation",
            msgspec.structs.replace(body, **changes),
            START,
            subject=(intent.id,),
            outcome="approved",
        )

    def observe(self, subject: bytes, outcome: str, claim: str = "check", weight: int = 0) -> SignedRecord:
        return self.node.write(
            "observation",
            Observation(salt=NO_SALT, claim=claim, weight=weight),
            START,
            subject=(subject,),
            outcome=outcome,
        )

    def evidence(self, intent: SignedRecord, context: ContextMeasurement = CONTEXT) -> SignedRecord:
        binding = binding_of(intent.id, self.node.signer.key_id, b"", context, ())
        body = Attestation(salt=NO_SALT, type="software", intent=intent.id, context=context, binding=binding)
        return self.node.write("attestation", body, START)

    def actuate(self, permit: SignedRecord, index: int = 0, **changes: Any) -> SignedRecord:
        """What this organization makes under a permit that it holds: a start and a promoted actuation."""
        held = self.holdings.get(permit.id)
        assert held is not None
        body: Permit = held.body
        claim = body.claims[index]
        intent = self.holdings.get(body.intent)
        assert intent is not None
        group: ItemClass = intent.body.classes[claim.index]
        item = group.items[claim.extent.items[0][0]]
        start = self.node.write(
            "start",
            Start(
                salt=NO_SALT,
                intent=intent.id,
                permit=permit.id,
                asset=group.asset,
                partition=item.partition,
                attempt=1,
                run=intent.body.run,
            ),
            START + 1,
        )
        columns = tuple(
            group.columns[i] for first, last in claim.extent.columns for i in range(first, last + 1)
        )
        from comity.attestation.lineage import state_after

        actuation = Actuation(
            salt=NO_SALT,
            intent=intent.id,
            permit=permit.id,
            start=start.id,
            asset=group.asset,
            partition=item.partition,
            generation=item.generation,
            previous=item.previous,
            attempt=1,
            content=Content(
                digest=sha256(group.asset.encode()), size=100, media_type="text/csv", rows=10, columns=columns
            ),
            metering=Metering(authority=intent.body.credential, rows=10, bytes=100),
            inputs=group.inputs,
        )
        state = changes.pop("governance", state_after(claim))
        record = self.node.write(
            "actuation",
            msgspec.structs.replace(actuation, **changes),
            START + 2,
            outcome="promoted",
            realm=state.realm,
            governance=state,
        )
        self.holdings.admit((start, record))
        return record


class World:
    """A coalition of some organizations, each holding all governance records."""

    def __init__(
        self,
        members: Sequence[str] = FOUR,
        policy: Policy | None = None,
        taxonomy: Taxonomy | None = None,
        publishers: Sequence[str] = (),
        quorum: int = 0,
    ) -> None:
        self.policy = policy or policy_body()
        self.taxonomy = taxonomy or taxonomy_body()
        names = tuple(sorted(members))
        body = Epoch(
            salt=NO_SALT,
            coalition_name="test coalition",
            started=START - YEAR,
            certificate="unanimous",
            members=tuple(Member(name, (key(name).public,), (name,)) for name in names),
            suites=("ed25519",),
            engines=(ENGINE,),
            vectors=sha256(b"vectors"),
            taxonomy=digest_of(self.taxonomy),
            policies=(digest_of(self.policy),),
            publishers=tuple(publishers),
            quorum=quorum,
        )
        founder = Author(names[0], key(names[0]), sha256(b"salt of the genesis"))
        genesis = founder.write("epoch", body, START - YEAR)
        for name in names[1:]:
            genesis = add_signature(genesis, key(name))
        self.genesis = genesis
        self.members = {name: Organization(name, genesis.id, genesis) for name in names}
        first = self.members[names[0]].owner
        self.common = [
            write_exact(first, "taxonomy", self.taxonomy),
            write_exact(first, "policy", self.policy),
            *(member.certificate for member in self.members.values()),
        ]
        for member in self.members.values():
            self.common.append(
                member.credential("automation/main", kind="automation", held_by="node/n1", delegations=1)
            )
        self.tell(*self.common)

    def __getitem__(self, name: str) -> Organization:
        return self.members[name]

    def tell(self, *records: SignedRecord, only: Iterable[str] | None = None) -> None:
        """Give records to all members, or to some. They must verify."""
        for name in only if only is not None else self.members:
            admission = self.members[name].holdings.admit(records)
            assert not admission.rejected, admission.rejected

    def decide(
        self,
        intent: SignedRecord,
        offered: Sequence[SignedRecord] = (),
        *,
        now: float = START,
        down: Iterable[str] = (),
        by: str | None = None,
    ) -> Any:
        """File an intent and carry all messages at once. Returns where it stands (a `Pursuit`)."""
        requester = self.members[by or intent.header.member].requester
        effects = requester.handle(now, IntentFiled(intent, tuple(offered)))
        self.carry(requester, effects, now, frozenset(down))
        if down:
            # The silent are waited for, and then counted as silent.
            later = now + VOTES_WAIT_S
            self.carry(requester, requester.handle(later, TimePassed()), later, frozenset(down))
        return requester.pursuit(intent.id)

    def carry(
        self, requester: Requester, effects: tuple[Effect, ...], now: float, down: frozenset[str]
    ) -> None:
        """Carry out a requester's effects against the other members' voters."""
        queue = list(effects)
        while queue:
            effect = queue.pop(0)
            if isinstance(effect, StoreOwn) or not isinstance(effect, SendAsk):
                continue
            for name in effect.members:
                if name in down:
                    continue
                asked = AskArrived(effect.ask, effect.attached)
                for answer in self.members[name].voter.handle(int(now), asked):
                    if isinstance(answer, SendVote):
                        queue.extend(requester.handle(now, VoteArrived(answer.ask, answer.vote)))
                    elif isinstance(answer, Decline):
                        declined = Declined(name, answer.ask, answer.code, answer.missing)
                        queue.extend(requester.handle(now, declined))


def digest_of(body: msgspec.Struct) -> bytes:
    from comity.protocol.encoding import encode

    return sha256(encode(body))


def write_exact(author: Author, kind: str, body: Any) -> SignedRecord:
    """Write a record whose body keeps its own salt, as taxonomy and policies do (the epoch names their digest)."""
    return author.write_exact(kind, body, START - YEAR, name=kind)
