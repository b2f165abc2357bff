"""What follows from a version that was found wrong: its writer takes it back, and what was made from it is marked.

Without IO, like the other machines. What counts against a version is what counts against an input
(`comity.attestation.adverse`), so a node acts on nothing that voters would not weigh. Nothing here depends on the
order in which records arrive: what is to be said follows from what is held.

Spec: docs/spec/lineage.md section 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec

from comity.attestation.adverse import ANCESTOR_FAILED, Adverse, weigh_adverse
from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.findings import short
from comity.attestation.holdings import Holdings
from comity.attestation.speaking import Speakers
from comity.attestation.voter import adverse_to
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Actuation, Intent, Metering, Observation
from comity.protocol.governance import Revocation
from comity.protocol.verified import VerifiedRecord
from comity.protocol.ways import APART

AnyRecord: TypeAlias = VerifiedRecord[Any]
Made: TypeAlias = VerifiedRecord[Actuation]

FAILED: Final = "verification_failed"
"""The finding on which a writer takes back what it made."""
_TAKEN_BACK: Final = frozenset({"rolled_back", "quarantined"})
VERSIONS_BACK_MAX: Final = 64
"""Versions that one slot goes back at most: each was promoted and found wrong."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What speaks against one version, as this node would weigh it as a voter.

    Attributes:
        codes: of the findings against it, and why it was struck.
        marked: something that it was made from was found wrong.
    """

    codes: frozenset[str] = frozenset()
    marked: bool = False

    @property
    def reaches_on(self) -> bool:
        """Whether what was made from it is to be marked."""
        return bool(self.codes) or self.marked


def against(holdings: Holdings, made: Made) -> Wrong | None:
    """What is held against a version and counts; None where that cannot be weighed yet.

    Taxonomy or policies of the epoch, or the intent that it was made under, may not have arrived.
    """
    found = weighed(holdings, made)
    if found is None:
        return None
    codes = {finding.cause.code for finding in found.against.get(made.id, ())}
    if made.id in found.struck:
        codes.add(found.struck[made.id])
    return Wrong(frozenset(codes), made.id in found.marked)


def weighed(holdings: Holdings, made: Made) -> Adverse | None:
    """The adverse records that count against a version; None where that cannot be weighed yet."""
    governance = holdings.governance()
    intent = holdings.get(made.body.intent)
    if governance is None or intent is None:
        return None
    candidates, links = adverse_to({made.id}, holdings)
    speakers = Speakers(governance.epoch, governance.taxonomy, governance.observers, links)
    whole = (*candidates.values(), *holdings.slot_rivals(made))
    return weigh_adverse(whole, intent, None, {made.id: made}, {}, speakers)


# The newest version that stands


def taken_back(holdings: Holdings, made: AnyRecord) -> frozenset[str]:
    """How its writer has taken a version back: `rolled_back`, `quarantined`, or not at all."""
    said = holdings.adverse_about({made.id})
    return frozenset(
        r.header.outcome
        for r in said
        if r.header.kind == "actuation" and r.member == made.member and r.header.outcome
    )


def standing_version(holdings: Holdings, newest: bytes) -> bytes | None:
    """The version of a slot that counts as its newest: the last one made or, where that was rolled back, one before.

    Args:
        newest: the promoted actuation of the highest generation.

    Returns None where all were taken back, or the one before is not held.
    """
    # Of most nothing was said, and they need not be read for this: an asset may have thousands of slots.
    made = holdings.get(newest) if holdings.adverse_about({newest}) else None
    if made is None or "rolled_back" not in taken_back(holdings, made):
        return newest
    return next((before.id for before in _before(holdings, made) if not taken_back(holdings, before)), None)


def _before(holdings: Holdings, made: AnyRecord) -> Iterator[AnyRecord]:
    """The versions that a version took the place of, the newest first, as far as they are held."""
    for _ in range(VERSIONS_BACK_MAX):
        body = made.body
        found = holdings.get(body.previous) if isinstance(body, Actuation) and body.previous else None
        if found is None or not isinstance(found.body, Actuation):
            return
        made = found
        yield made


# What is to be said


def take_back(
    holdings: Holdings, author: Author, made: Made, now: int, *, is_newest: bool
) -> SignedRecord | None:
    """What a writer says of its own version after a verification that counts has failed; None where nothing is to say.

    It rolls back where the store keeps the version before, and that one stands; else the version is in quarantine.

    Args:
        is_newest: whether it is the version that counts as the newest of its slot.
    """
    if made.member != author.member or made.header.outcome != "promoted" or taken_back(holdings, made):
        return None
    wrong = against(holdings, made)
    if wrong is None or FAILED not in wrong.codes:
        return None
    outcome: Literal["rolled_back", "quarantined"] = "quarantined"
    if is_newest and _can_be_put_back(holdings, made):
        outcome = "rolled_back"
    body = msgspec.structs.replace(
        made.body, salt=NO_SALT, metering=Metering(authority=made.body.metering.authority)
    )
    header = made.header
    return author.write(
        "actuation",
        body,
        now,
        subject=(made.id,),
        outcome=outcome,
        realm=header.realm,
        governance=header.governance,
    )


def _can_be_put_back(holdings: Holdings, made: Made) -> bool:
    """Whether the work was said to be reversible, and a version before stands. What was made apart has none."""
    if made.header.realm in APART:
        return False
    intent = holdings.get(made.body.intent)
    if intent is None or not isinstance(intent.body, Intent):
        return False
    if not any(group.reversible for group in intent.body.classes if group.asset == made.body.asset):
        return False
    for before in _before(holdings, made):
        if not taken_back(holdings, before):
            found = against(holdings, before)
            return found is not None and not found.codes
    return False


def mark(holdings: Holdings, author: Author, made: Made, now: int) -> tuple[SignedRecord, ...]:
    """What an organization says of a version that is its own, or that it owns in part, for what it was made from.

    A mark where an input was found wrong and nobody's mark counts yet; and the own marks taken back where every input
    is held and none is wrong.
    """
    state = made.header.governance
    if made.header.outcome != "promoted" or state is None:
        return ()
    if author.member not in {made.member, *state.owners}:
        return ()
    own = _marks_by(holdings, author, made.id)
    wrong = next((i for i in sorted(made.body.inputs) if _is_wrong(holdings, i)), None)
    if wrong is not None:
        found = against(holdings, made)
        if own or found is None or found.marked:
            return ()
        body = Observation(salt=NO_SALT, claim=ANCESTOR_FAILED, parameters={"input": short(wrong)})
        realm = made.header.realm
        return (author.write("observation", body, now, subject=(made.id,), outcome="disputed", realm=realm),)
    if not own or any(holdings.get(i) is None for i in made.body.inputs):
        return ()
    back = Revocation(salt=NO_SALT, reason="inputs_stand_again")
    return tuple(author.write("revocation", back, now, subject=(each.id,)) for each in own)


def _is_wrong(holdings: Holdings, made: bytes) -> bool:
    # Most inputs have nothing said against them, and need not be read again for this.
    if not holdings.adverse_about({made}):
        return False
    record = holdings.get(made)
    if record is None or not isinstance(record.body, Actuation):
        return False
    found = against(holdings, record)
    return found is not None and found.reaches_on


def _marks_by(holdings: Holdings, author: Author, made: bytes) -> list[AnyRecord]:
    """The marks of a version that this node signed and that are not taken back."""
    marks = [
        r
        for r in holdings.adverse_about({made})
        if r.header.key == author.signer.key_id
        and isinstance(r.body, Observation)
        and r.body.claim == ANCESTOR_FAILED
    ]
    return [
        r for r in marks if not any(b.header.kind == "revocation" for b in holdings.adverse_about({r.id}))
    ]
