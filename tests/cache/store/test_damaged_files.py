"""Every changed byte, truncated file and missing file is detected and named."""

import random
import shutil
from pathlib import Path

import pytest

from cache.parts.layout import Profile
from cache.rows.spec import TargetMode
from cache.storage.local import LocalStorage
from cache.store.verify import verify_store
from cluster.commands.main import main
from tests.cache.store.damage import (
    all_files,
    complaints,
    contents,
    is_group,
    is_read,
    make_store,
    read_or_named,
    regions,
)


def test_an_untouched_store_is_sound(full_store: LocalStorage) -> None:
    report = verify_store(str(full_store))
    assert not report.problems and not report.uncommitted
    assert report.examples == 6
    sealed = [path for path in all_files(full_store) if is_group(path)]
    assert report.files == len(sealed) == 3
    assert report.bytes == sum(path.stat().st_size for path in sealed)


def test_one_flipped_bit_in_any_file_is_found_and_named(full_store: LocalStorage) -> None:
    rng = random.Random(0)
    expected = contents(full_store)
    for path in all_files(full_store):
        sound = path.read_bytes()
        for position in {0, len(sound) - 1, *(rng.randrange(len(sound)) for _ in range(3))}:
            path.write_bytes(with_flipped_bit(sound, position, rng))
            noticed = read_or_named(full_store, path, expected)
            assert noticed or not is_read(path) or is_group(path), f"reading overlooked {path} at {position}"
            assert str(path.relative_to(full_store.root)) in complaints(full_store), (path, position)
        path.write_bytes(sound)
    assert not complaints(full_store)


@pytest.mark.parametrize(
    "mode, profile",
    [("topk", "compact"), ("threshold", "portable"), ("sampled", "compact"), ("nucleus", "fast")],
)
def test_one_flipped_bit_in_any_place_of_a_part_is_never_returned(
    mode: TargetMode, profile: Profile, tmp_path: Path
) -> None:
    """At the ends of every place, and between them: chunks, indexes, the tail, headers, the directory of the file."""
    storage = make_store(tmp_path / "store", mode, profile, units=1)
    expected = contents(storage)
    rng = random.Random(1)
    for path in (path for path in all_files(storage) if is_group(path)):
        sound = path.read_bytes()
        places = regions(path)
        assert sum(name.startswith("chunks") for name in places) >= (3 if "codebooks" in path.parts else 7)
        for name, place in places.items():
            for position in {place[0], place[-1], *(rng.choice(place) for _ in range(3))}:
                path.write_bytes(with_flipped_bit(sound, position, rng))
                noticed = read_or_named(storage, path, expected)
                assert noticed != name.startswith("unread") or name.startswith("perhaps"), f"{name} at {position}"
            assert f"{path.name}: altered since it was committed" in complaints(storage), name
        path.write_bytes(sound)
    assert not complaints(storage)


def with_flipped_bit(sound: bytes, position: int, rng: random.Random) -> bytes:
    damaged = bytearray(sound)
    damaged[position] ^= 1 << rng.randrange(8)
    return bytes(damaged)


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
        assert read_or_named(full_store, path, expected) or not is_read(path)
        assert name in complaints(full_store)
        path.write_bytes(sound)
    assert not complaints(full_store)


def test_the_chunks_of_another_part_or_array_are_noticed(full_store: LocalStorage) -> None:
    """Each of them is sound by itself: only the checksums of the part tell."""
    first, second = sorted((full_store.root / "parts").glob("*/*.zarr.zip"))
    expected = contents(full_store)
    sound, theirs = first.read_bytes(), second.read_bytes()
    places, others = regions(first), regions(second)
    swapped = 0
    for name, place in places.items():
        for data, source in ((theirs, others.get(name)), (sound, places.get("chunks of rank0/code"))):
            if source is None or len(source) != len(place) or not name.startswith("chunks"):
                continue
            other = data[source.start : source.stop]
            if other != sound[place.start : place.stop]:
                first.write_bytes(sound[: place.start] + other + sound[place.stop :])
                assert read_or_named(full_store, first, expected), name
                assert first.name in complaints(full_store)
                swapped += 1
    first.write_bytes(sound)
    assert swapped > 2


def test_a_part_in_the_place_of_another_is_noticed(full_store: LocalStorage) -> None:
    first, second = sorted((full_store.root / "parts").glob("*/*.zarr.zip"))
    expected = contents(full_store)
    first.write_bytes(second.read_bytes())
    assert read_or_named(full_store, first, expected)


def test_uncommitted_parts_are_reported_and_not_read(full_store: LocalStorage) -> None:
    expected = contents(full_store)
    part = next((full_store.root / "parts").glob("*/*.zarr.zip"))
    attempt = part.with_name("f" * 32 + ".zarr.zip")
    shutil.copy(part, attempt)
    stray = full_store.root / "parts" / ("0" * 24) / ("1" * 32 + ".zarr.zip")
    stray.parent.mkdir()
    shutil.copy(part, stray)
    book = next((full_store.root / "codebooks").glob("*.zarr.zip"))
    shutil.copy(book, book.with_name("2" * 32 + ".zarr.zip"))
    report = verify_store(str(full_store))
    assert not report.problems
    assert sorted(report.uncommitted) == sorted(
        str(path.relative_to(full_store.root)) for path in (attempt, stray, book.with_name("2" * 32 + ".zarr.zip"))
    )
    assert len(contents(full_store)) == len(expected)


@pytest.mark.parametrize("how", ["missing", "cut"])
@pytest.mark.parametrize("repair", [False, True])
def test_a_damaged_spec_is_a_fault_like_any_other(
    tmp_path: Path, how: str, repair: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = make_store(tmp_path / "store")
    path = storage.path("spec.json")
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50])
    assert main(["verify", str(storage), *(["--repair"] if repair else [])]) == 1
    assert "damaged: " in (output := capsys.readouterr().out) and "spec.json" in output and "1 problems" in output
