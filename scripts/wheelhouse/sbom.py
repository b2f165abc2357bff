"""The software bill of materials of `comity[node,dagster,duckdb]`: CycloneDX JSON, from what is installed here.

cyclonedx-py describes the environment; of that the packages that Comity brings are kept, with the edges of what
is needed here. No time, no serial number, no path of this machine: the same environment gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from packaging.utils import canonicalize_name

from wheelhouse.installed import EXTRAS, ROOT, Package, resolved

FORMAT: Final = SchemaVersion.V1_6
DESCRIBING_S_MAX: Final = 600.0
"""Against a hang: it takes less than a second of CPU, and a machine can be busy."""
PROJECT: Final = Path(__file__).resolve().parents[2] / "pyproject.toml"


def describe(python: Path) -> dict[str, Any]:
    """The bill of materials of what an interpreter's environment holds of Comity.

    Raises:
        SystemExit: a package is missing, or the tool fails.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "cyclonedx_py", "environment"),
            *("--no-validate", "--output-reproducible", "--spec-version", FORMAT.to_version()),
            *("--mc-type", "library", "--pyproject", str(PROJECT), str(python)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=DESCRIBING_S_MAX,
    )
    if done.returncode != 0:
        raise SystemExit(f"cyclonedx-py failed:\n{done.stderr}")
    return narrowed(json.loads(done.stdout), resolved(python))


def narrowed(document: Mapping[str, Any], packages: Mapping[str, Package]) -> dict[str, Any]:
    """Keep of a description of an environment what Comity brings."""
    components: dict[str, Any] = {canonicalize_name(each["name"]): each for each in document["components"]}
    missing = sorted(set(packages) - set(components) - {ROOT})
    if missing:
        raise SystemExit(f"cyclonedx-py does not describe {', '.join(missing)}")
    described = document["metadata"]["component"]
    # Comity stands at the head. An entry of its own, as an editable installation has it, would name a folder here.
    head = {**described, "version": packages[ROOT].version}
    brought = [name for name in sorted(packages) if name != ROOT]
    references = {ROOT: head["bom-ref"]} | {name: components[name]["bom-ref"] for name in brought}
    place = {
        "comity:extras": ",".join(sorted(EXTRAS)),
        "comity:python": platform.python_version(),
        "comity:platform": f"{platform.system()} {platform.machine()}",
    }
    properties = [
        *document["metadata"].get("properties", ()),
        *({"name": name, "value": value} for name, value in place.items()),
    ]
    return {
        **document,
        "metadata": {**document["metadata"], "component": head, "properties": properties},
        "components": [components[name] for name in brought],
        "dependencies": [
            {
                "ref": references[name],
                "dependsOn": sorted(references[each] for each in packages[name].needs - {name}),
            }
            for name in sorted(packages)
        ],
    }


def written(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def problem_of(text: str) -> str | None:
    """What the format's own schema has against a document; None where it is valid. Takes some ten seconds."""
    from cyclonedx.validation.json import JsonStrictValidator  # dear to import, and few ask

    found = JsonStrictValidator(FORMAT).validate_str(text)
    return None if found is None else str(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/sbom",
        description="Write the bill of materials of comity[node,dagster,duckdb] as CycloneDX JSON.",
        epilog="example: scripts/sbom --output /tmp/comity.cdx.json. It says what is installed for this Python on "
        "this platform; what a package's wheel holds inside, such as libraries in C, only that package knows.",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("dist/comity.cdx.json"), help="default: %(default)s"
    )
    options = parser.parse_args()
    document = describe(Path(sys.executable))
    text = written(document)
    problem = problem_of(text)
    if problem is not None:
        raise SystemExit(f"scripts/sbom: no valid CycloneDX {FORMAT.to_version()}: {problem}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")
    print(f"{options.output}: {len(document['components'])} packages, CycloneDX {FORMAT.to_version()}, valid")


if __name__ == "__main__":
    main()
