"""What somebody found who looked at a version, by the command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trio

from api_calls import make, solo, step, submit
from command_line import Said, comity
from houses import RunningHouse, short_folder
from world import NORTH

A = f"{NORTH}/plain/a"


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


async def run(house: RunningHouse, *words: object, status: int = 0) -> Said:
    return await trio.to_thread.run_sync(lambda: comity(*words, "--home", house.home.path, status=status))


async def versions(house: RunningHouse, *contents: bytes) -> None:
    for number, content in enumerate(contents):
        form = step("plain/a", run=f"run-{number}")
        form.outputs[0] = type(form.outputs[0])("plain/a", media_type="text/csv", reversible=True)
        await make(house, await submit(house, form), content)


async def test_bytes_that_are_others_fail_and_the_version_goes_back(place: Path) -> None:
    async with solo(place) as house:
        await versions(house, b"first", b"second")
        file = place / "a.csv"
        file.write_bytes(b"second")
        right = await run(house, "verification", "publish", "plain/a", "--file", file)
        assert right.output.startswith(f"passed: {A}, ")
        file.write_bytes(b"changed")
        wrong = await run(house, "verification", "publish", "plain/a", "--file", file, status=1)
        assert "content_changed: " in wrong.output
        assert "it counts" in wrong.output
        listed = (await run(house, "verification", "list", "plain/a", "--json")).json
        assert (listed["generation"], listed["said"]) == (1, [])
        shown = (await run(house, "lineage", "show", "plain/a", "--json")).json
        assert shown["actuations"][0]["generation"] == 1


async def test_what_was_said_is_listed_and_taken_back(place: Path) -> None:
    async with solo(place) as house:
        await versions(house, b"first")
        words = ("verification", "publish", "plain/a", "--failed", "--check", "row_count_wrong", "--json")
        said = (await run(house, *words)).json
        assert (said["asset"], said["outcome"], said["counts"]) == (A, "failed", True)
        listed = await run(house, "verification", "list", said["actuation"])
        assert "generation 1" in listed.output
        assert "quarantined" in listed.output
        assert "row_count_wrong" in listed.output
        told = await run(house, "lineage", "show", said["actuation"])
        assert "quarantined: may not be used, actuation_quarantined, verification_failed" in told.output
        await run(house, "verification", "withdraw", said["verification"][:16])
        again = (await run(house, "verification", "list", said["actuation"], "--json")).json
        rows = {row["kind"]: (row["counts"], row["withdrawn"]) for row in again["said"]}
        assert rows == {"verification": (False, True), "actuation": (True, False)}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("publish", "plain/a"), "--file"),
        (("publish", "plain/a", "--failed", "--passed"), "not both"),
        (("publish", "plain/a", "--failed", "--check", "No Code!"), "No Code!"),
        (("publish", "plain/a", "--file", "/no/such/file"), "/no/such/file"),
        (("publish", "plain/none", "--failed"), "no promoted actuation"),
        (("list", "plain/none"), "no promoted actuation"),
        (("withdraw", "00" * 32), "0 records"),
    ],
)
async def test_what_is_wrong_is_said(place: Path, words: tuple[str, ...], problem: str) -> None:
    async with solo(place) as house:
        await versions(house, b"first")
        said = await trio.to_thread.run_sync(
            lambda: comity("verification", *words, "--home", house.home.path, status=None)
        )
        assert said.status in (1, 2)
        assert problem in said.errors
