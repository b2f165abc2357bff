"""From a folder that `scripts/demo --keep` left to one line for each claim.

scripts/demo-audit DIR [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from comity.node.visible import visible
from comity.protocol.errors import ComityError
from demo_audit import claims_faults, claims_launch, claims_work, claims_wrong
from demo_audit.evidence import Evidence, read_evidence
from demo_audit.findings import Finding

OK: Final = 0
NEGATIVE: Final = 1
USAGE: Final = 2
WIDTH: Final = 110

Claim = tuple[Callable[[Evidence], Finding], str]

CLAIMS: Final[Mapping[str, Claim]] = MappingProxyType(
    {
        "homes_private": (
            claims_work.homes_private,
            "owners and modes of the homes, the keys and the exchange",
        ),
        "executed": (
            claims_work.executed,
            "the clinics' event logs, actuations and permits of patients, their files at home, the registries",
        ),
        "restricted": (
            claims_work.restricted,
            (
                "the clinics' event logs, actuations and permits of released, the files in the exchange, the "
                "registries, and what the stores list as withheld"
            ),
        ),
        "launched_by_daemon": (
            claims_launch.launched_by_daemon,
            (
                "Clinic North's event log, which says when the run was enqueued and began; intents, permit, starts, "
                "ticket and credential in its store, and the steward's public key"
            ),
        ),
        "ticket_required": (
            claims_launch.ticket_required,
            "Clinic North's event log, the refusal and each vote of it, and what was permitted with a ticket",
        ),
        "second_run_refused": (
            claims_launch.second_run_refused,
            "Clinic North's event log with the ticket in the run's tags, and what all four stores hold of that run",
        ),
        "staged_write_discarded": (
            claims_wrong.staged_write_discarded,
            (
                "Clinic South's event log; permit, start, what was staged and what was found in it in its store; and "
                "the file in the exchange"
            ),
        ),
        "held_run_released": (
            claims_launch.held_run_released,
            (
                "the institute's event log, which says when the run was enqueued and began; asks, votes, approval and "
                "permit in the stores"
            ),
        ),
        "deferred_then_executed": (
            claims_work.deferred_then_executed,
            (
                "the asks, their votes, the approval and the officer's credential in the stores, and where the key "
                "does not lie that signed"
            ),
        ),
        "curves_equal": (
            claims_work.curves_equal,
            "the file of survival, its actuation, and the study's data fitted here",
        ),
        "owners_released": (
            claims_work.owners_released,
            "the governance states of pooled and survival, and the transitions that the ask relied on",
        ),
        "agent_admitted": (
            claims_work.agent_admitted,
            "the institute's event log, intent, ticket, credential and delegation in its store, the agent's public key",
        ),
        "agent_refused": (
            claims_work.agent_refused,
            "the institute's event log, the refusal and each vote of it",
        ),
        "bundle_verified": (
            claims_work.bundle_verified,
            (
                "results/survival.bundle under results/roots.toml, verified and judged again here, and once more with "
                "a bit changed; the institute's event log and actuation of survival, which is its one target; the "
                "roots in the four homes"
            ),
        ),
        "tampered_input_refused": (
            claims_faults.tampered_input_refused,
            "the institute's event log: the digest of what was read, which is that of no actuation in its store",
        ),
        "replayed_input_refused": (
            claims_faults.replayed_input_refused,
            (
                "the institute's event log: the digest of what was read, which is that of an older actuation in its "
                "store than the one that the intent names"
            ),
        ),
        "decided_with_one_member_down": (
            claims_faults.decided_with_one_member_down,
            "the votes on one ask in all four stores, none of them the Ethics Board's, and its votes before and after",
        ),
        "revocation_refused": (
            claims_faults.revocation_refused,
            "revocation, permit, starts and refusal in the institute's store, and what each vote names",
        ),
        "caught_up": (
            claims_faults.caught_up,
            (
                "the governance logs of all four stores, the order of arrival in the Ethics Board's, and its first "
                "vote after those that it missed"
            ),
        ),
        "live_owner_deferred": (
            claims_faults.live_owner_deferred,
            "the institute's event log, and the votes on the ask in all four stores",
        ),
        "owner_back_executed": (
            claims_faults.owner_back_executed,
            "the institute's event log, and the permit of the same intent with the owner's vote",
        ),
        "held_then_executed": (
            claims_faults.held_then_executed,
            "the institute's event log, the votes on the ask in all four stores, and the later permit of the intent",
        ),
        "rolled_back": (
            claims_wrong.rolled_back,
            (
                "what Clinic South found and took back, in all four stores; the file in the exchange, and its event "
                "log of what was read since"
            ),
        ),
        "descendant_marked": (
            claims_wrong.descendant_marked,
            "what the institute made from that version, and the marks of it in its store",
        ),
    }
)
"""Every claim: the function that computes it, and which artefacts show it."""


def main() -> int:
    """Audit a folder, and return 0 where every claim holds."""
    arguments = read_arguments()
    try:
        evidence = read_evidence(arguments.place.absolute())
    except (ComityError, OSError) as exc:
        print(f"demo-audit: {visible(str(exc))}", file=sys.stderr)
        return USAGE
    findings = audit(evidence)
    if arguments.json:
        print(json.dumps(as_json(evidence, findings)))
    else:
        tell(evidence, findings)
    return OK if all(finding.holds for finding in findings.values()) else NEGATIVE


def read_arguments() -> argparse.Namespace:
    """What was asked for."""
    listed = "\n".join(
        textwrap.fill(f"{name}: {shown_by}", WIDTH, initial_indent="  ", subsequent_indent="      ")
        for name, (_, shown_by) in CLAIMS.items()
    )
    parser = argparse.ArgumentParser(
        prog="scripts/demo-audit",
        description="Computes every claim of the demo from what a kept demo left behind: stores, event logs, bundle, "
        "roots and files.\nIt asks no node and believes no word of the demo. A record counts where its signature "
        "verifies under the roots.",
        epilog=f"What shows each claim:\n{listed}\n\n"
        "Exit status: 0 every claim holds; 1 one does not; 2 what was given is no kept demo.\n\n"
        "Examples:\n  scripts/demo --keep /tmp/kept && scripts/demo-audit /tmp/kept\n"
        "  scripts/demo-audit --json /tmp/kept",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("place", type=Path, metavar="DIR", help="what `scripts/demo --keep DIR` left")
    parser.add_argument("--json", action="store_true", help="one line, a JSON object, for programs")
    return parser.parse_args()


def audit(evidence: Evidence) -> dict[str, Finding]:
    """What is found of each claim. An artefact that is missing or damaged makes those false that need it."""
    return {name: _finding(look, evidence) for name, (look, _) in CLAIMS.items()}


def _finding(look: Callable[[Evidence], Finding], evidence: Evidence) -> Finding:
    try:
        return look(evidence)
    except ComityError as exc:
        return Finding({}, problem=str(exc))


def as_json(evidence: Evidence, findings: Mapping[str, Finding]) -> dict[str, Any]:
    """What programs get."""
    return {
        "holds": all(finding.holds for finding in findings.values()),
        "claims": {name: finding.holds for name, finding in findings.items()},
        "proof": {
            name: {
                "shown_by": CLAIMS[name][1],
                "seen": dict(finding.seen),
                "records": dict(finding.records),
                "runs": dict(finding.runs),
                **({"problem": finding.problem} if finding.problem else {}),
            }
            for name, finding in findings.items()
        },
        "records": {member: len(store.records) for member, store in evidence.stores.items()},
        "unverified": {member: store.unverified for member, store in evidence.stores.items()},
        "runs": {name: len(runs) for name, runs in evidence.logs.items()},
    }


def tell(evidence: Evidence, findings: Mapping[str, Finding]) -> None:
    """What people get."""
    for name, finding in findings.items():
        print(f"{'shown    ' if finding.holds else 'NOT SHOWN'}  {name.replace('_', ' ')}")
        missing = [
            *([finding.problem] if finding.problem else []),
            *(f"not seen: {w}" for w in finding.unseen),
        ]
        for line in (CLAIMS[name][1], *missing):
            # A problem may quote what lay in the folder.
            print(textwrap.fill(visible(line), WIDTH, initial_indent=" " * 11, subsequent_indent=" " * 11))
    held = sum(len(store.records) for store in evidence.stores.values())
    bad = sum(store.unverified for store in evidence.stores.values())
    runs = sum(map(len, evidence.logs.values()))
    shown = sum(finding.holds for finding in findings.values())
    print(
        f"\n{shown} of {len(findings)} claims are shown, by {held} records of four stores whose signatures verify "
        f"({bad} do not) and {runs} runs"
    )


if __name__ == "__main__":
    sys.exit(main())
