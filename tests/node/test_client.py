"""The client says which of road, token, form and decision was in the way, and needs nothing heavy."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from comity.node import client as client_module
from comity.node.client import (
    AnswerInvalidError,
    FormInvalidError,
    NodeClient,
    NodeError,
    NodeFaultError,
    NodeNotRunningError,
    NodeTimeoutError,
    NodeUnreachableError,
    NoQuorumError,
    NotAMemberError,
    NotFoundError,
    NotPermittedError,
    RoleForbiddenError,
    StartForm,
    StepAnswer,
    StepForm,
    TokenWrongError,
)
from comity.node.forms import OutputForm
from comity.protocol.errors import ComityError, ConfigError, TransportError
from fake_node import FakeNode, Refusal, execute, fake_home, intent_of

FORM = StepForm("dagster", "run", "released", "job", "c0" * 32, [OutputForm("released")])


@pytest.fixture
def home() -> Iterator[Path]:
    with fake_home() as home:
        yield home


@pytest.fixture
def node(home: Path) -> Iterator[FakeNode]:
    with FakeNode(home, otherwise=execute).running() as node:
        yield node


@pytest.fixture
def client(home: Path) -> NodeClient:
    return NodeClient.of_home(home, timeout_s=5.0)


def test_forms_travel_whole_and_come_back_typed(node: FakeNode, client: NodeClient) -> None:
    answer = client.submit_step(FORM)
    assert node.steps == [FORM]
    assert answer.outcome == "execute"
    assert answer.outputs[0].asset == "clinic-north.example/released"
    assert client.step(answer.intent, wait_s=1.5) == answer
    assert node.calls[-1][0] == "/v1/steps/:wait_s=1.5"
    assert client.explain(FORM).outcome == "execute"
    assert client.start(StartForm(answer.intent, "released")).attempt == 1
    assert client.partner_assets() == []


def test_importing_the_client_costs_neither_dagster_nor_the_nodes_server() -> None:
    script = (
        "import sys, comity.node.client;"
        "heavy = {'dagster', 'trio', 'fastapi', 'sqlalchemy', 'libp2p', 'pandas', 'pyarrow', 'asyncio'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_node_the_error_says_how_to_start_it(home: Path, client: NodeClient) -> None:
    with pytest.raises(NodeNotRunningError) as raised:
        client.submit_step(FORM)
    assert str(home / "node.sock") in raised.value.message
    assert raised.value.hint == f"start it with `comity node start --home {home}`"
    assert raised.value.code == "node_not_running"
    # A socket that a killed node left behind is the same.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(home / "node.sock"))
    with pytest.raises(NodeNotRunningError):
        client.submit_step(FORM)


def test_a_wrong_token_is_told_from_everything_else(node: FakeNode) -> None:
    with pytest.raises(TokenWrongError) as raised:
        NodeClient(node.socket, "4711-token").submit_step(FORM)
    assert "read it again" in raised.value.hint
    assert "4711" not in str(raised.value)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ümlaut"])
def test_a_token_is_one_word_and_cannot_smuggle_a_header(home: Path, token: str) -> None:
    with pytest.raises(ConfigError):
        NodeClient(home / "node.sock", token)


def test_the_token_is_not_shown(home: Path) -> None:
    assert "secret-token" not in repr(NodeClient(home / "node.sock", "secret-token"))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "role_forbidden", RoleForbiddenError),
        (404, "not_found", NotFoundError),
        (409, "permit_expired", NotPermittedError),
        (409, "adverse_held", NotPermittedError),
        (409, "not_a_member", NotAMemberError),
        (422, "form_invalid", FormInvalidError),
        (503, "no_quorum", NoQuorumError),
        (503, "starting", NoQuorumError),
        (500, "disk_full", NodeFaultError),
        (418, "", AnswerInvalidError),
    ],
)
def test_each_problem_has_its_error(
    node: FakeNode, client: NodeClient, status: int, code: str, kind: type[NodeError]
) -> None:
    def fails(form: StepForm) -> StepAnswer:
        raise Refusal(status, code, "what went wrong", "what to do")

    node.otherwise = fails
    with pytest.raises(kind) as raised:
        client.submit_step(FORM)
    assert type(raised.value) is kind
    assert raised.value.code == (code or kind.default_code)
    assert str(raised.value) == "what went wrong (what to do)"


def test_a_problem_without_a_form_still_has_an_error(node: FakeNode, client: NodeClient) -> None:
    node.status, node.raw = 502, b"<html>"
    with pytest.raises(NodeFaultError, match="status 502"):
        client.submit_step(FORM)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"outcome": "execute"}',
        b'{"intent": "aa", "outcome": "perhaps"}',
        b'{"intent": "aa", "outcome": "execute", "expires": "soon"}',
        b'{"intent": "aa", "outcome": "execute", "outputs": [{"asset": "a"}]}',
    ],
)
def test_an_answer_that_is_not_the_promised_form_is_an_error(
    node: FakeNode, client: NodeClient, answer: bytes
) -> None:
    node.raw = answer
    with pytest.raises(AnswerInvalidError):
        client.submit_step(FORM)


def test_what_is_unknown_in_an_answer_is_ignored(node: FakeNode, client: NodeClient) -> None:
    node.raw = b'{"intent": "aa", "outcome": "held", "from_a_later_version": [1, 2.5, null]}'
    assert client.submit_step(FORM) == StepAnswer("aa", "held")


def test_an_answer_has_a_bound(node: FakeNode, client: NodeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    node.raw = msgspec.json.encode(["x" * 1_000])
    assert client.status() == ["x" * 1_000]
    monkeypatch.setattr(NodeClient._exchange, "__defaults__", (0.0, 1_003))
    with pytest.raises(AnswerInvalidError, match="larger than 1003 bytes"):
        client.status()


def serve(path: Path, behave: Callable[[socket.socket], None]) -> threading.Thread:
    """Accept one connection and behave in it."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(1)

    def run() -> None:
        with listening:
            connection, _ = listening.accept()
            with connection:
                behave(connection)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def wait(event: threading.Event) -> None:
    event.wait(30.0)


def test_a_node_that_never_answers_is_given_up(home: Path) -> None:
    released = threading.Event()
    thread = serve(home / "node.sock", lambda _: wait(released))
    try:
        with pytest.raises(NodeTimeoutError, match=r"did not answer within 0\.2 s"):
            NodeClient.of_home(home, timeout_s=0.2).status()
    finally:
        released.set()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", AnswerInvalidError),
        (b"no HTTP at all\r\n\r\n", AnswerInvalidError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1", AnswerInvalidError),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200, AnswerInvalidError),
    ],
)
def test_a_broken_answer_is_an_error_with_a_name(home: Path, answer: bytes, kind: type[NodeError]) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    thread = serve(home / "node.sock", behave)
    try:
        with pytest.raises((kind, NodeUnreachableError)):
            NodeClient.of_home(home, timeout_s=5.0).status()
    finally:
        thread.join()


def test_a_wait_has_a_bound(client: NodeClient) -> None:
    for wait_s in (-1.0, 601.0, float("nan")):
        with pytest.raises(FormInvalidError, match="not between 0 and 600 s"):
            client.step("aa", wait_s=wait_s)


def test_a_home_without_a_token_is_named(home: Path) -> None:
    (home / "tokens" / "reader").unlink()
    with pytest.raises(ConfigError, match="tokens/reader cannot be read"):
        NodeClient.of_home(home, "reader")
    (home / "tokens" / "reader").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="does not hold a token"):
        NodeClient.of_home(home, "reader")


def test_ids_and_assets_stay_inside_of_their_path(node: FakeNode, client: NodeClient) -> None:
    with pytest.raises(NotFoundError):
        client.intent("../records/a?b")
    node.otherwise = execute
    client.submit_step(FORM)
    assert client.step(intent_of(FORM)).intent == intent_of(FORM)


def test_more_callers_than_the_socket_queues_are_all_answered(node: FakeNode, client: NodeClient) -> None:
    answers: list[StepAnswer] = []
    threads = [threading.Thread(target=lambda: answers.append(client.submit_step(FORM))) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 24
    assert len({answer.intent for answer in answers}) == 1


def test_errors_of_road_and_decision_have_one_root_and_no_other_parent() -> None:
    assert issubclass(NodeError, ComityError)
    assert not issubclass(NodeError, TransportError)
    assert not issubclass(NotPermittedError, NodeUnreachableError)
    named = [name for name in client_module.__all__ if name.endswith("Error")]
    assert all(issubclass(getattr(client_module, name), NodeError) for name in named)
