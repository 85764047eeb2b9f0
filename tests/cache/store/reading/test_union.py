"""A union of stores reads as one store of all their examples would."""

import multiprocessing
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

from cache.errors import ExampleIndexError, InputError, SpecMismatchError
from cache.exchange.parquet import export_parquet, import_parquet
from cache.rows.record import Record, Window
from cache.rows.spec import TargetSpec
from cache.store.logit_store import LogitStore
from cache.store.reading.union import StoreUnion
from student.data.torch_dataset import StoreDataset
from tests.cache.rows.rows import assert_same_record, assert_same_window
from tests.cache.store.reading.chat_stores import TARGETS_OF, chat_records, chat_spec, write_store
from tests.cache.store.sample_stores import by_level


@pytest.fixture(scope="module", params=["topk", "sampled", "texts"])
def union(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreUnion]:
    """Stores of 130, 130 and 60 examples; the second has 20 of the first, and the third 10 of each."""
    folder = tmp_path_factory.mktemp("union")
    targets = TARGETS_OF[request.param]
    records = chat_records(targets)
    parts = [records[:130], records[110:240], records[230:280] + records[:10]]
    for number, part in enumerate(parts):
        write_store(folder / str(number), chat_spec(targets), part)
    with LogitStore.union([folder / "0", str(folder / "1"), LogitStore.open(folder / "2")]) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(union: StoreUnion) -> list[Record]:
    """The records of the stores one after another, each key once."""
    by_key: dict[str, Record] = {}
    for store in union.stores:
        for record in store:
            by_key.setdefault(record.key, record)
    return list(by_key.values())


def test_a_union_has_every_example_once_in_order(union: StoreUnion, expected: list[Record]) -> None:
    assert len(union) == len(expected) == 280 and union.doubles == 40
    assert "280 examples, 40 doubles left out" in repr(union)
    for record, wanted in zip(union, expected, strict=True):
        assert_same_record(record, wanted)
    assert union.tokens.tolist() == [len(record.tokenized.tokens) for record in expected]
    assert union.rows.tolist() == [record.target_rows for record in expected]
    for i in (0, 129, 130, 279, -1):
        assert union.key(i) == expected[i].key == union.keys[i].tobytes().hex()
        assert union.find(expected[i].key) == union.find(expected[i].tokenized.example.id) == i % len(union)
        store, number = union.source(i)
        assert union.stores[store].key(number) == expected[i].key


def test_reads_in_any_order_equal_single_reads(union: StoreUnion, expected: list[Record]) -> None:
    order = np.random.default_rng(0).permutation(len(union))
    found = [record for batch in union.batches(order, 500) for record in batch]
    for record, window, example, i in zip(found, union.read(order), union.texts(order), order, strict=True):
        assert_same_record(record, expected[i])
        assert_same_window(window, expected[i].window)
        assert example == expected[i].tokenized.example
    i = int(np.argmax(union.tokens))
    n = int(union.tokens[i])
    assert_same_window(union.window(i - len(union), 3, -2), expected[i].window.part(3, n - 2))
    assert_same_record(union[5:9][-1], expected[8])
    with pytest.raises(ExampleIndexError, match="no example 280; it has 280"):
        union.windows([(280, 0, None)])


def test_selections_equal_filters(union: StoreUnion, expected: list[Record]) -> None:
    for conditions, holds in (
        ({"origins": "generated"}, lambda record: record.tokenized.origin != "scored"),
        ({"segments": "rationale", "max_tokens": 60}, lambda r: 1 in r.tokenized.segments and len(r.window) <= 60),
        ({"metadata": {"level": 1}}, lambda record: record.tokenized.example.metadata["level"] == 1),
        ({"where": lambda example: example.label == "7"}, lambda record: record.tokenized.example.label == "7"),
    ):
        selected = union.select(**conditions)  # type: ignore[arg-type]
        assert selected.tolist() == [i for i, record in enumerate(expected) if holds(record)]
    with pytest.raises(InputError, match="no example has the origin 'generated/7'"):
        union.select(origins="generated/7")


def test_tables_tensors_and_exports(union: StoreUnion, expected: list[Record], tmp_path: Path) -> None:
    assert union.to_arrow(columns=["key"])["key"].to_pylist() == [record.key for record in expected]
    tensors = union.to_torch(range(120, 140))
    assert tensors["tokens"].tolist() == [t for r in expected[120:140] for t in r.tokenized.tokens.tolist()]
    with pytest.raises(InputError, match="280 examples need"):
        union.to_arrow(max_bytes=9_000)
    export_parquet(union, tmp_path / "union.parquet")
    assert pq.read_metadata(tmp_path / "union.parquet").num_rows == 280
    import_parquet(tmp_path / "union.parquet", str(tmp_path / "copy"))
    with LogitStore.open(tmp_path / "copy", expect=union.spec) as copy:
        by_key = copy[np.argsort([copy.key(i) for i in range(280)])]
        for record, wanted in zip(by_key, sorted(expected, key=lambda each: each.key), strict=True):
            assert record.tokenized.example == wanted.tokenized.example
            assert np.array_equal(record.tokenized.tokens, wanted.tokenized.tokens)
            assert [entry[:2] + entry[3:] for entry in by_level(record)] == [e[:2] + e[3:] for e in by_level(wanted)]


def read(union: StoreUnion, examples: list[int]) -> list[Window]:
    return union.read(examples)


def test_a_union_is_shared_by_threads_and_processes(union: StoreUnion, expected: list[Record]) -> None:
    batches = [np.random.default_rng(i).integers(0, len(union), 8).tolist() for i in range(12)]
    copy = pickle.loads(pickle.dumps(union))
    with ThreadPoolExecutor(4) as pool, multiprocessing.get_context("fork").Pool(2) as processes:
        requests: list[Any] = [(each, batch) for batch in batches for each in (union, copy)]
        found = [*processes.starmap(read, requests), *pool.map(read, *zip(*requests, strict=True))]
    for windows, (_, batch) in zip(found, requests * 2, strict=True):
        for window, i in zip(windows, batch, strict=True):
            assert_same_window(window, expected[i].window)


def test_a_loader_reads_a_union(union: StoreUnion, expected: list[Record]) -> None:
    dataset = StoreDataset(union)
    loader = DataLoader(dataset, batch_size=64, num_workers=1, multiprocessing_context="fork")
    windows = [window for batch in loader for window in batch]
    for window, record in zip(windows, expected, strict=True):
        assert_same_window(window, record.window)
    with pytest.raises(InputError, match="snapshot 2: the store is open; leave it out"):
        StoreDataset(union, snapshot=2)


def test_stores_of_another_form_are_refused_by_name_and_field(tmp_path: Path) -> None:
    targets = TargetSpec("topk", 20)
    first = write_store(tmp_path / "first", chat_spec(targets), chat_records(targets, 20))
    others = {
        "targets.k: 20 and 30": chat_spec(TargetSpec("topk", 30)),
        "targets.mode: topk and nucleus": chat_spec(TargetSpec("nucleus", 20, mass=0.9)),
        "targets.entropy: False and True": chat_spec(replace(targets, entropy=True)),
        "tokenizer: tokenizer and another": chat_spec(targets, tokenizer="another"),
        "vocab_size: 500 and 600": replace(chat_spec(targets), vocab_size=600),
    }
    for number, (fields, spec) in enumerate(others.items()):
        name = tmp_path / f"other {number}"
        write_store(name, spec, chat_records(spec.targets, 20))
        with pytest.raises(SpecMismatchError, match=re.escape(fields)) as error:
            LogitStore.union([first, name])
        assert str(tmp_path / "first") in str(error.value) and str(name) in str(error.value)
    with pytest.raises(InputError, match="a union of no stores; give at least one"):
        LogitStore.union([])
    with pytest.raises(InputError, match="a union needs a list of stores"):
        LogitStore.union(str(tmp_path / "first"))


def test_other_fields_are_those_of_all_stores(tmp_path: Path) -> None:
    targets = TargetSpec("topk", 20)
    specs = [chat_spec(targets, teacher="a"), replace(chat_spec(targets, teacher="b", weights="c"), asked="all")]
    records = chat_records(targets, 40)
    stores = [
        write_store(tmp_path / str(i), spec, part)
        for i, (spec, part) in enumerate(zip(specs, (records[:20], records[20:]), strict=True))
    ]
    union = LogitStore.union(stores)
    assert (union.spec.teacher, union.spec.weights, union.spec.asked) == ("a + b", "weights + c", "assistant")
    assert LogitStore.union(stores[:1]).spec == stores[0].spec
    assert len(LogitStore.union([stores[0], stores[0]])) == 20
