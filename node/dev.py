"""A coalition of one person on one laptop: its names, its realm, its rules, and the folder in which it lies.

Three throw-away organizations whose keys all lie in one user's folder. They protect nothing from each other; they are
there to be tried. What they make is of the realm `preview/dev`, and that is held to by more than one thing:

- every credential that `comity dev` issues is bound to that realm;
- the coalition's own policy, which its genesis names and all three have signed, refuses any other realm, whatever
  credential is issued later;
- the owners' rules refuse what is made from their data in any other realm;
- nobody admits a preview's output in production, which no policy can change (docs/spec/lineage.md section 1);
- their records are of a coalition to which no other member belongs, and their names end in `.test`, which is
  nobody's domain (RFC 6761).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.node.home import SOCKET_BYTES_MAX, Home
from comity.protocol.errors import ConfigError

REALM: Final = "preview/dev"
COALITION: Final = "dev"
PURPOSE: Final = "dev"
AUTHORITY_CLASS: Final = "data-steward"
REFUSED: Final = "realm_not_preview_dev"
"""The reason by which the policy refuses what is of another realm."""
NAMES: Final = ("first", "second", "third")
"""Three: the fewest members among which a decision is that of several others."""

TAXONOMY: Final = f"""\
# The classes of authority of this coalition. A change is a new epoch: `comity policy publish --taxonomy FILE ...`.
[[classes]]
name = "{AUTHORITY_CLASS}"
weight = 600000

[[classes]]
name = "data-protection-officer"
weight = 800000
"""
POLICY: Final = f"""\
# What is governed, and how it is classed. The rules stand in policy.cedar.
name = "{COALITION}"
rules = "policy.cedar"

# Every asset of every member. A first rule that matches holds: more particular ones are written above it.
[[assets]]
pattern = "*/**"
data_class = "data"

[[purposes]]
name = "{PURPOSE}"
"""
_PREVIEW_ONLY: Final = f"""\
@id("preview-only") @mode("refuse") @reason("{REFUSED}")
forbid (principal, action == Action::"materialize", resource is Asset)
unless {{ resource.realm == "{REALM}" }};
"""
_PERMITS: Final = f"""\
@id("stewards")
permit (principal in AuthorityClass::"{AUTHORITY_CLASS}", action == Action::"materialize", resource is Asset);

@id("columns")
permit (principal, action == Action::"include", resource is Column);
"""
RULES: Final = f"""\
// The rules of this coalition. Every member judges every intent by them, before anything runs.
// What a rule may speak of: docs/spec/policy.md section 3. `comity policy lint policy.toml` looks at them.

{_PERMITS}
// A throw-away coalition makes nothing that could be taken for production.
{_PREVIEW_ONLY}"""
OWNER_RULES: Final = f"""\
// What each member says of the use of data that it owns, beside its consent: `comity owner-policy publish`.

{_PERMITS}
// What is made from it stays what it is, whatever the coalition's policy says one day.
{_PREVIEW_ONLY}"""


@dataclass(frozen=True, slots=True)
class DevMember:
    """One of the three."""

    name: str
    home: Home

    @property
    def member(self) -> str:
        return f"{self.name}.dev.test"

    @property
    def log(self) -> Path:
        """What its node logs: beside the home, which the node may not have."""
        return self.home.path.parent / "logs" / f"{self.name}.log"


@dataclass(frozen=True, slots=True)
class DevFolder:
    """Where everything lies. The layout is written here and nowhere else.

    Attributes:
        kept: whether it stays when the command ends.
    """

    path: Path
    kept: bool

    @property
    def members(self) -> tuple[DevMember, ...]:
        return tuple(DevMember(name, Home(self.path / name)) for name in NAMES)

    @property
    def first(self) -> DevMember:
        """The member whose node Dagster asks."""
        return self.members[0]

    @property
    def site(self) -> Path:
        """Taxonomy, policy and rules, as people write them."""
        return self.path / "site"

    @property
    def coalition(self) -> Path:
        return self.path / "coalition.toml"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def assets(self) -> Path:
        """Files of what the first member makes."""
        return self.path / "assets"

    @property
    def dagster_home(self) -> Path:
        return self.path / "dagster"

    @property
    def location(self) -> Path:
        """The generated code location that governs a project. Its name is in nobody's way."""
        return self.path / "location" / "comity_dev_location.py"

    @property
    def mark(self) -> Path:
        """Written last: a folder that has it can be gone on with."""
        return self.path / "dev.json"

    def make(self) -> None:
        """Make the folders.

        Raises:
            ConfigError: they cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for each in (self.site, self.logs, self.assets, self.dagster_home, self.location.parent):
                each.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise ConfigError(f"{self.path}: cannot be made: {exc.strerror}") from exc

    def clear(self) -> None:
        """Remove all that lies in it, and it, if it is temporary."""
        if not self.kept:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        with contextlib.suppress(OSError):
            for each in self.path.iterdir():
                shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink()


def dev_folder(keep: Path | None) -> DevFolder:
    """The folder to work in: the one that is named, else a temporary one.

    Raises:
        ConfigError: it is no folder, holds something else, or its path is too long for a socket.
    """
    if keep is None:
        folder = DevFolder(Path(tempfile.mkdtemp(prefix="comity-dev-")), kept=False)
        try:
            _require_short(folder, "--keep DIR names another one")
        except ConfigError:
            folder.clear()
            raise
        return folder
    folder = DevFolder(keep.expanduser().absolute(), kept=True)
    _require_short(folder, "choose a shorter one")
    if folder.path.exists() and not folder.path.is_dir():
        raise ConfigError(f"{keep}: is no folder")
    try:
        filled = folder.path.exists() and any(folder.path.iterdir())
    except OSError as exc:
        raise ConfigError(f"{keep}: cannot be read: {exc.strerror}") from exc
    if filled and not folder.mark.exists():
        raise ConfigError(
            f"{keep}: the folder is not empty, and is none that `comity dev --keep` has made; nothing was changed"
        )
    return folder


def _require_short(folder: DevFolder, remedy: str) -> None:
    longest = max((len(os.fsencode(each.home.socket)) for each in folder.members), default=0)
    if longest > SOCKET_BYTES_MAX:
        raise ConfigError(
            f"{folder.path}: the path is too long: a node's socket in it would have {longest} bytes, and"
            f" {SOCKET_BYTES_MAX} are possible; {remedy}"
        )
