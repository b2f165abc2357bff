"""Who may approve what: asked of the same functions that judge an approval, before anybody signs one.

Functions of the core, run in its thread. What they say is what this node's own vote would say now; the others judge by
what they hold when they are asked.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from comity.attestation.approvals import OWN_INTENT, approving_chain
from comity.attestation.credentials import Chain, read_chain
from comity.attestation.findings import Finding
from comity.attestation.gathering import chain_of
from comity.attestation.signing import key_id
from comity.node.core import Core
from comity.node.problems import Refused
from comity.node.revocations import state_of
from comity.node.sentences import cause_sentence
from comity.node.standings import standing_of
from comity.protocol.execution import Intent, Observation
from comity.protocol.governance import Credential, PublicKey
from comity.protocol.outcome import Cause
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
Json: TypeAlias = Any

CREDENTIALS_MAX: Final = 16
"""Credentials of one key that are looked at, the newest: a person has one or a few, and each is judged."""
APPROVALS_MAX: Final = 64
"""Approvals of one intent, or by one key, that are shown, the newest."""

_OVER: Final = frozenset({"permitted", "refused", "expired"})
_WORDS: Final = {
    OWN_INTENT: "it is your own intent, or that of somebody who delegated to you or to whom you delegated:"
    " somebody else has to approve it",
    "credential_taken_back": "your credential, or one above it, was taken back",
    "not_wanted": "nothing here waits for an approval by somebody who holds {classes}",
    "over": "it is {standing} already",
    "closed": "the time in which it could be decided has ended",
    "approved": "you have approved it already",
    "requester_unknown": "the credential of whoever asks is not in order, so nobody's approval counts",
    "governance_missing": "the policy in force has not arrived here yet",
}
"""Why the page offers no button, where the judgement has no sentence of its own."""


def held_by(core: Core, public: str) -> Json:
    """The credentials that name a public key, the newest first, with how each stands now.

    Args:
        public: an Ed25519 key of 64 hex digits.

    Raises:
        Refused: `form_invalid`.
    """
    key = key_of(public)
    return [
        {
            "credential": record.id.hex(),
            "member": record.member,
            "subject": record.body.subject,
            "subject_kind": record.body.subject_kind,
            "classes": list(record.body.classes),
            "actions": list(record.body.actions),
            "assets": list(record.body.assets),
            "not_after": record.body.not_after,
            "state": _state(core, record),
        }
        for record in _naming(core, key)
    ]


def key_of(public: str) -> PublicKey:
    """A key as the page names it.

    Raises:
        Refused: `form_invalid`.
    """
    try:
        value = bytes.fromhex(public)
    except ValueError:
        value = b""
    if len(value) != 32:  # noqa: PLR2004 - of Ed25519
        raise Refused("form_invalid", "a public key is 64 hex digits", 422)
    return PublicKey(suite="ed25519", value=value)


def _naming(core: Core, key: PublicKey) -> list[VerifiedRecord[Credential]]:
    found = [
        record
        for record in core.holdings.state.of_kind("credential")
        if isinstance(record.body, Credential) and record.body.key == key
    ]
    found.sort(key=lambda record: (record.header.at, record.id), reverse=True)
    return found[:CREDENTIALS_MAX]


def _state(core: Core, record: VerifiedRecord[Credential]) -> str:
    now = core.clock.now()
    taken = next((s for link in chain_of(record.id, core.holdings) if (s := state_of(core, link))), "")
    if taken:
        return taken
    if now >= record.body.not_after:
        return "expired"
    return "not yet" if now < record.body.not_before else "in force"


# Whether an approval would count


def entitlements(core: Core, intent: VerifiedRecord[Intent], public: str, wanted: frozenset[str]) -> Json:
    """For each credential of a key whether its holder's approval of an intent would help now, and why not.

    Args:
        wanted: the authority classes whose approval the intent waits for.

    Raises:
        Refused: `form_invalid`.
    """
    given = {
        record.authority
        for record in approvals_of(core, intent)
        if approval_state(core, record, intent) == "counts"
    }
    rows: list[Json] = []
    for record in _naming(core, key_of(public)):
        why = "approved" if record.id in given else _why_not(core, intent, record, wanted)
        rows.append(
            {
                "credential": record.id.hex(),
                "member": record.member,
                "subject": record.body.subject,
                "classes": list(record.body.classes),
                "state": _state(core, record),
                "may": not why,
                "code": why.code if isinstance(why, Cause) else why,
                "why": _sentence(why, core, intent, record),
            }
        )
    return rows


def _why_not(
    core: Core, intent: VerifiedRecord[Intent], record: VerifiedRecord[Credential], wanted: frozenset[str]
) -> Cause | str:
    """Why an approval under a credential would change nothing; empty where it would help."""
    if standing_of(core, intent) in _OVER:
        return "over"
    if core.clock.now() >= intent.body.expires:
        return "closed"
    chain = _chain_for(core, intent, record.id)
    if not isinstance(chain, Chain):
        return chain
    return "" if wanted & set(chain.classes) else "not_wanted"


def _chain_for(core: Core, intent: VerifiedRecord[Intent], credential: bytes) -> Chain | Cause | str:
    governance = core.holdings.governance()
    if governance is None:
        return "governance_missing"
    t = core.clock.now()
    links = [*chain_of(credential, core.holdings), *chain_of(intent.body.credential, core.holdings)]
    taken = {link.id for link in links if state_of(core, link)}
    relied = {link.id: link for link in links if link.id not in taken}
    if taken & {link.id for link in chain_of(credential, core.holdings)}:
        return "credential_taken_back"
    requester = read_chain(intent.body.credential, relied, governance.epoch, governance.taxonomy, t)
    if not isinstance(requester, Chain):
        return "requester_unknown"
    found = approving_chain(credential, intent, requester, relied, governance.epoch, governance.taxonomy, t)
    return found.cause if isinstance(found, Finding) else found


def _sentence(
    why: Cause | str, core: Core, intent: VerifiedRecord[Intent], record: VerifiedRecord[Credential]
) -> str:
    if not why:
        return ""
    if isinstance(why, Cause) and why.code not in _WORDS:
        return cause_sentence(why.code, why.parameters) or why.code
    code = why.code if isinstance(why, Cause) else why
    values = {"classes": " or ".join(record.body.classes), "standing": standing_of(core, intent)}
    return _WORDS[code].format_map(values)


# Approvals that are held


def approvals_of(core: Core, intent: AnyRecord) -> list[AnyRecord]:
    """The approvals of an intent that are held, the newest first."""
    found = [
        record
        for each in core.store.about(intent.id, "observation")
        if each.header.outcome == "approved" and (record := core.holdings.get(each.id)) is not None
    ]
    approvals = [r for r in found if isinstance(r.body, Observation) and r.body.claim == "approval"]
    return sorted(approvals, key=lambda r: (r.header.at, r.id), reverse=True)[:APPROVALS_MAX]


def approval_state(core: Core, record: AnyRecord, intent: AnyRecord) -> str:
    """How an approval stands now: `counts`, `withdrawn`, `expired`, `of something else`, or `does not count`.

    `withdrawn` is also said where the approver's credential was taken back. Whether it is enough is another question.
    """
    body: Observation = record.body
    links = chain_of(record.authority, core.holdings) if record.authority is not None else []
    if state_of(core, record) or any(state_of(core, link) for link in links):
        return "withdrawn"
    if body.not_after and core.clock.now() >= body.not_after:
        return "expired"
    if body.shown != intent.header.body.digest:
        return "of something else"
    if record.authority is None or record.role != "subject":
        return "does not count"
    return "counts" if isinstance(_chain_for(core, intent, record.authority), Chain) else "does not count"


def approvals_shown(core: Core, intent: AnyRecord) -> Json:
    """The approvals of an intent, by whom, until when, and how each stands."""
    return [approval_row(core, record, intent) for record in approvals_of(core, intent)]


def approval_row(core: Core, record: AnyRecord, intent: AnyRecord) -> Json:
    """One approval in short."""
    held = core.holdings.get(record.authority) if record.authority is not None else None
    credential = held.body if held is not None and isinstance(held.body, Credential) else None
    return {
        "approval": record.id.hex(),
        "intent": intent.id.hex(),
        "member": record.member,
        "by": credential.subject if credential is not None else "",
        "classes": list(credential.classes) if credential is not None else [],
        "key": record.header.key.hex(),
        "credential": record.authority.hex() if record.authority is not None else "",
        "at": record.header.at,
        "not_after": record.body.not_after,
        "realm": record.header.realm,
        "state": approval_state(core, record, intent),
    }


def approvals_by(core: Core, public: str) -> Json:
    """The newest approvals that a key has signed, with what each is of.

    Raises:
        Refused: `form_invalid`.
    """
    signer = key_id(key_of(public))
    members = {record.member for record in _naming(core, key_of(public))}
    rows: list[Json] = []
    for member in sorted(members):
        for each in core.store.of_kind("observation", coalition=core.coalition, member=member):
            if each.header.key != signer or each.header.outcome != "approved" or len(rows) == APPROVALS_MAX:
                continue
            record = core.holdings.get(each.id)
            asked = core.holdings.get(each.header.subject[0]) if each.header.subject else None
            if record is None or asked is None or not isinstance(asked.body, Intent):
                continue
            assets = sorted({group.asset for group in asked.body.classes})
            rows.append(approval_row(core, record, asked) | {"assets": assets})
    return rows
