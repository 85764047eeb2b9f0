"""Every changed byte and every missing file is noticed and named."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.commits import quarantine, take_snapshot
from cache.errors import IntegrityError, StoreError
from cache.reader import LogitStore
from cache.record import Record
from cache.spec import StoreSpec
from cache.storage import LocalStorage
from cache.verify import verify
from cache.writer import write_unit

Make = Callable[..., list[Record]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def full_store(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> LocalStorage:
    write_unit(storage, spec, make_records(3))
    quarantine(storage, "0" * 32, "bad", "too long")
    take_snapshot(storage)
    write_unit(storage, spec, make_records(3, seed=1))
    take_snapshot(storage)
    return storage


def all_files(storage: LocalStorage) -> list[Path]:
    return sorted(path for path in storage.root.rglob("*") if path.is_file())


def complaints(storage: LocalStorage) -> str:
    try:
        return " ".join(verify(str(storage)).problems)
    except StoreError as error:
        return str(error)


def test_an_untouched_store_is_sound(full_store: LocalStorage) -> None:
    report = verify(str(full_store))
    assert not report.problems and not report.uncommitted
    assert report.examples == 6


def test_one_flipped_bit_in_any_file_is_found_and_named(full_store: LocalStorage) -> None:
    rng = random.Random(0)
    for path in all_files(full_store):
        sound = path.read_bytes()
        for position in {0, len(sound) - 1, rng.randrange(len(sound)), rng.randrange(len(sound))}:
            damaged = bytearray(sound)
            damaged[position] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            assert str(path.relative_to(full_store.root)) in complaints(full_store), (path, position)
        path.write_bytes(sound)
    assert not complaints(full_store)


def test_any_missing_or_truncated_file_is_found_and_named(full_store: LocalStorage) -> None:
    for path in all_files(full_store):
        sound = path.read_bytes()
        name = str(path.relative_to(full_store.root))
        path.write_bytes(sound[:-1])
        assert name in complaints(full_store)
        path.unlink()
        assert name in complaints(full_store)
        path.write_bytes(sound)
    assert not complaints(full_store)


def test_reading_never_returns_what_was_not_written(full_store: LocalStorage) -> None:
    """Without a scrub: a damaged or missing data file raises on read and is named."""
    shards = [path for path in all_files(full_store) if path.parent.name == "c"]
    assert len(shards) == 20
    rng = random.Random(1)
    for path in shards:
        sound = path.read_bytes()
        damaged = bytearray(sound)
        damaged[rng.randrange(len(sound))] ^= 16
        for content in (bytes(damaged), sound[: len(sound) // 2], None):
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
            array = str(path.relative_to(full_store.root).parents[1])
            with pytest.raises(IntegrityError, match=array):
                list(LogitStore.open(str(full_store)))
        path.write_bytes(sound)
    for path in (path for path in all_files(full_store) if path.name == "zarr.json"):
        sound = path.read_bytes()
        path.write_bytes(sound.replace(b"0", b"1", 1) if b"0" in sound else sound[::-1])
        with pytest.raises(IntegrityError, match=r"zarr\.json: altered"):
            list(LogitStore.open(str(full_store)))
        path.write_bytes(sound)


def test_a_kill_between_the_two_files_of_a_snapshot_is_mended(
    full_store: LocalStorage, spec: StoreSpec, make_records: Make
) -> None:
    (full_store.root / "snapshots/2.sha256").unlink()
    write_unit(full_store, spec, make_records(3, seed=2))
    assert take_snapshot(full_store).number == 3
    assert not complaints(full_store)


def test_a_stray_file_in_a_part_is_told(full_store: LocalStorage) -> None:
    part = next((full_store.root / "parts").rglob("entries"))
    (part / "extra").write_text("x")
    assert "entries/extra" in complaints(full_store)


def test_names_that_leave_the_store_are_refused(full_store: LocalStorage) -> None:
    for name in ("../outside", "/etc/passwd", "parts/../../x", ""):
        with pytest.raises(IntegrityError, match="not a path inside the store"):
            full_store.path(name)


WRITER = """
import pickle, sys
from cache.storage import LocalStorage
from cache.writer import write_unit
root, spec, units = pickle.load(open(sys.argv[1], "rb"))
print("go", flush=True)
for unit in units:
    write_unit(LocalStorage(root), spec, unit)
"""


def test_kill_at_any_moment_loses_nothing(
    storage: LocalStorage, spec: StoreSpec, make_records: Make, tmp_path: Path
) -> None:
    """Five kills, then a run to the end: all there, all sound, and unfinished parts do not count."""
    import pickle

    units = [make_records(4, seed=seed) for seed in range(8)]
    (tmp_path / "work.pickle").write_bytes(pickle.dumps((str(storage), spec, units)))
    command = [sys.executable, "-c", WRITER, str(tmp_path / "work.pickle")]
    rng = random.Random(2)
    for _ in range(5):
        writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert writer.stdout and writer.stdout.readline() == b"go\n"
        time.sleep(rng.uniform(0.0, 0.5))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        assert not verify(str(storage)).problems
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    assert {record.key for record in store} == {record.key for unit in units for record in unit}
    assert not verify(str(storage)).problems
