"""A full disk and a read-only store are refused in one line and leave the store as it was."""

import multiprocessing
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.errors import LogitbankError, StoreError
from cache.parts.layout import PROFILES, Profile
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_claim import claimed_generations
from cache.store.commits import create_store
from cache.store.quarantine.entries import quarantine_example
from cache.store.snapshot_reading import latest_snapshot
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, assert_same_record, assert_stored, store_spec
from tests.cache.store.damage import all_files, complaints, contents, make_store, units_of

NOBODY = 65534


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
            report = verify_store(str(storage))
            assert not report.problems and not report.uncommitted and report.examples == 3
            assert all_files(storage) == before
        filler.unlink()
    assert refused > 3
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
        lambda: quarantine_example(storage, "0" * 32, "bad", "too long"),
        lambda: take_snapshot(storage),
    ):
        with pytest.raises(StoreError, match="cannot be written: No space left"):
            call()
    assert not claimed_generations(storage) and not latest_snapshot(storage)
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
    problems = verify_store(root).problems
    errors = []
    for call in (
        lambda: write_unit(storage, spec, units_of("topk", 1, seed=9)[0]),
        lambda: write_unit(storage, spec, units_of("topk", 1, seed=9)[0], "fast"),
        lambda: quarantine_example(storage, "1" * 32, "bad", "too long"),
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
            assert f"Error: {storage}" in error and "cannot be written: Permission denied" in error
            assert "\n" not in error
        assert {path: path.read_bytes() for path in all_files(storage)} == before
