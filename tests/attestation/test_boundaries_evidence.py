"""The edges of evidence and weight: what a measurement and a word must be to lend anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from altered import bodied, headed
from asked import Asked
from comity.attestation.authoring import NO_SALT
from comity.attestation.evidence import AFFIRMING, NONE, UNRECOGNISED, Appraisal, appraise, binding_of
from comity.attestation.weighting import CONTINUITY, OBSERVATION_WEIGHT_MAX, TIER_WEIGHTS, combine
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Attestation
from comity.protocol.governance import ReferenceValues
from comity.protocol.identifiers import sha256
from comity.protocol.verified import VerifiedRecord
from world import CONTEXT, FOUR, INSTITUTE, NORTH, SOUTH, START, World

OTHER = sha256(b"another")
HOUR = 3_600


def published(asked: Asked, by: str = NORTH, **changes: Any) -> SignedRecord:
    body = ReferenceValues(
        salt=NO_SALT,
        distributions=(sha256(b"older"), CONTEXT.distributions),
        code=(CONTEXT.code, sha256(b"newer")),
    )
    author = changes.pop("author", asked.world[by].owner)
    record: SignedRecord = author.write(
        "reference_values", msgspec.structs.replace(body, **changes), START - HOUR
    )
    return record


def appraised(asked: Asked, *records: SignedRecord) -> tuple[Appraisal, str | None]:
    relied = {record.id: asked.verified(record) for record in records}
    found, problem = appraise(asked.intent, relied, asked.institute.holdings.epoch, START)
    return found, problem.cause.code if problem is not None else None


def test_where_nobody_publishes_a_measurement_is_tier_one() -> None:
    asked = Asked()
    evidence = asked.institute.evidence(asked.intent.record)
    assert appraised(asked) == (Appraisal(tier=0), None)
    assert appraised(asked, evidence) == (Appraisal(tier=1, executables=NONE), None)
    assert (NONE, AFFIRMING, UNRECOGNISED) == (0, 2, 33), "the values of AR4SI"
    assert appraised(asked)[0].executables == 0


@pytest.mark.parametrize("kind", ["tpm2", "snp", "tdx"])
def test_evidence_that_is_not_appraised_lends_nothing(kind: str) -> None:
    asked = Asked()
    assert appraised(asked, attested(asked, type=kind)) == (Appraisal(tier=0), None)
    assert appraised(asked, attested(asked, type=kind), attested(asked)) == (Appraisal(tier=1), None)


def test_what_a_publisher_signed_besides_recognises_nothing() -> None:
    asked = Asked(world=World(publishers=(NORTH,)))
    others = (asked.world[NORTH].certificate, asked.world[NORTH].credential("operator/a"))
    found, problem = appraised(asked, asked.institute.evidence(asked.intent.record), *others)
    assert (found.tier, problem) == (0, None)


@pytest.mark.parametrize(
    ("changes", "recognised"),
    [
        ({}, True),
        ({"not_after": START + 1}, True),
        ({"not_after": START}, False),
        ({"distributions": (sha256(b"older"),)}, False),
        ({"code": ()}, False),
        ({"by": SOUTH}, False),
    ],
)
def test_a_measurement_is_recognised_by_what_a_publisher_says(
    changes: dict[str, Any], *, recognised: bool
) -> None:
    asked = Asked(world=World(publishers=(NORTH,)))
    evidence = asked.institute.evidence(asked.intent.record)
    found, problem = appraised(asked, evidence, published(asked, **changes))
    assert problem is None
    assert found == (Appraisal(1, AFFIRMING) if recognised else Appraisal(0, UNRECOGNISED))


def test_of_several_attestations_the_one_with_the_highest_tier_counts() -> None:
    """Whichever comes first by its id."""
    asked = Asked(world=World(publishers=(NORTH,)))
    values = published(asked)
    known = attested(asked)
    for files in range(2, 10):
        context = msgspec.structs.replace(CONTEXT, code=sha256(b"%d" % files), code_files=files)
        binding = binding_of(asked.intent.id, asked.institute.node.signer.key_id, b"", context, ())
        other = attested(asked, context=context, binding=binding)
        assert appraised(asked, other, values) == (Appraisal(0, UNRECOGNISED), None)
        assert appraised(asked, other, known, values) == (Appraisal(1, AFFIRMING), None)


def test_reference_values_of_a_former_key_recognise_nothing() -> None:
    asked = Asked(world=World(publishers=(NORTH,)))
    records = (asked.institute.evidence(asked.intent.record), published(asked))
    relied = {record.id: asked.verified(record) for record in records}
    relied[records[1].id] = headed(relied[records[1].id], key=OTHER)
    found, _ = appraise(asked.intent, relied, asked.institute.holdings.epoch, START)
    assert found.tier == 0


def attested(asked: Asked, **changes: Any) -> SignedRecord:
    binding = binding_of(asked.intent.id, asked.institute.node.signer.key_id, b"", CONTEXT, ())
    body = Attestation(
        salt=NO_SALT, type="software", intent=asked.intent.id, context=CONTEXT, binding=binding
    )
    author = changes.pop("author", asked.institute.node)
    record: SignedRecord = author.write("attestation", msgspec.structs.replace(body, **changes), START)
    return record


def test_evidence_that_is_bound_to_something_else_was_spliced_in() -> None:
    asked = Asked()
    certificate = asked.institute.certify("n2")
    asked.verified(certificate)
    second = asked.institute.node_author("n2", certificate)
    for spliced in (
        attested(asked, intent=OTHER),
        attested(asked, author=second),
        attested(asked, binding=OTHER),
        attested(asked, challenges=(OTHER,)),
        attested(asked, context_key=b"k"),
        attested(asked, context=msgspec.structs.replace(CONTEXT, code_files=2)),
    ):
        assert appraised(asked, spliced) == (Appraisal(tier=0), "evidence_spliced")
        assert appraised(asked, spliced, attested(asked)) == (Appraisal(tier=0), "evidence_spliced")


# Weight


def test_weights_combine_by_the_numbers() -> None:
    assert (CONTINUITY, TIER_WEIGHTS, OBSERVATION_WEIGHT_MAX) == (
        100_000,
        (0, 100_000, 300_000, 500_000),
        250_000,
    )
    assert combine([]) == 0
    assert combine([600_000]) == 600_000
    assert combine([1_000_000, 5]) == 1_000_000
    assert combine([600_000, 100_000]) == combine([100_000, 600_000]) == 640_000
    assert combine([3, 3]) == 6
    assert combine([333_333, 333_333, 333_333]) == 703_704


def test_a_credential_lends_the_weight_of_its_heaviest_class() -> None:
    asked = Asked()
    classes = ("agent", "data-protection-officer", "data-steward")
    record = asked.institute.credential("automation/x", kind="automation", held_by="node/n1", classes=classes)
    asked.verified(record)
    heavy = Asked(world=asked.world, who="automation/x")
    assert heavy.working().supports == (("authority_class", "data-protection-officer", 800_000),)


@pytest.mark.parametrize(
    ("who", "relied", "continues"),
    [("automation/x", True, True), ("automation/x", False, False), ("automation/y", True, False)],
)
def test_a_credential_continues_an_earlier_one_of_its_subject(
    who: str, *, relied: bool, continues: bool
) -> None:
    world = World()
    institute = world[INSTITUTE]
    subject = f"spiffe://{INSTITUTE}/automation/x"
    fields: dict[str, Any] = {"kind": "automation", "held_by": "node/n1"}
    body = Asked(world=world).verified(institute.credential("automation/x", **fields)).body
    before = msgspec.structs.replace(
        body, salt=NO_SALT, subject=f"spiffe://{INSTITUTE}/{who}", not_after=START - 1
    )
    earlier = institute.owner.write("credential", before, START - HOUR, name="earlier")
    institute.credential("automation/x", previous=earlier.id, **fields)
    world.tell(earlier, institute.credentials["automation/x"][1])
    asked = Asked(world=world, who="automation/x")
    if relied:
        asked.relied.append(earlier)
    named = [support for support in asked.working().supports if support[0] == "continuity"]
    assert named == ([("continuity", subject, CONTINUITY)] if continues else [])


def test_what_is_no_credential_is_continued_by_nobody() -> None:
    world = World()
    institute = world[INSTITUTE]
    institute.credential(
        "automation/x", kind="automation", held_by="node/n1", previous=institute.certificate.id
    )
    world.tell(institute.credentials["automation/x"][1])
    asked = Asked(world=world, who="automation/x")
    asked.relied.append(institute.certificate)
    assert [support[0] for support in asked.working().supports] == ["authority_class"]


def test_the_tier_lends_weight_and_supports_are_in_order() -> None:
    asked = Asked()
    asked.relied.append(asked.institute.evidence(asked.intent.record))
    for name in (SOUTH, NORTH):
        asked.relied.append(asked.world[name].observe(asked.intent.id, "passed", weight=1_000))
    working = asked.working()
    assert working.supports == (
        ("authority_class", "data-steward", 600_000),
        ("observation", NORTH, 1_000),
        ("observation", SOUTH, 1_000),
        ("tier", "1", 100_000),
    )
    assert working.judgement.weight == combine([600_000, 1_000, 1_000, 100_000])
    assert (working.tier, working.freshness) == (1, "none")


def observed(asked: Asked, *records: SignedRecord) -> list[tuple[str, str, int]]:
    asked.relied += records
    return [support for support in asked.working().supports if support[0] == "observation"]


@pytest.mark.parametrize("name", FOUR)
def test_only_others_corroborate(name: str) -> None:
    asked = Asked()
    said = asked.world[name].observe(asked.intent.id, "passed", weight=9)
    assert observed(asked, said) == ([] if name == INSTITUTE else [("observation", name, 9)])


def test_an_observation_corroborates_what_it_names_and_at_most_so_much() -> None:
    asked = Asked()
    north, south = asked.world[NORTH], asked.world[SOUTH]
    assert (
        observed(
            asked,
            north.observe(OTHER, "passed", weight=1_000),
            north.observe(asked.intent.id, "observed", weight=2_000),
            north.evidence(asked.intent.record),
        )
        == []
    )
    asked = Asked()
    assert observed(asked, south.observe(asked.intent.id, "passed", weight=0)) == [("observation", SOUTH, 0)]
    asked = Asked()
    assert observed(
        asked,
        south.observe(asked.intent.id, "passed", claim="one", weight=3_000),
        south.observe(asked.intent.id, "passed", claim="two", weight=4_000),
        south.observe(asked.intent.id, "passed", claim="three", weight=2_000),
        north.observe(asked.intent.id, "passed", weight=OBSERVATION_WEIGHT_MAX + 1),
    ) == [("observation", NORTH, OBSERVATION_WEIGHT_MAX), ("observation", SOUTH, 4_000)]


@pytest.mark.parametrize(
    ("alter", "counts"),
    [
        (lambda r: r, True),
        (lambda r: replace(r, root_key=OTHER), False),
        (lambda r: replace(r, valid_until=START), False),
        (lambda r: replace(r, valid_until=START + 1), True),
        (lambda r: replace(r, valid_from=START + 1), False),
        (lambda r: bodied(r, not_after=START + 1), True),
        (lambda r: bodied(r, not_after=START), False),
    ],
)
def test_a_word_counts_while_its_author_and_it_are_in_force(
    alter: Callable[[VerifiedRecord[Any]], VerifiedRecord[Any]], *, counts: bool
) -> None:
    asked = Asked()
    record = asked.verified(asked.world[NORTH].observe(asked.intent.id, "passed", weight=9))
    relied = {**asked.case().relied, record.id: alter(record)}
    assert ("observation" in {support[0] for support in asked.working(relied=relied).supports}) == counts
