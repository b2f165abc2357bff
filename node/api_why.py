"""Routes for whoever asks why: what stands behind a run, an asset or an id, and what owners have consented to."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Response

from comity.node.owner_words import owner_policies
from comity.node.service import Service
from comity.node.why import why
from comity.protocol.identifiers import DIGEST_BYTES

FETCH_S: Final = 20.0
"""How long an answer may wait for a record that other members hold."""


def add_routes(router: APIRouter, service: Service) -> None:
    """Add them to the reader's routes."""
    core = service.core

    @router.get(
        "/why/{name:path}", summary="The intents behind a run, an asset or an id, with what was decided"
    )
    async def because(name: str) -> Response:
        named = _whole_id(name)
        if named is not None:
            store = core.store
            await service.bring(lambda: () if store.holds([named]) else (named,), FETCH_S)
        return _answer(await service.call(partial(why, core, name)))

    @router.get("/owner-policies", summary="How owners consent to the use of their data")
    async def consents() -> Response:
        return _answer(await service.call(partial(owner_policies, core)))


def _whole_id(name: str) -> bytes | None:
    """The record that a name is the whole id of: it may be held by another member."""
    try:
        found = bytes.fromhex(name)
    except ValueError:
        return None
    return found if len(found) == DIGEST_BYTES else None


def _answer(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
