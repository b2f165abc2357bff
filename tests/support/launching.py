"""A code location to launch runs of, with a scripted node."""

from __future__ import annotations

import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster_queue import Queue, queue
from fake_node import FakeNode

DEFINITIONS = """
import dagster as dg
from comity.dagster_bridge import govern

daily = dg.StaticPartitionsDefinition(["mon", "tue", "wed", "thu"])

@dg.asset
def a(): ...

@dg.asset(deps=[a])
def b(): ...

@dg.asset(deps=[b])
def c(): ...

@dg.asset
def other(): ...

@dg.asset
def free(): ...

@dg.asset(partitions_def=daily, backfill_policy=dg.BackfillPolicy.single_run())
def days(): ...

@dg.multi_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec("right")])
def whole(): ...

@dg.multi_asset(specs=[dg.AssetSpec("one", skippable=True), dg.AssetSpec("two", skippable=True)], can_subset=True)
def parts(): ...

@dg.op
def nothing(): ...

@dg.job
def plain():
    nothing()

defs = dg.Definitions(assets=[a, b, c, other, free, days, whole, parts], jobs=[plain])
GOVERN
"""


@contextmanager
def launching(
    place: Path, node: FakeNode, govern: str = "", definitions: str = DEFINITIONS, **settings: Any
) -> Generator[Queue]:
    file = place / "launched_definitions.py"
    line = govern or f'govern(defs, home="{node.home}", purpose="care", code_root="{place}")'
    file.write_text(textwrap.dedent(definitions).replace("GOVERN", line))
    with queue(place / "dagster", file, node.home, **settings) as made:
        yield made
