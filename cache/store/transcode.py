"""Copy a store into another profile: the same ids and values, coded otherwise.

A stored value is a level of the grid plus the shift of its row, which the mass that the tail leaves decides. Rounding
such a value again may choose another level: first in flat rows, whose shift can exceed half a step. `on_grid` takes
the shift out before, so that levels, and with them the values that are read, stay what they are.
"""

from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.documents import unseal
from cache.errors import InputError
from cache.parts.layout import Profile
from cache.progress import Progress, no_progress
from cache.rows.codebook import Codebook
from cache.rows.codec import RESOLUTION, nearest_levels
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.base import Storage
from cache.storage.open import open_storage
from cache.store.codebook_claim import claim_codebook, read_codebook
from cache.store.codebook_learning import SAMPLE_ROWS, learn_codebook
from cache.store.commits import committed_units, create_store, quarantine, unit_name
from cache.store.fill import require_profile, require_same_profile, token_blocks
from cache.store.logit_store import LogitStore
from cache.store.sampling_order import permutation
from cache.store.snapshots import read_snapshot, take_snapshot
from cache.store.unit_writer import write_unit


def transcode(
    source: str,
    target: str,
    profile: Profile,
    snapshot: int | None = None,
    unit_examples: int | None = None,
    progress: Progress = no_progress,
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
    require_same_profile(storage, present, profile)
    codebook = _codebook(storage, store) if profile == "compact" else None
    for done, (name, unit) in enumerate(zip(names, plan, strict=True), start=1):
        if name not in present:
            records = [_unshifted(store[int(i)], store.spec) for i in unit]
            write_unit(storage, store.spec, records, profile, codebook, store.rounding(unit.tolist()))
        progress(done, len(plan))
    _copy_quarantine(store, storage)
    take_snapshot(storage)


def on_grid(targets: SparseTargets, spec: TargetSpec) -> SparseTargets:
    """Valid rows such that rounding finds the levels that rows read from a store were stored as.

    Only entries whose nearest level is another one change, to the value of their level; the row is then no longer
    normalised, which decoding does. Rows that no shift brings to the grid stay as they are.
    """
    filled = targets.exact_counts > 0
    if not filled.any() or spec.mode == "threshold":  # there levels are counted from the row's first, shifted or not
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
    reach = ceil((max(spec.tail_step, spec.step) / 2 + RESOLUTION) / spec.step) + 1
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


def _copy_quarantine(store: LogitStore, storage: Storage) -> None:
    if store.snapshot is None:
        return
    for key in read_snapshot(store.storage, store.snapshot).quarantine:
        name = f"quarantine/{key}.json"
        body = unseal(store.storage.read(name), f"{store.storage}/{name}")
        quarantine(storage, body["key"], body["id"], body["reason"])


def _place(uri: str) -> str:
    return uri.rstrip("/") if "://" in uri else str(Path(uri).resolve())
