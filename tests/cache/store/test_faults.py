"""Every changed byte and every missing file is noticed and named, and no moment is a wrong one to be killed."""

import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.documents import seal, unseal
from cache.errors import InputError, IntegrityError, LogitbankError, StoreError
from cache.parts.layout import PROFILES, Profile
from cache.rows.codebook import plain_codebook
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.rows.spec import StoreSpec, TargetMode
from cache.storage.local import LocalStorage
from cache.store.codebook_claim import CLAIM, claim_codebook
from cache.store.codebook_learning import frequency_codebook, list_codebook
from cache.store.commits import create_store, quarantine
from cache.store.garbage_collection import sweep
from cache.store.index import StoreIndex
from cache.store.logit_store import LogitStore
from cache.store.snapshots import latest_snapshot, snapshot_numbers, take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify
from tests.cache.rows.rows import TARGETS, VOCAB, assert_same_record, assert_stored, random_record, store_spec

Make = Callable[..., list[Record]]
ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534


def units_of(mode: TargetMode, count: int, records: int = 3, seed: int = 0) -> list[list[Record]]:
    rng = np.random.default_rng(seed)
    return [[random_record(rng, f"{unit} {i}", 3, 12, TARGETS[mode]) for i in range(records)] for unit in range(count)]


def make_store(folder: Path, mode: TargetMode = "topk", profile: Profile = "compact", units: int = 2) -> LocalStorage:
    """A store with every kind of file: a codebook with lists, a snapshot after each unit, quarantine."""
    spec = store_spec(TARGETS[mode])
    storage = LocalStorage(folder)
    create_store(storage, spec)
    work = units_of(mode, units)
    if profile == "compact":
        targets = concatenate([record.targets for unit in work for record in unit])
        tokens = np.concatenate([record.tokenized.tokens for unit in work for record in unit])
        claim_codebook(storage, list_codebook(targets, tokens, VOCAB, by_token=mode == "sampled"))
    quarantine(storage, "0" * 32, "bad", "too long")
    for unit in work:
        write_unit(storage, spec, unit, profile)
        take_snapshot(storage)
    return storage


@pytest.fixture
def full_store(tmp_path: Path) -> LocalStorage:
    return make_store(tmp_path / "full")


def all_files(storage: LocalStorage) -> list[Path]:
    return sorted(path for path in storage.root.rglob("*") if path.is_file())


def complaints(storage: LocalStorage) -> str:
    try:
        return " ".join(verify(str(storage)).problems)
    except StoreError as error:
        return str(error)


def contents(storage: LocalStorage) -> list[Record]:
    return list(LogitStore.open(str(storage)))


def array_of(path: Path) -> Path:
    """What a message calls the data of an array: the folder of the array. Other files have their own path."""
    return next((parent.parent for parent in path.parents if parent.name == "c"), path)


def read_or_named(storage: LocalStorage, path: Path, expected: list[Record]) -> bool:
    """Whether reading noticed what was done to `path`. It either names the file or returns what was written."""
    try:
        found = contents(storage)
    except StoreError as error:
        assert str(array_of(path).relative_to(storage.root)) in str(error), error
        assert "\n" not in str(error)
        return True
    assert len(found) == len(expected)
    for record, other in zip(found, expected, strict=True):
        assert_same_record(record, other)
    return False


def is_read(path: Path) -> bool:
    """Whether a pinned reader needs the file: the shards, the claim, the spec, the newest snapshot and its index."""
    if array_of(path) != path:
        # The grid is the spec's; the copy is for readers who do not know how it is made.
        return array_of(path).name != "grid"
    return path.name in ("spec.json", CLAIM, "2.json")


def test_an_untouched_store_is_sound(full_store: LocalStorage) -> None:
    report = verify(str(full_store))
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


def test_a_stray_file_in_a_part_is_told(full_store: LocalStorage) -> None:
    part = next((full_store.root / "parts").glob("*/*.zarr"))
    (part / "first/extra").write_text("x")
    assert f"{part.name}/first/extra: not part of what was committed" in complaints(full_store)


def test_what_was_never_committed_is_told_and_not_read(full_store: LocalStorage) -> None:
    expected = contents(full_store)
    part = next((full_store.root / "parts").glob("*/*.zarr"))
    attempt = part.with_name("f" * 32 + ".zarr")
    shutil.copytree(part, attempt)
    stray = full_store.root / "parts" / ("0" * 24) / ("1" * 32 + ".zarr")
    shutil.copytree(part, stray)
    book = next((full_store.root / "codebooks").iterdir())
    shutil.copytree(book, book.with_name("2" * 32 + ".zarr"))
    report = verify(str(full_store))
    assert not report.problems
    assert sorted(report.uncommitted) == sorted(
        str(path.relative_to(full_store.root)) for path in (attempt, stray, book.with_name("2" * 32 + ".zarr"))
    )
    assert len(contents(full_store)) == len(expected)


def test_a_missing_commit_is_named_and_pinned_readers_read_on(full_store: LocalStorage) -> None:
    expected = contents(full_store)
    for path in sorted((full_store.root / "commits").iterdir()):
        sound = path.read_bytes()
        path.unlink()
        assert str(path) in complaints(full_store)
        assert len(LogitStore.open(str(full_store), unpinned=True)) == 3
        assert not read_or_named(full_store, path, expected)
        path.write_bytes(sound)


def test_a_commit_rewritten_after_its_snapshot_is_named(full_store: LocalStorage) -> None:
    """With a valid checksum of its own: only the snapshot can tell."""
    path = next((full_store.root / "commits").iterdir())
    body = unseal(path.read_bytes(), "x")
    path.write_bytes(seal({**body, "kl": 0.0}))
    assert f"{path}: not the file that the snapshot lists" in complaints(full_store)


def test_a_snapshot_rewritten_after_its_companion_is_named(full_store: LocalStorage) -> None:
    path = full_store.root / "snapshots/1.json"
    path.write_bytes(seal({**unseal(path.read_bytes(), "x"), "units": 7}))
    assert "snapshots/1.sha256: does not agree with snapshot 1" in complaints(full_store)


def test_an_index_of_another_snapshot_is_refused(full_store: LocalStorage) -> None:
    older, newer = (
        full_store.root / unseal((full_store.root / f"snapshots/{n}.json").read_bytes(), "x")["index"] for n in (1, 2)
    )
    newer.write_bytes(older.read_bytes())
    with pytest.raises(IntegrityError, match=f"{newer.name}: altered"):
        LogitStore.open(str(full_store))
    assert len(LogitStore.open(str(full_store), snapshot=1)) == 3


def test_an_index_cut_anywhere_is_not_an_index() -> None:
    """Not even without the checksum in its name."""
    data = StoreIndex.from_commits([]).to_bytes()
    for length in range(0, len(data), 7):
        with pytest.raises(IntegrityError, match="x: altered or truncated"):
            StoreIndex.from_bytes(data[:length], "x")


def test_a_stale_snapshot_reads_its_own_examples(full_store: LocalStorage) -> None:
    stale = LogitStore.open(str(full_store), snapshot=1)
    before = list(stale)
    spec = store_spec(TARGETS["topk"])
    for unit in units_of("topk", 3, seed=5):
        write_unit(full_store, spec, unit)
        take_snapshot(full_store)
    for opened in (stale, LogitStore.open(str(full_store), snapshot=1)):
        assert len(opened) == 3
        for record, expected in zip(opened, before, strict=True):
            assert_same_record(record, expected)
    assert len(LogitStore.open(str(full_store))) == 15


def test_a_kill_between_the_two_files_of_a_snapshot_is_mended(full_store: LocalStorage) -> None:
    (full_store.root / "snapshots/2.sha256").unlink()
    write_unit(full_store, store_spec(TARGETS["topk"]), units_of("topk", 1, seed=5)[0])
    assert take_snapshot(full_store).number == 3
    assert not complaints(full_store)


def test_a_codebook_that_is_not_the_claimed_one_is_refused(full_store: LocalStorage) -> None:
    """Codes would still name ids, and all of them wrong."""
    claim_path = full_store.root / CLAIM
    claim = unseal(claim_path.read_bytes(), "x")
    expected = contents(full_store)
    other = LocalStorage(full_store.root.parent / "other")
    targets = concatenate([record.targets for record in expected])
    tokens = np.concatenate([record.tokenized.tokens for record in expected])
    claim_codebook(other, replace(list_codebook(targets, tokens, VOCAB, False), by_token=True))
    theirs = unseal(other.read(CLAIM), "x")
    for change in ({"digest": "0" * 32}, {"by_token": True}, {"digest": theirs["digest"], "by_token": True}):
        claim_path.write_bytes(seal({**claim, **change}))
        with pytest.raises(IntegrityError, match="codebook"):
            contents(full_store)
        assert complaints(full_store)
    claim_path.write_bytes(seal(claim))
    claim_codebook(LocalStorage(other.root.parent / "third"), frequency_codebook(targets, VOCAB))
    third = other.root.parent / "third"
    shutil.rmtree(full_store.root / claim["path"])
    shutil.copytree(third / unseal((third / CLAIM).read_bytes(), "x")["path"], full_store.root / claim["path"])
    with pytest.raises(IntegrityError, match="codebooks/"):
        contents(full_store)


def test_a_codebook_for_another_vocabulary_is_refused(full_store: LocalStorage) -> None:
    with pytest.raises(IntegrityError, match="is not the codebook"):
        claim_codebook(full_store, plain_codebook(VOCAB + 1))


def test_names_that_leave_the_store_are_refused(full_store: LocalStorage) -> None:
    (full_store.root.parent / "outside").write_text("secret")
    for name in (
        "../outside",
        "/etc/passwd",
        "parts/../../outside",
        "",
        "a//b",
        ".",
        "a/./b",
        "a\\..\\b",
        "a\0b",
        "a/",
    ):
        for call in (
            full_store.path,
            full_store.read,
            full_store.size,
            full_store.names,
            full_store.remove_folder,
            lambda name: list(full_store.walk(name)),
            lambda name: full_store.read_ranges([(name, 0, 1)]),
            lambda name: full_store.create(name, b"x"),
            lambda name: full_store.write_folder(name, {"x": b"x"}),
            lambda name: full_store.write_folder("parts/new", {name: b"x"}),
        ):
            with pytest.raises(IntegrityError, match="not a path inside the store"):
                call(name)
    assert (full_store.root.parent / "outside").read_text() == "secret"


@pytest.mark.parametrize("path", ["../../" + "0" * 32 + ".zarr", "parts/../../" + "0" * 32 + ".zarr", "/etc"])
def test_a_commit_whose_part_leaves_the_store_is_refused(path: str, full_store: LocalStorage) -> None:
    for commit in (full_store.root / "commits").iterdir():
        body = unseal(commit.read_bytes(), "x")
        body["place"]["path"] = path
        commit.write_bytes(seal(body))
    for file in (full_store.root / "snapshots").iterdir():
        file.unlink()
    assert complaints(full_store)
    if path.endswith(".zarr"):
        with pytest.raises(IntegrityError, match="not its own"):
            list(LogitStore.open(str(full_store), unpinned=True))


def test_file_times_change_nothing(full_store: LocalStorage) -> None:
    """Clocks of machines that share a store disagree."""
    expected = contents(full_store)
    spec = store_spec(TARGETS["topk"])
    for turn, years in enumerate((-40, 40)):
        moment = time.time() + years * 365 * 86400
        for path in [full_store.root, *full_store.root.rglob("*")]:
            os.utime(path, (moment, moment))
        assert not complaints(full_store)
        assert take_snapshot(full_store).number == 2 + turn
        assert not sweep(full_store, grace=0.0).removed, "whatever counts is nobody's garbage, however old"
        write_unit(full_store, spec, units_of("topk", 1, seed=6 + turn)[0])
        assert take_snapshot(full_store).number == 3 + turn
        for record, other in zip(LogitStore.open(str(full_store), snapshot=2), expected, strict=True):
            assert_same_record(record, other)
    assert len(LogitStore.open(str(full_store))) == 12
    assert not complaints(full_store)


def test_drivers_that_take_snapshots_at_once_agree(full_store: LocalStorage) -> None:
    """Numbers have no gaps, each is one snapshot, and the last holds all."""
    spec = store_spec(TARGETS["topk"])
    work = units_of("topk", 12, records=1, seed=7)
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def drive(driver: int) -> None:
        storage = LocalStorage(full_store.root)
        try:
            barrier.wait()
            for unit in work[driver::2]:  # two pairs with the same work
                write_unit(storage, spec, unit)
                take_snapshot(storage)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=drive, args=(driver % 2,)) for driver in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    last = take_snapshot(full_store)
    assert snapshot_numbers(full_store) == list(range(1, last.number + 1))
    sizes = [len(LogitStore.open(str(full_store), snapshot=n)) for n in range(1, last.number + 1)]
    assert sizes == sorted(set(sizes)) and sizes[-1] == 18
    report = verify(str(full_store))
    assert not report.problems and not report.uncommitted


def write_units(root: str, spec: StoreSpec, units: list[list[Record]], start: int) -> None:
    for i in range(len(units)):
        write_unit(LocalStorage(root), spec, units[(start + i) % len(units)])
    take_snapshot(LocalStorage(root))


def test_drivers_in_processes_that_race_for_all_units_leave_one_of_each(tmp_path: Path) -> None:
    """From nothing: codebook, units and the first snapshot are all raced for, in different orders."""
    spec = store_spec(TARGETS["threshold"])
    units = units_of("threshold", 4)
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_units, args=(str(storage), spec, units, i)) for i in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 8
    report = verify(str(storage))
    assert not report.problems and not report.uncommitted and report.examples == 12
    written = {record.key: record for unit in units for record in unit}
    for record in contents(storage):
        assert_stored(record.window, written.pop(record.key).window, spec.targets)
    assert not written


WRITER = """
import pickle, sys
from cache.store.snapshots import take_snapshot
from cache.storage.local import LocalStorage
from cache.store.unit_writer import write_unit
root, spec, units, profile = pickle.load(open(sys.argv[1], "rb"))
storage = LocalStorage(root)
print("go", flush=True)
for unit in units:
    print(*write_unit(storage, spec, unit, profile)[1:], flush=True)
    take_snapshot(storage)
"""


def test_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    """What a run to the end then has is, to the bit, what an undisturbed one has. LOGITBANK_KILLS: how many kills."""
    spec, units = store_spec(TARGETS["topk"]), units_of("topk", 40)
    disturbed, calm = (LocalStorage(tmp_path / name) for name in ("disturbed", "calm"))
    for storage in (disturbed, calm):
        create_store(storage, spec)
    for unit in units:
        write_unit(calm, spec, unit)
    take_snapshot(calm)
    (tmp_path / "work.pickle").write_bytes(pickle.dumps((str(disturbed), spec, units, "compact")))
    command = [sys.executable, "-c", WRITER, str(tmp_path / "work.pickle")]
    rng = random.Random(3)
    pinned = 0
    for _ in range(int(os.environ.get("LOGITBANK_KILLS", "4"))):
        writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert writer.stdout and writer.stdout.readline() == b"go\n"
        writer.stdout.readline()  # at least one unit a run, so that all moments of a store's life come
        time.sleep(rng.uniform(0.0, 0.15))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        # A kill may come between a snapshot and its companion, which the next snapshot writes.
        problems = [line for line in verify(str(disturbed)).problems if ".sha256: missing" not in line]
        assert not problems
        number = latest_snapshot(disturbed)
        assert number >= pinned
        pinned = number
        if number:
            contents(disturbed)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert not verify(str(disturbed)).problems
    found = contents(disturbed)
    expected = {record.key: record for record in contents(calm)}
    assert len(found) == len(expected) == 120
    for record in found:
        assert_same_record(record, expected[record.key])
    sweep(disturbed, grace=0.0)
    report = verify(str(disturbed))
    assert not report.problems and not report.uncommitted and not disturbed.drafts()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("a full disk needs root and mount")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_full_disk_refuses_in_one_line_and_a_rerun_completes(profile: Profile, small_disk: Path) -> None:
    spec = store_spec(TARGETS["topk"])
    units = units_of("topk", 2)
    storage = LocalStorage(small_disk / "store")
    create_store(storage, spec)
    write_unit(storage, spec, units[0], profile)
    take_snapshot(storage)
    before = all_files(storage)
    filler = small_disk / "filler"
    refused = 0
    for pages in range(80):
        with filler.open("wb") as file:
            left = os.statvfs(small_disk).f_bavail - pages
            file.write(bytes(4096 * max(left, 0)))
        try:
            write_unit(storage, spec, units[1], profile)
            break
        except StoreError as error:
            assert str(error).startswith(str(storage)) and "cannot be written: No space left" in str(error)
            assert "\n" not in str(error)
            refused += 1
            report = verify(str(storage))
            assert not report.problems and not report.uncommitted and report.examples == 3
            assert all_files(storage) == before
        filler.unlink()
    assert refused > 10
    filler.unlink()
    write_unit(storage, spec, units[1], profile)
    assert take_snapshot(storage).examples == 6
    assert not complaints(storage)
    written = {record.key: record for unit in units for record in unit}
    for record in contents(storage):
        assert_stored(record.window, written[record.key].window, spec.targets)


def test_a_disk_full_from_the_start_refuses_the_claims_too(small_disk: Path) -> None:
    spec = store_spec(TARGETS["topk"])
    storage = LocalStorage(small_disk / "store")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))
    with pytest.raises(StoreError, match=r"spec\.json: cannot be written: No space left"):
        create_store(storage, spec)
    assert storage.size("spec.json") is None
    filler.unlink()
    create_store(storage, spec)
    filler.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))
    for call in (
        lambda: write_unit(storage, spec, units_of("topk", 1)[0]),
        lambda: quarantine(storage, "0" * 32, "bad", "too long"),
        lambda: take_snapshot(storage),
    ):
        with pytest.raises(StoreError, match="cannot be written: No space left"):
            call()
    assert storage.size(CLAIM) is None and not latest_snapshot(storage)
    filler.unlink()
    write_unit(storage, spec, units_of("topk", 1)[0])
    assert take_snapshot(storage).examples == 3
    assert not complaints(storage)


def as_nobody(root: str, results: Any) -> None:
    """Read all, then try every kind of write, as a user who may not."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    storage = LocalStorage(root)
    spec = store_spec(TARGETS["topk"])
    read = contents(storage)
    problems = verify(root).problems
    errors = []
    for call in (
        lambda: write_unit(storage, spec, units_of("topk", 1, seed=9)[0]),
        lambda: write_unit(storage, spec, units_of("topk", 1, seed=9)[0], "fast"),
        lambda: quarantine(storage, "1" * 32, "bad", "too long"),
        lambda: storage.create("commits/x.json", b"{}"),
        lambda: create_store(LocalStorage(f"{root}/inner"), spec),
    ):
        try:
            call()
            errors.append("written")
        except LogitbankError as error:
            errors.append(f"{type(error).__name__}: {error}")
        except BaseException as error:
            errors.append(f"not told: {error!r}")
    results.send((read, problems, errors))


def test_a_store_that_may_only_be_read_is_read_and_refuses_writes() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    # pytest's own temporary folders are closed to other users.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        storage = make_store(Path(folder) / "store")
        before = {path: path.read_bytes() for path in all_files(storage)}
        expected = contents(storage)
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=as_nobody, args=(str(storage), there))
        process.start()
        there.close()
        read, problems, errors = here.recv()
        process.join()
        for record, other in zip(read, expected, strict=True):
            assert_same_record(record, other)
        assert not problems
        for error in errors:
            assert error.startswith(f"StoreError: {storage}") and "cannot be written: Permission denied" in error
            assert "\n" not in error
        assert {path: path.read_bytes() for path in all_files(storage)} == before


def changed(targets: SparseTargets, array: str, position: int, value: Any) -> SparseTargets:
    values = getattr(targets, array).copy()
    values.reshape(-1)[position] = value
    return replace(targets, **{array: values})


def swapped(targets: SparseTargets) -> SparseTargets:
    values = targets.logprobs.copy()
    values[1], values[2] = values[2], values[1]
    return replace(targets, logprobs=values)


def bad_offsets(targets: SparseTargets) -> SparseTargets:
    """The second row takes back what the first had."""
    offsets = targets.offsets.copy()
    offsets[1] = offsets[3]
    return replace(targets, offsets=offsets)


# Row 2 of each of these records, the last token of the prompt, is the first with entries.
BAD: dict[str, tuple[Callable[[SparseTargets], SparseTargets], str]] = {
    "nan": (lambda t: changed(t, "logprobs", 5, np.nan), "row 2: log-probabilities must be finite .* found nan"),
    "inf": (lambda t: changed(t, "logprobs", 5, np.inf), "row 2: log-probabilities must be finite .* found inf"),
    "minus inf": (lambda t: changed(t, "logprobs", 5, -np.inf), "row 2: .* must be finite .* found -inf"),
    "positive": (lambda t: changed(t, "logprobs", 0, 0.5), r"row 2: .* not above 0, found 0\.5"),
    "too low": (lambda t: changed(t, "logprobs", 19, -701.0), r"log-probability -701\.0 is below"),
    "unsorted": (swapped, "row 2: log-probabilities must fall within a row, found -"),
    "repeated": (lambda t: changed(t, "ids", 5, t.ids[3]), "row 2: id [0-9]+ stands twice in one row"),
    "outside": (lambda t: changed(t, "ids", 7, VOCAB), "row 2: id 500 is outside the vocabulary of 500"),
    "far outside": (lambda t: changed(t, "ids", 7, 2**32 - 1), "row 2: id 4294967295 is outside the vocabulary"),
    "negative count": (bad_offsets, "offsets do not describe the rows"),
    "tail above 0": (lambda t: changed(t, "log_tail", 2, 0.5), "log tail mass must not be above 0"),
    "nan tail": (lambda t: changed(t, "log_tail", 2, np.nan), "log tail mass must not be above 0"),
    "all tail": (lambda t: changed(t, "log_tail", 2, 0.0), "cannot leave all of its mass to the tail"),
    "no tail": (lambda t: changed(t, "log_tail", 0, -1.0), "without exact entries leaves all of its mass"),
    "nan entropy": (lambda t: changed(t, "entropy", 2, np.nan), "entropy must be one finite value a row"),
    "nan normaliser": (lambda t: changed(t, "log_normalizers", 5, np.inf), "log-normalisers must be one finite"),
    "no entropy": (lambda t: replace(t, entropy=None), "entropy is not what the store's spec declares"),
    "normalisers": (lambda t: replace(t, log_normalizers=None), "0 log-normalisers a row; the spec declares 2"),
    "exact counts": (lambda t: replace(t, exact=t.counts), "sampled entries do not go with topk targets"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_record_that_cannot_be_is_refused_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    change, message = BAD[name]
    spec = store_spec(TARGETS["topk"])
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    before = all_files(storage)
    good, bad = units_of("topk", 1, records=2)[0]
    bad = replace(bad, targets=change(bad.targets))
    with pytest.raises(InputError, match=message) as refusal:
        write_unit(storage, spec, [good, bad])
    assert "example 0 1" in str(refusal.value) or name == "too low"
    assert "\n" not in str(refusal.value)
    assert [path for path in all_files(storage) if path.name != CLAIM and "codebooks" not in path.parts] == before


@pytest.mark.parametrize(
    "mode, other, message",
    [
        ("topk", "threshold", "entries"),
        ("topk", "sampled", "entries"),
        ("nucleus", "threshold", "entries"),
        ("nucleus", "sampled", "sampled entries do not go with nucleus targets"),
        ("threshold", "topk", "sampled entries do not go with threshold targets"),
        ("threshold", "nucleus", "sampled entries do not go with threshold targets"),
        ("sampled", "topk", "sampled entries do not go with sampled targets"),
        ("sampled", "threshold", "exact entries; sampled targets have none|has [0-9]+ entries"),
    ],
)
def test_a_record_of_another_mode_is_refused(mode: TargetMode, other: TargetMode, message: str, tmp_path: Path) -> None:
    spec = store_spec(replace(TARGETS[mode], entropy=False, temperatures=()))
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    record = units_of(other, 1, records=1)[0][0]
    record = replace(record, targets=replace(record.targets, entropy=None, log_normalizers=None))
    with pytest.raises(InputError, match=f"example 0 0: .*({message})"):
        write_unit(storage, spec, [record])
    assert [path.name for path in all_files(storage)] == ["spec.json"]


def test_lengths_keys_and_tokens_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    spec = store_spec(TARGETS["topk"])
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    record = units_of("topk", 1, records=1)[0][0]
    tokens = record.tokenized.tokens.copy()
    tokens[3] = VOCAB
    longer = random_record(np.random.default_rng(0), "0 0", 3, 12, replace(TARGETS["topk"], k=21))
    refused = {
        "differ in length": replace(record, token_logprobs=record.token_logprobs[1:]),
        "token id is outside": replace(record, tokenized=replace(record.tokenized, tokens=tokens)),
        "32 hexadecimal digits": replace(record, key="../../../../../../../../../../x/"),
        "21 entries; topk targets of this store have at most 20": longer,
    }
    for message, bad in refused.items():
        with pytest.raises(InputError, match=f"example 0 0: .*{message}"):
            write_unit(storage, spec, [bad])
    assert [path.name for path in all_files(storage)] == ["spec.json"]
