"""The Dagster bridge: one line in `definitions.py` puts a node's decision before every step.

from comity.dagster_bridge import GovernedFilesIOManager, govern, partner_assets

defs = govern(dg.Definitions(assets=[*my_assets, *partner_assets()], resources={...}))
"""

from __future__ import annotations

# First: it says what to install where Dagster is missing.
import comity.dagster_bridge.dagster_presence  # noqa: F401  # pyright: ignore[reportUnusedImport]
from comity.dagster_bridge.coordinator import GovernedRunCoordinator
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
from comity.dagster_bridge.govern import govern
from comity.dagster_bridge.launcher import GovernedRunLauncher
from comity.dagster_bridge.partners import partner_assets
from comity.dagster_bridge.requester import Requester, TicketFacts
from comity.dagster_bridge.storage import WrittenFile

__all__ = [
    "GovernanceFailure",
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
    "govern",
    "partner_assets",
]
