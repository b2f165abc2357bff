"""`comity config check` as somebody meets it who has mistyped: file, line, key, and what was probably meant."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comity.node.config_check import check_home
from comity.node.home import Home
from comity.protocol.errors import ConfigError
from command_line import Said, comity
from houses import short_folder

NORTH, SOUTH = "clinic-north.example", "clinic-south.example"
NODE = f"spiffe://{SOUTH}/node/n1"


@pytest.fixture(scope="module")
def founded() -> Iterator[Path]:
    """Two members' homes and the site's files; nothing runs."""
    with short_folder() as place:
        homes = {name: place / name for name in ("north", "south")}
        for port, (name, home) in enumerate(homes.items(), start=4101):
            comity(
                "node", "init", "--member", f"clinic-{name}.example", "--listen", f"127.0.0.1:{port}", home
            )
        comity("policy", "template", place / "site")
        draft(place, place / "coalition.toml")
        comity("coalition", "sign", place / "coalition.toml", "--home", homes["south"])
        comity("coalition", "join", place / "coalition.toml", "--home", homes["north"])
        yield place


@pytest.fixture
def place(founded: Path) -> Iterator[Path]:
    """A copy of it to spoil."""
    with short_folder() as folder:
        yield shutil.copytree(founded, folder / "x")


def draft(place: Path, out: Path, *more: str, status: int = 0) -> Said:
    site = place / "site"
    cards = [word for name in ("north", "south") for word in ("--card", place / name / "card.toml")]
    return comity(
        *("coalition", "new", "--home", place / "north", "--name", "study", *cards, "--out", out),
        *("--taxonomy", site / "taxonomy.toml", "--policy", site / "policy.toml", *more),
        status=status,
    )


def check(place: Path, status: int = 2) -> Said:
    return comity("config", "check", "--home", place / "north", status=status)


def refusal(place: Path) -> str:
    """What the command says, without the cost of a command."""
    with pytest.raises(ConfigError) as caught:
        check_home(Home(place / "north"))
    return str(caught.value)


def spoil(file: Path, old: str, new: str) -> int:
    """Put one text in the place of another, and return the line of it."""
    text = file.read_text()
    assert old in text, (file, old)
    before, after = text.split(old, 1)
    file.write_text(before + new + after)
    return (before + new).count("\n") + 1


SETTINGS = [
    # A key that is unknown, misspelt, of another unit, or there twice.
    ("log_level =", "loglevel =", "loglevel", "unknown key; did you mean log_level?"),
    ("log_level =", "colour =", "colour", "unknown key; there are member, node, listen"),
    ("default_s = 60", "default_ms = 60000", "wait.default_ms", "unknown key; did you mean default_s?"),
    ("[wait]", "[waits]", "waits", "unknown key; did you mean wait?"),
    ('security = "noise"', 'listen = "127.0.0.1:1"', "listen", "it stands in this file already"),
    # A value of another type or unit, or beyond its bound.
    ('log_level = "info"', "log_level = 3", "log_level", '3 is not "debug", "info"'),
    ('log_level = "info"', 'log_level = "warn"', "log_level", "did you mean warning?"),
    ('security = "noise"', 'security = "nois"', "security", "did you mean noise?"),
    ("default_s = 60", 'default_s = "60s"', "wait.default_s", "'60s' is not whole seconds from 0 to 600"),
    ("default_s = 60", "default_s = 60000", "wait.default_s", "60000 is not whole seconds from 0 to 600"),
    ("max_s = 600", "max_s = 6.5", "wait.max_s", "6.5 is not whole seconds"),
    # An address.
    ("/ip4/127.0.0.1/tcp/4101", "127.0.0.1", "listen", "'127.0.0.1' is not an address: host:port"),
    ("/ip4/127.0.0.1/tcp/4101", "127.0.0.256:1", "listen", "neither an IP address nor a host name"),
    ("/ip4/127.0.0.1/tcp/4101", "localhost:1", "listen", "an IP address of this machine is needed"),
    ("[peers]", f'[peers]\n"{SOUTH}" = ["h:1"]', f"peers.{SOUTH}", "not the SPIFFE id of a node"),
    ("[peers]", f'[peers]\n"{NODE}" = "h:1"', f"peers.{NODE}", "'h:1' is not a list of 1 to 8 addresses"),
    # What no TOML is.
    ('security = "noise"', "security = noise", "security", "not TOML: Invalid value (column 12)"),
    ('security = "noise"', 'security = "noise', "security", "not TOML: Illegal character"),
    # What is sound by itself, and does not fit the files beside it.
    ("/node/n1", "/node/n2", "node", f"did you mean spiffe://{NORTH}/node/n1?"),
    ("store.sqlite3", "nowhere/store.sqlite3", "store", "there is no folder"),
    (
        "[peers]",
        '[peers]\n"spiffe://clinic-soth.example/node/n1" = ["h:1"]',
        "peers.spiffe://clinic-soth.example/node/n1",
        f"no member of the coalition is clinic-soth.example; did you mean {SOUTH}?",
    ),
    (
        "[peers]",
        f'[peers]\n"spiffe://{NORTH}/node/n1" = ["h:1"]',
        f"peers.spiffe://{NORTH}/node/n1",
        "this is the node itself",
    ),
]


@pytest.mark.parametrize(("old", "new", "key", "problem"), SETTINGS)
def test_a_mistake_in_the_settings(place: Path, old: str, new: str, key: str, problem: str) -> None:
    file = place / "north/node.toml"
    line = spoil(file, old, new)
    said = refusal(place)
    assert said.startswith(f"{file}:{line}: {key}: ")
    assert problem in said


COALITION = [
    ("name =", "nam =", "nam", "unknown key; did you mean name?"),
    ("epoch_number = 0", "epoch_number = 1", "epoch_number", "not what the epoch records of this file say"),
    ("/tcp/4102", "/tcp/70000", "members[1].nodes[0].addresses", "a port is at most 65535"),
    ("addresses = [", "adresses = [", "members[0].nodes[0].adresses", "did you mean addresses?"),
    ("taxonomy = [", "taxonomi = [", "records.taxonomi", "unknown key; did you mean taxonomy?"),
    ("epoch_number = 0", "epoch_number = = 0", "epoch_number", "not TOML: Invalid value"),
]


@pytest.mark.parametrize(("old", "new", "key", "problem"), COALITION)
def test_a_mistake_in_the_coalition_file(place: Path, old: str, new: str, key: str, problem: str) -> None:
    file = place / "north/coalition.toml"
    line = spoil(file, old, new)
    said = refusal(place)
    assert said.startswith(f"{file}:{line}: {key}: ")
    assert problem in said


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (f'id = "{SOUTH}"', 'id = "clinic-soth.example"', f"did you mean {SOUTH}?"),
        (
            f'namespaces = ["{SOUTH}"]',
            'namespaces = ["a.example"]',
            f"gives {SOUTH} other keys or namespaces",
        ),
    ],
)
def test_a_member_that_the_epoch_does_not_know(place: Path, old: str, new: str, problem: str) -> None:
    file = place / "north/coalition.toml"
    spoil(file, old, new)
    line = file.read_text().split("[[members]]", 2)[:2]
    said = check(place).errors
    assert said.startswith(f"comity: {file}:{'[[members]]'.join(line).count(chr(10)) + 1}: members[1]: ")
    assert problem in said


def _remove(name: str) -> Callable[[Path], None]:
    return lambda home: (home / name).unlink()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_remove("node.toml"), "node.toml: there is no such file: `comity node init` makes"),
        (_remove("keys/node.pem"), "keys/node.pem: there is no such file: bring it back from a backup"),
        (_remove("tokens/bridge"), "tokens/bridge: there is no such file: `comity node start` makes it anew"),
        (lambda home: home.chmod(0o755), "chmod 700"),
        (
            lambda home: (home / "node.toml").write_bytes(b"\xef\xbb\xbf"),
            "node.toml:1: begins with a byte order",
        ),
        (lambda home: (home / "node.toml").write_bytes(b"# \xe9"), "node.toml: not UTF-8 text"),
        (
            lambda home: shutil.copy(home / "card.toml", home / "node.toml"),
            "this is the card of a node, not the",
        ),
        (
            lambda home: shutil.copy(home / "roots.toml", home / "coalition.toml"),
            "this is a roots file, not a",
        ),
        (shutil.rmtree, "`comity node init` makes the home of a node"),
    ],
)
def test_a_file_that_is_missing_or_another(place: Path, change: Callable[[Path], None], problem: str) -> None:
    change(place / "north")
    assert problem in check(place).errors


def test_a_sound_home_is_sound_without_its_card(place: Path) -> None:
    assert "are sound" in check(place, 0).output
    (place / "north/card.toml").unlink()
    assert "warning" not in check(place, 0).output


@pytest.mark.parametrize(
    ("old", "new", "key", "problem"),
    [
        ('# purpose = "research"', 'purpose = "survival_stdy"', "purpose", "did you mean survival_study?"),
        (
            "[peers]",
            f'[peers]\n"spiffe://{SOUTH}/node/m1" = ["h:1"]',
            f"peers.spiffe://{SOUTH}/node/m1",
            f"did you mean {NODE}?",
        ),
    ],
)
def test_what_no_other_file_names_is_warned_of(
    place: Path, old: str, new: str, key: str, problem: str
) -> None:
    # The node starts all the same: a later epoch may name the purpose, a record certify the node.
    file = place / "north/node.toml"
    line = spoil(file, old, new)
    said = check(place, 0).output
    assert said.startswith(f"warning: {file}:{line}: {key}: ")
    assert problem in said
    (warning,) = comity("config", "check", "--home", place / "north", "--json").json["warnings"]
    assert problem in warning


LINTED = [
    ("policy.toml", 'rows_by = "inst"', 'rows_by = "isnt"', "assets[1].rows_by", "did you mean inst?"),
    ("policy.toml", '"time", "status"]', '"tim", "status"]', "purposes[0].columns", "did you mean time?"),
]
DRAFTED = [
    ("policy.toml", "observers = []", f'observers = ["x{SOUTH}"]', "observers", f"did you mean {SOUTH}?"),
    (
        "taxonomy.toml",
        "issuers = []",
        f'issuers = ["x{SOUTH}"]',
        "classes[1].issuers",
        f"did you mean {SOUTH}?",
    ),
]


@pytest.mark.parametrize(("name", "old", "new", "key", "problem"), [*LINTED, *DRAFTED])
def test_a_name_in_a_policy_or_taxonomy_that_names_nothing(
    place: Path, name: str, old: str, new: str, key: str, problem: str
) -> None:
    file = place / "site" / name
    line = spoil(file, old, new)
    wanted = f"{file}:{line}:1: warning: {key}: "
    said = draft(place, place / "next.toml").output
    assert (wanted in said, problem in said) == (True, True), said
    policy, taxonomy = place / "site/policy.toml", place / "site/taxonomy.toml"
    linted = comity("policy", "lint", policy, "--taxonomy", taxonomy, "--strict", status=None)
    assert (wanted in linted.output, linted.status) == ((name, old, new, key, problem) in LINTED,) * 2


def test_an_option_that_names_no_member(place: Path) -> None:
    said = draft(place, place / "next.toml", "--publisher", "clinic-soth.example", status=2)
    assert (
        f"--publisher clinic-soth.example: no member of this coalition; did you mean {SOUTH}?" in said.errors
    )


def test_a_class_within_one_that_is_not_there(place: Path) -> None:
    file = place / "site/taxonomy.toml"
    line = spoil(file, '# within = "data-steward"', 'within = "data-stewart"')
    said = draft(place, place / "next.toml", status=2).errors
    assert f"{file}:{line}: classes[2].within: no class data-stewart; did you mean data-steward?" in said


def test_two_nodes_at_one_address_are_warned_of(place: Path) -> None:
    spoil(place / "south/card.toml", "/tcp/4102", "/tcp/4101")
    said = draft(place, place / "next.toml").output
    assert (
        f"card of {SOUTH}: warning: /ip4/127.0.0.1/tcp/4101 is the address of spiffe://{NORTH}/node/n1, too"
        in said
    )
