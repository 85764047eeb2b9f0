"""Move values that were read from a store back to the grid, so that they can be stored again as they were.

A stored value is a level of the grid plus the shift of its row, which follows from the mass of the tail. Rounding such
a value again may select another level, most often in flat rows, whose shift can exceed half a step. `on_grid` removes
the shift first. Then the levels stay the same, and so do the values that are read.
"""

from dataclasses import replace
from math import ceil

import numpy as np

from cache.rows.codec import RESOLUTION, nearest_levels
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec


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
