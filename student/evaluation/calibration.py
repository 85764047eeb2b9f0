"""Expected calibration error (ECE): how far confidence is from accuracy. Knows nothing of models."""

import numpy as np
import numpy.typing as npt

BINS = 15


class CalibrationBins:
    """Accumulates confidences and hits block by block, in bins of equal width, (b / bins, (b + 1) / bins].

    As in Guo et al. 2017 (https://arxiv.org/abs/1706.04599), with 15 bins.
    """

    def __init__(self, bins: int = BINS) -> None:
        self._sums = np.zeros((3, bins))

    def add(self, confidence: npt.NDArray[np.float64], is_hit: npt.NDArray[np.bool_]) -> None:
        """Add predictions. confidence: [N], probability of the predicted class; is_hit: [N], whether it is right."""
        bins = self._sums.shape[1]
        indices = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
        rows = (np.ones_like(confidence), confidence, is_hit.astype(np.float64))
        self._sums += np.stack([np.bincount(indices, weights=row, minlength=bins).astype(np.float64) for row in rows])

    @property
    def error(self) -> float:
        """Mean over predictions of |mean confidence - share of hits| of their bin, in 0..1; 0 without predictions."""
        count, confidence, hits = self._sums
        return float(np.abs(confidence - hits).sum() / max(count.sum(), 1))
