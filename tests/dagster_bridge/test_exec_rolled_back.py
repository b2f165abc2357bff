"""Under a real node: what `comity exec` made and was found wrong gives way to the version before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from api_calls import solo
from comity.node.client import VerificationForm
from exec_runs import Bench, Done
from houses import RunningHouse, short_folder

INTENT = """
step = "{asset}"
purpose = "survival_study"
{inputs}
[outputs.made]
asset = "plain/{asset}"
file = "own/{asset}.csv"
format = "csv"
versions = 1
"""
READS_A = '[inputs.a]\nasset = "plain/a"\nfile = "own/a.csv"\n'


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


async def run(bench: Bench, asset: str, script: str, inputs: str = "") -> Any:
    bench.intent.write_text(INTENT.format(asset=asset, inputs=inputs))
    done: Done = await trio.to_thread.run_sync(lambda: bench.run("--json", command=("sh", "-c", script)))
    assert done.status == 0, done
    return done.json["outputs"]["made"]["actuation"]


async def fail(house: RunningHouse, version: str) -> None:
    form = VerificationForm(version, "failed")
    assert (await house.ask(lambda client: client.verify_version(form), "operator")).counts


@pytest.mark.slow
@pytest.mark.parametrize("read_in_between", [True, False])
async def test_a_version_that_was_found_wrong_gives_way(place: Path, *, read_in_between: bool) -> None:
    async with solo(place) as house:
        bench = Bench(place / "work", house.home.path)
        for number in (1, 2, 3):
            version = await run(bench, "a", f'printf "n\\n{number}\\n" > "$COMITY_OUTPUT_MADE"')
            if number == 1:
                continue
            await fail(house, version)
            if read_in_between:
                await run(bench, "b", 'cp "$COMITY_INPUT_A" "$COMITY_OUTPUT_MADE"', READS_A)
                assert (bench.own / "b.csv").read_text() == (bench.own / "a.csv").read_text() == "n\n1\n"
        # Of each the store keeps one version before, and that is the one that stands.
        await run(bench, "b", 'cp "$COMITY_INPUT_A" "$COMITY_OUTPUT_MADE"', READS_A)
        assert (bench.own / "b.csv").read_text() == "n\n1\n"
