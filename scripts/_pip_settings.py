"""Print pip's settings of index and certificates as shell assignments of the variables that uv reads.

uv knows neither pip.conf nor PIP_*; on many machines these alone say where packages come from. What uv is
told already, by its variables or its own file, is left as it is. Output is for `eval`: it may hold
credentials and is never shown. Runs before anything is installed, on any Python that has pip or not.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from pathlib import Path

UV_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_CONFIG_FILE")


def pip_settings() -> dict[str, str]:
    """Return pip's settings by bare name, the strongest source of each."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in found:
            found[section][name] = str(ast.literal_eval(value))
    # Without pip there is no list, but its variables may still be set.
    for variable, value in os.environ.items():
        if variable.startswith("PIP_") and value:
            found[":env:"][variable.removeprefix("PIP_").lower().replace("_", "-")] = value
    return found["global"] | found["install"] | found[":env:"]


def uv_has_an_index() -> bool:
    """Tell whether uv was told where packages come from by its own means."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = (config / "uv" / "uv.toml", Path("/etc/uv/uv.toml"), Path("/etc/xdg/uv/uv.toml"))
    return any(os.environ.get(name) for name in UV_INDEX_VARIABLES) or any(file.is_file() for file in files)


def uv_variables(settings: dict[str, str]) -> dict[str, str]:
    """Return what uv has to be told in order to fetch as pip would."""
    variables: dict[str, str] = {}
    if "cert" in settings and not os.environ.get("SSL_CERT_FILE"):
        variables["SSL_CERT_FILE"] = settings["cert"]
    if uv_has_an_index():
        return variables
    if "index-url" in settings:
        variables["UV_DEFAULT_INDEX"] = settings["index-url"]
    if "extra-index-url" in settings:
        variables["UV_EXTRA_INDEX_URL"] = " ".join(settings["extra-index-url"].split())
        # pip takes the best version of all indexes; uv, unless told so, of the first that has the name.
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if "find-links" in settings:
        variables["UV_FIND_LINKS"] = ",".join(settings["find-links"].split())
    if settings.get("no-index") in {"true", "1", "yes", "on"}:
        variables["UV_NO_INDEX"] = "1"
    return variables


def main() -> None:
    """Print one `export` a line."""
    for name, value in uv_variables(pip_settings()).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
