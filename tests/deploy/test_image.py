"""The image: what its file has to hold to, and what it runs: without root, and with one folder to write in."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity.node.home import Home
from houses import environment, found, short_folder
from machine_tools import ROOT, cannot, tool
from world import NORTH

FILE = ROOT / "deploy/Dockerfile"
IGNORED = ROOT / "deploy/Dockerfile.dockerignore"
READY_S = 60.0
NOBODY = 10_001
ENTER = """
set -eu
mount --make-rprivate /
mount --bind "$1" "$1"
case "$2" in
    /root/*)
        mount --bind "$2" /mnt
        mount -t tmpfs -o mode=755 none /root
        mkdir -p "$2"
        mount --move /mnt "$2"
        mount -o remount,ro /root
        ;;
esac
mount -o remount,bind,ro /
for place in /tmp /var /dev/shm /run; do
    mountpoint -q "$place" && mount -o remount,bind,ro "$place" || true
done
shift 2
exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
"""One writable folder ($1), and all else read-only, as `docker run --read-only --user 10001 -v` has it.

$2 is where Python is: below /root others would not reach it.
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def instructions() -> list[tuple[str, str]]:
    """The file's instructions in their order, each with its words."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def last(word: str) -> str:
    return [rest for name, rest in instructions() if name == word][-1]


def test_only_instructions_that_docker_knows() -> None:
    known = {"FROM", "COPY", "WORKDIR", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"}
    assert {word for word, _ in instructions()} <= known | {"ENTRYPOINT", "CMD"}


def test_bases_are_pinned_and_tools_of_building_stay_behind() -> None:
    bases = [rest for word, rest in instructions() if word == "FROM"]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+( AS build)?", base) for base in bases)
    last_stage = instructions()[[n for n, (word, _) in enumerate(instructions()) if word == "FROM"][-1] :]
    assert [rest for word, rest in last_stage if word == "COPY"] == ["--from=build /opt/comity /opt/comity"]
    outside = [rest for _, rest in instructions() if "ghcr.io" in rest]
    assert all(re.search(r":\d+\.\d+ ", rest) for rest in outside)


def test_it_runs_as_a_number_that_is_not_root_and_keeps_all_in_one_place() -> None:
    words = [word for word, _ in instructions()]
    assert last("USER") == f"{NOBODY}:{NOBODY}"
    assert "RUN" not in words[words.index("USER") :]
    volume = last("VOLUME")
    assert f"COMITY_HOME={volume}/home" in last("ENV")
    assert f"chown {NOBODY}:{NOBODY} {volume}" in [rest for word, rest in instructions() if word == "RUN"][-1]


def test_no_secret_and_no_home_can_get_into_it() -> None:
    ignored = [line for line in IGNORED.read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)
    assert not [rest for word, rest in instructions() if word in ("ARG", "ADD")]
    assert not re.search(
        r"token|secret|passw|BEGIN", FILE.read_text().replace("the reader's token", ""), re.IGNORECASE
    )


def words_of(instruction: str) -> list[str]:
    """The words of an exec form."""
    said = json.loads(last(instruction))
    assert all(isinstance(word, str) for word in said)
    return [str(word) for word in said]


def contained(writable: Path, words: list[str]) -> list[str]:
    """A command line that runs the words without root, in a world that is read-only but for one folder."""
    if os.geteuid() != 0:
        cannot("a world that is read-only needs root to be made")
    unshare = tool("unshare", "util-linux")
    tool("setpriv", "util-linux")
    tried = subprocess.run([unshare, "-m", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        cannot(f"no mount namespace can be made here: {tried.stderr.strip()}")
    return [unshare, "-m", "sh", "-c", ENTER, "sh", str(writable), sys.base_prefix, *words]


@pytest.mark.slow
def test_what_it_runs_needs_neither_root_nor_a_second_place_to_write_and_becomes_healthy(place: Path) -> None:
    volume = place / "volume"
    volume.mkdir()
    home = found(volume, (NORTH,))[NORTH]
    place.chmod(0o755)
    for path in (volume, *volume.rglob("*")):
        shutil.chown(path, NOBODY, NOBODY)
    around = environment(COMITY_HOME=str(home.path), HOME=str(volume), PYTHONDONTWRITEBYTECODE="1")
    around["PATH"] = f"{Path(sys.executable).parent}:{around['PATH']}"
    check = contained(volume, ["sh", "-c", last("HEALTHCHECK").partition("CMD ")[2]])

    def healthy() -> int:
        return subprocess.run(check, env=around, capture_output=True, timeout=READY_S, check=False).returncode

    def tried(path: Path) -> int:
        line = contained(volume, [sys.executable, "-c", f"open({str(path)!r}, 'w')"])
        return subprocess.run(line, env=around, capture_output=True, check=False).returncode

    first = contained(volume, ["sh", "-c", "comity --version"])
    if subprocess.run(first, env=around, capture_output=True, check=False).returncode:
        cannot("a user without rights does not reach this Python, or this folder")
    assert tried(volume / "there") == 0
    assert tried(place / "elsewhere") != 0
    assert tried(place.with_name("cy-elsewhere")) != 0
    assert healthy() == 1
    words = [*words_of("ENTRYPOINT"), *words_of("CMD")]
    with subprocess.Popen(
        contained(volume, words), env=around, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], READY_S)[0]
            assert "is ready" in process.stdout.readline()
            assert _status_of(process.pid, "Uid") == {f"{NOBODY}"}
            assert {int(each, 16) for each in _status_of(process.pid, "CapEff")} == {0}
            assert healthy() == 0
            process.terminate()
            assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                process.kill()
    assert healthy() == 1
    assert Home(home.path).path.stat().st_uid == NOBODY


def _status_of(process: int, name: str) -> set[str]:
    found = re.search(rf"^{name}:\t(.*)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    assert found is not None
    return set(found[1].split())
