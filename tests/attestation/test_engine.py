"""The engine id: what this engine makes of the conformance vectors, held to the byte."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from comity.attestation import judgement as judgement_module
from comity.attestation.engine import engine_id, results_digest, vectors, vectors_digest
from conformance import build

GOLDEN = Path(__file__).resolve().parents[1] / "vectors" / "engine.json"


def test_vectors_are_those_that_the_builder_makes() -> None:
    assert build().encoded() == vectors()


def test_engine_id_is_held() -> None:
    """Another id is another engine: members must agree on it in an epoch before it may judge."""
    golden = json.loads(GOLDEN.read_text())
    assert {"vectors": vectors_digest().hex(), "engine": engine_id().hex()} == golden


def test_an_engine_that_judges_otherwise_has_another_id(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = engine_id()
    original = judgement_module._state
    monkeypatch.setattr(
        judgement_module,
        "_state",
        lambda *given: msgspec.structs.replace(original(*given), owners=("nobody.example",)),
    )
    assert results_digest(vectors()) != honest


def test_an_engine_whose_votes_end_otherwise_has_another_id(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = engine_id()
    original = judgement_module._expires
    monkeypatch.setattr(judgement_module, "_expires", lambda *given: original(*given) - 1)
    assert results_digest(vectors()) != honest
