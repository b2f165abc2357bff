"""A node's local API with scripted decisions: HTTP over a Unix socket, as a node serves it, without any crypto.

It keeps every call, and it keeps a ledger of what was made, so that a read is admitted only for the very
bytes that an actuation named.
"""

from __future__ import annotations

import base64
import http.server
import json
import socketserver
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from comity.node.forms import (
    ActuationAnswer,
    ActuationForm,
    CheckAnswer,
    CheckForm,
    DiscardAnswer,
    DiscardForm,
    ExplainAnswer,
    LaunchAnswer,
    LaunchForm,
    PartnerAsset,
    PermittedOutput,
    Problem,
    ReadAnswer,
    ReadForm,
    RunStanding,
    StandingsForm,
    StartAnswer,
    StartForm,
    StepAnswer,
    StepForm,
    TermForm,
)
from comity.node.launches import step_form

MEMBER = "clinic-north.example"
TOKEN = "bridge-token-of-the-fake"

F = TypeVar("F")
Decide = Callable[[StepForm], StepAnswer]


class Refusal(Exception):  # noqa: N818  # an answer of the API, not an error of the fake
    """Answer with a status and a problem."""

    def __init__(self, status: int, code: str, message: str = "scripted", hint: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.problem = Problem(code=code, message=message, hint=hint)


def ungoverned(form: StepForm) -> StepAnswer:
    return StepAnswer(intent="", outcome="ungoverned")


def execute(form: StepForm) -> StepAnswer:
    """Everything that the step asked for."""
    return StepAnswer(
        intent=intent_of(form),
        outcome="execute",
        outputs=[
            PermittedOutput(
                asset=f"{MEMBER}/{output.asset}",
                partition=output.partition,
                mode="execute",
                columns=list(output.columns or []),
                all_columns=True,
            )
            for output in form.outputs
        ],
        permit="9e" * 32,
        expires=2_000_000_000,
    )


def restricted(columns: list[str], *obligations: TermForm) -> Decide:
    """Only these columns, under these obligations."""

    def decide(form: StepForm) -> StepAnswer:
        answer = execute(form)
        outputs = [
            replace(each, mode="restrict", columns=columns, all_columns=False, obligations=list(obligations))
            for each in answer.outputs
        ]
        return replace(answer, outcome="restrict", outputs=outputs)

    return decide


def refused(form: StepForm) -> StepAnswer:
    return StepAnswer(
        intent=intent_of(form),
        outcome="refuse",
        causes=[
            TermForm("purpose_not_allowed", {"purpose": "marketing"}, "p1", "the purpose is not allowed")
        ],
        votes={"clinic-south.example": "refuse", "board.example": "silent"},
    )


def deferred(form: StepForm) -> StepAnswer:
    return StepAnswer(
        intent=intent_of(form),
        outcome="defer",
        needs=[TermForm("approval", {"class": "health/dpo"}, "p2", "an approval by health/dpo")],
        votes={"clinic-south.example": "defer"},
    )


def intent_of(form: StepForm) -> str:
    """The fake's intent ids are the step's name in hex, so that a failing test can be read."""
    return form.step.encode().hex().ljust(64, "0")[:64]


@dataclass
class FakeNode:
    """A node in a home of its own, which answers while the context lasts.

    `decisions` holds the answers for a step, by its name: one for ever, or a list used up to its last.
    """

    home: Path
    decisions: dict[str, Decide | list[Decide]] = field(default_factory=dict)
    otherwise: Decide = ungoverned
    starts: list[Callable[[StartForm], StartAnswer]] = field(default_factory=list)
    published: list[PartnerAsset] = field(default_factory=list)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    ledger: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    on_read: Callable[[ReadForm], None] | None = None
    """Called while a read is verified."""
    on_check: Callable[[CheckForm], None] | None = None
    """Called while the result of a check is recorded."""
    raw: bytes | None = None
    """An answer to everything, instead of a right one."""
    status: int = 200
    runs: dict[str, dict[str, StepForm]] = field(default_factory=dict)
    """The steps of every run that was asked for before its launch."""
    _forms: dict[str, StepForm] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        return self.home / "node.sock"

    def said(self, path: str, form: type[F]) -> list[F]:
        """The forms that were sent to a path."""
        return [each for where, each in self.calls if where == path and isinstance(each, form)]

    @property
    def steps(self) -> list[StepForm]:
        return self.said("/v1/steps", StepForm)

    @property
    def launches(self) -> list[LaunchForm]:
        return self.said("/v1/launches", LaunchForm)

    @property
    def actuations(self) -> list[ActuationForm]:
        return self.said("/v1/actuations", ActuationForm)

    @property
    def discards(self) -> list[DiscardForm]:
        return self.said("/v1/discards", DiscardForm)

    @property
    def checks(self) -> list[CheckForm]:
        return self.said("/v1/checks", CheckForm)

    @property
    def reads(self) -> list[ReadForm]:
        return self.said("/v1/reads", ReadForm)

    def governs(self, *patterns: str) -> None:
        """Write down what signed policy governs, as a node does when it starts."""
        path = self.home / "governed.json"
        path.write_text(json.dumps({"member": MEMBER, "patterns": list(patterns)}), encoding="utf-8")

    @contextmanager
    def running(self) -> Generator[FakeNode]:
        """Answer on the socket."""
        server = _Server(str(self.socket), _Handler)
        server.node = self
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            self.socket.unlink()

    def answer(self, method: str, path: str, body: bytes) -> object:
        path, _, query = path.partition("?")
        if method == "GET" and path.startswith("/v1/steps/"):
            self.calls.append((f"/v1/steps/:{query}", None))
            return self._decide(self._forms[path.removeprefix("/v1/steps/")])
        if method == "GET" and path == "/v1/partner-assets":
            self.calls.append((path, None))
            return self.published
        routes: dict[str, tuple[type, Callable[[Any], object]]] = {
            "/v1/steps": (StepForm, self._step),
            "/v1/explanations": (StepForm, self._explain),
            "/v1/launches": (LaunchForm, self._launch),
            "/v1/launches/standings": (StandingsForm, self._standings),
            "/v1/starts": (StartForm, self._start),
            "/v1/actuations": (ActuationForm, self._actuate),
            "/v1/discards": (DiscardForm, self._discard),
            "/v1/checks": (CheckForm, self._check),
            "/v1/reads": (ReadForm, self._read),
        }
        if path not in routes or method != "POST":
            raise Refusal(404, "not_found")
        kind, act = routes[path]
        form: Any = msgspec.json.decode(body, type=kind)
        self.calls.append((path, form))
        return act(form)

    def _decide(self, form: StepForm) -> StepAnswer:
        script = self.decisions.get(form.step, self.otherwise)
        if isinstance(script, list):
            script = script.pop(0) if len(script) > 1 else script[0]
        return script(form)

    def _step(self, form: StepForm) -> StepAnswer:
        answer = self._decide(form)
        self._forms[answer.intent] = form
        return answer

    def _launch(self, form: LaunchForm) -> LaunchAnswer:
        now = [step_form(form, unit) for unit in form.steps]
        self.runs.setdefault(form.continues or form.run, {}).update({each.step: each for each in now})
        later = [self._explain(step_form(form, unit)) for unit in form.later]
        return LaunchAnswer([self._step(each) for each in now], later)

    def _standings(self, form: StandingsForm) -> list[RunStanding]:
        found: list[RunStanding] = []
        for run in form.runs:
            steps = {name: self._decide(each) for name, each in self.runs.get(run, {}).items()}
            waits = any(said.outcome in ("defer", "held") for said in steps.values())
            found.append(RunStanding(run, "waits" if waits else "decided" if steps else "unknown", steps))
        return found

    def _explain(self, form: StepForm) -> ExplainAnswer:
        answer = self._decide(form)
        return ExplainAnswer(outcome=answer.outcome, causes=answer.causes, needs=answer.needs)

    def _start(self, form: StartForm) -> StartAnswer:
        if self.starts:
            return self.starts.pop(0)(form)
        return StartAnswer(start="57" * 32, attempt=1)

    def _actuate(self, form: ActuationForm) -> ActuationAnswer:
        actuation = f"{len(self.ledger):064x}"
        self.ledger[form.asset, form.partition] = (form.digest, actuation)
        sidecar = json.dumps({"asset": form.asset, "digest": form.digest, "actuation": actuation})
        return ActuationAnswer(actuation, base64.b64encode(sidecar.encode()).decode())

    def _discard(self, form: DiscardForm) -> DiscardAnswer:
        return DiscardAnswer("5a" * 32, "fa" * 32)

    def _check(self, form: CheckForm) -> CheckAnswer:
        if self.on_check is not None:
            self.on_check(form)
        return CheckAnswer("0b" * 32, counts=True)

    def _read(self, form: ReadForm) -> ReadAnswer:
        if self.on_read is not None:
            self.on_read(form)
        asset = (
            form.asset
            if form.asset.count("/") and "." in form.asset.split("/")[0]
            else f"{MEMBER}/{form.asset}"
        )
        digest, actuation = self.ledger.get((asset, form.partition), ("", ""))
        if not form.sidecar and asset != form.asset and digest == form.digest:
            # An own asset is known without a sidecar; the answer brings one to lay beside it.
            sidecar = json.dumps({"asset": asset, "digest": digest, "actuation": actuation})
            encoded = base64.b64encode(sidecar.encode()).decode()
            return ReadAnswer(admitted=True, actuation=actuation, sidecar=encoded)
        if not form.sidecar:
            return ReadAnswer(
                admitted=False, causes=[TermForm("lineage_missing", message="nothing vouches for it")]
            )
        said = json.loads(base64.b64decode(form.sidecar))
        if digest != form.digest or said["digest"] != form.digest:
            cause = TermForm(
                "digest_differs", {"asset": asset}, message="the bytes are not those that were made"
            )
            return ReadAnswer(admitted=False, causes=[cause])
        return ReadAnswer(admitted=True, actuation=actuation)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    node: FakeNode


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        server = self.server
        assert isinstance(server, _Server)
        node = server.node
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, data = node.status, node.raw
        if data is None:
            try:
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise Refusal(401, "token_wrong", "the token is unknown")
                data = msgspec.json.encode(node.answer(method, self.path, body))
            except Refusal as refusal:
                status, data = refusal.status, msgspec.json.encode(refusal.problem)
            except msgspec.DecodeError as exc:
                problem = Problem(code="form_invalid", message=str(exc))
                status, data = 422, msgspec.json.encode(problem)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def fake_home() -> Generator[Path]:
    """A node's home with tokens, at a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="node-") as folder:
        home = Path(folder)
        (home / "tokens").mkdir()
        for role in ("bridge", "operator", "reader"):
            (home / "tokens" / role).write_text(f"{TOKEN}\n", encoding="ascii")
        yield home
