"""Evidential weighting: integers in parts per million, deterministic, explained.

Independent supports combine as a noisy-or: w = 1 - (1-a)(1-b)..., floored at each step over a sorted list, so
that every peer reaches the same integer. An intent weighs what its authority class weighs; continuity of the
credential, attested context and corroborating observations add to it.

Spec: docs/spec/weighting.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from comity.attestation.credentials import Chain
from comity.protocol.encoding import Form
from comity.protocol.execution import Observation
from comity.protocol.governance import Credential, Taxonomy
from comity.protocol.identifiers import Code, Natural, ShortText
from comity.protocol.verified import VerifiedRecord

ONE: Final = 1_000_000

CONTINUITY: Final = 100_000
"""For a credential that continues an earlier one of the same subject, relied on beside it."""
TIER_WEIGHTS: Final = (0, 100_000, 300_000, 500_000)
"""For the trust tier of the context: measured software adds little, a hardware root more."""
OBSERVATION_WEIGHT_MAX: Final = 250_000
"""One observation adds at most this, whatever it says of itself: corroboration needs several voices."""


class Support(Form, frozen=True, order=True):
    """One thing that lends weight: what it is, from whom, and how much."""

    code: Code
    source: ShortText
    weight: Natural


def combine(weights: list[int]) -> int:
    """1 - prod(1 - w) over the ascending list, floored at each step."""
    doubt = ONE
    for weight in sorted(weights):
        doubt = doubt * (ONE - weight) // ONE
    return ONE - doubt


def weigh(
    chain: Chain,
    taxonomy: Taxonomy,
    tier: int,
    relied: Mapping[bytes, VerifiedRecord[Any]],
    heard: Mapping[bytes, VerifiedRecord[Any]],
    subjects: frozenset[bytes],
) -> tuple[int, tuple[Support, ...]]:
    """The weight of an intent and its working.

    Args:
        heard: those of the records relied on whose word counts: by other members, under keys in force at t.
        subjects: the ids that an observation may corroborate: the intent and its inputs.
    """
    supports: list[Support] = []
    published = {entry.name: entry.weight for entry in taxonomy.classes}
    name = max(chain.classes, key=lambda c: (published.get(c, 0), c))
    supports.append(Support(code="authority_class", source=name, weight=published.get(name, 0)))
    previous = chain.own.previous
    earlier = relied.get(previous) if previous is not None else None
    if earlier is not None and isinstance(earlier.body, Credential) and earlier.body.subject == chain.subject:
        supports.append(Support(code="continuity", source=chain.subject, weight=CONTINUITY))
    if tier:
        supports.append(Support(code="tier", source=str(tier), weight=TIER_WEIGHTS[tier]))
    for author, weight in _corroborations(heard, subjects).items():
        supports.append(Support(code="observation", source=author, weight=weight))
    supports.sort()
    return combine([support.weight for support in supports]), tuple(supports)


def _corroborations(heard: Mapping[bytes, VerifiedRecord[Any]], subjects: frozenset[bytes]) -> dict[str, int]:
    """The strongest passed observation of each organization: one voice each, however often it speaks."""
    strongest: dict[str, int] = {}
    for record in heard.values():
        body = record.body
        if not isinstance(body, Observation) or record.header.outcome != "passed":
            continue
        if not subjects & set(record.header.subject):
            continue
        weight = min(body.weight, OBSERVATION_WEIGHT_MAX)
        strongest[record.member] = max(strongest.get(record.member, 0), weight)
    return dict(sorted(strongest.items()))
