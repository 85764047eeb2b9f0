"""Whether log-probabilities that were computed in two ways are the same but for rounding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.rows.sparse_targets import SparseTargets


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Greatest accepted differences in nats: the median, and the 99th percentile."""

    median: float
    percentile: float


FLOAT32 = Tolerance(1e-4, 1e-3)
# Another split of the batch rounds differently. Logits of 16 to 32 have steps of 1/8 in bfloat16, so that single tokens
# differ by a tenth of a nat. Rows of other tokens differ by nats, in most rows.
HALF_PRECISION = Tolerance(0.05, 0.5)


def differ_by(differences: npt.NDArray[np.floating], tolerance: Tolerance) -> str:
    """How much log-probabilities differ, in words; "" within the tolerance. differences: in nats, [n]; NaN counts."""
    if not len(differences):
        return ""
    sizes = np.nan_to_num(np.abs(differences.astype(np.float64)), nan=np.inf)
    median, percentile = float(np.median(sizes)), float(np.quantile(sizes, 0.99, method="higher"))
    if median <= tolerance.median and percentile <= tolerance.percentile:
        return ""
    return f"{median:.2g} (median) and {percentile:.2g} (99th percentile)"


def entry_differences(
    targets: SparseTargets, public: Sequence[Mapping[int, float]], has_all: bool
) -> npt.NDArray[np.float64]:
    """Differences between the exact entries of rows and the most probable tokens that were computed in another way.

    targets: at least as many rows as `public`. public: log-probabilities by token id, of each row. has_all: whether
    every token of `public` but the least probable must be an entry; one that is not counts as infinite.
    """
    differences: list[float] = []
    for j, row in enumerate(public):
        n, start = int(targets.exact_counts[j]), int(targets.offsets[j])
        ids = targets.ids[start : start + n].tolist()
        entries = dict(zip(ids, targets.logprobs[start : start + n].tolist(), strict=True))
        for token, logprob in row.items():
            if token in entries:
                differences.append(entries[token] - logprob)
            elif has_all and logprob > min(entries.values(), default=-np.inf):
                differences.append(np.inf)
    return np.asarray(differences, np.float64)
