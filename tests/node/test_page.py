"""The people's page, in a real browser at nodes that run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from playwright.sync_api import Page, Route

from api_calls import submit, submit_record
from browser import Browsers, browsers
from comity.attestation.authoring import NO_SALT
from comity.node.asking import TicketWords, launch_ticket
from comity.node.client import NotPermittedError, StartForm
from comity.node.keystore import create_key
from comity.protocol.execution import Observation
from comity.protocol.governance import Revocation
from houses import RunningHouse, hand_of, short_folder
from page_visits import (
    OFFICER,
    approve,
    ask_for_pooled,
    enter,
    four,
    go,
    import_key,
    issue,
    look_at,
    make_key,
    officer,
    pair,
    pooled,
)
from world import NORTH, RULES, SOUTH, policy_body

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
TWO_NEEDS = (
    RULES
    + """
@id("steward") @mode("defer") @reason("steward_missing") @needs("approval(class=data-steward)")
forbid(principal, action == Action::"materialize", resource in DataClass::"pooled")
unless { context.approvals.contains("data-steward") };
"""
)
"""`pooled` needs two people."""


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def at() -> Iterator[Browsers]:
    with browsers() as found:
        yield found


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    """Nodes log in this process."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


def text_of(selector: str) -> Any:
    return lambda page: page.locator(selector).inner_text()


async def decided(house: RunningHouse, intent: str) -> Any:
    return await house.ask(lambda client: client.step(intent, 10.0))


# Approving


async def test_an_officer_approves_in_the_browser(place: Path, at: Browsers) -> None:
    with at.screen() as screen:
        async with four(place) as houses:
            asked = await ask_for_pooled(houses[NORTH])
            await enter(screen, houses[SOUTH])
            await officer(screen, houses[SOUTH], place)
            await screen.do(lambda page: look_at(page, asked.intent))
            shown = await houses[SOUTH].ask(lambda client: client.record(asked.intent), "reader")
            digest = await screen.do(text_of("#digest"))
            assert digest == shown["header"]["body"]["digest"]
            await screen.do(approve)
            said = await screen.do(text_of("#outcome"))
            assert said == f"Your approval was handed in, and told to {NORTH}."
            assert (await decided(houses[NORTH], asked.intent)).outcome == "execute"
            row = (await houses[NORTH].ask(lambda client: client.intent(asked.intent), "reader"))[
                "approvals"
            ][0]
            assert (row["state"], row["by"]) == ("counts", f"spiffe://{SOUTH}/operator/7f3a")
            signed = await houses[NORTH].ask(lambda client: client.record(row["approval"]), "reader")
            assert signed["body"]["shown"] == digest
            assert screen.errors == []


async def test_everything_is_done_by_the_keyboard(place: Path, at: Browsers) -> None:
    def by_keyboard(page: Page) -> list[str]:
        page.evaluate("location.hash = '#/waiting'")
        page.locator("text=Look at it and approve").wait_for()
        passed: list[str] = []

        def tab_to(wanted: str) -> None:
            for _ in range(40):
                page.keyboard.press("Tab")
                here = page.evaluate(
                    "(e => [e.innerText || e.id || e.tagName, getComputedStyle(e).outlineStyle])"
                    "(document.activeElement)"
                )
                assert here[1] == "solid", f"no focus is seen at {here[0]}"
                passed.append(here[0])
                if wanted in here[0]:
                    return
            raise AssertionError((wanted, passed))

        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.blur()")
        tab_to("Look at it and approve")
        page.keyboard.press("Enter")
        page.locator("#digest").wait_for()
        page.locator("#title:focus").wait_for()
        tab_to("approval_missing")
        page.keyboard.press("Enter")
        page.locator("details[open]").wait_for()
        tab_to("Approve")
        page.keyboard.press("Enter")
        page.locator("#sign:focus").wait_for()
        page.keyboard.press("Enter")
        page.locator("#outcome", has_text="handed in").wait_for()
        return passed

    with at.screen() as screen:
        async with pair(place) as houses:
            asked = await ask_for_pooled(houses[NORTH])
            await enter(screen, houses[SOUTH])
            await officer(screen, houses[SOUTH], place)
            await screen.do(by_keyboard)
            assert (await decided(houses[NORTH], asked.intent)).outcome == "execute"


async def test_the_own_intent_is_offered_to_nobody(place: Path, at: Browsers) -> None:
    """Whoever asked cannot approve: no button, and what is signed all the same does not count."""
    create_key(place / "own.pem")
    public = json.loads((place / "own.pub.json").read_text())
    with at.screen() as screen:
        async with pair(place) as houses:
            north = houses[NORTH]
            actions = ("approve", "materialize")
            held = await issue(
                north, place, public, actions=actions, assets=("**", "*/pooled"), classes=(OFFICER,)
            )
            holder = hand_of(north.home).holder(place / "own.pem", held)
            ticket = launch_ticket(holder, TicketWords("run-1", "study", ("pooled",)))
            form = pooled(inputs=[], ticket=_base64(ticket.encoded()))
            asked = await submit(north, form)
            assert [need.code for need in asked.needs] == ["approval"], asked
            await enter(screen, north)

            def imported(page: Page) -> None:
                go(page, "Your key")
                import_key(page, place / "own.pem")
                page.locator("text=in force").wait_for()
                look_at(page, asked.intent)

            await screen.do(imported)
            assert "somebody else has to approve it" in await screen.do(text_of("#why-not"))
            assert await screen.do(lambda page: page.locator("#approve").count()) == 0
            await screen.do(lambda page: page.evaluate(FORCE, [asked.intent, held.id.hex()]))
            # Each member judges it so.
            said = await north.ask(lambda client: client.step(asked.intent, 1.0))
            assert said.outcome == "defer"
            rows = (await north.ask(lambda client: client.intent(asked.intent), "reader"))["approvals"]
            assert [row["state"] for row in rows] == ["does not count"]


FORCE = """async ([intent, credential]) => {
  const { approval, fromBase64, hex, openIntent, toBase64 } = await import("/files/records.js");
  const { get, post } = await import("/files/server.js");
  const { heldKey } = await import("/files/keys.js");
  const key = await heldKey();
  const said = await get(`/api/intents/${intent}`, { key: key.public });
  const shown = await openIntent(fromBase64(said.record), intent);
  const person = { ...key, member: said.member, coalition: hex(shown.header.coalition), credential };
  const made = await approval(person, shown, said.now, said.now + 3600);
  return post("/api/records", { record: toBase64(made.bytes) });
}"""


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


async def test_who_is_not_entitled_is_told_why(place: Path, at: Browsers) -> None:
    with at.screen() as screen:
        async with pair(place) as houses:
            asked = await ask_for_pooled(houses[NORTH])
            south = houses[SOUTH]
            await enter(screen, south)

            async def shown(wanted: str) -> None:
                def look(page: Page) -> None:
                    page.reload()
                    page.locator(".yours", has_text=wanted).wait_for()
                    assert page.locator("#approve").count() == 0

                await screen.do(look)

            await screen.do(lambda page: look_at(page, asked.intent))
            await shown("This browser holds no key of yours")
            public = await make_key(screen)
            await screen.do(lambda page: look_at(page, asked.intent))
            await shown("No credential for the key of this browser is known here")
            await issue(south, place, public, assets=("*/released",), subject="operator/1")
            await shown(f"its assets do not include {NORTH}/pooled")
            await issue(south, place, public, classes=("data-steward",), subject="operator/2")
            await shown("nothing here waits for an approval by somebody who holds data-steward")
            await issue(south, place, public, actions=("materialize",), subject="operator/3")
            await shown("its actions do not include approve")
            taken = await issue(south, place, public, subject="operator/4")
            organization = hand_of(south.home).organization(None, bytes.fromhex(south.ready.coalition))
            body = Revocation(salt=NO_SALT, reason="withdrawn")
            await submit_record(
                south, organization.write("revocation", body, int(time.time()), subject=(taken.id,))
            )
            await shown("your credential, or one above it, was taken back")


async def test_an_approval_is_withdrawn_before_it_was_needed(place: Path, at: Browsers) -> None:
    """Two people are needed. The first takes the approval back: the second's does not suffice."""
    with at.screen() as screen:
        async with pair(place, policy=policy_body(TWO_NEEDS)) as houses:
            north, south = houses[NORTH], houses[SOUTH]
            asked = await ask_for_pooled(north)
            await enter(screen, south)
            await officer(screen, south, place)
            await screen.do(lambda page: look_at(page, asked.intent))
            await screen.do(approve)
            await screen.do(lambda page: page.locator("text=Withdraw it").click())
            await screen.do(lambda page: page.locator("#outcome", has_text="taken back").wait_for())
            assert await screen.do(text_of("#given + ul .badge")) == "withdrawn"
            # Somebody is wanted again, and may be the same.
            await screen.do(lambda page: page.locator("#approve").wait_for())
            create_key(place / "steward.pem")
            public = json.loads((place / "steward.pub.json").read_text())
            held = await issue(south, place, public, classes=("data-steward",), subject="operator/2")
            await _approve(south, place / "steward.pem", held, asked.intent)
            said = await north.ask(lambda client: client.step(asked.intent, 2.0))
            assert said.outcome == "defer"
            assert [need.parameters["class"] for need in said.needs] == [OFFICER]


async def _approve(house: RunningHouse, key: Path, held: Any, intent: str, **changes: Any) -> Any:
    """Approve with a key in a file, as `comity approve` does."""
    hand = hand_of(house.home)
    asked = await house.ask(lambda client: client.record(intent), "reader")
    digest = bytes.fromhex(asked["header"]["body"]["digest"])
    body = Observation(salt=NO_SALT, claim="approval", shown=digest, **changes)
    record = hand.holder(key, held).write(
        "observation",
        body,
        int(time.time()) - 100,
        subject=(bytes.fromhex(intent),),
        outcome="approved",
    )
    await submit_record(house, record)
    return record


async def test_a_permit_is_not_started_on_an_approval_that_was_withdrawn(place: Path, at: Browsers) -> None:
    with at.screen() as screen:
        async with pair(place) as houses:
            north, south = houses[NORTH], houses[SOUTH]
            asked = await ask_for_pooled(north)
            await enter(screen, south)
            await officer(screen, south, place)
            await screen.do(lambda page: look_at(page, asked.intent))
            await screen.do(approve)
            answer = await decided(north, asked.intent)
            assert answer.outcome == "execute"
            await screen.do(lambda page: go(page, "Your key"))
            await screen.do(lambda page: page.locator("text=Withdraw it").click())
            await screen.do(lambda page: page.locator("#outcome", has_text="taken back").wait_for())
            rows = await south.ask(lambda client: client.revocations(), "reader")
            await north.ask(lambda client: client.record(rows[0]["record"]), "reader")
            with pytest.raises(NotPermittedError) as refused:
                await north.ask(
                    lambda client: client.start(StartForm(answer.intent, answer.outputs[0].asset))
                )
            assert refused.value.code == "adverse_held"


async def test_an_approval_that_has_ended_is_asked_for_again(place: Path, at: Browsers) -> None:
    create_key(place / "own.pem")
    public = json.loads((place / "own.pub.json").read_text())
    with at.screen() as screen:
        async with pair(place) as houses:
            north, south = houses[NORTH], houses[SOUTH]
            asked = await ask_for_pooled(north)
            held = await issue(south, place, public)
            await _approve(south, place / "own.pem", held, asked.intent, not_after=int(time.time()) - 1)
            await enter(screen, south)

            def look(page: Page) -> None:
                page.locator(".card", has_text="pooled").wait_for()
                go(page, "Your key")
                import_key(page, place / "own.pem")
                page.locator("#outcome", has_text="imported").wait_for()
                look_at(page, asked.intent)
                page.locator("#approve").wait_for()

            await screen.do(look)
            assert await screen.do(text_of("#given + ul .badge")) == "expired"
            said = await north.ask(lambda client: client.step(asked.intent, 1.0))
            assert said.outcome == "defer"
            await screen.do(approve)
            assert (await decided(north, asked.intent)).outcome == "execute"


async def test_a_node_that_shows_something_else_has_nothing_signed(place: Path, at: Browsers) -> None:
    """The browser computes the id and the digest itself: a node cannot show one intent and have another signed."""
    with at.screen() as screen:
        async with pair(place) as houses:
            asked = await ask_for_pooled(houses[NORTH])
            other = await submit(houses[NORTH], pooled(run="run-2", purpose="care", inputs=[]))
            await enter(screen, houses[SOUTH])
            await officer(screen, houses[SOUTH], place)

            def spliced(route: Route) -> None:
                answer = route.fetch(max_retries=3)
                said = answer.json()
                url = route.request.url.replace(asked.intent, other.intent)
                exchanged = route.fetch(url=url, max_retries=3).json()
                route.fulfill(response=answer, json={**said, "record": exchanged["record"]})

            def altered(route: Route) -> None:
                answer = route.fetch(max_retries=3)
                said = answer.json()
                data = bytearray(_bytes(said["record"]))
                at = data.index(b"survival_study")
                data[at : at + 8] = b"research"
                route.fulfill(response=answer, json={**said, "record": _base64(bytes(data))})

            def shown(page: Page, lie: Any) -> str:
                page.unroute_all(behavior="ignoreErrors")
                page.evaluate("location.hash = '#/waiting'")
                page.locator("h1", has_text="Waiting").wait_for()
                page.route("**/api/intents/**", lie)
                page.evaluate("hash => { location.hash = hash }", f"#/intent/{asked.intent}")
                page.locator("h1", has_text="cannot be shown").wait_for()
                assert page.locator("#approve").count() == 0
                return page.locator("#outcome").inner_text()

            first = await screen.do(lambda page: shown(page, spliced))
            assert first == "the node answered with another record than was asked for"
            second = await screen.do(lambda page: shown(page, altered))
            assert second == "the body is not the one that was signed"


def _bytes(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


async def test_who_only_looks_hands_in_nothing(place: Path, at: Browsers) -> None:
    with at.screen() as screen:
        async with pair(place) as houses:
            asked = await ask_for_pooled(houses[NORTH])
            await enter(screen, houses[SOUTH], "reader")
            await officer(screen, houses[SOUTH], place)
            await screen.do(lambda page: look_at(page, asked.intent))
            await screen.do(approve)
            assert "this session only looks" in await screen.do(text_of("#outcome"))
            said = await houses[SOUTH].ask(lambda client: client.intent(asked.intent), "reader")
            assert said["approvals"] == []


# Sessions


async def test_a_session_ends_and_says_so(place: Path, at: Browsers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.node.page_sessions.SESSION_S", 2.0)
    with at.screen() as screen:
        async with pair(place) as houses:
            await enter(screen, houses[SOUTH])
            await screen.do(lambda page: page.locator("h1", has_text="No session").wait_for())
            assert "comity page" in await screen.do(text_of("main"))
            assert await screen.do(lambda page: page.locator("nav").is_hidden())


async def test_a_link_works_once(place: Path, at: Browsers) -> None:
    with at.screen() as first, at.screen() as second:
        async with pair(place) as houses:
            made = await houses[SOUTH].ask(lambda client: client.page_link(), "reader")
            await first.do(lambda page: page.goto(made["link"]))
            await first.do(lambda page: page.locator("h1", has_text="Waiting").wait_for())
            # The code is no more in the address, nor in the history.
            assert await first.do(lambda page: page.evaluate("location.href.includes('code')")) is False
            await second.do(lambda page: page.goto(made["link"]))
            await second.do(lambda page: page.locator("#status", has_text="used already").wait_for())
            assert await second.do(lambda page: page.locator("nav").is_hidden())
