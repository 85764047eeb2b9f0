"""Both reductions by name, random logits, and their float64 references."""

import numpy as np
import torch

from cache.rows.spec import TargetSpec
from teacher_serving.reduction.draws import row_uniforms
from teacher_serving.reduction.reducer import Reducer
from teacher_serving.reduction.rows import Rows
from teacher_serving.reduction.triton_backend import reduce_packed

# Triton's interpreter is too slow for all tests; test_triton_kernels.py has some for it.
WAYS = ("loops", "torch", "triton") if torch.cuda.is_available() else ("loops", "torch")
# The loops work in chunks of 64.
VOCABULARIES = (3, 63, 64, 65, 100, 1000, 5000)
# Of values in nats; and of the bounds that make a head, which rounding may cross.
ATOL, RTOL, SLACK = 5e-6, 1e-6, 1e-5
# Mass that counts as none: below it float32 has no probabilities.
NOTHING = 1e-30


def random_logits(rows: int, vocabulary: int, spread: float = 3.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


def drawn(targets: TargetSpec, rows: int, key: str = "c" * 32) -> np.ndarray:
    return row_uniforms(targets, key, np.arange(rows))


def reduced(
    way: str,
    logits: torch.Tensor,
    targets: TargetSpec,
    following: np.ndarray | None = None,
    numbers: np.ndarray | None = None,
    vocabulary: int | None = None,
    threads: int = 1,
) -> Rows:
    """Rows of logits by the compiled loops, by torch, or by Triton's kernels, on a GPU if there is one."""
    n, width = logits.shape
    following = np.full(n, -1, np.int64) if following is None else following
    numbers = drawn(targets, n) if numbers is None else numbers
    reducer = Reducer(targets, vocabulary or width, threads)
    if way == "loops":
        return reducer.reduce(logits, following, numbers)
    if way == "torch":
        return reducer.reduce_with_torch(logits, following, numbers)
    if torch.cuda.is_available():
        return reducer.reduce(logits.cuda(), following, numbers)
    some = logits[:, : vocabulary or width]
    block = reduce_packed(some, torch.from_numpy(following), torch.from_numpy(numbers), targets)
    return reducer.rows_from_arrays(block.arrays(block.packed.numpy()))


def dense(logits: torch.Tensor) -> np.ndarray:
    """Log-probabilities in float64."""
    return logits.double().log_softmax(-1).numpy()


def entropy_of(log_p: np.ndarray) -> np.ndarray:
    return -np.where(np.isfinite(log_p), np.exp(log_p) * log_p, 0.0).sum(axis=1)


def normaliser_of(log_p: np.ndarray, temperature: float) -> np.ndarray:
    return torch.from_numpy(log_p / temperature).logsumexp(-1).numpy()


def head_sizes(log_p: np.ndarray, targets: TargetSpec, slack: float) -> np.ndarray:
    """Exact entries of each row by the definition of the mode, with its bound moved by `slack`."""
    falling = -np.sort(-log_p, axis=1)
    if targets.mode == "sampled":
        held = np.zeros_like(falling, bool)
    elif targets.mode == "threshold":
        held = np.exp(falling) >= targets.threshold * (1 - slack)
    else:
        held = (np.arange(falling.shape[1]) < targets.k) & (falling >= -700)
        if targets.mode == "nucleus":
            p = np.exp(falling)
            held &= p.cumsum(axis=1) - p < targets.mass + slack
    return held.sum(axis=1)


def close(found: np.ndarray, truth: np.ndarray) -> bool:
    """Whether float32 numbers are those of float64, but for rounding."""
    return np.allclose(found, truth, rtol=RTOL, atol=ATOL)


def check_rows(rows: Rows, log_p: np.ndarray, targets: TargetSpec) -> None:
    """Exact entries, tails, entropies and log-normalisers of finite rows are those of `log_p`."""
    rows.targets.validate(log_p.shape[1], "rows")
    sizes = rows.targets.exact_counts
    assert (head_sizes(log_p, targets, -SLACK) <= sizes).all() and (sizes <= head_sizes(log_p, targets, SLACK)).all()
    assert (rows.targets.counts <= targets.max_entries).all()
    for i, n in enumerate(sizes):
        row = rows.targets.rows(i, i + 1)
        ids, values = row.ids[:n], row.logprobs[:n]
        assert np.isfinite(log_p[i, row.ids]).all(), "an id that the model rules out"
        assert close(values, log_p[i, ids])
        assert close(values, -np.sort(-log_p[i])[:n]), "not the largest"
        rest = np.exp(np.delete(log_p[i], ids)).sum()
        tail = float(np.exp(np.float64(row.log_tail[0])))
        assert abs(tail - rest) <= 1e-4 * rest + NOTHING
    if targets.entropy:
        assert rows.targets.entropy is not None and close(rows.targets.entropy, entropy_of(log_p))
    for i, temperature in enumerate(targets.temperatures):
        assert rows.targets.log_normalizers is not None
        assert close(rows.targets.log_normalizers[:, i], normaliser_of(log_p, temperature))
