"""Content that a store cannot represent is refused; stray and foreign files are reported."""

import contextlib
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import InputError, IntegrityError, StoreError
from cache.json_documents import decode_document, encode_document
from cache.parts.layout import PROFILES
from cache.parts.zarr_shard import ArraySpec, Shard, decode_index, encode_array
from cache.parts.zarr_zip import group_of_file
from cache.rows.codebook import plain_codebook
from cache.rows.codec import decode_rows, encode_rows, measure_error
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshot_reading import latest_snapshot
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import MODES, TARGETS, random_record, store_spec
from tests.cache.store.damage import contents, make_store, read_or_named


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_shard_of_another_part_is_never_returned(profile, mode, tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store", mode, profile)
    expected = contents(storage)
    first, second = sorted((storage.root / "parts").glob("*/*.zarr.zip"))
    sound, theirs = first.read_bytes(), second.read_bytes()
    own, other = (group_of_file(data, "x") for data in (sound, theirs))
    tried = 0
    for name, (offset, size) in own.shards.items():
        start, length = other.shards[name]
        shard = theirs[start : start + length]
        if length > size or shard == sound[offset : offset + length]:
            continue
        tried += 1
        first.write_bytes(sound[:offset] + shard + sound[offset + length :])
        assert read_or_named(storage, first, expected), name
    assert tried > 3


def test_a_grid_of_more_levels_than_16_bits_is_refused_or_kept() -> None:
    spec = TargetSpec("topk", 3, step=0.005, tail_step=0.005)
    targets = SparseTargets(
        np.array([0, 3]),
        np.array([1, 2, 3], np.uint32),
        np.array([-1e-6, -200, -600], np.float32),
        np.array([-13.8], np.float32),
    )
    tokens = np.zeros(1, np.uint32)
    try:
        packed = encode_rows(targets, tokens, spec, plain_codebook(5))
    except InputError:
        return
    assert measure_error(targets, decode_rows(packed, tokens, spec, plain_codebook(5), "x"), 5, "x").max_abs_error < 0.1


@pytest.mark.parametrize("mode", ["topk", "threshold", "sampled"])
@pytest.mark.parametrize("tokens", [0, 5])
def test_a_unit_without_any_target_is_written_where_entropy_is_declared(mode, tokens: int, tmp_path: Path) -> None:
    spec = store_spec(TARGETS[mode])
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    write_unit(storage, spec, [random_record(np.random.default_rng(0), "no target", tokens, 0, spec.targets)])
    assert not verify_store(str(storage)).problems


@pytest.mark.parametrize("mode, value", [("sampled", -10.0), ("sampled", -1.0), ("threshold", -1.0)])
def test_a_sampled_entry_that_stands_for_no_draw_is_refused(mode, value: float, tmp_path: Path) -> None:
    spec = store_spec(replace(TARGETS[mode], entropy=False, temperatures=()))
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    record = random_record(np.random.default_rng(0), "e", 1, 1, spec.targets)
    logprobs = record.targets.logprobs.copy()
    logprobs[-1] = value
    with pytest.raises(InputError, match="example e"):
        write_unit(storage, spec, [replace(record, targets=replace(record.targets, logprobs=logprobs))])


@pytest.mark.parametrize("value", [np.inf, 5.0])
def test_a_token_logprob_above_0_is_refused(value: float, tmp_path: Path) -> None:
    spec = store_spec(TARGETS["nucleus"])
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    record = random_record(np.random.default_rng(0), "e", 1, 3, spec.targets)
    values = record.token_logprobs.copy()
    values[2] = value
    with pytest.raises(InputError, match="example e"):
        write_unit(storage, spec, [replace(record, token_logprobs=values)])


def test_a_row_whose_entries_and_tail_do_not_make_1_is_refused(tmp_path: Path) -> None:
    spec = store_spec(TARGETS["nucleus"])
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    record = random_record(np.random.default_rng(0), "e", 1, 3, spec.targets)
    tail = np.where(record.targets.counts > 0, -30.0, 0.0).astype(np.float32)
    with pytest.raises(InputError, match="example e"):
        write_unit(storage, spec, [replace(record, targets=replace(record.targets, log_tail=tail))])


@pytest.mark.parametrize("name", ["snapshots/foo.json", "snapshots/x.copy.json", "snapshots/01.json", "index/x.units"])
def test_a_stray_file_among_the_snapshots_is_reported(name: str, full_store) -> None:
    (full_store.root / name).write_text("{}")
    for call in (verify_store, LogitStore.open, lambda uri: take_snapshot(LocalStorage(uri))):
        with contextlib.suppress(StoreError):
            call(str(full_store))


def test_a_commit_under_another_units_name_is_reported(full_store) -> None:
    path = next((full_store.root / "commits").iterdir())
    (path.parent / ("0" * 24 + ".json")).write_bytes(path.read_bytes())
    assert "0" * 24 in " ".join(verify_store(str(full_store)).problems)


def test_a_commit_whose_part_leaves_the_store_is_a_problem_of_a_scrub(full_store) -> None:
    path = next((full_store.root / "commits").iterdir())
    body = decode_document(path.read_bytes(), "x")
    body["part"]["path"] = "../../x.zarr.zip"
    path.write_bytes(encode_document(body))
    for file in (full_store.root / "snapshots").iterdir():
        file.unlink()
    with pytest.raises(IntegrityError, match=path.name):
        LogitStore.open(str(full_store), unpinned=True)
    with pytest.raises(IntegrityError, match=path.name):
        take_snapshot(full_store)
    assert path.name in " ".join(verify_store(str(full_store)).problems)


@pytest.mark.parametrize("codec", ["pcodec", "pcodec_sorted", "zstd", "raw"])
@pytest.mark.parametrize("chunk", [7, 9])
def test_a_sound_file_of_other_chunks_does_not_pass(codec, chunk: int) -> None:
    spec, other = ArraySpec((16,), "uint16", 8, codec), ArraySpec((2 * chunk,), "uint16", chunk, codec)
    file = encode_array(other, np.arange(2 * chunk, dtype=np.uint16))
    bounds = decode_index(spec, file[-spec.index_bytes :], "x")
    with pytest.raises(IntegrityError, match="x: chunk 0 "):
        Shard(spec, bounds, "x").decode(file, 0, 2)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.create("a/b", b"x")
    assert storage.size("a") is None


def test_a_snapshot_never_hides_that_a_commit_is_gone(full_store: LocalStorage) -> None:
    next((full_store.root / "commits").glob("*.json")).unlink()
    with pytest.raises(IntegrityError, match=r"commits/.*missing, though a snapshot"):
        take_snapshot(full_store)


def test_a_deleted_newest_snapshot_is_not_passed_over(full_store: LocalStorage) -> None:
    newest = latest_snapshot(full_store)
    examples = len(LogitStore.open(str(full_store)))
    (full_store.root / f"snapshots/{newest}.json").unlink()
    store = LogitStore.open(str(full_store))
    assert store.snapshot == newest and len(store) == examples
    (full_store.root / f"snapshots/{newest}.copy.json").write_text("{}")
    with pytest.raises(IntegrityError, match=rf"{newest}\.json: missing; so is its copy: .*{newest}\.copy\.json: alt"):
        LogitStore.open(str(full_store))


def test_taking_a_snapshot_repairs_a_cut_segment(full_store: LocalStorage) -> None:
    snapshot = take_snapshot(full_store)
    path = full_store.path(snapshot.segments[0].path)
    path.write_bytes(path.read_bytes()[:-3])
    assert take_snapshot(full_store) == snapshot
    assert path.name == f"{hashlib.sha256(path.read_bytes()).hexdigest()}.zarr.zip"
    assert len(LogitStore.open(str(full_store)))
