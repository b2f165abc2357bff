"""One run of the benchmark `bridge`, in a process of its own: a step reads a table and writes one, governed or not.

Says in one JSON line how long the step took, by the times of its events in Dagster's own log. Everything is
imported before the run: what a step costs is not how long Python takes to find pyarrow.
"""

# Dagster reads the annotations, and pyarrow has no types.
# pyright: reportUnknownParameterType=false
from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import logging
import os
import secrets
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from comity.dagster_bridge import GovernedFilesIOManager, govern
from comity.dagster_bridge.tables import arrow_table, parse_table, table_bytes

COLUMNS = ("time", "status", "sex", "ph_ecog", "age_decade")
"""Those that the purpose needs, so that a permit withholds nothing and both write the same bytes."""
PURPOSE = "survival_study"
WAIT_S = 30.0


class PlainFiles(dg.ConfigurableIOManager):
    """The same bytes as the governed one writes, as durably: beside, flushed, renamed, the folder flushed."""

    base: str

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        path = self._path(context.asset_key)
        data = table_bytes(arrow_table(obj), "parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{secrets.token_hex(8)}")
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)

    def load_input(self, context: dg.InputContext) -> object:
        return parse_table(self._path(context.asset_key).read_bytes(), "parquet", as_arrow=True)

    def _path(self, key: dg.AssetKey) -> Path:
        return Path(self.base).joinpath(*key.path).with_suffix(".parquet")


def table(size: int) -> pa.Table:
    """A table of about that many bytes that no compression makes smaller, the same every time."""
    rows = size // (8 * len(COLUMNS))
    data = hashlib.shake_256(b"bench").digest(rows * 8 * len(COLUMNS))
    whole = pa.py_buffer(data)
    columns = [
        pa.Array.from_buffers(pa.int64(), rows, [None, whole.slice(i * rows * 8, rows * 8)])
        for i in range(len(COLUMNS))
    ]
    return pa.table(dict(zip(COLUMNS, columns, strict=True)))


def assets(size: int) -> list[dg.AssetsDefinition]:
    @dg.asset(key=["plain", f"source-{size}"])
    def source() -> pa.Table:
        return table(size)

    @dg.asset(key=["plain", f"made-{size}"], ins={"given": dg.AssetIn(key=["plain", f"source-{size}"])})
    def made(given: pa.Table) -> pa.Table:
        return given

    return [source, made]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Materialize one asset. Answers with seconds and the digest of what was written."""
    parts = assets(options.size)
    governed = options.kind == "governed"
    manager: Any = PlainFiles(base=str(options.base))
    if governed:
        govern(dg.Definitions(assets=parts), home=options.home, purpose=PURPOSE, wait_max_s=WAIT_S)
        manager = GovernedFilesIOManager(base=str(options.base), home=str(options.home))
    key = dg.AssetKey(["plain", f"{options.asset}-{options.size}"])
    with dg.DagsterInstance.local_temp(str(options.instance)) as instance:
        began = time.perf_counter()
        result = dg.materialize(
            parts,
            selection=dg.AssetSelection.assets(key),
            resources={"io_manager": manager},
            instance=instance,
            raise_on_error=False,
        )
        whole = time.perf_counter() - began
        if not result.success:
            failed = [event.message for event in result.all_events if event.is_failure]
            raise SystemExit(f"the run failed: {failed}")
        at = {
            entry.dagster_event.event_type_value: entry.timestamp
            for entry in instance.all_logs(result.run_id)
            if entry.dagster_event is not None and entry.dagster_event.step_key is not None
        }
    data = options.base.joinpath(*key.path).with_suffix(".parquet").read_bytes()
    return {
        "step": at["STEP_SUCCESS"] - at["STEP_START"],
        "run": whole,
        "bytes": len(data),
        "digest": hashlib.sha256(data).hexdigest(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("governed", "plain"))
    parser.add_argument("asset", choices=("source", "made"))
    parser.add_argument("size", type=int)
    parser.add_argument("base", type=Path)
    parser.add_argument("instance", type=Path)
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    for module in ("pyarrow.compute", "pyarrow.parquet"):
        importlib.import_module(module)  # otherwise at first use, inside of the step
    # What Dagster says to a person costs both kinds alike, and nobody reads it here.
    logging.disable(logging.CRITICAL)
    print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
