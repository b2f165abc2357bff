"""Dagster's GraphQL, as far as launching a run with a ticket needs it: bounded, and its errors in words.

Nothing of Dagster is imported: whoever launches needs no more than a key, a credential and an address.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import msgspec

from comity.protocol.errors import ComityError, ConfigError

ANSWER_BYTES_MAX: Final = 16 * 1_048_576
"""The list of all jobs of a large workspace."""
TIMEOUT_S: Final = 30.0
TICKET_TAG: Final = "comity/ticket"
"""Where the bridge looks for a ticket. The tag is no evidence; what is signed in it is."""

ENDED: Final = frozenset({"SUCCESS", "FAILURE", "CANCELED"})


class OrchestratorError(ComityError):
    """Dagster's webserver does not answer, or does not launch the run. The message is its own where it gave one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is: its code location and its repository there."""

    location: str
    repository: str
    job: str


@dataclass(frozen=True, slots=True)
class Launch:
    """A run that is wanted: a job, which of its assets, a partition, and what goes with it."""

    place: Place
    assets: Sequence[str] = ()
    partition: str = ""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class RunState:
    """How a run is: Dagster's word for it, and its tags."""

    run: str
    status: str
    tags: Mapping[str, str]

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class _Named(msgspec.Struct):
    name: str


class _Repository(msgspec.Struct):
    name: str
    location: _Named
    jobs: list[_Named]


class _Repositories(msgspec.Struct):
    nodes: list[_Repository]


class _RunId(msgspec.Struct):
    runId: str  # noqa: N815  Dagster's name


class _Launched(msgspec.Struct):
    run: _RunId


class _Tag(msgspec.Struct):
    key: str
    value: str


class _Run(msgspec.Struct):
    status: str
    tags: list[_Tag]


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Webserver:
    """Dagster's webserver, by its address, e.g. `http://127.0.0.1:3000`. `headers` go with every request.

    Raises:
        ConfigError: it is no address of a webserver.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f"{self.url[:200]!r} is not the address of a webserver: http://HOST:PORT")

    def find(self, job: str, location: str = "", repository: str = "") -> Place:
        """Where a job is.

        Raises:
            ConfigError: it is nowhere, or in several places.
            OrchestratorError: the webserver gives no answer.
        """
        said = self.ask(_REPOSITORIES, {}).get("repositoriesOrError")
        listed = self._read(said, _Repositories, "lists no code locations")
        found: list[Place] = []
        for node in listed.nodes:
            place = Place(node.location.name, node.name, job)
            fits = location in ("", place.location) and repository in ("", place.repository)
            if fits and any(each.name == job for each in node.jobs):
                found.append(place)
        if not found:
            raise ConfigError(f"no code location of {self.url} has a job {job!r}" + _of(location, repository))
        if len(found) > 1:
            where = ", ".join(f"{place.location}/{place.repository}" for place in found[:8])
            raise ConfigError(f"job {job!r} is in {where}: name one with --location and --repository")
        return found[0]

    def launch(self, wanted: Launch) -> str:
        """Launch a run. Answers with its id.

        Raises:
            OrchestratorError: the webserver gives no answer, or does not launch it.
        """
        tags = dict(wanted.tags)
        if wanted.partition:
            tags["dagster/partition"] = wanted.partition
        selector: dict[str, Any] = {
            "repositoryLocationName": wanted.place.location,
            "repositoryName": wanted.place.repository,
            "jobName": wanted.place.job,
        }
        if wanted.assets:
            selector["assetSelection"] = [{"path": name.split("/")} for name in wanted.assets]
        params = {
            "selector": selector,
            "mode": "default",
            "runConfigData": dict(wanted.config),
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in sorted(tags.items())]},
        }
        said = self.ask(_LAUNCH, {"params": params}).get("launchRun")
        return self._read(said, _Launched, f"does not launch {wanted.place.job}").run.runId

    def state(self, run: str) -> RunState:
        """How a run is.

        Raises:
            OrchestratorError: the webserver gives no answer, or does not know it.
        """
        said = self.ask(_RUN, {"run": run}).get("runOrError")
        found = self._read(said, _Run, f"does not know run {run}")
        return RunState(run, found.status, {tag.key: tag.value for tag in found.tags})

    def ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Send a GraphQL query and return its data.

        Raises:
            OrchestratorError: no answer, or one that is none.
        """
        data = self._post(json.dumps({"query": query, "variables": variables}).encode())
        try:
            said: Any = json.loads(data)
            found = said["data"]
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise OrchestratorError(f"{self.url} does not answer as Dagster's GraphQL does") from exc
        if not isinstance(found, dict):
            raise OrchestratorError(f"{self.url}: {_message(said)}")
        return cast("dict[str, Any]", found)

    def _read(self, said: object, form: type[_T], otherwise: str) -> _T:
        """An answer as what it is to be."""
        try:
            return msgspec.convert(said, form)
        except (msgspec.ValidationError, RecursionError) as exc:
            raise OrchestratorError(f"{self.url} {otherwise}: {_message(said)}") from exc

    def _post(self, body: bytes) -> bytes:
        parts = urllib.parse.urlsplit(self.url)
        path = f"{parts.path.rstrip('/')}/graphql"
        headers = {**self.headers, "Content-Type": "application/json"}
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            secure = ssl.create_default_context()
            connection = http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT_S, context=secure)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            data = response.read(ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as exc:
            raise OrchestratorError(f"Dagster's webserver at {self.url} gives no answer: {exc}") from exc
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise OrchestratorError(f"{self.url} answers with status {response.status}")
        if len(data) > ANSWER_BYTES_MAX:
            raise OrchestratorError(f"{self.url} answers with more than {ANSWER_BYTES_MAX} bytes")
        return data


def _of(location: str, repository: str) -> str:
    where = "/".join(each for each in (location, repository) if each)
    return f" in {where}" if where else ""


def _message(said: object) -> str:
    """What an error of Dagster's says, without its stack."""
    if not isinstance(said, dict):
        return "no reason given"
    fields = cast("dict[str, object]", said)
    listed = fields.get("errors")
    if isinstance(listed, list) and listed:
        return "; ".join(_message(each) for each in cast("list[object]", listed)[:4])
    text = fields.get("message") or fields.get("__typename")
    return text.strip()[:500].partition("\n")[0] if isinstance(text, str) else "no reason given"


_REPOSITORIES: Final = """query { repositoriesOrError { __typename
  ... on RepositoryConnection { nodes { name location { name } jobs { name } } }
  ... on PythonError { message } } }"""
_LAUNCH: Final = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on PythonError { message }
  ... on InvalidSubsetError { message }
  ... on PipelineNotFoundError { message }
  ... on UnauthorizedError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
_RUN: Final = """query($run: ID!) { runOrError(runId: $run) { __typename
  ... on Run { runId status tags { key value } }
  ... on RunNotFoundError { message }
  ... on PythonError { message } } }"""
