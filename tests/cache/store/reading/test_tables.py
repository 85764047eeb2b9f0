"""Arrow, pandas and torch get what single reads give, and too large requests are refused with both sizes."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cache.errors import InputError
from cache.examples.example import Segment
from cache.exchange.axolotl import export_axolotl
from cache.exchange.distillkit import export_distillkit
from cache.exchange.parquet import export_parquet
from cache.parts.part_reader import PartReader
from cache.store.logit_store import LogitStore
from tests.cache.rows.rows import TARGETS, random_rows
from tests.cache.store.reading.chat_stores import chat_records, chat_spec, chat_store, write_store


@pytest.fixture(scope="module", params=["topk", "threshold", "sampled", "texts"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogitStore]:
    with chat_store(tmp_path_factory.mktemp("tables") / "store", request.param) as opened:
        yield opened


def shuffled(store: LogitStore, count: int = 90) -> list[int]:
    return np.random.default_rng(2).permutation(len(store))[:count].tolist()


def test_a_table_has_what_records_have(store: LogitStore) -> None:
    order = shuffled(store)
    table = store.to_arrow(order)
    assert table.schema.names == list(store.columns())
    for row, record in zip(table.to_pylist(), store[order], strict=True):
        example, targets = record.tokenized.example, record.targets
        assert (row["key"], row["id"], row["origin"]) == (record.key, example.id, record.tokenized.origin)
        assert json.loads(row["metadata"]) == example.metadata and row["label"] == example.label
        assert row["tokens"] == record.tokenized.tokens.tolist()
        assert row["offsets"] == targets.offsets.tolist() and row["ids"] == targets.ids.tolist()
        assert np.array_equal(row["logprobs"], targets.logprobs)
        assert np.array_equal(row["token_logprobs"], record.token_logprobs, equal_nan=True)
        if targets.entropy is not None:
            assert np.array_equal(row["entropy"], targets.entropy, equal_nan=True)
        if targets.log_normalizers is not None:
            found = np.array(row["log_normalizers"]).reshape(targets.log_normalizers.shape)
            assert np.array_equal(found, targets.log_normalizers, equal_nan=True)
        if targets.exact is not None:
            assert row["exact"] == targets.exact.tolist()


def assert_same_table(found: Any, wanted: Any) -> None:
    assert found.schema.metadata == wanted.schema.metadata and found.schema.names == wanted.schema.names
    for name in wanted.schema.names:  # as text, because NaN is not equal to itself
        assert repr(found[name].to_pylist()) == repr(wanted[name].to_pylist()), name


def test_a_table_and_an_export_are_the_same(store: LogitStore, tmp_path: Path) -> None:
    order = shuffled(store)
    calls: list[tuple[int, int]] = []
    export_parquet(store, tmp_path / "some.parquet", order, lambda *call: calls.append(call))
    assert_same_table(pq.read_table(tmp_path / "some.parquet"), store.to_arrow(order))
    assert calls[-1] == (90, 90)
    export_parquet(store, tmp_path / "all.parquet")
    assert_same_table(pq.read_table(tmp_path / "all.parquet"), store.to_arrow())


def test_exports_of_other_forms_take_numbers_too(tmp_path: Path) -> None:
    store = chat_store(tmp_path / "store", "topk", count=60)
    order = shuffled(store, 20)
    export_axolotl(store, tmp_path / "some.jsonl", examples=order)
    lines = (tmp_path / "some.jsonl").read_text().splitlines()
    assert [json.loads(line)["input_ids"] for line in lines] == [w.tokens.tolist() for w in store.read(order)]
    limit = int(np.median(store.tokens[order]))
    short = [i for i in order if store.tokens[i] <= limit]
    assert export_distillkit(store, tmp_path / "some", sequence_length=limit, examples=order) == 20 - len(short)
    table = pq.read_table(tmp_path / "some" / "data_0.parquet")
    masks = [sum(mask) for mask in table["attention_mask"].to_pylist()]
    assert masks == store.tokens[short].tolist()
    with pytest.raises(InputError, match=r"no example to export$"):
        export_distillkit(store, tmp_path / "none", examples=[])


def test_columns_choose_what_is_read(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    table = store.to_arrow([3, 1], ["response", "tokens"])
    assert table.schema.names == ["response", "tokens"] and len(table) == 2
    with pytest.raises(InputError, match=r"columns = 'id': must be a list of names; give \['id'\]"):
        store.to_arrow(columns="id")
    with pytest.raises(InputError, match=r"column 'text': unknown; give some of key, id, .*, log_tail"):
        store.to_arrow(columns=["text"])
    monkeypatch.setattr(PartReader, "window", lambda *_: pytest.fail("rows were decoded"))
    frame = store.to_pandas(columns=["id", "metadata"])
    assert frame.shape == (len(store), 2)
    assert frame["id"][7] == store.texts([7])[0].id


def test_pandas_gets_the_same_table(store: LogitStore) -> None:
    frame = store.to_pandas(slice(0, 12))
    assert list(frame.columns) == list(store.columns())
    for i in range(12):
        assert np.array_equal(frame["tokens"][i], store[i].tokenized.tokens)
        assert frame["key"][i] == store.key(i)


def test_tensors_have_what_windows_have(store: LogitStore) -> None:
    order = shuffled(store)
    tensors = store.to_torch(order)
    windows = store.read(order)
    starts = tensors["starts"].tolist()
    assert tensors["tokens"].dtype == tensors["ids"].dtype == torch.int64
    row = 0
    for window, start, stop in zip(windows, starts, starts[1:], strict=False):
        assert tensors["tokens"][start:stop].tolist() == window.tokens.tolist()
        assert tensors["segments"][start:stop].tolist() == window.segments.tolist()
        assert np.array_equal(tensors["token_logprobs"][start:stop].numpy(), window.token_logprobs, equal_nan=True)
        for j in np.flatnonzero(window.targets.counts).tolist():
            own = window.targets.rows(j, j + 1)
            assert int(tensors["rows"][row]) == start + j
            assert int(tensors["labels"][row]) == (int(window.tokens[j + 1]) if j + 1 < len(window) else -1)
            kept = tensors["log_p"][row] > -torch.inf
            assert tensors["ids"][row][kept].tolist() == own.ids.tolist() and not tensors["ids"][row][~kept].any()
            assert np.array_equal(tensors["log_p"][row][kept].numpy(), own.logprobs)
            assert float(tensors["log_tail"][row]) == float(own.log_tail[0])
            for name in ("exact", "entropy", "log_normalizers"):
                values = getattr(own, name)
                assert (values is None) == (name not in tensors)
                if values is not None:
                    assert np.array_equal(tensors[name][row].numpy(), values[0])
            row += 1
    assert row == len(tensors["rows"]) == len(tensors["log_p"])
    assert (row == 0) == (store.spec.targets.max_entries == 0)
    spoken = tensors["segments"][tensors["rows"] + 1] != Segment.PROMPT
    assert bool(spoken.all())


def test_the_row_of_a_last_token_has_no_label(tmp_path: Path) -> None:
    """Would catch a label that is the first token of the next example."""
    rng, targets = np.random.default_rng(3), TARGETS["topk"]
    records = [
        replace(record, targets=random_rows(rng, len(record.window), targets)) for record in chat_records(targets, 3)
    ]
    store = write_store(tmp_path / "store", chat_spec(targets), records)
    tensors = store.to_torch()
    ends = np.cumsum(store.tokens) - 1
    assert tensors["rows"].tolist() == list(range(int(ends[-1]) + 1))
    assert np.flatnonzero(tensors["labels"] == -1).tolist() == ends.tolist()


def test_nothing_gives_empty_tables_and_tensors(store: LogitStore) -> None:
    assert len(store.to_arrow([])) == len(store.to_pandas([])) == 0
    tensors = store.to_torch([])
    assert tensors["starts"].tolist() == [0] and not len(tensors["tokens"]) and not len(tensors["rows"])


def test_what_does_not_fit_is_refused_with_both_sizes(store: LogitStore) -> None:
    size = store.to_arrow().nbytes
    assert len(store.to_arrow(max_bytes=2 * size)) == len(store)
    for convert in (store.to_arrow, store.to_pandas, store.to_torch):
        with pytest.raises(InputError, match=rf"{len(store)} examples need [\d,]+ bytes or more, and max_bytes allows"):
            convert(max_bytes=20_000)
    with pytest.raises(InputError, match="max_bytes allows 50 bytes"):
        store.to_arrow(columns=["metadata"], max_bytes=50)


def test_the_estimate_is_that_of_the_table(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an estimate that refuses what fits, and one that notices only after reading everything."""
    arrays = [name for name, kind in store.columns().items() if kind != "string"]
    size = store.to_arrow(columns=arrays).nbytes
    assert len(store.to_arrow(columns=arrays, max_bytes=size)) == len(store)
    monkeypatch.setattr(PartReader, "window", lambda *_: pytest.fail("read before it was refused"))
    with pytest.raises(InputError, match="max_bytes"):
        store.to_arrow(columns=arrays, max_bytes=int(size * 0.8))


@pytest.mark.parametrize(("name", "method"), [("pandas", "to_pandas"), ("torch", "to_torch"), ("pyarrow", "to_arrow")])
def test_an_absent_library_is_named(store: LogitStore, name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"{method} needs the package {name}, which is not installed; pip install"):
        getattr(store, method)([0])
