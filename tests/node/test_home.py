"""The folder of a node: where everything lies, and for whom."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from comity.node.home import NODE_KEY, SOCKET_BYTES_MAX, Home, find_home
from comity.protocol.errors import ConfigError


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "deep" / "home")
    home.create()
    home.create()
    for folder in (home.path, home.keys, home.tokens, home.logs):
        assert mode_of(folder) == 0o700


def test_the_layout() -> None:
    home = Home(Path("/h"))
    files = [home.config, home.store, home.socket, home.coalition, home.roots, home.governed, home.logs]
    files += [home.key(NODE_KEY), home.token("bridge")]
    assert [str(file) for file in files] == [
        "/h/node.toml",
        "/h/store.sqlite3",
        "/h/node.sock",
        "/h/coalition.toml",
        "/h/roots.toml",
        "/h/governed.json",
        "/h/logs",
        "/h/keys/node.pem",
        "/h/tokens/bridge",
    ]


@pytest.mark.parametrize("folder", ["", "keys", "tokens"])
def test_a_home_that_others_may_look_into_is_refused(tmp_path: Path, folder: str) -> None:
    home = Home(tmp_path / "home")
    home.create()
    open_folder = home.path / folder
    open_folder.chmod(0o750)
    for check in (home.create, home.require_private):
        with pytest.raises(ConfigError, match=f"chmod 700 {open_folder}"):
            check()


def test_a_home_that_is_missing_says_how_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="node init"):
        Home(tmp_path / "absent").require_private()


def test_a_home_too_deep_for_its_socket_is_refused_before_it_is_made(tmp_path: Path) -> None:
    length = SOCKET_BYTES_MAX - len(str(tmp_path)) - len("//node.sock")
    longest = Home(tmp_path / ("x" * length))
    longest.create()
    assert len(str(longest.socket)) == SOCKET_BYTES_MAX
    with pytest.raises(ConfigError, match="choose a shorter one"):
        Home(tmp_path / ("x" * (length + 1))).create()
    assert [path.name for path in tmp_path.iterdir()] == [longest.path.name]


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        Home(tmp_path / "file" / "home").create()


def test_the_home_is_the_one_named_then_the_environments_then_the_users(tmp_path: Path) -> None:
    environment = {"COMITY_HOME": str(tmp_path / "env")}
    assert find_home(tmp_path / "given", environment).path == tmp_path / "given"
    assert find_home(None, environment).path == tmp_path / "env"
    assert find_home(None, {}).path == Path.home() / ".comity"
