"""Who is let onto the people's page, and what is refused there before anything is looked at."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from playwright.sync_api import Page

from api_calls import submit
from browser import Browsers, browsers
from comity.node.config import read_config
from comity.node.home import Home
from comity.node.page_access import BODY_BYTES_MAX
from comity.node.page_sessions import (
    CODE_S,
    CODES_MAX,
    SESSION_S,
    SESSIONS_MAX,
    STREAMS_MAX,
    PageRole,
    Sessions,
)
from comity.node.problems import Refused
from comity.node.watch import Watch
from comity.protocol.errors import ConfigError
from command_line import comity
from houses import RunningHouse, found, inhabited, short_folder, street
from page_visits import enter, pair, pooled, with_page
from world import NORTH, SOUTH


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


# Sessions


@dataclass
class Times:
    now: float = 1_000.0
    drawn: int = 0

    def clock(self) -> float:
        return self.now

    def draw(self) -> str:
        self.drawn += 1
        return f"secret {self.drawn}"


def sessions() -> tuple[Sessions, Times]:
    times = Times()
    return Sessions(times.clock, times.draw), times


def test_a_code_lets_in_once_and_not_for_long() -> None:
    held, times = sessions()
    code = held.code("operator")
    assert held.enter("secret 7") is None
    session = held.enter(code)
    assert session is not None
    assert session.role == "operator"
    assert held.enter(code) is None
    late = held.code("reader")
    times.now += CODE_S
    assert held.enter(late) is None


def test_a_session_needs_both_secrets_and_ends() -> None:
    held, times = sessions()
    session = held.enter(held.code("reader"))
    assert session is not None
    assert held.find(session.cookie, session.key) is session
    assert held.find(session.cookie, "") is None
    assert held.find(session.cookie, session.cookie) is None
    assert held.find(session.key, session.key) is None
    times.now += SESSION_S - 1
    assert held.left(session) == 1.0
    times.now += 1
    assert held.find(session.cookie, session.key) is None
    assert held.left(session) == 0.0


def test_codes_and_sessions_are_bounded() -> None:
    held, _ = sessions()
    codes = [held.code("reader") for _ in range(CODES_MAX + 1)]
    assert held.enter(codes[0]) is None
    assert held.enter(codes[1]) is not None
    opened: list[Any] = [held.enter(held.code("reader")) for _ in range(SESSIONS_MAX + 1)]
    assert held.left(opened[0]) == 0.0
    assert held.left(opened[1]) > 0
    held.leave(opened[1])
    assert held.find(opened[1].cookie, opened[1].key) is None


def test_streams_are_bounded() -> None:
    watch = Watch(None)  # type: ignore[arg-type]  # nothing is looked at here
    held = [watch.watching() for _ in range(STREAMS_MAX)]
    for each in held:
        watch.require_place()
        each.__enter__()
    with pytest.raises(Refused, match="pages are open"):
        watch.require_place()
    held[0].__exit__(None, None, None)
    watch.require_place()


# What is asked of the port


@dataclass
class Visitor:
    """A program that speaks HTTP with the page's port, and sets whatever headers it likes."""

    port: int
    cookie: str = ""
    key: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def ask(self, method: str, path: str, body: Any = None, **changes: str | None) -> tuple[int, Any, Any]:
        own = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie, "X-Comity-Page-Key": self.key}
        if method != "GET":
            own |= {"Origin": f"http://127.0.0.1:{self.port}", "Content-Type": "application/json"}
        named = {name.replace("_", "-"): value for name, value in changes.items()}
        sent = {name: value for name, value in {**own, **self.headers, **named}.items() if value}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            data = (
                body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
            )
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        known = json.loads(said) if answer.headers["content-type"] == "application/json" else said
        return answer.status, known, answer.headers


async def visit(house: RunningHouse, role: PageRole = "operator") -> Visitor:
    """Come in."""
    link = str((await house.ask(lambda client: client.page_link(), role))["link"])
    address, _, code = link.partition("#code=")
    visitor = Visitor(int(address.rsplit(":", 1)[1].rstrip("/")))
    status, said, headers = await off(lambda: visitor.ask("POST", "/api/login", {"code": code}))
    assert status == 200, said
    visitor.cookie = headers["set-cookie"].partition(";")[0]
    visitor.key = said["key"]
    return visitor


async def off(work: Any) -> Any:
    return await trio.to_thread.run_sync(work)


async def test_what_is_not_from_here_is_refused(place: Path) -> None:
    """DNS rebinding, another origin, another port of this machine, a page that embeds ours: each by its sign."""
    async with pair(place) as houses:
        visitor = await visit(houses[SOUTH])
        port = visitor.port
        form = {"record": ""}
        cases: list[tuple[str, str, dict[str, str | None], int, str]] = [
            ("GET", "/api/people", {}, 200, ""),
            ("GET", "/api/people", {"Host": f"localhost:{port}"}, 200, ""),
            ("GET", "/api/people", {"Host": f"evil.example:{port}"}, 403, "host_wrong"),
            ("GET", "/", {"Host": "evil.example"}, 403, "host_wrong"),
            ("GET", "/api/people", {"Origin": "http://evil.example"}, 403, "origin_wrong"),
            ("GET", "/api/people", {"Origin": "null"}, 403, "origin_wrong"),
            ("GET", "/api/people", {"Origin": f"http://127.0.0.1:{port + 1}"}, 403, "origin_wrong"),
            ("GET", "/api/people", {"Sec_Fetch_Site": "cross-site"}, 403, "origin_wrong"),
            ("GET", "/api/people", {"Sec_Fetch_Site": "same-site"}, 403, "origin_wrong"),
            (
                "GET",
                "/api/people",
                {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate"},
                403,
                "origin_wrong",
            ),
            ("GET", "/", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}, 200, ""),
            ("GET", "/files/app.js", {"Sec_Fetch_Site": "cross-site"}, 403, "origin_wrong"),
            ("POST", "/api/records", {"Origin": None}, 403, "origin_wrong"),
            ("POST", "/api/records", {"Origin": "http://evil.example"}, 403, "origin_wrong"),
            ("POST", "/api/records", {}, 422, "record_unreadable"),
            ("POST", "/api/login", {"Origin": "http://evil.example"}, 403, "origin_wrong"),
        ]
        for method, path, changes, status, code in cases:
            body = form if method == "POST" else None
            said = await off(lambda m=method, p=path, b=body, c=changes: visitor.ask(m, p, b, **c))
            assert said[0] == status, (method, path, changes, said[1])
            assert not code or said[1]["code"] == code, (path, changes)


async def test_without_a_session_nothing_is_shown(place: Path) -> None:
    async with pair(place) as houses:
        visitor = await visit(houses[SOUTH])
        for path in (
            "/api/people",
            "/api/waiting",
            "/api/decided",
            "/api/why?name=x",
            f"/api/intents/{'0' * 64}",
            f"/api/key?key={'0' * 64}",
            "/api/events",
            "/api/nothing",
        ):
            for changes in ({"Cookie": None}, {"X_Comity_Page_Key": None}, {"X_Comity_Page_Key": "x"}):
                said = await off(lambda p=path, c=changes: visitor.ask("GET", p, **c))
                assert (said[0], said[1]["code"]) == (401, "session_ended"), path
        said = await off(lambda: visitor.ask("POST", "/api/records", {"record": ""}, Cookie=None))
        assert said[0] == 401
        said = await off(lambda: visitor.ask("POST", "/api/login", {"code": "guessed"}))
        assert (said[0], said[1]["code"]) == (403, "login_wrong")
        # The tokens of the local API open nothing here, and the page's document is nowhere.
        token = houses[SOUTH].home.token("operator").read_text().strip()
        stranger = Visitor(visitor.port, headers={"Authorization": f"Bearer {token}"})
        assert (await off(lambda: stranger.ask("GET", "/api/people")))[0] == 401
        for path in ("/openapi.json", "/docs", "/files/../page.py", "/files/page.py", "/v1/status"):
            assert (await off(lambda p=path: visitor.ask("GET", p)))[0] == 404, path
        assert (await off(lambda: visitor.ask("POST", "/api/logout", {})))[0] == 200
        assert (await off(lambda: visitor.ask("GET", "/api/people")))[0] == 401


async def test_every_answer_tells_the_browser_what_it_may_do(place: Path) -> None:
    async with pair(place) as houses:
        link = str((await houses[SOUTH].ask(lambda client: client.page_link(), "operator"))["link"])
        address, _, code = link.partition("#code=")
        visitor = Visitor(int(address.rsplit(":", 1)[1].rstrip("/")))
        _, _, headers = await off(lambda: visitor.ask("POST", "/api/login", {"code": code}))
        name, _, rest = headers["set-cookie"].partition("=")
        assert name == f"comity_page_{visitor.port}"
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(rest.split("; "))
        for path, status in (("/", 200), ("/files/app.js", 200), ("/api/people", 401), ("/nothing", 404)):
            answered, _, headers = await off(lambda p=path: visitor.ask("GET", p))
            assert answered == status
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "require-trusted-types-for 'script'" in policy
            assert "unsafe" not in policy
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"


async def test_requests_are_bounded(place: Path) -> None:
    async with pair(place) as houses:
        visitor = await visit(houses[SOUTH])
        long = {"record": "A" * BODY_BYTES_MAX}
        said = await off(lambda: visitor.ask("POST", "/api/records", long))
        assert (said[0], said[1]["code"]) == (413, "body_too_large")
        for path in ("/api/intents/zz", "/api/key?key=zz", f"/api/why?name={'x' * 2_000}", "/api/why"):
            assert (await off(lambda p=path: visitor.ask("GET", p)))[0] == 422, path
        for body in (b"\xff", b"[]", b'{"record": 3}', b""):
            said = await off(lambda b=body: visitor.ask("POST", "/api/records", b))
            assert said[0] == 422, body


async def test_only_what_a_person_signs_is_taken(place: Path) -> None:
    async with pair(place) as houses:
        visitor = await visit(houses[SOUTH])
        genesis = await houses[SOUTH].ask(
            lambda client: client.record(client.coalition()["epoch_id"]), "reader"
        )
        said = await off(lambda: visitor.ask("POST", "/api/records", {"record": genesis["record"]}))
        assert (said[0], said[1]["code"]) == (422, "kind_not_taken")
        reader = await visit(houses[SOUTH], "reader")
        said = await off(lambda: reader.ask("POST", "/api/records", {"record": genesis["record"]}))
        assert (said[0], said[1]["code"]) == (403, "role_forbidden")
        # A record whose signature is not that of its key is refused as everywhere.
        asked = await submit(houses[NORTH], pooled(inputs=[], purpose="care"))
        intent = await houses[SOUTH].ask(lambda client: client.record(asked.intent), "reader")
        broken = base64.b64encode(base64.b64decode(intent["record"])[:-1]).decode()
        said = await off(lambda: visitor.ask("POST", "/api/records", {"record": broken}))
        assert (said[0], said[1]["code"]) == (422, "record_unreadable")


# Settings and the command


async def test_the_command_prints_a_link_for_who_may(place: Path) -> None:
    homes = found(place, (NORTH,))
    with_page(homes[NORTH])
    async with inhabited(homes) as houses:
        home = houses[NORTH].home.path
        said = await off(lambda: comity("page", "--home", home))
        assert "http://127.0.0.1:" in said.output
        assert "#code=" in said.output
        assert "hands in what is signed there" in said.output
        made = (await off(lambda: comity("page", "--look-only", "--json", "--home", home))).json
        assert (made["role"], made["seconds"]) == ("reader", 120)


async def test_a_node_without_a_page_says_how_to_have_one(place: Path) -> None:
    async with inhabited(found(place, (NORTH,))) as houses:
        said = await off(lambda: comity("page", "--home", houses[NORTH].home.path, status=None))
        assert said.status == 1
        assert "serves no page" in said.errors
        assert "[page]" in said.errors


def test_the_page_listens_on_the_loopback_alone(place: Path) -> None:
    home: Home = found(place, (NORTH,))[NORTH]
    text = home.config.read_text()
    assert '# listen = "127.0.0.1:8410"' in text
    home.config.write_text(text.replace('# listen = "127.0.0.1:8410"', 'listen = "0.0.0.0:8410"'))
    with pytest.raises(ConfigError, match=r"page\.listen: .*127\.0\.0\.1:PORT"):
        read_config(home.config)


async def test_a_port_that_is_taken_ends_the_node_with_a_sentence(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with_page(home, f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.RaisesGroup(pytest.RaisesExc(ConfigError, match="page.listen"), flatten_subgroups=True):
            async with street() as here:
                await here.start(home)


# Another page, in a real browser


EMBEDS = """async (address) => {
  const outcomes = {};
  for (const [name, options] of Object.entries({
    read: { credentials: "include", mode: "cors" },
    unseen: { credentials: "include", mode: "no-cors" },
    write: { credentials: "include", mode: "no-cors", method: "POST", body: '{"record":""}' },
  })) {
    const path = name === "write" ? "api/records" : "api/people";
    outcomes[name] = await fetch(address + path, options).then((answer) => answer.type, (error) => error.name);
  }
  const frame = document.createElement("iframe");
  frame.src = address;
  const loaded = new Promise((done) => { frame.onload = done; });
  document.body.append(frame);
  await loaded;
  return outcomes;
}"""


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
async def test_a_page_of_another_origin_gets_nothing(place: Path) -> None:
    """Another program of this machine serves a page to the same browser, which sends our cookie along."""
    with browsers() as started:
        await _from_elsewhere(started, place)


async def _from_elsewhere(started: Browsers, place: Path) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title><body>")

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            del code, size

    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with started.screen() as screen:
            async with pair(place) as houses:
                address = await enter(screen, houses[SOUTH])

                def visit_it(page: Page) -> Any:
                    page.goto(f"http://127.0.0.1:{server.server_port}/")
                    outcomes = page.evaluate(EMBEDS, address)
                    return outcomes, page.frames[1].url

                outcomes, framed = await screen.do(visit_it)
                assert outcomes == dict.fromkeys(("read", "unseen", "write"), "TypeError")
                assert framed.startswith("chrome-error:")
                # They came, with the cookie, and were refused before anything was looked at.
                text = await houses[SOUTH].ask(
                    lambda client: client._exchange("GET", "/metrics", None), "reader"
                )
                assert 'comity_api_requests_total{role="page",status="403"} 3.0' in text.decode()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
