"""Every changed byte, truncated file and missing file is detected and named."""

import random
import shutil
from pathlib import Path

import pytest

from cache.parts.layout import Profile
from cache.rows.spec import TargetMode
from cache.storage.local import LocalStorage
from cache.store.verify import verify_store
from tests.cache.store.damage import all_files, array_of, complaints, contents, is_read, make_store, read_or_named


def test_an_untouched_store_is_sound(full_store: LocalStorage) -> None:
    report = verify_store(str(full_store))
    assert not report.problems and not report.uncommitted
    assert report.examples == 6
    sealed = [path for path in all_files(full_store) if {"parts", "codebooks"} & set(path.parts)]
    assert report.files == len(sealed)
    assert report.bytes == sum(path.stat().st_size for path in sealed)


def test_one_flipped_bit_in_any_file_is_found_and_named(full_store: LocalStorage) -> None:
    rng = random.Random(0)
    expected = contents(full_store)
    files = all_files(full_store)
    assert len(files) > 90
    for path in files:
        sound = path.read_bytes()
        for position in {0, len(sound) - 1, rng.randrange(len(sound))}:
            damaged = bytearray(sound)
            damaged[position] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            noticed = read_or_named(full_store, path, expected)
            assert noticed or not is_read(path), f"reading overlooked {path} at {position}"
        assert str(path.relative_to(full_store.root)) in complaints(full_store), (path, position)
        path.write_bytes(sound)
    assert not complaints(full_store)


@pytest.mark.parametrize("mode, profile", [("threshold", "portable"), ("sampled", "compact"), ("nucleus", "fast")])
def test_one_flipped_bit_in_any_array_is_never_returned(mode: TargetMode, profile: Profile, tmp_path: Path) -> None:
    """At many positions of every array of the other modes and profiles."""
    storage = make_store(tmp_path / "store", mode, profile, units=1)
    expected = contents(storage)
    rng = random.Random(1)
    shards = [path for path in all_files(storage) if array_of(path) != path and is_read(path)]
    for path in shards:
        sound = path.read_bytes()
        for position in rng.sample(range(len(sound)), min(len(sound), 12)):
            damaged = bytearray(sound)
            damaged[position] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            assert read_or_named(storage, path, expected), (path, position)
        path.write_bytes(sound)


def test_any_missing_or_truncated_file_is_found_and_named(full_store: LocalStorage) -> None:
    rng = random.Random(2)
    expected = contents(full_store)
    for path in all_files(full_store):
        sound = path.read_bytes()
        name = str(path.relative_to(full_store.root))
        for length in {0, len(sound) - 1, rng.randrange(len(sound))}:
            path.write_bytes(sound[:length])
            assert read_or_named(full_store, path, expected) or not is_read(path)
        assert name in complaints(full_store)
        path.unlink()
        # Without its newest snapshot a store opens at the one before: that is what a reader asked for.
        if name != "snapshots/2.json":
            assert read_or_named(full_store, path, expected) or not is_read(path)
        assert name in complaints(full_store)
        path.write_bytes(sound)
    assert not complaints(full_store)


def test_the_shard_of_another_part_is_named_by_a_scrub(full_store: LocalStorage) -> None:
    first, second = sorted((full_store.root / "parts").glob("*/*.zarr"))
    swapped = 0
    for path in (path for path in all_files(full_store) if first in path.parents and array_of(path) != path):
        sound, other = path.read_bytes(), (second / path.relative_to(first)).read_bytes()
        if sound != other:
            path.write_bytes(other)
            assert str(path.relative_to(full_store.root)) in complaints(full_store)
            path.write_bytes(sound)
            swapped += 1
    assert swapped > 10


def test_the_array_of_another_name_in_its_place_is_noticed(full_store: LocalStorage) -> None:
    part = next((full_store.root / "parts").glob("*/*.zarr"))
    expected = contents(full_store)
    path = part / "first/code/c/0"
    sound = path.read_bytes()
    path.write_bytes((part / "rest/code/c/0").read_bytes())
    assert read_or_named(full_store, path, expected)
    path.write_bytes(sound)


def test_a_stray_file_in_a_part_is_reported(full_store: LocalStorage) -> None:
    part = next((full_store.root / "parts").glob("*/*.zarr"))
    (part / "first/extra").write_text("x")
    assert f"{part.name}/first/extra: not part of what was committed" in complaints(full_store)


def test_uncommitted_parts_are_reported_and_not_read(full_store: LocalStorage) -> None:
    expected = contents(full_store)
    part = next((full_store.root / "parts").glob("*/*.zarr"))
    attempt = part.with_name("f" * 32 + ".zarr")
    shutil.copytree(part, attempt)
    stray = full_store.root / "parts" / ("0" * 24) / ("1" * 32 + ".zarr")
    shutil.copytree(part, stray)
    book = next((full_store.root / "codebooks").iterdir())
    shutil.copytree(book, book.with_name("2" * 32 + ".zarr"))
    report = verify_store(str(full_store))
    assert not report.problems
    assert sorted(report.uncommitted) == sorted(
        str(path.relative_to(full_store.root)) for path in (attempt, stray, book.with_name("2" * 32 + ".zarr"))
    )
    assert len(contents(full_store)) == len(expected)
