"""Before anybody acts: homes with their owners, the clinics' registries, and byte code for everybody.

Byte code matters because the organizations' own users may not write into the environment: what this user
has not compiled, each of their programs would compile again.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pandas as pd

from demo_main.accounts import Account, may_read
from demo_main.organizations import Cast, Organization
from demo_main.patients import NORTH, SOUTH, all_patients, clinic_patients
from demo_main.processes import DemoError, Supervisor

SITE: Final = Path(__file__).with_name("site")
WARM_S: Final = 300.0
"""The first import of everything after an installation, byte code being written."""
OF_DAGSTER: Final = "dagster, pandas, pyarrow.parquet, comity.dagster_bridge.tables, dagster._cli"
OF_NODES: Final = "comity.node.run, comity.node.cli, comity.gossip.libp2p_transport"
_DAGSTER_YAML: Final = "telemetry:\n  enabled: false\n"


def prepare(cast: Cast, supervisor: Supervisor) -> None:
    """Make the homes, and let byte code be written."""
    with ThreadPoolExecutor(2) as pool:
        warmed = [pool.submit(_import, supervisor, names) for names in (OF_DAGSTER, OF_NODES)]
        cast.exchange.mkdir(mode=0o755)
        cast.exchange.chmod(0o755)
        for organization in cast.organizations:
            _make_home(organization, cast.exchange)
        for subject in cast.subjects:
            subject.account.folder(subject.place)
        for each in warmed:
            each.result()


def _make_home(organization: Organization, exchange: Path) -> None:
    account = organization.account
    account.folder(organization.place)
    account.folder(organization.logs)
    # Only its owner writes here; everybody reads.
    account.folder(exchange / organization.member, 0o755)
    if organization.project:
        account.folder(organization.dagster_home)
        account.file(organization.dagster_home / "dagster.yaml", _DAGSTER_YAML.encode())
        project = account.folder(organization.project_folder)
        source = SITE / organization.project / "definitions.py"
        account.file(project / source.name, source.read_bytes())


def _import(supervisor: Supervisor, names: str) -> None:
    done = supervisor.run(
        [sys.executable, "-P", "-c", f"import {names}"],
        Account(),
        # Byte code is written whatever the environment says: it is what this is for.
        {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": ""},
        Path("/"),
        WARM_S,
    )
    if done.status != 0:
        raise DemoError(f"import {names}:\n{done.errors}")


def dagster_import_cpu_s(supervisor: Supervisor) -> float:
    """What importing Dagster costs here in CPU seconds, byte code being there: the lesser of two times."""
    program = "import time; t = time.process_time(); import dagster; print(time.process_time() - t)"
    times: list[float] = []
    for _ in range(2):
        done = supervisor.run(
            [sys.executable, "-P", "-c", program], Account(), dict(os.environ), Path("/"), WARM_S
        )
        if done.status != 0:
            raise DemoError(f"import dagster:\n{done.errors}")
        times.append(float(done.output))
    return min(times)


def load_patients(cast: Cast) -> pd.DataFrame:
    """Everybody of the study; each clinic's own registry is laid into its home."""
    patients = all_patients()
    for organization, institutions in ((cast.north, NORTH), (cast.south, SOUTH)):
        registry = organization.account.folder(organization.place / "registry")
        rows = clinic_patients(patients, institutions)
        organization.account.file(registry / "patients.csv", rows.to_csv(index=False).encode())
    return patients


def privacy(cast: Cast) -> tuple[int, list[str]]:
    """How many pairs of organizations were tried, and which of them could look into the other's home."""
    found: list[str] = []
    tried = 0
    for one in cast.organizations:
        for other in cast.organizations:
            if one is not other:
                tried += 1
                if may_read(one.account, other.place):
                    found.append(f"{one.title} reads the home of {other.title}")
    return tried, found
