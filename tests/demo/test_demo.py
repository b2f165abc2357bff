"""The demo itself: `scripts/demo --json`, from its start to its last line, and when somebody interrupts it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity.attestation.engine import engine_id
from comity.attestation.offline import verify_bundle
from comity.attestation.roots import parse_roots
from served_demo import ServedDemo

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "scripts/demo")
TRUE = (
    "deferred_then_executed",
    "decided_with_one_member_down",
    "live_owner_deferred",
    "tampered_input_refused",
    "agent_admitted",
    "agent_refused",
    "curves_equal",
    "bundle_verified",
)
RECORD = re.compile(r"[0-9a-f]{64}")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users can reach and whose path is short, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="demo-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder / "kept"
    shutil.rmtree(folder, ignore_errors=True)


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
@pytest.mark.xdist_group("served_demo")
def test_everything_that_the_demo_claims_is_observed(served: ServedDemo) -> None:
    place = served.place
    assert served.end() == 0, served.told
    errors = "".join(served.told)
    assert f"comity verify {place}/results/survival.bundle" in errors
    said = served.said()
    assert said["organizations"] == 4
    assert (said["permits"]["restrict"], said["refusals"]) == (2, 1)
    assert said["permits"]["execute"] >= 7
    assert said["rows_released"] == 86 + 131
    assert {name: said[name] for name in TRUE} == dict.fromkeys(TRUE, True)
    served_s = sum(phase["seconds"] for phase in said["phases"] if phase["name"] == "serve")
    assert said["seconds"] - served_s <= max(180.0, 72 * said["import_dagster_cpu_s"])
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
    for picture in ("curves.png", "lineage.png"):
        assert (bundle.parent / picture).read_bytes().startswith(b"\x89PNG")
    assert processes_naming(str(place)) == []


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
