"""Records are read as they were written, in every mode and profile."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import StoreError
from cache.parts.layout import PROFILES, Profile
from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetMode, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from cache.store.reading import lookup
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import (
    MODES,
    TARGETS,
    VOCAB,
    assert_same_record,
    assert_same_window,
    assert_stored,
    random_record,
    random_rows,
    store_spec,
)
from tests.cache.store.mixed_stores import new_store, open_mixed
from tests.records import MakeRecords


def test_records_come_back_as_they_went_in(storage: LocalStorage, spec: StoreSpec, make_records: MakeRecords) -> None:
    records = make_records(7)
    write_unit(storage, spec, records)
    take_snapshot(storage)
    store = LogitStore.open(str(storage), expect=spec)
    assert len(store) == 7
    for stored, record in zip(store, records, strict=True):
        assert stored.key == record.key == stored.tokenized.key
        assert stored.tokenized.example == record.tokenized.example
        assert stored.tokenized.origin == record.tokenized.origin
        assert_stored(stored.window, record.window, spec.targets)
    assert_same_record(store[-1], store[6])
    with pytest.raises(IndexError, match="no example 7; it has 7"):
        store[7]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_keeps_entropy_and_normalisers_that_it_declares(
    mode: TargetMode, profile: Profile, tmp_path: Path
) -> None:
    spec = TARGETS[mode]
    store, records = open_mixed(tmp_path / "store", mode, profile)
    assert len(store) == len({record.key for record in records})
    for stored, record in zip(store, records, strict=True):
        assert_stored(stored.window, record.window, spec)
        assert (stored.targets.entropy is not None) == spec.entropy
        assert (stored.targets.log_normalizers is not None) == bool(spec.temperatures)
        assert (stored.targets.exact is not None) == spec.has_sampled
        if stored.targets.log_normalizers is not None:
            assert stored.targets.log_normalizers.shape == (len(stored.targets), len(spec.temperatures))
        stored.targets.validate(VOCAB, "what was read")
    assert store.tokens.tolist() == [len(record.tokenized.tokens) for record in records]
    assert store.rows.tolist() == [record.target_rows for record in records]
    store.check()
    assert not verify_store(str(store.storage)).problems


def test_a_unit_of_empty_documents_is_a_unit(tmp_path: Path) -> None:
    spec = store_spec(TARGETS["nucleus"])
    storage = new_store(tmp_path / "store", spec)
    write_unit(storage, spec, [random_record(np.random.default_rng(0), "empty", 0, 0, spec.targets)])
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    assert len(store) == 1 and len(store[0].targets) == 0 and len(store.window(0)) == 0
    assert store[0].tokenized.example.id == "empty"
    info = store.info()
    assert (info.tokens, info.rows, info.entries) == (0, 0, 0) and "examples" in repr(info)
    assert not verify_store(str(storage)).problems


def test_rows_shorter_than_k_and_rows_with_every_id_come_back(tmp_path: Path) -> None:
    """k is the most a row may have, and no promise of how many it has."""
    vocab = 30
    spec = store_spec(TargetSpec("topk", 64), vocab)
    storage = new_store(tmp_path / "store", spec)
    rng = np.random.default_rng(1)
    targets = concatenate(
        [
            *(random_rows(rng, 2, TargetSpec("topk", k), vocab) for k in (1, 8, 9, 29, 30, 64)),
            empty_targets(1),
        ]
    )
    record = random_record(rng, "short", 0, len(targets), spec.targets, vocab)
    record = replace(record, targets=targets)
    write_unit(storage, spec, [record])
    take_snapshot(storage)
    stored = LogitStore.open(str(storage))[0]
    assert stored.targets.counts.tolist() == [1, 1, 8, 8, 9, 9, 29, 29, 30, 30, 30, 30, 0]
    assert_stored(stored.window, record.window, spec.targets)
    assert np.isneginf(stored.targets.log_tail[8:12]).all()


def test_what_is_read_may_be_written_to(tmp_path: Path) -> None:
    """Training masks targets in place; another reader must not see it."""
    store, _ = open_mixed(tmp_path / "store", "topk")
    i = int(np.argmax(store.rows))
    before = store.window(i)
    changed = store.window(i)
    for array in (changed.tokens, changed.targets.logprobs, changed.targets.ids, changed.token_logprobs):
        array[...] = 0
    assert_same_window(store.window(i), before)


def test_an_example_is_found_by_the_start_of_its_key(tmp_path: Path) -> None:
    store, _ = open_mixed(tmp_path / "store", "nucleus")
    keys = [store.key(i) for i in range(len(store))]
    assert len(set(keys)) == len(keys) and all(len(key) == 32 for key in keys)
    for i, key in enumerate(keys):
        assert store[i].key == key
        assert store.find(key) == i == store.find(key.upper())
        length = next(n for n in range(1, 33) if sum(other.startswith(key[:n]) for other in keys) == 1)
        assert store.find(key[:length]) == store.find(key[: length + 1]) == i
        if length > 1:
            with pytest.raises(StoreError, match="or a key that starts with it; need one"):
                store.find(key[: length - 1])
    for absent in ("", "xyz", keys[0] + "0", "0" * 32):
        with pytest.raises(StoreError, match="need one"):
            store.find(absent)
    ids = [store[i].tokenized.example.id for i in range(len(store))]
    assert len(set(ids)) == len(ids)
    assert [store.find(example_id) for example_id in ids] == list(range(len(store)))


def test_an_id_comes_before_the_start_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of a line is often the start of another example's key."""
    store, _ = open_mixed(tmp_path / "store", "topk")
    start = store.key(2)[:1]
    numbers = {start: [1], "twice": [3, 4]}
    monkeypatch.setattr(lookup, "with_id", lambda store, name: np.array(numbers.get(name, []), np.int64))
    assert store.find(start) == 1 and store.find(store.key(2)) == 2
    with pytest.raises(StoreError, match=f"2 examples have the id 'twice' .*{store.key(3)[:12]}, {store.key(4)[:12]}"):
        store.find("twice")
