"""How good class probabilities are, from log-probabilities [N, C] and true classes [N] alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import InputError

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
    """All of them. log_probs: natural logarithms [N, C], normalised over the classes. labels: [N], 0..C - 1.

    The functions below take the same. All raise InputError where a label is no class, or there are none; examples
    without a label (-1) are for the caller to leave out.
    """
    return ClassMetrics(
        accuracy(log_probs, labels),
        macro_f1(log_probs, labels),
        quadratic_weighted_kappa(log_probs, labels),
        expected_calibration_error(log_probs, labels),
        len(labels),
    )


def confusion(log_probs: LogProbs, labels: Labels) -> npt.NDArray[np.int64]:
    """Examples of true class i whose most probable class is j (the first of equal ones), int64 [C, C]."""
    if log_probs.ndim != 2 or labels.shape != log_probs.shape[:1]:
        raise InputError(f"log_probs {log_probs.shape} and labels {labels.shape} must be [N, C] and [N]")
    if not len(labels):
        raise InputError("no example with a label; a metric needs one")
    if np.isnan(log_probs).any():
        raise InputError(f"example {int(np.isnan(log_probs).any(1).argmax())}: log_probs hold NaN")
    classes = log_probs.shape[1]
    if ((labels < 0) | (labels >= classes)).any():
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise InputError(f"label {wrong} is none of the classes 0..{classes - 1}; leave examples without one out")
    pairs = labels.astype(np.int64) * classes + log_probs.argmax(1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def accuracy(log_probs: LogProbs, labels: Labels) -> float:
    """Share of examples whose most probable class is the true one."""
    counts = confusion(log_probs, labels)
    return float(np.trace(counts) / counts.sum())


def macro_f1(log_probs: LogProbs, labels: Labels) -> float:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN); classes neither true nor predicted anywhere have none."""
    counts = confusion(log_probs, labels)
    either = counts.sum(0) + counts.sum(1)
    seen = either > 0
    return float((2 * np.diag(counts)[seen] / either[seen]).mean())


def quadratic_weighted_kappa(log_probs: LogProbs, labels: Labels) -> float:
    """Cohen's kappa with weights (i - j)^2 (1968, https://doi.org/10.1037/h0026256): classes must be in order of grade.

    NaN where all examples are of one class and predicted as it: nothing is left to chance.
    """
    counts = confusion(log_probs, labels)
    grades = np.arange(len(counts))
    weights = np.square(grades[:, None] - grades)
    by_chance = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    expected = float((weights * by_chance).sum())
    return 1 - float((weights * counts).sum()) / expected if expected else float("nan")


def expected_calibration_error(log_probs: LogProbs, labels: Labels, bins: int = 15) -> float:
    """Mean distance of confidence and accuracy, over bins of equal width, (b / bins, (b + 1) / bins], of confidence.

    Confidence is the probability of the most probable class (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """
    confusion(log_probs, labels)
    confidence = np.exp(log_probs.max(1).astype(np.float64))
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = confidence - (log_probs.argmax(1) == labels)
    return float(np.abs(np.bincount(place, weights=gap, minlength=bins)).sum() / len(labels))
