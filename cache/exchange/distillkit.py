"""A store as arcee-ai/DistillKit's captured log-probabilities, and back: data_<i>.parquet and compression_config.yaml.

One row per example: input_ids [N], and compressed_logprobs and bytepacked_indices [M], M = N or N - 1, the bytes of row
i, which is the distribution of token i + 1 given tokens 0..i at temperature 1. Every row has exactly k entries.
The indices are ids of ceil(log2 d) bits, highest bit first, zero bits at the end. The values are descending. Their
bytes are exact_k little-endian floats, then coefficients of terms in t that approximate the others, then residual bins,
each a scale and packed integers. Exports have exact values only; imports read every form of the configuration.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import InputError, IntegrityError, LogitbankError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.exchange.conversion import ImportedTeacher, head_rows, new_output, require_exact_heads
from cache.exchange.distillkit_bytes import (
    CONFIG,
    FLOATS,
    CompressionConfig,
    Float,
    decode_ids,
    decode_values,
    encode_ids,
    encode_values,
    read_config,
)
from cache.parts.layout import Profile
from cache.progress import Progress, no_progress
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, empty_targets
from cache.rows.spec import StoreSpec
from cache.store.fill import UNIT_EXAMPLES, fill_store
from cache.store.reading.blocks import BLOCK_TOKENS, token_blocks
from cache.store.reading.sequence import Indices, RecordSequence
from cache.store.reading.tables import list_column

README = "README.txt"
# Value of entries that fill a row up to k. DistillKit's loss turns -inf into NaN, and all float types contain this.
FLOOR = -1e4
FILE_TOKENS = 1 << 22
BATCH_EXAMPLES = 8
COLUMNS = ("input_ids", "compressed_logprobs", "bytepacked_indices")
LABELS, ATTENTION = "labels", "attention_mask"
IGNORED = -100


def export_distillkit(
    store: RecordSequence,
    path: str | Path,
    dtype: Float = "float32",
    sequence_length: int | None = None,
    pad_id: int = 0,
    examples: Indices | None = None,
    progress: Progress = no_progress,
) -> int:
    """Write examples of a store (default: all) to the folder `path`. Returns the number of those that are too long.

    dtype: type of the values. sequence_length: pad every example to this length with `pad_id`, as DistillKit's trainer
    requires (`prepacked`), and leave out longer ones. By default examples keep their length, for `pack_logits`.
    There are two columns more than in DistillKit's own capture: attention_mask, and labels, which are >= 0 for rows
    with a target, because DistillKit's loss uses row i if labels[i] >= 0. Rows without target have k unused entries.
    DistillKit handles the tail by `missing_probability_handling`. The form has no place for texts, keys and segments.
    Ids beyond the tokenizer's size are written too: the trainer cuts the student's logits to that size.
    Raises InputError for threshold and sampled targets, if `path` is not empty, or if no example is short enough.
    """
    spec = store.spec
    require_exact_heads(spec, "DistillKit's form")
    if dtype not in FLOATS:
        raise InputError(f"dtype {dtype!r}: unknown; give one of {', '.join(FLOATS)}")
    k = min(spec.targets.k, spec.vocab_size)
    config = CompressionConfig(spec.vocab_size, k, k, (), dtype, delta_encoding=False)
    numbers = store.numbers(examples)
    selected = numbers if sequence_length is None else numbers[store.tokens[numbers] <= sequence_length]
    if not len(selected):
        longer = f"has at most {sequence_length} tokens; give a greater length"
        raise InputError(f"{store.storage}: no example {longer if len(numbers) else 'to export'}")
    lengths = store.tokens[selected].astype(np.int64)
    with new_output(Path(path)) as draft:
        draft.mkdir()
        (draft / CONFIG).write_text(config.to_yaml())
        (draft / README).write_text(_readme(spec, config, len(selected), sequence_length))
        for number, file in enumerate(token_blocks(lengths, FILE_TOKENS)):
            with pq.ParquetWriter(draft / f"data_{number}.parquet", _schema(), compression="zstd") as writer:
                for block in token_blocks(lengths[file.start : file.stop], BLOCK_TOKENS):
                    own = selected[file.start + block.start : file.start + block.stop]
                    table = _table(store, own, config, sequence_length, pad_id)
                    writer.write_table(table, row_group_size=len(table))
                    progress(file.start + block.stop, len(selected))
    return len(numbers) - len(selected)


def import_distillkit(
    path: str | Path,
    target_uri: str,
    teacher: ImportedTeacher,
    labels: Literal["rows", "tokens"] = "rows",
    unit_examples: int = UNIT_EXAMPLES,
    profile: Profile = "compact",
    progress: Progress = no_progress,
) -> int:
    """Write the examples of a folder to the store at `target_uri`, as top-k targets, and take a snapshot.

    teacher: facts for the spec that the folder does not contain.
    labels: meaning of values >= 0 in a column of that name: "rows" to train on, as DistillKit's loss and
    export_distillkit use it, or "tokens" to train on, as is usual elsewhere. Token i + 1 is a response if row i is
    trained on, otherwise prompt. Without the column all rows are.
    Examples have no texts; their id is their number in the folder. Entries that are too low to be stored are dropped,
    and the tail is 1 minus the mass of the values. A rerun continues. progress: called with (examples done, examples).
    Returns the number of records that were left out, because they are the same as an earlier one in all that is stored.
    Raises InputError, with file and field, for anything that is not in this form.
    """
    folder = Path(path)
    config = read_config(folder / CONFIG)
    numbered = {int(m[1]): file for file in folder.iterdir() if (m := re.fullmatch(r"data_(\d+)\.parquet", file.name))}
    if not numbered:
        raise InputError(f"{folder}: has no data_<i>.parquet; give the folder of a capture")
    files = [numbered[number] for number in sorted(numbered)]
    spec = teacher.topk_spec(config.d, config.k)
    total = sum(_rows_of(file) for file in files)
    records = _records(files, config, labels)
    return fill_store(target_uri, spec, records, total, profile, unit_examples, progress)


def _schema() -> Any:
    byte_rows = pa.list_(pa.list_(pa.uint8()))
    columns = dict(zip(COLUMNS, (pa.list_(pa.uint64()), byte_rows, byte_rows), strict=True))
    return pa.schema({**columns, ATTENTION: pa.list_(pa.int64()), LABELS: pa.list_(pa.int64())})


def _readme(spec: StoreSpec, config: CompressionConfig, examples: int, sequence_length: int | None) -> str:
    length = f"sequence_length: {sequence_length}" if sequence_length else "after distillkit-pack-logits, its --max-len"
    compressor = config.to_yaml().replace("\n", ", ").rstrip(", ")
    return (
        f"{examples} examples of {spec.teacher}: the {config.k} largest log-probabilities of a token, temperature 1.\n"
        f"teacher: {{kind: dataset, logprob_compressor: {{{compressor}}}}}\n"
        f"dataset: {{prepacked: true}}, on data_*.parquet loaded as a dataset; {length}\n"
        "training_args: {remove_unused_columns: false}\n"
        "labels >= 0 mark rows with a target; a cross_entropy loss would read them as tokens, one position early.\n"
    )


def _table(
    store: RecordSequence, examples: npt.NDArray[np.int64], config: CompressionConfig, length: int | None, pad_id: int
) -> Any:
    """The pyarrow.Table of some examples."""
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in _schema().names}
    for window in store.read(examples):
        n = len(window)
        padded = n if length is None else length
        ids, logprobs = _dense(window.targets, config.k)
        if padded > n:
            filler = _dense(empty_targets(1), config.k)
            ids = np.concatenate([ids, np.repeat(filler[0], padded - n, axis=0)])
            logprobs = np.concatenate([logprobs, np.repeat(filler[1], padded - n, axis=0)])
        tokens = window.tokens.astype(np.int64)
        labels = np.where(window.targets.counts > 0, tokens, IGNORED)
        columns["input_ids"].append(_padded(tokens, padded, pad_id).astype(np.uint64))
        columns["compressed_logprobs"].append(encode_values(logprobs, config.exact_dtype))
        columns["bytepacked_indices"].append(encode_ids(ids, config.index_bits))
        columns[ATTENTION].append(_padded(np.ones(n, np.int64), padded, 0))
        columns[LABELS].append(_padded(labels, padded, IGNORED))
    arrays = [list_column(columns[field.name]) for field in _schema()]
    return pa.Table.from_arrays(arrays, schema=_schema())


def _dense(targets: SparseTargets, k: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """Ids and log-probabilities [n, k]. Short rows are filled with other ids at FLOOR; empty rows become uniform."""
    n, counts = len(targets), targets.counts
    rows, ranks = targets.row_of_entry, targets.rank_of_entry
    ids, logprobs = np.zeros((n, k), np.uint32), np.full((n, k), FLOOR, np.float32)
    ids[rows, ranks], logprobs[rows, ranks] = targets.ids, np.minimum(targets.logprobs, 0)
    logprobs[counts == 0] = -np.log(k)
    # A row with c entries uses at most c of the ids 0..k - 1, so at least k - c are free.
    used = np.zeros((n, k), bool)
    small = targets.ids < k
    used[rows[small], targets.ids[small]] = True
    free = np.argsort(used, axis=1, kind="stable").astype(np.uint32)
    rank = np.arange(k) - counts[:, None]
    return np.where(rank < 0, ids, np.take_along_axis(free, np.maximum(rank, 0), axis=1)), logprobs


def _padded(values: npt.NDArray[np.int64], length: int, value: int) -> npt.NDArray[np.int64]:
    return np.concatenate([values, np.full(length - len(values), value, np.int64)])


def _rows_of(file: Path) -> int:
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"{file}: truncated or altered, or not a Parquet file: {error}") from error


def _records(files: Sequence[Path], config: CompressionConfig, labels: str) -> Iterator[Record]:
    number = 0
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                if missing := [name for name in COLUMNS if name not in names]:
                    raise InputError(
                        f"{path}: has no column {missing[0]!r}; legacy and uncompressed captures cannot be imported"
                    )
                columns = [name for name in _schema().names if name in names]
                for batch in file.iter_batches(batch_size=BATCH_EXAMPLES, columns=columns):
                    for row in _rows(batch, config, path):
                        yield _record(row, config, labels, str(number), f"{path}: example {number}")
                        number += 1
        except LogitbankError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(f"{path}: truncated or altered, or not a Parquet file: {error}") from error


def _rows(batch: Any, config: CompressionConfig, path: Path) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The columns of each example of a batch as arrays, [N] or [M, bytes]."""
    widths = {"compressed_logprobs": config.logprob_bytes, "bytepacked_indices": config.index_bytes}
    columns = {}
    for name in batch.schema.names:
        column = batch.column(name).cast(_schema().field(name).type)
        flat = column.flatten()
        if column.null_count or flat.null_count:
            raise InputError(f"{path}: column {name!r} has an empty value; every token needs one")
        if name in widths:
            lengths = np.unique(np.asarray(flat.value_lengths()))
            if len(lengths) and lengths.tolist() != [widths[name]]:
                raise InputError(
                    f"{path}: column {name!r} has rows of {lengths.tolist()} bytes; {CONFIG} says {widths[name]}"
                )
            flat = np.asarray(flat.flatten()).reshape(-1, widths[name])
        columns[name] = np.split(np.asarray(flat), np.cumsum(np.asarray(column.value_lengths()))[:-1])
    for i in range(len(batch)):
        yield {name: values[i] for name, values in columns.items()}


def _record(row: dict[str, npt.NDArray[Any]], config: CompressionConfig, labels: str, name: str, what: str) -> Record:
    tokens = row["input_ids"]
    if (tokens >= config.d).any():
        raise InputError(f"{what}: input_ids has {tokens.max()}, outside the vocabulary of d = {config.d}")
    length, rows = len(tokens), len(row["compressed_logprobs"])
    if rows not in (length, length - 1) or len(row["bytepacked_indices"]) != rows:
        raise InputError(
            f"{what}: {length} tokens, {rows} compressed_logprobs and {len(row['bytepacked_indices'])} "
            "bytepacked_indices; there must be as many rows as tokens, or one fewer"
        )
    if wrong := [c for c in (LABELS, ATTENTION) if c in row and len(row[c]) != length]:
        raise InputError(f"{what}: {length} tokens and {len(row[wrong[0]])} {wrong[0]}; there must be as many")
    is_token = row[ATTENTION] != 0 if ATTENTION in row else np.ones(length, bool)
    n = int(is_token.sum())
    if not is_token[:n].all():
        raise InputError(f"{what}: attention_mask has zeros before ones; only padding at the end can be read")
    is_target = np.ones(n, bool)
    if LABELS in row:
        has_label = row[LABELS][:n] >= 0
        is_target = has_label if labels == "rows" else np.append(has_label[1:], False)
    is_target[min(rows, n - 1) :] = False  # no token follows the last
    segments = np.full(n, Segment.RESPONSE, np.uint8)
    if LABELS in row:
        segments[:] = Segment.PROMPT
        segments[1:][is_target[: n - 1]] = Segment.RESPONSE
    ids, logprobs = np.zeros((n, config.k), np.int64), np.zeros((n, config.k))
    used = np.flatnonzero(is_target)
    ids[used] = decode_ids(row["bytepacked_indices"][used], config.index_bits, config.k)
    logprobs[used] = decode_values(row["compressed_logprobs"][used], config)
    targets = head_rows(ids, logprobs, np.repeat(is_target[:, None], config.k, axis=1), True, what)
    targets.validate(config.d, what)
    tokenized = TokenizedExample(Example(name, ()), tokens[:n].astype(np.uint32), segments)
    return Record(tokenized.key, tokenized, targets, np.full(n, np.nan, np.float32))
