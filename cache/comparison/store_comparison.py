"""Two stores of the same examples: what one teacher or engine says beside another."""

import hashlib
import heapq
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.comparison.row_differences import RowDifferences, row_differences
from cache.errors import InputError, SpecMismatchError
from cache.progress import Progress, no_progress
from cache.store.reading.sequence import RecordSequence

# Rows with the largest divergence that are named.
WORST = 5
# Nats: what is less is no difference between the teachers.
ROUNDING = 1e-6
# Examples that are read together.
BATCH = 64


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the values of all rows."""

    mean: float
    median: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: npt.NDArray[np.float64]) -> "Spread":
        known = values[~np.isnan(values)]
        if not len(known):
            return cls(*[float("nan")] * 4)
        return cls(float(known.mean()), *map(float, np.quantile(known, [0.5, 0.99, 1.0])))


@dataclass(frozen=True, slots=True)
class WorstRow:
    """A row with a large divergence. position: of the token that it predicts; token: its id.

    key, example: key and id of the example in the reference.
    """

    key: str
    example: str
    position: int
    token: int
    kl: float


@dataclass(frozen=True, slots=True)
class StoreComparison:
    """The rows of a store beside those of a reference, in nats.

    examples: that both have; other_tokens: those of them whose tokens differ somewhere, which are compared up to there;
    only_reference, only_other: that one of them lacks. rows: compared. kl, total_variation, first_error,
    same_first, shared: see RowDifferences; the last two are shares. label: mean of log p - log q of the token that
    follows, where both have it: above 0, the reference finds the texts more probable. worst: rows with the largest kl.
    """

    examples: int
    other_tokens: int
    only_reference: int
    only_other: int
    rows: int
    kl: Spread
    total_variation: Spread
    first_error: Spread
    same_first: float
    shared: float
    label: float
    worst: list[WorstRow] = field(default_factory=list)

    def to_document(self) -> dict[str, Any]:
        """Fields for JSON. What has no value is None."""
        document: dict[str, Any] = _without_nan(asdict(self))
        return document


def compare_stores(
    reference: RecordSequence,
    other: RecordSequence,
    limit: int | None = None,
    progress: Progress = no_progress,
    pairs: npt.NDArray[np.int64] | None = None,
) -> StoreComparison:
    """Compare the examples that both stores have, or the first `limit` of them in the order of the reference.

    An example has a key of its own. Where the stores share no key, such as texts that a teacher wrote and another one
    scored, examples with the same tokens are the same. pairs: int64 [pairs, 2], which examples of the two are the same
    in the place of that.
    Raises SpecMismatchError if they have different tokenizers or vocabularies, and InputError if nothing in them can be
    compared: no example is in both, or no row of the same tokens has entries in both.
    """
    for name in ("tokenizer", "vocab_size"):
        ours, theirs = (getattr(store.spec, name) for store in (reference, other))
        if ours != theirs:
            raise SpecMismatchError(
                f"{other.storage}: has another {name} ({theirs}) than {reference.storage} ({ours}), so their rows are "
                "about other tokens; compare stores of teachers with the same tokenizer"
            )
    for store in (reference, other):
        if not store.spec.targets.max_entries or not store.spec.targets.has_exact:
            what = "draws" if store.spec.targets.max_entries else "texts without rows"
            raise InputError(
                f'{store.storage}: has {what}, which cannot be compared; capture with targets.mode = "topk"'
            )
    if pairs is None:
        pairs = _common(*(_rows_of(store.keys) for store in (reference, other)))
    if not len(pairs):
        pairs = _common(*(_token_digests(store) for store in (reference, other)))
    only_reference, only_other = (len(store) - len(pairs) for store in (reference, other))
    if limit is not None:
        pairs = pairs[:limit]
    rows: list[RowDifferences] = []
    labels: list[npt.NDArray[np.float64]] = []
    worst: list[tuple[float, int, int, int]] = []
    different = 0
    for done, (i, *windows) in enumerate(_read(reference, other, pairs), start=1):
        if done % BATCH == 0 or done == len(pairs):
            progress(done, len(pairs))
        same = _common_prefix(*(window.tokens for window in windows))
        different += same < max(map(len, windows))
        ours, theirs = (window.part(0, same) for window in windows)  # a row is about the tokens up to its own
        found = row_differences(ours.targets, theirs.targets)
        rows.append(found)
        known = ours.token_logprobs.astype(np.float64) - theirs.token_logprobs
        labels.append(known[1:][np.isin(np.arange(len(known) - 1), found.row)])
        for place in np.argsort(found.kl)[-WORST:]:
            position = int(found.row[place]) + 1
            token = int(ours.tokens[position]) if position < same else -1
            entry = (float(found.kl[place]), i, position, token)
            (heapq.heappush if len(worst) < WORST else heapq.heappushpop)(worst, entry)
    if not rows:
        raise InputError(
            f"{other.storage}: has no example of {reference.storage}, so there is nothing to compare; capture the same "
            "examples with the same chat template in both"
        )
    joined = [np.concatenate(columns) for columns in zip(*rows, strict=True)]
    if not len(joined[0]):
        raise InputError(
            f"{other.storage}: no token has a row in it and in {reference.storage} after the same tokens; capture both "
            "with the same chat template and targets.of"
        )
    differences = RowDifferences(*joined)
    label = np.concatenate(labels)
    return StoreComparison(
        len(rows),
        different,
        only_reference,
        only_other,
        len(differences.row),
        Spread.of(differences.kl),
        Spread.of(differences.total_variation),
        Spread.of(differences.first_error),
        float(differences.same_first.mean()),
        float(differences.shared.mean()),
        float(np.nanmean(label)) if np.isfinite(label).any() else float("nan"),
        [
            WorstRow(reference.key(i), reference.texts([i])[0].id, position, token, kl)
            for kl, i, position, token in sorted(worst, reverse=True)
            if kl > ROUNDING
        ],
    )


def _common(ours: npt.NDArray[np.void], theirs: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """The numbers of what both have, [pairs, 2], in the order of the first. Of equal ones, the first counts."""
    _, first, second = np.intersect1d(ours, theirs, return_indices=True)
    pairs = np.stack([first, second], axis=1)
    return np.asarray(pairs[np.argsort(first)])


def _common_prefix(ours: npt.NDArray[np.uint32], theirs: npt.NDArray[np.uint32]) -> int:
    """How many tokens are the same from the first one on."""
    length = min(len(ours), len(theirs))
    differ = np.flatnonzero(ours[:length] != theirs[:length])
    return int(differ[0]) if len(differ) else length


def _rows_of(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """Each row of bytes as one value, [rows]."""
    return np.ascontiguousarray(values).view(f"V{values.shape[1]}").ravel()


def _token_digests(store: RecordSequence) -> npt.NDArray[np.void]:
    """A digest of the tokens of each example."""
    digests = [
        hashlib.blake2b(window.tokens.tobytes(), digest_size=16).digest()
        for batch in store.batches(texts=False)
        for window in batch
    ]
    return _rows_of(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16))


def _read(
    reference: RecordSequence, other: RecordSequence, pairs: npt.NDArray[np.int64]
) -> Iterator[tuple[int, Any, Any]]:
    """The number of each example in the reference, and its windows in both."""
    for start in range(0, len(pairs), BATCH):
        part = pairs[start : start + BATCH]
        windows = [
            store.windows([(int(i), 0, None) for i in part[:, column]])
            for column, store in enumerate((reference, other))
        ]
        yield from zip(part[:, 0].tolist(), *windows, strict=True)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
