"""What is wrong with a node's home and its node, and by which command it is mended. Nothing is changed.

Here is the order of the checks; they are in `node/doctor_home.py` (files and what they say), `node/doctor_machine.py`
(clock, port, disk, store, packages) and `node/doctor_node.py` (what a running node answers). A check that rests on
something that is not sound is not tried, and says on what.
"""

from __future__ import annotations

from collections.abc import Mapping

from comity.node import doctor_home, doctor_machine, doctor_node
from comity.node.clock import Clock
from comity.node.doctor_findings import CHECKS, Check, Examination, Finding, not_tried
from comity.node.home import Home


def examine(home: Home, clock: Clock, environment: Mapping[str, str]) -> list[Finding]:
    """Look at everything, whatever is wrong with some of it. The findings are in the order of `CHECKS`."""
    examined = Examination(home, clock, environment)
    found = [*doctor_home.home(examined)]
    if not examined.entered:
        return [
            *found,
            *(not_tried(name, "it needs a home that this user may look into") for name in CHECKS[1:]),
        ]
    checks: tuple[Check, ...] = (
        *doctor_home.CHECKS_OF_FILES,
        # Whether the node answers decides what may be looked at, and how.
        doctor_node.answering,
        *doctor_home.CHECKS_OF_COALITION,
        *doctor_machine.CHECKS,
        *doctor_node.CHECKS,
    )
    found += [finding for check in checks for finding in check(examined)]
    return sorted(found, key=lambda finding: CHECKS.index(finding.check))
