"""Commits, snapshots, indices and codebooks that do not belong together are detected, also with valid checksums."""

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from cache.errors import IntegrityError
from cache.json_documents import decode_document, encode_document
from cache.parts.codebook_learning import frequency_codebook, list_codebook
from cache.rows.codebook import plain_codebook
from cache.rows.sparse_targets import concatenate
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_claim import CLAIM, claim_codebook
from cache.store.garbage_collection import collect_garbage
from cache.store.index import StoreIndex
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from tests.cache.rows.rows import TARGETS, VOCAB, assert_same_record, store_spec
from tests.cache.store.damage import complaints, contents, read_or_named, units_of


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
    body = decode_document(path.read_bytes(), "x")
    path.write_bytes(encode_document({**body, "kl": 0.0}))
    assert f"{path}: not the file that the snapshot lists" in complaints(full_store)


def test_a_snapshot_rewritten_after_its_companion_is_named(full_store: LocalStorage) -> None:
    path = full_store.root / "snapshots/1.json"
    path.write_bytes(encode_document({**decode_document(path.read_bytes(), "x"), "units": 7}))
    assert "snapshots/1.sha256: does not agree with snapshot 1" in complaints(full_store)


def test_an_index_of_another_snapshot_is_not_read(full_store: LocalStorage) -> None:
    """What it should contain follows from the commits."""
    expected = contents(full_store)
    older, newer = (
        full_store.root / decode_document((full_store.root / f"snapshots/{n}.json").read_bytes(), "x")["index"]
        for n in (1, 2)
    )
    newer.write_bytes(older.read_bytes())
    assert not read_or_named(full_store, newer, expected)
    assert f"{newer.name}: altered" in complaints(full_store)
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


def test_a_kill_between_the_two_files_of_a_snapshot_is_repaired(full_store: LocalStorage) -> None:
    (full_store.root / "snapshots/2.sha256").unlink()
    write_unit(full_store, store_spec(TARGETS["topk"]), units_of("topk", 1, seed=5)[0])
    assert take_snapshot(full_store).number == 3
    assert not complaints(full_store)


def test_a_codebook_that_is_not_the_claimed_one_is_refused(full_store: LocalStorage) -> None:
    """Codes would still name ids, and all of them wrong."""
    claim_path = full_store.root / CLAIM
    claim = decode_document(claim_path.read_bytes(), "x")
    expected = contents(full_store)
    other = LocalStorage(full_store.root.parent / "other")
    targets = concatenate([record.targets for record in expected])
    tokens = np.concatenate([record.tokenized.tokens for record in expected])
    claim_codebook(other, replace(list_codebook(targets, tokens, VOCAB, False), by_token=True))
    theirs = decode_document(other.read(CLAIM), "x")
    for change in ({"digest": "0" * 32}, {"by_token": True}, {"digest": theirs["digest"], "by_token": True}):
        claim_path.write_bytes(encode_document({**claim, **change}))
        with pytest.raises(IntegrityError, match="codebook"):
            contents(full_store)
        assert complaints(full_store)
    claim_path.write_bytes(encode_document(claim))
    claim_codebook(LocalStorage(other.root.parent / "third"), frequency_codebook(targets, VOCAB))
    third = other.root.parent / "third"
    shutil.rmtree(full_store.root / claim["path"])
    shutil.copytree(third / decode_document((third / CLAIM).read_bytes(), "x")["path"], full_store.root / claim["path"])
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
        body = decode_document(commit.read_bytes(), "x")
        body["place"]["path"] = path
        commit.write_bytes(encode_document(body))
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
        assert not collect_garbage(full_store, grace=0.0).removed, "whatever counts is nobody's garbage, however old"
        write_unit(full_store, spec, units_of("topk", 1, seed=6 + turn)[0])
        assert take_snapshot(full_store).number == 3 + turn
        for record, other in zip(LogitStore.open(str(full_store), snapshot=2), expected, strict=True):
            assert_same_record(record, other)
    assert len(LogitStore.open(str(full_store))) == 12
    assert not complaints(full_store)
