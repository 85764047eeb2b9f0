"""Copy a store into another profile: the same ids and values with another encoding.

A stored value is a level of the grid plus the shift of its row, which follows from the mass of the tail. Rounding such
a value again may select another level, most often in flat rows, whose shift can exceed half a step. `on_grid` removes
the shift first. Then the levels stay the same, and so do the values that are read.
"""

from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.permutation import sorted_permutation
from cache.parts.codebook_learning import SAMPLE_ROWS, learn_codebook
from cache.parts.layout import Profile
from cache.progress import Progress, no_progress
from cache.rows.codebook import Codebook
from cache.rows.codec import RESOLUTION, nearest_levels
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.base import Storage
from cache.storage.open import open_storage
from cache.store.claims.codebook_claim import claim_codebook, newest_codebook
from cache.store.claims.tokenizer_files import transfer_tokenizer
from cache.store.commits import committed_units, create_store, unit_name
from cache.store.fill import require_profile, require_same_profile
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import document_path, quarantine_example, read_entry
from cache.store.reading.blocks import token_blocks
from cache.store.snapshot_reading import open_snapshot
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit


def transcode_store(
    source: str,
    target: str,
    profile: Profile,
    snapshot: int | None = None,
    unit_examples: int | None = None,
    progress: Progress = no_progress,
) -> None:
    """Copy a snapshot (default: the newest) of the store at `source` to the store at `target`, in `profile`.

    Ids and log-probabilities stay the same; entries of one level may change their order. Units stay the same too,
    unless `unit_examples` sets another size; an example in two units is copied once. The codebook of a compact target
    is learned from the whole source, not from a first unit, so this can make a store smaller.
    Units that the target contains already are skipped, so a rerun continues. At the end a snapshot is taken.
    progress: called with (units done, units). Memory: one unit and, for a codebook, SAMPLE_ROWS rows.
    Raises StoreError if the source cannot be read, or if the target has another spec or units in another profile.
    """
    require_profile(profile)
    if unit_examples is not None and unit_examples < 1:
        raise InputError(f"{unit_examples} examples a unit; give 1 or more")
    if _normalised_uri(source) == _normalised_uri(target):
        raise InputError(f"{target}: is the source itself; give another store as target")
    store = LogitStore.open(source, snapshot)
    storage = open_storage(target)
    create_store(storage, store.spec)
    transfer_tokenizer(store.storage, storage)
    units = _units(store, unit_examples)
    names = [unit_name([store.key(int(i)) for i in unit]) for unit in units]
    present = set(committed_units(storage)) & set(names)
    require_same_profile(storage, present, profile)
    codebook = _codebook(storage, store) if profile == "compact" else None
    for done, (name, unit) in enumerate(zip(names, units, strict=True), start=1):
        if name not in present:
            records = [_unshifted(record, store.spec) for record in store[unit]]
            write_unit(storage, store.spec, records, profile, codebook, store.rounding(unit.tolist()))
        progress(done, len(units))
    _copy_quarantine(store, storage)
    take_snapshot(storage)


def on_grid(targets: SparseTargets, spec: TargetSpec) -> SparseTargets:
    """Move rows that were read from a store back to the grid, so that rounding finds the levels that were stored.

    An entry changes only if its nearest level is another one; it then gets the value of its level. The row is no longer
    normalised, which decoding repairs. Rows that no shift moves to the grid stay the same.
    """
    has_exact = targets.exact_counts > 0
    # In threshold mode levels are relative to the first entry of the row, so a shift does not matter.
    if not has_exact.any() or spec.mode == "threshold":
        return targets
    grid = spec.grid.astype(np.float64)
    values = targets.logprobs.astype(np.float64)
    exact = targets.rank_of_entry < np.repeat(targets.exact_counts, targets.counts)
    starts = targets.offsets[:-1][has_exact]
    row_of_entry = np.repeat(np.cumsum(has_exact) - 1, targets.counts)
    nearest = nearest_levels(targets, spec.grid)
    levels = nearest.astype(np.int64)
    is_open = np.ones(len(starts), bool)
    # A shift is a mean of rounding errors, at most half of the coarsest step, plus the rounding of the tail.
    reach = ceil((max(spec.tail_step, spec.step) / 2 + RESOLUTION) / spec.step) + 1
    for distance in sorted(range(-reach, reach + 1), key=abs):
        first = nearest[starts].astype(np.int64) + distance
        is_candidate = is_open & (first >= 0) & (first < len(grid))
        shift = values[starts] - grid[np.clip(first, 0, len(grid) - 1)]
        moved = np.where(exact, values - shift[row_of_entry], values)
        candidate = nearest_levels(replace(targets, logprobs=moved.astype(np.float32)), spec.grid)
        is_close = np.abs(moved - grid[candidate]) <= np.finfo(np.float32).eps * (1 + np.abs(values))
        fits = is_candidate & np.logical_and.reduceat(is_close | ~exact, starts)
        levels = np.where(fits[row_of_entry], candidate, levels)
        is_open &= ~fits
        if not is_open.any():
            break
    has_moved = exact & (levels != nearest)
    return replace(targets, logprobs=np.where(has_moved, spec.grid[levels], targets.logprobs))


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
    """The target's codebook. If it has none, one is learned from an even sample of the source; None without rows."""
    _, existing = newest_codebook(storage, store.spec.vocab_size)
    if existing is not None or not store.rows.any():
        return existing
    order = sorted_permutation(len(store), seed=0, number=0)
    enough = int(np.searchsorted(np.cumsum(store.rows[order], dtype=np.int64), SAMPLE_ROWS)) + 1
    sample = np.sort(order[:enough])
    targets, tokens = [], []
    for block in token_blocks(store.tokens[sample]):
        windows = []
        for window in store.read([int(i) for i in sample[block.start : block.stop]]):
            rows = np.flatnonzero(window.targets.counts)
            if len(rows):
                windows.append(window.part(int(rows[0]), int(rows[-1]) + 1))
        # Copies: views would keep the longer runs in memory.
        targets.append(concatenate([window.targets for window in windows]))
        tokens += [window.tokens.copy() for window in windows]
    learned = learn_codebook(concatenate(targets), np.concatenate(tokens), store.spec.targets, store.spec.vocab_size)
    return claim_codebook(storage, 1, learned)


def _copy_quarantine(store: LogitStore, storage: Storage) -> None:
    if store.snapshot is None:
        return
    for key in open_snapshot(store.storage, store.snapshot, quiet=True)[0].quarantine:
        if store.storage.size(document_path(key)) is not None:  # a retry may have removed it after the snapshot
            entry = read_entry(store.storage, key)
            quarantine_example(storage, key, entry.id, entry.reason, entry.time)


def _normalised_uri(uri: str) -> str:
    return uri.rstrip("/") if "://" in uri else str(Path(uri).resolve())
