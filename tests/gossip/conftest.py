"""Every road, for the tests of the port."""

from __future__ import annotations

import pytest
import trio

from roads import Road


@pytest.fixture(params=["memory", "noise", "tls"])
def road(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Road:
    return Road(request.param, nursery)


@pytest.fixture
def noise(nursery: trio.Nursery) -> Road:
    return Road("noise", nursery)
