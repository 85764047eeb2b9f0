"""Records to tensors: which rows count, padding, and the batch of a step. Knows nothing of the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.example import Segment
from cache.record import Window


def label_rows(segments: npt.NDArray[np.uint8], on_prompt: bool = False) -> npt.NDArray[np.int64]:
    """Rows whose next token is learned, int64 [rows]: those of the response, or all with `on_prompt`."""
    return np.flatnonzero((segments[1:] != Segment.PROMPT) | on_prompt)


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch of B examples padded on the right to length L, and its R rows that carry a loss.

    input_ids int64 [B, L]. rows int64 [R]: positions in the flattened [B * L]. labels int64 [R]: the next token.
    ids int64 [R, K], log_p float32 [R, K] (-inf where padded), log_tail float32 [R]; K = 0 without a teacher.
    """

    input_ids: Tensor
    rows: Tensor
    labels: Tensor
    ids: Tensor
    log_p: Tensor
    log_tail: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__slots__))


def collate(windows: Sequence[Window], with_targets: bool, on_prompt: bool = False) -> Batch:
    """Pad on the right: under a causal mask no real token sees the padding, so none needs a mask."""
    length = max(len(window) for window in windows)
    input_ids = np.zeros((len(windows), length), np.int64)
    rows, labels, ids, log_p, log_tail = [], [], [], [], []
    width = max((int(w.targets.counts.max(initial=0)) for w in windows), default=0) if with_targets else 0
    for b, window in enumerate(windows):
        tokens = window.tokens
        input_ids[b, : len(tokens)] = tokens
        picked = label_rows(window.segments, on_prompt)
        if with_targets:
            picked = picked[window.targets.counts[picked] > 0]
            held_ids, held_log_p = _dense(window, picked, width)
            ids.append(held_ids)
            log_p.append(held_log_p)
            log_tail.append(window.targets.log_tail[picked])
        rows.append(b * length + picked)
        labels.append(tokens[picked + 1].astype(np.int64))
    count = sum(map(len, rows))
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(labels)),
        torch.from_numpy(np.concatenate(ids)) if ids else torch.zeros(count, 0, dtype=torch.int64),
        torch.from_numpy(np.concatenate(log_p)) if log_p else torch.zeros(count, 0),
        torch.from_numpy(np.concatenate(log_tail)) if log_tail else torch.zeros(count),
    )


def _dense(
    window: Window, picked: npt.NDArray[np.int64], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Entries of the picked rows as [rows, width] arrays."""
    targets = window.targets
    ids = np.zeros((len(picked), width), np.int64)
    log_p = np.full((len(picked), width), -np.inf, np.float32)
    place = targets.offsets[picked, None] + np.arange(width)
    held = np.arange(width) < targets.counts[picked, None]
    ids[held] = targets.ids[place[held]]
    log_p[held] = targets.logprobs[place[held]]
    return ids, log_p
