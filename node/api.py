"""The local API: what programs beside a node ask it for, over HTTP on a Unix socket.

Routes only: what they do is done by functions of the core, in the worker's thread, through the service. Errors
become a `Problem` with a stable code in one place. Roles: `bridge` for the code location, `reader` for whoever
looks, `operator` to hand in signed records; a role grants no authority over what is decided.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
import structlog
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from comity import __version__
from comity.node import (
    ancestry,
    api_launches,
    api_steps,
    api_versions,
    api_why,
    owner_words,
    revocations,
    views,
    work,
    workings,
)
from comity.node.api_access import Doorkeeper
from comity.node.api_metrics import metrics_routes
from comity.node.api_page import page_routes
from comity.node.attendance import Seen
from comity.node.config import Config
from comity.node.explanations import explain_step, perhaps_read
from comity.node.forms import (
    ActuationAnswer,
    ActuationForm,
    DiscardAnswer,
    DiscardForm,
    ExplainAnswer,
    PartnerAsset,
    Problem,
    ReadAnswer,
    ReadForm,
    StartAnswer,
    StartForm,
    StepAnswer,
    StepForm,
)
from comity.node.metrics_facts import Facts
from comity.node.page_sessions import PageRole
from comity.node.problems import Refused
from comity.node.service import Service
from comity.node.submissions import submit_record
from comity.protocol.errors import ComityError, DecodeError, TransportError, VerificationError
from comity.protocol.identifiers import DIGEST_BYTES

T = TypeVar("T")
RecordId: TypeAlias = Annotated[
    str, Path(json_schema_extra={"pattern": f"^[0-9A-Fa-f]{{{2 * DIGEST_BYTES}}}$"})
]
"""Said in the document and checked by `id_of`, whose sentence says more than a pattern does."""
Shown: TypeAlias = dict[str, Any]
Listed: TypeAlias = list[dict[str, Any]]
Handler: TypeAlias = Callable[[Request, Exception], Awaitable[Response]]

FETCH_S: Final = 20.0
"""How long a bundle or a lineage may wait for records that other members hold."""

log = structlog.get_logger("comity.node.api")


@dataclass(frozen=True, slots=True)
class RecordForm:
    """A signed record, in base64."""

    record: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the API needs beside the service.

    Attributes:
        addresses: node name to addresses, as far as they are known here.
        listens: where this node listens for peers.
        seen: node name to whether it is connected, and since when.
        facts: the metrics.
        page_link: a link to the people's page, by which one browser is let in, once.
    """

    config: Config
    tokens: Mapping[str, bytes]
    addresses: Callable[[], dict[str, tuple[str, ...]]]
    listens: Callable[[], tuple[str, ...]]
    seen: Callable[[], Mapping[str, Seen]]
    facts: Facts
    page_link: Callable[[PageRole], str]


def create_app(service: Service, surroundings: Surroundings) -> Doorkeeper:
    """The application, behind its doorkeeper."""
    app = FastAPI(
        title="Comity node",
        version=__version__,
        description=__doc__ or "",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(_bridge(service, surroundings))
    app.include_router(_reader(service, surroundings))
    app.include_router(_operator(service))
    app.include_router(page_routes(surroundings.page_link, only("reader", "operator"), _PROBLEMS))
    app.include_router(metrics_routes(surroundings.facts, only("reader", "operator"), _PROBLEMS))
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return Doorkeeper(app, surroundings.tokens, surroundings.facts.count_request)


def only(*roles: str) -> Any:
    """A dependency of routes: who else comes is refused with `role_forbidden`."""

    def check(request: Request) -> None:
        role = request.scope["state"]["role"]
        if role not in roles:
            raise Refused("role_forbidden", f"this is for {' and '.join(roles)}, not for {role}", 403)

    return Depends(check)


def json_answer(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def id_of(text: str) -> bytes:
    """A record id in a path.

    Raises:
        Refused: it is none.
    """
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != DIGEST_BYTES:
        raise Refused("form_invalid", f"an id is {2 * DIGEST_BYTES} hex digits", 422)
    return value


_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Problem} for status in (401, 403, 404, 409, 413, 422, 500, 503)
}


def _bridge(service: Service, surroundings: Surroundings) -> APIRouter:
    """What a code location asks for."""
    router = APIRouter(prefix="/v1", dependencies=[only("bridge")], responses=_PROBLEMS, tags=["bridge"])
    core, config = service.core, surroundings.config

    @router.post("/steps", response_model=StepAnswer, summary="Submit a step's intent, or find it again")
    async def submit(form: StepForm) -> Response:
        return json_answer(await api_steps.submit(service, config, form))

    @router.get("/steps/{intent}", response_model=StepAnswer, summary="Where an intent stands")
    async def step(intent: RecordId, wait_s: Annotated[float, Query(ge=0, le=600)] = 0.0) -> Response:
        return json_answer(await api_steps.wait(service, id_of(intent), min(wait_s, config.wait_max_s)))

    @router.post("/reads", response_model=ReadAnswer, summary="Whether an input's bytes may be used")
    async def read(form: ReadForm) -> Response:
        return json_answer(await api_steps.read(service, form))

    api_launches.add_routes(router, service, config)
    api_versions.add_checks(router, service)

    @router.post("/starts", response_model=StartAnswer, summary="Begin the work on one output")
    async def start(form: StartForm) -> Response:
        return json_answer(await service.call(partial(work.start, core, form)))

    @router.post("/actuations", response_model=ActuationAnswer, summary="Say what was made")
    async def actuate(form: ActuationForm) -> Response:
        return json_answer(await service.call(partial(work.actuate, core, form)))

    @router.post("/discards", response_model=DiscardAnswer, summary="Say what was staged and is not promoted")
    async def discard(form: DiscardForm) -> Response:
        return json_answer(await service.call(partial(work.discard, core, form)))

    @router.post("/explanations", response_model=ExplainAnswer, summary="What would be decided; a dry run")
    async def explain(form: StepForm, tier: Annotated[int | None, Query(ge=0, le=3)] = None) -> Response:
        await api_steps.prepare(service, perhaps_read(form))
        reachable = service.connected() | {core.identity.member}

        def explained() -> ExplainAnswer:
            return explain_step(core, form, api_steps.defaults_of(core, config), reachable, tier)

        return json_answer(await service.call(explained))

    @router.get("/partner-assets", response_model=list[PartnerAsset], summary="What partners publish")
    async def partner_assets() -> Response:
        await api_steps.look_around(service)
        return json_answer(await service.call(partial(views.partner_assets, core)))

    return router


def _reader(service: Service, surroundings: Surroundings) -> APIRouter:
    """What may be looked at."""
    router = APIRouter(
        prefix="/v1", dependencies=[only("reader", "operator")], responses=_PROBLEMS, tags=["reader"]
    )
    core = service.core

    async def shown(function: Callable[[], object]) -> Response:
        return json_answer(await service.call(function))

    @router.get("/status", response_model=Shown, summary="How the node is, and whom it reaches")
    async def status() -> Response:
        connected, seen = service.connected(), surroundings.seen()
        return await shown(partial(views.status, core, connected, surroundings.listens(), seen))

    @router.get("/coalition", response_model=Shown, summary="Who belongs, and by which rules")
    async def coalition() -> Response:
        return await shown(partial(views.coalition, core, surroundings.addresses()))

    @router.get("/credentials", response_model=Listed, summary="The credentials that are held")
    async def credentials() -> Response:
        return await shown(partial(views.credentials, core))

    @router.get(
        "/revocations",
        response_model=Listed,
        summary="What was taken back, and how many members have acknowledged it",
    )
    async def taken_back() -> Response:
        return await shown(partial(revocations.revocations, core))

    @router.get("/intents", response_model=Listed, summary="The newest intents")
    async def intents() -> Response:
        return await shown(partial(views.intents, core))

    @router.get("/intents/{intent}", response_model=Shown, summary="One intent, with votes, causes and needs")
    async def intent(intent: RecordId) -> Response:
        return await shown(partial(views.intent, core, await _held(service, id_of(intent))))

    @router.get("/decisions", response_model=Listed, summary="The newest permits and refusals")
    async def decisions() -> Response:
        return await shown(partial(views.decisions, core))

    @router.get("/decisions/{decision}", response_model=Shown, summary="One decision, or that of an intent")
    async def decision(decision: RecordId) -> Response:
        return await shown(partial(views.decision, core, id_of(decision)))

    @router.get(
        "/workings/{named}",
        response_model=Shown,
        summary="How the votes of a decision or an intent, or one vote, came about",
    )
    async def workings_of(named: RecordId) -> Response:
        return json_answer(await _workings(service, id_of(named)))

    @router.get("/waiting", response_model=Listed, summary="What waits, for what, and what to do")
    async def waiting() -> Response:
        return await shown(partial(views.waiting, core))

    @router.get("/records/{record}", response_model=Shown, summary="One record, decoded")
    async def record(record: RecordId) -> Response:
        return await shown(partial(views.record, core, await _held(service, id_of(record))))

    _lineage_routes(router, service)
    api_why.add_routes(router, service)
    return router


def _lineage_routes(router: APIRouter, service: Service) -> None:
    """What may be looked at of what was made, and the proof of it."""
    core = service.core

    async def shown(function: Callable[[], object]) -> Response:
        return json_answer(await service.call(function))

    @router.get("/transitions", response_model=Listed, summary="The explicit steps of owners that are held")
    async def transitions() -> Response:
        return await shown(partial(owner_words.transitions, core))

    @router.get("/ids/{beginning}", response_model=Listed, summary="The records whose id begins so")
    async def ids(beginning: str) -> Response:
        return await shown(partial(ancestry.ids_from, core, beginning))

    @router.get(
        "/lineage/{name:path}",
        response_model=Shown,
        summary="The chain of actuations behind an asset or a record",
    )
    async def lineage(name: str, partition: str | None = None) -> Response:
        slots = await service.call(partial(ancestry.slots_of, core, name)) if partition is None else []
        if len(slots) > 1:
            return await shown(partial(ancestry.partitions, core, slots))
        target = await _brought(service, name, partition)
        return await shown(partial(ancestry.lineage, core, target))

    @router.get(
        "/bundles/{name:path}",
        summary="A bundle that a stranger verifies",
        response_class=Response,
        responses={200: {"content": {"application/vnd.comity.bundle.v1+msgpack": {}}}},
    )
    async def bundle(name: str, partition: str | None = None) -> Response:
        target = await _brought(service, name, partition)
        data = await service.call(partial(ancestry.bundle, core, target))
        return Response(data, media_type="application/vnd.comity.bundle.v1+msgpack")

    api_versions.add_said(router, service, _brought)


async def _held(service: Service, record_id: bytes) -> bytes:
    """The same id, with its record fetched from others where it is not here and they are up."""
    store = service.core.store
    await service.bring(lambda: () if store.holds([record_id]) else (record_id,), FETCH_S)
    return record_id


async def _workings(service: Service, named: bytes) -> object:
    """The workings of votes, with what they rest on fetched from others as far as they are up.

    One call for each: whoever asks for a vote meanwhile waits for one judgement, not for all.
    """
    core = service.core
    await service.bring(partial(workings.missing_for, core, named), FETCH_S)
    found = await service.call(partial(workings.round_of, core, named))
    return {
        "intent": found.intent.hex(),
        "decision": found.decision.hex() if found.decision is not None else "",
        "votes_missing": [vote.hex() for vote in found.lost],
        "workings": [await service.call(partial(workings.working_of, core, group)) for group in found.groups],
    }


async def _brought(service: Service, name: str, partition: str | None) -> bytes:
    """The record that a name stands for, with what it depends on fetched from others as far as they are up."""
    core = service.core
    target = await service.call(partial(ancestry.target_of, core, name, partition))
    await service.bring(partial(ancestry.missing_ancestors, core, target), FETCH_S)
    return target


def _operator(service: Service) -> APIRouter:
    """What an operator hands in."""
    router = APIRouter(prefix="/v1", dependencies=[only("operator")], responses=_PROBLEMS, tags=["operator"])

    @router.post(
        "/records",
        response_model=Shown,
        summary="Hand in a signed record: an approval, a credential, a revocation, ...",
    )
    async def submit(form: RecordForm) -> Response:
        try:
            data = base64.b64decode(form.record, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise Refused("form_invalid", "record: not base64", 422) from exc
        return json_answer(await service.call(partial(submit_record, service.core, data)))

    api_versions.add_verifications(router, service)
    return router


# Errors


def _problem(status: int, problem: Problem) -> Response:
    return Response(msgspec.json.encode(problem), status_code=status, media_type="application/json")


async def _on_refused(_: Request, exc: Exception) -> Response:
    if not isinstance(exc, Refused):
        raise exc
    return _problem(exc.status, Problem(exc.code, exc.message, exc.hint))


async def _on_form(_: Request, exc: Exception) -> Response:
    if not isinstance(exc, RequestValidationError):
        raise exc
    said = [f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in exc.errors()[:8]]
    return _problem(422, Problem("form_invalid", "; ".join(said)[:1_000]))


async def _on_http(_: Request, exc: Exception) -> Response:
    if not isinstance(exc, HTTPException):
        raise exc
    if exc.status_code == HTTPStatus.BAD_REQUEST:
        # A body that is no text: to whoever sent it the same as one that is no JSON.
        return _problem(422, Problem("form_invalid", str(exc.detail)))
    code = HTTPStatus(exc.status_code).name.lower()
    return _problem(exc.status_code, Problem(code, str(exc.detail)))


async def _on_error(request: Request, exc: Exception) -> Response:
    """Errors that are ours: what was sent is wrong, the road is down, or the node failed."""
    if isinstance(exc, DecodeError | VerificationError):
        return _problem(422, Problem("form_invalid", str(exc)))
    if isinstance(exc, TransportError):
        return _problem(503, Problem("no_quorum", str(exc)))
    log.error("request_failed", path=request.url.path, error=type(exc).__name__, detail=str(exc))
    return _problem(500, Problem("node_fault", "the node failed at this request", "its log says why"))


async def _on_fault(request: Request, exc: Exception) -> Response:
    """A defect here. The error goes on to the server's log after this answer."""
    log.error("request_failed", path=request.url.path, error=type(exc).__name__, detail=str(exc))
    return _problem(500, Problem("node_fault", "the node failed at this request", "its log says why"))


HANDLERS: Final[Mapping[type[Exception], Handler]] = {
    Refused: _on_refused,
    RequestValidationError: _on_form,
    HTTPException: _on_http,
    ComityError: _on_error,
    Exception: _on_fault,
}
