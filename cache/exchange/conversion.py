"""What all exports and imports share: outputs that appear whole, and rows from rectangles of entries."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec

# Least tail of a row whose tail is what its values leave: below it their rounding decides.
MIN_TAIL = 1e-7
# Values that others approximated can come out a little above 0.
ABOVE_ZERO = 0.1


def head_rows(
    ids: npt.NDArray[np.int64],
    logprobs: npt.NDArray[np.float64],
    kept: npt.NDArray[np.bool_],
    tail_follows: bool,
    what: str,
) -> SparseTargets:
    """Rows from entries in any order, ids and logprobs [n, k]; kept bool [n, k], those that count.

    Entries too low to be stored are left out. tail_follows: the tail is what the values leave; else there is none.
    Raises InputError naming `what` where values are not log-probabilities or ids not numbers of tokens.
    """
    if np.isnan(logprobs[kept]).any() or (logprobs[kept] > ABOVE_ZERO).any():
        raise InputError(f"{what}: holds {logprobs[kept].max()} as a log-probability; give values not above 0")
    if ((ids < 0) | (ids > np.iinfo(np.uint32).max))[kept].any():
        raise InputError(f"{what}: holds an id that no vocabulary has")
    kept = kept & (logprobs >= LOWEST_LOGPROB)
    values = np.where(kept, np.minimum(logprobs, 0), -np.inf)
    order = np.argsort(-values, axis=1, kind="stable")
    values, kept, ids = (np.take_along_axis(each, order, axis=1) for each in (values, kept, ids))
    tail = np.full(len(ids), -np.inf)
    if tail_follows:
        below_zero = -np.finfo(np.float32).tiny  # a row with entries cannot leave everything to its tail
        tail = np.minimum(np.log(np.maximum(1 - np.exp(values).sum(axis=1), MIN_TAIL)), below_zero)
    tail = np.where(kept.any(axis=1), tail, 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept.sum(axis=1))])
    return SparseTargets(offsets, ids[kept].astype(np.uint32), values[kept].astype(np.float32), tail.astype(np.float32))


@contextmanager
def new_output(path: Path) -> Iterator[Path]:
    """A sibling of `path` to write a file or folder at, renamed to `path` where the block ends well, else removed.

    Raises InputError where `path` already holds something.
    """
    if (path.is_dir() and any(path.iterdir())) or (path.is_file() and path.stat().st_size):
        raise InputError(f"{path}: exists already; give another path, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    _remove(draft)
    try:
        yield draft
        draft.replace(path)
    finally:
        _remove(draft)


def require_exact_heads(spec: StoreSpec, form: str) -> None:
    """Raise InputError unless rows are the head of a distribution and nothing else, which is all that `form` holds."""
    if spec.targets.has_sampled:
        raise InputError(
            f"{form}: holds the largest log-probabilities of a row only; {spec.targets.mode} targets have entries that "
            "stand for draws; export a topk or nucleus store, or use Parquet"
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
