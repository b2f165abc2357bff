"""What a webhook is told: what waits for people and what came of it, signed, bounded, and never in the node's way."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from api_calls import equip, make, step, submit, submit_record
from comity.node.address import webhook_url
from comity.node.asking import approval
from comity.node.config import read_config, write_config
from comity.node.home import Home
from comity.node.keystore import create_key
from comity.node.notifications import REMEMBERED_MAX, Situation, Teller
from comity.node.run import read_house
from comity.node.webhook import ATTEMPTS_MAX, QUEUE_MAX, Webhook
from comity.protocol.envelope import decode_record
from comity.protocol.errors import ConfigError
from houses import DEADLINE_S, found, hand_of, inhabited, short_folder
from page_visits import CONTEXT, issue, pooled, with_page
from world import NORTH, SOUTH

SECRET = b"s" * 40


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried again at once."""
    monkeypatch.setattr("comity.node.webhook.PAUSE_S_MIN", 0.01)
    monkeypatch.setattr("comity.node.webhook.PAUSE_S_MAX", 0.01)


# What is new between two looks


def row(intent: str, standing: str = "deferred", *needs: str) -> dict[str, Any]:
    return {"intent": intent, "standing": standing, "needs": [{"code": n, "message": n} for n in needs]}


def look(*rows: dict[str, Any], **more: Any) -> Situation:
    return Situation({each["intent"]: each for each in rows}, **more)


def events(teller: Teller, now: Situation) -> list[tuple[str, str]]:
    return [(each.event, each.row["intent"]) for each in teller.news(now)]


def test_what_waits_is_told_once_and_again_when_it_lacks_something_else() -> None:
    teller = Teller()
    assert events(teller, look(row("a", "deferred", "approval"))) == [("waits", "a")]
    assert events(teller, look(row("a", "deferred", "approval"))) == []
    # On its way again it is neither settled nor new.
    assert events(teller, look(asking=frozenset({"a"}))) == []
    assert events(teller, look(row("a", "deferred", "approval"))) == []
    assert events(teller, look(row("a", "deferred", "consent"))) == [("waits", "a")]
    assert events(teller, look(row("a", "held"))) == [("held", "a")]
    settled = look(settled={"a": row("a", "permitted")})
    assert events(teller, settled) == [("decided", "a")]
    assert events(teller, settled) == []


def test_what_is_approved_elsewhere_is_forgotten_without_a_word() -> None:
    teller = Teller()
    events(teller, look(row("a")))
    assert len(teller.told) == 1
    assert events(teller, look()) == []
    assert len(teller.told) == 0


def test_what_was_refused_before_the_node_began_is_not_told() -> None:
    teller = Teller()
    assert events(teller, look(refused={"old": row("old", "refused")})) == []
    both = {"old": row("old", "refused"), "new": row("new", "refused")}
    assert events(teller, look(refused=both)) == [("refused", "new")]
    assert events(teller, look(refused=both)) == []


def test_what_waited_and_was_refused_is_told_as_decided_alone() -> None:
    teller = Teller()
    events(teller, look(row("a")))
    refused = row("a", "refused")
    assert events(teller, look(refused={"a": refused}, settled={"a": refused})) == [("decided", "a")]
    assert events(teller, look(refused={"a": refused})) == []


def test_what_is_remembered_is_bounded() -> None:
    teller = Teller()
    teller.news(look(*(row(str(i)) for i in range(REMEMBERED_MAX + 5))))
    assert len(teller.told) == REMEMBERED_MAX


# A receiver


@dataclass
class Receiver:
    """A program that is told things, and answers with what it is set to: a status, or what a function says."""

    url: str
    told: queue.Queue[tuple[dict[str, str], bytes]] = field(
        default_factory=queue.Queue[tuple[dict[str, str], bytes]]
    )
    statuses: list[int] = field(default_factory=list[int])
    asked: int = 0

    async def next(self) -> Any:
        """What it is told next."""
        return (await self.raw())[1]

    async def raw(self) -> tuple[dict[str, str], Any]:
        headers, body = await trio.to_thread.run_sync(lambda: self.told.get(timeout=DEADLINE_S))
        return headers, json.loads(body)


@contextmanager
def receiver(*statuses: int) -> Generator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = mine.statuses.pop(0) if mine.statuses else 200
            mine.asked += 1
            self.send_response(status)
            if status == 302:
                self.send_header("location", mine.url + "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()
            if status == 200:
                mine.told.put((dict(self.headers.items()), body))

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            del code, size

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mine = Receiver(f"http://127.0.0.1:{server.server_port}", statuses=list(statuses))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield mine
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Counted:
    results: list[str] = field(default_factory=list[str])

    async def until(self, *wanted: str) -> None:
        with trio.fail_after(DEADLINE_S):
            while self.results != list(wanted):
                assert len(self.results) <= len(wanted), self.results
                await trio.lowlevel.checkpoint()


async def told_by(work: Callable[[Webhook], None], url: str, *wanted: str) -> None:
    counted = Counted()
    webhook = Webhook(url, SECRET, counted.results.append)
    work(webhook)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(webhook.deliver)
        await counted.until(*wanted)
        nursery.cancel_scope.cancel()


async def test_what_is_told_is_signed() -> None:
    with receiver() as mine:
        await told_by(lambda webhook: webhook.put({"event": "waits"}), mine.url, "sent")
        headers, body = mine.told.get(timeout=DEADLINE_S)
    at, code = (part.partition("=")[2] for part in headers["Comity-Signature"].split(","))
    expected = hmac.new(SECRET, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert code == expected
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"event": "waits"}


async def test_a_receiver_that_is_down_is_told_later(quick: None) -> None:
    with receiver(503, 429, 500) as mine:
        await told_by(lambda webhook: webhook.put(1), mine.url, "sent")
        assert mine.asked == 4


async def test_who_refuses_is_not_asked_again(quick: None) -> None:
    with receiver(400, 302) as mine:

        def put(webhook: Webhook) -> None:
            for each in range(3):
                webhook.put(each)

        await told_by(put, mine.url, "failed", "failed", "sent")
        assert mine.asked == 3
        assert json.loads(mine.told.get(timeout=DEADLINE_S)[1]) == 2


async def test_nobody_is_tried_for_ever(quick: None) -> None:
    with receiver(*[500] * ATTEMPTS_MAX) as mine:
        await told_by(lambda webhook: webhook.put(1), mine.url, "failed")
        assert mine.asked == ATTEMPTS_MAX


async def test_of_too_much_the_oldest_is_dropped() -> None:
    counted = Counted()
    webhook = Webhook("http://127.0.0.1:9", b"", counted.results.append)
    for each in range(QUEUE_MAX + 2):
        webhook.put(each)
    assert counted.results == ["dropped", "dropped"]
    assert webhook._queue[0] == b"2"


# At a node


def with_webhook(home: Home, url: str) -> None:
    secret = home.path / "webhook.secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    config = read_config(home.config)
    wanted = replace(config, notify_webhook=url, notify_secret_file="webhook.secret")
    write_config(home.config, wanted, replace=True)


@pytest.mark.slow
async def test_people_are_told_what_waits_and_what_came_of_it(place: Path) -> None:
    homes = found(place, (NORTH, SOUTH))
    with receiver() as north_told, receiver() as south_told:
        with_page(homes[SOUTH])
        with_webhook(homes[NORTH], north_told.url)
        with_webhook(homes[SOUTH], south_told.url)
        async with inhabited(homes) as houses:
            north, south = houses[NORTH], houses[SOUTH]
            await equip(north)
            await make(
                north, await submit(north, step("patients", context=CONTEXT, purpose="survival_study")), b"p"
            )
            asked = await submit(north, pooled())
            said = await north_told.next()
            assert (said["event"], said["intent"], said["of"]) == ("waits", asked.intent, NORTH)
            assert [need["code"] for need in said["needs"]] == ["approval"]
            assert said["assets"][0]["asset"] == f"{NORTH}/pooled"
            assert said["page"] == ""
            # The partner whose officer is wanted is told at its own node, with the way to its page.
            headers, at_south = await south_told.raw()
            assert "Comity-Signature" in headers
            assert (at_south["event"], at_south["of"], at_south["member"]) == ("waits", NORTH, SOUTH)
            assert at_south["page"].endswith(f"/#/intent/{asked.intent}")
            create_key(place / "own.pem")
            held_by = await issue(south, place, json.loads((place / "own.pub.json").read_text()))
            holder = hand_of(south.home).holder(place / "own.pem", held_by)
            shown = await south.ask(lambda client: client.record(asked.intent), "reader")
            intent = decode_record(base64.b64decode(shown["record"]))
            await submit_record(south, approval(holder, intent, hours=1))
            said = await north_told.next()
            assert (said["event"], said["intent"], said["standing"]) == ("decided", asked.intent, "permitted")
            second = await submit(north, pooled(run="run-4", inputs=[], purpose="care"))
            said = await north_told.next()
            assert (said["event"], said["intent"]) == ("waits", second.intent)
            refused = await submit(north, step("forbidden/a", run="run-2"))
            said = await north_told.next()
            assert (said["event"], said["intent"]) == ("refused", refused.intent)
            await south.end()
            await north.until(lambda said: said["reachable"] == 1)
            held = await submit(north, step("plain/a", run="run-3", wait_s=0.2))
            said = await north_told.next()
            assert (said["event"], said["intent"]) == ("held", held.intent)
            text = await north.ask(lambda client: client._exchange("GET", "/metrics", None), "reader")
            assert 'comity_notifications_total{result="sent"} 5.0' in text.decode()
        # Begun again, it says again what waits, for nobody knows whether it was told.
        async with inhabited(homes):
            again = [await north_told.next() for _ in range(2)]
            assert {said["intent"] for said in again} == {second.intent, held.intent}
            assert {said["event"] for said in again} <= {"waits", "held"}


async def test_a_receiver_that_hangs_holds_up_nothing(place: Path) -> None:
    homes = found(place, (NORTH,))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with_webhook(homes[NORTH], f"http://127.0.0.1:{silent.getsockname()[1]}/")
        async with inhabited(homes) as houses:
            north = houses[NORTH]
            await equip(north)
            asked = await submit(north, pooled(inputs=[], purpose="care"))
            assert asked.outcome == "defer"
            connection, _ = await trio.to_thread.run_sync(silent.accept)
            # It has been asked, and never answers.
            with connection, trio.fail_after(5):
                decided = await submit(north, step("plain/a", run="run-2"))
                assert decided.outcome == "execute"
                await north.end()


async def test_a_defect_in_what_is_told_ends_no_node(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def broken(name: str) -> Any:
        def fail(*_: object) -> Any:
            looked.append(name)
            raise LookupError(name)

        return fail

    monkeypatch.setattr("comity.node.watch.stamp", broken("stamp"))
    monkeypatch.setattr("comity.node.notifications.situation", broken("situation"))
    homes = found(place, (NORTH,))
    with_webhook(homes[NORTH], "http://127.0.0.1:9/")
    async with inhabited(homes) as houses:
        await equip(houses[NORTH])
        await houses[NORTH].until(lambda _: {"stamp", "situation"} <= set(looked))
        assert (await submit(houses[NORTH], step("plain/a"))).outcome == "execute"


# Settings


@pytest.mark.parametrize(
    "url",
    [
        "http://alerts.example/x",
        "http://10.0.0.1/",
        "ftp://127.0.0.1/",
        "https://user:secret@alerts.example/",
        "https://alerts.example/#x",
        "https://",
        "https://alerts.example:0/",
        "https://alerts.example:99999/",
        "https://alerts.example/ x",
        "https://alerts.example/" + "x" * 3_000,
        "https://alerts.exämple/",
        "https://alerts.example/\r\nX: 1",
        "//alerts.example/",
    ],
)
def test_where_nobody_is_told(url: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        webhook_url(url)


@pytest.mark.parametrize(
    "url",
    ["https://alerts.example/x?y=1", "http://127.0.0.1:8000/", "http://[::1]:8000", "http://localhost/a"],
)
def test_where_somebody_is_told(url: str) -> None:
    assert webhook_url(url) == url


def test_a_secret_that_others_read_or_that_is_short_begins_no_node(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH]
    with_webhook(home, "https://alerts.example/")
    assert read_house(home).notify_secret == SECRET
    secret = home.path / "webhook.secret"
    secret.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_house(home)
    secret.chmod(0o600)
    secret.write_bytes(b"short\n")
    with pytest.raises(ConfigError, match="at least 32 bytes"):
        read_house(home)
    secret.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_house(home)
    assert SECRET.decode() not in repr(replace(read_house_without(home), notify_secret=SECRET))


def read_house_without(home: Home) -> Any:
    config = read_config(home.config)
    write_config(home.config, replace(config, notify_secret_file=""), replace=True)
    return read_house(home)
