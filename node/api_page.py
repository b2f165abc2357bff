"""`POST /v1/page-links`: a link that lets one browser onto the people's page, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from comity.node.page_sessions import CODE_S, PageRole


@dataclass(frozen=True, slots=True)
class PageLink:
    """A link with a login code in its fragment, which no server is ever sent.

    Attributes:
        role: what the browser may do: that of the token that was shown.
        seconds: how long the link works, until it was used once.
    """

    link: str
    role: PageRole
    seconds: int


def page_routes(
    link: Callable[[PageRole], str], who: Any, problems: dict[int | str, dict[str, Any]]
) -> APIRouter:
    """The route on the local API.

    Args:
        link: makes one.
        who: the dependency that says which roles may.
        problems: how refusals are documented.
    """
    router = APIRouter(prefix="/v1", dependencies=[who], responses=problems, tags=["reader"])

    @router.post(
        "/page-links", response_model=PageLink, summary="A link to the people's page, for one browser, once"
    )
    async def page_link(request: Request) -> Response:
        role: PageRole = "operator" if request.scope["state"]["role"] == "operator" else "reader"
        made = PageLink(link(role), role, int(CODE_S))
        return Response(msgspec.json.encode(made), media_type="application/json")

    return router
