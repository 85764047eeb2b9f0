"""Evaluate models one after the other; what is done is kept, so that a restart goes on with the next."""

import time
from functools import partial
from typing import Any

import torch

from cache.documents import write_json
from cache.progress import Progress
from cache.store.logit_store import LogitStore
from cluster.evaluation.settings import EvaluateSettings
from cluster.evaluation.vllm_answers import vllm_answers
from cluster.job.outputs import claim, hardware, read_json
from cluster.job.progress_bars import counter
from student.evaluation.classifier import evaluate_classifier
from student.evaluation.language_model import evaluate_model, teacher_loss


def run_evaluation(settings: EvaluateSettings) -> dict[str, Any]:
    """Metrics by model. Leaves a file a model, and evaluation.json with what the store tells of its teacher."""
    store = LogitStore.open(str(settings.store), settings.snapshot)
    settings = settings.model_copy(update={"snapshot": store.snapshot})
    claim(settings.output, settings, any((settings.output / f"{name}.json").exists() for name in settings.models))
    results: dict[str, Any] = {}
    for name, path in settings.models.items():
        file = settings.output / f"{name}.json"
        if not file.exists():
            started = time.monotonic()
            if settings.classes is not None:
                metrics = evaluate_classifier(path, store, settings.classes, _progress(name, "held-out"))
            else:
                engine = vllm_answers if settings.generation.engine == "vllm" else None
                progress = partial(_progress, name)
                metrics = evaluate_model(path, store, settings.task, settings.generation, progress, engine)
            write_json(file, {**metrics, "seconds": time.monotonic() - started})
        results[name] = read_json(file)
    summary = {
        "models": {name: {k: v for k, v in metrics.items() if k != "answers"} for name, metrics in results.items()},
        "stored_teacher_loss": teacher_loss(store),
        "snapshot": store.snapshot,
        "fingerprint": store.spec.fingerprint,
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
    }
    write_json(settings.output / "evaluation.json", summary)
    return summary


def _progress(model: str, what: str) -> Progress:
    return counter(f"{model} {what}", "examples")
