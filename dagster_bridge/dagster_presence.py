"""Says what is missing where Dagster is not installed. Imported before everything that imports Dagster."""

from __future__ import annotations

import importlib.util
from typing import Final


def require_dagster() -> bool:
    """Check that Dagster is installed.

    Raises:
        ModuleNotFoundError: it is not; the message says what to install.
    """
    if importlib.util.find_spec("dagster") is None:
        raise ModuleNotFoundError(
            "comity.dagster_bridge needs Dagster: pip install 'comity[dagster]'", name="dagster"
        )
    return True


PRESENT: Final = require_dagster()
"""Importing this module is the check."""
