"""Taking an approval back by the command, and what it is shown as then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from comity.node.client import NotPermittedError, StartForm
from comity.protocol.envelope import decode_record
from command_line import Said, comity
from houses import RunningHouse, short_folder
from page_visits import OFFICER, ask_for_pooled, pair
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


async def run(house: RunningHouse, *words: object, status: int | None = 0) -> Said:
    return await trio.to_thread.run_sync(lambda: comity(*words, "--home", house.home.path, status=status))


async def approver(house: RunningHouse, place: Path, name: str) -> tuple[Path, str]:
    """Somebody who may approve: the key, and the credential's id."""
    key = place / f"{name}.pem"
    comity("key", "new", key)
    issued: Any = await run(
        house,
        *("credential", "issue", "--subject", f"operator/{name}", "--kind", "person", "--class", OFFICER),
        *("--public", place / f"{name}.pub.json", "--action", "approve", "--asset", "*/pooled", "--json"),
    )
    return key, issued.json["credential"]


async def test_an_approval_is_taken_back_by_whoever_signed_it(place: Path) -> None:
    async with pair(place) as houses:
        north, south = houses[NORTH], houses[SOUTH]
        asked = await ask_for_pooled(north)
        key, credential = await approver(south, place, "one")
        words = ("approve", asked.intent[:12], "--key", key, "--credential", credential)
        early = await run(south, *words, "--withdraw", status=2)
        assert "signed no approval" in early.errors
        approved = (await run(south, *words, "--yes", "--json")).json
        answer = await north.ask(lambda client: client.step(asked.intent, 10.0))
        assert answer.outcome == "execute"
        other, theirs = await approver(south, place, "two")
        stranger = ("approve", asked.intent, "--key", other, "--credential", theirs, "--withdraw")
        assert "signed no approval" in (await run(south, *stranger, status=2)).errors
        written = place / "withdrawal"
        await run(south, *words, "--withdraw", "--out", written)
        assert decode_record(written.read_bytes()).header.kind == "revocation"
        said = (await run(south, *words, "--withdraw", "--json")).json
        assert [each["approval"] for each in said["withdrawn"]] == [approved["approval"]]
        assert said["withdrawn"][0]["told"] == [NORTH]
        shown = await south.ask(lambda client: client.intent(asked.intent), "reader")
        assert [row["state"] for row in shown["approvals"]] == ["withdrawn"]
        # What was permitted with it, and has not begun, does not begin where that is known.
        await north.ask(lambda client: client.record(said["withdrawn"][0]["record"]), "reader")
        with pytest.raises(NotPermittedError, match="speaks against it"):
            await north.ask(lambda client: client.start(StartForm(answer.intent, answer.outputs[0].asset)))
        assert "signed no approval" in (await run(south, *words, "--withdraw", status=2)).errors
