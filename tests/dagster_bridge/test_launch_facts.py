"""What a launch says of a run's steps is what each step says of itself, to the letter: so it finds its intent again."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from comity.node.launches import step_form
from fake_node import FakeNode, execute, fake_home
from launching import launching

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
]

HEAD = """
import dagster as dg
from comity.dagster_bridge import govern

days = dg.StaticPartitionsDefinition(["mon", "tue", "wed"])
hours = dg.DailyPartitionsDefinition(start_date="2026-01-01")
grid = dg.MultiPartitionsDefinition({"day": days, "place": dg.StaticPartitionsDefinition(["x", "y"])})
people = dg.DynamicPartitionsDefinition(name="people")

@dg.asset
def source(): return 1

partner = dg.AssetSpec("south_released", metadata={"comity/asset": "clinic-south.example/released"})
"""
TAIL = """
GOVERN
"""

FORMS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "asset": ("@dg.asset\ndef x(): return 1\nmade = [x]", ["x"], {}),
    "asset with an input": ("@dg.asset\ndef x(source): return 1\nmade = [source, x]", ["x"], {}),
    "asset with a dependency": ("@dg.asset(deps=[source])\ndef x(): return 1\nmade = [source, x]", ["x"], {}),
    "asset of a partner's": ("@dg.asset(deps=[partner])\ndef x(): return 1\nmade = [partner, x]", ["x"], {}),
    "asset with a prefix": (
        "@dg.asset(key_prefix=['deep', 'er'], deps=[source])\ndef x(): return 1\nmade = [source, x]",
        ["deep/er/x"],
        {},
    ),
    "asset with declared columns": (
        (
            "schema = dg.TableSchema([dg.TableColumn('one'), dg.TableColumn('two')])\n"
            "@dg.asset(metadata={'dagster/column_schema': schema})\ndef x(): return 1\nmade = [x]"
        ),
        ["x"],
        {},
    ),
    "multi asset": (
        (
            "@dg.multi_asset(specs=[dg.AssetSpec('l', deps=[source]), dg.AssetSpec('r')])\n"
            "def x():\n    yield dg.MaterializeResult('l')\n    yield dg.MaterializeResult('r')\nmade = [source, x]"
        ),
        ["l", "r"],
        {},
    ),
    "part of a multi asset": (
        (
            "@dg.multi_asset(specs=[dg.AssetSpec('l', deps=[source], skippable=True),"
            " dg.AssetSpec('r', skippable=True)], can_subset=True)\n"
            "def x(context):\n    for key in context.selected_asset_keys: yield dg.MaterializeResult(key)\n"
            "made = [source, x]"
        ),
        ["r"],
        {},
    ),
    "graph asset": (
        (
            "@dg.op\ndef one(value): return value\n@dg.op\ndef two(value): return value\n"
            "@dg.graph_asset\ndef x(source): return two(one(source))\nmade = [source, x]"
        ),
        ["x"],
        {},
    ),
    "graph multi asset": (
        (
            "@dg.op(out={'l': dg.Out(), 'r': dg.Out()})\ndef both():\n"
            "    yield dg.Output(1, 'l')\n    yield dg.Output(1, 'r')\n"
            "@dg.graph_multi_asset(outs={'l': dg.AssetOut(), 'r': dg.AssetOut()})\ndef x(): return both()\nmade = [x]"
        ),
        ["l", "r"],
        {},
    ),
    "static partition": (
        "@dg.asset(partitions_def=days)\ndef x(): return 1\nmade = [x]",
        ["x"],
        {"partition": "tue"},
    ),
    "partition that reads the same of another": (
        (
            "@dg.asset(partitions_def=days)\ndef up(): return 1\n"
            "@dg.asset(partitions_def=days, deps=[up])\ndef x(): return 1\nmade = [up, x]"
        ),
        ["x"],
        {"partition": "tue"},
    ),
    "partition that reads all of another": (
        (
            "@dg.asset(partitions_def=days)\ndef up(): return 1\n"
            "@dg.asset(deps=[dg.AssetDep(up, partition_mapping=dg.AllPartitionMapping())])\ndef x(): return 1\n"
            "made = [up, x]"
        ),
        ["x"],
        {},
    ),
    "day that reads the day before": (
        (
            "@dg.asset(partitions_def=hours, deps=[dg.AssetDep('x',"
            " partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1))])\n"
            "def x(): return 1\nmade = [x]"
        ),
        ["x"],
        {"partition": "2026-01-03"},
    ),
    "range of partitions": (
        (
            "@dg.asset(partitions_def=days, backfill_policy=dg.BackfillPolicy.single_run())\n"
            "def x(): ...\nmade = [x]"
        ),
        ["x"],
        {"partition": "mon", "last": "tue"},
    ),
    "partition of two dimensions": (
        "@dg.asset(partitions_def=grid)\ndef x(): return 1\nmade = [x]",
        ["x"],
        {"partition": "mon|y"},
    ),
    "dynamic partition": (
        "@dg.asset(partitions_def=people)\ndef x(): return 1\nmade = [x]",
        ["x"],
        {"partition": "p-17"},
    ),
    "asset with a check": (
        (
            "@dg.asset(check_specs=[dg.AssetCheckSpec('good', asset='x')])\n"
            "def x():\n    yield dg.Output(1)\n    yield dg.AssetCheckResult(passed=True)\nmade = [x]"
        ),
        ["x"],
        {},
    ),
}


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as running:
        running.governs("*/**")
        yield running


def loaded(file: Path) -> dg.Definitions:
    spec = importlib.util.spec_from_file_location(f"again_{abs(hash(file))}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    defs: dg.Definitions = module.defs
    return defs


@pytest.mark.parametrize("form", list(FORMS))
def test_a_step_says_what_its_launch_has_said(tmp_path: Path, node: FakeNode, form: str) -> None:
    body, select, options = FORMS[form]
    text = f"{HEAD}\n{body}\ndefs = dg.Definitions(assets=made)\n{TAIL}"
    govern = (
        f'govern(defs, home="{node.home}", purpose="care", code_root="{tmp_path}", revision="7",'
        ' unbound_reads="allow", unbound_writes="allow", wait_max_s=0)'
    )
    with launching(tmp_path, node, govern, text) as made:
        if form == "dynamic partition":
            made.instance.add_dynamic_partitions("people", ["p-17"])
        run = made.submit(*select, **options)
        made.turn()
        (launched,) = node.launches
        assert launched.later == []
        job = loaded(tmp_path / "launched_definitions.py").resolve_implicit_global_asset_job_def()
        job.get_subset(asset_selection={dg.AssetKey(name.split("/")) for name in select}).execute_in_process(
            instance=made.instance,
            partition_key=None if "last" in options else options.get("partition"),
            tags=dict(made.run(run).tags),
            raise_on_error=False,
        )
        said = {each.step: each for each in node.steps}
        for unit in launched.steps:
            own = said[unit.step]
            asked = step_form(launched, unit)
            # The run is another one here, which was started by hand and from no code location.
            same = replace(own, run=asked.run, location=asked.location, wait_s=0.0, checks=[])
            assert same == replace(asked, wait_s=0.0)


def test_a_run_of_many_steps_is_asked_for_in_one_question(tmp_path: Path, node: FakeNode) -> None:
    text = """
import dagster as dg
from comity.dagster_bridge import govern

def made(name, *deps):
    @dg.asset(name=name, deps=list(deps))
    def x(): ...
    return x

near = [made(f"near_{n}") for n in range(300)]
far = [made(f"far_{n}", "near_0") for n in range(80)]
defs = dg.Definitions(assets=[*near, *far])
GOVERN
"""
    with launching(tmp_path, node, definitions=text) as made:
        run = made.submit()
        made.turn()
        (form,) = node.launches
        # What does not fit into it asks for itself when it begins.
        assert (len(form.steps), len(form.later)) == (256, 64)
        assert list(made.launched) == [run]
