"""What people do at the page of a node, and the nodes that they do it at; for tests and for the pictures."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from api_calls import equip, make, step, submit, submit_record
from browser import Screen
from comity.node.client import ContextForm, StepAnswer, StepForm
from comity.node.config import read_config, write_config
from comity.node.credentialing import Wish, issued
from comity.node.home import Home
from comity.protocol.envelope import SignedRecord
from comity.protocol.identifiers import sha256
from houses import RunningHouse, found, hand_of, inhabited
from world import FOUR, NORTH, SOUTH

DIGEST = sha256(b"measured").hex()
CONTEXT = ContextForm("cpython-3.11.7", "linux-x86_64", DIGEST, 3, DIGEST, 1)
OFFICER = "data-protection-officer"


def with_page(home: Home, listen: str = "127.0.0.1:0", **changes: Any) -> None:
    """Set a node to serve its page, before it runs."""
    config = read_config(home.config)
    write_config(home.config, replace(config, page_listen=listen, **changes), replace=True)


@asynccontextmanager
async def four(place: Path) -> AsyncGenerator[dict[str, RunningHouse]]:
    """Four members, as `pair`."""
    async with pair(place, FOUR) as houses:
        yield houses


@asynccontextmanager
async def pair(
    place: Path, members: Sequence[str] = (NORTH, SOUTH), **options: Any
) -> AsyncGenerator[dict[str, RunningHouse]]:
    """Two members. The first asks, and has a page; so has the second, where the officer is."""
    homes = found(place, members, **options)
    for member in (NORTH, SOUTH):
        with_page(homes[member])
    async with inhabited(homes) as houses:
        await equip(houses[NORTH])
        yield houses


def pooled(**changes: Any) -> StepForm:
    """A step that waits for a data protection officer's approval."""
    wanted = {"context": CONTEXT, "purpose": "survival_study", "wait_s": 0.3} | changes
    return step("pooled", "patients", **wanted)


async def ask_for_pooled(north: RunningHouse, **changes: Any) -> StepAnswer:
    """Have a clinic ask for what waits then."""
    await make(north, await submit(north, step("patients", context=CONTEXT, purpose="survival_study")), b"p")
    asked = await submit(north, pooled(**changes))
    assert asked.outcome == "defer", asked
    return asked


async def enter(screen: Screen, house: RunningHouse, role: Any = "operator") -> str:
    """Come in by a link. Answers with the page's address."""
    made = await house.ask(lambda client: client.page_link(), role)
    link = str(made["link"])
    await screen.do(lambda page: page.goto(link))
    await screen.do(lambda page: page.locator("h1", has_text="Waiting").wait_for())
    return link.partition("#")[0]


def go(page: Page, view: str) -> None:
    """Follow a link of the navigation."""
    page.locator("nav a", has_text=view).click()
    page.locator("h1").wait_for()


async def make_key(screen: Screen) -> dict[str, str]:
    """Make the person's key in the browser. Answers with its public half."""

    def made(page: Page) -> str:
        go(page, "Your key")
        page.locator("#make").click()
        return page.locator("#companion").inner_text()

    said: dict[str, str] = json.loads(await screen.do(made))
    return said


def import_key(page: Page, file: Path, passphrase: str = "") -> None:
    """Take a key from a file, at the view *Your key*."""
    page.locator("#pem").set_input_files(file)
    page.locator("#passphrase").fill(passphrase)
    page.locator("#import").click()


async def issue(house: RunningHouse, place: Path, public: dict[str, str], **changes: Any) -> SignedRecord:
    """Have the organization issue a credential for the key of a browser."""
    file = place / f"{public['public'][:12]}.pub.json"
    file.write_text(json.dumps(public))
    wish = replace(
        Wish("operator/7f3a", "person", (OFFICER,), public=file, actions=("approve",), assets=("*/pooled",)),
        **changes,
    )
    record, _ = issued(hand_of(house.home), wish)
    await submit_record(house, record)
    return record


async def officer(screen: Screen, house: RunningHouse, place: Path, **changes: Any) -> SignedRecord:
    """Somebody with a key in the browser, and a credential to approve."""
    return await issue(house, place, await make_key(screen), **changes)


def look_at(page: Page, intent: str) -> None:
    """Open the page of one intent."""
    page.evaluate("hash => { location.hash = hash }", f"#/intent/{intent}")
    page.locator("#digest").wait_for()


def approve(page: Page) -> None:
    """Press the buttons."""
    page.locator("#approve").click()
    page.locator("#sign").click()
    page.locator("#outcome").wait_for()
