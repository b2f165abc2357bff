"""The people's page: its routes, its files, and the port of the loopback where a browser finds it.

Routes only: what they show are views of the core, what they take are records that a person has signed with an own key.
The page's session signs nothing, and a role grants no authority over what is decided.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import structlog
import trio
from fastapi import APIRouter, FastAPI, Query, Request, Response

from comity.node import page_views, views
from comity.node.api import HANDLERS, id_of, json_answer
from comity.node.api_metrics import listen_on_loopback
from comity.node.attendance import Seen
from comity.node.entitlements import approvals_by, held_by
from comity.node.page_access import LOGIN, PageDoor
from comity.node.page_events import EventStream
from comity.node.page_sessions import PageRole, Session, Sessions
from comity.node.problems import Refused
from comity.node.service import Service
from comity.node.socket_server import serve
from comity.node.submissions import submit_record
from comity.node.watch import Watch
from comity.protocol.envelope import SignedRecord, decode_record
from comity.protocol.errors import DecodeError

CONNECTIONS_MAX: Final = 128
"""Browsers keep up to six each: one for the stream of every tab that is looked at, and some to ask."""
FETCH_S: Final = 10.0
"""How long an intent that somebody asks for may wait for its record, where another member holds it."""
TAKEN: Final = frozenset({"observation", "revocation"})
"""What the page hands in: an approval, and taking it back. Everything else is a command's."""
_FOLDER: Final = Path(__file__).parent / "page_files"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

PublicKeyText: TypeAlias = Annotated[str, Query(alias="key", max_length=64)]

log = structlog.get_logger("comity.node.page")


@dataclass(frozen=True, slots=True)
class CodeForm:
    """A login code."""

    code: str


@dataclass(frozen=True, slots=True)
class SignedForm:
    """A record that a person signed in the browser, in base64."""

    record: str


@dataclass
class Page:
    """The page of one node.

    Attributes:
        address: where it is, once it is served.
    """

    service: Service
    watch: Watch
    listens: Callable[[], tuple[str, ...]]
    seen: Callable[[], Mapping[str, Seen]]
    count: Callable[[str, int], None]
    sessions: Sessions = field(default_factory=lambda: Sessions(trio.current_time))
    address: str = ""

    def link(self, role: PageRole) -> str:
        """A link that lets one browser in, once.

        Raises:
            Refused: `page_off`.
        """
        if not self.address:
            raise Refused(
                "page_off",
                "this node serves no page",
                409,
                'set listen = "127.0.0.1:8410" under [page] in node.toml, and start the node again',
            )
        return f"{self.address}#code={self.sessions.code(role)}"

    async def serve(self, where: str, *, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        """Serve the page on a loopback port until cancelled. Says where it listens.

        Raises:
            ConfigError: the port is taken.
        """
        with listen_on_loopback(where, "page.listen") as listener:
            bound: tuple[str, int] = listener.getsockname()[:2]
            host = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            door = PageDoor(self._application(), self.sessions, bound[1], self.count)
            self.address = f"http://{host}:{bound[1]}/"
            task_status.started(bound)
            try:
                await serve(door, listener, connections_max=CONNECTIONS_MAX)
            finally:
                self.address = ""

    def _application(self) -> FastAPI:
        app = FastAPI(title="Comity page", docs_url=None, redoc_url=None, openapi_url=None)
        app.include_router(_entrance(self.sessions))
        app.include_router(_shown(self))
        app.include_router(_people(self.service, self.watch, self.sessions))
        app.include_router(_files())
        for kind, handler in HANDLERS.items():
            app.add_exception_handler(kind, handler)
        return app


def _session(request: Request) -> Session:
    session = request.scope["state"]["session"]
    if not isinstance(session, Session):
        raise Refused("session_ended", "there is no session, or it has ended", 401)
    return session


def _entrance(sessions: Sessions) -> APIRouter:
    """Coming and going."""
    router = APIRouter()

    @router.post(LOGIN)
    async def enter(form: CodeForm, request: Request) -> Response:
        session = sessions.enter(form.code)
        if session is None:
            raise Refused(
                "login_wrong",
                "this link was used already, or is too old",
                403,
                "`comity page` prints a new one",
            )
        log.info("page_entered", role=session.role)
        door: PageDoor = request.scope["state"]["door"]
        answer = json_answer({"key": session.key, "role": session.role})
        answer.headers["set-cookie"] = door.set_cookie(session)
        return answer

    @router.post("/api/logout")
    async def leave(request: Request) -> Response:
        sessions.leave(_session(request))
        door: PageDoor = request.scope["state"]["door"]
        answer = json_answer({})
        answer.headers["set-cookie"] = door.drop_cookie()
        return answer

    return router


def _shown(page: Page) -> APIRouter:
    """What is looked at."""
    router = APIRouter(prefix="/api")
    service, core = page.service, page.service.core

    @router.get("/people")
    async def people(request: Request) -> Response:
        role = _session(request).role
        connected, seen = service.connected(), page.seen()
        shown = await service.call(partial(views.status, core, connected, page.listens(), seen))
        return json_answer(shown | {"role": role})

    @router.get("/waiting")
    async def waiting(public: PublicKeyText = "") -> Response:
        return json_answer(await service.call(partial(page_views.waiting, core, public)))

    @router.get("/decided")
    async def decided() -> Response:
        return json_answer(await service.call(partial(page_views.decided, core)))

    @router.get("/why")
    async def why(name: Annotated[str, Query(max_length=1_024)]) -> Response:
        await service.bring(partial(page_views.votes_missing, core, name), FETCH_S)
        return json_answer(await service.call(partial(page_views.told, core, name)))

    @router.get("/intents/{intent}")
    async def intent(intent: str, public: PublicKeyText = "") -> Response:
        wanted = id_of(intent)
        await service.bring(lambda: () if core.store.holds([wanted]) else (wanted,), FETCH_S)
        return json_answer(await service.call(partial(page_views.intent, core, wanted, public)))

    return router


def _people(service: Service, watch: Watch, sessions: Sessions) -> APIRouter:
    """What concerns one person: the credentials and approvals of a key, what it signs, and what is new."""
    router = APIRouter(prefix="/api")
    core = service.core

    @router.get("/key")
    async def key(public: PublicKeyText) -> Response:
        def shown() -> Any:
            return {
                "credentials": held_by(core, public),
                "approvals": approvals_by(core, public),
                "member": core.identity.member,
                "coalition": core.coalition.hex(),
                "now": core.clock.now(),
            }

        return json_answer(await service.call(shown))

    @router.post("/records")
    async def submit(form: SignedForm, request: Request) -> Response:
        if _session(request).role != "operator":
            raise Refused(
                "role_forbidden",
                "this session only looks",
                403,
                "`comity page` without --look-only prints a link that also hands in what you sign",
            )
        record = _record_of(form)
        return json_answer(await service.call(partial(submit_record, core, record.encoded())))

    @router.get("/events")
    async def events(request: Request) -> Response:
        session = _session(request)
        watch.require_place()
        return EventStream(watch, partial(sessions.left, session))

    return router


def _record_of(form: SignedForm) -> SignedRecord:
    try:
        record = decode_record(base64.b64decode(form.record, validate=True))
    except (binascii.Error, ValueError, DecodeError) as exc:
        raise Refused("record_unreadable", f"not a record: {exc}", 422) from exc
    if record.header.kind not in TAKEN:
        raise Refused("kind_not_taken", f"the page takes no record of kind {record.header.kind}", 422)
    return record


def _files() -> APIRouter:
    """The page's own files, read once. They hold no secret and need no session."""
    router = APIRouter()
    files = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}

    @router.get("/")
    async def index() -> Response:
        return Response(files["index.html"], media_type=_TYPES[".html"])

    @router.get("/files/{name}")
    async def file(name: str) -> Response:
        data = files.get(name)
        if data is None:
            raise Refused("not_found", "there is no such file", 404)
        return Response(data, media_type=_TYPES[Path(name).suffix])

    return router
