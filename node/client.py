"""The client of a node's local API: what the bridge, the commands and scripts talk to a node with.

HTTP/1.1 with JSON over the node's Unix socket. One connection per request: nothing is shared between threads
or forked processes, and a Unix socket costs little to open. It needs the standard library, msgspec and the
words of `comity.protocol`, so that `comity` alone has it.
"""

from __future__ import annotations

import base64
import http.client
import socket
import time
import urllib.parse
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from comity.node.forms import (
    LAUNCHED_LATER_MAX,
    LAUNCHED_STEPS_MAX,
    RUNS_ASKED_MAX,
    ActuationAnswer,
    ActuationForm,
    CheckAnswer,
    CheckForm,
    ContextForm,
    DiscardAnswer,
    DiscardForm,
    ExplainAnswer,
    GovernanceForm,
    InputForm,
    LaunchAnswer,
    LaunchedStep,
    LaunchForm,
    OutputForm,
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
    StepOutcome,
    TermForm,
    VerificationAnswer,
    VerificationForm,
    WayTried,
    WithdrawalAnswer,
    WithdrawalForm,
    WithheldForm,
)
from comity.node.run_names import CONTINUATIONS_MAX, continuation_of, continues
from comity.protocol.errors import ComityError, ConfigError
from comity.protocol.limits import BUNDLE_BYTES_MAX

__all__ = [
    "CONTINUATIONS_MAX",
    "LAUNCHED_LATER_MAX",
    "LAUNCHED_STEPS_MAX",
    "RUNS_ASKED_MAX",
    "ActuationAnswer",
    "ActuationForm",
    "AnswerInvalidError",
    "CheckAnswer",
    "CheckForm",
    "ContextForm",
    "DiscardAnswer",
    "DiscardForm",
    "ExplainAnswer",
    "FormInvalidError",
    "GovernanceForm",
    "InputForm",
    "LaunchAnswer",
    "LaunchForm",
    "LaunchedStep",
    "NoQuorumError",
    "NodeClient",
    "NodeError",
    "NodeFaultError",
    "NodeNotRunningError",
    "NodeTimeoutError",
    "NodeUnreachableError",
    "NotAMemberError",
    "NotFoundError",
    "NotPermittedError",
    "OutputForm",
    "PartnerAsset",
    "PermittedOutput",
    "ReadAnswer",
    "ReadForm",
    "RoleForbiddenError",
    "RunStanding",
    "StandingsForm",
    "StartAnswer",
    "StartForm",
    "StepAnswer",
    "StepForm",
    "StepOutcome",
    "TermForm",
    "TokenWrongError",
    "VerificationAnswer",
    "VerificationForm",
    "WayTried",
    "WithdrawalAnswer",
    "WithdrawalForm",
    "WithheldForm",
    "continuation_of",
    "continues",
]

Role: TypeAlias = Literal["bridge", "operator", "reader"]
Json: TypeAlias = Any
"""An answer whose form is the command's that prints it: what JSON can hold."""

ANSWER_BYTES_MAX: Final = 16 * 1_048_576
"""One answer: the largest listing is a page of decisions with their workings."""
TOKEN_BYTES_MAX: Final = 4_096
WAIT_S_MAX: Final = 600.0
"""How long the node holds one request open (StepForm.wait_s)."""
TIMEOUT_S: Final = 30.0
"""For everything but the waiting that a caller asks for."""

_SOCKET_NAME: Final = "node.sock"
_TOKENS_NAME: Final = "tokens"
_CHUNK_BYTES: Final = 65_536
_QUEUE_PAUSE_S: Final = 0.01

T = TypeVar("T")


class NodeError(ComityError):
    """The node was asked and there is no usable answer.

    Attributes:
        code: a stable code, the node's own where it gave one.
        hint: what to do about it.
    """

    default_code = "node_error"

    def __init__(self, message: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.code = code or self.default_code
        self.message = message
        self.hint = hint


class NodeUnreachableError(NodeError):
    """The road to the node failed. It says nothing about the request; trying again may help."""

    default_code = "node_unreachable"


class NodeNotRunningError(NodeUnreachableError):
    """Nothing listens on the node's socket."""

    default_code = "node_not_running"


class NodeTimeoutError(NodeUnreachableError):
    """The node did not answer in time."""

    default_code = "node_timeout"


class TokenWrongError(NodeError):
    """The node does not know the token."""

    default_code = "token_wrong"


class RoleForbiddenError(NodeError):
    """The token is known, and its role may not do this."""

    default_code = "role_forbidden"


class NotAMemberError(NodeError):
    """The node belongs to no coalition, or not to the one that the request concerns."""

    default_code = "not_a_member"


class NoQuorumError(NodeError):
    """Too few members are in reach, or the node has not finished starting."""

    default_code = "no_quorum"


class NotFoundError(NodeError):
    """The node holds no such thing."""

    default_code = "not_found"


class FormInvalidError(NodeError):
    """The node could not read the request: it is of another version, or a value is out of bounds."""

    default_code = "form_invalid"


class NotPermittedError(NodeError):
    """The request conflicts with what was decided, e.g. `permit_expired`, `permit_used`, `adverse_held`."""

    default_code = "not_permitted"


class NodeFaultError(NodeError):
    """The node failed at it. Its log says why."""

    default_code = "node_fault"


class AnswerInvalidError(NodeError):
    """The answer is not what the API promises: malformed, incomplete or too large."""

    default_code = "answer_invalid"


_ERROR_OF_STATUS: Final[dict[int, type[NodeError]]] = {
    401: TokenWrongError,
    403: RoleForbiddenError,
    404: NotFoundError,
    409: NotPermittedError,
    422: FormInvalidError,
    503: NoQuorumError,
}
_ERROR_OF_CODE: Final[dict[str, type[NodeError]]] = {"not_a_member": NotAMemberError}
_HINTS: Final[dict[str, str]] = {
    "token_wrong": "the token is that of another node, or was renewed: read it again from the node's home",
    "role_forbidden": "use the token of the role that may do this: bridge, operator or reader",
    "not_a_member": "join with `comity coalition join FILE`",
    "no_quorum": "the node goes on by itself; `comity node status` shows which members are in reach",
    "starting": "the node is starting; try again in a few seconds",
    "node_fault": "the node's log says why",
}


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a Unix socket instead of a host and port."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout_s)
        try:
            while True:
                try:
                    connection.connect(str(self._path))
                    break
                except BlockingIOError as exc:
                    # The node has as many callers waiting as its socket queues; such a connect never blocks.
                    if time.monotonic() > deadline:
                        raise TimeoutError from exc
                    time.sleep(_QUEUE_PAUSE_S)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


class NodeClient:
    """A synchronous client of one node, under the role of its token. Safe to use from several threads.

    Every method raises a `NodeError`; which one says whether the road, the token, the form or the decision
    was in the way.
    """

    def __init__(self, socket_path: Path | str, token: str, timeout_s: float = TIMEOUT_S) -> None:
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError(
                "a node's token is one printable ASCII word, as its file in the node's home holds it"
            )
        self.socket_path = Path(socket_path)
        self.timeout_s = timeout_s
        self._token = token
        self._token_file: Path | None = None

    @classmethod
    def of_home(cls, home: Path | str, role: Role = "bridge", timeout_s: float = TIMEOUT_S) -> NodeClient:
        """A client of the node whose home directory this is.

        Raises:
            ConfigError: the home has no readable token for the role.
        """
        path = Path(home) / _TOKENS_NAME / role
        if not Path(home).is_dir():
            raise ConfigError(f"there is no node's home at {home}: `comity node init` makes one")
        try:
            with path.open("rb") as file:
                data = file.read(TOKEN_BYTES_MAX + 1)
        except OSError as exc:
            raise ConfigError(
                f"the token {path} cannot be read ({exc.strerror}); `comity node start` makes a token that is"
                " missing, and a program that talks to the node runs as its user or gets a copy"
            ) from exc
        try:
            token = data.decode("ascii").strip()
        except UnicodeDecodeError as exc:
            raise ConfigError(f"{path} does not hold a token: it is not ASCII text") from exc
        if len(data) > TOKEN_BYTES_MAX:
            raise ConfigError(f"{path} does not hold a token: it is longer than {TOKEN_BYTES_MAX} bytes")
        if not token:
            raise ConfigError(f"{path} is empty: remove it, and `comity node start` makes a new token")
        try:
            client = cls(Path(home) / _SOCKET_NAME, token, timeout_s)
        except ConfigError as exc:
            raise ConfigError(f"{path}: {exc}") from exc
        client._token_file = path
        return client

    def __repr__(self) -> str:
        return f"NodeClient({str(self.socket_path)!r})"

    # Bridge

    def submit_step(self, form: StepForm) -> StepAnswer:
        """Submit a step's intent, or find it again. Waits up to `form.wait_s` for a decision."""
        return self._post("/v1/steps", form, StepAnswer, wait_s=form.wait_s)

    def step(self, intent: str, wait_s: float = 0.0) -> StepAnswer:
        """Where an intent stands; waits up to `wait_s` for a decision that lets it go on or ends it."""
        query = f"?wait_s={wait_s:g}" if wait_s else ""
        return self._get(f"/v1/steps/{_quoted(intent)}{query}", StepAnswer, wait_s=wait_s)

    def read(self, form: ReadForm) -> ReadAnswer:
        """Have an input's bytes verified before they are deserialised."""
        return self._post("/v1/reads", form, ReadAnswer)

    def launch(self, form: LaunchForm) -> LaunchAnswer:
        """Ask for what can be decided of a run before it is launched. Waits up to `form.wait_s` for decisions."""
        return self._post("/v1/launches", form, LaunchAnswer, wait_s=form.wait_s)

    def standings(self, form: StandingsForm) -> list[RunStanding]:
        """Where runs stand that are held."""
        return self._post("/v1/launches/standings", form, list[RunStanding])

    def start(self, form: StartForm) -> StartAnswer:
        """Begin the work on one output. Raises `NotPermittedError` where the permit no longer allows it."""
        return self._post("/v1/starts", form, StartAnswer)

    def actuate(self, form: ActuationForm) -> ActuationAnswer:
        """Say what was made, and receive the sidecar to lay beside it."""
        return self._post("/v1/actuations", form, ActuationAnswer)

    def discard(self, form: DiscardForm) -> DiscardAnswer:
        """Say what was staged and is not promoted, and why."""
        return self._post("/v1/discards", form, DiscardAnswer)

    def check(self, form: CheckForm) -> CheckAnswer:
        """Say what a check found in a version."""
        return self._post("/v1/checks", form, CheckAnswer)

    def explain(self, form: StepForm, tier: int | None = None) -> ExplainAnswer:
        """What would be decided of a step. Nothing is submitted.

        `tier` is that of the context to suppose, 0 to 3; None: that of a governed step, or of the form's context.
        """
        query = "" if tier is None else f"?tier={tier}"
        return self._post(f"/v1/explanations{query}", form, ExplainAnswer)

    def partner_assets(self) -> list[PartnerAsset]:
        """What partners publish, as this node has verified it."""
        return self._get("/v1/partner-assets", list[PartnerAsset])

    # Reader

    def status(self) -> Json:
        return self._json("/v1/status")

    def coalition(self) -> Json:
        return self._json("/v1/coalition")

    def credentials(self) -> Json:
        return self._json("/v1/credentials")

    def revocations(self) -> Json:
        """What was taken back, the newest first, and how many members have acknowledged it."""
        return self._json("/v1/revocations")

    def intents(self) -> Json:
        return self._json("/v1/intents")

    def intent(self, intent: str) -> Json:
        return self._json(f"/v1/intents/{_quoted(intent)}")

    def decisions(self) -> Json:
        return self._json("/v1/decisions")

    def decision(self, decision: str) -> Json:
        return self._json(f"/v1/decisions/{_quoted(decision)}")

    def workings(self, named: str) -> Json:
        """How the votes of a decision, of an intent's newest round, or one vote came about, judged again."""
        return self._json(f"/v1/workings/{_quoted(named)}")

    def waiting(self) -> Json:
        return self._json("/v1/waiting")

    def lineage(self, asset: str, partition: str | None = None) -> Json:
        """The chain behind an asset or an actuation; of an asset with several partitions their list, without one."""
        return self._json(f"/v1/lineage/{_quoted(asset, safe='/')}{_partition_query(partition)}")

    def bundle(self, target: str, partition: str | None = None) -> bytes:
        """A bundle that a stranger can verify, as bytes."""
        path = f"/v1/bundles/{_quoted(target, safe='/')}{_partition_query(partition)}"
        return self._exchange("GET", path, None, bytes_max=BUNDLE_BYTES_MAX)

    def why(self, name: str) -> Json:
        """The intents behind a run, an asset or an id, each with what was decided and what came of it."""
        return self._json(f"/v1/why/{_quoted(name, safe='/')}")

    def owner_policies(self) -> Json:
        return self._json("/v1/owner-policies")

    def transitions(self) -> Json:
        return self._json("/v1/transitions")

    def said_of_version(self, name: str, partition: str | None = None) -> Json:
        """What was said for and against a version: of an asset, or by its id."""
        return self._json(f"/v1/verifications/{_quoted(name, safe='/')}{_partition_query(partition)}")

    def ids(self, beginning: str) -> Json:
        """The records that are held whose id begins so: `id` and `kind` of each, a few at most."""
        return self._json(f"/v1/ids/{_quoted(beginning)}")

    def record(self, record: str) -> Json:
        return self._json(f"/v1/records/{_quoted(record)}")

    def page_link(self) -> Json:
        """A link to the people's page that lets one browser in, once, as this role."""
        return _decoded_json(self._exchange("POST", "/v1/page-links", b"{}"))

    # Operator

    def verify_version(self, form: VerificationForm) -> VerificationAnswer:
        """Say in the organization's name what was found in a version. The node signs."""
        return self._post("/v1/verifications", form, VerificationAnswer)

    def withdraw_verification(self, form: WithdrawalForm) -> WithdrawalAnswer:
        """Take back what the node said of a version."""
        return self._post("/v1/verifications/withdrawals", form, WithdrawalAnswer)

    def submit_record(self, record: bytes) -> Json:
        """Hand the node a signed record: an approval, a credential, a revocation, a policy."""
        body = {"record": base64.b64encode(record).decode("ascii")}
        return _decoded_json(self._exchange("POST", "/v1/records", msgspec.json.encode(body)))

    def _get(self, path: str, answer: type[T], wait_s: float = 0.0) -> T:
        return _decoded(self._exchange("GET", path, None, wait_s), answer)

    def _json(self, path: str) -> Json:
        return _decoded_json(self._exchange("GET", path, None))

    def _post(self, path: str, form: object, answer: type[T], wait_s: float = 0.0) -> T:
        return _decoded(self._exchange("POST", path, msgspec.json.encode(form), wait_s), answer)

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        wait_s: float = 0.0,
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> bytes:
        """Send one request and return the body of its answer. Foreign errors are translated here alone."""
        if not 0.0 <= wait_s <= WAIT_S_MAX:
            raise FormInvalidError(f"a wait of {wait_s:g} s is not between 0 and {WAIT_S_MAX:g} s")
        timeout_s = self.timeout_s + wait_s
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = _UnixConnection(self.socket_path, timeout_s)
        deadline = time.monotonic() + timeout_s
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = _read_bounded(response, bytes_max, deadline)
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            raise NodeNotRunningError(
                f"no Comity node listens on {self.socket_path}",
                hint=f"start it with `comity node start --home {self.socket_path.parent}`",
            ) from exc
        except TimeoutError as exc:
            raise NodeTimeoutError(
                f"the node on {self.socket_path} did not answer within {timeout_s:g} s",
                hint="`comity node status` says whether it is busy or starting",
            ) from exc
        except PermissionError as exc:
            raise NodeUnreachableError(
                f"this user may not open {self.socket_path}", hint="run as the node's user"
            ) from exc
        except OSError as exc:
            raise NodeUnreachableError(f"{self.socket_path}: {exc}") from exc
        except http.client.HTTPException as exc:
            raise AnswerInvalidError(
                f"the answer to {method} {path} is not HTTP: {type(exc).__name__}"
            ) from exc
        finally:
            connection.close()
        if response.status != http.client.OK:
            problem = _problem(response.status, data)
            if isinstance(problem, TokenWrongError) and self._token_file is not None:
                # The node cannot know which file it is in.
                hint = f"{self._token_file}: {_HINTS[problem.default_code]}"
                raise TokenWrongError(problem.message, code=problem.code, hint=hint)
            raise problem
        return data


def _quoted(text: str, safe: str = "") -> str:
    return urllib.parse.quote(text, safe=safe)


def _partition_query(partition: str | None) -> str:
    return "" if partition is None else f"?partition={_quoted(partition)}"


def _read_bounded(response: http.client.HTTPResponse, bytes_max: int, deadline: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        part = response.read(_CHUNK_BYTES)
        if not part:
            break
        size += len(part)
        if size > bytes_max:
            raise AnswerInvalidError(f"the node's answer is larger than {bytes_max} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
        parts.append(part)
    if response.length:
        # http.client ends a read(amount) at the end of the stream without saying that bytes are missing.
        raise AnswerInvalidError(f"the node's answer ends {response.length} bytes too early")
    return b"".join(parts)


def _decoded(data: bytes, answer: type[T]) -> T:
    """Read an answer: what is unknown in it is ignored, what is missing or of another type is an error."""
    try:
        return msgspec.json.decode(data, type=answer)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise _not_the_form(exc) from exc


def _decoded_json(data: bytes) -> Json:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise _not_the_form(exc) from exc


def _not_the_form(exc: Exception) -> AnswerInvalidError:
    return AnswerInvalidError(
        f"the node's answer is not the promised form: {exc}",
        hint="node and client may be of different versions",
    )


def _problem(status: int, data: bytes) -> NodeError:
    """The error that an answer other than 200 says."""
    try:
        problem = msgspec.json.decode(data, type=Problem)
    except (msgspec.DecodeError, RecursionError):
        problem = Problem(code="", message=f"the node answered with status {status} and no reason")
    kind = _ERROR_OF_CODE.get(problem.code) or _ERROR_OF_STATUS.get(status)
    if kind is None:
        kind = NodeFaultError if status >= http.client.INTERNAL_SERVER_ERROR else AnswerInvalidError
    code = problem.code or kind.default_code
    return kind(problem.message, code=code, hint=problem.hint or _HINTS.get(code, ""))
