"""Two stores of hundreds of chats: which examples are compared, what is found, and what is refused."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.comparison.row_differences import row_differences
from cache.comparison.store_comparison import compare_stores
from cache.errors import InputError, SpecMismatchError
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets
from cache.store.logit_store import LogitStore
from tests.cache.rows.rows import TARGETS
from tests.cache.store.reading.chat_stores import chat_records, chat_spec, write_store

TOPK = TARGETS["topk"]
Make = Callable[..., LogitStore]


@pytest.fixture
def store(tmp_path: Path) -> Make:
    count = iter(range(9))

    def make(records: list[Record], **fields: str) -> LogitStore:
        return write_store(tmp_path / str(next(count)), chat_spec(TOPK, **fields), records)

    return make


def changed(record: Record, row: int) -> Record:
    """The same record with the first two ids of a row exchanged."""
    start = int(record.targets.offsets[row])
    ids = record.targets.ids.copy()
    ids[[start, start + 1]] = ids[[start + 1, start]]
    return replace(record, targets=replace(record.targets, ids=ids))


def test_a_store_is_like_itself(store: Make) -> None:
    opened = store(chat_records(TOPK))
    found = compare_stores(opened, opened)
    assert (found.examples, found.only_reference, found.only_other, found.other_tokens) == (300, 0, 0, 0)
    assert found.rows == int(opened.rows.sum()) and found.kl.max < 1e-6
    assert found.same_first == found.shared == 1 and found.label == 0
    assert json.loads(json.dumps(found.to_document()))["examples"] == 300


def test_differences_are_those_of_the_rows_in_any_order(store: Make) -> None:
    """The other store has its examples in another order. Would catch rows of the wrong example."""
    records = chat_records(TOPK)
    others = chat_records(TOPK, seed=2)
    reference, other = store(records), store(others[::-1])
    found = compare_stores(reference, other)
    by_key = {record.key: record for record in other}
    kl = np.concatenate([row_differences(each.targets, by_key[each.key].targets).kl for each in reference])
    assert found.rows == len(kl) and found.kl.mean == pytest.approx(kl.mean())
    assert (found.kl.median, found.kl.max) == pytest.approx((np.median(kl), kl.max()))
    assert found.kl.mean > 1 and found.same_first < 0.1


def test_the_worst_rows_are_named(store: Make) -> None:
    records = chat_records(TOPK)
    place = next(i for i, record in enumerate(records) if len(record.tokenized.tokens) > 150 and record.target_rows)
    row = int(np.flatnonzero(records[place].targets.counts)[7])
    others = [*records[:place], changed(records[place], row), *records[place + 1 :]]
    found = compare_stores(store(records), store(others))
    assert (found.worst[0].key, found.worst[0].position) == (records[place].key, row + 1)
    assert found.worst[0].token == int(records[place].tokenized.tokens[row + 1])
    assert found.worst[0].kl > 1e-4 and len(found.worst) == 1, "rounding is no difference"
    assert found.worst[0].example == records[place].tokenized.example.id
    assert found.same_first == pytest.approx(1 - 1 / found.rows)


def test_what_only_one_store_has_is_counted(store: Make) -> None:
    records = chat_records(TOPK)
    tokens = records[50].tokenized.tokens.copy()
    tokens[-1] += 1
    other_tokens = replace(records[50], tokenized=replace(records[50].tokenized, tokens=tokens))
    found = compare_stores(store(records[:100]), store([*records[40:50], other_tokens, *records[51:]]))
    assert (found.examples, found.other_tokens, found.only_reference, found.only_other) == (60, 1, 40, 200)
    rows = sum(record.target_rows for record in records[40:100])
    assert found.rows == rows and found.kl.max < 1e-6, "the row before the other token is about the same ones"
    assert compare_stores(store(records[:100]), store(records[40:]), limit=7).examples == 7


def test_stores_without_a_common_key_are_matched_by_tokens(store: Make) -> None:
    """What a teacher wrote, and another one scored, has another key."""
    records = chat_records(TOPK)
    renamed = [replace(each, key=f"{i:032x}") for i, each in enumerate(records)]
    texts = {each.tokenized.tokens.tobytes() for each in records}
    found = compare_stores(store(records), store(renamed[::-1]))
    assert found.examples == len(texts) > 250 and found.kl.mean < 1e-6


def test_examples_are_compared_up_to_the_first_other_token(store: Make) -> None:
    """Would catch rows that are compared though they follow other tokens."""
    records = chat_records(TOPK)
    place = next(i for i, record in enumerate(records) if record.target_rows > 100)
    record = records[place]
    first = int(np.flatnonzero(record.targets.counts)[40])
    tokens = record.tokenized.tokens.copy()
    tokens[first] += 1
    moved = replace(changed(record, first + 5), tokenized=replace(record.tokenized, tokens=tokens))
    found = compare_stores(store([record]), store([moved]))
    assert (found.examples, found.other_tokens, found.rows) == (1, 1, 40) and found.kl.max < 1e-6


def test_other_tokenizers_and_draws_are_refused(store: Make, tmp_path: Path) -> None:
    records = chat_records(TOPK, 80)
    opened = store(records)
    with pytest.raises(SpecMismatchError, match=r"another tokenizer .* compare stores of teachers with the same"):
        compare_stores(opened, store(records, tokenizer="another"))
    sampled = write_store(tmp_path / "s", chat_spec(TARGETS["sampled"]), chat_records(TARGETS["sampled"], 80))
    with pytest.raises(InputError, match=r'has draws, which cannot be compared; capture with targets.mode = "topk"'):
        compare_stores(opened, sampled)
    with pytest.raises(InputError, match=r"no example .* nothing to compare"):
        compare_stores(store(records[:20]), store(records[20:40]))


def test_means_without_a_value_are_none_in_json(store: Make) -> None:
    """No row has the first id of the other, so there is no error of it."""
    records = [each for each in chat_records(TOPK, 80) if each.target_rows]

    def moved(targets: SparseTargets) -> SparseTargets:
        return replace(targets, ids=((targets.ids + 250) % 500).astype(np.uint32))

    narrow = [replace(each, targets=moved(each.targets)) for each in records]
    found = compare_stores(store(records), store(narrow))
    assert not math.isnan(found.kl.mean) and found.same_first < 0.05
