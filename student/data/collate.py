"""Windows of examples to the tensors of a micro-batch: which rows count, what they weigh, padding and packing."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from cache.rows.record import Window
from cache.rows.sparse_targets import SparseTargets
from student.losses.batch import Batch
from student.losses.weighted_objectives import WeightedObjectives
from student.models.layout import PADDED, Layout


def collate(
    windows: Sequence[Window],
    objectives: WeightedObjectives,
    layout: Layout = PADDED,
    example_weights: npt.NDArray[np.float32] | None = None,
) -> Batch:
    """Put examples side by side. example_weights: float32 [examples]."""
    weights = [example_rows_weights(window, objectives) for window in windows]
    if example_weights is not None:
        weights = [rows * weight for rows, weight in zip(weights, example_weights, strict=True)]
    picked = [np.flatnonzero(rows.any(axis=0)) for rows in weights]
    inputs, rows = layout.place(windows, picked)
    ids, log_p, log_tail, entropy = _targets(windows, picked, objectives)
    labels = [window.tokens[kept + 1].astype(np.int64) for window, kept in zip(windows, picked, strict=True)]
    return Batch(
        {name: torch.from_numpy(array) for name, array in inputs.items()},
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(labels)),
        torch.from_numpy(ids),
        tuple(map(torch.from_numpy, log_p)),
        tuple(map(torch.from_numpy, log_tail)),
        torch.from_numpy(entropy),
        torch.from_numpy(np.concatenate([w[:, kept] for w, kept in zip(weights, picked, strict=True)], axis=1)),
    )


def example_rows_weights(window: Window, objectives: WeightedObjectives) -> npt.NDArray[np.float32]:
    """Weight of each row for each term, float32 [terms, tokens - 1]. Row j belongs to token j + 1."""
    weights = objectives.segment_weights[:, window.segments[1:]]
    teaches = window.targets.counts[:-1] > 0
    weights[np.ix_(np.array(objectives.needs_teacher), ~teaches)] = 0
    if objectives.average_examples:
        weights = weights / np.maximum((weights > 0).sum(axis=1, keepdims=True), 1)
    return weights.astype(np.float32)


def _targets(
    windows: Sequence[Window], picked: Sequence[npt.NDArray[np.int64]], objectives: WeightedObjectives
) -> tuple[
    npt.NDArray[np.int64], list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]], npt.NDArray[np.float32]
]:
    """Ids, log-probabilities and log tails at every temperature, and entropies, of the picked rows."""
    count = sum(map(len, picked))
    temperatures, form = objectives.temperatures, objectives.form
    if not temperatures:
        return np.zeros((count, 0), np.int64), [], [], np.full(count, np.nan, np.float32)
    kept = list(zip(windows, picked, strict=True))
    width = max((int(window.targets.counts[rows].max(initial=0)) for window, rows in kept), default=0)
    dense = [_dense(window.targets, rows, width) for window, rows in kept]
    ids, log_p = (np.concatenate(parts) for parts in zip(*dense, strict=True))
    log_tail = np.concatenate([window.targets.log_tail[rows] for window, rows in kept])
    entropy = [
        np.full(len(rows), np.nan, np.float32) if window.targets.entropy is None else window.targets.entropy[rows]
        for window, rows in kept
    ]
    at = []
    for temperature in temperatures:
        if temperature == 1:
            at.append((log_p, log_tail))
            continue
        column = form.temperatures.index(temperature)
        # Rows without entries, which hard labels may count, have none: NaN, which a weight of 0 would not take away.
        normalizers = [
            np.zeros(len(rows), np.float32)
            if w.targets.log_normalizers is None
            else np.nan_to_num(w.targets.log_normalizers[rows, column])
            for w, rows in kept
        ]
        at.append(at_temperature(log_p, np.concatenate(normalizers), temperature))
    return ids, [rows for rows, _ in at], [tail for _, tail in at], np.concatenate(entropy)


def at_temperature(
    log_p: npt.NDArray[np.float32], normalizer: npt.NDArray[np.float32], temperature: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Rows at another temperature: log p / T less log Z_T, [R, K], and the log of the mass that this leaves out, [R].

    log_p: float32 [R, K], -inf where padded. normalizer: float32 [R], log Z_T = log sum_V exp(log p / T). The stored
    values are rounded, so the entries may hold a little more than 1; the tail is then empty.
    """
    rows = (log_p / np.float32(temperature) - normalizer[:, None]).astype(np.float32)
    with np.errstate(divide="ignore"):
        log_tail = np.log(np.clip(1 - np.exp(rows, dtype=np.float64).sum(axis=1), 0, 1))
    return rows, log_tail.astype(np.float32)


def _dense(
    targets: SparseTargets, rows: npt.NDArray[np.int64], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Entries of the rows as [rows, width] arrays."""
    ids = np.zeros((len(rows), width), np.int64)
    log_p = np.full((len(rows), width), -np.inf, np.float32)
    place = targets.offsets[rows, None] + np.arange(width)
    held = np.arange(width) < targets.counts[rows, None]
    ids[held] = targets.ids[place[held]]
    log_p[held] = targets.logprobs[place[held]]
    return ids, log_p
