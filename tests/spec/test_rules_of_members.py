"""Rules of docs/spec that an organization keeps as it signs: epochs, certificates, what a context says of itself."""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from comity.attestation.holdings import Holdings
from comity.attestation.signing import add_signature
from comity.dagster_bridge import govern, measurement
from comity.dagster_bridge.measurement import measure_code, measure_context
from comity.node import coalition_file, signed_successors
from comity.node.coalition_file import CoalitionFile, read_coalition, write_coalition
from comity.node.coalitions import certify, draft_successor
from comity.node.home import Home
from comity.node.signing_hand import now
from comity.protocol.envelope import assemble
from comity.protocol.errors import ConfigError, VerificationError
from command_line import comity
from houses import card_of, found, hand_of, make_member, short_folder
from next_epochs import successor
from world import ENGINE, NORTH, SOUTH, START, World

INSTITUTE = "institute.example"


@pytest.fixture
def place() -> Generator[Path]:
    with short_folder() as folder:
        yield folder


def admitted(place: Path, by: Path, name: str, *more: str | Path, status: int = 0) -> Any:
    """A draft of the next epoch, with one member more, drafted and signed by the home."""
    folder = place / name.partition(".")[0]
    if not folder.exists():
        make_member(place, name)
    out = place / f"{by.name}-{folder.name}.toml"
    said = comity(
        *("coalition", "admit", folder / "card.toml", "--home", by, "--out", out, *more, "--json"),
        status=status,
    )
    return out if status == 0 else said.json["error"]["message"]


def test_no_home_signs_two_successors_of_one_epoch(place: Path) -> None:
    """Signing the first one again is signing once; a second is refused, and stays as it was."""
    homes = found(place, (NORTH, SOUTH))
    north, south = homes[NORTH], homes[SOUTH]
    first, second = (admitted(place, north.path, name) for name in (INSTITUTE, "board.example"))
    for _ in range(2):
        comity("coalition", "sign", first, "--home", south.path, "--yes")
    before = second.read_text()
    refused = comity("coalition", "sign", second, "--home", south.path, "--yes", "--json", status=2)
    assert "two successors" in refused.json["error"]["message"]
    assert second.read_text() == before
    # Nor does it draft one of its own then, by whichever command; nothing is written.
    assert "two successors" in admitted(place, south.path, "board.example", status=2)
    comity("policy", "template", place / "site")
    published = ("policy", "publish", place / "site/policy.toml", "--out", place / "c.toml", "--json")
    refused = comity(*published, "--home", south.path, status=2)
    assert "two successors" in refused.json["error"]["message"]
    assert not (place / "c.toml").exists()
    # Whose note is damaged signs nothing.
    south.signed_successors.write_text("{")
    refused = comity("coalition", "sign", first, "--home", south.path, "--yes", "--json", status=2)
    assert "signed-successors.json" in refused.json["error"]["message"]


def test_who_has_drafted_a_successor_signs_no_other_members(place: Path) -> None:
    """It may draft anew itself."""
    homes = found(place, (NORTH, SOUTH))
    theirs = admitted(place, homes[SOUTH].path, INSTITUTE)
    admitted(place, homes[NORTH].path, INSTITUTE)
    admitted(place, homes[NORTH].path, "board.example")
    refused = comity("coalition", "sign", theirs, "--home", homes[NORTH].path, "--yes", "--json", status=2)
    assert "two successors" in refused.json["error"]["message"]


def in_the_name_of(place: Path, author: Home, signer: Home, name: str, *, author_signs: bool) -> Path:
    """A draft of the next epoch whose header names one home as its author. It leaves no note there."""
    held = read_coalition(author.coalition)
    card = card_of(make_member(place, name))
    hand = hand_of(author).organization(None, held.coalition)
    file = draft_successor(held, hand, now(), cards=[card])
    assert file.draft is not None
    draft = add_signature(file.draft, hand_of(signer).organization(None, held.coalition).signer)
    if not author_signs:
        others = tuple(each for each in draft.signatures if each.key != hand.signer.key_id)
        draft = assemble(draft.header_bytes, draft.body_bytes, others)
    out = place / f"by-{name}.toml"
    write_coalition(out, dataclasses.replace(file, draft=draft))
    return out


def test_what_comes_in_a_file_is_no_draft_of_ones_own(place: Path) -> None:
    """Both name their signer as author, and are signed with its key, elsewhere. It signs the first, and no second."""
    homes = found(place, (NORTH, SOUTH))
    north, south = homes[NORTH], homes[SOUTH]
    one, other = (
        in_the_name_of(place, north, south, name, author_signs=True) for name in (INSTITUTE, "board.example")
    )
    comity("coalition", "sign", one, "--home", north.path, "--yes")
    refused = comity("coalition", "sign", other, "--home", north.path, "--yes", "--json", status=2)
    assert "two successors" in refused.json["error"]["message"]
    # Nor does it draft another then: that it drafted the first is what the file says.
    assert "two successors" in admitted(place, north.path, "board.example", status=2)


def test_who_signs_its_own_draft_again_may_still_draft_anew(place: Path) -> None:
    """What it drafted before it signs no more."""
    north = found(place, (NORTH, SOUTH))[NORTH]
    first = admitted(place, north.path, INSTITUTE)
    comity("coalition", "sign", first, "--home", north.path, "--yes")
    second = admitted(place, north.path, "board.example")
    refused = comity("coalition", "sign", first, "--home", north.path, "--yes", "--json", status=2)
    assert "two successors" in refused.json["error"]["message"]
    comity("coalition", "sign", second, "--home", north.path, "--yes")


@pytest.mark.parametrize("command", ["sign", "admit", "publish"])
def test_the_note_is_on_disk_before_a_signature_leaves(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """And where it cannot be kept, none does."""
    homes = found(place, (NORTH, SOUTH))
    south, out = homes[SOUTH], place / "out.toml"
    drafted = in_the_name_of(place, homes[NORTH], homes[NORTH], INSTITUTE, author_signs=True)
    comity("policy", "template", place / "site")
    arguments = {
        "sign": ("coalition", "sign", drafted, "--yes"),
        "admit": ("coalition", "admit", place / "institute/card.toml"),
        "publish": ("policy", "publish", place / "site/policy.toml"),
    }[command]
    written: list[Path] = []

    def write(file: Path, value: CoalitionFile, *, replace: bool = True) -> None:
        assert value.draft is not None
        assert value.draft.id.hex() in south.signed_successors.read_text()
        written.append(file)
        write_coalition(file, value, replace=replace)

    monkeypatch.setattr(coalition_file, "write_coalition", write)
    south.signed_successors.mkdir()
    refused = comity(*arguments, "--home", south.path, "--out", out, "--json", status=2)
    assert "signed-successors.json" in refused.json["error"]["message"]
    assert not written
    assert not out.exists()
    south.signed_successors.rmdir()
    comity(*arguments, "--home", south.path, "--out", out)
    assert written == [out]


def test_nobody_signs_a_draft_that_its_author_has_not_signed(place: Path) -> None:
    homes = found(place, (NORTH, SOUTH))
    north, south = homes[NORTH], homes[SOUTH]
    forged = in_the_name_of(place, north, south, INSTITUTE, author_signs=False)
    for home in (north, south):
        refused = comity("coalition", "sign", forged, "--home", home.path, "--yes", "--json", status=2)
        assert f"names {NORTH} as its author, who has not signed it" in refused.json["error"]["message"]
        assert not home.signed_successors.exists()


def test_one_command_at_a_time_notes_what_it_signs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    north = found(place, (NORTH, SOUTH))[NORTH]
    file = read_coalition(admitted(place, north.path, INSTITUTE))
    free: list[bool] = []

    def writing(path: Path, data: bytes) -> None:
        del data
        with path.with_name(f".{path.name}.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free.append(False)
            else:
                free.append(True)

    monkeypatch.setattr(signed_successors, "write_file", writing)
    signed_successors.keep_to_successor(north, NORTH, file.draft)
    assert free == [False]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_successors_the_one_that_was_taken_stays(order: tuple[int, int]) -> None:
    """All signed both, which none may. A reader that has one never has the other, in whichever order they come."""
    world = World((NORTH, SOUTH))
    both = [successor(world, START + number) for number in (0, 1)]
    holdings = Holdings(ENGINE)
    holdings.adopt(world.genesis)
    taken, other = (both[number] for number in order)
    assert holdings.adopt(taken).number == 1
    with pytest.raises(VerificationError):
        holdings.adopt(other)
    assert [record.id for record in holdings.epoch_records()] == [world.genesis.id, taken.id]
    assert not holdings.knows_epoch(other.id)


def test_no_certificate_has_one_key_for_records_and_connections(place: Path) -> None:
    homes = found(place, (NORTH, SOUTH))
    card = card_of(homes[NORTH])
    assert card.transport_key != card.node_key.value
    author = hand_of(homes[NORTH]).organization(None, read_coalition(homes[NORTH].coalition).coalition)
    one = dataclasses.replace(card, transport_key=card.node_key.value)
    with pytest.raises(ConfigError, match="transport key"):
        certify(author, one, START, days=1, number=9)


def test_what_is_installed_is_measured_when_definitions_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a process that has loaded nothing yet.
    anew = functools.cache(measurement._own_distributions.__wrapped__)
    monkeypatch.setattr(measurement, "_own_distributions", anew)
    (tmp_path / "definitions.py").write_text("a = 1\n")
    govern(dg.Definitions(), code_root=tmp_path)
    (tmp_path / "late-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    at_a_step = measure_context(measure_code(tmp_path)).distributions_count
    assert measurement.measure_distributions(sys.path).count == at_a_step + 1


def test_a_process_measures_what_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed later, and however many code locations it loads: what it imported stays what it was."""
    (tmp_path / "definitions.py").write_text("a = 1\n")
    first = measure_context(measure_code(tmp_path))
    (tmp_path / "late-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "definitions.py").write_text("a = 2\n")
    code = measure_code(tmp_path)
    second = measure_context(code)
    assert second.code != first.code
    assert second.distributions == first.distributions
    assert measurement.measure_distributions([str(tmp_path)]).count == 1
