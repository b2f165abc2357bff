"""Everything that the demo's programs import, imported once, so that its byte code is written.

    python -m demo_main.warming dagster | node

Much of it is imported only when it is used, so it is used: a job is run, a key is made.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

OF_DAGSTER: Final = ("comity.dagster_bridge.tables", "lifelines")
OF_NODES: Final = (
    "comity.gossip.libp2p_transport",
    "comity.node.api",
    "comity.node.cli",
    "comity.node.run",
    "comity.node.store_sqlite",
)
_DEFINITIONS: Final = """
import dagster as dg

@dg.asset
def nothing():
    return None

defs = dg.Definitions([nothing], jobs=[dg.define_asset_job("make")], executor=dg.in_process_executor)
"""


def warm_dagster(folder: Path) -> None:
    """What a run by Dagster's command line uses, and what the organizations' assets do."""
    definitions = folder / "definitions.py"
    definitions.write_text(_DEFINITIONS, encoding="utf-8")
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(folder)
    for name in OF_DAGSTER:
        importlib.import_module(name)
    sys.argv = ["dagster", "job", "execute", "-f", str(definitions), "-d", str(folder), "-j", "make"]
    importlib.import_module("dagster._cli").main()


def warm_nodes(folder: Path) -> None:
    """What a node and the commands use."""
    for name in OF_NODES:
        importlib.import_module(name)
    from comity.node.cli import main

    sys.argv = ["comity", "key", "new", str(folder / "key.pem"), "--json"]
    main()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        {"dagster": warm_dagster, "node": warm_nodes}[sys.argv[1]](Path(place))
