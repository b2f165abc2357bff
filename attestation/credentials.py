"""Credential chains: from the taxonomy to whoever acts, each link narrowing.

A chain is read from the subject upwards. Every link is named in the ask; the root is signed by a key of the
organization that the epoch names, every further link by the key of the link above it. What a link grants is
what all links above it grant too.

Spec: docs/spec/credentials.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from comity.attestation.epochs import EpochState
from comity.attestation.findings import Finding, defer, refuse, short
from comity.attestation.signing import key_id
from comity.protocol.execution import Intent, ItemClass, LaunchTicket
from comity.protocol.governance import Credential, Taxonomy
from comity.protocol.identifiers import pattern_matches, pattern_within
from comity.protocol.limits import CHAIN_MAX
from comity.protocol.outcome import Need
from comity.protocol.tickets import ticket_named
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
Relied: TypeAlias = Mapping[bytes, AnyRecord]


@dataclass(frozen=True, slots=True)
class Chain:
    """A sound chain, from the subject's own credential up to the root.

    Attributes:
        links: the subject's credential first.
        classes: the authority classes that it carries.
    """

    links: tuple[VerifiedRecord[Credential], ...]

    @property
    def own(self) -> Credential:
        return self.links[0].body

    @property
    def subject(self) -> str:
        return self.own.subject

    @property
    def subjects(self) -> frozenset[str]:
        """The subject and everybody who delegated to it."""
        return frozenset(link.body.subject for link in self.links)

    @property
    def keys(self) -> frozenset[bytes]:
        """Their keys: one key under two names is still one holder."""
        return frozenset(key_id(link.body.key) for link in self.links)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.own.classes

    @property
    def ids(self) -> frozenset[bytes]:
        return frozenset(link.id for link in self.links)


def read_chain(
    start: bytes, relied: Relied, epoch: EpochState, taxonomy: Taxonomy, t: int
) -> Chain | Finding:
    """Follow a chain through the records that an ask names.

    Returns the chain, or why there is none: what is missing defers and names it, what is wrong refuses.
    """
    links: list[VerifiedRecord[Credential]] = []
    wanted: bytes | None = start
    while wanted is not None:
        if len(links) == CHAIN_MAX:
            return refuse("credential_chain_long", links_max=CHAIN_MAX)
        link = relied.get(wanted)
        if link is None:
            return defer("credential_missing", Need(code="credential", parameters={"id": short(wanted)}))
        if not isinstance(link.body, Credential):
            return refuse("credential_wrong", id=short(wanted))
        if links:
            problem = _link_problem(links[-1], link)
            if problem is not None:
                return problem
        problem = _time_problem(link, t)
        if problem is not None:
            return problem
        links.append(link)
        wanted = link.authority
    return _root_problem(links[-1], epoch, taxonomy) or Chain(tuple(links))


def _time_problem(link: VerifiedRecord[Credential], t: int) -> Finding | None:
    if t < link.body.not_before:
        return refuse("credential_early", subject=link.body.subject, not_before=link.body.not_before)
    if t >= link.body.not_after:
        return refuse("credential_expired", subject=link.body.subject, not_after=link.body.not_after)
    return None


def _link_problem(child: VerifiedRecord[Credential], parent: VerifiedRecord[Credential]) -> Finding | None:
    """Why a link does not hang on the one above it, or None."""
    below, above = child.body, parent.body
    if child.role != "subject" or child.member != parent.member:
        return refuse("credential_not_delegated", subject=below.subject, delegator=above.subject)
    bound = widened(below, above)
    if bound is not None:
        return refuse("credential_widened", subject=below.subject, bound=bound)
    return None


def widened(below: Credential, above: Credential) -> str | None:
    """The field in which a delegated credential grants more than the one above it, or None."""
    if below.delegations >= above.delegations:
        return "delegations"
    if below.not_before < above.not_before or below.not_after > above.not_after:
        return "validity"
    if not set(below.classes) <= set(above.classes):
        return "classes"
    if not set(below.actions) <= set(above.actions):
        return "actions"
    if not set(below.realms) <= set(above.realms):
        return "realms"
    if above.purposes and not (below.purposes and set(below.purposes) <= set(above.purposes)):
        return "purposes"
    if not all(any(pattern_within(inner, outer) for outer in above.assets) for inner in below.assets):
        return "assets"
    return None


def _root_problem(root: VerifiedRecord[Credential], epoch: EpochState, taxonomy: Taxonomy) -> Finding | None:
    if root.role != "organization" or root.header.key not in epoch.organization_keys(root.member):
        return refuse("credential_unrooted", subject=root.body.subject)
    published = {entry.name: entry for entry in taxonomy.classes}
    for name in root.body.classes:
        entry = published.get(name)
        if entry is None:
            return refuse("authority_class_unknown", authority_class=name)
        if entry.issuers and root.member not in entry.issuers:
            return refuse("authority_class_not_issued", authority_class=name, issuer=root.member)
    return None


def bound_problem(chain: Chain, action: str, asset: str, realm: str, purpose: str) -> Finding | None:
    """The bound of a chain that an action would overstep, named; or None.

    Links only narrow, so the subject's own credential is the tightest.
    """
    own = chain.own
    if action not in own.actions:
        return refuse("credential_bound", bound="actions", wanted=action, subject=own.subject)
    if not any(pattern_matches(pattern, asset) for pattern in own.assets):
        return refuse("credential_bound", bound="assets", wanted=asset, subject=own.subject)
    if realm not in own.realms:
        return refuse("credential_bound", bound="realms", wanted=realm, subject=own.subject)
    if own.purposes and purpose not in own.purposes:
        return refuse("credential_bound", bound="purposes", wanted=purpose, subject=own.subject)
    return None


def ticket_for(
    intent: VerifiedRecord[Intent], chain: Chain, relied: Relied, t: int
) -> VerifiedRecord[LaunchTicket] | Finding | None:
    """Who asked: the launch ticket that covers an intent, or None where the node's own key holds the credential.

    An `automation` credential may be held by the node itself; every other subject signs a ticket with its
    own key, for one run, until it expires: the run that it names, or the first whose intent is under it.
    """
    own = chain.own
    if own.subject_kind == "automation" and key_id(own.key) == intent.header.key:
        return None
    problems: list[Finding] = []
    for record_id in sorted(relied):
        record = relied[record_id]
        if isinstance(record.body, LaunchTicket) and record.authority == chain.links[0].id:
            problem = _ticket_problem(record, intent, chain, t)
            if problem is None:
                return record
            problems.append(problem)
    if problems:
        return problems[0]
    return defer(
        "ticket_missing", Need(code="launch_ticket", parameters={"subject": own.subject}), subject=own.subject
    )


def _ticket_problem(
    ticket: VerifiedRecord[LaunchTicket], intent: VerifiedRecord[Intent], chain: Chain, t: int
) -> Finding | None:
    body, asked = ticket.body, intent.body
    subject = chain.subject
    if not body.not_before <= t < body.not_after:
        return refuse("ticket_expired", subject=subject, not_after=body.not_after)
    if body.run != asked.run.run and (body.run or ticket_named(intent) != ticket.id):
        return refuse("ticket_bound", bound="run", subject=subject)
    if body.job != asked.run.job:
        return refuse("ticket_bound", bound="job", subject=subject, wanted=asked.run.job)
    if body.purpose and body.purpose != asked.purpose:
        return refuse("ticket_bound", bound="purpose", subject=subject, wanted=asked.purpose)
    for group in asked.classes:
        problem = _ticket_class_problem(body, group, subject)
        if problem is not None:
            return problem
    return None


def _ticket_class_problem(ticket: LaunchTicket, group: ItemClass, subject: str) -> Finding | None:
    if not any(pattern_matches(pattern, group.asset) for pattern in ticket.assets):
        return refuse("ticket_bound", bound="assets", subject=subject, wanted=group.asset)
    if ticket.partitions and not {item.partition for item in group.items} <= set(ticket.partitions):
        return refuse("ticket_bound", bound="partitions", subject=subject, wanted=group.asset)
    return None
