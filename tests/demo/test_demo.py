"""The demo itself: `scripts/demo --json`, from its start to its last line, and when somebody interrupts it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from comity.attestation.engine import engine_id
from comity.attestation.offline import verify_bundle
from comity.attestation.roots import parse_roots
from demo_main.officer import browser_program
from demo_main.story import CLAIMS
from demo_runs import DemoRun
from served_demo import ServedDemo

SCRIPT = str(Path(__file__).parents[2] / "scripts/demo")
TRUE = (
    "launched_by_daemon",
    "ticket_required",
    "second_run_refused",
    "staged_write_discarded",
    "held_run_released",
    "rolled_back",
    "descendant_marked",
    "deferred_then_executed",
    "decided_with_one_member_down",
    "live_owner_deferred",
    "held_then_executed",
    "caught_up",
    "revocation_refused",
    "tampered_input_refused",
    "replayed_input_refused",
    "agent_admitted",
    "agent_refused",
    "curves_equal",
    "bundle_verified",
)
MADE = ("intent", "permit", "actuation")
MADE_LATER = (
    "tampered_input_refused",
    "replayed_input_refused",
    "decided_with_one_member_down",
    "owner_back_executed",
    "held_then_executed",
)
"""Claims of which each names one thing that was made."""
RECORD = re.compile(r"[0-9a-f]{64}")


def processes_naming(text: str) -> list[str]:
    """Command lines of processes that name a text: those of the demo all name its folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
def test_everything_that_the_demo_claims_is_observed(demo: DemoRun) -> None:
    assert demo.status == 0, demo.told
    place, said = demo.place, demo.said
    assert f"comity verify {place}/results/survival.bundle" in demo.told
    assert said["organizations"] == 4
    # Each clinic's release, Clinic South's second and what it discarded; the click, the agent beyond its credential
    # and twice after it was revoked.
    assert (said["permits"]["restrict"], said["refusals"]) == (4, 4)
    assert said["permits"]["execute"] >= 7
    assert said["rows_released"] == 86 + 131
    assert {name: said[name] for name in TRUE} == dict.fromkeys(TRUE, True)
    observed = {name: each["holds"] for name, each in said["observed"].items()}
    assert observed == said["claims"] == dict.fromkeys(CLAIMS, True)
    # What was observed live and what the audit found are the same records.
    for name in MADE_LATER:
        seen, found = said["observed"][name]["records"], said["proof"][name]["records"]
        assert {what: found[what] for what in MADE} == {what: seen[what] for what in MADE}
    assert len(said["phases"]) >= 10
    for name in TRUE:
        proof = said["proof"][name]
        assert proof["records"]
        assert all(RECORD.fullmatch(record) for record in proof["records"].values()), proof
        assert all(uuid.UUID(run) for run in proof["runs"].values()), proof
    bundle, roots = Path(said["bundle"]), Path(said["roots"])
    report = verify_bundle(bundle.read_bytes(), parse_roots(roots.read_text(encoding="utf-8")), engine_id())
    assert report.level == "re-judged"
    assert said["lineage_records"] == report.records
    assert [target["asset"] for target in report.targets] == ["institute.example/survival"]
    # As in the tests of the page: where no browser is, the officer has used the command.
    pictures = ("curves.png", "lineage.png", *(("approval.png",) if browser_program() else ()))
    assert ("approves in the page" in " ".join(demo.told.split())) == bool(browser_program())
    for picture in pictures:
        assert (bundle.parent / picture).read_bytes().startswith(b"\x89PNG")
    assert processes_naming(str(place)) == []


@pytest.mark.slow
@pytest.mark.xdist_group("served_demo")
def test_a_demo_that_others_joined_ends_as_any_other(served: ServedDemo) -> None:
    """What was done while it was served changes no claim: the audit looks at what is there at the end."""
    assert "approves with `comity approve`" in " ".join("".join(served.told).split())
    assert served.end() == 0, served.told
    said = served.said()
    observed = {name: each["holds"] for name, each in said["observed"].items()}
    assert observed == said["claims"] == dict.fromkeys(CLAIMS, True)
    assert processes_naming(str(served.place)) == []


@pytest.mark.slow
def test_an_interrupted_demo_leaves_nothing(place: Path) -> None:
    with subprocess.Popen(
        [SCRIPT, "--json", "--keep", str(place)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if "node processes start" in line:
                demo.send_signal(signal.SIGINT)
                break
        output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    said = json.loads(output)
    assert said["problem"] == "interrupted"
    # Nothing is named that was never made.
    assert (said["bundle"], said["roots"]) == (None, None)
    assert processes_naming(str(place)) == []
