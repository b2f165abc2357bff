"""What was staged and not promoted is on the record, and nobody takes it for lineage."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api_calls import make, solo, step, submit
from comity.node.client import (
    DiscardForm,
    FormInvalidError,
    NodeClient,
    NodeError,
    NotPermittedError,
    ReadForm,
    StartForm,
    StepAnswer,
    TermForm,
)
from comity.protocol.identifiers import sha256
from houses import RunningHouse, short_folder
from world import NORTH

ASSET = f"{NORTH}/plain/a"
CONTENT = b"more than is permitted"
WHY = TermForm(
    "staged_column_not_permitted", {"column": "inst"}, message="it has a column that is not permitted"
)


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


async def begun(house: RunningHouse) -> tuple[StepAnswer, DiscardForm]:
    answer = await submit(house, step("plain/a"))
    started = await house.ask(partial(NodeClient.start, form=StartForm(answer.intent, ASSET)))
    digest = sha256(CONTENT).hex()
    return answer, DiscardForm(answer.intent, started.start, ASSET, digest, len(CONTENT), "text/csv", [WHY])


async def discard(house: RunningHouse, form: DiscardForm) -> Any:
    return await house.ask(partial(NodeClient.discard, form=form))


async def test_a_discarded_version_is_on_the_record_with_its_reason(place: Path) -> None:
    async with solo(place) as house:
        answer, form = await begun(house)
        said = await discard(house, form)
        staged = await house.ask(lambda client: client.record(said.actuation), "reader")
        assert (staged["header"]["outcome"], staged["body"]["content"]["size"]) == ("staged", len(CONTENT))
        failed = await house.ask(lambda client: client.record(said.verification), "reader")
        assert (failed["header"]["outcome"], failed["header"]["subject"]) == ("failed", [said.actuation])
        assert [check["code"] for check in failed["body"]["checks"]] == ["staged_column_not_permitted"]
        # It is nobody's lineage: not read, no head, and the permit is still good for another attempt.
        read = ReadForm("", ASSET, form.digest, form.size)
        assert not (await house.ask(partial(NodeClient.read, form=read))).admitted
        again = await submit(house, step("plain/a"))
        assert again.intent == answer.intent
        await make(house, again, b"within")
        lineage = await house.ask(lambda client: client.lineage(ASSET), "reader")
        assert said.actuation not in str(lineage)


async def test_what_was_promoted_is_not_discarded(place: Path) -> None:
    async with solo(place) as house:
        answer, form = await begun(house)
        await make(house, answer, b"within")
        with pytest.raises(NotPermittedError) as caught:
            await discard(house, form)
        assert caught.value.code == "permit_used"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"start": "00" * 32}, "start_unknown"),
        ({"asset": f"{NORTH}/plain/b"}, "start_unknown"),
        ({"digest": "short"}, "form_invalid"),
        ({"causes": [TermForm("No Code!")]}, "form_invalid"),
        ({"causes": [TermForm("x", {"long": "y" * 300})]}, "form_invalid"),
        ({"media_type": "y" * 300}, "actuation_unwritable"),
    ],
)
async def test_a_discard_that_says_nothing_of_the_work(
    place: Path, changes: dict[str, Any], code: str
) -> None:
    async with solo(place) as house:
        _, form = await begun(house)
        with pytest.raises(NodeError) as caught:
            await discard(house, dataclasses.replace(form, **changes))
        assert caught.value.code == code
        assert code != "form_invalid" or isinstance(caught.value, FormInvalidError)


async def test_many_reasons_are_cut_to_what_a_record_names(place: Path) -> None:
    async with solo(place) as house:
        _, form = await begun(house)
        causes = [TermForm("staged_column_not_permitted", {"number": n}) for n in range(200)]
        said = await discard(house, dataclasses.replace(form, causes=causes))
        failed = await house.ask(lambda client: client.record(said.verification), "reader")
        assert len(failed["body"]["checks"]) == 64
