"""`select` gives what a filter over all records gives, and reads no more than it needs."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import InputError
from cache.examples.example import Segment
from cache.parts.part_reader import PartReader
from cache.rows.record import Record
from cache.rows.spec import TargetMode
from cache.storage.base import Range
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from cache.store.reading.selection import same_value
from tests.cache.rows.rows import MODES
from tests.cache.store.mixed_stores import open_mixed
from tests.cache.store.reading.chat_stores import chat_store

Condition = Callable[[Record], bool]


@pytest.fixture(scope="module", params=["topk", "threshold", "texts"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogitStore]:
    with chat_store(tmp_path_factory.mktemp("selection") / "store", request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def records(store: LogitStore) -> list[Record]:
    return list(store)


CONDITIONS: list[tuple[dict[str, Any], Condition]] = [
    ({}, lambda record: True),
    ({"origins": "generated"}, lambda record: record.tokenized.origin != "scored"),
    ({"origins": ["generated/1", "scored"]}, lambda record: record.tokenized.origin in ("scored", "generated/1")),
    ({"segments": "rationale"}, lambda record: Segment.RATIONALE in record.tokenized.segments),
    ({"segments": ["response", Segment.RATIONALE]}, lambda record: {1, 3} <= {*record.tokenized.segments.tolist()}),
    ({"segments": "label"}, lambda record: False),
    ({"min_tokens": 40}, lambda record: len(record.tokenized.tokens) >= 40),
    ({"min_tokens": 20, "max_tokens": 40}, lambda record: 20 <= len(record.tokenized.tokens) <= 40),
    ({"min_rows": 1, "max_rows": 30}, lambda record: 1 <= record.target_rows <= 30),
    ({"max_rows": 0}, lambda record: record.target_rows == 0),
    ({"metadata": {"topic": "数"}}, lambda record: record.tokenized.example.metadata["topic"] == "数"),
    ({"metadata": {"topic": ""}}, lambda record: record.tokenized.example.metadata["topic"] == ""),
    ({"metadata": {"level": 1.0}}, lambda record: record.tokenized.example.metadata["level"] == 1),
    ({"metadata": {"hard": True}}, lambda record: record.tokenized.example.metadata["hard"] is True),
    ({"metadata": {"hard": 1}}, lambda record: False),
    ({"metadata": {"nested": {"a": [1]}}}, lambda record: record.tokenized.example.metadata["nested"]["a"] == [1]),
    ({"metadata": {"nested": {"a": [True]}}}, lambda record: False),
    ({"metadata": {"source": "web", "level": 0}}, lambda r: int(r.tokenized.example.id[5:]) % 15 == 0),
    ({"where": lambda example: example.label}, lambda record: record.tokenized.example.label != ""),
    (
        {"where": lambda example: "is" in example.response, "metadata": {"level": 2}, "origins": ["scored"]},
        lambda r: (
            "is" in r.tokenized.example.response
            and int(r.tokenized.example.id[5:]) % 3 == 2
            and r.tokenized.origin == "scored"
        ),
    ),
]


@pytest.mark.parametrize(("conditions", "holds"), CONDITIONS, ids=range(len(CONDITIONS)))
def test_a_selection_is_a_filter(
    store: LogitStore, records: list[Record], conditions: dict[str, Any], holds: Condition
) -> None:
    selected = store.select(**conditions)
    assert selected.dtype == np.int64
    assert selected.tolist() == [i for i, record in enumerate(records) if holds(record)]
    assert [record.key for record in store[selected[:5]]] == [store.key(int(i)) for i in selected[:5]]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            {"metadata": {"topik": 1}},
            "no example has the metadata 'topik'; there are 'hard', 'level', 'nested', 'source'",
        ),
        ({"metadata": [("topic", "sums")]}, "metadata = [('topic', 'sums')]: must be a dict"),
        ({"segments": "answer"}, "segments = 'answer': unknown; give some of prompt, rationale, label, response"),
        ({"segments": [7]}, "segments = 7: unknown"),
        ({"origins": ["score"]}, "no example has the origin 'score'; there are "),
        ({"origins": "generated/9"}, "no example has the origin 'generated/9'"),
    ],
)
def test_a_misspelt_condition_is_refused_by_name(store: LogitStore, conditions: dict[str, Any], message: str) -> None:
    """Would catch a misspelt key that selects nothing without a word."""
    with pytest.raises(InputError, match=re.escape(message)):
        store.select(**conditions)


def test_rows_are_never_read(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a selection that decodes rows, or reads their bytes, to look at texts."""
    sizes = store.bytes_by_array()  # opens every part
    read: list[int] = []
    original = LocalStorage.read_ranges

    def read_ranges(self: LocalStorage, ranges: Sequence[Range]) -> list[bytes]:
        read.extend(length for _, _, length in ranges)
        return original(self, ranges)

    monkeypatch.setattr(LocalStorage, "read_ranges", read_ranges)
    monkeypatch.setattr(PartReader, "window", lambda *_: pytest.fail("rows were decoded"))
    for conditions, array in (
        ({"max_tokens": 30, "origins": "scored"}, None),
        ({"segments": "rationale"}, "tokens/segment"),
        ({"metadata": {"level": 1}}, "examples/description"),
        ({"where": lambda example: example.label}, "examples/description"),
    ):
        read.clear()
        store.select(**conditions)  # type: ignore[arg-type]
        assert not read if array is None else 0 < sum(read) <= sizes[array]


def test_other_conditions_spare_the_reading_of_texts(store: LogitStore) -> None:
    seen: list[str] = []
    store.select(metadata={"level": 1}, where=lambda example: seen.append(example.id), max_tokens=30)
    assert 0 < len(seen) < len(store) / 2


@pytest.mark.parametrize("mode", MODES)
def test_empty_documents_are_examples_too(mode: TargetMode, tmp_path: Path) -> None:
    """Would catch segments of a document of no tokens that are those of the next one."""
    store, records = open_mixed(tmp_path / "store", mode)
    lengths = [len(record.tokenized.tokens) for record in records]
    assert 0 in lengths
    assert store.select(max_tokens=0).tolist() == [i for i, length in enumerate(lengths) if not length]
    for segment in ("prompt", "response"):
        wanted = [i for i, r in enumerate(records) if Segment[segment.upper()] in r.tokenized.segments]
        assert store.select(segments=segment).tolist() == wanted
    assert [record.key for record in store] == [record.key for record in records]
    assert store.to_arrow()["tokens"].to_pylist() == [record.tokenized.tokens.tolist() for record in records]
    tensors = store.to_torch()
    assert np.diff(tensors["starts"]).tolist() == lengths
    assert len(tensors["rows"]) == sum(record.target_rows for record in records)


def test_values_are_compared_as_json() -> None:
    same = [(1, 1.0), ("a", "a"), (None, None), ([1, (2,)], (1.0, [2])), ({"a": 1}, {"a": 1.0}), (True, True)]
    other = [(1, True), (0, False), ("1", 1), (None, 0), (None, ""), ([True], [1]), ({"a": 1}, {"b": 1}), ([1], [1, 2])]
    assert all(same_value(a, b) and same_value(b, a) for a, b in same)
    assert not any(same_value(a, b) or same_value(b, a) for a, b in other)
