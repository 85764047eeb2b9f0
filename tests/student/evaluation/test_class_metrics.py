"""Metrics of classifiers against values worked out by hand."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from cache.errors import InputError
from student.evaluation.class_metrics import (
    accuracy,
    class_metrics,
    expected_calibration_error,
    macro_f1,
    quadratic_weighted_kappa,
)

# True class by predicted class:  0: 2 1 0   1: 0 1 1   2: 1 0 2
TRUE = np.array([0, 0, 0, 1, 1, 2, 2, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 0, 2, 2])


def sure(predicted: npt.NDArray[np.int64], classes: int = 3, p: float = 0.8) -> npt.NDArray[np.float32]:
    """Log-probabilities that give p to the predicted class and share the rest."""
    rest = np.full((len(predicted), classes), (1 - p) / (classes - 1))
    rest[np.arange(len(predicted)), predicted] = p
    return np.log(rest).astype(np.float32)


def test_accuracy_is_the_share_of_hits() -> None:
    assert accuracy(sure(PREDICTED), TRUE) == 5 / 8


def test_macro_f1_weighs_classes_alike() -> None:
    # F1: 4 / (4 + 1 + 1), 2 / (2 + 1 + 1), 4 / (4 + 1 + 1)
    assert macro_f1(sure(PREDICTED), TRUE) == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)


def test_macro_f1_leaves_out_classes_that_never_occur_and_keeps_those_wrongly_predicted() -> None:
    assert macro_f1(sure(PREDICTED, classes=5), TRUE) == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)
    # Class 1 is never true: its F1 is 0, class 0 has 2 / (2 + 0 + 1).
    assert macro_f1(sure(np.array([0, 1])), np.array([0, 0])) == pytest.approx((2 / 3 + 0) / 2)


def test_kappa_counts_squared_steps() -> None:
    # Seen: 1 + 1 + 4 = 6. By chance, true (3, 2, 3) and predicted (3, 2, 3) of 8:
    # one step: 2 * (3 * 2 + 2 * 3) / 8 = 3; two steps: 4 * (3 * 3 + 3 * 3) / 8 = 9.
    assert quadratic_weighted_kappa(sure(PREDICTED), TRUE) == pytest.approx(1 - 6 / 12)


def test_kappa_of_chance_takes_both_sides() -> None:
    # True (2, 1, 1), predicted (1, 3, 0). Seen: 1 + 1. By chance: one step (6 + 1 + 3) / 4, two steps 4 * 1 / 4.
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    assert quadratic_weighted_kappa(sure(predicted), labels) == pytest.approx(1 - 2 / 3.5)


def test_kappa_is_one_when_all_is_right_and_minus_one_when_all_is_upside_down() -> None:
    ends = np.array([0, 2, 0, 2])
    assert quadratic_weighted_kappa(sure(ends), ends) == 1
    assert quadratic_weighted_kappa(sure(2 - ends), ends) == -1
    assert quadratic_weighted_kappa(sure(np.array([0, 0, 0, 0])), ends) == 0, "a constant tells nothing"


def test_kappa_of_a_single_class_is_not_a_number() -> None:
    assert math.isnan(quadratic_weighted_kappa(sure(np.array([1, 1])), np.array([1, 1])))


def test_calibration_error_weighs_bins_by_what_is_in_them() -> None:
    p = np.array([0.95, 0.95, 0.95, 0.95, 0.62, 0.62])
    log_probs = np.log(np.stack([p, 1 - p], 1))
    labels = np.array([0, 0, 0, 1, 0, 0])
    # |0.95 - 3/4| of four and |0.62 - 1| of two
    expected = (4 * 0.2 + 2 * 0.38) / 6
    assert expected_calibration_error(log_probs, labels) == pytest.approx(expected)


def test_calibration_error_lets_errors_cancel_only_within_a_bin() -> None:
    # Fifteen bins: 0.61 and 0.66 are both in (0.6, 0.667], 0.72 is not.
    same, apart = np.array([0.61, 0.66]), np.array([0.61, 0.72])
    labels = np.array([0, 1])  # one hit, one miss
    for p, expected in ((same, abs(0.61 + 0.66 - 1) / 2), (apart, (0.39 + 0.72) / 2)):
        log_probs = np.log(np.stack([p, 1 - p], 1))
        assert expected_calibration_error(log_probs, labels) == pytest.approx(expected)
    assert expected_calibration_error(np.log(np.stack([apart, 1 - apart], 1)), labels, bins=1) == pytest.approx(0.165)


def test_calibration_error_of_certainty_is_the_share_of_misses() -> None:
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.eye(3)[PREDICTED])
    assert expected_calibration_error(log_probs, TRUE) == pytest.approx(3 / 8)


def test_a_bin_includes_its_upper_end() -> None:
    """0.8 = 12 / 15 goes with 0.78, whose errors it cancels; in the next bin each would count."""
    p = np.array([0.8, 0.78])
    log_probs = np.log(np.stack([p, 1 - p], 1))
    assert expected_calibration_error(log_probs, np.array([0, 1])) == pytest.approx(0.58 / 2, abs=1e-6)


def test_all_metrics_go_together() -> None:
    found = class_metrics(sure(PREDICTED), TRUE)
    assert (found.accuracy, found.examples) == (5 / 8, 8)
    assert found.macro_f1 == macro_f1(sure(PREDICTED), TRUE)
    assert found.qwk == quadratic_weighted_kappa(sure(PREDICTED), TRUE)
    assert found.ece == pytest.approx(0.8 - 5 / 8, abs=1e-6)


@pytest.mark.parametrize(
    ("log_probs", "labels", "message"),
    [
        (sure(np.array([0, 1])), np.array([0, -1]), "label -1 is not one of the classes 0..2"),
        (sure(np.array([0, 1])), np.array([0, 3]), "label 3 is not"),
        (sure(np.array([0, 1])), np.array([0]), r"\[N, C\]"),
        (sure(np.array([], np.int64)), np.array([], np.int64), "needs at least one"),
        (np.array([[0.0, -1.0], [np.nan, np.nan]]), np.array([0, 1]), "example 1: its log_probs contain NaN"),
    ],
)
def test_what_is_no_label_is_refused(
    log_probs: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], message: str
) -> None:
    for metric in (accuracy, macro_f1, quadratic_weighted_kappa, expected_calibration_error):
        with pytest.raises(InputError, match=message):
            metric(log_probs, labels)


def directly(log_probs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[float, float, float, float]:
    """Accuracy, F1, kappa and calibration error from the confusion matrix, in float64."""
    classes = log_probs.shape[1]
    pairs = labels * classes + log_probs.argmax(1)
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    either = counts.sum(0) + counts.sum(1)
    seen = either > 0
    weights = np.square(np.arange(classes)[:, None] - np.arange(classes))
    expected = float((weights * np.outer(counts.sum(1), counts.sum(0)) / counts.sum()).sum())
    kappa = 1 - float((weights * counts).sum()) / expected if expected else float("nan")
    confidence = np.exp(log_probs.max(1))
    bins = np.clip(np.ceil(confidence * 15).astype(np.int64) - 1, 0, 14)
    gaps = np.bincount(bins, weights=confidence - (log_probs.argmax(1) == labels), minlength=15)
    f1 = float((2 * np.diag(counts)[seen] / either[seen]).mean())
    return float(np.trace(counts) / counts.sum()), f1, kappa, float(np.abs(gaps).sum() / len(labels))


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("n", [1, 2, 30, 1000])
def test_random_predictions_have_the_metrics_of_their_confusion_matrix(classes: int, n: int) -> None:
    """Also with classes that are never true, never predicted, or neither; and where kappa is not a number."""
    rng = np.random.default_rng(classes * n)
    for present in range(1, classes + 1):
        logits = rng.normal(size=(n, classes)) * 2
        logits[:, present:] -= 5.0
        log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        for labels in (rng.integers(0, present, n), log_probs.argmax(1)):
            metrics = class_metrics(log_probs, labels)
            values = (metrics.accuracy, metrics.macro_f1, metrics.qwk, metrics.ece)
            assert values == pytest.approx(directly(log_probs, labels), rel=2e-6, abs=2e-6, nan_ok=True)
