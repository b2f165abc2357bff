"""`comity node doctor`: each fault is found and named with what mends it, and nothing is changed by looking."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from api_calls import equip, released, submit_record
from comity.node import doctor_home, doctor_machine
from comity.node.client import NodeClient
from comity.node.clock import ManualClock, SystemClock
from comity.node.coalition_file import read_coalition, write_coalition
from comity.node.coalitions import DAY_S
from comity.node.config import read_config, write_config
from comity.node.doctor import examine
from comity.node.doctor_findings import CHECKS, Examination, Finding
from comity.node.doctor_node import epoch, quorum
from comity.node.home import NODE_KEY, Home
from comity.node.publications import owner_policy_record
from comity.node.socket_server import open_socket
from comity.node.store_sqlite import SqliteStore
from command_line import comity, problem_of
from houses import found, hand_of, inhabited, make_member, short_folder
from world import NORTH, SOUTH, policy_body

SOLO = (NORTH,)


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def home(place: Path) -> Home:
    return found(place, SOLO)[NORTH]


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


def looked(home: Home, *, later: int = 0, **environment: str) -> list[Finding]:
    return examine(home, ManualClock(int(time.time()) + later), environment)


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def the(findings: list[Finding], check: str) -> Finding:
    (finding,) = of(findings, check)
    return finding


def contents(path: Path) -> dict[str, tuple[bytes, int, int]]:
    """Bytes, mode and time of change of every file of a home, sockets and what a running node writes left out."""
    return {
        str(each.relative_to(path)): (each.read_bytes(), each.stat().st_mode, each.stat().st_mtime_ns)
        for each in sorted(path.rglob("*"))
        if each.is_file() and not each.name.startswith("store.")
    }


# Without a node


def test_a_sound_home_has_nothing_wrong(home: Home) -> None:
    findings = looked(home)
    assert [finding for finding in findings if finding.verdict == "wrong"] == []
    assert [name for name in CHECKS if not of(findings, name)] == []
    assert the(findings, "node").verdict == "warning"
    assert the(findings, "node").command == f"comity node start --home {home.path}"
    assert "epoch 0: every record verifies" in the(findings, "coalition").sentence
    assert the(findings, "certificate").verdict == "ok"
    assert {finding.check for finding in findings if finding.verdict == "not tried"} == {
        "epoch",
        "peer",
        "quorum",
        "credentials",
        "owner_policy",
    }


def test_nothing_is_changed_by_looking(home: Home) -> None:
    with_store = SqliteStore(home.store)
    with_store.put(read_coalition(home.coalition).epochs, durable=True)
    with_store.close()
    everything = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in home.path.rglob("*") if p.is_file()}
    comity("node", "doctor", "--home", home.path)
    assert {
        p: (p.read_bytes(), p.stat().st_mtime_ns) for p in home.path.rglob("*") if p.is_file()
    } == everything


def test_a_store_that_a_crash_left_open_is_not_touched(home: Home, place: Path) -> None:
    store = SqliteStore(home.store)
    store.put(read_coalition(home.coalition).epochs, durable=True)
    crashed = Home(place / "crashed")
    shutil.copytree(home.path, crashed.path, symlinks=True)
    store.close()
    before = {p: p.read_bytes() for p in crashed.path.rglob("*") if p.is_file()}
    assert any(path.name.endswith("-wal") and data for path, data in before.items())
    finding = the(looked(crashed), "store")
    assert finding.verdict in ("ok", "not tried")
    assert "it was not closed" in finding.sentence
    assert {p: p.read_bytes() for p in crashed.path.rglob("*") if p.is_file()} == before


def test_a_home_that_is_not_there(place: Path) -> None:
    findings = looked(Home(place / "nowhere"))
    assert the(findings, "home").verdict == "wrong"
    assert the(findings, "home").command.startswith("comity node init")
    assert {finding.verdict for finding in findings if finding.check != "home"} == {"not tried"}
    assert comity("node", "doctor", "--home", place / "nowhere", status=1).output.startswith("WRONG")


def test_a_home_without_a_coalition_says_how_to_join(place: Path) -> None:
    findings = looked(make_member(place, NORTH))
    assert the(findings, "coalition").verdict == "wrong"
    assert the(findings, "coalition").command.startswith("comity coalition join")
    assert the(findings, "certificate").verdict == "not tried"


def without_certificate(home: Home) -> None:
    file = read_coalition(home.coalition)
    records = tuple(record for record in file.records if record.header.kind != "node_certificate")
    write_coalition(home.coalition, replace(file, records=records))


def with_foreign_card(home: Home) -> None:
    other = make_member(home.path.parent, SOUTH)
    shutil.copy(other.card, home.card)


def with_foreign_key(home: Home, name: str) -> None:
    other = make_member(home.path.parent, SOUTH)
    for path in home.keys.glob(f"{name}.*"):
        shutil.copy(other.keys / path.name, path)


def with_foreign_node_key(home: Home) -> None:
    with_foreign_key(home, "node")


def with_foreign_transport_key(home: Home) -> None:
    with_foreign_key(home, "transport")


def with_store(home: Home, data: bytes, mode: int = 0o600) -> None:
    home.store.write_bytes(data)
    home.store.chmod(mode)


def with_schema(home: Home, schema: str) -> None:
    SqliteStore(home.store).close()
    connection = sqlite3.connect(home.store)
    connection.execute("UPDATE facts SET value = ? WHERE name = 'schema'", (schema,))
    connection.commit()
    connection.close()


def with_another_database(home: Home) -> None:
    connection = sqlite3.connect(home.store)
    connection.execute("CREATE TABLE other (x)")
    connection.commit()
    connection.close()
    home.store.chmod(0o600)


def with_changed_record(home: Home) -> None:
    lines = home.coalition.read_text().splitlines(keepends=True)
    index = max(range(len(lines)), key=lambda i: len(lines[i]))
    half = len(lines[index]) // 2
    other = "A" if lines[index][half] != "A" else "B"
    lines[index] = lines[index][:half] + other + lines[index][half + 1 :]
    home.coalition.write_text("".join(lines))


FAULTS: list[tuple[str, Callable[[Home], object], str, str]] = [
    ("home", lambda home: home.path.chmod(0o755), "others may look into", "chmod -R go="),
    ("home", lambda home: home.tokens.rename(home.path / "t"), "No such file", "cp -a BACKUP"),
    ("settings", lambda home: home.config.write_text("membr = 'x'\n"), "membr", "comity config check"),
    ("keys", lambda home: home.key(NODE_KEY).chmod(0o644), "others can read", "chmod 600"),
    ("keys", lambda home: home.key(NODE_KEY).write_text("no key"), "not a private key", "cp BACKUP"),
    ("tokens", lambda home: home.token("reader").unlink(), "cannot be read", "comity node start"),
    ("tokens", lambda home: home.token("bridge").chmod(0o644), "others can read", "chmod -R go="),
    ("card", with_foreign_card, f"it names spiffe://{SOUTH}/node/n1", "cp BACKUP"),
    ("card", with_foreign_node_key, "its node key is another", "cp BACKUP"),
    ("card", with_foreign_transport_key, "its transport key is another", "cp BACKUP"),
    ("certificate", with_foreign_transport_key, "for another transport key", "comity coalition sign"),
    ("coalition", with_changed_record, "", "comity coalition join"),
    ("certificate", without_certificate, "there is none for", "comity coalition sign"),
    ("certificate", with_foreign_node_key, "there is none for", "comity coalition sign"),
    (
        "store",
        lambda home: with_store(home, b"SQLite format 3\0" + bytes(4_080), 0o644),
        "others can",
        "chmod 600",
    ),
    ("store", lambda home: with_store(home, b"no database" * 500), "is not a database", "mv "),
    ("store", with_another_database, "is no store of Comity", "mv "),
    ("store", lambda home: with_schema(home, "99"), "it has schema 99", "pip install --upgrade"),
]


@pytest.mark.parametrize(("check", "plant", "sentence", "command"), FAULTS)
def test_a_planted_fault_is_found(
    home: Home, check: str, plant: Callable[[Home], object], sentence: str, command: str
) -> None:
    assert "wrong" not in {finding.verdict for finding in of(looked(home), check)}
    plant(home)
    findings = looked(home)
    (finding,) = [each for each in of(findings, check) if each.verdict == "wrong"]
    assert sentence in finding.sentence
    assert finding.command.startswith(command)
    said = comity("node", "doctor", "--home", home.path, "--json", status=1).json
    assert said["sound"] is False
    assert [each["check"] for each in said["checks"] if each["verdict"] == "wrong"].count(check) == 1
    for each in findings:
        if each.command.startswith("comity "):
            assert problem_of(each.command) == ""


def test_a_member_that_left_is_told(home: Home) -> None:
    config = read_config(home.config)
    write_config(home.config, replace(config, member=SOUTH, node=f"spiffe://{SOUTH}/node/n1"), replace=True)
    finding = the(looked(home), "membership")
    assert finding.verdict == "wrong"
    assert finding.sentence == f"{SOUTH} is no member of epoch 0"


def test_a_certificate_that_ends_soon(home: Home) -> None:
    later = 365 * DAY_S - 10 * DAY_S
    soon, after = (
        the(looked(home, later=later), "certificate"),
        the(looked(home, later=500 * DAY_S), "certificate"),
    )
    assert (soon.verdict, after.verdict) == ("warning", "wrong")
    assert "days" in soon.sentence
    assert soon.command == after.command == "comity coalition sign FILE"


def test_a_clock_before_the_first_epoch(home: Home) -> None:
    finding = the(looked(home, later=-2 * DAY_S), "clock")
    assert finding.verdict == "wrong"
    assert "before epoch 0 was signed" in finding.sentence


def test_a_release_whose_engine_is_not_accepted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_home, "engine_id", lambda: bytes(32))
    assert the(looked(home), "engine").verdict == "wrong"


def test_packages_that_are_missing_or_others(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    versions: dict[str, str | None] = {"libp2p": "0.9.0", "cedarpy": "4.13.0", "hypercorn": None}
    real = doctor_machine._version
    monkeypatch.setattr(
        doctor_machine,
        "_version",
        lambda name: versions.get(name, real(name)) if name in versions else real(name),
    )
    found_here = {finding.about: finding.sentence for finding in of(looked(home), "packages")}
    assert found_here["libp2p"] == "0.9.0 is installed, and 0.8.1 is what was measured"
    assert found_here["hypercorn"] == "it is not installed"
    assert "4.12 is wanted" in found_here["cedarpy"]
    assert len(found_here) == 3


def test_variables_that_change_how_connections_send(home: Home) -> None:
    assert the(looked(home, PY_YAMUX_RELEASE_ON_READ="0"), "environment").verdict == "ok"
    finding = the(looked(home, PY_YAMUX_BATCH_THRESHOLD_DIV="8"), "environment")
    assert (finding.verdict, finding.command) == ("warning", "unset PY_YAMUX_BATCH_THRESHOLD_DIV")


def test_a_disk_without_room(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(home.path).free
    monkeypatch.setattr(doctor_machine, "FREE_BYTES_WARN", free * 2)
    assert the(looked(home), "disk").verdict == "warning"
    monkeypatch.setattr(doctor_machine, "FREE_BYTES_MIN", free * 2)
    assert the(looked(home), "disk").verdict == "wrong"


def test_a_port_that_another_program_has(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        listen = f"/ip4/127.0.0.1/tcp/{port}"
        write_config(home.config, replace(read_config(home.config), listen=listen), replace=True)
        finding = the(looked(home), "port")
        assert finding.verdict == "wrong"
        assert "in use" in finding.sentence
        assert str(port) in finding.command
    assert the(looked(home), "port").verdict == "ok"
    listen = "/ip4/192.0.2.1/tcp/4001"
    write_config(home.config, replace(read_config(home.config), listen=listen), replace=True)
    assert the(looked(home), "port").verdict == "wrong"


def test_policies_that_name_nobody(place: Path) -> None:
    policy = policy_body(observers=("nobody.example",))
    home = found(place, SOLO, policy=policy)[NORTH]
    finding = the(looked(home), "policies")
    assert finding.verdict == "warning"
    assert "main names the observer nobody.example" in finding.sentence


def test_an_organization_key_in_the_home_is_warned_of(home: Home) -> None:
    assert the(looked(home), "organization_key").verdict == "warning"
    home.key("organization").rename(home.path.parent / "organization.pem")
    assert the(looked(home), "organization_key").verdict == "ok"


def test_a_closed_store_of_another_epoch_than_the_file(home: Home) -> None:
    store = SqliteStore(home.store)
    store.put(read_coalition(home.coalition).epochs, durable=True)
    store.close()
    assert the(looked(home), "epoch").sentence == "file and store are at epoch 0"
    connection = sqlite3.connect(home.store)
    connection.execute("UPDATE records SET number = 3 WHERE kind = 'epoch'")
    connection.commit()
    connection.close()
    finding = the(looked(home), "epoch")
    assert (finding.verdict, finding.sentence[:24]) == ("warning", "the node is at epoch 3, ")


def test_a_socket_that_does_not_answer_as_a_node(home: Home) -> None:
    listener = open_socket(home.socket)
    listener.close()
    finding = the(looked(home), "node")
    assert "the socket of one that was ended" in finding.sentence


# With a node


def answers(**changes: Any) -> dict[str, Any]:
    status: dict[str, Any] = {
        "now": 0,
        "epoch": 0,
        "coalition": "",
        "reachable": 1,
        "members": [],
        "quorum": 1,
        "quorum_reachable": True,
    }
    return {"status": status | changes, "coalition": {"epoch_id": ""}, "waiting": []}


def test_a_node_of_another_epoch_or_coalition(home: Home) -> None:
    file = read_coalition(home.coalition)
    assert file.coalition is not None
    here = file.coalition.hex()
    told = Examination(home, SystemClock(), {}, file=file, answers=answers(coalition="ab" * 32))
    assert next(iter(epoch(told))).verdict == "wrong"
    told.answers = answers(coalition=here, epoch=1)
    assert next(iter(epoch(told))).verdict == "warning"
    told.answers = answers(coalition=here)
    assert next(iter(epoch(told))).verdict == "wrong"
    told.answers["coalition"]["epoch_id"] = file.epochs[-1].id.hex()
    assert next(iter(epoch(told))).verdict == "ok"
    told.answers = answers(quorum_reachable=False)
    assert next(iter(quorum(told))).verdict == "wrong"


def test_the_commands_are_words_of_a_shell_whatever_the_folder_is_called(home: Home, place: Path) -> None:
    """What mends it is run as it is printed: it does that, in that folder, and nothing else."""
    named = place / "a b; touch $(basename owned)"
    home.path.rename(named)
    moved = Home(named)
    moved.key(NODE_KEY).chmod(0o644)
    finding = the(looked(moved), "keys")
    assert finding.command.startswith("chmod 600 ")
    subprocess.run(["/bin/sh", "-c", finding.command], check=True, cwd=place)
    assert the(looked(moved), "keys").verdict == "ok"
    assert [each.name for each in place.iterdir() if "owned" in each.name] == [named.name]


def test_members_that_decline_because_of_the_clock(home: Home) -> None:
    now = int(time.time())
    told = Examination(home, ManualClock(now), {}, answers=answers(now=now))
    assert next(iter(doctor_machine.clock(told))).verdict == "ok"
    told.answers["waiting"] = [{"votes": {SOUTH: "clock", NORTH: "execute"}}]
    finding = next(iter(doctor_machine.clock(told)))
    assert (finding.verdict, finding.sentence[: len(SOUTH)]) == ("warning", SOUTH)
    told.answers = answers(now=now - 60)
    assert next(iter(doctor_machine.clock(told))).verdict == "wrong"


async def test_a_running_node_is_looked_at_and_not_changed(place: Path) -> None:
    async with inhabited(found(place, (NORTH, SOUTH))) as houses:
        house = houses[NORTH]
        await equip(house, days=60)
        await released(house)
        before = contents(house.home.path)
        said = await trio.to_thread.run_sync(
            lambda: comity("node", "doctor", "--home", house.home.path, "--json").json
        )
        assert contents(house.home.path) == before
        by_check = {each["check"]: each for each in said["checks"]}
        for check in (
            "node",
            "epoch",
            "peer",
            "quorum",
            "credentials",
            "owner_policy",
            "port",
            "store",
            "clock",
        ):
            assert by_check[check]["verdict"] == "ok", by_check[check]
        assert by_check["peer"]["about"] == SOUTH
        await houses[SOUTH].end()
        await house.until(lambda status: status["reachable"] == 1)
        findings = await trio.to_thread.run_sync(lambda: looked(house.home))
        assert (the(findings, "peer").verdict, the(findings, "quorum").verdict) == ("warning", "wrong")
        assert "no address of it is known" in the(findings, "peer").sentence


async def test_credentials_and_consents_that_end_or_name_nothing(place: Path) -> None:
    async with inhabited(found(place, SOLO)) as houses:
        house = houses[NORTH]
        none = await trio.to_thread.run_sync(lambda: the(looked(house.home), "credentials"))
        assert (none.verdict, none.sentence[:15]) == ("warning", "there is none f")
        await equip(house, days=5)
        ending = await trio.to_thread.run_sync(lambda: the(looked(house.home), "credentials"))
        assert (ending.verdict, ending.about) == ("warning", f"spiffe://{NORTH}/node/n1")
        assert problem_of(ending.command) == ""
        await equip(house, days=90)
        renewed = await trio.to_thread.run_sync(lambda: the(looked(house.home), "credentials"))
        assert renewed.verdict == "ok"
        author = hand_of(house.home).organization(None, bytes.fromhex(house.ready.coalition))
        record = owner_policy_record(author, ["helth=live", "released=standing:3"], None)
        await submit_record(house, record)
        listed = await house.ask(NodeClient.owner_policies, "reader")
        assert [row["member"] for row in listed] == [NORTH]
        said = await trio.to_thread.run_sync(lambda: of(looked(house.home), "owner_policy"))
        assert [finding.verdict for finding in said] == ["warning", "warning"]
        assert "helth" in said[0].sentence
        assert "the standing consent for released ends on" in said[1].sentence


async def test_a_token_that_the_node_does_not_know(place: Path) -> None:
    async with inhabited(found(place, SOLO)) as houses:
        home = houses[NORTH].home
        home.token("reader").write_text("x" * 43 + "\n")
        finding = await trio.to_thread.run_sync(lambda: the(looked(home), "node"))
        assert (finding.verdict, finding.command) == ("wrong", "comity cause token_wrong")
