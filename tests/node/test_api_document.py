"""The OpenAPI document held against the node: whatever is sent, the answer is one that the document describes.

schemathesis makes requests from the document, sound ones and unsound ones, with the tokens of every role. The same
seed makes the same requests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import requests
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api_calls import equip, make, step, submit
from comity.node.config import read_config, write_config
from comity.node.home import ROLES
from houses import RunningHouse, found, inhabited, short_folder
from unix_session import unix_session
from world import NORTH

PAGE = "127.0.0.1:0"
SOUND = 4
"""Requests of each operation and role that are as the document says."""
UNSOUND = 4
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    negative_data_rejection,
]


NEVER_SOUND = {
    f"POST /v1/{name}"
    for name in (
        "reads",
        "starts",
        "actuations",
        "checks",
        "discards",
        "records",
        "verifications",
        "verifications/withdrawals",
    )
}
"""What is made at random names no asset, start or record that is there."""


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@dataclass
class Asking:
    """One role's requests, and what they were answered."""

    session: requests.Session
    token: str
    answered: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    failures: list[str] = field(default_factory=list[str])

    def ask(self, case: Case[Any]) -> None:
        case.headers["Authorization"] = f"Bearer {self.token}"
        response = case.call(base_url="http://node", session=self.session)
        label = f"{case.method.upper()} {case.path}"
        self.answered.setdefault(label, set()).add(response.status_code)
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as group:
            self.failures += [f"{label} {response.status_code}: {each!r:.400}" for each in group.exceptions]

    def try_all(self, operation: Any, mode: GenerationMode, examples: int) -> None:
        @settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.filter_too_much,
                HealthCheck.data_too_large,
            ],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def tried(case: Case[Any]) -> None:
            self.ask(case)

        tried()


async def lived_in(house: RunningHouse) -> dict[str, list[str]]:
    """Something for every route to find: the values of its path's parameters."""
    await equip(house)
    made = await submit(house, step("plain/a", run="run-1"))
    await make(house, made, b"the bytes")
    refused = await submit(house, step("forbidden/a", run="run-2"))
    read = await house.ask(lambda client: client.status(), "reader")
    asset = f"{NORTH}/plain/a"
    ids = [made.intent, made.permit, refused.intent]
    return {
        "intent": [made.intent, refused.intent],
        "decision": [made.permit, refused.intent],
        "named": ids,
        "record": [*ids, read["coalition"]],
        "beginning": [made.intent[:8]],
        "name": [asset, made.permit],
    }


@pytest.mark.slow
async def test_every_answer_is_one_that_the_document_describes(place: Path) -> None:
    homes = found(place, (NORTH,))
    home = homes[NORTH]
    settled = read_config(home.config)
    write_config(
        home.config,
        type(settled)(
            settled.member, settled.node, purpose="care", wait_default_s=0, wait_max_s=1, page_listen=PAGE
        ),
        replace=True,
    )
    async with inhabited(homes) as houses:
        known = await lived_in(houses[NORTH])

        def tried() -> list[Asking]:
            done: list[Asking] = []
            session = unix_session(home.socket)
            for role in ROLES:
                asking = Asking(session, home.token(role).read_text().strip())
                document = session.get(
                    "http://node/openapi.json",
                    headers={"Authorization": f"Bearer {asking.token}"},
                    timeout=10,
                )
                schema = schemathesis.openapi.from_dict(document.json())
                for result in schema.get_all_operations():
                    operation = cast("Any", result).ok()
                    _ask_for_what_is_there(asking, operation, known)
                    allowed = 403 not in asking.answered.get(operation.label, set())
                    asking.try_all(operation, GenerationMode.POSITIVE, SOUND if allowed else 1)
                    if not allowed:
                        continue
                    # Where nothing is taken, or any text, nothing is unsound.
                    with contextlib.suppress(Unsatisfiable):
                        asking.try_all(operation, GenerationMode.NEGATIVE, UNSOUND)
                done.append(asking)
            return done

        done = await trio.to_thread.run_sync(tried)
    assert [each for asking in done for each in asking.failures] == []
    # Nothing was left out, and what has an answer was found by somebody.
    everything = {label for asking in done for label in asking.answered}
    assert all(asking.answered.keys() == everything for asking in done)
    found_by = {label: set[int]() for label in everything}
    for asking in done:
        for label, statuses in asking.answered.items():
            found_by[label] |= statuses
    assert {label for label, statuses in found_by.items() if 200 not in statuses} == NEVER_SOUND
    assert all(403 in statuses for statuses in found_by.values())


def _ask_for_what_is_there(asking: Asking, operation: Any, known: dict[str, list[str]]) -> None:
    """So that answers of every sort are looked at: what is made at random is never there."""
    if operation.method.upper() != "GET":
        return
    names = [each.name for each in operation.path_parameters]
    for value in known[names[0]] if names else [""]:
        asking.ask(operation.Case(path_parameters=dict.fromkeys(names, value)))
