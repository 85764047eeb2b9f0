"""A store copied into another profile has the same rows; an interrupted copy continues."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.rows.codebook import plain_codebook
from cache.rows.codec import decode_rows, encode_rows
from cache.rows.on_grid import on_grid
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import committed_units, create_store, unit_name
from cache.store.copying.transcode import transcode_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example, quarantined_keys
from cache.store.reading.blocks import token_blocks
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.store.sample_stores import (
    NUCLEUS,
    PROMPT,
    SAMPLED,
    THRESHOLD,
    TOPK,
    VOCAB,
    KilledError,
    assert_same_records,
    cut,
    heads,
    make_store,
    records_for,
    stop_after,
    with_empty_rows,
)


@pytest.mark.parametrize("targets", [TOPK, NUCLEUS, THRESHOLD, SAMPLED], ids=lambda spec: spec.mode)
def test_no_profile_changes_a_row(tmp_path: Path, targets: TargetSpec) -> None:
    source = make_store(tmp_path / "source", targets)
    before = str(tmp_path / "source")
    for profile in ("portable", "fast", "compact", "portable"):
        after = str(tmp_path / f"{Path(before).name}-{profile}")
        transcode_store(before, after, profile)
        found = LogitStore.open(after, expect=source.spec)
        assert_same_records(found, source)
        assert found.index.profile.tolist() == [("compact", "portable", "fast").index(profile)] * 3
        assert np.array_equal(found.index.unit, source.index.unit), "units stay what they are"
        report = verify_store(after)
        assert not report.problems and not report.uncommitted
        before = after


@pytest.mark.parametrize("k", [2, 4, 16, 64])
@pytest.mark.parametrize("step", [0.005, 0.04])
def test_values_that_were_stored_once_do_not_drift(k: int, step: float) -> None:
    """The shift of a flat row exceeds half a step: rounding it again would choose other levels."""
    spec = TargetSpec("topk", k, step=step)
    codebook, tokens = plain_codebook(VOCAB), np.zeros(6000, np.uint32)

    def stored(targets: SparseTargets) -> SparseTargets:
        return decode_rows(encode_rows(targets, tokens, spec, codebook), tokens, spec, codebook, "test")

    rng = np.random.default_rng(k)
    counts = rng.integers(0, k + 1, 6000)
    first = stored(cut(heads(rng, 6000, k, (0.01, 8.0)), counts))
    again = first
    for _ in range(3):
        again = stored(on_grid(again, spec))
        assert np.array_equal(again.ids, first.ids)
        assert np.abs(again.logprobs - first.logprobs).max() < 2e-6
        assert np.array_equal(again.log_tail, first.log_tail)
    if k < 16:
        assert np.abs(stored(first).logprobs - first.logprobs).max() > step / 2, "this test has no rows that drift"


def test_rows_that_no_store_rounded_stay_unchanged() -> None:
    targets = heads(np.random.default_rng(0), 200, 16)
    assert np.array_equal(on_grid(targets, TargetSpec("topk", 16)).logprobs, targets.logprobs)
    assert on_grid(empty_targets(3), TOPK).counts.tolist() == [0, 0, 0]


def test_an_interrupted_transcode_continues_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def counted(storage: Any, spec: StoreSpec, records: Any, *rest: Any) -> Any:
        written.append(unit_name([record.key for record in records]))
        return write_unit(storage, spec, records, *rest)

    monkeypatch.setattr("cache.store.copying.transcode.write_unit", counted)
    source = make_store(tmp_path / "source", units=4)
    target = tmp_path / "target"
    with pytest.raises(KilledError):
        transcode_store(str(tmp_path / "source"), str(target), "fast", progress=stop_after(2))
    with pytest.raises(StoreError, match="no snapshot yet"):
        LogitStore.open(str(target))
    early = {path: path.stat().st_mtime_ns for path in target.rglob("*") if path.is_file()}
    transcode_store(str(tmp_path / "source"), str(target), "fast")
    assert_same_records(LogitStore.open(str(target)), source)
    assert len(committed_units(LocalStorage(target))) == 4
    assert {path: path.stat().st_mtime_ns for path in early} == early
    assert len(written) == len(set(written)) == 4, "what was committed was written again"


def test_other_unit_sizes_give_the_same_examples_and_an_old_snapshot_only_its_own(tmp_path: Path) -> None:
    source = make_store(tmp_path / "source", units=2, examples=5)
    quarantine_example(source.storage, "a" * 32, "bad", "too long")
    write_unit(source.storage, source.spec, records_for(TOPK, 2, seed=9))
    take_snapshot(source.storage)
    transcode_store(str(tmp_path / "source"), str(tmp_path / "old"), "portable", snapshot=1, unit_examples=3)
    old = LogitStore.open(str(tmp_path / "old"))
    assert_same_records(old, source)
    assert len(old.index.unit) == 4 and not quarantined_keys(LocalStorage(tmp_path / "old"))
    transcode_store(str(tmp_path / "source"), str(tmp_path / "new"), "portable")
    assert quarantined_keys(LocalStorage(tmp_path / "new")) == ["a" * 32]
    assert LogitStore.open(str(tmp_path / "new")).info().quarantined == 1


def test_an_example_of_two_units_is_copied_once(tmp_path: Path) -> None:
    source = make_store(tmp_path / "source", units=1, examples=3)
    write_unit(source.storage, source.spec, [*records_for(TOPK, 3)[1:], *records_for(TOPK, 1, seed=5)])
    take_snapshot(source.storage)
    transcode_store(str(tmp_path / "source"), str(tmp_path / "target"), "fast")
    target = LogitStore.open(str(tmp_path / "target"))
    assert len(target) == 4 and int(target.index.counts[:, 0].sum()) == 4


def test_a_compact_copy_learns_its_codebook_from_the_entire_source(tmp_path: Path) -> None:
    """A first unit of another kind gives a codebook that suits no other unit."""
    spec = StoreSpec("teacher", "weights", "tokenizer", "template", VOCAB, VOCAB, "float32", TOPK, None)
    storage = LocalStorage(tmp_path / "source")
    create_store(storage, spec)
    rng = np.random.default_rng(0)
    # Few ids are ever an entry, in the unit that comes first, also by its name, others than later.
    units = sorted(range(4), key=lambda unit: unit_name([record.key for record in records_for(TOPK, 40, unit)]))
    for place, unit in enumerate(units):
        base = heads(rng, 30, TOPK.k)
        drawn = np.stack([rng.choice(20, TOPK.k, replace=False) for _ in range(30)]) + (0 if place == 0 else 250)
        records = []
        for record in records_for(TOPK, 40, unit):
            rows = rng.integers(0, 30, len(record.targets) - PROMPT)
            picked = concatenate([base.rows(r, r + 1) for r in rows])
            ids = drawn[rng.integers(0, 30, len(rows))].ravel().astype(np.uint32)
            records.append(replace(record, targets=with_empty_rows(replace(picked, ids=ids), PROMPT - 1)))
        write_unit(storage, spec, records)
    take_snapshot(storage)
    transcode_store(str(storage), str(tmp_path / "target"), "compact")
    source, target = LogitStore.open(str(storage)), LogitStore.open(str(tmp_path / "target"))
    before, after = (store.bytes_by_array()["rank0/code"] for store in (source, target))
    assert after < 0.97 * before
    assert_same_records(target, source)


def test_transcode_refuses_what_would_mix_or_overwrite(tmp_path: Path) -> None:
    make_store(tmp_path / "source", units=1)
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    with pytest.raises(InputError, match="is the source itself"):
        transcode_store(source, f"{tmp_path}/target/../source", "fast")
    with pytest.raises(InputError, match="profile 'zip': unknown"):
        transcode_store(source, target, "zip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 examples a unit"):
        transcode_store(source, target, "fast", unit_examples=0)
    assert not (tmp_path / "target").exists()
    transcode_store(source, target, "fast")
    with pytest.raises(StoreError, match="exists with profile fast, requested portable"):
        transcode_store(source, target, "portable")
    make_store(tmp_path / "other", NUCLEUS, units=1)
    with pytest.raises(SpecMismatchError, match=r"targets\.\w+: was"):
        transcode_store(source, str(tmp_path / "other"), "fast")


def test_blocks_stay_within_their_limit_of_tokens() -> None:
    lengths = np.array([3, 3, 3, 50, 1, 1, 9])
    assert [list(block) for block in token_blocks(lengths, 10)] == [[0, 1, 2], [3], [4, 5], [6]]
    assert list(token_blocks(lengths[:0])) == []
