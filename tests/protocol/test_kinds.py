"""The table of kinds: complete, unambiguous, and the same in code and specification."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from comity.protocol.kinds import KINDS, Kind
from comity.protocol.records import BODIES

SPECIFICATION = Path(__file__).parents[2] / "docs" / "spec" / "kinds.md"

EVERY_KIND = (
    # governance
    "epoch proposal prepare commit node_certificate address taxonomy policy owner_policy credential revocation "
    "suspension acknowledgement comment reference_values endorsement "
    # execution
    "intent observation launch_ticket attestation appraisal challenge ask vote permit refusal start actuation "
    "verification transition share_release "
    # accountability
    "checkpoint cosignature misbehaviour erased"
)


def test_every_kind_of_record_is_there() -> None:
    assert list(KINDS) == EVERY_KIND.split()


def test_numbers_are_unique_and_ascend() -> None:
    numbers = [kind.number for kind in KINDS.values()]
    assert numbers == sorted(set(numbers))
    assert all(0 < number < 96 for number in numbers)


def test_a_name_finds_its_own_row() -> None:
    assert all(KINDS[name].name == name for name in KINDS)


def test_every_kind_of_the_table_has_a_form_of_its_own() -> None:
    assert list(BODIES) == list(KINDS)
    assert len(set(BODIES.values())) == len(KINDS)


def test_the_table_cannot_be_written() -> None:
    with pytest.raises(TypeError):
        KINDS["decree"] = KINDS["vote"]  # type: ignore[index]


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_polarity_log_and_erasure_fit_together(kind: Kind) -> None:
    assert bool(kind.outcomes) == (kind.polarity == "by_outcome")
    assert bool(kind.adverse_outcomes) == (kind.polarity == "by_outcome")
    assert kind.adverse_outcomes < kind.outcomes or not kind.outcomes
    # What a state rests on is never erased, and what everybody needs is in the governance log.
    assert kind.erasable == (kind.log == "execution")
    for outcome in (*kind.outcomes, None):
        if kind.is_adverse(outcome):
            assert kind.log_of(outcome) == "governance"
        else:
            assert kind.log_of(outcome) == kind.log


def test_what_is_adverse() -> None:
    adverse = {
        (kind.name, o) for kind in KINDS.values() for o in (*kind.outcomes, None) if kind.is_adverse(o)
    }
    assert {name for name, outcome in adverse if outcome is None} == {
        "revocation",
        "suspension",
        "misbehaviour",
    }
    assert {(name, outcome) for name, outcome in adverse if outcome is not None} == {
        ("observation", "failed"),
        ("observation", "disputed"),
        ("observation", "withdrawn"),
        ("appraisal", "warning"),
        ("appraisal", "contraindicated"),
        ("actuation", "rolled_back"),
        ("actuation", "quarantined"),
        ("verification", "failed"),
    }


def row(kind: Kind) -> tuple[str, ...]:
    """A kind as the specification writes it: adverse outcomes are marked with a dagger."""
    outcomes = [
        f"`{name}`†" if name in kind.adverse_outcomes else f"`{name}`" for name in sorted(kind.outcomes)
    ]
    return (
        str(kind.number),
        f"`{kind.name}`",
        kind.log,
        kind.polarity.replace("_", " "),
        kind.signer,
        "yes" if kind.erasable else "no",
        ", ".join(outcomes),
        f"`{BODIES[kind.name].__name__}`",
    )


def test_the_specification_has_the_same_table() -> None:
    text = SPECIFICATION.read_text(encoding="utf-8")
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in text.splitlines()
        if re.match(r"\| *\d+ *\|", line)
    ]
    assert rows == [row(kind) for kind in KINDS.values()]
