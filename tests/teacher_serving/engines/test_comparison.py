"""Rounding in half precision is no reason to distrust rows; rows of other tokens are."""

import numpy as np
import pytest

from cache.rows.sparse_targets import SparseTargets
from teacher_serving.engines.vllm.comparison import FLOAT32, HALF_PRECISION, Tolerance, differ_by, entry_differences


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to 8 significant bits."""
    scale = 2.0 ** (np.floor(np.log2(np.abs(values))) - 7)
    return np.round(values / scale) * scale


def logprobs(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.fixture
def two_passes() -> tuple[np.ndarray, np.ndarray]:
    """Logits of about 20 in bfloat16 from two passes, whose sums differ a little before they are rounded."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (400, 1000)) + 20
    return bfloat16(logits), bfloat16(logits + rng.normal(0, 0.02, logits.shape))


def test_two_passes_in_bfloat16_agree_and_moved_rows_do_not(two_passes: tuple[np.ndarray, np.ndarray]) -> None:
    """Responses of 400 tokens. The largest difference, which was looked at before, is above its limit of 0.15."""
    one, two = (logprobs(logits)[np.arange(400), np.arange(400)] for logits in two_passes)
    assert np.abs(one - two).max() > 0.1
    assert differ_by(one - two, HALF_PRECISION) == ""
    assert "(median)" in differ_by(one[1:] - two[:-1], HALF_PRECISION)
    wrong = one - two
    wrong[:8] += 3.0  # 2% of the rows are those of other tokens
    assert "(99th percentile)" in differ_by(wrong, HALF_PRECISION)


@pytest.mark.parametrize(
    "differences, tolerance, agrees",
    [
        ([], FLOAT32, True),
        ([0.0, np.nan], FLOAT32, False),
        ([9e-5] * 99 + [9e-4], FLOAT32, True),
        ([2e-4] * 100, FLOAT32, False),
        ([0.0] * 99 + [2e-3], FLOAT32, False),
        ([0.0] * 500 + [9.0], FLOAT32, True),
        ([-0.04] * 3, HALF_PRECISION, True),
        ([-0.06] * 3, HALF_PRECISION, False),
    ],
)
def test_the_median_and_the_99th_percentile_decide(
    differences: list[float], tolerance: Tolerance, agrees: bool
) -> None:
    assert (differ_by(np.array(differences), tolerance) == "") == agrees


def test_entries_are_compared_by_token() -> None:
    targets = SparseTargets(
        np.array([0, 3, 5]),
        np.array([7, 2, 9, 1, 4], np.uint32),
        np.array([-0.5, -1.5, -3.0, -0.25, -2.0], np.float32),
        np.zeros(2, np.float32),
    )
    public = [{7: -0.5, 2: -1.0, 8: -9.0}, {1: -0.25, 5: -1.0}]
    assert entry_differences(targets, public, has_all=False).tolist() == [0.0, -0.5, 0.0]
    assert entry_differences(targets, public, has_all=True).tolist() == [0.0, -0.5, 0.0, np.inf]
