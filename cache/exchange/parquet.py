"""A store as one Parquet file with one row per example, and back. Any reader of Parquet can read it.

Columns: key, id, origin, messages (JSON), rationale, response, metadata (JSON), label, tools (JSON); tokens
list<uint32> [n], segments list<uint8> [n], token_logprobs list<float> [n], in nats, NaN if not requested; offsets
list<int64> [n + 1], ids list<uint32> [entries], logprobs list<float> [entries], log_tail list<float> [n], as
cache/rows/sparse_targets.py defines them; and if the spec has them exact list<uint32> [n], entropy list<float> [n],
log_normalizers list<list<float>> [n][temperatures]. The file's metadata contains the store's spec as "logitbank".
Older files have no label and tools; both are then empty.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import InputError, IntegrityError, LogitbankError
from cache.examples.example import Example, TokenizedExample
from cache.exchange.conversion import new_output
from cache.json_documents import canonical_json
from cache.parts.layout import Profile
from cache.progress import Progress, no_progress
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec
from cache.store.fill import UNIT_EXAMPLES, fill_store
from cache.store.logit_store import LogitStore
from cache.store.reading.blocks import token_blocks
from cache.store.transcode import on_grid

METADATA = b"logitbank"
LATER_TEXTS = {"label": "", "tools": "[]"}
TEXTS = ("key", "id", "origin", "messages", "rationale", "response", "metadata", *LATER_TEXTS)
# Examples that are decoded together, at most.
BATCH_EXAMPLES = 16


def parquet_schema(spec: StoreSpec) -> Any:
    """The pyarrow.Schema of the store's file, with the spec in its metadata."""
    columns = {name: pa.string() for name in TEXTS}
    columns |= {"tokens": pa.list_(pa.uint32()), "segments": pa.list_(pa.uint8())}
    columns |= {"token_logprobs": pa.list_(pa.float32()), "offsets": pa.list_(pa.int64())}
    columns |= {"ids": pa.list_(pa.uint32()), "logprobs": pa.list_(pa.float32()), "log_tail": pa.list_(pa.float32())}
    if spec.targets.has_sampled:
        columns["exact"] = pa.list_(pa.uint32())
    if spec.targets.entropy:
        columns["entropy"] = pa.list_(pa.float32())
    if spec.targets.temperatures:
        columns["log_normalizers"] = pa.list_(pa.list_(pa.float32()))
    return pa.schema(columns, metadata={METADATA: canonical_json(spec.to_document())})


def export_parquet(store: LogitStore, path: str | Path, progress: Progress = no_progress) -> None:
    """Write all examples of a store to one zstd-compressed file, in row groups of at most BLOCK_TOKENS tokens (or one
    example). Quarantine is left out. progress: called with (examples done, examples).

    Raises InputError if `path` exists and is not empty. The file is created atomically.
    """
    schema = parquet_schema(store.spec)
    with (
        new_output(Path(path)) as draft,
        pq.ParquetWriter(draft, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for block in token_blocks(store.tokens):
            writer.write_table(_table([store[i] for i in block], schema), row_group_size=len(block))
            progress(block.stop, len(store))


def import_parquet(
    path: str | Path,
    target_uri: str,
    unit_examples: int = UNIT_EXAMPLES,
    profile: Profile = "compact",
    progress: Progress = no_progress,
) -> int:
    """Write the examples of an exported file to the store at `target_uri`, and take a snapshot.

    Values that were read from a store get the same levels again; other values are rounded. A rerun continues.
    progress: called with (examples done, examples).
    Returns the number of records that were left out, because they are the same as an earlier one in all that is stored.
    Raises InputError for a file of another form, IntegrityError for a truncated or altered file, StoreError if the
    target has another spec.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a file that 'export_parquet' wrote")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            spec = _spec(file, path)
            total = file.metadata.num_rows
            return fill_store(target_uri, spec, _records(file, spec, path), total, profile, unit_examples, progress)
    except LogitbankError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"{path}: truncated or altered, or not a Parquet file: {error}") from error


def list_column(arrays: Sequence[npt.NDArray[Any]]) -> Any:
    """A column of lists, or of lists of lists if the arrays have two axes."""
    values = np.concatenate(arrays)
    inner = pa.array(values.ravel())
    if values.ndim == 2:
        inner = pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1) * values.shape[1], pa.int32()), inner)
    ends = np.cumsum([0] + [len(array) for array in arrays])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), inner)


def _table(records: Sequence[Record], schema: Any) -> Any:
    """The pyarrow.Table of some records."""
    targets = [record.targets for record in records]
    examples = [record.tokenized.example for record in records]
    columns: dict[str, Any] = {
        "key": [record.key for record in records],
        "id": [example.id for example in examples],
        "origin": [record.tokenized.origin for record in records],
        "messages": [json.dumps(list(example.messages), ensure_ascii=False) for example in examples],
        "rationale": [example.rationale for example in examples],
        "response": [example.response for example in examples],
        "metadata": [json.dumps(example.metadata, ensure_ascii=False) for example in examples],
        "label": [example.label for example in examples],
        "tools": [json.dumps(list(example.tools), ensure_ascii=False) for example in examples],
        "tokens": list_column([record.tokenized.tokens for record in records]),
        "segments": list_column([record.tokenized.segments for record in records]),
        "token_logprobs": list_column([record.token_logprobs for record in records]),
        "offsets": list_column([rows.offsets for rows in targets]),
        "ids": list_column([rows.ids for rows in targets]),
        "logprobs": list_column([rows.logprobs for rows in targets]),
        "log_tail": list_column([rows.log_tail for rows in targets]),
    }
    if "exact" in schema.names:
        columns["exact"] = list_column([rows.exact_counts.astype(np.uint32) for rows in targets])
    if "entropy" in schema.names:
        columns["entropy"] = list_column([np.asarray(rows.entropy) for rows in targets])
    if "log_normalizers" in schema.names:
        columns["log_normalizers"] = list_column([np.asarray(rows.log_normalizers) for rows in targets])
    arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _spec(file: Any, path: Path) -> StoreSpec:
    document = (file.schema_arrow.metadata or {}).get(METADATA)
    if document is None:
        raise InputError(f"{path}: has no 'logitbank' metadata; only files that 'export_parquet' wrote can be imported")
    try:
        return StoreSpec.from_document(json.loads(document), f"{path}: its 'logitbank' metadata")
    except (ValueError, TypeError, KeyError) as error:
        raise IntegrityError(f"{path}: its 'logitbank' metadata is altered: {error}") from error


def _records(file: Any, spec: StoreSpec, path: Path) -> Iterator[Record]:
    present = set(file.schema_arrow.names)
    schema = pa.schema([f for f in parquet_schema(spec) if f.name in present or f.name not in LATER_TEXTS])
    if missing := [name for name in schema.names if name not in present]:
        raise InputError(f"{path}: has no column {missing[0]!r}; its spec needs {', '.join(schema.names)}")
    for batch in file.iter_batches(batch_size=BATCH_EXAMPLES, columns=schema.names):
        table = pa.Table.from_batches([batch]).select(schema.names).cast(schema).combine_chunks()
        for field in schema:
            if table[field.name].null_count:
                raise InputError(f"{path}: column {field.name!r} has an empty value; every example needs one")
        texts = {name: [value] * len(table) for name, value in LATER_TEXTS.items()}
        texts |= {name: table[name].to_pylist() for name in schema.names if name in TEXTS}
        others = [name for name in schema.names if name not in TEXTS]
        arrays = {name: _arrays(table[name], len(spec.targets.temperatures)) for name in others}
        for i in range(len(table)):
            yield _record(
                {name: values[i] for name, values in texts.items()},
                {name: values[i] for name, values in arrays.items()},
                spec,
                f"{path}: example {texts['id'][i]}",
            )


def _arrays(column: Any, width: int) -> list[npt.NDArray[Any]]:
    """The value of each row of a column of lists: [length], or [length, width] for lists of lists."""
    values = column.combine_chunks()
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    ends = np.cumsum(np.asarray(values.value_lengths()))
    flat = values.flatten()
    if pa.types.is_list(flat.type):
        lengths = np.asarray(flat.value_lengths())
        if not (lengths == width).all():
            raise InputError(f"column of lists of {sorted(set(lengths.tolist()))} values; the spec declares {width}")
        flat = np.asarray(flat.flatten()).reshape(-1, width)
    return np.split(np.asarray(flat), ends[:-1])


def _record(texts: dict[str, str], arrays: dict[str, npt.NDArray[Any]], spec: StoreSpec, what: str) -> Record:
    targets = SparseTargets(
        arrays["offsets"],
        arrays["ids"],
        arrays["logprobs"],
        arrays["log_tail"],
        arrays["exact"].astype(np.int64) if "exact" in arrays else None,
        arrays.get("entropy"),
        arrays.get("log_normalizers"),
    )
    targets.validate(spec.vocab_size, what)
    try:
        messages, metadata, tools = (json.loads(texts[name]) for name in ("messages", "metadata", "tools"))
    except ValueError as error:
        raise InputError(f"{what}: messages, metadata and tools must be JSON: {error}") from error
    spoken = (texts["rationale"], texts["response"])
    example = Example(texts["id"], tuple(messages), *spoken, metadata, texts["label"], tuple(tools))
    tokenized = TokenizedExample(example, arrays["tokens"], arrays["segments"], texts["origin"])
    return Record(texts["key"], tokenized, on_grid(targets, spec.targets), arrays["token_logprobs"])
