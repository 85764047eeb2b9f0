"""A store as one Parquet file with one row per example, and back. Any reader of Parquet can read it.

cache/store/reading/tables.py defines the columns. Older files have no label and tools; both are then empty.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import InputError, IntegrityError, LogitbankError
from cache.examples.example import Example, TokenizedExample
from cache.exchange.conversion import new_output
from cache.parts.layout import Profile
from cache.progress import Progress, no_progress
from cache.rows.on_grid import on_grid
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec
from cache.store.fill import UNIT_EXAMPLES, fill_store
from cache.store.reading.sequence import Indices, RecordSequence
from cache.store.reading.tables import METADATA, TEXT_COLUMNS, table_schema

LATER_TEXTS = {"label": "", "tools": "[]"}
# Examples that are decoded together, at most.
BATCH_EXAMPLES = 16


def export_parquet(
    store: RecordSequence, path: str | Path, examples: Indices | None = None, progress: Progress = no_progress
) -> None:
    """Write examples of a store (default: all) to one zstd-compressed file. Quarantine is left out.

    A row group has at most BLOCK_TOKENS tokens, or one example. progress: called with (examples done, examples).

    Raises InputError if `path` exists and is not empty. The file is created atomically.
    """
    numbers, done = store.numbers(examples), 0
    with (
        new_output(Path(path)) as draft,
        pq.ParquetWriter(draft, table_schema(store.spec), compression="zstd", write_page_checksum=True) as writer,
    ):
        for table in store.arrow_batches(numbers):
            writer.write_table(table, row_group_size=len(table))
            done += len(table)
            progress(done, len(numbers))


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
    schema = pa.schema([f for f in table_schema(spec) if f.name in present or f.name not in LATER_TEXTS])
    if missing := [name for name in schema.names if name not in present]:
        raise InputError(f"{path}: has no column {missing[0]!r}; its spec needs {', '.join(schema.names)}")
    for batch in file.iter_batches(batch_size=BATCH_EXAMPLES, columns=schema.names):
        table = pa.Table.from_batches([batch]).select(schema.names).cast(schema).combine_chunks()
        for field in schema:
            if table[field.name].null_count:
                raise InputError(f"{path}: column {field.name!r} has an empty value; every example needs one")
        texts = {name: [value] * len(table) for name, value in LATER_TEXTS.items()}
        texts |= {name: table[name].to_pylist() for name in schema.names if name in TEXT_COLUMNS}
        others = [name for name in schema.names if name not in TEXT_COLUMNS]
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
