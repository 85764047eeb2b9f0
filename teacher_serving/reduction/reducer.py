"""Full logits to the rows of a store, a block at a time, on whatever device they are."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import TargetSpec
from teacher_serving.reduction.torch_backend import ReducedBlock, reduce_block

# Rows that one call of the compiled loops takes: their float32 copy, where one is needed, stays in the cache.
ROWS_PER_CALL = 8
MAX_ROWS = 512


@dataclass(frozen=True, slots=True)
class Rows:
    """targets: n rows. own: float32 [n], log-probability of the token that followed each row, NaN where not asked."""

    targets: SparseTargets
    token_logprobs: npt.NDArray[np.float32]


def concatenate_rows(rows: Sequence[Rows]) -> Rows:
    """All rows, in order."""
    if not rows:
        return Rows(empty_targets(0), np.zeros(0, np.float32))
    return Rows(concatenate([part.targets for part in rows]), np.concatenate([part.token_logprobs for part in rows]))


def select_rows(values: torch.Tensor, rows: npt.NDArray[np.int64]) -> torch.Tensor:
    """Rows (rising) of a tensor; a view where they are a run, since logits are too large to copy."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return values[int(rows[0]) : int(rows[-1]) + 1]
    return values[torch.from_numpy(rows).to(values.device)]


class Reducer:
    """Turns logits into rows as the target settings say. Holds no more than `memory_mib` of logits beside the model's.

    vocab_size: logits beyond it are padding of an engine and are cut off.
    """

    def __init__(self, targets: TargetSpec, vocab_size: int, threads: int = 1, memory_mib: int = 512) -> None:
        self._targets = targets
        self._vocab_size = vocab_size
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._memory = memory_mib << 20

    def block_rows(self, bytes_per_logit: int, on_gpu: bool) -> int:
        """Rows of logits to make at a time. On a GPU the reduction makes several copies in float32 and one in float64.

        Enough rows for the matrix product to run at full speed where the memory allows it.
        """
        each = self._vocab_size * (bytes_per_logit + (24 if on_gpu else 0))
        return max(1, min(4096 if on_gpu else MAX_ROWS, self._memory // each))

    def reduce_hidden(
        self,
        hidden: torch.Tensor,
        to_logits: Callable[[torch.Tensor], torch.Tensor | None],
        following: npt.NDArray[np.int64],
        uniforms: npt.NDArray[np.float64],
    ) -> Rows:
        """Rows of hidden states [n, hidden], whose logits are made block by block.

        A rank that holds no logits (to_logits gives None) returns no rows.
        """
        size = self.block_rows(hidden.element_size(), hidden.is_cuda)
        done = []
        for start in range(0, len(hidden), size):
            logits = to_logits(hidden[start : start + size])
            if logits is not None:
                block = slice(start, start + size)
                done.append(self.reduce(logits, following[block], uniforms[block]))
        return concatenate_rows(done)

    def reduce(self, logits: torch.Tensor, following: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64]) -> Rows:
        """Rows of logits [n, at least vocab_size].

        following: int64 [n], the token whose log-probability is wanted too, or -1. uniforms: float64
        [n, points] in [0, 1). A row without a finite distribution (a NaN, or an infinite logit) has no entries
        and an `own` of NaN.
        """
        logits = logits[:, : self._vocab_size]
        if logits.is_cuda:
            block = reduce_block(
                logits.float(),
                torch.from_numpy(following).to(logits.device),
                torch.from_numpy(uniforms).to(logits.device),
                self._targets,
            )
            return self._rows({name: getattr(block, name).cpu().numpy() for name in ReducedBlock.__slots__})
        return self._rows(self._reduce_on_cpu(logits, following, uniforms))

    def _reduce_on_cpu(
        self, logits: torch.Tensor, following: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64]
    ) -> dict[str, npt.NDArray[np.generic]]:
        from teacher_serving.reduction.kernels import reduce_rows

        n, targets = len(logits), self._targets
        most = min(targets.max_entries, self._vocab_size)
        out: dict[str, npt.NDArray[np.generic]] = {
            "ids": np.zeros((n, most), np.int64),
            "logprobs": np.zeros((n, most), np.float32),
            "exact": np.zeros(n, np.int64),
            "counts": np.zeros(n, np.int64),
            "log_tail": np.zeros(n, np.float32),
            "token_logprobs": np.full(n, np.nan, np.float32),
            "entropy": np.full(n, np.nan, np.float32),
            "log_normalizers": np.zeros((n, len(targets.temperatures)), np.float32),
        }
        plain = logits.dtype == torch.float32 and logits.stride(1) == 1

        def some(start: int) -> None:
            stop = min(start + ROWS_PER_CALL, n)
            block = logits[start:stop] if plain else logits[start:stop].float().contiguous()
            reduce_rows(
                block.numpy(),
                following[start:stop],
                uniforms[start:stop],
                most,
                targets.mass if targets.mode == "nucleus" else 2.0,
                targets.threshold,
                targets.draws,
                targets.entropy,
                np.asarray(targets.temperatures, np.float64),
                **{name: values[start:stop] for name, values in out.items()},
            )

        starts = range(0, n, ROWS_PER_CALL)
        if self._pool and len(starts) > 1:
            list(self._pool.map(some, starts))
        else:
            for start in starts:
                some(start)
        return out

    def _rows(self, block: dict[str, npt.NDArray[np.generic]]) -> Rows:
        counts = np.asarray(block["counts"], np.int64)
        bad = counts < 0
        counts = np.where(bad, 0, counts)
        held = np.arange(block["ids"].shape[1]) < counts[:, None]
        log_tail = np.where(bad, 0, np.asarray(block["log_tail"], np.float32)).astype(np.float32)
        targets = SparseTargets(
            np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            block["ids"][held].astype(np.uint32),
            np.asarray(block["logprobs"][held], np.float32),
            log_tail,
            np.where(bad, 0, np.asarray(block["exact"], np.int64)) if self._targets.has_sampled else None,
            np.asarray(block["entropy"], np.float32) if self._targets.entropy else None,
            np.asarray(block["log_normalizers"], np.float32) if self._targets.temperatures else None,
        )
        return Rows(targets, np.where(bad, np.nan, np.asarray(block["token_logprobs"], np.float32)).astype(np.float32))
