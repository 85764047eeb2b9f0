"""Reduce full logits to the sparse rows of a store, block by block, on the device where the logits are."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache.errors import LogitbankError
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import TargetSpec
from teacher_serving.reduction.draws import row_uniforms
from teacher_serving.reduction.torch_backend import ReducedBlock, reduce_block

# Rows of one call of the kernels. If logits need a float32 copy, that copy stays in the CPU cache.
ROWS_PER_CALL = 8
MAX_CPU_ROWS = 512
MAX_GPU_ROWS = 4096
# Bytes that the torch reduction needs per logit, beside the logits themselves. On a CPU up to 11, 10, 35 and 18 were
# measured for these modes; sorting on a GPU takes more.
GPU_BYTES_PER_LOGIT = {"topk": 24, "nucleus": 24, "threshold": 40, "sampled": 40}
# Rows and greatest accepted difference, in nats, of the comparison of the compiled kernels with torch.
CHECKED_ROWS = 8
MAX_KERNEL_DIFFERENCE = 1e-4


@dataclass(frozen=True, slots=True)
class Rows:
    """Sparse rows and the log-probability of the token after each.

    targets: n rows. token_logprobs: float32 [n]; NaN where the next token was not given.
    """

    targets: SparseTargets
    token_logprobs: npt.NDArray[np.float32]


def concatenate_rows(parts: Sequence[Rows]) -> Rows:
    """Return all rows of all parts in order."""
    if not parts:
        return Rows(empty_targets(0), np.zeros(0, np.float32))
    token_logprobs = np.concatenate([part.token_logprobs for part in parts])
    return Rows(concatenate([part.targets for part in parts]), token_logprobs)


class ReductionError(LogitbankError):
    """A block of rows could not be reduced. The logits of all blocks were computed nevertheless."""


def select_rows(values: torch.Tensor, rows: npt.NDArray[np.int64]) -> torch.Tensor:
    """Return the given rows of a tensor, in any order. Consecutive rows are a view, because logits are large."""
    if len(rows) and (np.diff(rows) == 1).all():
        return values[int(rows[0]) : int(rows[-1]) + 1]
    return values[torch.from_numpy(rows).to(values.device)]


class Reducer:
    """Reduce logits to rows as the target settings require.

    vocab_size: logits from there on are padding of an engine and are ignored. threads: CPU threads for logits on a CPU.
    memory_mib: limit for logits that the reducer makes or copies itself.
    """

    def __init__(self, targets: TargetSpec, vocab_size: int, threads: int = 1, memory_mib: int = 512) -> None:
        self._targets = targets
        self._vocab_size = vocab_size
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._memory = memory_mib << 20

    def block_rows(self, bytes_per_logit: int, on_gpu: bool) -> int:
        """Return the number of rows per block: as many as the memory allows, so that the LM head runs at full speed."""
        row_bytes = self._vocab_size * (bytes_per_logit + (GPU_BYTES_PER_LOGIT[self._targets.mode] if on_gpu else 0))
        return max(1, min(MAX_GPU_ROWS if on_gpu else MAX_CPU_ROWS, self._memory // row_bytes))

    def reduce_hidden(
        self,
        hidden: torch.Tensor,
        to_logits: Callable[[torch.Tensor], torch.Tensor | None],
        next_tokens: npt.NDArray[np.int64],
        uniforms: npt.NDArray[np.float64],
    ) -> Rows:
        """Reduce hidden states [n, hidden]; their logits are computed block by block.

        On a rank of a parallel model that has no logits, to_logits returns None and the result has no rows. Every rank
        calls to_logits for every block, also after a failure, because other ranks wait for it there. Raises
        ReductionError after the last block if a block could not be reduced.
        """
        size = self.block_rows(hidden.element_size(), hidden.is_cuda)
        parts: list[Rows] = []
        failure: Exception | None = None
        for start in range(0, len(hidden), size):
            logits = to_logits(hidden[start : start + size])
            if logits is None or failure is not None:
                continue
            block = slice(start, start + size)
            try:
                parts.append(self.reduce(logits, next_tokens[block], uniforms[block]))
            except Exception as error:
                failure = error
        if failure is not None:
            raise ReductionError(f"{type(failure).__name__}: {failure}") from failure
        return concatenate_rows(parts)

    def reduce(
        self, logits: torch.Tensor, next_tokens: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64]
    ) -> Rows:
        """Reduce logits [n, at least vocab_size].

        next_tokens: int64 [n], the token after each row, or -1. uniforms: float64 [n, numbers] in [0, 1), from
        draws.row_uniforms. A row without a finite distribution (a NaN or +inf among the logits, or only -inf) gets no
        entries and a token log-probability of NaN.
        """
        logits = logits[:, : self._vocab_size]
        if not logits.is_cuda:
            return self.rows_from_block(self._reduce_on_cpu(logits, next_tokens, uniforms))
        size = self.block_rows(0, on_gpu=True)
        starts = range(0, max(1, len(logits)), size)
        return concatenate_rows(
            [
                self.reduce_with_torch(logits[i : i + size], next_tokens[i : i + size], uniforms[i : i + size])
                for i in starts
            ]
        )

    def reduce_with_torch(
        self, logits: torch.Tensor, next_tokens: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64]
    ) -> Rows:
        """Reduce one block like `reduce`, with torch on the device of the logits."""
        block = reduce_block(
            logits.float(),
            torch.from_numpy(next_tokens).to(logits.device),
            torch.from_numpy(uniforms).to(logits.device),
            self._targets,
        )
        return self.rows_from_block({name: getattr(block, name).cpu().numpy() for name in ReducedBlock.__slots__})

    def _reduce_on_cpu(
        self, logits: torch.Tensor, next_tokens: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64]
    ) -> Mapping[str, npt.NDArray[Any]]:
        from teacher_serving.reduction.kernels import ReducedArrays, ReductionRule, reduce_rows

        n, targets = len(logits), self._targets
        max_entries = min(targets.max_entries, self._vocab_size)
        rule = ReductionRule(
            max_entries,
            targets.mass if targets.mode == "nucleus" else 2.0,
            targets.threshold,
            targets.draws,
            targets.entropy,
            np.asarray(targets.temperatures, np.float64),
        )
        out = ReducedArrays(
            ids=np.zeros((n, max_entries), np.int64),
            logprobs=np.zeros((n, max_entries), np.float32),
            exact=np.zeros(n, np.int64),
            counts=np.zeros(n, np.int64),
            log_tail=np.zeros(n, np.float32),
            token_logprobs=np.full(n, np.nan, np.float32),
            entropy=np.full(n, np.nan, np.float32),
            log_normalizers=np.zeros((n, len(targets.temperatures)), np.float32),
        )
        needs_copy = logits.dtype != torch.float32 or logits.stride(1) != 1

        def reduce_from(start: int) -> None:
            rows = slice(start, min(start + ROWS_PER_CALL, n))
            block = logits[rows].float().contiguous() if needs_copy else logits[rows]
            part = ReducedArrays._make(values[rows] for values in out)
            reduce_rows(block.numpy(), next_tokens[rows], uniforms[rows], rule, part)

        starts = range(0, n, ROWS_PER_CALL)
        if self._pool and len(starts) > 1:
            list(self._pool.map(reduce_from, starts))
        else:
            for start in starts:
                reduce_from(start)
        return out._asdict()

    def check_kernels(self) -> str:
        """Compare `reduce` with torch on a few rows of random logits. Returns how they differ, or ""."""
        rng = np.random.default_rng(0)
        logits = torch.from_numpy(rng.normal(0, 4, (CHECKED_ROWS, self._vocab_size)).astype(np.float32))
        next_tokens = rng.integers(0, self._vocab_size, CHECKED_ROWS)
        uniforms = row_uniforms(self._targets, "0" * 32, np.arange(CHECKED_ROWS))
        ours, theirs = (make(logits, next_tokens, uniforms) for make in (self.reduce, self.reduce_with_torch))
        if not np.array_equal(ours.targets.exact_counts, theirs.targets.exact_counts):
            return "the compiled kernels keep other numbers of entries than torch"
        for name in ("log_tail", "entropy", "log_normalizers", "token_logprobs"):
            one, two = (getattr(rows if name == "token_logprobs" else rows.targets, name) for rows in (ours, theirs))
            if one is not None and not np.allclose(one, two, rtol=0, atol=MAX_KERNEL_DIFFERENCE):
                return f"{name} of the compiled kernels and of torch differ by {np.abs(one - two).max():.2g}"
        for i in range(CHECKED_ROWS):
            one, two = (rows.targets.rows(i, i + 1) for rows in (ours, theirs))
            n = int(one.exact_counts[0])
            # Logits differ in the last digit, which may move a draw to the id beside it.
            moved = len(set(one.ids[n:].tolist()) ^ set(two.ids[n:].tolist()))
            if moved > 2 or not np.array_equal(one.ids[:n], two.ids[:n]):
                return "the compiled kernels keep other token ids than torch"
            if not np.allclose(one.logprobs[:n], two.logprobs[:n], rtol=0, atol=MAX_KERNEL_DIFFERENCE):
                return "log-probabilities of the compiled kernels and of torch differ"
        return ""

    def rows_from_block(self, block: Mapping[str, npt.NDArray[Any]]) -> Rows:
        """Return rows from the arrays of a reduction by name; see ReducedBlock and kernels.ReducedArrays."""
        counts = np.asarray(block["counts"], np.int64)
        is_invalid = counts < 0
        counts = np.where(is_invalid, 0, counts)
        is_entry = np.arange(block["ids"].shape[1]) < counts[:, None]
        log_tail = np.where(is_invalid, 0, np.asarray(block["log_tail"], np.float32)).astype(np.float32)
        targets = SparseTargets(
            np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            block["ids"][is_entry].astype(np.uint32),
            np.asarray(block["logprobs"][is_entry], np.float32),
            log_tail,
            np.where(is_invalid, 0, np.asarray(block["exact"], np.int64)) if self._targets.has_sampled else None,
            np.asarray(block["entropy"], np.float32) if self._targets.entropy else None,
            np.asarray(block["log_normalizers"], np.float32) if self._targets.temperatures else None,
        )
        token_logprobs = np.where(is_invalid, np.nan, np.asarray(block["token_logprobs"], np.float32))
        return Rows(targets, token_logprobs.astype(np.float32))
