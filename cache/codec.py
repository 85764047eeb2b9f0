"""SparseTargets to small integers and back. Pure functions of arrays.

Log-probabilities fall within a row, so a row is its first value and non-negative gaps, all in units of a step. The
values are rounded before they are differenced, so the error does not drift: at most step / 2 each. Decoding scales
each row to the head mass that its stored tail leaves, which takes back the error of the row's sum; what remains is at
most one step, and a KL divergence of about step**2 / 24 nats.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.targets import SparseTargets

GREATEST_GAP = np.iinfo(np.uint16).max - 1


@dataclass(frozen=True, slots=True)
class QuantisationError:
    """What rounding did to a set of rows: greatest |difference| and mean KL(stored || decoded), both in nats."""

    max_abs_error: float
    kl: float


def encode_gaps(targets: SparseTargets, step: float) -> npt.NDArray[np.uint16]:
    """Gaps uint16 [entries]. Raises InputError where a log-probability is too far below its neighbour to be held."""
    levels = np.rint(-targets.logprobs.astype(np.float64) / step)
    levels = np.maximum(levels, 0).astype(np.int64)
    gaps: npt.NDArray[np.int64] = np.diff(levels, prepend=0)
    firsts = targets.offsets[:-1][targets.counts > 0]
    gaps[firsts] = levels[firsts]
    if len(gaps) and gaps.max() > GREATEST_GAP:
        raise InputError(f"a log-probability lies {gaps.max() * step:.0f} nats below its neighbour; not storable")
    return gaps.astype(np.uint16)


def decode_gaps(
    gaps: npt.NDArray[np.uint16], offsets: npt.NDArray[np.int64], log_tail: npt.NDArray[np.float32], step: float
) -> npt.NDArray[np.float32]:
    """Log-probabilities float32 [entries] of rows given by offsets [n + 1] and log_tail [n]."""
    if not len(gaps):
        return np.zeros(0, np.float32)
    counts = np.diff(offsets)
    filled = counts > 0
    firsts, counts = offsets[:-1][filled], counts[filled]
    running = np.cumsum(gaps, dtype=np.int64)
    before = running[firsts] - gaps[firsts]
    logprobs = (running - np.repeat(before, counts)) * -step
    mass = np.add.reduceat(np.exp(logprobs), firsts)
    head = -np.expm1(log_tail[filled].astype(np.float64))
    scaled: npt.NDArray[np.float64] = logprobs + np.repeat(np.log(head) - np.log(mass), counts)
    return scaled.astype(np.float32)


def quantisation_error(targets: SparseTargets, decoded: npt.NDArray[np.float32]) -> QuantisationError:
    """Measure `decoded` against the exact log-probabilities of `targets`. The tail is stored as it is: no error."""
    if not len(decoded):
        return QuantisationError(0.0, 0.0)
    difference = targets.logprobs.astype(np.float64) - decoded
    divergence = float(np.sum(np.exp(targets.logprobs.astype(np.float64)) * difference))
    rows = int(np.count_nonzero(targets.counts))
    return QuantisationError(float(np.abs(difference).max()), max(divergence / rows, 0.0))
