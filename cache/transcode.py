"""Copy a store into another profile; and what every exchange format shares: blocks, outputs, stores filled by records.

A stored value is a level of the grid plus the shift of its row, which the mass that the tail leaves decides. Rounding
such a value again may choose another level: first in flat rows, whose shift can exceed half a step. `on_grid` takes
the shift out before, so that levels, and with them the values that are read, stay what they are.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codebook import Codebook
from cache.codebooks import claim_codebook, read_codebook
from cache.codec import nearest_levels
from cache.commits import commit_path, committed_units, create_store, quarantine, read_commit, unit_name
from cache.documents import unseal
from cache.errors import InputError, StoreError
from cache.grid import LOWEST_LOGPROB
from cache.layout import PROFILES, Profile
from cache.learning import SAMPLE_ROWS, learn_codebook
from cache.order import permutation
from cache.reader import LogitStore
from cache.record import Record
from cache.snapshots import read_snapshot, take_snapshot
from cache.spec import StoreSpec, TargetSpec
from cache.storage import Storage, open_storage
from cache.targets import SparseTargets, concatenate
from cache.writer import write_unit

# Tokens that are held decoded at a time; at k = 64 about 0.6 KB each.
BLOCK_TOKENS = 1 << 13
UNIT_EXAMPLES = 256
# Least tail of a row whose tail is what its values leave: below it their rounding decides.
LEAST_TAIL = 1e-7
# Values that others approximated can come out a little above 0.
ABOVE_ZERO = 0.1
Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """The progress of whoever does not want to see any."""


def transcode(
    source: str,
    target: str,
    profile: Profile,
    snapshot: int | None = None,
    unit_examples: int | None = None,
    progress: Progress = silent,
) -> None:
    """Copy a snapshot (the newest by default) of the store at `source` to the store at `target`, in `profile`.

    Ids and log-probabilities stay what they are; entries of one level may change places. Units stay too, unless
    `unit_examples` asks for others, but an example that two units hold is copied once. The codebook of a compact
    target is learned from all of the source, not from a first unit: this recodes a store smaller.
    What the target already holds is skipped, so a rerun continues; at the end a snapshot is taken.
    progress: called with (units done, units). Memory is that of a unit and, for a codebook, of SAMPLE_ROWS rows.
    Raises StoreError where the source cannot be read, or the target is another store or has units in another profile.
    """
    require_profile(profile)
    if unit_examples is not None and unit_examples < 1:
        raise InputError(f"{unit_examples} examples a unit; give 1 or more")
    if _place(source) == _place(target):
        raise InputError(f"{target}: is the source itself; give another store as target")
    store = LogitStore.open(source, snapshot)
    storage = open_storage(target)
    create_store(storage, store.spec)
    plan = _units(store, unit_examples)
    names = [unit_name([store.key(int(i)) for i in unit]) for unit in plan]
    present = set(committed_units(storage)) & set(names)
    _require_same_profile(storage, present, profile)
    codebook = _codebook(storage, store) if profile == "compact" else None
    for done, (name, unit) in enumerate(zip(names, plan, strict=True), start=1):
        if name not in present:
            write_unit(storage, store.spec, [_unshifted(store[int(i)], store.spec) for i in unit], profile, codebook)
        progress(done, len(plan))
    _copy_quarantine(store, storage)
    take_snapshot(storage)


def on_grid(targets: SparseTargets, spec: TargetSpec) -> SparseTargets:
    """Valid rows such that rounding finds the levels that rows read from a store were stored as.

    Only entries whose nearest level is another one change, to the value of their level; the row is then no longer
    normalised, which decoding does. Rows that no shift brings to the grid stay as they are.
    """
    filled = targets.exact_counts > 0
    if not filled.any():
        return targets
    grid = spec.grid.astype(np.float64)
    values = targets.logprobs.astype(np.float64)
    exact = targets.rank_of_entry < np.repeat(targets.exact_counts, targets.counts)
    starts = targets.offsets[:-1][filled]
    row_of_entry = np.repeat(np.cumsum(filled) - 1, targets.counts)
    nearest = nearest_levels(targets, spec.grid)
    levels = nearest.astype(np.int64)
    open_rows = np.ones(len(starts), bool)
    # A shift is a mean of rounding errors, at most half of the coarsest step, and the rounding of the tail.
    reach = ceil((max(spec.tail_step, spec.step) / 2 + 1 / 64) / spec.step) + 1
    for distance in sorted(range(-reach, reach + 1), key=abs):
        first = nearest[starts].astype(np.int64) + distance
        open_here = open_rows & (first >= 0) & (first < len(grid))
        shift = values[starts] - grid[np.clip(first, 0, len(grid) - 1)]
        moved = np.where(exact, values - shift[row_of_entry], values)
        candidate = nearest_levels(replace(targets, logprobs=moved.astype(np.float32)), spec.grid)
        close = np.abs(moved - grid[candidate]) <= np.finfo(np.float32).eps * (1 + np.abs(values))
        fits = open_here & np.logical_and.reduceat(close | ~exact, starts)
        levels = np.where(fits[row_of_entry], candidate, levels)
        open_rows &= ~fits
        if not open_rows.any():
            break
    strayed = exact & (levels != nearest)
    return replace(targets, logprobs=np.where(strayed, spec.grid[levels], targets.logprobs))


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
        _require_same_profile(storage, present & {name}, profile)
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


def _units(store: LogitStore, unit_examples: int | None) -> list[npt.NDArray[np.int64]]:
    """Examples of each unit of the target."""
    examples = np.arange(len(store))
    if unit_examples is None:
        cuts = np.flatnonzero(np.diff(store.index.unit_of)) + 1
    else:
        cuts = np.arange(unit_examples, len(store), unit_examples)
    return [unit for unit in np.split(examples, cuts) if len(unit)]


def _unshifted(record: Record, spec: StoreSpec) -> Record:
    return replace(record, targets=on_grid(record.targets, spec.targets))


def _codebook(storage: Storage, store: LogitStore) -> Codebook | None:
    """The target's codebook, learned from an even sample of the source where it has none. None if there is no row."""
    found = read_codebook(storage, store.spec.vocab_size)
    if found is not None or not store.rows.any():
        return found
    order = permutation(len(store), seed=0, epoch=0)
    enough = int(np.searchsorted(np.cumsum(store.rows[order], dtype=np.int64), SAMPLE_ROWS)) + 1
    chosen = np.sort(order[:enough])
    targets, tokens = [], []
    for block in token_blocks(store.tokens[chosen]):
        parts = []
        for window in store.read([int(i) for i in chosen[block.start : block.stop]]):
            rows = np.flatnonzero(window.targets.counts)
            if len(rows):
                parts.append(window.part(int(rows[0]), int(rows[-1]) + 1))
        targets.append(concatenate([part.targets for part in parts]))  # copies: a view would hold its whole run
        tokens += [part.tokens.copy() for part in parts]
    learned = learn_codebook(concatenate(targets), np.concatenate(tokens), store.spec.targets, store.spec.vocab_size)
    return claim_codebook(storage, learned)


def _require_same_profile(storage: Storage, units: Iterable[str], profile: Profile) -> None:
    for unit in units:
        found = read_commit(storage, unit)[0].place.profile
        if found != profile:
            raise StoreError(
                f"{storage}/{commit_path(unit)}: is already there in profile {found}, wanted {profile}; "
                "give another target"
            )


def _copy_quarantine(store: LogitStore, storage: Storage) -> None:
    if store.snapshot is None:
        return
    for key in read_snapshot(store.storage, store.snapshot).quarantine:
        name = f"quarantine/{key}.json"
        body = unseal(store.storage.read(name), f"{store.storage}/{name}")
        quarantine(storage, body["key"], body["id"], body["reason"])


def _place(uri: str) -> str:
    return uri.rstrip("/") if "://" in uri else str(Path(uri).resolve())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
