"""What is written is what is read, whole or in windows; commits, snapshots and races."""

import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.parts.layout import PROFILES, Profile
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetMode, TargetSpec
from cache.storage.base import Range
from cache.storage.local import LocalStorage
from cache.store import logit_store as reader
from cache.store.commits import committed_units, create_store, quarantine, read_commit
from cache.store.index import StoreIndex
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify
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

Make = Callable[..., list[Record]]


class CountingStorage(LocalStorage):
    """Counts the bytes and requests that reading takes."""

    read_bytes = 0
    requests = 0

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        found = super().read_ranges(ranges)
        self.read_bytes += sum(map(len, found))
        self.requests += 1
        return found


def new_store(folder: Path, spec: StoreSpec) -> LocalStorage:
    storage = LocalStorage(folder)
    create_store(storage, spec)
    return storage


def mixed_records(mode: TargetMode, seed: int = 0) -> list[Record]:
    """Empty documents, one token, no response, exactly one chunk of tokens, and more."""
    rng = np.random.default_rng(seed)
    lengths = [(0, 0), (1, 0), (0, 1), (1, 1), (3, 10), (6, 0), (112, 400), (0, 0), (2, 511), (7, 30)]
    return [random_record(rng, f"{mode} {i}", *each, TARGETS[mode]) for i, each in enumerate(lengths)]


def open_mixed(folder: Path, mode: TargetMode, profile: Profile = "compact") -> tuple[LogitStore, list[Record]]:
    """A store of two units, and its records in the store's order."""
    records = mixed_records(mode)
    spec = store_spec(TARGETS[mode])
    storage = new_store(folder, spec)
    # Empty documents all have one key, so that of the second is in the first's place.
    write_unit(storage, spec, records[:6], profile)
    write_unit(storage, spec, records[6:], profile)
    take_snapshot(storage)
    store = LogitStore.open(str(storage), expect=spec)
    by_key = {record.key: record for record in records}
    return store, [by_key[store.key(i)] for i in range(len(store))]


def test_records_come_back_as_they_went_in(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
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
    with pytest.raises(IndexError, match="example 7 of 7"):
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
    assert not verify(str(store.storage)).problems


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
    assert not verify(str(storage)).problems


def test_rows_shorter_than_k_and_of_the_whole_vocabulary_come_back(tmp_path: Path) -> None:
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


@pytest.fixture(scope="module")
def long_store(tmp_path_factory: pytest.TempPathFactory) -> LogitStore:
    """One example of 20,000 tokens between two short ones, in one part."""
    rng = np.random.default_rng(2)
    spec = store_spec(TARGETS["topk"])
    storage = new_store(tmp_path_factory.mktemp("long") / "store", spec)
    long = random_record(rng, "long", 0, 20_000, spec.targets)
    some = random_rows(rng, 500, spec.targets)
    long = replace(long, targets=concatenate([some] * 40))
    short = [random_record(rng, f"short {i}", 3, 40, spec.targets) for i in range(2)]
    write_unit(storage, spec, [short[0], long, short[1]])
    take_snapshot(storage)
    return LogitStore.open(str(storage))


def test_windows_of_a_long_example_are_slices_of_the_whole(long_store: LogitStore) -> None:
    whole = long_store[1].window
    assert len(whole) == 20_000
    rng = np.random.default_rng(3)
    edges = [0, 1, 255, 256, 511, 512, 513, 8191, 8192, 8193, 19_999, 20_000]
    pairs = [(a, b) for a in edges for b in edges if a <= b]
    pairs += [tuple(sorted(pair)) for pair in rng.integers(0, 20_001, (100, 2)).tolist()]
    for start, stop in pairs:
        assert_same_window(long_store.window(1, start, stop), whole.part(start, stop))
    assert_same_window(long_store.window(1, 19_990), whole.part(19_990, 20_000))
    for start, stop in ((-1, 5), (5, 4), (0, 20_001), (20_001, 20_001)):
        with pytest.raises(StoreError, match=r"of an example of 20000"):
            long_store.window(1, start, stop)


def test_a_window_reads_little_of_a_large_part(long_store: LogitStore) -> None:
    place = long_store.index.part_place(0)
    size = sum(place.sizes.values())
    storage = CountingStorage(str(long_store.storage))
    store = LogitStore(storage, long_store.spec, long_store.index, 1, frozenset())
    store.window(1, 0, 1)
    opened = storage.read_bytes
    assert opened < size / 5, "opening a part takes too much of it"
    for start in (1000, 9000, 19_900):
        before, requests = storage.read_bytes, storage.requests
        store.window(1, start, start + 64)
        assert storage.read_bytes - before < size / 15
        assert storage.requests == requests + 1, "a window should need one round of reading"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_batches_in_any_order_with_repeats_equal_single_reads(long_store: LogitStore, data: st.DataObject) -> None:
    def pick() -> tuple[int, int, int | None]:
        i = data.draw(st.integers(0, 2))
        length = int(long_store.tokens[i])
        start = data.draw(st.integers(0, length))
        return i, start, data.draw(st.one_of(st.none(), st.integers(start, min(length, start + 3000))))

    wanted = [pick() for _ in range(data.draw(st.integers(0, 6)))]
    wanted += [wanted[j] for j in data.draw(st.lists(st.integers(0, 5), max_size=3)) if j < len(wanted)]
    found = long_store.windows(wanted)
    assert len(found) == len(wanted)
    for window, (i, start, stop) in zip(found, wanted, strict=True):
        assert_same_window(window, long_store.window(i, start, stop))


@pytest.mark.parametrize("mode", MODES)
def test_batches_over_units_and_empty_documents_equal_single_reads(mode: TargetMode, tmp_path: Path) -> None:
    store, _ = open_mixed(tmp_path / "store", mode)
    singles = [record.window for record in store]
    rng = np.random.default_rng(4)
    for _ in range(20):
        chosen = rng.integers(0, len(store), rng.integers(0, 12)).tolist()
        for i, window in zip(chosen, store.read(chosen), strict=True):
            assert_same_window(window, singles[i])


def read_windows(store: LogitStore, wanted: list[tuple[int, int, int | None]]) -> list[Window]:
    return store.windows(wanted)


def test_a_pickled_store_reads_in_a_spawned_process(tmp_path: Path) -> None:
    store, _ = open_mixed(tmp_path / "store", "threshold")
    store.window(0)  # with a part and a codebook held
    copy = pickle.loads(pickle.dumps(store))
    assert copy.snapshot == 1 and repr(copy.info()) == repr(store.info())
    wanted = [(i, 0, None) for i in range(len(store))]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for found in (copy.windows(wanted), pool.apply(read_windows, (store, wanted))):
            for window, expected in zip(found, store.windows(wanted), strict=True):
                assert_same_window(window, expected)


def test_a_pickle_holds_no_decoded_parts(long_store: LogitStore) -> None:
    """Loaders send the store to every worker."""
    assert len(pickle.dumps(long_store)) < 10_000


def test_an_open_store_reads_on_after_a_fork(tmp_path: Path) -> None:
    store, _ = open_mixed(tmp_path / "store", "topk")
    wanted = [(i, 0, None) for i in range(len(store))]
    expected = store.windows(wanted)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.starmap(read_windows, [(store, wanted)] * 2):
            for window, other in zip(found, expected, strict=True):
                assert_same_window(window, other)


def test_threads_share_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With so little memory for opened parts that each thread closes those of the others."""
    monkeypatch.setattr(reader, "PART_BYTES", 1)
    spec = store_spec(TARGETS["threshold"])
    storage = new_store(tmp_path / "store", spec)
    rng = np.random.default_rng(5)
    for unit in range(6):
        write_unit(storage, spec, [random_record(rng, f"{unit} {i}", 2, 40, spec.targets) for i in range(3)])
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    expected = [LogitStore.open(str(storage)).window(i) for i in range(len(store))]
    batches = [rng.integers(0, len(store), 8).tolist() for _ in range(60)]
    with ThreadPoolExecutor(8) as pool:
        for batch, windows in zip(batches, pool.map(store.read, batches), strict=True):
            for i, window in zip(batch, windows, strict=True):
                assert_same_window(window, expected[i])
    # What a race counted twice would never be given back.
    assert [store._held_bytes] == [part.nbytes for part in store._parts.values()]


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
            with pytest.raises(StoreError, match="examples have a key that starts with"):
                store.find(key[: length - 1])
    for absent in ("", "xyz", keys[0] + "0", "0" * 32):
        with pytest.raises(StoreError, match="need one"):
            store.find(absent)


def test_an_unpinned_store_is_what_is_committed_now(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    assert len(LogitStore.open(str(storage), unpinned=True)) == 0
    write_unit(storage, spec, make_records(3))
    take_snapshot(storage)
    write_unit(storage, spec, make_records(2, seed=1))
    quarantine(storage, "0" * 32, "bad", "too long")
    now = LogitStore.open(str(storage), unpinned=True)
    assert len(now) == 5 and now.snapshot is None and now.info().quarantined == 1
    pinned = LogitStore.open(str(storage))
    assert len(pinned) == 3 and pinned.info().quarantined == 0
    for i in range(3):
        assert_same_record(pinned[i], now[now.find(pinned.key(i))])


def test_an_index_comes_back_from_its_bytes(tmp_path: Path) -> None:
    store, _ = open_mixed(tmp_path / "store", "sampled")
    empty = StoreIndex.from_commits([])
    for index in (store.index, empty):
        data = index.to_bytes()
        again = StoreIndex.from_bytes(data, "x")
        assert again.to_bytes() == data
        for name in StoreIndex.__slots__:
            found, expected = getattr(again, name), getattr(index, name)
            assert found.dtype == expected.dtype and np.array_equal(found, expected), name
    commits = [read_commit(store.storage, unit) for unit in committed_units(store.storage)]
    for order in (commits, commits[::-1]):
        assert StoreIndex.from_commits(order).to_bytes() == store.index.to_bytes()
    for number, (commit, sha256) in enumerate(commits):
        assert store.index.part_place(number) == commit.place
        assert store.index.commit_hashes()[commit.unit] == sha256


def test_info_counts_what_is_there(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    write_unit(storage, spec, make_records(3))
    write_unit(storage, spec, make_records(4, seed=1))
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    info = store.info()
    on_disk = sum(path.stat().st_size for path in (storage.root / "parts").rglob("*") if path.is_file())
    shards = sum(path.stat().st_size for path in (storage.root / "parts").rglob("c/*") if path.is_file())
    assert (info.units, info.examples, info.tokens, info.rows) == (2, 7, 70, 42)
    assert info.entries == 42 * 16 and info.origins == {"scored": 7}
    assert info.bytes == on_disk and info.bytes_per_token == on_disk / 42
    assert sum(store.bytes_by_array().values()) == shards
    assert 0 < info.kl < 1e-3 and 0 < info.max_abs_error < 0.2
    assert 0.5 < info.retained_mass < 1


def test_the_error_that_a_commit_states_is_the_true_one(
    storage: LocalStorage, spec: StoreSpec, make_records: Make
) -> None:
    records = make_records(5)
    commit, _ = write_unit(storage, spec, records)
    take_snapshot(storage)
    greatest = 0.0
    for stored, record in zip(LogitStore.open(str(storage)), records, strict=True):
        for row in range(len(record.targets)):
            a, b = stored.targets.rows(row, row + 1), record.targets.rows(row, row + 1)
            order_a, order_b = np.argsort(a.ids), np.argsort(b.ids)
            greatest = max(greatest, float(np.abs(a.logprobs[order_a] - b.logprobs[order_b]).max(initial=0.0)))
    assert commit.max_abs_error == pytest.approx(greatest, abs=1e-7)
    held = [1 - np.exp(r.targets.log_tail[r.targets.counts > 0].astype(float)) for r in records]
    assert commit.retained_mass == pytest.approx(np.concatenate(held).mean())


def test_an_example_captured_twice_is_read_once(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    records = make_records(5)
    write_unit(storage, spec, records[:3])
    write_unit(storage, spec, records[1:])
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    assert sorted(record.key for record in store) == sorted(record.key for record in records)


def test_a_unit_written_twice_counts_once(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    records = make_records(5)
    first, won = write_unit(storage, spec, records)
    second, won_again = write_unit(storage, spec, records)
    assert (won, won_again) == (True, False) and first.unit == second.unit
    report = verify(str(storage))
    assert not report.uncommitted and report.examples == 5


def test_a_snapshot_does_not_see_what_came_later(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    write_unit(storage, spec, make_records(3))
    assert take_snapshot(storage).number == 1
    assert take_snapshot(storage).number == 1
    write_unit(storage, spec, make_records(3, seed=1))
    assert take_snapshot(storage).number == 2
    quarantine(storage, "0" * 32, "bad", "too long")
    assert take_snapshot(storage).number == 3
    assert [len(LogitStore.open(str(storage), snapshot=n)) for n in (1, 2, 3)] == [3, 6, 6]
    for number in (0, 9):
        with pytest.raises(StoreError, match=f"no snapshot {number}"):
            LogitStore.open(str(storage), snapshot=number)


def test_another_spec_is_refused_field_by_field(storage: LocalStorage, spec: StoreSpec) -> None:
    other = replace(spec, targets=TargetSpec("topk", 8))
    with pytest.raises(SpecMismatchError, match=r"targets: stored .*k=16.*wanted .*k=8"):
        create_store(storage, other)
    with pytest.raises(SpecMismatchError, match=r"targets: stored .*k=16.*wanted .*k=8"):
        LogitStore.open(str(storage), expect=other)
    create_store(storage, replace(spec, teacher="the same weights at another path"))


def test_what_is_not_a_store_says_so(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StoreError, match="not a store"):
            LogitStore.open(str(folder))


def test_a_store_without_snapshot_says_so(storage: LocalStorage) -> None:
    with pytest.raises(StoreError, match="no snapshot yet"):
        LogitStore.open(str(storage))


def test_a_unit_without_records_is_refused(storage: LocalStorage, spec: StoreSpec) -> None:
    with pytest.raises(InputError, match="at least one record"):
        write_unit(storage, spec, [])


@pytest.mark.parametrize("systematic", [False, True])
def test_a_way_to_draw_is_part_of_the_content(spec: StoreSpec, systematic: bool) -> None:
    """Would catch stores of independent draws that are taken for systematic ones, or no longer for what they were."""
    drawn = replace(spec, targets=TargetSpec("sampled", draws=20, systematic=systematic))
    assert StoreSpec.from_document(drawn.to_document(), "spec.json") == drawn
    assert ("systematic" in drawn.to_document()["spec"]["targets"]) == systematic
    other = replace(drawn, targets=replace(drawn.targets, systematic=not systematic))
    with pytest.raises(SpecMismatchError, match="systematic=True"):
        drawn.require_same(other, "store")
