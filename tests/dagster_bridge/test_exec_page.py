"""The page on `comity exec`: its intent file, its program and its commands, run under a real node."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import trio

from api_calls import solo
from comity.dagster_bridge.files import sidecar_of
from command_line import problem_of
from exec_runs import END_S
from houses import environment, short_folder
from world import COLUMNS, NEEDED, NORTH

PAGE = Path(__file__).resolve().parents[2] / "docs/exec.md"
TEXT = PAGE.read_text(encoding="utf-8")


def block(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


WHOLE = """
import os, shutil
shutil.copy(os.environ["COMITY_INPUT_PATIENTS"], os.environ["COMITY_OUTPUT_RELEASED"])
"""
COMMANDS = [line.removeprefix("$ ") for line in block("console").splitlines()]


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def test_commands_of_the_page_exist() -> None:
    assert [problem_of(line) for line in COMMANDS] == [""] * len(COMMANDS)


def test_every_key_of_an_intent_file_is_on_the_page() -> None:
    from comity.dagster_bridge.process_plan import PlannedInput, PlannedOutput, ProcessPlan

    of_the_command_line = {"home", "folder", "run", "command", "wait_s", "quiet_output", "ticket"}
    keys = {*ProcessPlan.__struct_fields__} - of_the_command_line - {"inputs", "outputs"}
    for name in keys | {*PlannedInput.__struct_fields__} | {*PlannedOutput.__struct_fields__}:
        assert f"`{name}`" in TEXT, name


@pytest.mark.slow
async def test_the_example_of_the_page_under_a_real_node(place: Path) -> None:
    work = place / "work"
    (work / "own").mkdir(parents=True)
    (work / "release.toml").write_text(block("toml"))
    (work / "release.py").write_text(block("python"))
    pd.DataFrame({name: [1] * 5 + [2] * 5 + [99] for name in COLUMNS}).to_csv(work / "lung.csv", index=False)
    (work / "patients.toml").write_text(
        'step = "patients"\npurpose = "survival_study"\n'
        '[outputs.patients]\nasset = "patients"\nfile = "own/patients.csv"\nformat = "csv"\n'
    )
    async with solo(place) as house:
        home = house.home.path
        scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

        async def run(line: str, status: int = 0) -> subprocess.CompletedProcess[str]:
            words = shlex.split(line)
            done = await trio.to_thread.run_sync(
                lambda: subprocess.run(
                    [sys.executable, "-P", "-m", "comity.node.cli", *words[1:]],
                    cwd=work,
                    env=environment(COMITY_HOME=str(home), PATH=scripts),
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=END_S,
                )
            )
            assert done.returncode == status, (line, done.stdout, done.stderr)
            return done

        copy = """sh -c 'cp lung.csv "$COMITY_OUTPUT_PATIENTS"'"""
        await run(f"comity exec --intent patients.toml -- {copy}")
        said = [await run(line) for line in COMMANDS]
        written = pd.read_csv(work / "own/released.csv")
        assert (set(written.columns), len(written)) == (set(NEEDED), 10)
        assert sidecar_of(work / "own/released.csv").is_file()
        report: Any = json.loads(said[1].stdout)
        assert (report["outcome"], report["outputs"]["released"]["became"]) == ("restrict", "promoted")
        # Its lineage is that of any other step.
        assert f"{NORTH}/patients" in said[3].stdout, said[3].stdout

        # What keeps more than its permit allows is discarded, and a record says so.
        (work / "release.py").write_text(WHOLE)
        done = await run("comity exec --intent release.toml --json -- python release.py", status=1)
        report = json.loads(done.stdout)
        made = report["outputs"]["released"]
        assert (made["became"], made["causes"][0]["code"]) == ("discarded", "staged_column_not_permitted")
        assert len(pd.read_csv(work / "own/released.csv")) == 10
        why = await run(f"comity why {report['intent']} --json")
        assert [each["state"] for each in json.loads(why.stdout)["intents"][0]["work"]] == [None, "staged"]

        # An altered input is not shown to the command; a forbidden asset is refused; an unnamed one is let through.
        with (work / "own/patients.csv").open("a") as file:
            file.write("\n")
        done = await run("comity exec --intent release.toml --json -- python release.py", status=1)
        assert json.loads(done.stdout)["causes"][0]["code"] == "content_changed"
        for asset, status in (("forbidden/x", 1), ("card", 0)):
            text = (work / "patients.toml").read_text().replace('asset = "patients"', f'asset = "{asset}"')
            (work / "other.toml").write_text(text.replace("own/patients.csv", "own/other.csv"))
            await run(f"comity exec --intent other.toml -- {copy}", status)
        assert (work / "own/other.csv").is_file()

        # At tier 0 what asks for tier 1 is deferred, and says how to go on.
        text = (work / "patients.toml").read_text().replace('asset = "patients"', 'asset = "guarded"')
        (work / "other.toml").write_text(text)
        done = await run(f"comity exec --intent other.toml -- {copy}", status=75)
        assert "--run " in done.stderr
