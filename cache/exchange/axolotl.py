"""A store as axolotl's pre-tokenised distillation data in JSON Lines, and back.

One object a line: input_ids, attention_mask, labels [N], labels -100 where a token is no response; target_token_ids,
target_logprobs, target_mask [N][K], row i the distribution of token i + 1, mask 0 where an entry does not count.
Its loss takes the values as they are: already at its `kd_temperature`, and summing to 1 over the K entries.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.exchange.conversion import head_rows, new_output, require_exact_heads
from cache.parts.layout import Profile
from cache.progress import Progress, no_progress
from cache.rows.record import Record, Window
from cache.rows.spec import StoreSpec, TargetSpec
from cache.store.fill import UNIT_EXAMPLES, fill_store, token_blocks
from cache.store.logit_store import LogitStore

# What axolotl itself pads rows with: id 0, this value, mask 0.
PADDING = -1e9
IGNORED = -100
# Decimals of a value in the file: half a unit of the last is less than a float32 resolves at -16.
DECIMALS = 6
TOKEN_FIELDS = ("input_ids", "attention_mask", "labels")
ROW_FIELDS = ("target_token_ids", "target_logprobs", "target_mask")


def export_axolotl(
    store: LogitStore,
    path: str | Path,
    temperature: float = 1.0,
    renormalise: bool = True,
    progress: Progress = no_progress,
) -> None:
    """Write all examples of a store to one file.

    temperature: that of the values, `kd_temperature` of the training. renormalise: let each row sum to 1, which their
    loss expects; what is lost is the tail, so a student learns the shape of the head and not how much it holds.
    Without it rows are written as they are stored, for other readers. Texts and keys are not in this form.
    progress: called with (examples done, examples).
    Raises InputError for threshold and sampled targets, and where `path` already holds something.
    """
    require_exact_heads(store.spec, "axolotl's form")
    if not temperature > 0 or (temperature != 1 and not renormalise):
        raise InputError(f"temperature {temperature}: must be above 0, and 1 where rows are not renormalised")
    k = min(store.spec.targets.k, store.spec.vocab_size)
    with new_output(Path(path)) as draft, draft.open("w", encoding="utf-8") as file:
        for block in token_blocks(store.tokens):
            for window in store.read(block):
                file.write(json.dumps(_line(window, k, temperature, renormalise), separators=(",", ":")) + "\n")
            progress(block.stop, len(store))


def import_axolotl(
    path: str | Path,
    target_uri: str,
    teacher: str,
    vocab_size: int,
    renormalised: bool = True,
    weights: str = "unknown",
    tokenizer: str = "unknown",
    chat_template: str = "unknown",
    dtype: str = "unknown",
    unit_examples: int = UNIT_EXAMPLES,
    profile: Profile = "compact",
    progress: Progress = no_progress,
) -> None:
    """Write the lines of a file, at temperature 1, to the store at `target_uri` as top-k targets; take a snapshot.

    renormalised: rows sum to 1 and the tail is unknown, stored as none; otherwise it is what the values leave.
    teacher, vocab_size, weights, tokenizer, chat_template, dtype: what the file does not say, for the spec.
    Examples have no texts, and the number of their line as id. Rows whose mask is 0 become empty; padding at the end
    is dropped. A rerun continues. progress: called with (examples done, examples).
    Raises InputError naming file, line and field for anything that is not this form, also for targets that are not
    those of the next token.
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
    spec = StoreSpec(
        teacher, weights, tokenizer, chat_template, vocab_size, vocab_size, dtype, TargetSpec("topk", k), None
    )
    records = (_record(*line, vocab_size, renormalised) for line in _lines(path))
    fill_store(target_uri, spec, records, total, profile, unit_examples, progress)


def _line(window: Window, k: int, temperature: float, renormalise: bool) -> dict[str, Any]:
    """The object of one example."""
    targets, n = window.targets, len(window)
    place = targets.row_of_entry, targets.rank_of_entry
    values = targets.logprobs.astype(np.float64) / temperature
    if renormalise:
        top = np.repeat(values[targets.offsets[:-1][targets.counts > 0]], targets.counts[targets.counts > 0])
        mass = np.bincount(place[0], weights=np.exp(values - top), minlength=n)
        values = values - top - np.log(mass[place[0]])
    ids, logprobs, mask = np.zeros((n, k), np.int64), np.full((n, k), PADDING), np.zeros((n, k), np.int64)
    ids[place], logprobs[place], mask[place] = targets.ids, np.round(values, DECIMALS), 1
    labels = np.where(window.segments != Segment.PROMPT, window.tokens.astype(np.int64), IGNORED)
    # A row counts where its token does, whatever the store holds beyond.
    mask[: n - 1][labels[1:] == IGNORED] = 0
    mask[n - 1 :] = 0
    columns: list[npt.NDArray[Any]] = [window.tokens, np.ones(n, np.int64), labels, ids, logprobs, mask]
    return {name: column.tolist() for name, column in zip((*TOKEN_FIELDS, *ROW_FIELDS), columns, strict=True)}


def _lines(path: Path) -> Iterator[tuple[int, str, dict[str, npt.NDArray[Any]]]]:
    """Number, place for messages, and arrays of each line that is not blank."""
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
    kept = arrays["target_mask"] != 0
    follows = np.append(labels[1:] != IGNORED, np.zeros(len(kept) - n + 1, bool))
    if (stray := np.flatnonzero(kept.any(axis=1) & ~follows)).size:
        raise InputError(
            f"{what}: target row {stray[0]} counts, but no labelled token follows it; row i must be the distribution "
            "of token i + 1"
        )
    ids, logprobs = arrays["target_token_ids"][:n], arrays["target_logprobs"][:n]
    targets = head_rows(ids, logprobs, kept[:n], not renormalised, what)
    targets.validate(vocab_size, what)
    segments = np.where(labels != IGNORED, Segment.RESPONSE, Segment.PROMPT).astype(np.uint8)
    tokenized = TokenizedExample(Example(str(number), ()), tokens.astype(np.uint32), segments)
    return Record(tokenized.key, tokenized, targets, np.full(n, np.nan, np.float32))
