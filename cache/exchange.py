"""What all forms of export and import share: outputs that appear whole, stores that fill up unit by unit."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codebooks import read_codebook
from cache.commits import commit_path, committed_units, create_store, read_commit, unit_name
from cache.errors import InputError, StoreError
from cache.grid import LOWEST_LOGPROB
from cache.layout import PROFILES, Profile
from cache.record import Record
from cache.snapshots import take_snapshot
from cache.spec import StoreSpec
from cache.storage import Storage, open_storage
from cache.targets import SparseTargets
from cache.writer import write_unit

Progress = Callable[[int, int], None]

# Tokens that are held decoded at a time; at k = 64 about 0.6 KB each.
BLOCK_TOKENS = 1 << 13
UNIT_EXAMPLES = 256
# Least tail of a row whose tail is what its values leave: below it their rounding decides.
LEAST_TAIL = 1e-7
# Values that others approximated can come out a little above 0.
ABOVE_ZERO = 0.1


def silent(done: int, total: int) -> None:
    """The progress of whoever does not want to see any."""


def fill_store(
    uri: str,
    spec: StoreSpec,
    records: Iterable[Record],
    total: int,
    profile: Profile = "compact",
    unit_examples: int = UNIT_EXAMPLES,
    progress: Progress = silent,
) -> None:
    """Write records to the store at `uri`, in units of `unit_examples`, and take a snapshot.

    The store is claimed with the first unit. Units that it already holds are skipped, so the same records again
    continue what was interrupted. progress: called with (examples done, total).
    Raises InputError for a record that is not valid or where there is none, StoreError where the store is another.
    """
    require_profile(profile)
    if unit_examples < 1:
        raise InputError(f"{unit_examples} examples a unit; give 1 or more")
    storage, codebook, done = open_storage(uri), None, 0
    present: set[str] = set()
    source = iter(records)
    while unit := list(islice(source, unit_examples)):
        if not done:
            create_store(storage, spec)
            present = set(committed_units(storage))
        name = unit_name([record.key for record in unit])
        require_same_profile(storage, present & {name}, profile)
        if name not in present:
            if profile == "compact" and codebook is None:
                codebook = read_codebook(storage, spec.vocab_size)  # None before the first unit, which brings it
            write_unit(storage, spec, unit, profile, codebook)
        done += len(unit)
        progress(done, total)
    if not done:
        raise InputError(f"{uri}: nothing to store: the source has no examples")
    take_snapshot(storage)


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
        tail = np.minimum(np.log(np.maximum(1 - np.exp(values).sum(axis=1), LEAST_TAIL)), below_zero)
    tail = np.where(kept.any(axis=1), tail, 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept.sum(axis=1))])
    return SparseTargets(offsets, ids[kept].astype(np.uint32), values[kept].astype(np.float32), tail.astype(np.float32))


def token_blocks(lengths: npt.NDArray[Any], most: int = BLOCK_TOKENS) -> Iterator[range]:
    """Runs of neighbours that together have at most `most` tokens, or are one. lengths: tokens of each, [examples]."""
    start, held = 0, 0
    for i, length in enumerate(lengths.tolist()):
        if i > start and held + length > most:
            yield range(start, i)
            start, held = i, 0
        held += length
    if start < len(lengths):
        yield range(start, len(lengths))


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


def require_profile(profile: str) -> None:
    """Raise InputError unless `profile` is one of a store's."""
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r}: unknown; give one of {', '.join(PROFILES)}")


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


def require_same_profile(storage: Storage, units: Iterable[str], profile: Profile) -> None:
    """Raise StoreError where one of the committed units is in another profile."""
    for unit in units:
        found = read_commit(storage, unit)[0].place.profile
        if found != profile:
            raise StoreError(
                f"{storage}/{commit_path(unit)}: is already there in profile {found}, wanted {profile}; "
                "give another target"
            )
