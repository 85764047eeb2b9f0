"""Commits, snapshots, indices and codebooks that do not belong together are detected, also with valid checksums."""

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from cache.errors import IntegrityError
from cache.json_documents import decode_document, encode_document
from cache.parts.codebook_file import encode_codebook
from cache.parts.codebook_learning import frequency_codebook, list_codebook
from cache.rows.codebook import plain_codebook
from cache.rows.sparse_targets import concatenate
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_claim import claim_codebook, claim_path, newest_codebook
from cache.store.commits import committed_units, read_commit
from cache.store.logit_store import LogitStore
from cache.store.snapshot_reading import read_snapshot
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, VOCAB, assert_same_record, store_spec
from tests.cache.store.damage import complaints, contents, read_or_named, units_of


def test_a_missing_commit_is_named_and_pinned_readers_read_on(full_store: LocalStorage) -> None:
    expected = contents(full_store)
    for path in sorted((full_store.root / "commits").iterdir()):
        sound = path.read_bytes()
        path.unlink()
        assert str(path) in complaints(full_store)
        assert len(LogitStore.open(str(full_store), unpinned=True)) == 6  # the snapshot knows its part
        with pytest.raises(IntegrityError, match=f"{path.name}: missing, though a snapshot lists it"):
            take_snapshot(full_store)
        assert not read_or_named(full_store, path, expected)
        path.write_bytes(sound)


def test_a_commit_rewritten_after_its_snapshot_is_named(full_store: LocalStorage) -> None:
    """With a valid checksum of its own: only the snapshot can tell."""
    path = next((full_store.root / "commits").iterdir())
    body = decode_document(path.read_bytes(), "x")
    path.write_bytes(encode_document({**body, "kl": 0.0}))
    assert f"{path}: not the file that the snapshot lists" in complaints(full_store)


def test_a_snapshot_that_differs_from_its_copy_is_named(full_store: LocalStorage) -> None:
    path = full_store.root / "snapshots/1.json"
    path.write_bytes(encode_document({**decode_document(path.read_bytes(), "x"), "units": 7}))
    assert "snapshots/1.copy.json: does not agree with snapshots/1.json" in complaints(full_store)


def test_the_document_of_another_snapshot_is_not_read(full_store: LocalStorage) -> None:
    for name in ("1.json", "1.copy.json"):
        shutil.copy(full_store.root / "snapshots/2.json", full_store.root / "snapshots" / name)
    assert "snapshots/1.json: is the document of snapshot 2" in complaints(full_store)
    with pytest.raises(IntegrityError, match="is the document of snapshot 2"):
        LogitStore.open(str(full_store), snapshot=1)


def test_a_segment_of_another_snapshot_is_not_read(full_store: LocalStorage) -> None:
    """What it should contain follows from the commits."""
    expected = contents(full_store)
    older, newer = (full_store.root / read_snapshot(full_store, n).segments[0].path for n in (1, 2))
    newer.write_bytes(older.read_bytes())
    assert not read_or_named(full_store, newer, expected)
    assert f"{newer.name}: altered" in complaints(full_store)
    assert len(LogitStore.open(str(full_store), snapshot=1)) == 3


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


def test_a_kill_between_the_two_files_of_a_snapshot_is_repaired(full_store: LocalStorage) -> None:
    (full_store.root / "snapshots/2.copy.json").unlink()
    write_unit(full_store, store_spec(TARGETS["topk"]), units_of("topk", 1, seed=5)[0])
    assert take_snapshot(full_store).number == 3
    assert not complaints(full_store)


def test_the_file_of_another_codebook_is_refused(full_store: LocalStorage) -> None:
    """Codes would still name ids, and all of them wrong."""
    expected = contents(full_store)
    targets = concatenate([record.targets for record in expected])
    tokens = np.concatenate([record.tokenized.tokens for record in expected])
    lists = list_codebook(targets, tokens, VOCAB, False)
    (path,) = (full_store.root / "codebooks").glob("*.zarr.zip")
    sound = path.read_bytes()
    for other in (replace(lists, by_token=True), frequency_codebook(targets, VOCAB), plain_codebook(VOCAB + 1)):
        path.write_bytes(encode_codebook(other))
        assert read_or_named(full_store, path, expected)
        assert path.name in complaints(full_store)
    path.write_bytes(sound)
    assert not complaints(full_store)


def test_a_claim_of_another_codebook_is_named_and_parts_are_read(full_store: LocalStorage) -> None:
    """A part names its codebook itself; a claim is for writers."""
    expected = contents(full_store)
    path = full_store.root / claim_path(1)
    claim = decode_document(path.read_bytes(), "x")
    for change in ({"digest": "0" * 32}, {"bytes": 7}, {"sha256_of_file": "0" * 64}):
        path.write_bytes(encode_document({**claim, **change}))
        assert not read_or_named(full_store, path, expected)
        assert "codebooks/" in complaints(full_store)
    path.write_bytes(encode_document({**claim, "digest": "0" * 32}))
    with pytest.raises(IntegrityError, match=r"codebooks/0{32}\.zarr\.zip: missing"):
        newest_codebook(full_store, VOCAB)


def test_a_codebook_for_another_vocabulary_is_refused(full_store: LocalStorage) -> None:
    with pytest.raises(IntegrityError, match=rf"is codebook .* of {VOCAB} ids, not .* of {VOCAB + 1}"):
        claim_codebook(full_store, 1, plain_codebook(VOCAB + 1), 1)


def test_a_store_may_have_several_codebooks(full_store: LocalStorage) -> None:
    """The newest is that of new units. Older units keep theirs, also in the eyes of garbage collection."""
    expected = contents(full_store)
    targets = concatenate([record.targets for record in expected])
    second = frequency_codebook(targets, VOCAB)
    assert claim_codebook(full_store, 2, second, 1).digest == second.digest
    assert claim_codebook(full_store, 2, plain_codebook(VOCAB), 1).digest == second.digest, "claimed once"
    generation, newest = newest_codebook(full_store, VOCAB)
    assert generation == 2 and newest is not None and newest.digest == second.digest
    unit = units_of("topk", 1, seed=8)[0]
    commit, _ = write_unit(full_store, store_spec(TARGETS["topk"]), unit)
    assert commit.codebook == second.digest != read_commit(full_store, committed_units(full_store)[0])[0].codebook or (
        commit.unit == committed_units(full_store)[0]
    )
    take_snapshot(full_store)
    assert not collect_garbage(full_store, grace=-1.0).removed
    report = verify_store(str(full_store))
    assert not report.problems and not report.uncommitted and report.files == 5
    found = {record.key: record for record in contents(full_store)}
    for record in expected:
        assert_same_record(found[record.key], record)
    assert len(found) == 9


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
            lambda name: full_store.write_file(name, b"x"),
        ):
            with pytest.raises(IntegrityError, match="not a path inside the store"):
                call(name)
    assert (full_store.root.parent / "outside").read_text() == "secret"


@pytest.mark.parametrize("path", ["../../" + "0" * 32 + ".zarr.zip", "parts/../../" + "0" * 32 + ".zarr.zip", "/etc"])
def test_a_commit_whose_part_leaves_the_store_is_refused(path: str, full_store: LocalStorage) -> None:
    for commit in (full_store.root / "commits").iterdir():
        body = decode_document(commit.read_bytes(), "x")
        body["part"]["path"] = path
        commit.write_bytes(encode_document(body))
    for file in (full_store.root / "snapshots").iterdir():
        file.unlink()
    assert complaints(full_store)
    if path.endswith(".zarr.zip"):
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
        assert not collect_garbage(full_store, grace=0.0).removed, "whatever counts is nobody's garbage, however old"
        write_unit(full_store, spec, units_of("topk", 1, seed=6 + turn)[0])
        assert take_snapshot(full_store).number == 3 + turn
        for record, other in zip(LogitStore.open(str(full_store), snapshot=2), expected, strict=True):
            assert_same_record(record, other)
    assert len(LogitStore.open(str(full_store))) == 12
    assert not complaints(full_store)
