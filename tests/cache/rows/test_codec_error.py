"""The measured coding error: within the bound of the grid, and a changed entry is detected."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import IntegrityError
from cache.rows.codebook import plain_codebook
from cache.rows.codec import RESOLUTION, decode_rows, encode_rows, measure_error
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec
from tests.cache.rows.rows import VOCAB, random_rows


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sharpness=st.sampled_from((0.0, 0.3, 1.0, 3.0, 8.0, 30.0)),
    k=st.sampled_from((4, 32, 200, VOCAB)),
    step=st.sampled_from((0.01, 0.04, 0.1)),
)
def test_divergence_stays_below_what_the_grid_promises(seed: int, sharpness: float, k: int, step: float) -> None:
    """grid.py: step**2 / 12. Half a level in expectation, so over rows that are all alike it may be three times it."""
    rng = np.random.default_rng(seed)
    spec = TargetSpec("topk", k, step=step)
    targets = random_rows(rng, 200, spec, sharpness=sharpness)
    tokens = np.zeros(200, np.uint32)
    codebook = plain_codebook(VOCAB)
    decoded = decode_rows(encode_rows(targets, tokens, spec, codebook), tokens, spec, codebook, "rows")
    error = measure_error(targets, decoded, VOCAB, "rows")
    p = np.exp(targets.logprobs.astype(np.float64))
    direct = (p * (targets.logprobs.astype(np.float64) - decoded.logprobs)).sum()
    held = np.isfinite(targets.log_tail)
    tail, stored = targets.log_tail[held].astype(np.float64), decoded.log_tail[held].astype(np.float64)
    direct += (np.exp(tail) * (tail - stored)).sum()
    assert error.kl == pytest.approx(max(direct / 200, 0.0), abs=2e-7)
    assert error.kl <= step**2 / 12 + RESOLUTION**2 / 32 + 1e-6


def test_a_finer_step_costs_less() -> None:
    rng = np.random.default_rng(8)
    kl = []
    for step in (0.02, 0.08, 0.32):
        spec = TargetSpec("topk", 64, step=step, tail_step=step)
        targets = random_rows(rng, 300, spec)
        tokens = np.zeros(300, np.uint32)
        codebook = plain_codebook(VOCAB)
        decoded = decode_rows(encode_rows(targets, tokens, spec, codebook), tokens, spec, codebook, "rows")
        kl.append(measure_error(targets, decoded, VOCAB, "rows").kl)
    assert 0 < 4 * kl[0] < kl[1] < kl[2] / 4


def test_a_changed_entry_is_not_the_same_row() -> None:
    """measure_error is what stands between a driver that lies and a commit."""
    rng = np.random.default_rng(9)
    targets = random_rows(rng, 4, TargetSpec("topk", 6))
    ids = targets.ids.copy()
    ids[7] = next(i for i in range(VOCAB) if i not in ids[6:12])
    twice = targets.ids.copy()
    twice[8] = twice[7]
    moved = SparseTargets(targets.offsets + np.array([0, 0, 1, 0, 0]), targets.ids, targets.logprobs, targets.log_tail)
    for other in (replace(targets, ids=ids), replace(targets, ids=twice), moved, targets.rows(0, 3)):
        with pytest.raises(IntegrityError, match="not what was written"):
            measure_error(targets, other, VOCAB, "rows")
    assert measure_error(targets, targets, VOCAB, "rows").max_abs_error == 0
