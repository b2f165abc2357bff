"""The Dagster bridge: one line in `definitions.py` puts a node's decision before every step.

from comity.dagster_bridge import GovernedFilesIOManager, govern, partner_assets

defs = govern(dg.Definitions(assets=[*my_assets, *partner_assets()], resources={...}))

Each name is imported when it is first asked for: what keeps files under a permit needs no Dagster, and `comity exec`
uses that alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from comity.dagster_bridge.coordinator import GovernedRunCoordinator
    from comity.dagster_bridge.duckdb_io_manager import GovernedDuckDBIOManager
    from comity.dagster_bridge.duckdb_storage import WrittenTable
    from comity.dagster_bridge.failures import (
        GovernanceFailure,
        InputMissing,
        NodeUnavailable,
        ReadRefused,
        StepDeferred,
        StepRefused,
        WriteRefused,
    )
    from comity.dagster_bridge.files_io_manager import GovernedFilesIOManager
    from comity.dagster_bridge.governed_definitions import govern
    from comity.dagster_bridge.launcher import GovernedRunLauncher
    from comity.dagster_bridge.partner_versions import partner_sensor
    from comity.dagster_bridge.partners import partner_assets
    from comity.dagster_bridge.requester import Requester, TicketFacts
    from comity.dagster_bridge.storage import WrittenFile

__all__ = [
    "GovernanceFailure",
    "GovernedDuckDBIOManager",
    "GovernedFilesIOManager",
    "GovernedRunCoordinator",
    "GovernedRunLauncher",
    "InputMissing",
    "NodeUnavailable",
    "ReadRefused",
    "Requester",
    "StepDeferred",
    "StepRefused",
    "TicketFacts",
    "WriteRefused",
    "WrittenFile",
    "WrittenTable",
    "govern",
    "partner_assets",
    "partner_sensor",
]

_MODULES: Final = {
    "GovernanceFailure": "failures",
    "GovernedDuckDBIOManager": "duckdb_io_manager",
    "GovernedFilesIOManager": "files_io_manager",
    "GovernedRunCoordinator": "coordinator",
    "GovernedRunLauncher": "launcher",
    "InputMissing": "failures",
    "NodeUnavailable": "failures",
    "ReadRefused": "failures",
    "Requester": "requester",
    "StepDeferred": "failures",
    "StepRefused": "failures",
    "TicketFacts": "requester",
    "WriteRefused": "failures",
    "WrittenFile": "storage",
    "WrittenTable": "duckdb_storage",
    "govern": "governed_definitions",
    "partner_assets": "partners",
    "partner_sensor": "partner_versions",
}


def __getattr__(name: str) -> object:
    """A name of this package, from the module that has it.

    Raises:
        ModuleNotFoundError: Dagster is not installed; the message says what to install.
    """
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # First: it says what to install where Dagster is missing.
    importlib.import_module("comity.dagster_bridge.dagster_presence")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
