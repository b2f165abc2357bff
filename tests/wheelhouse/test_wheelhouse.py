"""What an installation brings: licences, known vulnerabilities, the bill of materials. Each check is shown a breach.

The environments are folders that the tests plant; advisories come from an OSV service of the tests on loopback.
"""

from __future__ import annotations

import datetime as dt
import http.server
import json
import os
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from wheelhouse import advisories, licences, sbom
from wheelhouse.installed import resolved

ROOT = Path(__file__).resolve().parents[2]

TODAY = dt.date(2026, 1, 1)
Planted = tuple[str, str, tuple[str, ...]]
"""Name, version, further lines of the metadata."""


@pytest.fixture
def environment(tmp_path: Path) -> Any:
    """Return a function that makes an environment of planted packages; Comity needs what `brings` names."""

    def make(*planted: Planted, brings: tuple[str, ...]) -> Path:
        venv.create(tmp_path / "env", with_pip=False)
        (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
        needs = tuple(f"Requires-Dist: {each}" for each in brings)
        for name, version, more in (("comity", "0.1.0", needs), *planted):
            folder = packages / f"{name}-{version}.dist-info"
            folder.mkdir()
            lines = ("Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *more, "")
            (folder / "METADATA").write_text("\n".join(lines))
        return tmp_path / "env/bin/python"

    return make


def licence_problems(python: Path) -> list[str]:
    rules = licences.rules_of(licences.RULES_FILE.read_text())
    return [
        problem
        for problem in licences.problems(sbom.describe(python), rules)
        if "is not needed" not in problem
    ]


NOT_ALLOWED: dict[str, tuple[tuple[str, ...], str]] = {
    "forbidden": (("License-Expression: AGPL-3.0-only",), "is under AGPL-3.0-only"),
    "half": (("License-Expression: MIT AND GPL-3.0-only",), "is under MIT AND GPL-3.0-only"),
    "excepted": (("License-Expression: Apache-2.0 WITH LLVM-exception",), "does not allow"),
    "older": (("License: AGPL-3.0",), "does not allow"),
    "own": (("License-Expression: LicenseRef-Proprietary",), "Proprietary"),
    "words": (("License: Our Own Terms",), "names no SPDX licence"),
    "silent": ((), "names no SPDX licence"),
    "vague": (("Classifier: License :: OSI Approved :: BSD License",), "names no SPDX licence"),
    "twice": (("License: MIT", "Classifier: License :: Free for non-commercial use"), "does not know"),
}
ALLOWED: dict[str, tuple[str, ...]] = {
    "plain": ("License-Expression: MIT",),
    "either": ("License-Expression: GPL-3.0-only OR MIT",),
    "both": ("License: Apache-2.0", "Classifier: License :: OSI Approved :: Apache Software License"),
}


def test_licences_that_are_forbidden_or_unknown_are_found_and_no_others(environment: Any) -> None:
    planted = {name: metadata for name, (metadata, _) in NOT_ALLOWED.items()} | ALLOWED
    python = environment(
        *((name, "1.0", metadata) for name, metadata in planted.items()), brings=tuple(planted)
    )
    found = {problem.partition(" ")[0]: problem for problem in licence_problems(python)}
    assert set(found) == set(NOT_ALLOWED)
    for name, (_, problem) in NOT_ALLOWED.items():
        assert problem in found[name], name


def test_a_package_that_was_read_is_read_again_when_it_says_something_else(environment: Any) -> None:
    now = ("Classifier: License :: Other/Proprietary License",)
    (problem,) = licence_problems(environment(("jinja2", "9.0", now), brings=("jinja2",)))
    assert "to be looked at again" in problem


def test_an_entry_that_nobody_needs_any_more_is_found() -> None:
    rules = licences.rules_of(licences.RULES_FILE.read_text())
    speaks = {"name": "Jinja2", "version": "9.0", "licenses": [{"expression": "BSD-3-Clause"}]}
    assert licences.problems({"components": [speaks]}, rules) == [
        "jinja2: names an SPDX licence now; its entry in licences.toml is not needed"
    ]


@pytest.mark.parametrize(("old", "new"), [('"permissive"', '" "'), ('"ISC" =', '"Nice-1.0" =')])
def test_rules_without_a_reason_or_of_no_licence_are_no_rules(old: str, new: str) -> None:
    text = licences.RULES_FILE.read_text()
    assert old in text
    with pytest.raises(SystemExit, match=r"licences\.toml"):
        licences.rules_of(text.replace(old, new, 1))


def test_what_is_needed_through_others_is_looked_at_and_what_is_not_needed_is_not(environment: Any) -> None:
    forbidden = ("License-Expression: AGPL-3.0-only",)
    python = environment(
        ("one", "1.0", ("License-Expression: MIT", 'Requires-Dist: two[more]; python_version >= "3"')),
        (
            "two",
            "1.0",
            ("License-Expression: MIT", "Provides-Extra: more", 'Requires-Dist: deep; extra == "more"'),
        ),
        ("deep", "1.0", forbidden),
        ("tool", "1.0", forbidden),
        brings=('one; extra == "node"', 'tool; extra == "development"'),
    )
    assert set(resolved(python)) == {"comity", "one", "two", "deep"}
    (problem,) = licence_problems(python)
    assert problem.startswith("deep 1.0: ")


def test_a_package_that_is_needed_and_not_there_ends_the_check(environment: Any) -> None:
    with pytest.raises(SystemExit, match="absent is needed and not installed"):
        resolved(environment(brings=("absent",)))


def test_the_bill_of_this_environment_is_whole_and_has_the_same_bytes_twice() -> None:
    python = Path(sys.executable)
    document = sbom.describe(python)
    assert sbom.written(document) == sbom.written(sbom.describe(python))
    names = {component["name"].lower().replace("_", "-") for component in document["components"]}
    assert {"libp2p", "dagster", "cedarpy", "pynacl", "wsproto"} <= names
    # Tools of the tests and checks are installed beside and are not brought along.
    assert not {"pytest", "mypy", "comity"} & names
    described = {each["ref"] for each in document["dependencies"]}
    assert described == {"root-component", *(each["bom-ref"] for each in document["components"])}
    assert document["metadata"]["component"]["version"] == "0.1.0"
    assert str(ROOT) not in sbom.written(document)
    assert not {"serialNumber", "timestamp"} & (set(document) | set(document["metadata"]))


@pytest.mark.slow
def test_the_format_s_own_schema_accepts_the_bill_and_rejects_another() -> None:
    document = sbom.describe(Path(sys.executable))
    # Few components say the same about the form, and the schema is slow.
    document["components"] = document["components"][:12]
    assert sbom.problem_of(sbom.written(document)) is None
    broken = {**document, "components": [{"name": "without a type"}]}
    assert sbom.problem_of(sbom.written(broken)) is not None


class Source:
    """An OSV service on loopback. It warns of what it is told, and counts whom it was asked for."""

    def __init__(self, warned: Mapping[tuple[str, str], str]) -> None:
        self.asked: list[tuple[str, str]] = []
        source = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                which = (query["package"]["name"], query["version"])
                source.asked.append(which)
                identifier = warned.get(which)
                known = [
                    {
                        "id": identifier,
                        "aliases": [f"CVE-of-{identifier}"],
                        "summary": "planted",
                        "affected": [
                            {
                                "package": {"name": which[0], "ecosystem": "PyPI"},
                                "ranges": [
                                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}
                                ],
                            }
                        ],
                    }
                ] * (identifier is not None)
                body = json.dumps({"vulns": known} if known else {}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base's
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/query"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def source() -> Iterator[Any]:
    """Return a function that starts an OSV service that warns of these."""
    started: list[Source] = []

    def start(**warned: str) -> Source:
        versions = {name: version.partition(" ") for name, version in warned.items()}
        started.append(Source({(name, version): i for name, (version, _, i) in versions.items()}))
        return started[-1]

    yield start
    for each in started:
        each.close()


def run_advisories(wish: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-P", "-m", "wheelhouse.advisories"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "COMITY_ADVISORIES": wish},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_version_that_is_warned_of_is_found(environment: Any, source: Any) -> None:
    python = environment(("planted", "1.0", ()), ("fine", "2.0", ()), brings=("planted", "fine"))
    service = source(django="2.0 OSV-0", planted="1.0 OSV-1", fine="1.9 OSV-2")
    packages = resolved(python)
    known = advisories.ask(packages, service.url)
    assert advisories.findings(known, packages, {}, TODAY) == [
        "planted 1.0: CVE-of-OSV-1, OSV-1; mended in 99"
    ]
    assert set(service.asked) == {("django", "2.0"), ("planted", "1.0"), ("fine", "2.0")}


def test_an_advisory_is_accepted_until_its_day_and_for_its_package(environment: Any, source: Any) -> None:
    python = environment(("planted", "1.0", ()), brings=("planted",))
    packages = resolved(python)
    known = advisories.ask(packages, source(django="2.0 OSV-0", planted="1.0 OSV-1").url)

    def found(package: str, until: str) -> list[str]:
        text = f'[accepted.CVE-of-OSV-1]\npackage = "{package}"\nreason = "not reached"\nuntil = {until}\n'
        return advisories.findings(known, packages, advisories.accepted_of(text), TODAY)

    assert found("planted", "2026-01-01") == []
    assert len(found("planted", "2025-12-31")) == 1
    assert len(found("other", "2026-01-01")) == 2


def test_a_source_that_knows_nothing_at_all_counts_as_none(environment: Any, source: Any) -> None:
    python = environment(("planted", "1.0", ()), brings=("planted",))
    with pytest.raises(advisories.UnaskedError, match="its silence says nothing"):
        advisories.ask(resolved(python), source().url)


def test_the_whole_environment_is_asked_for(source: Any) -> None:
    service = source(django="2.0 OSV-0")
    done = run_advisories(service.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "knows nothing against" in done.stdout
    assert {name for name, _ in service.asked} == set(resolved(Path(sys.executable))) - {"comity"} | {
        "django"
    }


@pytest.mark.parametrize(
    ("wish", "status", "says"),
    [
        ("off", 75, "nobody was asked"),
        ("http://127.0.0.1:9/v1/query", 1, "was not reached"),
        ("yes", 1, "neither"),
    ],
)
def test_who_could_not_be_asked_is_no_success(wish: str, status: int, says: str) -> None:
    done = run_advisories(wish)
    assert done.returncode == status
    assert says in done.stdout
