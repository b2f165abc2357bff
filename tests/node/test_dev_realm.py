"""What `comity dev` founds is of the realm `preview/dev`, and nothing brings it into production."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from api_calls import equip, make, solo, step, submit
from comity.node import dev, dev_founding
from comity.node.client import ReadForm, StepAnswer
from comity.node.dev import REALM, REFUSED, DevFolder
from comity.protocol.identifiers import PRODUCTION, sha256
from houses import RunningHouse, short_folder, street

HELLO = "first.dev.test/hello"
WANTED = "first.dev.test/wanted"


@pytest.fixture
def folder() -> Iterator[DevFolder]:
    with short_folder() as place:
        yield DevFolder(place / "dev", kept=True)


@asynccontextmanager
async def running(folder: DevFolder) -> AsyncGenerator[list[RunningHouse]]:
    """The coalition as the product founds it, its nodes in this process."""
    await trio.to_thread.run_sync(dev_founding.found, folder)
    async with street() as here:
        houses = [await here.start(each.home) for each in folder.members]
        for house in houses:
            await house.until(lambda said: said["reachable"] == 3)
        await trio.to_thread.run_sync(dev_founding.publish_authority, folder)
        for house in houses:
            await house.until(lambda said: said["votes"] and said["governance_complete"])
        yield houses


async def make_hello(folder: DevFolder) -> StepAnswer:
    return await trio.to_thread.run_sync(dev_founding.make_first_asset, folder)


async def in_production(house: RunningHouse, *inputs: str) -> StepAnswer:
    """What a member gets that gives its automation a credential for production, which nobody can keep it from."""
    await equip(house, realms=(PRODUCTION,))
    answer = await submit(house, step("wanted", *inputs, purpose="dev"))
    shown = await house.ask(lambda client: client.intent(answer.intent), "reader")
    assert shown["realm"] == PRODUCTION
    return answer


def codes(answer: StepAnswer) -> set[str]:
    return {cause.code for cause in answer.causes}


async def test_what_it_makes_is_of_the_preview(folder: DevFolder) -> None:
    async with running(folder) as (first, *_):
        answer = await make_hello(folder)
        assert (answer.outcome, set(answer.votes.values())) == ("execute", {"execute"})
        assert len(answer.votes) == 3
        shown = await first.ask(lambda client: client.intent(answer.intent), "reader")
        assert shown["realm"] == REALM
        (made,) = (await first.ask(lambda client: client.lineage("hello"), "reader"))["actuations"]
        record = await first.ask(lambda client: client.record(made["actuation"]), "reader")
        assert record["header"]["realm"] == REALM
        for row in await first.ask(lambda client: client.credentials(), "reader"):
            assert row["realms"] == [REALM]


async def test_no_credential_makes_anything_in_production(folder: DevFolder) -> None:
    async with running(folder) as (first, *_):
        answer = await in_production(first)
        assert (answer.outcome, codes(answer)) == ("refuse", {REFUSED})
        # Every member refuses it by itself, the asking one too.
        assert list(answer.votes.values()) == ["refuse"] * 3


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ((), {"preview_input", REFUSED}),
        (("RULES",), {"preview_input", REFUSED}),
        (("RULES", "OWNER_RULES"), {"preview_input"}),
    ],
    ids=["as it is", "by the owner and by the code", "by the code alone"],
)
async def test_production_refuses_what_was_made_in_dev(
    folder: DevFolder, monkeypatch: pytest.MonkeyPatch, without: tuple[str, ...], expected: set[str]
) -> None:
    for name in without:
        monkeypatch.setattr(dev_founding, name, dev.RULES.partition('@id("preview-only")')[0])
    async with running(folder) as (first, second, _):
        await make_hello(folder)
        for house in (first, second):
            answer = await in_production(house, HELLO)
            assert (answer.outcome, codes(answer)) == ("refuse", expected)


async def test_another_coalition_does_not_admit_it(folder: DevFolder) -> None:
    content = b"content"

    def read(sidecar: str) -> ReadForm:
        return ReadForm("", WANTED, sha256(content).hex(), len(content), sidecar=sidecar)

    async with running(folder) as (first, second, _):
        sidecar = await make(first, await submit(first, step("wanted", purpose="dev")), content)
        assert (await second.ask(lambda client: client.read(read(sidecar)))).admitted
    with short_folder() as place:
        async with solo(place) as stranger:
            answer = await stranger.ask(lambda client: client.read(read(sidecar)))
            assert not answer.admitted
            rows = await stranger.ask(lambda client: client.partner_assets())
            assert rows == []


def test_its_members_are_nobodys_domain(folder: DevFolder) -> None:
    assert [each.member for each in folder.members] == ["first.dev.test", "second.dev.test", "third.dev.test"]
