"""Parts that all exports and imports share: output files, rows from rectangles of entries, and a teacher's facts."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.store.claims.tokenizer_files import UNKNOWN_TOKENIZER

# Minimum tail of a row whose tail is 1 minus the mass of its values: below, it would be rounding noise.
MIN_TAIL = 1e-7
# Values that were approximated by another project can be a little above 0.
MAX_LOGPROB = 0.1


def head_rows(
    ids: npt.NDArray[np.int64],
    logprobs: npt.NDArray[np.float64],
    mask: npt.NDArray[np.bool_],
    tail_from_values: bool,
    what: str,
) -> SparseTargets:
    """Make rows from ids and logprobs [n, k] in any order. mask: bool [n, k], the entries to use.

    Entries that are too low to be stored are left out. tail_from_values: the tail is 1 minus the mass of the values;
    otherwise it is 0. Raises InputError, starting with `what`, if values are no log-probabilities or ids no token ids.
    """
    if np.isnan(logprobs[mask]).any() or (logprobs[mask] > MAX_LOGPROB).any():
        raise InputError(f"{what}: has {logprobs[mask].max()} as a log-probability; give values not above 0")
    if ((ids < 0) | (ids > np.iinfo(np.uint32).max))[mask].any():
        raise InputError(f"{what}: has an id outside of any vocabulary")
    mask = mask & (logprobs >= LOWEST_LOGPROB)
    values = np.where(mask, np.minimum(logprobs, 0), -np.inf)
    order = np.argsort(-values, axis=1, kind="stable")
    values, mask, ids = (np.take_along_axis(array, order, axis=1) for array in (values, mask, ids))
    tail = np.full(len(ids), -np.inf)
    if tail_from_values:
        below_zero = -np.finfo(np.float32).tiny  # the tail of a row with entries must be below 1
        tail = np.minimum(np.log(np.maximum(1 - np.exp(values).sum(axis=1), MIN_TAIL)), below_zero)
    tail = np.where(mask.any(axis=1), tail, 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(mask.sum(axis=1))])
    return SparseTargets(offsets, ids[mask].astype(np.uint32), values[mask].astype(np.float32), tail.astype(np.float32))


@dataclass(frozen=True, slots=True)
class ImportedTeacher:
    """Facts about a teacher that files of other projects do not contain, for the spec of an imported store."""

    name: str
    weights: str = "unknown"
    tokenizer: str = UNKNOWN_TOKENIZER
    chat_template: str = "unknown"
    dtype: str = "unknown"

    def topk_spec(self, vocab_size: int, k: int) -> StoreSpec:
        """The spec of a store of top-k targets of this teacher."""
        return StoreSpec(
            self.name,
            self.weights,
            self.tokenizer,
            self.chat_template,
            vocab_size,
            vocab_size,
            self.dtype,
            TargetSpec("topk", k),
            None,
        )


@contextmanager
def new_output(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` for a new file or folder. It is renamed to `path` at the end of the block.

    If the block raises, it is removed. Raises InputError if `path` is a file or folder that is not empty.
    """
    if (path.is_dir() and any(path.iterdir())) or (path.is_file() and path.stat().st_size):
        raise InputError(f"{path}: exists already; give another path or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    _remove(draft)
    try:
        yield draft
        draft.replace(path)
    finally:
        _remove(draft)


def require_exact_heads(spec: StoreSpec, form: str) -> None:
    """Raise InputError if rows have sampled entries, which `form` cannot express."""
    if spec.targets.has_sampled:
        raise InputError(
            f"{form}: can express only the largest log-probabilities of a row, but {spec.targets.mode} targets have "
            "sampled entries; export a topk or nucleus store, or use Parquet"
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
