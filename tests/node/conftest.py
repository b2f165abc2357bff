"""What tests of nodes may ask for."""

from __future__ import annotations

import pytest

import nodes


@pytest.fixture(params=[True, False], ids=["gossip", "no-gossip"])
def gossip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The nodes of `nodes.running` gossip, and then the same test again without."""
    monkeypatch.setattr(nodes, "GOSSIP", request.param)
    return bool(request.param)
