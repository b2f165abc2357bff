"""Where files of assets lie, how they appear, and how they are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.dagster_bridge.files import FileError, Place, read_file, sidecar_of, slot_of_file
from comity.protocol.errors import ConfigError

ROOT = Path("/data")
PLACE = Place(ROOT, shared=False)


@pytest.mark.parametrize(
    "key", [["..", "up"], ["a/b"], ["a\\b"], [".hidden"], ["line\nbreak"], [""], ["a", ".."], ["nul\0"]]
)
def test_a_key_that_is_no_plain_name_is_refused(key: list[str]) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a file"):
        PLACE.path(key, "", "csv")


def test_a_name_that_is_too_long_with_its_sidecar_is_refused() -> None:
    # An unfinished write has a random part in its name besides.
    longest = 255 - len(f".csv.{16 * '0'}.comity")
    assert len(sidecar_of(PLACE.path(["a" * longest], "", "csv")).name) == 255 - 17
    with pytest.raises(ConfigError, match="too long"):
        PLACE.path(["a" * (longest + 1)], "", "csv")


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_law_partitions_stay_below_their_asset_and_never_share_a_file(left: str, right: str) -> None:
    paths = [PLACE.path(["visits"], partition, "csv") for partition in (left, right)]
    for path in paths:
        assert path.parent == ROOT / "visits"
        assert not path.name.startswith(".")
    assert (paths[0] == paths[1]) == (left == right)


@given(st.text(min_size=1, max_size=20))
def test_law_a_partition_and_an_asset_below_never_share_a_file(name: str) -> None:
    path = PLACE.path(["visits"], name, "csv")
    with pytest.raises(ConfigError, match="in an asset key"):
        PLACE.path(["visits", path.stem], "", "csv")
    assert slot_of_file(path.relative_to(ROOT), ["parquet", "csv"]) == (("visits",), name)


def test_a_key_that_begins_like_a_partition_is_refused() -> None:
    with pytest.raises(ConfigError, match="begins like the file of a partition"):
        PLACE.path(["visits", "partition=north"], "", "csv")


def test_a_file_appears_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    place = Place(tmp_path / "own", shared=False)
    path = place.path(["a", "b"], "", "csv")
    place.write(path, b"one")
    place.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["b.csv"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, shared=False)
    path = place.path(["a"], "", "csv")
    place.write(path, b"one")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"a\.csv cannot be written: No space left"):
        place.write(path, b"two")
    assert path.read_bytes() == b"one"
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


def test_reading_is_bounded_and_says_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert read_file(path) is None
    path.write_bytes(b"abc")
    found = read_file(path, bytes_max=3)
    assert found is not None
    assert found.data == b"abc"
    assert found.digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(FileError, match="larger than 2 bytes"):
        read_file(path, bytes_max=2)


@pytest.mark.parametrize("plant", ["link", "pipe", "folder"])
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, plant: str) -> None:
    path = tmp_path / "planted"
    if plant == "link":
        (tmp_path / "secret").write_bytes(b"own")
        path.symlink_to(tmp_path / "secret")
    elif plant == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(FileError, match="planted"):
        read_file(path)
