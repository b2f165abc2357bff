"""What is publicly known against the versions that Comity brings, asked of an OSV service by pip-audit.

COMITY_ADVISORIES says whom to ask: nothing, the service of osv.dev, if it can be reached; `required`, that one
in any case; a URL, another service that speaks OSV's `v1/query`, in any case; `off`, nobody.

Ends with 0 where nothing is known, 1 where something is or a required source fails, 75 where nothing was checked.
Never with 0 where nobody was asked: a version that everyone warns of is asked for too, and a source that knows
nothing of it counts as none.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wheelhouse.installed import ROOT, Package, resolved

ACCEPTED_FILE: Final = Path(__file__).with_name("advisories.toml")
OSV: Final = "https://api.osv.dev/v1/query"
WARNED_OF: Final = ("django", "2.0")
"""Old, and with dozens of advisories. Comity does not need it."""
ANSWER_S_MAX: Final = 10
"""For one answer of the service."""
ASKING_S_MAX: Final = 120.0
"""For all of them. An answer takes a tenth of a second."""
NOTHING_KNOWN, SOMETHING_KNOWN, NOT_CHECKED = 0, 1, 75


class UnaskedError(Exception):
    """No source answered for all packages. Says why."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An advisory that does not concern us, why, and until when that is believed."""

    package: str
    reason: str
    until: dt.date


def accepted_of(text: str) -> dict[str, Accepted]:
    """Read the accepted advisories. One without a reason or an end is an error of the file."""
    return {
        name: Accepted(entry["package"], entry["reason"], entry["until"])
        for name, entry in tomllib.loads(text)["accepted"].items()
    }


def ask(packages: Mapping[str, Package], service: str) -> dict[str, list[dict[str, Any]]]:
    """What a service knows against each package: its advisories in pip-audit's form, by the package's name.

    Raises:
        UnaskedError: it was not reached, answered for some packages only, or knows nothing at all.
    """
    versions = {name: each.version for name, each in packages.items() if name != ROOT} | dict([WARNED_OF])
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "requirements.txt"
        listing.write_text("".join(f"{name}=={version}\n" for name, version in sorted(versions.items())))
        answers = _audited(listing, service)
    known: dict[str, list[dict[str, Any]]] = {}
    for entry in answers:
        if "skip_reason" in entry:
            raise UnaskedError(f"{service} was not asked for {entry['name']}: {entry['skip_reason']}")
        known[entry["name"]] = entry["vulns"]
    unasked = sorted(set(versions) - set(known))
    if unasked:
        raise UnaskedError(f"{service} was not asked for {', '.join(unasked)}")
    if not known.pop(WARNED_OF[0]):
        raise UnaskedError(
            f"{service} knows nothing against {' '.join(WARNED_OF)}, so its silence says nothing"
        )
    return known


def _audited(listing: Path, service: str) -> list[dict[str, Any]]:
    command = [
        *(
            sys.executable,
            "-P",
            "-m",
            "pip_audit",
            "--requirement",
            str(listing),
            "--no-deps",
            "--disable-pip",
        ),
        *("--vulnerability-service", "osv", "--osv-url", service, "--format", "json", "--aliases", "on"),
        *("--progress-spinner", "off", "--timeout", str(ANSWER_S_MAX)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ASKING_S_MAX)
    except subprocess.TimeoutExpired as exc:
        raise UnaskedError(f"{service} did not answer within {ASKING_S_MAX:.0f} s") from exc
    try:
        answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError) as exc:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise UnaskedError(f"{service} was not reached\n{last}") from exc
    return answers


def findings(
    known: Mapping[str, list[dict[str, Any]]],
    packages: Mapping[str, Package],
    accepted: Mapping[str, Accepted],
    today: dt.date,
) -> list[str]:
    """One line for each advisory that is not accepted, and for each acceptance that is over or not needed."""
    found: list[str] = []
    used: set[str] = set()
    for name, advisories in sorted(known.items()):
        for advisory in advisories:
            names = {advisory["id"], *advisory.get("aliases", ())}
            excuse = next((i for i in sorted(names) if i in accepted and accepted[i].package == name), None)
            if excuse is not None:
                used.add(excuse)
                if today <= accepted[excuse].until:
                    continue
            mended = ", ".join(advisory.get("fix_versions", ())) or "no version yet"
            found.append(f"{name} {packages[name].version}: {', '.join(sorted(names))}; mended in {mended}")
    found += [f"{i}: accepted in advisories.toml, and nothing shows it" for i in sorted(set(accepted) - used)]
    return found


def main() -> int:
    wish = os.environ.get("COMITY_ADVISORIES", "")
    if wish == "off":
        print("nobody was asked: COMITY_ADVISORIES=off")
        return NOT_CHECKED
    if wish not in ("", "required") and not wish.startswith(("https://", "http://")):
        print(f"COMITY_ADVISORIES={wish}: neither `required`, `off` nor the URL of an OSV service")
        return SOMETHING_KNOWN
    service = wish if "://" in wish else OSV
    accepted = accepted_of(ACCEPTED_FILE.read_text(encoding="utf-8"))
    packages = resolved(Path(sys.executable))
    try:
        known = ask(packages, service)
    except UnaskedError as exc:
        print(exc)
        return SOMETHING_KNOWN if wish else NOT_CHECKED
    found = findings(known, packages, accepted, dt.datetime.now(dt.UTC).date())
    print("\n".join(found) or f"{service} knows nothing against {len(known)} packages")
    return SOMETHING_KNOWN if found else NOTHING_KNOWN


if __name__ == "__main__":
    sys.exit(main())
