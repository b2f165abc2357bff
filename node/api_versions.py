"""Routes for what is said of versions: what checks found, verifications, and what was said of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Response

from comity.node import verifications
from comity.node.forms import (
    CheckAnswer,
    CheckForm,
    VerificationAnswer,
    VerificationForm,
    WithdrawalAnswer,
    WithdrawalForm,
)
from comity.node.problems import Refused
from comity.node.service import Service
from comity.protocol.identifiers import DIGEST_BYTES


def _answer(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def add_checks(router: APIRouter, service: Service) -> None:
    """Add what a code location says of versions to the bridge's routes."""

    @router.post("/checks", response_model=CheckAnswer, summary="Say what a check found in a version")
    async def check(form: CheckForm) -> Response:
        return _answer(await service.call(partial(verifications.checked, service.core, form)))


def add_said(
    router: APIRouter, service: Service, brought: Callable[[Service, str, str | None], Awaitable[bytes]]
) -> None:
    """Add what was said of a version to the reader's routes."""

    @router.get(
        "/verifications/{name:path}",
        response_model=dict[str, Any],
        summary="What was said for and against a version",
    )
    async def said(name: str, partition: str | None = None) -> Response:
        target = await brought(service, name, partition)
        return _answer(await service.call(partial(verifications.said_of, service.core, target)))


def add_verifications(router: APIRouter, service: Service) -> None:
    """Add what an operator says of versions to the operator's routes."""

    @router.post(
        "/verifications",
        response_model=VerificationAnswer,
        summary="Say in this organization's name what was found in a version",
    )
    async def verify(form: VerificationForm) -> Response:
        return _answer(await service.call(partial(verifications.verify_version, service.core, form)))

    @router.post(
        "/verifications/withdrawals",
        response_model=WithdrawalAnswer,
        summary="Take back what this node said of a version",
    )
    async def withdraw(form: WithdrawalForm) -> Response:
        try:
            record = bytes.fromhex(form.record)
        except ValueError:
            record = b""
        if len(record) != DIGEST_BYTES:
            raise Refused("form_invalid", f"record: an id is {2 * DIGEST_BYTES} hex digits", 422)
        return _answer(await service.call(partial(verifications.withdraw, service.core, record)))
