"""What was taken back, as a node shows it: by whom, what it strikes, and how far it has come. Functions of the core."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from comity.attestation.acknowledging import reach_of
from comity.attestation.adverse import is_mark, takes_back
from comity.attestation.aftermath import weighed
from comity.attestation.holdings import Holdings
from comity.attestation.speaking import credentials_above
from comity.node.core import Core
from comity.node.plain_values import plain
from comity.protocol.execution import Actuation
from comity.protocol.governance import Suspension
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
Json: TypeAlias = Any

MARKS_MAX: Final = 16
"""Marks of one actuation that are shown: a chain has at most eight links, and one word about each is enough."""
LISTED_MAX: Final = 200
"""Of more, the newest are listed."""


def revocations(core: Core) -> Json:
    """The newest revocations and suspensions that are held, and of each whether it is effective.

    `acknowledged` and `missing` are members; `quorum` is how many have to acknowledge it.
    """
    found = [r for kind in ("revocation", "suspension") for r in core.holdings.state.of_kind(kind)]
    newest = sorted(found, key=lambda r: (-r.header.at, r.id))[:LISTED_MAX]
    return [_row(core, record) for record in newest]


def state_of(core: Core, target: AnyRecord) -> str:
    """`revoked`, `suspended`, or nothing where nobody who may has taken a record back."""
    kinds = {record.header.kind for record in _against(core, target)}
    return "revoked" if "revocation" in kinds else "suspended" if kinds else ""


def marks_of(holdings: Holdings, intent: AnyRecord, *signed: AnyRecord) -> Json:
    """What was taken back of the authority under which something was asked for and made, and what its inputs came to.

    The authority is the credentials of the intent, and the certificates of the keys. What was made stands; whoever
    uses it next decides knowing this. Of an input that was found wrong the row is of the kind `observation`.

    Returns rows of `record`, `kind`, `of`, `of_kind`, `at` and `compromised_since` (0 where it is not said).
    """
    body: Any = intent.body
    wanted: list[bytes | None] = [body.credential, *(record.authority for record in (intent, *signed))]
    under = {r.id: r for i in wanted if i is not None and (r := holdings.get(i)) is not None}
    under |= credentials_above(list(under.values()), holdings.get)
    rows: list[Json] = []
    for target in (under[i] for i in sorted(under)):
        for said in holdings.adverse_about({target.id}):
            if takes_back(said, target, under, None):
                row = {"record": said.id.hex(), "kind": said.header.kind, "of": target.id.hex()}
                since = getattr(said.body, "compromised_since", 0)
                more = {"of_kind": target.header.kind, "at": said.header.at, "compromised_since": since}
                rows.append(row | more)
    made = next((each for each in signed if isinstance(each.body, Actuation)), None)
    found = weighed(holdings, made) if made is not None and holdings.adverse_about({made.id}) else None
    for i in found.ids if found is not None and made is not None and made.id in found.marked else ():
        spoken = holdings.get(i)
        if spoken is not None and made is not None and is_mark(spoken, made):
            row = {
                "record": i.hex(),
                "kind": "observation",
                "of": str(spoken.body.parameters.get("input", "")),
            }
            rows.append(row | {"of_kind": "actuation", "at": spoken.header.at, "compromised_since": 0})
    return rows[:MARKS_MAX]


def _against(core: Core, target: AnyRecord) -> list[AnyRecord]:
    links = credentials_above([target], core.holdings.get)
    now = core.clock.now()
    said = core.holdings.adverse_about({target.id})
    return [record for record in said if takes_back(record, target, links, now)]


def _row(core: Core, record: AnyRecord) -> Json:
    reach = reach_of(core.holdings, record.id, core.clock.now())
    targets = [(subject, core.holdings.get(subject)) for subject in record.header.subject]
    return {
        "record": record.id.hex(),
        "kind": record.header.kind,
        "member": record.member,
        "at": record.header.at,
        "reason": plain(record.body).get("reason", ""),
        "until": record.body.until if isinstance(record.body, Suspension) else None,
        "takes_back": [_target(core, record, subject, target) for subject, target in targets],
        "acknowledged": list(reach.acknowledged),
        "missing": list(reach.missing),
        "quorum": reach.quorum,
        "effective": reach.effective,
    }


def _target(core: Core, record: AnyRecord, subject: bytes, target: AnyRecord | None) -> Json:
    """One record that is named: what it is, and whether it may be taken back so."""
    if target is None:
        return {"record": subject.hex(), "kind": "", "subject": "", "counts": False}
    links = credentials_above([target], core.holdings.get)
    return {
        "record": subject.hex(),
        "kind": target.header.kind,
        "subject": str(getattr(target.body, "subject", getattr(target.body, "node", ""))),
        "counts": takes_back(record, target, links, core.clock.now()),
    }
