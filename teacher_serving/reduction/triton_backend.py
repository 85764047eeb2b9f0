"""The reduction by Triton kernels: the host's side. It allocates, launches, and waits for nothing."""

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.spec import TargetSpec

# Exact entries, and draws, of a row that the kernels sort.
MAX_HEAD = 1024
MAX_DRAWS = 1024
# Chunks of a row that one program loads.
MAX_CHUNKS = 4096
SMALLEST_CHUNK, LARGEST_CHUNK = 16, 1024
# Logits that one program of sum_chunks loads at once, and how often it does.
TILE, TILES_PER_PROGRAM = 4096, 4
# Chosen logits that one program of collect_keys loads at once.
COLLECTED_TILE = 2048
DRAWS_PER_PROGRAM = 16
# The first GPUs with bfloat16 arithmetic, for which Triton is tested.
OLDEST_CAPABILITY = (8, 0)
# Lowest bits of a logit that are always 0 after its conversion to float32.
SHIFTS = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}


def missing_for(targets: TargetSpec, vocabulary: int, device: torch.device) -> str:
    """Why the kernels cannot reduce such rows on this device; "" if they can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type == "cuda" and torch.version.cuda is None:
        return "the kernels are written for GPUs of NVIDIA"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < OLDEST_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
    entries = min(targets.max_entries, vocabulary)
    limit = MAX_HEAD if targets.has_exact else MAX_DRAWS
    if entries > limit:
        return f"rows of up to {entries} entries are more than the {limit} that it sorts"
    if vocabulary > MAX_CHUNKS * LARGEST_CHUNK:
        return f"a vocabulary of {vocabulary} is wider than {MAX_CHUNKS * LARGEST_CHUNK}"
    return ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes that depend on the vocabulary and on the targets, never on the batch: they fix the order of every sum.

    entries: width of the rows. chunk: logits of a chunk. chunks, tiles: number of each in a row.
    """

    entries: int
    chunk: int
    chunks: int
    tiles: int

    @classmethod
    def of(cls, targets: TargetSpec, vocabulary: int) -> "Plan":
        entries = min(targets.max_entries, vocabulary)
        # A chunk costs about 8 bytes when it is written and 8 when it is read. A chosen one is read again, with about 2
        # bytes a logit. That is least at this size.
        best = math.sqrt(8 * vocabulary / entries)
        chunk = 1 << round(math.log2(best))
        chunk = max(SMALLEST_CHUNK, min(chunk, 128))
        while -(-vocabulary // chunk) > MAX_CHUNKS:
            chunk *= 2
        return cls(entries, chunk, -(-vocabulary // chunk), -(-vocabulary // TILE))

    def bytes_per_logit(self, targets: TargetSpec, vocabulary: int, logit_bytes: int) -> float:
        """Bytes that the kernels read and write for each logit, by count: logits, what chunks and tiles need, rows."""
        chunk_bytes = logit_bytes + 4
        total = vocabulary * logit_bytes + 2 * self.chunks * chunk_bytes
        if targets.entropy or targets.temperatures:
            total += 2 * self.tiles * 4 * (3 + len(targets.temperatures))
        if targets.has_exact:
            total += min(self.entries, self.chunks) * self.chunk * logit_bytes
        if targets.has_sampled:
            total += self.chunks * 12 + self.entries * (self.chunk * logit_bytes + 8 + 8)
        if targets.mode == "threshold":
            total += self.chunks * 4
        return (total + 8 * self.entries) / vocabulary


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """Rows on the device in one array, so that one copy fetches them. packed: int32 [n, 2 * entries + 5 + T].

    A row has its ids, its log-probabilities (float32, as all values), the number of entries, that of the exact ones,
    the tail, the log-probability of the next token, the entropy, and T log-normalisers.
    """

    packed: torch.Tensor
    entries: int

    def arrays(self, packed: npt.NDArray[np.int32]) -> Mapping[str, npt.NDArray[Any]]:
        """The arrays of a reduction by name (kernels.ReducedArrays), from `packed` on the host."""
        values = packed.view(np.float32)
        k = self.entries
        return {
            "ids": packed[:, :k],
            "logprobs": values[:, k : 2 * k],
            "counts": packed[:, 2 * k],
            "exact": packed[:, 2 * k + 1],
            "log_tail": values[:, 2 * k + 2],
            "token_logprobs": values[:, 2 * k + 3],
            "entropy": values[:, 2 * k + 4],
            "log_normalizers": values[:, 2 * k + 5 :],
        }


def _power_of_2(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def reduce_packed(
    logits: torch.Tensor, next_tokens: torch.Tensor, uniforms: torch.Tensor, targets: TargetSpec
) -> PackedBlock:
    """Reduce logits [n, vocabulary] (float32, float16 or bfloat16) on their device; see Reducer for the arguments.

    Rows may be any distance apart. Nothing here waits for the device.
    """
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    return _Launch(logits, targets).run(next_tokens, uniforms)


def start_on_gpu(
    logits: torch.Tensor, next_tokens: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64], targets: TargetSpec
) -> Callable[[], Mapping[str, npt.NDArray[Any]]]:
    """Begin to reduce logits on a GPU; the returned function waits, and returns the arrays by name.

    Copies go through page-locked memory: those from other memory would wait for the device.
    """
    tokens, numbers = (
        torch.from_numpy(np.ascontiguousarray(values)).pin_memory().to(logits.device, non_blocking=True)
        for values in (next_tokens, uniforms)
    )
    block = reduce_packed(logits, tokens, numbers, targets)
    packed = torch.empty(block.packed.shape, dtype=torch.int32, pin_memory=True)
    packed.copy_(block.packed, non_blocking=True)
    is_copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    is_copied.record(torch.cuda.current_stream(logits.device))

    def arrays() -> Mapping[str, npt.NDArray[Any]]:
        is_copied.synchronize()
        return block.arrays(packed.numpy())

    return arrays


class _Launch:
    """Memory and kernels of one block of rows."""

    def __init__(self, logits: torch.Tensor, targets: TargetSpec) -> None:
        self.logits, self.targets = logits, targets
        self.n, self.vocabulary = logits.shape
        self.plan = Plan.of(targets, self.vocabulary)
        self.shift = SHIFTS[logits.dtype]
        n, plan, temperatures = self.n, self.plan, len(targets.temperatures)
        self.maxima = self.empty(n, plan.chunks, dtype=logits.dtype)
        self.sums = self.empty(n, plan.chunks)
        self.partials = self.empty(n, plan.tiles, 3 + temperatures)
        self.row_sums = self.empty(n, 3, dtype=torch.float64)
        self.row_counts = self.empty(n, 4, dtype=torch.int32)
        self.width = 2 * plan.entries + 5 + temperatures
        self.out = self.empty(n, self.width, dtype=torch.int32)
        self.values = self.out.view(torch.float32)
        self.chosen = self.empty(n, plan.entries if targets.has_exact else 0, dtype=torch.int32)
        self.prefixes = self.empty(n, plan.chunks if targets.has_sampled else 0, dtype=torch.float64)
        self.log_threshold = math.log(targets.threshold) if targets.threshold else 0.0
        inverse = [1.0 / temperature for temperature in targets.temperatures]
        self.inverse = constant(tuple(inverse), logits.device)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.logits.device)

    def run(self, next_tokens: torch.Tensor, uniforms: torch.Tensor) -> PackedBlock:
        if self.n:
            self.sum()
            self.choose(next_tokens)
            if self.targets.has_exact:
                self.write_head()
            if self.targets.has_sampled:
                self.write_draws(uniforms)
        return PackedBlock(self.out, self.plan.entries)

    def sum(self) -> None:
        from teacher_serving.reduction import triton_kernels as kernels

        plan, targets = self.plan, self.targets
        kernels.sum_chunks[(self.n, -(-plan.tiles // TILES_PER_PROGRAM))](
            self.logits, self.logits.stride(0), self.vocabulary, plan.chunks, plan.tiles, self.inverse,
            self.maxima, self.sums, self.partials,
            CHUNK=plan.chunk, TILE_CHUNKS=TILE // plan.chunk, TILES=TILES_PER_PROGRAM,
            HAS_ENTROPY=targets.entropy, TEMPERATURES=len(targets.temperatures), num_warps=4,
        )  # fmt: skip

    def choose(self, next_tokens: torch.Tensor) -> None:
        from teacher_serving.reduction import triton_kernels as kernels

        plan, targets = self.plan, self.targets
        kernels.choose_chunks[(self.n,)](
            self.logits, self.logits.stride(0), plan.chunks, plan.tiles, next_tokens, self.inverse,
            self.maxima, self.sums, self.partials, self.row_sums, self.row_counts, self.chosen, self.prefixes,
            self.values, self.width, plan.entries,
            ENTRIES=plan.entries, CHUNKS=_power_of_2(plan.chunks), TILES=_power_of_2(plan.tiles), SHIFT=self.shift,
            HAS_HEAD=targets.has_exact, HAS_DRAWS=targets.has_sampled, HAS_ENTROPY=targets.entropy,
            TEMPERATURES=len(targets.temperatures), LOG_THRESHOLD=self.log_threshold, num_warps=4,
        )  # fmt: skip

    def write_head(self) -> None:
        from teacher_serving.reduction import triton_kernels as kernels

        plan, targets = self.plan, self.targets
        capacity = 2 * _power_of_2(plan.entries)
        collected = self.empty(self.n, capacity, dtype=torch.int64)
        kernels.collect_keys[(self.n,)](
            self.logits, self.logits.stride(0), self.vocabulary, plan.chunks, self.chosen, self.sums,
            self.row_sums, self.row_counts, collected, plan.entries,
            SHIFT=self.shift, CHUNK=plan.chunk, GROUP=COLLECTED_TILE // plan.chunk, CAPACITY=capacity,
            HAS_DRAWS=targets.has_sampled, num_warps=4,
        )  # fmt: skip
        kernels.write_head[(self.n,)](
            self.row_sums, self.row_counts, collected, self.out, self.values, self.width, self.vocabulary,
            plan.entries,
            ENTRIES=plan.entries, CAPACITY=capacity, LOWEST=LOWEST_LOGPROB, MASS=targets.mass,
            num_warps=max(1, min(4, capacity // 128)),
        )  # fmt: skip

    def write_draws(self, uniforms: torch.Tensor) -> None:
        from teacher_serving.reduction import triton_draws as kernels

        plan, targets = self.plan, self.targets
        if targets.has_exact:
            kernels.sum_prefixes[(self.n,)](
                plan.chunks, self.sums, self.row_counts, self.prefixes, CHUNKS=_power_of_2(plan.chunks), num_warps=4
            )
        drawn = self.empty(self.n, plan.entries, dtype=torch.int32)
        kernels.locate_draws[(self.n, -(-plan.entries // DRAWS_PER_PROGRAM))](
            self.logits, self.logits.stride(0), self.vocabulary, plan.chunks, uniforms, self.row_sums, self.row_counts,
            self.prefixes, self.out, self.width, drawn, plan.entries,
            ENTRIES=plan.entries, CHUNK=plan.chunk, CHUNKS_LOG2=_power_of_2(plan.chunks).bit_length() - 1,
            SHIFT=self.shift, BLOCK=DRAWS_PER_PROGRAM, HAS_HEAD=targets.has_exact,
            THRESHOLD=targets.threshold, num_warps=4,
        )  # fmt: skip
        kernels.write_draws[(self.n,)](
            self.row_counts, drawn, self.out, self.values, self.width, plan.entries,
            ENTRIES=plan.entries, DRAWS=_power_of_2(plan.entries), HAS_HEAD=targets.has_exact,
            LOG_THRESHOLD=self.log_threshold,
            num_warps=1 if plan.entries <= 256 else 4,
        )  # fmt: skip


_CONSTANTS: dict[tuple[tuple[float, ...], torch.device], torch.Tensor] = {}


def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """float32 [values] on the device. It is copied once, because each copy would wait for the device."""
    if (values, device) not in _CONSTANTS:
        _CONSTANTS[values, device] = torch.tensor(values, dtype=torch.float32, device=device)
    return _CONSTANTS[values, device]
