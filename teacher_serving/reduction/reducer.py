"""Reduce full logits to the sparse rows of a store, block by block, on the device where the logits are."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache.errors import LogitbankError
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec
from teacher_serving.reduction.draws import row_uniforms
from teacher_serving.reduction.kernel_check import difference_between
from teacher_serving.reduction.rows import Rows, concatenate_rows
from teacher_serving.reduction.torch_backend import ReducedBlock, reduce_block
from teacher_serving.reduction.triton_backend import missing_for, start_on_gpu

MAX_CPU_ROWS = 512
MAX_GPU_ROWS = 4096
# Bytes that the reductions on a GPU need per logit, beside the logits themselves. For torch, up to 11, 10, 35 and 18
# were measured on a CPU for these modes; sorting on a GPU takes more.
TORCH_BYTES_PER_LOGIT = {"topk": 24, "nucleus": 24, "threshold": 48, "sampled": 40}
TRITON_BYTES_PER_LOGIT = 1
CHECKED_ROWS = 8
# int64 [n]: the token after each row, or -1.
NextTokens = npt.NDArray[np.int64] | torch.Tensor


class ReductionError(LogitbankError):
    """A block of rows could not be reduced. The logits of all blocks were computed nevertheless."""


def select_rows(values: torch.Tensor, rows: npt.NDArray[np.int64]) -> torch.Tensor:
    """Return the given rows of a tensor, in any order. Consecutive rows are a view, because logits are large."""
    if len(rows) and (np.diff(rows) == 1).all():
        return values[int(rows[0]) : int(rows[-1]) + 1]
    indices = torch.from_numpy(rows)
    if values.is_cuda:  # a copy from other memory than page-locked one would wait for the device
        indices = indices.pin_memory().to(values.device, non_blocking=True)
    return values[indices]


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
        self._why_plain_torch: dict[torch.device, str] = {}

    def block_rows(self, bytes_per_logit: int, device: torch.device) -> int:
        """Return the number of rows per block: as many as the memory allows, so that the LM head runs at full speed."""
        added, most = 0, MAX_CPU_ROWS
        if device.type == "cuda":
            has_kernels = not self.why_plain_torch(device)
            added = TRITON_BYTES_PER_LOGIT if has_kernels else TORCH_BYTES_PER_LOGIT[self._targets.mode]
            most = MAX_GPU_ROWS
        return max(1, min(most, self._memory // (self._vocab_size * (bytes_per_logit + added))))

    def start_hidden(
        self,
        hidden: torch.Tensor,
        to_logits: Callable[[torch.Tensor], torch.Tensor | None],
        next_tokens: NextTokens,
        uniforms: npt.NDArray[np.float64],
        bytes_per_logit: int | None = None,
    ) -> Callable[[], Rows]:
        """Begin to reduce hidden states [n, hidden]; their logits are computed block by block. See `start`.

        bytes_per_logit: those of a hidden state if not given.

        On a rank of a parallel model that has no logits, to_logits returns None and the result has no rows. Every rank
        calls to_logits for every block, also after a failure, because other ranks wait for it there. Raises
        ReductionError after the last block if a block could not be reduced; so does the returned function.
        """
        size = self.block_rows(bytes_per_logit or hidden.element_size(), hidden.device)
        parts: list[Callable[[], Rows]] = []
        failure: Exception | None = None
        for start in range(0, len(hidden), size):
            logits = to_logits(hidden[start : start + size])
            if logits is None or failure is not None:
                continue
            block = slice(start, start + size)
            try:
                parts.append(self.start(logits, next_tokens[block], uniforms[block]))
            except Exception as error:
                failure = error
        if failure is not None:
            raise ReductionError(f"{type(failure).__name__}: {failure}") from failure

        def rows() -> Rows:
            try:
                return concatenate_rows([part() for part in parts])
            except Exception as error:  # of the device, which works on after a block is started
                raise ReductionError(f"{type(error).__name__}: {error}") from error

        return rows

    def reduce(
        self, logits: torch.Tensor, next_tokens: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64]
    ) -> Rows:
        """Reduce logits [n, at least vocab_size].

        next_tokens: int64 [n], the token after each row, or -1. uniforms: float64 [n, numbers] in [0, 1), from
        draws.row_uniforms. A row without a finite distribution (a NaN or +inf among the logits, or only -inf) gets no
        entries and a token log-probability of NaN.
        """
        if not logits.is_cuda:
            return self.reduce_with_loops(logits[:, : self._vocab_size], next_tokens, uniforms)
        return self.start(logits, next_tokens, uniforms)()

    def start(
        self, logits: torch.Tensor, next_tokens: NextTokens, uniforms: npt.NDArray[np.float64]
    ) -> Callable[[], Rows]:
        """Begin what `reduce` does, and return a function that waits for the rows.

        On a GPU with Triton nothing waits before that: several blocks, and the model's next step, can be queued. There
        next_tokens may be a tensor on the same device.
        """
        if not logits.is_cuda:
            rows = self.reduce(logits, np.asarray(next_tokens), uniforms)
            return lambda: rows
        begin = self.reduce_with_torch if self.why_plain_torch(logits.device) else self._start_triton
        size = self.block_rows(0, logits.device)
        blocks = [slice(i, i + size) for i in range(0, max(1, len(logits)), size)]
        logits = logits[:, : self._vocab_size]
        started = [begin(logits[block], next_tokens[block], uniforms[block]) for block in blocks]
        return lambda: concatenate_rows([part if isinstance(part, Rows) else part() for part in started])

    def _start_triton(
        self, logits: torch.Tensor, next_tokens: NextTokens, uniforms: npt.NDArray[np.float64]
    ) -> Callable[[], Rows]:
        arrays = start_on_gpu(logits, next_tokens, uniforms, self._targets)
        return lambda: self.rows_from_arrays(arrays())

    def reduce_with_torch(
        self, logits: torch.Tensor, next_tokens: NextTokens, uniforms: npt.NDArray[np.float64]
    ) -> Rows:
        """Reduce one block like `reduce`, with torch on the device of the logits."""
        block = reduce_block(
            logits[:, : self._vocab_size].float(),
            torch.as_tensor(next_tokens).to(logits.device),
            torch.from_numpy(uniforms).to(logits.device),
            self._targets,
        )
        return self.rows_from_arrays({name: getattr(block, name).cpu().numpy() for name in ReducedBlock.__slots__})

    def reduce_with_loops(
        self, logits: torch.Tensor, next_tokens: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64]
    ) -> Rows:
        """Reduce logits on a CPU like `reduce`, with compiled loops."""
        from teacher_serving.reduction.loops_backend import reduce_with_loops

        return self.rows_from_arrays(reduce_with_loops(logits, next_tokens, uniforms, self._targets, self._pool))

    def check_kernels(self, device: torch.device) -> str:
        """Compare the kernels of a device with torch on a few random rows. Returns how they differ, or "".

        On a GPU whose kernels differ, or do not compile, torch reduces from then on; why_plain_torch says so.
        """
        if device.type == "cpu":
            return self._compare(device)
        if not self.why_plain_torch(device):
            try:
                difference = self._compare(device)
            except Exception as error:  # there are many reasons why a kernel may not compile
                difference = f"they failed: {type(error).__name__}: {error}"
            self._why_plain_torch[device] = difference and f"Triton's kernels cannot be used here: {difference}"
        return ""

    def why_plain_torch(self, device: torch.device) -> str:
        """Why plain torch, which is much slower, reduces logits on this GPU; "" if Triton's kernels do."""
        if device not in self._why_plain_torch:
            self._why_plain_torch[device] = missing_for(self._targets, self._vocab_size, device)
        return self._why_plain_torch[device]

    def use_torch(self, device: torch.device, reason: str) -> None:
        """Reduce with plain torch on this device, as another rank must."""
        self._why_plain_torch[device] = reason

    def rows_from(self, device: torch.device) -> str:
        """In words, that plain torch reduces logits on this device, and why; "" if kernels do."""
        reason = self.why_plain_torch(device) if device.type == "cuda" else ""
        return f"a reduction in plain torch, which is slow ({reason})" if reason else ""

    def _compare(self, device: torch.device) -> str:
        rng = np.random.default_rng(0)
        logits = torch.from_numpy(rng.normal(0, 4, (CHECKED_ROWS, self._vocab_size)).astype(np.float32)).to(device)
        next_tokens = rng.integers(0, self._vocab_size, CHECKED_ROWS)
        uniforms = row_uniforms(self._targets, "0" * 32, np.arange(CHECKED_ROWS))
        return difference_between(
            *(make(logits, next_tokens, uniforms) for make in (self.reduce, self.reduce_with_torch))
        )

    def rows_from_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Rows:
        """Return rows from the arrays of a reduction by name; see kernels.ReducedArrays."""
        counts = np.asarray(arrays["counts"], np.int64)
        is_invalid = counts < 0
        counts = np.where(is_invalid, 0, counts)
        # Rows of top k are nearly always full, and need no selection.
        is_entry = (
            ... if (counts == arrays["ids"].shape[1]).all() else np.arange(arrays["ids"].shape[1]) < counts[:, None]
        )
        log_tail = np.where(is_invalid, 0, np.asarray(arrays["log_tail"], np.float32)).astype(np.float32)
        targets = SparseTargets(
            np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            arrays["ids"][is_entry].astype(np.uint32).reshape(-1),
            arrays["logprobs"][is_entry].astype(np.float32).reshape(-1),
            log_tail,
            np.where(is_invalid, 0, np.asarray(arrays["exact"], np.int64)) if self._targets.has_sampled else None,
            # Copies: these are views of the whole block, which is in page-locked memory.
            np.array(arrays["entropy"], np.float32) if self._targets.entropy else None,
            np.array(arrays["log_normalizers"], np.float32) if self._targets.temperatures else None,
        )
        token_logprobs = np.where(is_invalid, np.nan, np.asarray(arrays["token_logprobs"], np.float32))
        return Rows(targets, token_logprobs.astype(np.float32))
