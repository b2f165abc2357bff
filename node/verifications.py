"""What an organization says of a version after it has looked at it; and what was said of one. Functions of the core."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from comity.attestation.aftermath import taken_back
from comity.attestation.authoring import NO_SALT
from comity.attestation.speaking import Speakers, is_report, may_report
from comity.attestation.voter import adverse_to
from comity.node.ancestry import target_of
from comity.node.core import Core
from comity.node.drafts import asset_id
from comity.node.forms import (
    CheckAnswer,
    CheckForm,
    VerificationAnswer,
    VerificationForm,
    WithdrawalAnswer,
)
from comity.node.plain_values import plain
from comity.node.problems import Refused
from comity.node.terms import cause_of
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import DecodeError, LocalProtocolError
from comity.protocol.execution import Actuation, Observation, Verification
from comity.protocol.governance import Revocation
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
Json: TypeAlias = Any

ASSET_CHECK: Final = "asset_check"
"""The claim of what a check of the orchestrator's found."""
SAID_MAX: Final = 200
"""What was said of one version that is listed: of one member no more than `ADVERSE_PER_SUBJECT_MAX` is looked at."""


def _held(core: Core, target: bytes) -> VerifiedRecord[Actuation]:
    made = core.holdings.get(target)
    if made is None or not isinstance(made.body, Actuation):
        raise Refused("not_found", f"{target.hex()[:16]} is no version of an asset that is held here", 404)
    return made


def _id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise Refused("form_invalid", "actuation: not hexadecimal", 422) from exc


def verify_version(core: Core, form: VerificationForm) -> VerificationAnswer:
    """Sign and publish what this organization found when it looked at a version.

    What its writer's node does about a failed one that counts: `comity.node.aftermath`.

    Raises:
        Refused: `not_found`, `form_invalid`, `not_promoted`.
    """
    made = _held(core, target_of(core, form.name, form.partition))
    if made.header.outcome != "promoted":
        raise Refused("not_promoted", f"{made.id.hex()[:16]} is {made.header.outcome}: no reader sees it")
    checks = tuple(cause_of(term) for term in form.checks)
    try:
        record = core.identity.author.write(
            "verification",
            Verification(salt=NO_SALT, checks=checks),
            core.clock.now(),
            subject=(made.id,),
            outcome=form.outcome,
            realm=made.header.realm,
        )
    except (LocalProtocolError, DecodeError) as exc:
        raise Refused("form_invalid", str(exc), 422) from exc
    core.publish([record])
    said = core.holdings.get(record.id)
    counts = said is not None and form.outcome == "failed" and _counts(core, said, made)
    return VerificationAnswer(
        verification=record.id.hex(),
        actuation=made.id.hex(),
        asset=made.body.asset,
        partition=made.body.partition,
        outcome=form.outcome,
        counts=counts,
    )


def checked(core: Core, form: CheckForm) -> CheckAnswer:
    """Sign and publish what a check found in a version.

    One that passes takes back what the same check said of the same version before, under this node's key.

    Raises:
        Refused: `not_found`, `form_invalid`.
    """
    made = core.holdings.get(_id(form.actuation))
    slot = (asset_id(core, form.asset), form.partition)
    if made is None or not isinstance(made.body, Actuation) or (made.body.asset, made.body.partition) != slot:
        raise Refused("not_found", f"{form.actuation[:16]} is no version of {slot[0]} that is held here", 404)
    outcome = "passed" if form.passed else "failed" if form.severity == "error" else "observed"
    parameters: dict[str, int | str] = {"check": form.check, "severity": form.severity}
    now = core.clock.now()
    before = _said_before(core, made, form.check)
    try:
        body = Observation(salt=NO_SALT, claim=ASSET_CHECK, parameters=parameters)
        record = core.identity.author.write(
            "observation", body, now, subject=(made.id,), outcome=outcome, realm=made.header.realm
        )
    except (LocalProtocolError, DecodeError) as exc:
        raise Refused("form_invalid", str(exc), 422) from exc
    core.publish([record, *(_revocation(core, each, "check_passed") for each in before if form.passed)])
    said = core.holdings.get(record.id)
    return CheckAnswer(record.id.hex(), said is not None and _counts(core, said, made))


def _said_before(core: Core, made: AnyRecord, check: str) -> list[AnyRecord]:
    """What this node said of a version by a check, where that failed and is not taken back."""
    against, _ = adverse_to({made.id}, core.holdings)
    gone = {s for r in against.values() if r.header.kind == "revocation" for s in r.header.subject}
    return [
        r
        for r in against.values()
        if r.header.key == core.identity.author.signer.key_id
        and isinstance(r.body, Observation)
        and r.body.claim == ASSET_CHECK
        and r.body.parameters.get("check") == check
        and r.id not in gone
    ]


def _revocation(core: Core, said: AnyRecord, reason: str) -> SignedRecord:
    back = Revocation(salt=NO_SALT, reason=reason)
    return core.identity.author.write("revocation", back, core.clock.now(), subject=(said.id,))


def withdraw(core: Core, record_id: bytes) -> WithdrawalAnswer:
    """Take back what this node has said of a version.

    Raises:
        Refused: `not_found`, or `not_its_author`: another key has signed it.
    """
    said = core.holdings.get(record_id)
    if said is None or not isinstance(said.body, Verification | Observation):
        raise Refused("not_found", f"no verification {record_id.hex()[:16]} is held here", 404)
    if said.header.key != core.identity.author.signer.key_id:
        raise Refused(
            "not_its_author",
            f"another key of {said.member} has signed it",
            hint="its organization takes it back: `comity credential revoke` with the id of the record",
        )
    record = _revocation(core, said, "verification_withdrawn")
    core.publish([record])
    return WithdrawalAnswer(revocation=record.id.hex(), record=said.id.hex())


def said_of(core: Core, target: bytes) -> Json:
    """What is held for and against a version: by whom, and whether it counts.

    Returns `actuation`, `asset`, `partition`, `generation`, `state` (`promoted`, `rolled_back`, `quarantined`) and
    `said`, rows of `record`, `kind`, `member`, `outcome`, `at`, `claim`, `checks`, `counts`, `withdrawn`.
    """
    made = _held(core, target)
    against, _ = adverse_to({made.id}, core.holdings)
    withdrawn = {s for r in against.values() if r.header.kind == "revocation" for s in r.header.subject}
    favourable = [r for r in core.holdings.about(made.id) if r.header.kind in ("verification", "observation")]
    rows: list[Json] = []
    for said in (*favourable, *(r for r in against.values() if is_report(r))):
        body = plain(said.body)
        rows.append(
            {
                "record": said.id.hex(),
                "kind": said.header.kind,
                "member": said.member,
                "outcome": said.header.outcome,
                "at": said.header.at,
                "claim": body.get("claim", ""),
                "checks": body.get("checks", []),
                "counts": is_report(said) and said.id not in withdrawn and _counts(core, said, made),
                "withdrawn": said.id in withdrawn,
            }
        )
    states = taken_back(core.holdings, made)
    rows.sort(key=lambda row: (row["at"], row["record"]))
    return {
        "actuation": made.id.hex(),
        "asset": made.body.asset,
        "partition": made.body.partition,
        "generation": made.body.generation,
        "state": min(states) if states else made.header.outcome,
        "said": rows[-SAID_MAX:],
    }


def _counts(core: Core, said: AnyRecord, made: AnyRecord) -> bool:
    """Whether voters hear a report about a version from its author."""
    governance = core.holdings.governance()
    if governance is None:
        return False
    _, links = adverse_to({made.id}, core.holdings)
    speakers = Speakers(governance.epoch, governance.taxonomy, governance.observers, links)
    return may_report(said, made, speakers)
