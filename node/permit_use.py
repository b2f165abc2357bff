"""Whether a permit still carries, by what has come since it was decided.

Spec: docs/spec/decision.md section 7.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from comity.attestation.adverse import weigh_adverse
from comity.attestation.case import Case
from comity.attestation.holdings import Holdings
from comity.attestation.tally import doubtful_voters
from comity.attestation.voter import build_case
from comity.node.problems import Refused
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]


def doubtful(holdings: Holdings, permit: AnyRecord) -> tuple[str, ...]:
    """Members shown to have cast two votes without whom a permit has no quorum: nothing is started under it."""
    epoch = holdings.epochs.get(permit.body.epoch)
    votes = [vote for i in permit.body.votes if (vote := holdings.get(i)) is not None]
    return doubtful_voters(votes, epoch, holdings.discounted(epoch.id)) if epoch is not None else ()


def is_spoken_against(holdings: Holdings, intent: AnyRecord, permit: AnyRecord) -> bool:
    """Whether something is held against a permit's ask that its voters did not know, and that changes anything.

    Another record that says what one of those says which they knew changes nothing: else whoever says a thing again
    takes away what was permitted in spite of it.

    Raises:
        Refused: `not_permitted`, `governance_missing`: it cannot be found out.
    """
    ask = holdings.get(permit.body.ask)
    if ask is None:
        raise Refused("not_permitted", "the permit's ask is gone")
    governance = holdings.governance()
    if governance is None:
        raise Refused("governance_missing", "taxonomy or policies of the epoch have not arrived yet", 503)
    relied = {i: r for i in ask.body.relied if (r := holdings.get(i)) is not None}
    case = build_case(governance, holdings, intent, ask, relied)
    votes = (vote for i in permit.body.votes if (vote := holdings.get(i)) is not None)
    known = {i for vote in votes for i in vote.body.adverse}
    now = _effects(case, case.candidates)
    return now != _effects(case, tuple(record for record in case.candidates if record.id in known))


def _effects(case: Case, candidates: tuple[AnyRecord, ...]) -> tuple[object, ...]:
    """What the candidates do to the records relied on, whoever says it."""
    found = weigh_adverse(candidates, case.intent, case.ask, case.relied, case.known, case.speakers())
    against = {
        (subject, finding.mode, finding.cause.code)
        for subject, findings in found.against.items()
        for finding in findings
    }
    # Two of which only one may stand strike each other; what became of the one that was not relied on is no matter.
    rivals = {record.id for record in candidates} - case.relied.keys()
    return against, found.struck.keys() - rivals, frozenset(found.added), found.overflows, found.marked
