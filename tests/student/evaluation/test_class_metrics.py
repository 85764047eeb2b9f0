"""Metrics of classifiers against values worked out by hand."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from cache.errors import InputError
from student.evaluation.class_metrics import (
    accuracy,
    class_metrics,
    confusion,
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


def test_confusion_counts_true_by_predicted() -> None:
    assert confusion(sure(PREDICTED), TRUE).tolist() == [[2, 1, 0], [0, 1, 1], [1, 0, 2]]


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


def test_a_bin_holds_its_upper_end() -> None:
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
        (sure(np.array([0, 1])), np.array([0, -1]), "label -1 is none of the classes 0..2"),
        (sure(np.array([0, 1])), np.array([0, 3]), "label 3 is none"),
        (sure(np.array([0, 1])), np.array([0]), r"\[N, C\]"),
        (sure(np.array([], np.int64)), np.array([], np.int64), "needs one"),
        (np.array([[0.0, -1.0], [np.nan, np.nan]]), np.array([0, 1]), "example 1: log_probs hold NaN"),
    ],
)
def test_what_is_no_label_is_refused(
    log_probs: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], message: str
) -> None:
    for metric in (accuracy, macro_f1, quadratic_weighted_kappa, expected_calibration_error):
        with pytest.raises(InputError, match=message):
            metric(log_probs, labels)
