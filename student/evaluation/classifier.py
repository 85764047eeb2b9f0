"""Held-out evaluation of a classifier: with true labels, and with the teacher's probabilities of the classes."""

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from cache.errors import InputError, SpecMismatchError
from cache.examples.tokenizers import load_tokenizer
from cache.progress import Progress
from cache.store.logit_store import LogitStore
from student.classification.settings import ClassSettings
from student.classification.source import ClassSource
from student.classification.texts import pad_texts, require_readable
from student.evaluation.class_metrics import class_metrics
from student.models.layout import PADDING
from student.models.registry import read_config

# Texts in a batch, and texts that are timed one by one.
BATCH, MAX_TIMED = 256, 64


@torch.inference_mode()
def evaluate_classifier(path: str, store: LogitStore, classes: ClassSettings, progress: Progress) -> dict[str, Any]:
    """Compute the metrics of one classifier on the texts of a store. Some need true labels, if the store has any.

    kl_to_teacher: mean KL(teacher || student) over the classes, in nats. ms_per_text: milliseconds for one text alone.
    Raises InputError if the model is not a classifier, SpecMismatchError if it has other classes.
    """
    try:
        config = read_config(path)  # registers the classifiers of this project
        model = AutoModelForSequenceClassification.from_pretrained(
            path, config=config, dtype=torch.float32, trust_remote_code=False
        ).eval()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model {path!r}: cannot be loaded as a classifier: {error}") from error
    names = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
    if names != tuple(classes.labels):
        raise SpecMismatchError(f"model {path!r} has the classes {names}, the job {tuple(classes.labels)}")
    source = ClassSource.from_store(store, classes, store.load_tokenizer(), load_tokenizer(path), ("scored",), progress)
    require_readable(model.config, source.tokens)
    log_q = np.concatenate([_log_probs(model, source, i, i + BATCH) for i in range(0, len(source), BATCH)])
    milliseconds = _milliseconds_per_text(model, source)
    assert source.teacher is not None
    log_p = source.teacher.log_probs.astype(np.float64)
    p = np.exp(log_p)
    divergence = np.where(p > 0, p * (np.where(p > 0, log_p, 0.0) - log_q), 0.0).sum(axis=1).mean()
    labelled = np.flatnonzero(source.labels >= 0)
    label_metrics = asdict(class_metrics(log_q[labelled], source.labels[labelled])) if len(labelled) else {}
    agreement = float((log_q.argmax(1) == log_p.argmax(1)).mean())
    return {
        **label_metrics,
        "kl_to_teacher": float(divergence),
        "top1_agreement": agreement,
        "rows": len(source),
        "labelled": len(labelled),
        "examples_left_out": sum(source.left_out.values()),
        "texts_cut": source.truncated,
        "parameters": model.num_parameters(),
        "ms_per_text": milliseconds,
    }


def _milliseconds_per_text(model: Any, source: ClassSource) -> float:
    """Mean time of one text in a batch of its own."""
    started = time.perf_counter()
    count = min(len(source), MAX_TIMED)
    for i in range(count):
        _log_probs(model, source, i, i + 1)
    return 1000 * (time.perf_counter() - started) / count


def _log_probs(model: Any, source: ClassSource, start: int, stop: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Log-probabilities of the texts start:stop, float64 [texts, classes]."""
    input_ids, mask = pad_texts(source.tokens[start:stop], PADDING)
    logits = model(input_ids=input_ids, attention_mask=mask).logits
    return np.asarray(torch.log_softmax(logits.double(), -1).numpy())
