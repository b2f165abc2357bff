"""The Dagster bridge: one line in `definitions.py` puts a node's decision before every step.

from comity.dagster_bridge import GovernedFilesIOManager, govern, partner_assets

defs = govern(dg.Definitions(assets=[*my_assets, *partner_assets()], resources={...}))
"""

from __future__ import annotations

from comity.dagster_bridge.failures import (
    GovernanceFailure,
    NodeUnavailable,
    ReadRefused,
    StepDeferred,
    StepRefused,
    WriteRefused,
)
from comity.dagster_bridge.files_io_manager import GovernedFilesIOManager
from comity.dagster_bridge.govern import govern
from comity.dagster_bridge.partners import partner_assets
from comity.dagster_bridge.requester import Requester, TicketFacts

__all__ = [
    "GovernanceFailure",
    "GovernedFilesIOManager",
    "NodeUnavailable",
    "ReadRefused",
    "Requester",
    "StepDeferred",
    "StepRefused",
    "TicketFacts",
    "WriteRefused",
    "govern",
    "partner_assets",
]
