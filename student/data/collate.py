"""Windows of examples to the tensors of a micro-batch: which rows have a loss, their weights, and their targets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from cache.rows.record import Window
from cache.rows.sparse_targets import SparseTargets
from student.losses.batch import Batch
from student.losses.temperature import sparse_at_temperature
from student.losses.weighted_objectives import WeightedObjectives
from student.models.rows.layout import PADDED, Layout

Rows = npt.NDArray[np.int64]


class DenseTargets(NamedTuple):
    """Targets of R rows, padded to the same number of entries.

    ids: int64 [R, K]. log_p, log_tail: for each temperature, float32 [R, K] (-inf where padded) and [R].
    entropy: float32 [R], NaN where it is unknown.
    """

    ids: npt.NDArray[np.int64]
    log_p: list[npt.NDArray[np.float32]]
    log_tail: list[npt.NDArray[np.float32]]
    entropy: npt.NDArray[np.float32]


def collate(
    windows: Sequence[Window],
    objectives: WeightedObjectives,
    layout: Layout = PADDED,
    example_weights: npt.NDArray[np.float32] | None = None,
    row_of: Sequence[int] | None = None,
) -> Batch:
    """Make a micro-batch of examples.

    example_weights: float32 [examples, terms] or [examples, 1], by which the row weights of each term are multiplied.
    row_of: the row that is planned for each example, if several share one; None to let the layout choose.
    Only rows with a weight above 0 in some term are in the batch.
    """
    weights = [row_weights(window, objectives) for window in windows]
    if example_weights is not None:
        weights = [rows * own[:, None] for rows, own in zip(weights, example_weights, strict=True)]
    selected = [np.flatnonzero(rows.any(axis=0)) for rows in weights]
    inputs, rows = layout.arrange(windows, selected, row_of)
    targets = _dense_targets(windows, selected, objectives)
    labels = [window.tokens[own + 1].astype(np.int64) for window, own in zip(windows, selected, strict=True)]
    return Batch(
        {name: torch.from_numpy(array) for name, array in inputs.items()},
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(labels)),
        torch.from_numpy(targets.ids),
        tuple(map(torch.from_numpy, targets.log_p)),
        tuple(map(torch.from_numpy, targets.log_tail)),
        torch.from_numpy(targets.entropy),
        torch.from_numpy(np.concatenate([w[:, own] for w, own in zip(weights, selected, strict=True)], axis=1)),
        sum(not len(own) for own in selected),
    )


def row_weights(window: Window, objectives: WeightedObjectives) -> npt.NDArray[np.float32]:
    """Weight of each row for each term, float32 [terms, tokens - 1]. Row j predicts token j + 1."""
    weights = objectives.segment_weights[:, window.segments[1:]]
    has_target = window.targets.counts[:-1] > 0
    weights[np.ix_(np.array(objectives.needs_teacher), ~has_target)] = 0
    weights = _weighted_by_perplexity(weights, window.targets.entropy, objectives)
    if objectives.average_examples:
        weights = weights / np.maximum((weights > 0).sum(axis=1, keepdims=True), 1)
    return weights.astype(np.float32)


def _weighted_by_perplexity(
    weights: npt.NDArray[np.float32], entropy: npt.NDArray[np.float32] | None, objectives: WeightedObjectives
) -> npt.NDArray[np.float32]:
    """Row weights, times a power of the teacher's perplexity. It is 1 for a token without a target.

    Where a mean is over examples, the factors of an example have a mean of 1: no example counts more than another.
    """
    if entropy is None or not any(objectives.perplexity_powers):
        return weights
    known = np.nan_to_num(entropy[:-1], nan=0.0)
    weighted = []
    for own, power in zip(weights, objectives.perplexity_powers, strict=True):
        factors = np.exp((power or 0.0) * known)
        if objectives.average_examples and own.any():
            factors /= factors[own > 0].mean()
        weighted.append(own * factors)
    return np.stack(weighted)


def _dense_targets(windows: Sequence[Window], selected: Sequence[Rows], objectives: WeightedObjectives) -> DenseTargets:
    """Targets of the selected rows of each window, at every temperature of the objectives."""
    count = sum(map(len, selected))
    if not objectives.temperatures:
        return DenseTargets(np.zeros((count, 0), np.int64), [], [], np.full(count, np.nan, np.float32))
    parts = [(window.targets, rows) for window, rows in zip(windows, selected, strict=True)]
    width = max((int(targets.counts[rows].max(initial=0)) for targets, rows in parts), default=0)
    dense = [targets.dense(rows, width) for targets, rows in parts]
    ids, log_p = (np.concatenate(arrays) for arrays in zip(*dense, strict=True))
    log_tail = np.concatenate([targets.log_tail[rows] for targets, rows in parts])
    entropy = [
        np.full(len(rows), np.nan, np.float32) if targets.entropy is None else targets.entropy[rows]
        for targets, rows in parts
    ]
    by_temperature = [
        (log_p, log_tail)
        if temperature == 1
        else sparse_at_temperature(
            log_p, _log_normalizers(parts, objectives.form.temperatures.index(temperature)), temperature
        )
        for temperature in objectives.temperatures
    ]
    return DenseTargets(
        ids, [rows for rows, _ in by_temperature], [tails for _, tails in by_temperature], np.concatenate(entropy)
    )


def _log_normalizers(parts: Sequence[tuple[SparseTargets, Rows]], column: int) -> npt.NDArray[np.float32]:
    """A column of the stored log-normalisers of the rows, float32 [R].

    Rows without entries, which hard labels may use, have NaN. It becomes 0, because NaN times a weight of 0 is NaN.
    """
    return np.concatenate(
        [
            np.zeros(len(rows), np.float32)
            if targets.log_normalizers is None
            else np.nan_to_num(targets.log_normalizers[rows, column])
            for targets, rows in parts
        ]
    )
