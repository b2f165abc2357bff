"""A Dagster project that `comity dev --dagster` governs: where it is, and the code location that is generated for it.

The project's own files are not changed. Nothing of Dagster is imported here: what has to do with it runs in processes
of `comity.dagster_bridge.dev_location`.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from comity.node.dev import PURPOSE, DevFolder
from comity.node.owner_files import read_file, write_file
from comity.protocol.errors import ConfigError

DEFINITIONS: Final = "definitions.py"
PYPROJECT_BYTES_MAX: Final = 1_048_576
WEBSERVER_PORT: Final = 3000
"""Dagster's own."""
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z")
_BRIDGE: Final = "comity.dagster_bridge.dev_location"
"""Named, and run as a program: nothing here imports it."""
_LOCATION: Final = '''\
"""Made by `comity dev`: the definitions of a project, governed by the throw-away node of {member}.

The project itself is not changed. This file is written anew at every start.
"""

from comity.dagster_bridge.dev_location import governed_project

defs = governed_project(
    file={file!r},
    module={module!r},
    search={search!r},
    home={home!r},
    base={base!r},
    purpose={purpose!r},
    unbound={unbound!r},
)
'''
_DAGSTER_YAML: Final = "telemetry:\n  enabled: false\n"


@dataclass(frozen=True, slots=True)
class Project:
    """A project, as `dagster dev` takes one: a file (-f) or a module (-m).

    Attributes:
        file: absolute path of the definitions file; empty for a module.
        module: dotted name; empty for a file.
        search: folders that are put before the import path.
    """

    file: str
    module: str
    search: tuple[str, ...]


def find_project(path: str) -> Project:
    """The project that is meant by a file, a folder or the name of a module.

    Raises:
        ConfigError: there is none.
    """
    found = Path(path).expanduser()
    if found.is_file():
        if found.suffix != ".py":
            raise ConfigError(f"{path}: no Python file; name the file with the definitions, or its folder")
        return Project(str(found.absolute()), "", ())
    if found.is_dir():
        return _in_folder(found.absolute())
    if "/" not in path and not path.endswith(".py") and _MODULE.match(path):
        return Project("", path, (str(Path.cwd()),))
    raise ConfigError(f"{path}: there is no such file or folder, and it is no name of a module")


def _in_folder(folder: Path) -> Project:
    for name in (DEFINITIONS, "__init__.py"):
        if (folder / name).is_file():
            return Project(str(folder / name), "", ())
    module = _module_of(folder / "pyproject.toml")
    if module:
        return Project("", module, (str(folder / "src"), str(folder)))
    raise ConfigError(
        f"{folder}: no {DEFINITIONS} in it, and no pyproject.toml that names a module ([tool.dagster] module_name,"
        " or [tool.dg.project] root_module); name the file with the definitions"
    )


def _module_of(pyproject: Path) -> str:
    """The module that a project's settings name for Dagster; empty where they name none."""
    if not pyproject.is_file():
        return ""
    data, _ = read_file(pyproject, PYPROJECT_BYTES_MAX)
    try:
        said: Any = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(f"{pyproject}: not TOML: {exc}") from exc
    named = _at(said, "tool", "dagster", "module_name")
    root = _at(said, "tool", "dg", "project", "root_module")
    module = named or (f"{root}.definitions" if root else "")
    if module and not _MODULE.match(module):
        raise ConfigError(f"{pyproject}: {module!r} is no name of a module")
    return module


def _at(said: Any, *names: str) -> str:
    for name in names:
        said = said.get(name) if isinstance(said, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return said if isinstance(said, str) else ""


def require_packages(*, webserver: bool) -> None:
    """Check that Dagster is installed, and the webserver if it is needed. Neither is imported.

    Raises:
        ConfigError: naming what to install.
    """
    if importlib.util.find_spec("dagster") is None:
        raise ConfigError("--dagster needs Dagster, which is not installed: pip install 'comity[dagster]'")
    if webserver and importlib.util.find_spec("dagster_webserver") is None:
        raise ConfigError(
            "the webserver of Dagster is not installed: pip install dagster-webserver; or run once without it,"
            " e.g. with --materialize '*'"
        )


def write_location(folder: DevFolder, project: Project, unbound: Literal["refuse", "allow"]) -> None:
    """Write the generated code location, and the settings of its Dagster instance.

    Raises:
        ConfigError: they cannot be written.
    """
    text = _LOCATION.format(
        member=folder.first.member,
        file=project.file,
        module=project.module,
        search=list(project.search),
        home=str(folder.first.home.path),
        base=str(folder.assets),
        purpose=PURPOSE,
        unbound=unbound,
    )
    write_file(folder.location, text.encode())
    write_file(folder.dagster_home / "dagster.yaml", _DAGSTER_YAML.encode())


def dagster_environment(folder: DevFolder) -> dict[str, str]:
    """What the processes of Dagster are told beside the user's own environment."""
    return {
        "COMITY_HOME": str(folder.first.home.path),
        "DAGSTER_HOME": str(folder.dagster_home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def bridge_words(action: Literal["describe", "once"], folder: DevFolder, *more: str) -> Sequence[str]:
    """The program that loads the generated location, and says what it found in `answer_file`."""
    return (
        *(sys.executable, "-m", _BRIDGE, action, str(folder.location)),
        *("--answer", str(answer_file(folder)), *more),
    )


def answer_file(folder: DevFolder) -> Path:
    """Where the program of the bridge writes its answer: whatever the project prints is beside it."""
    return folder.logs / "dagster-answer.json"


def webserver_words(folder: DevFolder, port: int) -> Sequence[str]:
    """`dagster dev`: webserver, daemon and code location, ended together."""
    return (
        *(sys.executable, "-P", "-m", "comity.node.lifeline"),
        *(sys.executable, "-m", "dagster", "dev", "-f", str(folder.location)),
        *("-h", "127.0.0.1", "-p", str(port)),
    )
