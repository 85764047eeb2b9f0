"""Held-out evaluation of class probabilities: with true labels, and with the teacher's probabilities of the classes."""

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from cache.progress import Progress
from student.classification.settings import ClassSettings
from student.classification.source import NO_CLASS, ClassSource
from student.evaluation.class_metrics import LogProbs, class_metrics
from student.evaluation.class_predictors import Predictor, load_predictor
from student.evaluation.heldout_examples import HeldoutExamples
from student.tasks import Task

# Texts in a batch, texts that are timed one by one, and those before them that are not timed.
BATCH, MAX_TIMED, WARM_UP = 32, 64, 3


@torch.inference_mode()
def evaluate_classifier(
    path: str, heldout: HeldoutExamples, classes: ClassSettings, progress: Progress, task: Task | None = None
) -> dict[str, Any]:
    """Compute the metrics of one model on held-out texts: with true labels, if there are any, and with a teacher's law.

    The model is a classifier, or a language model that answers with a label. Examples of a file have no teacher. With a
    task, also its metrics of labels (Task.label_metrics), over the most probable classes.
    kl_to_teacher: mean KL(teacher || model) over the classes, in nats. ms_per_text: milliseconds for the tokens of one
    text alone, the median. majority_accuracy: of the most frequent true class. With a task, also "answers": the most
    probable class of each text, judged by the task, with the score "confidence", its probability. left_out: examples
    that have no part in the metrics of labels or in any, by reason.
    Raises InputError if there is no such model, or if more than half of the examples have a label that is no class;
    SpecMismatchError if the model has other classes.
    """
    predictor = load_predictor(path, heldout, classes)
    source = predictor.source
    if task is not None:
        task.judge(source.examples[0], source.names[0])  # examples of another task raise here, before the long work
    parts = []
    for start in range(0, len(source), BATCH):
        parts.append(predictor.log_probs(start, start + BATCH))
        progress(min(start + BATCH, len(source)), len(source))
    log_q = np.concatenate(parts)
    return {
        **_label_metrics(log_q, source, has_order=task is None or task.labels_have_order),
        **_teacher_metrics(log_q, source),
        "rows": len(source),
        "examples_left_out": sum(source.left_out.values()),
        "left_out": _left_out(source),
        "texts_cut": source.truncated,
        "parameters": predictor.parameters,
        "ms_per_text": _milliseconds_per_text(predictor),
        **(_judged(task, log_q, source) if task is not None else {}),
    }


def _left_out(source: ClassSource) -> dict[str, int]:
    """Examples by the reason why they do not count; one of a store without a true class still has a teacher."""
    if source.teacher is None or not source.unmatched:
        return dict(source.left_out)
    return {**source.left_out, f"{NO_CLASS}, compared with the teacher only": sum(source.unmatched.values())}


def _label_metrics(log_q: LogProbs, source: ClassSource, has_order: bool) -> dict[str, Any]:
    """Metrics of the examples with a true label. has_order: of the classes, without which QWK has no meaning."""
    labelled = np.flatnonzero(source.labels >= 0)
    if not len(labelled):
        return {"labelled": 0}
    labels = source.labels[labelled]
    majority = float(np.bincount(labels).max() / len(labels))
    metrics = asdict(class_metrics(log_q[labelled], labels))
    if not has_order:
        del metrics["qwk"]
    return {**metrics, "majority_accuracy": majority, "labelled": len(labels)}


def _teacher_metrics(log_q: LogProbs, source: ClassSource) -> dict[str, float]:
    if source.teacher is None:
        return {}
    log_p = source.teacher.log_probs.astype(np.float64)
    p = np.exp(log_p)
    divergence = np.where(p > 0, p * (np.where(p > 0, log_p, 0.0) - log_q), 0.0).sum(axis=1).mean()
    return {
        "kl_to_teacher": float(divergence),
        "top1_agreement": float((log_q.argmax(1) == log_p.argmax(1)).mean()),
    }


def _judged(task: Task, log_q: LogProbs, source: ClassSource) -> dict[str, Any]:
    """The predicted class of each text with the task's scores."""
    answers, judged = [], []
    for example, row in zip(source.examples, log_q, strict=True):
        name = source.names[int(row.argmax())]
        scores = {**task.judge(example, name), "confidence": float(np.exp(row.max()))}
        judged.append(scores)
        answers.append({"id": example.id, "text": name, "scores": scores, "metadata": example.metadata})
    metrics = task.summarise(judged) if task.label_metrics and judged else {}
    return {**{name: metrics[name] for name in task.label_metrics if name in metrics}, "answers": answers}


def _milliseconds_per_text(predictor: Predictor) -> float:
    """Median time of one text in a batch of its own."""
    count = min(len(predictor.source), MAX_TIMED)
    times = []
    for i in [*range(min(WARM_UP, count)), *range(count)]:
        started = time.perf_counter()
        predictor.log_probs(i, i + 1)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times[-count:]))
