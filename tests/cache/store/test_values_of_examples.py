"""Texts and values of an example come back equal, or are refused before anything is written, with example and key."""

import datetime
import enum
import json
import math
from collections import OrderedDict
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import InputError
from cache.rows.record import Record
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.fill import fill_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, store_spec
from tests.cache.store.damage import all_files, units_of

SPEC = store_spec(TARGETS["topk"])


class Colour(enum.IntEnum):
    RED = 1


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for level in range(depth):
        value = [value] if level % 2 else {"deeper": value}
    return value


circular: list[Any] = []
circular.append(circular)

REFUSED: dict[str, tuple[Any, str]] = {
    "nan": ({"a": {"b": math.nan}}, r"metadata\['a'\]\['b'\] is nan, which JSON does not have"),
    "infinity": ({"a": [0, -math.inf]}, r"metadata\['a'\]\[1\] is -inf"),
    "numpy nan": ({"a": np.float64("nan")}, r"metadata\['a'\] is nan"),
    "surrogate": ({"a": "x\ud800"}, r"metadata\['a'\] has half of a surrogate pair"),
    "surrogate in a key": ({"a": {"\udfff": 1}}, r"a key of metadata\['a'\] has half of a surrogate pair"),
    "number as key": ({3: "x"}, r"metadata has the key 3 of type int; keys must be text"),
    "mixed keys": ({"a": {3: "x", "b": 1}}, r"metadata\['a'\] has the key 3"),
    "none as key": ({"a": {None: 1}}, r"metadata\['a'\] has the key None"),
    "huge integer": ({"a": 10**700}, r"metadata\['a'\] is an integer of 2326 bits"),
    "deep": ({"a": nested(150)}, r"metadata\['a'\].* is nested deeper than 100 levels"),
    "very deep": ({"a": nested(100_000)}, r"metadata\['a'\].* is nested deeper than 100 levels"),
    "circular": ({"a": circular}, r"metadata\['a'\].* is nested deeper than 100 levels"),
    "bytes": ({"a": b"x"}, r"metadata\['a'\] is of the type bytes"),
    "date and time": ({"a": datetime.datetime(2026, 1, 1)}, r"metadata\['a'\] is of the type datetime"),
    "tuple": ({"a": (1, 2)}, r"metadata\['a'\] is of the type tuple"),
    "set": ({"a": {1}}, r"metadata\['a'\] is of the type set"),
    "decimal": ({"a": Decimal("0.1")}, r"metadata\['a'\] is of the type Decimal"),
    "numpy integer": ({"a": np.int64(3)}, r"metadata\['a'\] is of the type int64"),
    "numpy float32": ({"a": np.float32(0.5)}, r"metadata\['a'\] is of the type float32"),
    "numpy bool": ({"a": np.bool_(True)}, r"metadata\['a'\] is of the type bool"),
    "numpy array": ({"a": np.zeros(2)}, r"metadata\['a'\] is of the type ndarray"),
    "no dict": ([1], "metadata must be a dict, not list"),
}

KEPT: dict[str, Any] = {
    "minus zero": {"a": -0.0},
    "extremes": {"a": [5e-324, 1.7976931348623157e308, 0.1 + 0.2, 1e16, 2**53 + 1, 2**64, -(10**600)]},
    "unicode": {"ключ": "значение \U0001f600 \u2028 \x00 \x7f \ufffe", "": ""},
    "nested": {"a": nested(90)},
    "empties": {"a": None, "b": [], "c": {}, "d": True, "e": False},
    "subclasses": {"a": np.float64(0.1), "b": Colour.RED, "c": OrderedDict(x=1), "d": np.str_("text")},
    "names of ours": {"key": 1, "origin": 2, "example": 3, "sha256": 4},
}


def with_example(record: Record, **changes: Any) -> Record:
    return replace(record, tokenized=replace(record.tokenized, example=replace(record.tokenized.example, **changes)))


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, SPEC)
    return storage


def assert_refused(storage: LocalStorage, bad: Record, message: str) -> None:
    """By a unit and by an import, before anything is written."""
    good = units_of("topk", 1)[0][0]
    before = all_files(storage)
    with pytest.raises(InputError, match=f"^example .*: {message}") as refusal:
        write_unit(storage, SPEC, [good, bad])
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400
    str(refusal.value).encode()
    with pytest.raises(InputError, match=message):
        fill_store(str(storage), SPEC, [good, bad], 2)
    assert all_files(storage) == before


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_would_not_come_back_is_refused(name: str, storage: LocalStorage) -> None:
    metadata, message = REFUSED[name]
    bad = with_example(units_of("topk", 1)[0][1], metadata=metadata)
    assert_refused(storage, bad, message)
    turn = {"role": "user", "content": [{"type": "text", "value": metadata}]}
    if isinstance(metadata, dict):
        inside = message.replace("metadata", r"messages\[0\]\['content'\]\[0\]\['value'\]")
        assert_refused(storage, with_example(units_of("topk", 1)[0][1], messages=(turn,)), inside)


@pytest.mark.parametrize("name", REFUSED)
def test_the_key_of_such_an_example_is_refused_too(name: str) -> None:
    """A plan needs it, long before anything is written."""
    metadata, message = REFUSED[name]
    record = with_example(units_of("topk", 1)[0][1], metadata=metadata)
    with pytest.raises(InputError, match=f"^example 0 1: {message}"):
        _ = record.tokenized.key


@pytest.mark.parametrize("field", ["id", "rationale", "response", "label"])
def test_half_a_surrogate_pair_is_refused_in_any_text(field: str, storage: LocalStorage) -> None:
    record = units_of("topk", 1)[0][1]
    assert_refused(storage, with_example(record, **{field: "\udc80 ü"}), f"{field} has half of a surrogate pair")
    assert_refused(storage, with_example(record, **{field: 3}), f"{field} must be text, not int")


@pytest.mark.parametrize("origin", ["two\nlines", "", "\ud800"])
def test_an_origin_is_one_line(origin: str, storage: LocalStorage) -> None:
    """The index lists origins by line: others would shift."""
    record = units_of("topk", 1)[0][1]
    assert_refused(storage, replace(record, tokenized=replace(record.tokenized, origin=origin)), "origin ")


@pytest.mark.parametrize("name", KEPT)
def test_a_value_comes_back_equal(name: str, storage: LocalStorage) -> None:
    record = with_example(
        units_of("topk", 1)[0][1],
        metadata=KEPT[name],
        messages=({"role": "user", "content": "x", "extra": KEPT[name]},),
    )
    write_unit(storage, SPEC, [record])
    take_snapshot(storage)
    (found,) = LogitStore.open(storage.root)
    assert found.tokenized.example == record.tokenized.example
    stored, given = (json.dumps(each, sort_keys=True) for each in (found.tokenized.example.metadata, KEPT[name]))
    assert stored == given, "the sign of zero too"
    assert not verify_store(str(storage)).problems


def test_negative_tokens_are_refused(storage: LocalStorage) -> None:
    record = units_of("topk", 1)[0][1]
    tokens = record.tokenized.tokens.astype(np.int64)
    tokens[0] = -1
    assert_refused(
        storage, replace(record, tokenized=replace(record.tokenized, tokens=tokens)), "a token id is negative"
    )
