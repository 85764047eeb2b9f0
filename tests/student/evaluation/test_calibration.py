"""Calibration error against values worked out by hand."""

import numpy as np
import pytest

from student.evaluation.calibration import BINS, CalibrationBins


def test_calibration_error_by_hand() -> None:
    """Two bins: 3 at 0.9 of which 2 are hits, and 1 at 0.2 that is none. (|2.7 - 2| + 0.2) / 4."""
    bins = CalibrationBins()
    bins.add(np.array([0.9, 0.2]), np.array([True, False]))
    bins.add(np.array([0.9, 0.9]), np.array([True, False]))
    assert bins.error == pytest.approx(0.225)
    assert CalibrationBins().error == 0


def test_confidences_of_float32_fall_into_the_same_bin_by_either_end() -> None:
    """Why the number of language models did not change: no float32 is an end of a bin but 0 and 1."""
    ends = np.arange(1, BINS + 1, dtype=np.float32) / np.float32(BINS)
    near = np.concatenate([ends, np.nextafter(ends, np.float32(0)), np.nextafter(ends[:-1], np.float32(1))])
    confidence = near.astype(np.float64)
    upper = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    lower = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    assert np.array_equal(upper, lower)
