"""`node.toml`: what is read, what is written for a newcomer, and what is said of a mistake."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.node.address import dial_address, listen_address
from comity.node.config import Config, format_config, parse_config, read_config, write_config
from comity.protocol.errors import ConfigError

MEMBER, NODE = "clinic-north.example", "spiffe://clinic-north.example/node/n1"
SOUTH, BOARD = "spiffe://clinic-south.example/node/n1", "spiffe://board.example/node/n1"
LEAST = f'member = "{MEMBER}"\nnode = "{NODE}"\n'
FULL = Config(
    member=MEMBER,
    node=NODE,
    listen="/ip4/0.0.0.0/tcp/0",
    security="tls",
    store=Path("/var/lib/comity/store.sqlite3"),
    log_level="debug",
    purpose="survival_study",
    automation=b"\xab" * 32,
    wait_default_s=0,
    wait_max_s=5,
    peers={
        SOUTH: ("/dns/node.south.example/tcp/4001", "/ip6/::1/tcp/4001"),
        BOARD: ("/ip4/192.0.2.7/tcp/1",),
    },
)


def test_the_least_that_a_node_has_to_say() -> None:
    config = parse_config(LEAST)
    assert config == Config(member=MEMBER, node=NODE)
    assert config.store_path(Path("/home")) == Path("/home/store.sqlite3")
    assert (config.security, config.automation, config.wait_max_s, dict(config.peers)) == (
        "noise",
        None,
        600,
        {},
    )


def test_everything_that_a_node_can_say() -> None:
    text = f"""
member = '{MEMBER}'
node = '{NODE}'
listen = "0.0.0.0:0"
security = "tls"
store = "/var/lib/comity/store.sqlite3"
log_level = "debug"
purpose = "survival_study"
automation = "{"ab" * 32}"
wait = {{ default_s = 0, max_s = 5 }}
peers."{BOARD}" = ["192.0.2.7:1"]
peers."{SOUTH}" = ["node.south.example:4001", "[::1]:4001"]
"""
    assert parse_config(text) == FULL
    assert FULL.store_path(Path("/home")) == Path("/var/lib/comity/store.sqlite3")


@pytest.mark.parametrize("config", [Config(member=MEMBER, node=NODE), FULL])
def test_what_is_written_is_read(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "node.toml"
    write_config(path, config)
    assert read_config(path) == config
    with pytest.raises(ConfigError, match="File exists"):
        write_config(path, config)
    write_config(path, FULL, replace=True)
    assert read_config(path) == FULL


@given(
    st.builds(
        Config,
        member=st.just(MEMBER),
        node=st.just(NODE),
        store=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200).map(
            Path
        ),
        wait_default_s=st.integers(0, 60),
        wait_max_s=st.integers(60, 600),
        automation=st.none() | st.binary(min_size=32, max_size=32),
        purpose=st.from_regex(r"([a-z][a-z0-9_]{0,63})?", fullmatch=True),
    )
)
def test_whatever_is_written_is_read(config: Config) -> None:
    assert parse_config(format_config(config)) == config


def test_a_newcomer_finds_every_key_explained() -> None:
    lines = format_config(Config(member=MEMBER, node=NODE)).splitlines()
    for field in dataclasses.fields(Config):
        table = next((each for each in ("wait", "page", "notify") if field.name.startswith(f"{each}_")), "")
        name = field.name.removeprefix(f"{table}_")
        begin = lines.index(f"[{table}]") if table else 0
        number = next(
            i
            for i, line in enumerate(lines)
            if i >= begin and line.startswith((f"{name} =", f"# {name} =", f"[{name}]"))
        )
        assert lines[number - 1].startswith("# ")
    # What is commented out is right once the comment sign is gone.
    examples = [line for line in lines if line.startswith(("# purpose =", "# automation =", '# "spiffe:'))]
    assert len(examples) == 3
    text = "\n".join(line.removeprefix("# ") if line in examples else line for line in lines)
    assert parse_config(text).purpose == "research"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('membre = "a"', "my.toml:1: membre: unknown key; did you mean member?"),
        (f'{LEAST}\nxyz = "a"', "my.toml:4: xyz: unknown key; there are member, node, listen"),
        (f"{LEAST}[wait]\n# none\nmax = 3", "my.toml:5: wait.max: unknown key; did you mean max_s?"),
        (f"{LEAST}wait = {{ max = 3 }}", "my.toml:3: wait.max: unknown key"),
        (f"{LEAST}wait = 3", "my.toml:3: wait: not a table"),
        (f'node = "{NODE}"', "my.toml: member: missing; it is the organization's domain"),
        (f'member = "{MEMBER}"', "my.toml: node: missing; it is a SPIFFE id"),
        ("member = 3", "my.toml:1: member: 3 is not the organization's domain"),
        ('member = "Clinic"', "my.toml:1: member: 'Clinic' is not the organization's domain in lower case"),
        (
            f'\n# member\nmember = "{MEMBER}"\nnode = "spiffe://clinic-south.example/node/n1"',
            f"my.toml:4: node: not under the organization {MEMBER}",
        ),
        (f'{LEAST}security = "plaintext"', 'my.toml:3: security: \'plaintext\' is not "noise" or "tls"'),
        (f'{LEAST}log_level = "trace"', 'my.toml:3: log_level: \'trace\' is not "debug", "info"'),
        (f'{LEAST}store = ""', "my.toml:3: store: it is empty, or too long; it is the path"),
        (f'{LEAST}store = "a\\u0000b"', "my.toml:3: store:"),
        (f"{LEAST}store = 3", "my.toml:3: store: 3 is not the path"),
        (
            f'{LEAST}purpose = "Survival Study"',
            "my.toml:3: purpose: 'Survival Study' is not a name of lower-case",
        ),
        (f'{LEAST}automation = "abcd"', "my.toml:3: automation: not 64 hex digits"),
        (f'{LEAST}listen = "4001"', "my.toml:3: listen: '4001' is not an address: host:port, or /ip4"),
        (f"{LEAST}listen = 4001", "my.toml:3: listen: 4001 is not host:port"),
        (
            f"{LEAST}[wait]\ndefault_s = 601",
            "my.toml:4: wait.default_s: 601 is not whole seconds from 0 to 600",
        ),
        (f"{LEAST}[wait]\nmax_s = -1", "my.toml:4: wait.max_s: -1 is not whole seconds"),
        (f"{LEAST}[wait]\nmax_s = 1.5", "my.toml:4: wait.max_s: 1.5 is not whole seconds"),
        (f"{LEAST}[wait]\nmax_s = 30", "my.toml:3: wait.default_s: more than max_s, which is 30"),
        (f'{LEAST}[peers]\n"{SOUTH}" = []', f"my.toml:4: peers.{SOUTH}: 0 addresses; it is a list of 1 to 8"),
        (
            f'{LEAST}[peers]\n"{SOUTH}" = ["h:0"]',
            f"my.toml:4: peers.{SOUTH}: 'h:0': nobody can be reached at port 0",
        ),
        (f'{LEAST}[peers]\n"{SOUTH}" = "h:1"', f"my.toml:4: peers.{SOUTH}: 'h:1' is not a list"),
        (f'{LEAST}[peers]\n"{SOUTH}" = ["h:1"]\n\nsouth = ["h:1"]', "my.toml:6: peers.south:"),
        (f"{LEAST}peers = 1", "my.toml:3: peers: it is no table"),
        ("member = ", "my.toml:1: member: not TOML: Invalid value"),
        (f"{LEAST}{LEAST}", "my.toml:3: member: it stands in this file already, and may stand once"),
        ("#" * 70_000, "my.toml: longer than 65536 bytes"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "my.toml")
    assert str(caught.value).startswith(message)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"node.toml: cannot be read: No such file"):
        read_config(tmp_path / "node.toml")


@pytest.mark.parametrize(
    "change",
    [
        {"member": "Clinic"},
        {"member": 3},
        {"node": "spiffe://clinic-south.example/node/n1"},
        {"security": "plaintext"},
        {"listen": "0.0.0.0:0"},
        {"store": "store.sqlite3"},
        {"automation": b"short"},
        {"wait_max_s": 601},
        {"wait_default_s": 600, "wait_max_s": 599},
        {"peers": {"south": ("/ip4/192.0.2.7/tcp/1",)}},
        {"peers": {SOUTH: ("192.0.2.7:1",)}},
        {"peers": {f"spiffe://a{i}.example/n": ("/ip4/192.0.2.7/tcp/1",) for i in range(257)}},
        {"peers": None},
    ],
)
def test_settings_are_checked_when_they_are_made(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        dataclasses.replace(FULL, **change)


def test_peers_cannot_be_changed_behind_the_nodes_back() -> None:
    peers = {SOUTH: ("/ip4/192.0.2.7/tcp/1",)}
    config = dataclasses.replace(FULL, peers=peers)
    peers.clear()
    assert SOUTH in config.peers


@given(st.text(max_size=200))
def test_any_text_is_settings_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(text)


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4001", "/ip4/127.0.0.1/tcp/4001"),
        ("[2001:db8::1]:65535", "/ip6/2001:db8::1/tcp/65535"),
        ("node.clinic-north.example:1", "/dns/node.clinic-north.example/tcp/1"),
        ("localhost:1", "/dns/localhost/tcp/1"),
        ("/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001"),
        ("/dns6/a.example/tcp/4001", "/dns6/a.example/tcp/4001"),
    ],
)
def test_an_address_is_written_in_one_way(text: str, address: str) -> None:
    assert dial_address(text) == address
    assert dial_address(address) == address
    assert listen_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        ":4001",
        "127.0.0.1:04001",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "256.0.0.1:1",
        "2001:db8::1:1",
        "[127.0.0.1:1",
        "[zz]:1",
        "a_b:1",
        "-a:1",
        "a..b:1",
        "a" * 64 + ":1",
        "/ip4/::1/tcp/1",
        "/ip6/127.0.0.1/tcp/1",
        "/ip4/127.0.0.1/udp/1",
        "/ip4/127.0.0.1/tcp/1/p2p/x",
        "127.0.0.1:1\n",
        "127.0.0.1:\u0661",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|host|port"):
        listen_address(text)


def test_nobody_dials_port_0() -> None:
    assert listen_address("127.0.0.1:0") == "/ip4/127.0.0.1/tcp/0"
    with pytest.raises(ValueError, match="port 0"):
        dial_address("127.0.0.1:0")
