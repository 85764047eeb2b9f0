"""A store as axolotl's pre-tokenised distillation data in JSON Lines, and back.

One object per line: input_ids, attention_mask, labels [N], with label -100 for tokens outside the response;
target_token_ids, target_logprobs, target_mask [N][K], where row i is the distribution of token i + 1 and mask 0 marks
entries to ignore. axolotl's loss uses the values unchanged: they must have its `kd_temperature` and sum to 1 over the K
entries.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.exchange.conversion import ImportedTeacher, head_rows, new_output, require_exact_heads
from cache.parts.layout import Profile
from cache.progress import Progress, no_progress
from cache.rows.record import Record, Window
from cache.store.fill import UNIT_EXAMPLES, fill_store
from cache.store.reading.sequence import Indices, RecordSequence

# axolotl pads rows with id 0, this value and mask 0.
PADDING = -1e9
IGNORED = -100
# Decimals of a value in the file. Their error is below the resolution of a float32 at -16.
DECIMALS = 6
TOKEN_FIELDS = ("input_ids", "attention_mask", "labels")
ROW_FIELDS = ("target_token_ids", "target_logprobs", "target_mask")


def export_axolotl(
    store: RecordSequence,
    path: str | Path,
    temperature: float = 1.0,
    renormalise: bool = True,
    examples: Indices | None = None,
    progress: Progress = no_progress,
) -> None:
    """Write examples of a store (default: all) to one file.

    temperature: that of the values, `kd_temperature` of the training. renormalise: scale each row to a sum of 1, as
    axolotl's loss expects. This drops the tail: a student learns the shape of the head, but not its mass. Without it
    rows are written as stored, for other readers. The form has no place for texts and keys.
    progress: called with (examples done, examples).
    Raises InputError for threshold and sampled targets, and if `path` exists and is not empty.
    """
    require_exact_heads(store.spec, "axolotl's form")
    if not temperature > 0 or (temperature != 1 and not renormalise):
        raise InputError(f"temperature {temperature}: must be above 0, and 1 where rows are not renormalised")
    k = min(store.spec.targets.k, store.spec.vocab_size)
    numbers, done = store.numbers(examples), 0
    with new_output(Path(path)) as draft, draft.open("w", encoding="utf-8") as file:
        for batch in store.batches(numbers, texts=False):
            for window in batch:
                file.write(json.dumps(_line(window, k, temperature, renormalise), separators=(",", ":")) + "\n")
            done += len(batch)
            progress(done, len(numbers))


def import_axolotl(
    path: str | Path,
    target_uri: str,
    teacher: ImportedTeacher,
    vocab_size: int,
    renormalised: bool = True,
    unit_examples: int = UNIT_EXAMPLES,
    profile: Profile = "compact",
    progress: Progress = no_progress,
) -> int:
    """Write the lines of a file, at temperature 1, to the store at `target_uri` as top-k targets; take a snapshot.

    teacher, vocab_size: facts for the spec that the file does not contain. renormalised: rows sum to 1, and their
    unknown tail is stored as 0; otherwise the tail is 1 minus the mass of the values.
    Examples have no texts; their id is the number of the line. Rows with mask 0 become empty, and padding at the end is
    dropped. A rerun continues. progress: called with (examples done, examples).
    Returns the number of records that were left out, because they are the same as an earlier one in all that is stored.
    Raises InputError, with file, line and field, for anything that is not in this form, and for targets that do not
    belong to the next token.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a JSON Lines file")
    with path.open("rb") as file:
        total = sum(1 for line in file if line.strip())
    first = next(_lines(path), None)
    if first is None:
        raise InputError(f"{path}: empty; it needs at least one line")
    k = max(first[2]["target_token_ids"].shape[1], 1)
    spec = teacher.topk_spec(vocab_size, k)
    records = (_record(*line, vocab_size, renormalised) for line in _lines(path))
    return fill_store(target_uri, spec, records, total, profile, unit_examples, progress)


def _line(window: Window, k: int, temperature: float, renormalise: bool) -> dict[str, Any]:
    """The JSON object of one example."""
    targets, n = window.targets, len(window)
    rows, ranks = targets.row_of_entry, targets.rank_of_entry
    values = targets.logprobs.astype(np.float64) / temperature
    if renormalise:
        top = np.repeat(values[targets.offsets[:-1][targets.counts > 0]], targets.counts[targets.counts > 0])
        mass = np.bincount(rows, weights=np.exp(values - top), minlength=n)
        values = values - top - np.log(mass[rows])
    ids, logprobs, mask = np.zeros((n, k), np.int64), np.full((n, k), PADDING), np.zeros((n, k), np.int64)
    ids[rows, ranks], logprobs[rows, ranks], mask[rows, ranks] = targets.ids, np.round(values, DECIMALS), 1
    labels = np.where(window.segments != Segment.PROMPT, window.tokens.astype(np.int64), IGNORED)
    # Only rows before a labelled token are used, even if the store has targets for others.
    mask[: n - 1][labels[1:] == IGNORED] = 0
    mask[n - 1 :] = 0
    columns: list[npt.NDArray[Any]] = [window.tokens, np.ones(n, np.int64), labels, ids, logprobs, mask]
    return {name: column.tolist() for name, column in zip((*TOKEN_FIELDS, *ROW_FIELDS), columns, strict=True)}


def _lines(path: Path) -> Iterator[tuple[int, str, dict[str, npt.NDArray[Any]]]]:
    """Number, name for messages, and arrays of each line that is not blank."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, f"{path}, line {number}", _arrays(line, f"{path}, line {number}")


def _arrays(line: bytes, what: str) -> dict[str, npt.NDArray[Any]]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: truncated, or not JSON: {error}") from error
    fields = (*TOKEN_FIELDS, *ROW_FIELDS)
    if not isinstance(value, dict) or (missing := [name for name in fields if name not in value]):
        raise InputError(f"{what}: has no {missing[0] if isinstance(value, dict) else 'object'!r}")
    n = len(value["input_ids"]) if isinstance(value["input_ids"], list) else 0
    if not n:
        raise InputError(f"{what}: 'input_ids' must be a list of tokens")
    arrays = {}
    for name in fields:
        dtype = np.float64 if name == "target_logprobs" else np.int64
        try:
            arrays[name] = np.array(value[name], dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{what}: {name!r} must be numbers, and rows of one length: {error}") from error
        if len(arrays[name].shape) != (2 if name in ROW_FIELDS else 1) or len(arrays[name]) != n:
            shape = f"[{n}, K]" if name in ROW_FIELDS else f"[{n}]"
            raise InputError(f"{what}: {name!r} has the shape {list(arrays[name].shape)}; it must be {shape}")
    if len({arrays[name].shape for name in ROW_FIELDS}) > 1:
        raise InputError(f"{what}: {', '.join(ROW_FIELDS)} differ in their number of entries a row")
    return arrays


def _record(number: int, what: str, arrays: dict[str, npt.NDArray[Any]], vocab_size: int, renormalised: bool) -> Record:
    attended = arrays["attention_mask"] != 0
    n = int(attended.sum())
    if not attended[:n].all():
        raise InputError(f"{what}: 'attention_mask' has zeros before ones; only padding at the end can be read")
    tokens, labels = arrays["input_ids"][:n], arrays["labels"][:n]
    if ((tokens < 0) | (tokens >= vocab_size)).any():
        raise InputError(f"{what}: 'input_ids' has a token outside the vocabulary of {vocab_size}")
    mask = arrays["target_mask"] != 0
    follows = np.append(labels[1:] != IGNORED, np.zeros(len(mask) - n + 1, bool))
    if (stray := np.flatnonzero(mask.any(axis=1) & ~follows)).size:
        raise InputError(
            f"{what}: target row {stray[0]} has entries, but no labelled token follows it; row i must be the "
            "distribution of token i + 1"
        )
    ids, logprobs = arrays["target_token_ids"][:n], arrays["target_logprobs"][:n]
    targets = head_rows(ids, logprobs, mask[:n], not renormalised, what)
    targets.validate(vocab_size, what)
    segments = np.where(labels != IGNORED, Segment.RESPONSE, Segment.PROMPT).astype(np.uint8)
    tokenized = TokenizedExample(Example(str(number), ()), tokens.astype(np.uint32), segments)
    return Record(tokenized.key, tokenized, targets, np.full(n, np.nan, np.float32))
