"""Before anybody acts: homes with their owners, the clinics' registries, and byte code for everybody.

Byte code matters because the organizations' own users may not write into the environment: what this user
has not compiled, each of their programs would compile again.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pandas as pd

import comity
from demo_main.accounts import Account, may_read, may_write
from demo_main.orchestrators import governed_instance
from demo_main.organizations import Cast, Organization
from demo_main.patients import NORTH, SOUTH, all_patients, clinic_patients
from demo_main.processes import DemoError, Supervisor

SITE: Final = Path(__file__).with_name("site")
PACKAGE: Final = Path(comity.__file__).parent
WARM_S: Final = 300.0
"""The first import of everything after an installation, byte code being written."""
_COMPILED: Final = (
    ("alembic", "command.py"),
    ("dagster", "_core/execution/api.py"),
    ("fastapi", "routing.py"),
    ("libp2p", "__init__.py"),
    ("lifelines", "__init__.py"),
    ("pandas", "__init__.py"),
    ("sqlalchemy", "engine/base.py"),
)
"""Files whose byte code is looked for: one of each package that takes long to compile."""


def prepare(cast: Cast, supervisor: Supervisor) -> None:
    """Make the homes, and let byte code be written where it is missing."""
    with ThreadPoolExecutor(2) as pool:
        # Those who are this user write it themselves.
        separate = cast.north.account.uid is not None
        missing = separate and not _byte_code_is_there()
        if separate:
            # Each by itself: compileall follows no links, and in the repository these are links.
            for folder in (*PACKAGE.iterdir(), SITE.parent):
                if folder.is_dir():
                    compileall.compile_dir(folder, quiet=2)
        warmed = [pool.submit(_warm, supervisor, what) for what in ("dagster", "node") if missing]
        cast.exchange.mkdir(mode=0o755)
        cast.exchange.chmod(0o755)
        for organization in cast.organizations:
            _make_home(organization, cast.exchange)
        for subject in cast.subjects:
            subject.account.folder(subject.place)
        for each in warmed:
            each.result()


def _byte_code_is_there() -> bool:
    """Whether what takes long was compiled before, with byte code that everybody may read."""
    for package, file in _COMPILED:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return False
        cached = Path(importlib.util.cache_from_source(str(Path(spec.origin).parent / file)))
        if not cached.exists() or not cached.stat().st_mode & 0o004:
            return False
    return True


def _make_home(organization: Organization, exchange: Path) -> None:
    account = organization.account
    account.folder(organization.place)
    account.folder(organization.logs)
    # Only its owner writes here; everybody reads.
    account.folder(exchange / organization.member, 0o755)
    if organization.project:
        account.folder(organization.dagster_home)
        account.file(organization.dagster_home / "dagster.yaml", governed_instance(organization))
        project = account.folder(organization.project_folder)
        source = SITE / organization.project / "definitions.py"
        account.file(project / source.name, source.read_bytes())


def _warm(supervisor: Supervisor, what: str) -> None:
    done = supervisor.run(
        [sys.executable, "-P", "-m", "demo_main.warming", what],
        Account(),
        # Byte code is written whatever the environment says: it is what this is for.
        {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": ""},
        Path("/"),
        WARM_S,
    )
    if done.status != 0:
        raise DemoError(f"the programs of the demo do not run ({what}):\n{done.errors}")


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


def intrusions(cast: Cast) -> tuple[int, list[str]]:
    """Attempts to look into another organization's home or to write into its part of the exchange.

    Returns how many were made, and which of them succeeded.
    """
    tried, found = 0, []
    for one in cast.organizations:
        for other in cast.organizations:
            if one is other:
                continue
            tried += 2
            if may_read(one.account, other.place):
                found.append(f"{one.title} reads the home of {other.title}")
            if may_write(one.account, cast.exchange / other.member):
                found.append(f"{one.title} writes into the exchange of {other.title}")
    return tried, found
