"""`GET /metrics`: on the local API for whoever may read, and on a loopback port where the settings name one.

On the port nobody shows a token, so everybody on this machine may read it; what is there names members and counts,
and no record, asset or person.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Final

import trio
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from comity.node.address import host_and_port
from comity.node.api_access import Message, Receive, Scope, Send, answer
from comity.node.forms import Problem
from comity.node.metrics_facts import Facts
from comity.node.socket_server import serve
from comity.protocol.errors import ConfigError

PATH: Final = "/metrics"
QUEUE_MAX: Final = 16
"""Scrapers that may wait to be accepted."""
CONNECTIONS_MAX: Final = 16
"""A few scrapers, each with a connection or two."""


def metrics_routes(facts: Facts, who: Any, problems: dict[int | str, dict[str, Any]]) -> APIRouter:
    """The route on the local API.

    Args:
        who: the dependency that says which roles may.
        problems: how refusals are documented.
    """
    router = APIRouter(dependencies=[who], responses=problems, tags=["reader"])

    @router.get(
        PATH,
        summary="What the node counts and times, for Prometheus",
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(await facts.text(), media_type=CONTENT_TYPE_LATEST)

    return router


class MetricsPort:
    """An application that answers `GET /metrics` and nothing else."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        if scope["type"] != "http":
            return
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        if not is_loopback_host(host):
            # A page in a browser may have its own name resolved to this machine; its Host says so.
            await answer(send, 403, Problem("host_wrong", "ask for it by a loopback address"))
        elif scope["path"] != PATH:
            await answer(send, 404, Problem("not_found", f"metrics are at {PATH}"))
        elif scope["method"] not in ("GET", "HEAD"):
            await answer(send, 405, Problem("method_not_allowed", "metrics are only read"))
        else:
            body = await self._facts.text()
            headers = [
                (b"content-type", CONTENT_TYPE_LATEST.encode()),
                (b"content-length", str(len(body)).encode()),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            message: Message = {"type": "http.response.body", "body": body}
            await send(message if scope["method"] == "GET" else {**message, "body": b""})


def is_loopback_host(host: str) -> bool:
    """Whether a Host header names this machine by a loopback address, or by `localhost`."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def listen_on_loopback(where: str, setting: str) -> socket.socket:
    """A socket that listens at a `host:port` of the settings.

    Args:
        setting: its name there, for the message.

    Raises:
        ConfigError: the port is taken.
    """
    host, port = host_and_port(where)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(QUEUE_MAX)
        listener.setblocking(False)
    except OSError as exc:
        listener.close()
        raise ConfigError(f"{setting}: {where} cannot be listened on: {exc.strerror or exc}") from exc
    return listener


async def serve_metrics(facts: Facts, where: str, *, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
    """Serve the metrics on a loopback port until cancelled. Says where it listens.

    Raises:
        ConfigError: the port is taken.
    """
    with listen_on_loopback(where, "metrics_listen") as listener:
        bound: tuple[str, int] = listener.getsockname()[:2]
        task_status.started(bound)
        await serve(MetricsPort(facts), listener, connections_max=CONNECTIONS_MAX)
