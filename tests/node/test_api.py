"""The local API over a real Unix socket, by the real server: tokens, roles, bounds and problems."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio

from api_calls import CODE, solo, step, submit
from comity.node.api_access import (
    BODY_BYTES_MAX,
    DRAINED_BYTES_MAX,
    Doorkeeper,
    Message,
    Receive,
    Scope,
    Send,
)
from comity.node.client import (
    ActuationForm,
    CheckForm,
    DiscardForm,
    LaunchedStep,
    LaunchForm,
    NodeClient,
    OutputForm,
    ReadForm,
    RoleForbiddenError,
    StandingsForm,
    StartForm,
    StepForm,
    TermForm,
    TokenWrongError,
    VerificationForm,
    WithdrawalForm,
)
from comity.node.home import Home
from comity.node.log_lines import configure_log
from houses import short_folder


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def raw(home: Home, request: bytes) -> tuple[int, dict[str, Any]]:
    """Send bytes to the socket, and read the status and the problem that come back."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(home.socket))
        with contextlib.suppress(BrokenPipeError):
            # It may be answered before it was read to its end.
            connection.sendall(request)
        data = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    # Metrics are no JSON.
    return int(head.split()[1]), json.loads(body) if b"application/json" in head else {}


def request(method: str, path: str, token: str = "", body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: node", "Connection: close", *headers]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def token_of(home: Home, role: str) -> str:
    return home.token(role).read_text().strip()


# Tokens, roles, bounds

BRIDGE = [
    ("POST", "/v1/steps"),
    ("GET", f"/v1/steps/{'0' * 64}"),
    ("POST", "/v1/reads"),
    ("POST", "/v1/discards"),
    ("POST", "/v1/checks"),
    ("POST", "/v1/launches"),
    ("POST", "/v1/launches/standings"),
    ("POST", "/v1/starts"),
    ("POST", "/v1/actuations"),
    ("POST", "/v1/explanations"),
    ("GET", "/v1/partner-assets"),
]
READER = [
    ("GET", path)
    for path in (
        "/metrics",
        "/v1/status",
        "/v1/coalition",
        "/v1/credentials",
        "/v1/intents",
        f"/v1/intents/{'0' * 64}",
        "/v1/decisions",
        f"/v1/decisions/{'0' * 64}",
        f"/v1/workings/{'0' * 64}",
        "/v1/waiting",
        f"/v1/records/{'0' * 64}",
        f"/v1/ids/{'0' * 6}",
        "/v1/transitions",
        "/v1/revocations",
        "/v1/owner-policies",
        "/v1/why/x",
        "/v1/lineage/x",
        "/v1/bundles/x",
        "/v1/verifications/x",
    )
]
READER.append(("POST", "/v1/page-links"))
OPERATOR = [("POST", f"/v1/{name}") for name in ("records", "verifications", "verifications/withdrawals")]
FORMS = {
    "/v1/steps": step("patients"),
    "/v1/explanations": step("patients"),
    "/v1/reads": ReadForm("", "patients", CODE, 1),
    "/v1/starts": StartForm(CODE, "patients"),
    "/v1/discards": DiscardForm(CODE, CODE, "patients", CODE, 1, "text/csv", [TermForm("x")]),
    "/v1/launches": LaunchForm(
        "dagster", "run-1", "study", CODE, [LaunchedStep("x", [OutputForm("patients")])]
    ),
    "/v1/launches/standings": StandingsForm(["run-1"]),
    "/v1/actuations": ActuationForm(CODE, CODE, "patients", CODE, 1, "text/csv"),
    "/v1/records": {"record": ""},
    "/v1/checks": CheckForm("patients", CODE, "rows_there", passed=True),
    "/v1/verifications": VerificationForm("patients", "failed"),
    "/v1/verifications/withdrawals": WithdrawalForm(CODE),
    "/v1/page-links": {},
}


async def test_every_route_has_its_roles_and_no_others(place: Path) -> None:
    allowed = {
        **dict.fromkeys(BRIDGE, ("bridge",)),
        **dict.fromkeys(READER, ("reader", "operator")),
        **dict.fromkeys(OPERATOR, ("operator",)),
    }
    async with solo(place) as house:
        for (method, path), roles in allowed.items():
            body = msgspec.json.encode(FORMS[path]) if method == "POST" else b""
            for role in ("bridge", "operator", "reader"):
                sent = request(
                    method, path, token_of(house.home, role), body, "Content-Type: application/json"
                )
                status, problem = await trio.to_thread.run_sync(raw, house.home, sent)
                assert (status == 403) == (role not in roles), (method, path, role, problem)
                assert role in roles or problem["code"] == "role_forbidden"


async def test_who_has_no_token_learns_nothing(place: Path) -> None:
    async with solo(place) as house:
        for path in ("/v1/status", "/openapi.json", "/v1/nothing", "/"):
            for token in ("", "x" * 43, token_of(house.home, "reader")[:-1]):
                status, problem = await trio.to_thread.run_sync(raw, house.home, request("GET", path, token))
                assert (status, problem["code"]) == (401, "token_wrong")


async def test_a_token_is_sent_as_a_bearer_token(place: Path) -> None:
    async with solo(place) as house:
        token = token_of(house.home, "reader")
        for scheme, status in (("Bearer ", 200), ("Basic ", 401), ("", 401)):
            sent = request("GET", "/v1/status", "", b"", f"Authorization: {scheme}{token}")
            assert (await trio.to_thread.run_sync(raw, house.home, sent))[0] == status


async def test_the_client_tells_a_wrong_token_from_a_wrong_role(place: Path) -> None:
    async with solo(place) as house:
        stranger = NodeClient(house.home.socket, "x" * 43)
        with pytest.raises(TokenWrongError):
            await trio.to_thread.run_sync(stranger.status)
        with pytest.raises(RoleForbiddenError):
            await house.ask(lambda client: client.status(), "bridge")


async def test_a_token_is_asked_for_before_a_body_is_read(place: Path) -> None:
    async with solo(place) as house:
        sent = request("POST", "/v1/steps", "", b"", f"Content-Length: {10 * BODY_BYTES_MAX}")
        assert (await trio.to_thread.run_sync(raw, house.home, sent))[0] == 401


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_bounded(place: Path, *, chunked: bool) -> None:
    async with solo(place) as house:
        token = token_of(house.home, "bridge")
        if chunked:
            chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
            sent = request("POST", "/v1/steps", token, chunk * 5 + b"0\r\n\r\n", "Transfer-Encoding: chunked")
        else:
            sent = request("POST", "/v1/steps", token, b" " * (BODY_BYTES_MAX + 1))
        status, problem = await trio.to_thread.run_sync(raw, house.home, sent)
        assert (status, problem["code"]) == (413, "body_too_large")


async def test_an_endless_body_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    taken = 0

    async def endless() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": bytes(BODY_BYTES_MAX), "more_body": True}

    async def silent() -> Message:
        await trio.sleep_forever()
        raise AssertionError

    answers: list[Message] = []

    async def send(message: Message) -> None:
        answers.append(message)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("it reached the application")

    keeper = Doorkeeper(application, {"bridge": b"t" * 43})
    headers = [(b"authorization", b"Bearer " + b"t" * 43)]
    scope = {"type": "http", "method": "POST", "path": "/v1/steps", "headers": headers}
    for receive in (endless, silent):
        await keeper(scope, receive, send)
    assert [each["status"] for each in answers if "status" in each] == [413, 413]
    assert taken <= DRAINED_BYTES_MAX // BODY_BYTES_MAX + 1


async def test_errors_are_problems(place: Path) -> None:
    async with solo(place) as house:
        bridge = token_of(house.home, "bridge")
        # What no record can say is no form either.
        measured = {"python": "x", "platform": "y", "distributions": CODE, "code": CODE, "code_files": 1}
        words = {
            "orchestrator": "o",
            "run": "r",
            "step": "s",
            "job": "j",
            "code": CODE,
            "outputs": [{"asset": "plain/a"}],
            "inputs": [],
        }
        context = measured | {"distributions_count": 2**63}
        beyond = json.dumps(words | {"context": context}).encode()
        cases = [
            (request("GET", "/v1/nothing", bridge), 404, "not_found"),
            (request("DELETE", "/v1/steps", bridge), 405, "method_not_allowed"),
            (request("POST", "/v1/steps", bridge, b"{"), 422, "form_invalid"),
            (request("POST", "/v1/steps", bridge, b'{"run": 1}'), 422, "form_invalid"),
            (
                request("POST", "/v1/steps", bridge, beyond, "Content-Type: application/json"),
                422,
                "evidence_unwritable",
            ),
            (request("GET", "/v1/steps/zz", bridge), 422, "form_invalid"),
            (request("GET", f"/v1/steps/{CODE}?wait_s=601", bridge), 422, "form_invalid"),
            (request("GET", f"/v1/steps/{CODE}", bridge), 404, "not_found"),
        ]
        for sent, status, code in cases:
            answered = await trio.to_thread.run_sync(raw, house.home, sent)
            assert (answered[0], answered[1]["code"]) == (status, code), sent[:60]


async def test_the_document_describes_every_route_and_form(place: Path) -> None:
    async with solo(place) as house:
        sent = request("GET", "/openapi.json", token_of(house.home, "reader"))

        def fetch() -> Any:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(house.home.socket))
                connection.sendall(sent)
                data = b"".join(iter(lambda: connection.recv(65_536), b""))
            return json.loads(data.partition(b"\r\n\r\n")[2])

        document = await trio.to_thread.run_sync(fetch)
        routes = {(m.upper(), p) for p, methods in document["paths"].items() for m in methods}
        assert len(routes) == len(BRIDGE) + len(READER) + len(OPERATOR)
        forms = document["components"]["schemas"]
        assert {"StepForm", "StepAnswer", "ReadForm", "ActuationForm", "ExplainAnswer", "Problem"} <= set(
            forms
        )
        assert set(forms["StepForm"]["properties"]) == {f.name for f in dataclasses.fields(StepForm)}


async def test_the_socket_is_the_owners_alone(place: Path) -> None:
    async with solo(place) as house:
        assert stat.S_IMODE(house.home.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(house.home.path.stat().st_mode) == 0o700
        socket_path = house.home.socket
    assert not socket_path.exists()


async def test_the_log_holds_no_token_and_no_body(place: Path) -> None:
    lines = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure_log("debug", lines)
    try:
        async with solo(place) as house:
            home = house.home
            form = step("plain/a", revision="a revision that is nobody's business")
            assert (await submit(house, form)).outcome == "execute"
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        structlog.reset_defaults()
    text = lines.getvalue()
    for line in text.splitlines():
        json.loads(line)
    assert '"path": "/v1/steps"' in text
    secrets = [token_of(home, role) for role in ("bridge", "operator", "reader")]
    assert not [secret for secret in [*secrets, "nobody's business"] if secret in text]
