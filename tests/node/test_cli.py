"""The commands: help, output for people and programs, exit statuses, and founding a coalition by their examples."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from comity.attestation.roots import format_roots
from comity.node.cli import app
from comity.node.credentialing import Wish, issued
from comity.node.keystore import companion
from comity.node.signing_hand import whole_pattern, whole_subject
from comity.protocol.envelope import decode_record
from comity.protocol.errors import ConfigError
from comity.protocol.records import decode_body
from command_line import Said, comity
from houses import environment, found, hand_of, short_folder
from stories import Pooled
from world import FOUR, NORTH, SOUTH

PYTHON = [sys.executable, "-P"]


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""

    def walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        below = getattr(command, "commands", None)
        if below is None:
            yield words, command
            return
        for name, each in below.items():
            yield from walk((*words, name), each)

    yield from walk((), typer.main.get_command(app))


COMMANDS = list(commands())
PROMISED = """
    node init | node start | node status | coalition new | coalition sign | coalition show | coalition join
    | coalition admit | coalition merge | coalition roots
    | credential issue | credential list | credential revoke | policy lint | policy publish
    | intent explain | intent list | intent show | decision list | decision show | waiting | approve | ticket
    | key new | transition publish | owner-policy publish | reference publish | lineage show | lineage export
    | verify
"""


# Help


def test_every_promised_command_is_there() -> None:
    promised = {" ".join(each.split()) for each in PROMISED.split("|")}
    assert promised <= {" ".join(words) for words, _ in COMMANDS}


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_a_command_explains_itself(words: tuple[str, ...], command: Any) -> None:
    """Help, an example that begins with the command, `--json`, and a sentence for every parameter."""
    assert "Usage" in comity(*words, "--help").output
    assert f"[cyan]comity {' '.join(words)}" in command.epilog
    assert "Exit status" in command.epilog
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options
    mute = [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]
    assert mute == []
    assert len(command.help) > 20


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_examples_have_options_that_exist(words: tuple[str, ...], command: Any) -> None:
    own = {option for parameter in command.params for option in parameter.opts}
    for example in re.findall(r"\[cyan\](comity .*)\[/cyan\]", command.epilog):
        if not example.startswith(f"comity {' '.join(words)} "):
            continue
        used = set(re.findall(r"(?<= )--[a-z-]+", example))
        assert used <= own, example


def test_help_imports_nothing_heavy() -> None:
    """What it costs is measured in test_packaging, by what draws it: a limit in seconds is of one machine."""
    program = """
import sys
from comity.node.cli import main
sys.argv = ["comity", "--help"]
try:
    main()
except SystemExit:
    pass
heavy = {"cedarpy", "cryptography", "dagster", "fastapi", "hypercorn", "libp2p", "nacl", "sqlalchemy", "trio"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run(
        [*PYTHON, "-c", program], capture_output=True, text=True, check=True, env=environment()
    )
    assert "coalition" in done.stdout
    assert done.stderr.strip() == "[]"


def test_without_the_packages_of_a_node_a_command_says_which_to_install(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH]
    program = (
        "import sys; sys.modules['trio'] = None; sys.modules['structlog'] = None;"
        " from comity.node.cli import main; sys.argv[0] = 'comity'; main()"
    )

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PYTHON, "-c", program, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )

    done = run("node", "start", "--home", home.path)
    assert done.returncode == 2
    assert "pip install 'comity[node]'" in done.stderr
    assert "Traceback" not in done.stderr
    # What needs none of them works without.
    assert run("coalition", "show", "--home", home.path, "--json").returncode == 0


# Founding by the commands


def site(place: Path) -> tuple[str, ...]:
    comity("policy", "template", place / "site")
    return (
        *("--taxonomy", str(place / "site/taxonomy.toml")),
        *("--policy", str(place / "site/policy.toml")),
    )


def test_a_coalition_from_nothing(place: Path) -> None:
    for number, member in enumerate(FOUR):
        said = comity(
            *("node", "init", "--member", member, "--listen", f"127.0.0.1:{4001 + number}", "--json"),
            place / member,
        ).json
        assert (said["member"], said["addresses"]) == (member, [f"/ip4/127.0.0.1/tcp/{4001 + number}"])
    cards = [word for member in FOUR for word in ("--card", str(place / member / "card.toml"))]
    file = place / "coalition.toml"
    drafter, *others = FOUR
    said = comity(
        *("coalition", "new", "--name", "study", "--home", place / drafter, *cards, *site(place)),
        *("--publisher", SOUTH, "--out", file, "--json"),
    ).json
    assert (said["state"], said["unsigned"]) == ("draft", sorted(others))
    assert "tolerates 1 member" in said["tolerance"]
    shown = comity("coalition", "show", file)
    assert "Waits for the signature of" in shown.output
    refused = comity("coalition", "join", file, "--home", place / drafter, status=2)
    assert "has to sign" in refused.errors
    for member in others:
        comity("coalition", "sign", file, "--home", place / member)
    said = comity("coalition", "show", file, "--json").json
    assert said["complete"]
    assert "It is complete" in comity("coalition", "show", file).output
    fingerprint = said["fingerprint"]
    wrong = comity("coalition", "join", file, "--home", place / drafter, "--fingerprint", "0" * 64, status=1)
    assert "do not join" in wrong.errors
    assert not (place / drafter / "roots.toml").exists()
    for member in FOUR:
        joined = comity(
            *(
                "coalition",
                "join",
                file,
                "--home",
                place / member,
                "--fingerprint",
                fingerprint[:32],
                "--json",
            )
        ).json
        assert joined["node_told"] is False
    pins = {(place / member / "roots.toml").read_text() for member in FOUR}
    assert len(pins) == 1
    assert fingerprint in pins.pop()


def test_the_next_epoch_by_the_commands(place: Path) -> None:
    homes = found(place, (NORTH, SOUTH))
    comity("node", "init", "--member", "uni.example", "--listen", "127.0.0.1:4009", place / "uni")
    file = place / "next.toml"
    said = comity(
        *("coalition", "admit", place / "uni/card.toml", "--home", homes[NORTH].path, "--out", file, "--json")
    ).json
    assert (said["draft"], said["unsigned"]) == (1, [SOUTH, "uni.example"])
    assert "Fingerprint" not in comity("coalition", "show", file).output
    for home in (homes[SOUTH].path, place / "uni"):
        comity("coalition", "sign", file, "--home", home)
    for home in (homes[NORTH].path, homes[SOUTH].path, place / "uni"):
        assert comity("coalition", "join", file, "--home", home, "--json").json["epoch"] == 1
    # Another policy is another epoch.
    site(place)
    said = comity(
        *("policy", "publish", place / "site/policy.toml", "--home", homes[NORTH].path),
        *("--taxonomy", place / "site/taxonomy.toml", "--out", place / "policy.toml", "--json"),
    ).json
    assert (said["epoch"], said["complete"]) == (2, False)


def test_policies_are_linted(place: Path) -> None:
    site(place)
    policy, rules = place / "site/policy.toml", place / "site/policy.cedar"
    taxonomy = place / "site/taxonomy.toml"
    assert comity("policy", "lint", policy, "--taxonomy", taxonomy, "--json").json["problems"] == []
    assert comity("policy", "lint", rules).output.endswith("0 errors, 0 warnings.\n")
    classes = comity("taxonomy", "check", taxonomy, "--json").json
    assert [each["name"] for each in classes] == ["data-steward", "data-protection-officer", "agent"]
    rules.write_text(rules.read_text().replace("@reason", "@reson"))
    said = comity("policy", "lint", policy, status=1)
    assert re.search(r"policy\.cedar:\d+:\d+: error: .*@?reason", said.output)
    assert comity("policy", "lint", policy, "--json", status=1).json["errors"] >= 1
    assert "comity policy lint" in comity(
        *("coalition", "new", "--name", "x", "--card", _card(place), *("--taxonomy", taxonomy)),
        *("--policy", policy, "--home", place / "n", "--out", place / "c.toml"),
        status=2,
    ).errors  # fmt: skip
    again = comity("policy", "template", place / "site", status=2)
    assert "taxonomy.toml" in again.errors


def _card(place: Path) -> Path:
    comity("node", "init", "--member", NORTH, place / "n")
    return place / "n/card.toml"


# Keys, credentials, tickets


def test_a_credential_is_delegated_and_only_narrows(place: Path) -> None:
    """The chain of an operator and an agent, in files, without any node."""
    home = found(place, (NORTH,))[NORTH].path
    operator, agent = place / "op.pem", place / "agent.pem"
    for key in (operator, agent):
        assert comity("key", "new", key, "--json").json["public"] == str(companion(key))
    assert "overwritten" in comity("key", "new", agent, status=2).errors
    above, below = place / "op.bin", place / "agent.bin"
    said = comity(
        *("credential", "issue", "--subject", "operator/7f3a", "--kind", "person", "--home", home),
        *("--public", companion(operator), "--class", "data-steward", "--class", "agent"),
        *("--asset", "drafts/**", "--asset", "released", "--purpose", "care"),
        *("--delegations", "1", "--out", above, "--json"),
    ).json
    assert said["published"] is False
    body: Any = decode_body(decode_record(above.read_bytes()))
    assert body.subject == f"spiffe://{NORTH}/operator/7f3a"
    assert body.assets == (f"{NORTH}/drafts/**", f"{NORTH}/released")

    def delegate(*words: str, status: int) -> Said:
        return comity(
            *("credential", "issue", "--subject", "agent/a1", "--kind", "agent", "--home", home),
            *("--public", companion(agent), "--class", "agent", "--under", above, "--key", operator),
            *("--out", below, *words),
            status=status,
        )

    assert "assets" in delegate("--asset", "pooled", "--purpose", "care", status=2).errors
    assert "purposes" in delegate("--asset", "released", status=2).errors
    assert (
        "actions"
        in delegate("--asset", "released", "--purpose", "care", "--action", "approve", status=2).errors
    )
    assert "delegations" in delegate(
        "--asset", "released", "--purpose", "care", "--delegations", "1", status=2
    ).errors  # fmt: skip
    delegate("--asset", "released", "--purpose", "care", "--days", "400", status=0)
    record = decode_record(below.read_bytes())
    narrowed: Any = decode_body(record)
    assert record.header.authority == decode_record(above.read_bytes()).id
    assert narrowed.not_after == body.not_after

    ticket = place / "ticket.bin"
    said = comity(
        *("ticket", "--key", agent, "--credential", below, "--run", "run-1", "--job", "study"),
        *("--asset", "released", "--out", ticket, "--json"),
    ).json
    signed = decode_record(ticket.read_bytes())
    assert (said["ticket"], said["credential"]) == (signed.id.hex(), record.id.hex())
    assert signed.header.kind == "launch_ticket"
    wrong = comity(
        *("ticket", "--key", operator, "--credential", below, "--run", "r", "--job", "j", "--asset", "x"),
        *("--out", ticket),
        status=2,
    )
    assert "not the key that the credential" in wrong.errors
    revocation = place / "revocation.bin"
    comity(
        *("credential", "revoke", below, "--under", above, "--key", operator, "--home", home),
        *("--out", revocation),
    )
    assert decode_record(revocation.read_bytes()).header.subject == (record.id,)
    shown = comity("record", "show", revocation, "--json").json
    assert (shown["kind"], shown["body"]["reason"]) == ("revocation", "withdrawn")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--node-key", "--kind", "person"), "people and agents have a key of their own"),
        (("--kind", "automation"), "either --public FILE"),
        (("--node-key", "--kind", "automation", "--under", "x"), "--under and --key go together"),
        (("--node-key", "--kind", "automation", "--class", "Not A Class"), "Classes are names"),
        (("--node-key", "--kind", "automation", "--realm", "staging"), "preview/NAME"),
        (("--node-key", "--kind", "automation", "--asset", "a//b"), "no asset pattern"),
    ],
)
def test_a_wrong_credential_is_not_signed(place: Path, words: tuple[str, ...], said: str) -> None:
    home = found(place, (NORTH,))[NORTH].path
    out = place / "c.bin"
    done = comity(
        *(
            "credential",
            "issue",
            "--subject",
            "node/n1",
            "--class",
            "agent",
            "--home",
            home,
            "--out",
            out,
            *words,
        ),
        status=2,
    )
    assert said in done.errors
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("released", f"{NORTH}/released"),
        ("**", f"{NORTH}/**"),
        ("drafts/*", f"{NORTH}/drafts/*"),
        ("*/released", "*/released"),
        (f"{SOUTH}/released", f"{SOUTH}/released"),
    ],
)
def test_patterns_are_completed(text: str, whole: str) -> None:
    assert whole_pattern(NORTH, text) == whole


def test_nobody_credentials_other_organizations_people() -> None:
    assert whole_subject(NORTH, "operator/1") == f"spiffe://{NORTH}/operator/1"
    with pytest.raises(ConfigError, match="is not of"):
        whole_subject(NORTH, f"spiffe://{SOUTH}/operator/1")
    with pytest.raises(ConfigError, match="without a person's name"):
        whole_subject(NORTH, "Jane Doe")


def test_what_an_organization_publishes_is_written_to_files(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH].path
    out = place / "r.bin"

    def body(*words: str) -> Any:
        comity(*words, "--home", home, "--out", out)
        return decode_body(decode_record(out.read_bytes()))

    release = body("transition", "publish", "--asset", "institute.example/survival")
    assert (release.type, release.asset) == ("release", "institute.example/survival")
    policy = body("owner-policy", "publish", "--consent", "released=standing:90", "--consent", "*=live")
    assert [(c.data_class, c.mode, bool(c.until)) for c in policy.consents] == [
        ("*", "live", False),
        ("released", "standing", True),
    ]
    first = decode_record(out.read_bytes()).header.number
    body("owner-policy", "publish", "--consent", "*=live")
    assert decode_record(out.read_bytes()).header.number > first
    values = body("reference", "publish", "--distributions", "ab" * 32, "--code", "cd" * 32)
    assert (values.distributions, values.code) == ((bytes.fromhex("ab" * 32),), (bytes.fromhex("cd" * 32),))
    for wrong in ("released", "released=maybe", "released=standing:0", "released=live:3", "Not=live"):
        assert "--consent" in comity(
            "owner-policy", "publish", "--consent", wrong, "--home", home, "--out", out, status=2
        ).errors  # fmt: skip


def test_an_encrypted_key_takes_its_passphrase_from_a_file(place: Path) -> None:
    secret = place / "secret"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    key = place / "op.pem"
    comity("key", "new", key, "--encrypt", "--passphrase-file", secret)
    home = found(place, (NORTH,))[NORTH]
    credential, _ = issued(hand_of(home), Wish("operator/1", "person", ("agent",), public=companion(key)))
    (place / "c.bin").write_bytes(credential.encoded())
    words = (
        "ticket",
        "--key",
        key,
        "--credential",
        place / "c.bin",
        "--run",
        "r",
        "--job",
        "j",
        "--asset",
        "x",
    )
    assert "--passphrase-file" in comity(*words, "--out", place / "t.bin", status=2).errors
    comity(*words, "--out", place / "t.bin", "--passphrase-file", secret)
    secret.chmod(0o644)
    assert (
        "chmod 600" in comity(*words, "--out", place / "t.bin", "--passphrase-file", secret, status=2).errors
    )


# Verifying


@pytest.fixture(scope="module")
def story() -> Pooled:
    return Pooled.told()


@pytest.fixture
def bundle(story: Pooled, tmp_path: Path) -> tuple[Path, Path]:
    """A bundle and the roots that fit it."""
    roots = tmp_path / "roots.toml"
    roots.write_text(format_roots(story.roots()))
    path = tmp_path / "pool.bundle"
    path.write_bytes(story.bundle().encoded())
    return path, roots


def test_a_bundle_verifies(bundle: tuple[Path, Path]) -> None:
    path, roots = bundle
    said = comity("verify", path, "--roots", roots, "--json").json
    # The world of the tests judges by an engine of its own.
    assert (said["verified"], said["level"], said["cosigned"]) == (True, "signed", False)
    assert said["kinds"]["actuation"] == 5
    assert said["targets"][0]["asset"].endswith("/plain/pool")
    assert said["fingerprint"] in roots.read_text()
    text = comity("verify", path, "--roots", roots).output
    for words in (said["fingerprint"], "Level: signed", "Not cosigned", "5 actuation"):
        assert words in text
    comity("verify", path, "--roots", roots, "--fingerprint", said["fingerprint"][:32])
    wrong = comity("verify", path, "--roots", roots, "--fingerprint", "ab" * 32, "--json", status=1)
    assert "not the one given" in wrong.errors
    assert wrong.json["error"]["code"] == "roots_other"
    for short in ("", " ", said["fingerprint"][:1], said["fingerprint"][:31]):
        refused = comity("verify", path, "--roots", roots, "--fingerprint", short, "--json", status=2)
        assert "is no fingerprint" in refused.json["error"]["message"]


def test_what_does_not_verify_is_status_1(bundle: tuple[Path, Path], story: Pooled) -> None:
    path, roots = bundle
    data = path.read_bytes()
    for position in range(300, len(data), len(data) // 7):
        changed = bytearray(data)
        changed[position] ^= 0x40
        path.write_bytes(changed)
        said = comity("verify", path, "--roots", roots, "--json", status=1)
        assert said.json["error"]["message"]
    path.write_bytes(data[:-1])
    comity("verify", path, "--roots", roots, status=1)
    path.write_bytes(data)
    assert "absent" in comity("verify", path.parent / "absent", "--roots", roots, status=2).errors
    text = roots.read_text().replace(story.roots().coalition.hex(), "ab" * 32)
    roots.write_text(text)
    said = comity("verify", path, "--roots", roots, "--json", status=1)
    assert said.json["error"]["code"] == "roots_other"
    roots.write_text("nonsense = 1\n")
    assert "nonsense" in comity("verify", path, "--roots", roots, status=2).errors


def test_verify_needs_neither_home_nor_node(bundle: tuple[Path, Path]) -> None:
    path, roots = bundle
    done = subprocess.run(
        [*PYTHON, "-m", "comity.node.cli", "verify", str(path), "--roots", str(roots), "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        cwd="/",
    )
    assert json.loads(done.stdout)["verified"]
