"""Credentials from the words of a command: whole names, bounds that only narrow, and the right hand that signs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.credentials import widened
from comity.node.client import NodeError
from comity.node.home import NODE_KEY
from comity.node.keystore import companion, load_public
from comity.node.signing_hand import (
    DAY_S,
    Hand,
    credential_body,
    now,
    whole_pattern,
    whole_subject,
)
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ConfigError
from comity.protocol.governance import Credential, PublicKey, Revocation
from comity.protocol.identifiers import Code

POLL_S: Final = 0.2
"""Between two looks at whether a revocation is effective."""
BEFORE_S: Final = 300
"""A credential holds from so long before it is signed: the clocks of the members differ."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a credential is to say. Names and patterns may lack the member's domain."""

    subject: str
    kind: Literal["person", "agent", "automation"]
    classes: tuple[str, ...]
    public: Path | None = None
    node_key: bool = False
    actions: tuple[str, ...] = ("materialize",)
    assets: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    realms: tuple[str, ...] = ("production",)
    days: int = 90
    delegations: int = 0
    previous: str = ""


def sequence_number() -> int:
    """A number for a record under a name: larger than that of any earlier one, without a register."""
    return time.time_ns() // 1_000


def issued(
    hand: Hand, wish: Wish, *, under: str = "", key: Path | None = None, organization_key: Path | None = None
) -> tuple[SignedRecord, Credential]:
    """Sign a credential.

    Args:
        under: the delegator's credential; empty where the organization's key issues it.
        key: the delegator's own key.

    Raises:
        ConfigError: a value is not what it has to be, or it would grant more than the delegator has; the message
            names the bound.
        NodeError: the delegator's credential is looked for at the node, and the node does not answer.
    """
    if bool(under) != (key is not None):
        raise ConfigError(
            "--under and --key go together: the delegator's credential, and the delegator's own key"
        )
    above: SignedRecord | None = hand.credential(under) if under else None
    if above is not None and key is not None:
        author = hand.holder(key, above)
    else:
        author = hand.organization(organization_key, hand.coalition_id())
    body = _body(author.member, wish, _subject_key(hand, wish), above, _previous(hand, wish))
    if above is not None:
        bound = widened(body, credential_body(above))
        if bound is not None:
            raise ConfigError(
                f"it would grant more than the delegator has: {bound}. {_bound_of(credential_body(above), bound)}"
            )
    record = author.write("credential", body, now(), name=body.subject, number=sequence_number())
    return record, body


def _body(
    member: str, wish: Wish, key: PublicKey, above: SignedRecord | None, previous: bytes | None
) -> Credential:
    at = now()
    not_before, not_after = at - BEFORE_S, at + wish.days * DAY_S
    if above is not None:
        limits = credential_body(above)
        not_before = max(not_before, limits.not_before)
        # A link that ends with the one above it is what is meant by a number of days beyond it.
        not_after = min(not_after, limits.not_after)
    raw = {
        "salt": NO_SALT,
        "subject": whole_subject(member, wish.subject),
        "subject_kind": wish.kind,
        "key": {"suite": key.suite, "value": key.value},
        "classes": sorted(set(wish.classes)),
        "actions": sorted(set(wish.actions)),
        "assets": sorted({whole_pattern(member, text) for text in wish.assets or ("**",)}),
        "realms": sorted(set(wish.realms)),
        "not_before": not_before,
        "not_after": not_after,
        "purposes": sorted(set(wish.purposes)),
        "delegations": wish.delegations,
    }
    if previous is not None:
        raw["previous"] = previous
    try:
        return msgspec.convert(raw, Credential, strict=True, builtin_types=(bytes,))
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"no credential: {exc}. Classes are names of the taxonomy, realms `production` or `preview/NAME`,"
            " purposes names of the policy"
        ) from exc


def _subject_key(hand: Hand, wish: Wish) -> PublicKey:
    if wish.node_key == (wish.public is not None):
        raise ConfigError("give either --public FILE, the subject's own key, or --node-key")
    if wish.public is not None:
        return load_public(wish.public)
    if wish.kind != "automation":
        raise ConfigError(
            "only automation is held by the node's key: people and agents have a key of their own"
        )
    return load_public(companion(hand.home.key(NODE_KEY)))


def _previous(hand: Hand, wish: Wish) -> bytes | None:
    if not wish.previous:
        return None
    earlier = hand.credential(wish.previous)
    found, wanted = credential_body(earlier).subject, whole_subject(earlier.header.member, wish.subject)
    if found != wanted:
        raise ConfigError(f"--previous is the credential of {found}, not of {wanted}")
    return earlier.id


def _bound_of(above: Credential, bound: str) -> str:
    """What the delegator's credential says of a bound, for people."""
    said: dict[str, Any] = {
        "delegations": f"It may delegate {above.delegations} more links; the new one says fewer (--delegations).",
        "classes": f"Its classes are {', '.join(above.classes)}.",
        "actions": f"Its actions are {', '.join(above.actions)}.",
        "assets": f"Its assets are {', '.join(above.assets)}.",
        "realms": f"Its realms are {', '.join(above.realms)}.",
        "purposes": f"Its purposes are {', '.join(above.purposes)}; name some of them (--purpose).",
        "validity": "Its time is over, or over before that of the new one.",
    }
    return str(said.get(bound, ""))


@dataclass(frozen=True, slots=True)
class Before:
    """A credential before its revocation, as far as the local node says.

    Attributes:
        others: ids of credentials in force that the same automation's key holds, where it is one of automation.
    """

    subject: str = ""
    revoked: bool = False
    automation: bool = False
    others: tuple[str, ...] = ()


def standing_before(hand: Hand, named: str) -> Before:
    """How a credential stands that is to be revoked. Without a node nothing is known of it: that hinders nobody.

    Raises:
        ConfigError: it is no file, and no id that the node knows.
    """
    wanted = hand.record(named, "credential", "node_certificate").id.hex()
    try:
        rows: list[Any] = hand.reader().credentials()
    except (NodeError, ConfigError):
        return Before()
    row = next((each for each in rows if each["credential"] == wanted), None)
    if row is None:
        return Before()
    automation = row["subject_kind"] == "automation"
    others = [
        each["credential"]
        for each in rows
        if each["credential"] != wanted
        and (each["key"], each["state"], each["subject_kind"]) == (row["key"], "in force", "automation")
    ]
    return Before(row["subject"], row["state"] == "revoked", automation, tuple(others) if automation else ())


def effective_within(hand: Hand, revocation: str, wait_s: int) -> Any:
    """Wait until a revocation is effective, or the time is over. Returns its row, as `/v1/revocations` shows it.

    Raises:
        NodeError: the node does not answer.
    """
    client = hand.reader()
    until = time.monotonic() + wait_s
    while True:
        row: Any = next((each for each in client.revocations() if each["record"] == revocation), None)
        if row is None:
            raise ConfigError(f"the node does not hold the revocation {revocation[:16]}")
        if row["effective"] or time.monotonic() >= until:
            return row
        time.sleep(POLL_S)


def revoked(
    hand: Hand,
    named: str,
    reason: str,
    *,
    under: str = "",
    key: Path | None = None,
    organization_key: Path | None = None,
    kinds: tuple[str, ...] = ("credential", "node_certificate"),
) -> SignedRecord:
    """Sign the revocation of a credential or of a node's certificate, or of a record of other kinds.

    Raises:
        ConfigError: it is neither, or of another organization.
        NodeError: it is looked for at the node, and the node does not answer.
    """
    if bool(under) != (key is not None):
        raise ConfigError(
            "--under and --key go together: the delegator's credential, and the delegator's own key"
        )
    target = hand.record(named, *kinds)
    if target.header.kind not in kinds:
        wanted = " or ".join(kind.replace("_", " ") for kind in kinds)
        raise ConfigError(
            f"{named} is a {target.header.kind.replace('_', ' ')}, and a {wanted} is revoked here"
        )
    author: Author
    if key is not None:
        author = hand.holder(key, hand.credential(under))
    else:
        author = hand.organization(organization_key, target.header.coalition)
    if author.member != target.header.member:
        raise ConfigError(f"it is of {target.header.member}, and only that organization revokes it")
    try:
        code = msgspec.convert(reason, Code, strict=True)
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"--reason {reason!r}: a code of lower-case letters, digits and underscores"
        ) from exc
    return author.write("revocation", Revocation(salt=NO_SALT, reason=code), now(), subject=(target.id,))
