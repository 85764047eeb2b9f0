"""Quality of class probabilities, from log-probabilities [N, C] and true classes [N] alone.

Accuracy, F1 and kappa are those of torchmetrics, computed in float32.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_cohen_kappa,
    multiclass_f1_score,
)

from cache.errors import InputError
from student.evaluation.calibration import BINS, CalibrationBins

LogProbs = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """accuracy, macro_f1 and expected calibration error (ece) in 0..1, qwk in -1..1 or NaN, over `examples`."""

    accuracy: float
    macro_f1: float
    qwk: float
    ece: float
    examples: int


def class_metrics(log_probs: LogProbs, labels: Labels) -> ClassMetrics:
    """Compute all metrics. log_probs: natural logarithms [N, C], normalised over the classes. labels: [N], 0..C - 1.

    The functions below take the same arguments. All raise InputError if a label is not a class, if a log-probability is
    NaN, or if there is no example. Leave out examples without a label (-1) before the call.
    """
    return ClassMetrics(
        accuracy(log_probs, labels),
        macro_f1(log_probs, labels),
        quadratic_weighted_kappa(log_probs, labels),
        expected_calibration_error(log_probs, labels),
        len(labels),
    )


def accuracy(log_probs: LogProbs, labels: Labels) -> float:
    """Share of examples whose most probable class (the first of equal ones) is the true class."""
    predicted, target, classes = _predictions(log_probs, labels)
    return float(multiclass_accuracy(predicted, target, classes, average="micro"))


def macro_f1(log_probs: LogProbs, labels: Labels) -> float:
    """Mean of F1 = 2 TP / (2 TP + FP + FN) over the classes that are true or predicted at least once."""
    predicted, target, classes = _predictions(log_probs, labels)
    return float(multiclass_f1_score(predicted, target, classes, average="macro"))


def quadratic_weighted_kappa(log_probs: LogProbs, labels: Labels) -> float:
    """Cohen's kappa with weights (i - j)^2 (1968, https://doi.org/10.1037/h0026256): classes must be in order of grade.

    NaN if all examples are of one class and predicted as it: then chance agrees as often.
    """
    predicted, target, classes = _predictions(log_probs, labels)
    return float(multiclass_cohen_kappa(predicted, target, classes, weights="quadratic"))


def expected_calibration_error(log_probs: LogProbs, labels: Labels, bins: int = BINS) -> float:
    """Calibration error of the most probable class (student.evaluation.calibration)."""
    _validate(log_probs, labels)
    calibration = CalibrationBins(bins)
    calibration.add(np.exp(log_probs.max(1).astype(np.float64)), log_probs.argmax(1) == labels)
    return calibration.error


def _predictions(log_probs: LogProbs, labels: Labels) -> tuple[Tensor, Tensor, int]:
    """Predicted classes and true classes, int64 [N], and the number of classes."""
    _validate(log_probs, labels)
    return torch.from_numpy(log_probs.argmax(1)), torch.from_numpy(labels.astype(np.int64)), log_probs.shape[1]


def _validate(log_probs: LogProbs, labels: Labels) -> None:
    if log_probs.ndim != 2 or labels.shape != log_probs.shape[:1]:
        raise InputError(f"log_probs {log_probs.shape} and labels {labels.shape} must be [N, C] and [N]")
    if not len(labels):
        raise InputError("no example has a label, and a metric needs at least one")
    if np.isnan(log_probs).any():
        raise InputError(f"example {int(np.isnan(log_probs).any(1).argmax())}: its log_probs contain NaN")
    classes = log_probs.shape[1]
    is_wrong = (labels < 0) | (labels >= classes)
    if is_wrong.any():
        raise InputError(
            f"label {labels[is_wrong][0]} is not one of the classes 0..{classes - 1}; leave out examples without one"
        )
