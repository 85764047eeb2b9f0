"""Stored examples as Arrow tables: the one schema of `to_arrow`, `to_pandas` and of files of Parquet.

Columns: key, id, origin, messages (JSON), rationale, response, metadata (JSON), label, tools (JSON); tokens
list<uint32> [n], segments list<uint8> [n], token_logprobs list<float> [n], in nats, NaN if not requested; offsets
list<int64> [n + 1], ids list<uint32> [entries], logprobs list<float> [entries], log_tail list<float> [n], as
cache/rows/sparse_targets.py defines them; and if the spec has them exact list<uint32> [n], entropy list<float> [n],
log_normalizers list<list<float>> [n][temperatures]. The metadata of the schema contain the store's spec as "logitbank".
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cache.errors import InputError
from cache.examples.example import Example
from cache.json_documents import canonical_json
from cache.rows.record import Window
from cache.rows.spec import StoreSpec

METADATA = b"logitbank"
# Key, origin and texts of an example.
Described = tuple[str, str, Example]

_TEXTS: dict[str, Callable[[Described], str]] = {
    "key": lambda each: each[0],
    "id": lambda each: each[2].id,
    "origin": lambda each: each[1],
    "messages": lambda each: json.dumps(list(each[2].messages), ensure_ascii=False),
    "rationale": lambda each: each[2].rationale,
    "response": lambda each: each[2].response,
    "metadata": lambda each: json.dumps(each[2].metadata, ensure_ascii=False),
    "label": lambda each: each[2].label,
    "tools": lambda each: json.dumps(list(each[2].tools), ensure_ascii=False),
}
_ARRAYS: dict[str, Callable[[Window], npt.NDArray[Any]]] = {
    "tokens": lambda window: window.tokens,
    "segments": lambda window: window.segments,
    "token_logprobs": lambda window: window.token_logprobs,
    "offsets": lambda window: window.targets.offsets,
    "ids": lambda window: window.targets.ids,
    "logprobs": lambda window: window.targets.logprobs,
    "log_tail": lambda window: window.targets.log_tail,
    "exact": lambda window: window.targets.exact_counts.astype(np.uint32),
    "entropy": lambda window: np.asarray(window.targets.entropy),
    "log_normalizers": lambda window: np.asarray(window.targets.log_normalizers),
}
TEXT_COLUMNS = tuple(_TEXTS)
# Columns with a value an entry; the other arrays have one a token.
ENTRY_COLUMNS = ("ids", "logprobs")


def table_schema(spec: StoreSpec, columns: Sequence[str] | None = None) -> Any:
    """The pyarrow.Schema of a store's table, with the spec in its metadata. columns: some of them, in this order.

    Raises InputError for a column that there is not.
    """
    types = {name: pa.string() for name in TEXT_COLUMNS}
    types |= {"tokens": pa.list_(pa.uint32()), "segments": pa.list_(pa.uint8())}
    types |= {"token_logprobs": pa.list_(pa.float32()), "offsets": pa.list_(pa.int64())}
    types |= {"ids": pa.list_(pa.uint32()), "logprobs": pa.list_(pa.float32()), "log_tail": pa.list_(pa.float32())}
    if spec.targets.has_sampled:
        types["exact"] = pa.list_(pa.uint32())
    if spec.targets.entropy:
        types["entropy"] = pa.list_(pa.float32())
    if spec.targets.temperatures:
        types["log_normalizers"] = pa.list_(pa.list_(pa.float32()))
    if isinstance(columns, str):
        raise InputError(f"columns = {columns!r}: must be a list of names; give [{columns!r}]")
    for name in columns or ():
        if name not in types:
            raise InputError(f"column {name!r}: unknown; give some of {', '.join(types)}")
    chosen = types if columns is None else {name: types[name] for name in columns}
    return pa.schema(chosen, metadata={METADATA: canonical_json(spec.to_document())})


def needs_texts(schema: Any) -> bool:
    """Whether a table of this schema needs the texts of its examples."""
    return any(name in _TEXTS for name in schema.names)


def needs_rows(schema: Any) -> bool:
    """Whether a table of this schema needs the tokens and rows of its examples."""
    return any(name in _ARRAYS for name in schema.names)


def make_table(schema: Any, described: Sequence[Described], windows: Sequence[Window]) -> Any:
    """The pyarrow.Table of some examples. What the schema does not need may be empty."""
    columns = [
        pa.array(map(_TEXTS[field.name], described), type=field.type)
        if field.name in _TEXTS
        else list_column([_ARRAYS[field.name](window) for window in windows]).cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def list_column(arrays: Sequence[npt.NDArray[Any]]) -> Any:
    """A column of lists, or of lists of lists if the arrays have two axes."""
    values = np.concatenate(arrays)
    inner = pa.array(values.ravel())
    if values.ndim == 2:
        inner = pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1) * values.shape[1], pa.int32()), inner)
    ends = np.cumsum([0] + [len(array) for array in arrays])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), inner)


def array_bytes(schema: Any, tokens: int, entries: int) -> int:
    """Bytes of the arrays of a table of so many tokens and entries. Texts are not counted."""
    return sum(_width(field.type) * (entries if field.name in ENTRY_COLUMNS else tokens) for field in schema)


def _width(kind: Any) -> int:
    """Bytes of an element of a list."""
    return _width(kind.value_type) if pa.types.is_list(kind) else 0 if pa.types.is_string(kind) else kind.bit_width // 8
