"""What an organization publishes under its own key, from the words of a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.policy_rules import compile_rules
from comity.node.credentialing import sequence_number
from comity.node.governance_files import read_rules
from comity.node.plain_values import plain
from comity.node.signing_hand import DAY_S, Hand, now, whole_pattern
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ConfigError, DecodeError
from comity.protocol.execution import Transition
from comity.protocol.governance import OWNER_POLICY_NAME, Consent, OwnerPolicy, ReferenceValues
from comity.protocol.identifiers import ClassName, Digest
from comity.protocol.limits import OWNER_RULES_BYTES_MAX
from comity.protocol.records import decode_body

BEFORE_S: Final = 300
"""What is published holds from so long before: the clocks of the members differ."""
STANDING_DAYS_MAX: Final = 3_650


def transition_record(
    author: Author, kind: Literal["release", "trust"], asset: str, *, purpose: str, tier_to: int, days: int
) -> SignedRecord:
    """An owner's explicit step.

    Raises:
        ConfigError: the asset is no pattern.
    """
    at = now()
    body = Transition(
        salt=NO_SALT,
        type=kind,
        asset=whole_pattern(author.member, asset),
        not_before=at - BEFORE_S,
        not_after=at + days * DAY_S,
        purpose=purpose,
        tier_to=tier_to,
    )
    return author.write("transition", body, at)


def owner_policy_record(author: Author, consents: Sequence[str], rules: Path | None) -> SignedRecord:
    """How an owner consents, newest first by number.

    Raises:
        ConfigError: a consent is malformed or said twice, or the rules do not compile.
    """
    entries = sorted((_consent(text) for text in consents), key=lambda entry: entry.data_class)
    classes = [entry.data_class for entry in entries]
    if len(set(classes)) != len(classes):
        raise ConfigError("--consent: a data class is named twice")
    text = ""
    if rules is not None:
        text = read_rules(rules)
        if len(text.encode()) > OWNER_RULES_BYTES_MAX:
            raise ConfigError(
                f"{rules}: {len(text.encode())} bytes; the rules of an owner have at most {OWNER_RULES_BYTES_MAX}"
            )
        try:
            compile_rules(text)
        except DecodeError as exc:
            raise ConfigError(f"{rules}: {exc}; `comity policy lint {rules}` says more") from exc
    body = OwnerPolicy(salt=NO_SALT, consents=tuple(entries), rules=text)
    return author.write("owner_policy", body, now(), name=OWNER_POLICY_NAME, number=sequence_number())


def _consent(text: str) -> Consent:
    wanted = "CLASS=live or CLASS=standing:DAYS, e.g. released=standing:90; * stands for every other class"
    name, _, said = text.partition("=")
    mode, _, days = said.partition(":")
    if name != "*":
        try:
            msgspec.convert(name, ClassName, strict=True)
        except msgspec.ValidationError as exc:
            raise ConfigError(f"--consent {text!r}: {name!r} is no data class; write {wanted}") from exc
    if mode == "live" and not days:
        return Consent(data_class=name, mode="live")
    if mode == "standing" and days.isdecimal() and 1 <= int(days) <= STANDING_DAYS_MAX:
        return Consent(data_class=name, mode="standing", until=now() + int(days) * DAY_S)
    raise ConfigError(f"--consent {text!r}: write {wanted}")


def reference_record(
    author: Author, distributions: Sequence[str], code: Sequence[str], *, days: int
) -> SignedRecord:
    """Measurements that a publisher recognises.

    Raises:
        ConfigError: none are given, or one is no digest.
    """
    if not distributions or not code:
        raise ConfigError("give at least one --distributions and one --code, or --from-intent")
    body = ReferenceValues(
        salt=NO_SALT,
        distributions=_digests(distributions),
        code=_digests(code),
        not_after=now() + days * DAY_S,
    )
    return author.write("reference_values", body, now(), name="contexts", number=sequence_number())


def _digests(texts: Sequence[str]) -> tuple[bytes, ...]:
    try:
        return tuple(
            sorted({msgspec.convert(bytes.fromhex(t), Digest, builtin_types=(bytes,)) for t in texts})
        )
    except (ValueError, msgspec.ValidationError) as exc:
        raise ConfigError("a measurement is a digest: 64 hex digits") from exc


def measured_for(hand: Hand, intent: str) -> tuple[str, str]:
    """The measurement in the evidence of an intent: digests of distributions and of code.

    Raises:
        ConfigError: there is no evidence.
        NodeError: the node does not answer, or does not know the intent.
    """
    shown: Any = hand.reader().intent(hand.id_of(intent, "intent"))
    evidence: Any = shown.get("evidence") or []
    if not evidence:
        raise ConfigError(f"the intent {intent[:16]} came without evidence of its context")
    return str(evidence[0]["distributions"]), str(evidence[0]["code"])


def described(signed: SignedRecord) -> dict[str, Any]:
    """A record as plain values."""
    try:
        body = plain(decode_body(signed))
    except DecodeError as exc:
        body = {"unreadable": str(exc)}
    return {
        "id": signed.id.hex(),
        "kind": signed.header.kind,
        "header": plain(signed.header),
        "body": body,
        "signatures": [{"key": s.key.hex(), "suite": s.suite} for s in signed.signatures],
    }
