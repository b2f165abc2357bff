"""Dagster's own command runs a governed job in processes of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fake_node import FakeNode, execute, refused, restricted

DEFINITIONS = """
import os
import dagster as dg
import pandas as pd
from comity.dagster_bridge import GovernedFilesIOManager, govern

@dg.asset
def released() -> pd.DataFrame:
    return pd.DataFrame({"time": [1, 2], "inst": [7, 8]})

@dg.asset
def pooled(released: pd.DataFrame) -> pd.DataFrame:
    return released

@dg.asset
def refused_one() -> None:
    raise AssertionError("this function must not run")

defs = govern(
    dg.Definitions(
        assets=[released, pooled, refused_one],
        jobs=[dg.define_asset_job("study")],
        resources={"io_manager": GovernedFilesIOManager(base=os.environ["BASE"])},
        executor=dg.multiprocess_executor.configured(
            {
                "max_concurrent": 2,
                # Each step has a process of its own; libraries are loaded once for all of them.
                "start_method": {"forkserver": {"preload_modules": ["comity.dagster_bridge.tables"]}},
            }
        ),
    ),
    wait_max_s=5.0,
)
"""


@pytest.mark.slow
def test_a_job_of_several_processes_is_gated_and_bound(node: FakeNode, tmp_path: Path) -> None:
    node.decisions = {"released": restricted(["time"]), "pooled": execute, "refused_one": refused}
    file = tmp_path / "definitions.py"
    file.write_text(DEFINITIONS)
    (tmp_path / "dagster").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "job", "execute", "-f", str(file), "-j", "study"],
        env={
            **os.environ,
            "BASE": str(tmp_path / "own"),
            "COMITY_HOME": str(node.home),
            "DAGSTER_HOME": str(tmp_path / "dagster"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Comity: step refused_one is refused: the purpose is not allowed" in done.stderr
    assert "this function must not run" not in done.stderr
    assert pq.read_table(tmp_path / "own" / "pooled.parquet").to_pydict() == {"time": [1, 2]}
    assert [(each.asset, bool(each.intent)) for each in node.reads] == [("released", True)]
    # Every process measured the same code, in the same environment.
    assert {form.step for form in node.steps} == {"released", "pooled", "refused_one"}
    assert len({(form.code, form.run) for form in node.steps}) == 1
    assert len({form.context.distributions for form in node.steps if form.context is not None}) == 1
