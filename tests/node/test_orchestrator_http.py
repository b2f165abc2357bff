"""Dagster's GraphQL as `comity launch` asks it: what a webserver may answer, and what people are told."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.node import orchestrator_http as module
from comity.node.orchestrator_http import Launch, OrchestratorError, Place, Webserver
from comity.protocol.errors import ConfigError
from ports import free_ports

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]

PLACE = Place("north", "__repository__", "study")


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.asked.append((self.path, dict(self.headers), body))
        status, data = server.answer(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def webserver(answer: Answer) -> Generator[tuple[Webserver, list[Any]]]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.answer, server.asked = answer, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        headers = {"Authorization": "Bearer x"}
        yield Webserver(f"http://127.0.0.1:{server.server_address[1]}/dagster/", headers), server.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def data(value: Any) -> Answer:
    return lambda _: (200, json.dumps({"data": value}).encode())


def locations(*places: Place) -> Answer:
    nodes = [
        {"name": each.repository, "location": {"name": each.location}, "jobs": [{"name": each.job}]}
        for each in places
    ]
    return data({"repositoriesOrError": {"__typename": "RepositoryConnection", "nodes": nodes}})


@pytest.mark.parametrize("url", ["127.0.0.1:3000", "ftp://x", "http://", "http://x?y", "http://x#y", ""])
def test_what_is_no_address_of_a_webserver(url: str) -> None:
    with pytest.raises(ConfigError, match="not the address of a webserver"):
        Webserver(url)


def test_nobody_listens() -> None:
    (port,) = free_ports(1)
    with pytest.raises(OrchestratorError, match="gives no answer"):
        Webserver(f"http://127.0.0.1:{port}").state("run")


def test_a_job_is_found_where_it_is() -> None:
    other = Place("south", "__repository__", "study")
    with webserver(locations(PLACE)) as (web, asked):
        assert web.find("study") == PLACE
        path, headers, _ = asked[0]
        assert (path, headers["Authorization"]) == ("/dagster/graphql", "Bearer x")
        with pytest.raises(ConfigError, match="has a job 'x' in north"):
            web.find("x", "north")
    with webserver(locations(PLACE, other)) as (web, _):
        with pytest.raises(ConfigError, match=r"north/__repository__, south/__repository__: name one"):
            web.find("study")
        assert web.find("study", location="south") == other


def test_a_run_is_launched_with_its_assets_partition_and_tags() -> None:
    answer = data({"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": "r-1"}}})
    with webserver(answer) as (web, asked):
        wanted = Launch(PLACE, ("a", "deep/b"), "mon", {"ops": {}}, {"team": "x"})
        assert web.launch(wanted) == "r-1"
        params = asked[0][2]["variables"]["params"]
        assert params["selector"]["assetSelection"] == [{"path": ["a"]}, {"path": ["deep", "b"]}]
        tags = [{"key": "dagster/partition", "value": "mon"}, {"key": "team", "value": "x"}]
        assert params["executionMetadata"]["tags"] == tags
        assert params["runConfigData"] == {"ops": {}}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"__typename": "PythonError", "message": "boom\n  at x"}, "does not launch study: boom$"),
        (
            {"__typename": "RunConfigValidationInvalid", "errors": [{"message": "a"}, {"message": "b"}]},
            "does not launch study: a; b$",
        ),
        ({"__typename": "RunConflict"}, "does not launch study: RunConflict$"),
        (None, "no reason given$"),
    ],
)
def test_a_run_that_is_not_launched(said: Any, told: str) -> None:
    with webserver(data({"launchRun": said})) as (web, _), pytest.raises(OrchestratorError, match=told):
        web.launch(Launch(PLACE))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda _: (500, b"{}"), "status 500"),
        (lambda _: (200, b"<html>"), "does not answer as Dagster's GraphQL does"),
        (lambda _: (200, b"[]"), "does not answer as"),
        (lambda _: (200, b"[" * 100_000), "does not answer as"),
        (lambda _: (200, b'{"data": null, "errors": [{"message": "no such field"}]}'), "no such field"),
    ],
)
def test_what_is_no_answer(answer: Answer, told: str) -> None:
    with webserver(answer) as (web, _), pytest.raises(OrchestratorError, match=told):
        web.state("run")


def test_an_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 100)
    with (
        webserver(data("x" * 200)) as (web, _),
        pytest.raises(OrchestratorError, match="more than 100 bytes"),
    ):
        web.state("run")


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[Webserver, list[Any]]]:
    """Answers with what the test has put there last."""
    script: list[Any] = [None]
    with webserver(lambda _: (200, json.dumps({"data": script[-1]}).encode())) as (web, _):
        yield web, script


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["runOrError", "status", "tags", "nodes", "key", "value"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)


@given(value=st.fixed_dictionaries({"runOrError": JSON, "repositoriesOrError": JSON, "launchRun": JSON}))
def test_whatever_a_webserver_says_is_an_error_in_words(
    scripted: tuple[Webserver, list[Any]], value: Any
) -> None:
    web, script = scripted
    script.append(value)
    for ask in (lambda: web.state("r"), lambda: web.find("study"), lambda: web.launch(Launch(PLACE))):
        try:
            ask()
        except (OrchestratorError, ConfigError):
            continue
