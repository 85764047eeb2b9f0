"""The reduction by Triton kernels: the host's side. It allocates, launches, and waits for nothing."""

import importlib.util
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
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
# Sizes by benchmarks/reduction/tune.py. TILE: logits that one program of sum_chunks loads at once.
TILE = 4096
TILES_PER_PROGRAM = 2
SUM_WARPS = 4
# Chunks of choose_chunks for each warp.
CHUNKS_PER_WARP = 1024
# Chosen logits that one program of collect_keys loads.
COLLECTED_TILE = 1024
COLLECT_WARPS = 2
DRAWS_PER_PROGRAM = 16
LOCATE_WARPS = 1
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

    @property
    def group(self) -> int:
        """Chosen chunks that a program loads."""
        return max(1, COLLECTED_TILE // self.chunk)

    @property
    def groups(self) -> int:
        """Programs that load the chosen chunks of a row."""
        return -(-min(self.entries, self.chunks) // self.group)

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


def power_of_2(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def _warps_for(chunks: int) -> int:
    return max(1, min(8, chunks // CHUNKS_PER_WARP))


class _Workspace:
    """Kernels with their memory. Kernels of one stream run one after the other, so all blocks of rows share it."""

    def __init__(self, targets: TargetSpec, vocabulary: int, dtype: torch.dtype, device: torch.device) -> None:
        self.targets, self.vocabulary, self.dtype, self.device = targets, vocabulary, dtype, device
        self.plan = plan = Plan.of(targets, vocabulary)
        self.width = 2 * plan.entries + 5 + len(targets.temperatures)
        self.capacity = 2 * power_of_2(plan.entries)
        self.inverse = torch.tensor([1.0 / t for t in targets.temperatures], dtype=torch.float32, device=device)
        self.rows = 0
        self.compiled: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def grow(self, rows: int) -> None:
        """Allocate memory for a block of that many rows."""
        self.rows, plan, targets = rows, self.plan, self.targets
        head, draws = rows * targets.has_exact, rows * targets.has_sampled
        self.maxima = self.empty(rows, plan.chunks, dtype=self.dtype)
        self.sums = self.empty(rows, plan.chunks)
        self.partials = self.empty(rows, plan.tiles, 3 + len(targets.temperatures))
        self.row_sums = self.empty(rows, 3, dtype=torch.float64)
        self.row_counts = self.empty(rows, 4, dtype=torch.int32)
        self.chosen = self.empty(head, plan.entries, dtype=torch.int32)
        self.collected = self.empty(head, self.capacity, dtype=torch.int64)
        self.rests = self.empty(head, plan.groups, dtype=torch.float64)
        self.prefixes = self.empty(draws, plan.chunks, dtype=torch.float64)
        self.drawn = self.empty(draws, plan.entries, dtype=torch.int32)

    def reduce(self, logits: torch.Tensor, next_tokens: torch.Tensor, uniforms: torch.Tensor) -> PackedBlock:
        """See reduce_packed."""
        n = len(logits)
        if n > self.rows:
            self.grow(n)
        out = self.empty(n, self.width, dtype=torch.int32)
        values = out.view(torch.float32)
        if n:
            self.sum_and_choose(logits, next_tokens, values)
            if self.targets.has_exact:
                self.write_head(logits, out, values)
            if self.targets.has_sampled:
                self.write_draws(logits, uniforms, out, values)
        return PackedBlock(out, self.plan.entries)

    @property
    def log_threshold(self) -> float:
        return math.log(self.targets.threshold) if self.targets.threshold else 0.0

    def launch(self, kernel: Any, grid: tuple[int, int], args: tuple[Any, ...], warps: int, **constants: Any) -> None:
        """Launch a kernel. After the first time, without Triton's look at each argument, which takes the host longest.

        Triton compiles a kernel for arguments of a kind: whether numbers are 1 or multiples of 16, and whether memory
        starts at such multiples. Of the arguments of a workspace only those differ that stand in the key.
        """
        key = (
            kernel.__name__,
            *(arg for arg in args if isinstance(arg, int)),
            *(arg.data_ptr() % 16 for arg in args if isinstance(arg, torch.Tensor)),
        )
        if key in self.compiled:
            compiled, values = self.compiled[key]
            compiled[(*grid, 1)](*args, *values)
            return
        compiled = kernel[grid](*args, **constants, num_warps=warps)
        if compiled is not None:  # the interpreter compiles nothing
            self.compiled[key] = compiled, tuple(constants[name] for name in kernel.arg_names[len(args) :])

    def sum_and_choose(self, logits: torch.Tensor, next_tokens: torch.Tensor, values: torch.Tensor) -> None:
        from teacher_serving.reduction import triton_kernels as kernels

        plan, targets, n = self.plan, self.targets, len(logits)
        temperatures = len(targets.temperatures)
        self.launch(
            kernels.sum_chunks,
            (n, -(-plan.tiles // TILES_PER_PROGRAM)),
            (logits, logits.stride(0), self.vocabulary, plan.chunks, plan.tiles, self.inverse,
             self.maxima, self.sums, self.partials),
            SUM_WARPS,
            CHUNK=plan.chunk, TILE_CHUNKS=TILE // plan.chunk, TILES=TILES_PER_PROGRAM,
            HAS_ENTROPY=targets.entropy, TEMPERATURES=temperatures,
        )  # fmt: skip
        padded = power_of_2(plan.chunks)
        self.launch(
            kernels.choose_chunks,
            (n, 1),
            (logits, logits.stride(0), plan.chunks, plan.tiles, next_tokens, self.inverse,
             self.maxima, self.sums, self.partials, self.row_sums, self.row_counts, self.chosen, self.prefixes,
             values, self.width, plan.entries),
            _warps_for(padded),
            ENTRIES=plan.entries, CHUNKS=padded, TILES=power_of_2(plan.tiles), SHIFT=SHIFTS[self.dtype],
            HAS_HEAD=targets.has_exact, HAS_DRAWS=targets.has_sampled, HAS_ENTROPY=targets.entropy,
            TEMPERATURES=temperatures, LOG_THRESHOLD=self.log_threshold,
        )  # fmt: skip

    def write_head(self, logits: torch.Tensor, out: torch.Tensor, values: torch.Tensor) -> None:
        from teacher_serving.reduction import triton_kernels as kernels

        plan, targets, n = self.plan, self.targets, len(logits)
        shift, groups = SHIFTS[self.dtype], power_of_2(plan.groups)
        self.launch(
            kernels.collect_keys,
            (n, plan.groups),
            (logits, logits.stride(0), self.vocabulary, plan.chunks, self.chosen, self.sums,
             self.row_sums, self.row_counts, self.rests, plan.groups, self.collected, plan.entries),
            COLLECT_WARPS,
            SHIFT=shift, CHUNK=plan.chunk, GROUP=plan.group, CAPACITY=self.capacity, HAS_DRAWS=targets.has_sampled,
        )  # fmt: skip
        if not targets.has_sampled:  # at most 1 / threshold logits reach a threshold
            self.launch(
                kernels.narrow_keys,
                (n, 1),
                (logits, logits.stride(0), self.vocabulary, self.chosen,
                 self.row_sums, self.row_counts, self.rests, plan.groups, self.collected, plan.entries),
                4,
                SHIFT=shift, CHUNK=plan.chunk, GROUP=plan.group, CAPACITY=self.capacity, GROUPS=groups,
            )  # fmt: skip
        self.launch(
            kernels.write_head,
            (n, 1),
            (self.row_sums, self.row_counts, self.rests, plan.groups, self.collected, out, values, self.width,
             self.vocabulary, plan.entries),
            max(1, min(4, self.capacity // 128)),
            GROUPS=groups, ENTRIES=plan.entries, CAPACITY=self.capacity, LOWEST=LOWEST_LOGPROB, MASS=targets.mass,
        )  # fmt: skip

    def write_draws(
        self, logits: torch.Tensor, uniforms: torch.Tensor, out: torch.Tensor, values: torch.Tensor
    ) -> None:
        from teacher_serving.reduction import triton_draws as kernels

        plan, targets, n = self.plan, self.targets, len(logits)
        padded = power_of_2(plan.chunks)
        if targets.has_exact:
            arrays = (plan.chunks, self.sums, self.row_counts, self.prefixes)
            self.launch(kernels.sum_prefixes, (n, 1), arrays, _warps_for(padded), CHUNKS=padded)
        self.launch(
            kernels.locate_draws,
            (n, -(-plan.entries // DRAWS_PER_PROGRAM)),
            (logits, logits.stride(0), self.vocabulary, plan.chunks, uniforms, self.row_sums, self.row_counts,
             self.prefixes, out, self.width, self.drawn, plan.entries),
            LOCATE_WARPS,
            ENTRIES=plan.entries, CHUNK=plan.chunk, CHUNKS_LOG2=padded.bit_length() - 1, SHIFT=SHIFTS[self.dtype],
            BLOCK=DRAWS_PER_PROGRAM, HAS_HEAD=targets.has_exact, THRESHOLD=targets.threshold,
        )  # fmt: skip
        self.launch(
            kernels.write_draws,
            (n, 1),
            (self.row_counts, self.drawn, out, values, self.width, plan.entries),
            1 if plan.entries <= 256 else 4,
            ENTRIES=plan.entries, DRAWS=power_of_2(plan.entries), HAS_HEAD=targets.has_exact,
            LOG_THRESHOLD=self.log_threshold,
        )  # fmt: skip


_WORKSPACES: dict[tuple[TargetSpec, int, torch.dtype, torch.device, int], _Workspace] = {}


def reduce_packed(
    logits: torch.Tensor, next_tokens: torch.Tensor, uniforms: torch.Tensor, targets: TargetSpec
) -> PackedBlock:
    """Reduce logits [n, vocabulary] (float32, float16 or bfloat16) on their device; see Reducer for the arguments.

    Rows may be any distance apart. Nothing here waits for the device.
    """
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    key = (targets, logits.shape[1], logits.dtype, logits.device, _stream_of(logits.device))
    if key not in _WORKSPACES:
        _WORKSPACES[key] = _Workspace(targets, logits.shape[1], logits.dtype, logits.device)
    # Triton launches on the current device.
    with torch.cuda.device(logits.device) if logits.is_cuda else nullcontext():
        return _WORKSPACES[key].reduce(logits, next_tokens, uniforms)


def forget_memory() -> None:
    """Free the memory of all kernels. The next block allocates it again."""
    _WORKSPACES.clear()


def _stream_of(device: torch.device) -> int:
    return int(torch.cuda.current_stream(device).cuda_stream) if device.type == "cuda" else 0


def start_on_gpu(
    logits: torch.Tensor,
    next_tokens: npt.NDArray[np.int64] | torch.Tensor,
    uniforms: npt.NDArray[np.float64],
    targets: TargetSpec,
) -> Callable[[], Mapping[str, npt.NDArray[Any]]]:
    """Begin to reduce logits on a GPU; the returned function waits, and returns the arrays by name.

    next_tokens: on the host, or int64 on the device of the logits.
    """
    tokens, numbers = (
        values.contiguous() if isinstance(values, torch.Tensor) else _copied(values, logits.device)
        for values in (next_tokens, uniforms)
    )
    block = reduce_packed(logits, tokens, numbers, targets)
    packed = torch.empty(block.packed.shape, dtype=torch.int32, pin_memory=True)
    packed.copy_(block.packed, non_blocking=True)
    is_copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    is_copied.record(torch.cuda.current_stream(logits.device))
    # Without the block itself: memory of the device that a waiting function would keep.
    on_host = PackedBlock(packed, block.entries)

    def arrays() -> Mapping[str, npt.NDArray[Any]]:
        is_copied.synchronize()
        return on_host.arrays(packed.numpy())

    return arrays


def _copied(values: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy through page-locked memory: a copy from other memory would wait for the device."""
    return torch.from_numpy(np.ascontiguousarray(values)).pin_memory().to(device, non_blocking=True)
