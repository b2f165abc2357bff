"""What operators measure: every series on the page, moved by a real run, bounded, and read by who may."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from prometheus_client import generate_latest

from api_calls import equip, step, submit
from comity.gossip.transport import Reason, RequestError
from comity.node.config import read_config, write_config
from comity.node.home import Home
from comity.node.metrics import LABEL_VALUES_MAX, Metrics, Tally
from comity.node.watched_roads import kind_of
from comity.protocol.errors import ConfigError
from comity.protocol.frames import (
    AskFrame,
    FeedFrame,
    FetchFrame,
    Frame,
    HeadFrame,
    OfferFrame,
    encode_frame,
)
from houses import RunningHouse, found, inhabited, short_folder, street
from metrics_read import Series, http_get, parsed, scraped
from world import NORTH, SOUTH

PAGE = Path(__file__).resolve().parents[2] / "docs/metrics.md"
PAIR = (NORTH, SOUTH)
LIBRARY = ("process_", "python_")


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def listed() -> dict[str, str]:
    """The series of the page, each with its cell of labels."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    assert len({name for name, _ in rows}) == len(rows)
    return dict(rows)


def registered() -> set[str]:
    names: set[str] = set()
    for family in Metrics().registry.collect():
        if not family.name.startswith(LIBRARY):
            names.add(f"{family.name}_total" if family.type == "counter" else family.name)
    return names


async def until_scraped(house: RunningHouse, name: str, value: float, **labels: str) -> Series:
    """Scrape until a series has a value."""
    with trio.fail_after(30):
        while True:
            said = await scraped(house.home)
            if said.get((name, tuple(sorted(labels.items())))) == value:
                return said
            await house.ask(lambda client: client.status(), "reader")


def test_every_series_is_on_the_page_and_none_else() -> None:
    assert set(listed()) == registered()


async def test_a_run_moves_what_it_should(place: Path) -> None:
    homes = found(place, PAIR)
    async with inhabited(homes) as houses:
        await equip(houses[NORTH])
        assert (await submit(houses[NORTH], step("plain/a"))).outcome == "execute"
        assert (await submit(houses[NORTH], step("forbidden/a"))).outcome == "refuse"
        north = await until_scraped(houses[NORTH], "comity_decisions_total", 1.0, outcome="refuse")
        south = await until_scraped(houses[SOUTH], "comity_votes_total", 1.0, mode="refuse")

        def of(series: Series, name: str, **labels: str) -> float:
            return series[name, tuple(sorted(labels.items()))]

        assert of(north, "comity_decisions_total", outcome="execute") == 1
        assert of(north, "comity_decision_seconds_count") == 2
        assert 0 < of(north, "comity_decision_seconds_sum") < 20
        assert of(north, "comity_intents_settled_total", standing="permitted") == 1
        assert of(north, "comity_intents_settled_total", standing="refused") == 1
        assert of(north, "comity_asks_sent_total") >= 2
        assert of(north, "comity_votes_total", mode="execute") == 1
        assert of(south, "comity_votes_total", mode="execute") == 1
        assert of(north, "comity_requests_sent_total", kind="ask", result="answered") >= 2
        assert of(south, "comity_requests_received_total", kind="ask", result="answered") >= 2
        assert of(north, "comity_requests_received_total", kind="feed", result="answered") >= 1
        assert of(north, "comity_feed_pages_total", result="read") >= 1
        assert of(north, "comity_records_admitted_total", kind="credential") == 1
        assert of(south, "comity_records_admitted_total", kind="credential") == 1
        assert of(north, "comity_peer_bytes_total", direction="sent") > 1_000
        assert of(north, "comity_peer_bytes_total", direction="received") > 1_000
        assert of(north, "comity_worker_call_seconds_count") > 20
        assert of(north, "comity_store_commit_seconds_count") > 5
        assert of(north, "comity_store_bytes") > 10_000
        assert of(north, "comity_api_requests_total", role="bridge", status="200") == 2
        assert of(north, "comity_quorum_reachable") == 1
        assert of(north, "comity_member_reachable", member=SOUTH) == 1
        assert of(north, "comity_peers_known") == of(north, "comity_peers_connected") == 1
        assert of(north, "comity_voting") == of(north, "comity_governance_complete") == 1
        assert of(north, "comity_epoch_number") == 0
        now = of(north, "comity_clock_timestamp_seconds")
        assert of(north, "comity_certificate_expires_timestamp_seconds") > now
        assert of(north, "comity_credential_expires_timestamp_seconds") > now
        assert of(south, "comity_credential_expires_timestamp_seconds") == 0
        # Each node has its own: the other decided nothing.
        assert not [key for key in south if key[0] == "comity_decisions_total"]
        _labels_are_on_the_page(north | south)

        await houses[SOUTH].end()
        gone = await until_scraped(houses[NORTH], "comity_quorum_reachable", 0.0)
        assert of(gone, "comity_member_reachable", member=SOUTH) == 0
        held = await submit(houses[NORTH], step("plain/b", run="run-2", wait_s=0.0))
        assert held.outcome != "execute"
        waits = await until_scraped(houses[NORTH], "comity_intents_waiting", 1.0, standing="asking")
        assert of(waits, "comity_intents_waiting", standing="held") == 0
        assert of(waits, "comity_intent_oldest_waiting_seconds") >= 0


def _labels_are_on_the_page(series: Series) -> None:
    cells = listed()
    for name, labels in series:
        family = re.sub(r"_(bucket|count|sum)$", "", name)
        if name.startswith(LIBRARY) or name.endswith("_created"):
            continue
        for label, _ in labels:
            assert label == "le" or f"`{label}`" in cells[family], (name, label)
        assert not [value for _, value in labels if re.search(r"[0-9a-f]{16}", value)]


def test_values_of_a_label_are_bounded() -> None:
    metrics = Metrics()
    tally = Tally(metrics.registry, "tally", "A tally.", ("kind", "result"))
    for number in range(10 * LABEL_VALUES_MAX):
        tally.add(f"kind-{number}", "answered")
    said = parsed(generate_latest(metrics.registry).decode())
    counts = {dict(labels)["kind"]: value for (name, labels), value in said.items() if name == "tally_total"}
    assert len(counts) == LABEL_VALUES_MAX + 1
    assert counts["other"] == 9 * LABEL_VALUES_MAX


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (AskFrame(ask=b"\xa5frame"), "ask"),
        (AskFrame(ask=b"x", records=(b"y",)), "ask"),
        (FeedFrame(), "feed"),
        (FeedFrame(after=3), "feed"),
        (FeedFrame(incarnation=b"i"), "feed"),
        (FeedFrame(after=3, incarnation=b"i"), "feed"),
        (FetchFrame(ids=(bytes(32),)), "fetch"),
        (HeadFrame(asset="a.example/b"), "head"),
        (HeadFrame(asset="a.example/b", partition="p"), "head"),
        (OfferFrame(records=(b"x",)), "offer"),
    ],
)
def test_a_request_is_counted_by_its_kind(frame: Frame, kind: str) -> None:
    assert kind_of(encode_frame(frame)) == kind


def test_what_is_no_request_has_no_kind() -> None:
    assert {kind_of(data) for data in (b"", b"\x00", b"\x81\xa5frame\xa4vote", b"ask")} == {"unknown"}


# The port


def set_port(home: Home, where: str) -> None:
    text = home.config.read_text().replace(
        '# metrics_listen = "127.0.0.1:9464"', f'metrics_listen = "{where}"'
    )
    home.config.write_text(text)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def request(path: str = "/metrics", method: str = "GET", host: str = "127.0.0.1:9464") -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"


async def test_a_port_of_the_loopback_serves_the_metrics_and_nothing_else(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH]
    port = free_port()
    set_port(home, f"127.0.0.1:{port}")
    async with street() as here:
        await here.start(home)

        async def get(sent: str) -> tuple[int, str]:
            return await trio.to_thread.run_sync(http_get, ("127.0.0.1", port), sent)

        status, text = await get(request())
        assert status == 200
        assert parsed(text)["comity_quorum_reachable", ()] == 1
        assert (await get(request(host="localhost")))[0] == 200
        assert (await get(request(host="[::1]:9464")))[0] == 200
        assert (await get(request("/v1/status")))[0] == 404
        assert (await get(request(method="POST")))[0] == 405
        # A page of a browser whose name was made to resolve to this machine.
        assert (await get(request(host="attacker.example")))[0] == 403


@pytest.mark.parametrize(
    "where", ["0.0.0.0:9464", "192.0.2.7:9464", "localhost:9464", "[::]:9464", "127.0.0.1", "127.0.0.1:70000"]
)
def test_other_machines_never_reach_the_port(place: Path, where: str) -> None:
    home = found(place, (NORTH,))[NORTH]
    set_port(home, where)
    with pytest.raises(ConfigError, match=r"metrics_listen: .*127\.0\.0\.1:PORT"):
        read_config(home.config)


async def test_a_port_that_is_taken_is_said(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        set_port(home, f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.RaisesGroup(
            pytest.RaisesExc(ConfigError, match="metrics_listen"), flatten_subgroups=True
        ):
            async with street() as here:
                await here.start(home)


def test_the_port_survives_a_rewriting_of_the_settings(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH]
    set_port(home, "[::1]:9464")
    settings = read_config(home.config)
    write_config(home.config, settings, replace=True)
    assert read_config(home.config) == settings
    assert settings.metrics_listen == "[::1]:9464"


class SilentTransport:
    """A road on which nobody answers."""

    addresses: tuple[str, ...] = ()
    gossip = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    async def request(self, peer: str, payload: bytes, *, timeout_s: float) -> bytes:
        raise RequestError(Reason.TIMEOUT, peer)

    def connected(self) -> frozenset[str]:
        return frozenset()

    def set_peers(self, peers: object) -> None:
        return

    def subscribe(self) -> trio.MemoryReceiveChannel[object]:
        raise NotImplementedError


async def test_why_nobody_answered_is_counted() -> None:
    from comity.node.watched_roads import WatchedTransport

    metrics = Metrics()
    road = WatchedTransport(SilentTransport(), metrics)  # type: ignore[arg-type]
    with pytest.raises(RequestError):
        await road.request("spiffe://a.example/node/n1", encode_frame(FeedFrame()), timeout_s=1)
    said = parsed(generate_latest(metrics.registry).decode())
    assert said["comity_requests_sent_total", (("kind", "feed"), ("result", "timeout"))] == 1
