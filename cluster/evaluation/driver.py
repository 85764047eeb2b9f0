"""Evaluate models one after the other. Results are kept: a job that starts again continues with the next model."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cache.errors import InputError
from cache.examples.tokenizers import load_tokenizer, one_line
from cache.json_documents import write_json
from cache.progress import Progress
from cache.store.logit_store import LogitStore
from cluster.evaluation.controls import control_result
from cluster.evaluation.judging import JUDGED, judged
from cluster.evaluation.model_digest import model_digest
from cluster.evaluation.settings import EvaluateSettings
from cluster.evaluation.vllm_answers import generate_with_vllm
from cluster.runtime.hardware import hardware
from cluster.runtime.outputs import claim, read_json, require_same_job
from cluster.runtime.progress_bars import counter
from student.data.sources import describe_left_out
from student.evaluation.classifier import evaluate_classifier
from student.evaluation.heldout_examples import HeldoutExamples
from student.evaluation.heldout_metrics import unknown_metrics
from student.evaluation.language_model import evaluate_language_model, teacher_loss
from student.models.registry import read_config
from student.tasks import Task

# A result belongs to one model, so others may join. That a model is still the same is checked by its digest.
CHANGEABLE = frozenset({"models"})
# Key of a result: the digest of the model that it belongs to.
DIGEST = "model_digest"


def run_evaluation(settings: EvaluateSettings) -> dict[str, Any]:
    """Evaluate each model that has no result yet, or that has changed since. Returns the content of evaluation.json.

    Writes one file a model, and evaluation.json.
    """
    store = None if settings.store is None else LogitStore.open(settings.store, settings.snapshot)
    if store is not None:
        settings = settings.model_copy(update={"snapshot": store.snapshot})
    require_models(settings)
    claim(settings.output, settings, _holds_work(settings), CHANGEABLE)
    if store is not None and settings.classes is None and (unknown := unknown_metrics(store.spec.targets)):
        print(f"evaluate: {unknown}", flush=True)
    results: dict[str, Any] = {}
    digests = {name: model_digest(path) for name, path in settings.models.items()}
    for name, path in settings.models.items():
        file = settings.output / f"{name}.json"
        result = read_json(file) if file.exists() else None
        if result is not None and result.get(DIGEST) != digests[name]:
            print(
                f"evaluate: {name}: its result is not of the present files of {path}; it is evaluated again", flush=True
            )
            result = None
        if result is None:
            started = time.monotonic()
            metrics = _evaluate(name, path, store, settings)
            if left_out := metrics.get("left_out"):
                print(f"evaluate: {name}: examples left out: {describe_left_out(left_out)}", flush=True)
            write_json(file, {**metrics, "seconds": time.monotonic() - started, DIGEST: digests[name]})
        results[name] = read_json(file)
    if settings.task is not None:
        results |= _beside_models(results, store, settings, settings.task)
    summary = {
        "models": {
            name: {key: value for key, value in metrics.items() if key not in ("answers", DIGEST, JUDGED)}
            for name, metrics in results.items()
        },
        "digests": digests,
        "stored_teacher_loss": None if store is None else teacher_loss(store),
        "snapshot": None if store is None else store.snapshot,
        "fingerprint": None if store is None else store.spec.fingerprint,
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
    }
    write_json(settings.output / "evaluation.json", summary)
    return summary


def require_same_evaluation(settings: EvaluateSettings) -> None:
    """Raise InputError, naming the keys, if the output holds results of another job. Its models need not exist yet."""
    if _holds_work(settings):
        require_same_job(settings.output, settings, CHANGEABLE)


def _holds_work(settings: EvaluateSettings) -> bool:
    return any((settings.output / f"{name}.json").exists() for name in settings.models)


def _beside_models(
    results: dict[str, Any], store: LogitStore | None, settings: EvaluateSettings, task: Task
) -> dict[str, Any]:
    """The results of the controls, and those to which the judging model has added its scores now."""
    added: dict[str, Any] = {}
    if settings.controls:
        source = next(iter(settings.models.values()))
        tokenizer = load_tokenizer(source, settings.trust_remote_code) if store is None else store.load_tokenizer()
        prompts = _heldout(store, settings).prompts(settings.generation.prompts, tokenizer)
        examples = [prompt.example for prompt in prompts]
        for control in settings.controls:
            added[control] = control_result(control, task, examples, settings.output / f"{control}.json")
    return added if settings.judge is None else added | judged(results | added, settings.output, task, settings.judge)


def require_models(settings: EvaluateSettings) -> None:
    """Raise InputError, before anything is written, if the configuration of a model cannot be read."""
    for name, path in settings.models.items():
        try:
            read_config(path, settings.trust_remote_code)
        except Exception as error:  # the files of a model may raise anything
            is_absent = not Path(path).is_dir()
            reason = "there is no such folder, and no hub that answers has it" if is_absent else one_line(error)
            raise InputError(f"models.{name} = {path!r}: no model can be read from it: {reason}") from error


def _evaluate(name: str, path: str, store: LogitStore | None, settings: EvaluateSettings) -> dict[str, Any]:
    heldout = _heldout(store, settings)
    if settings.classes is not None:
        return evaluate_classifier(path, heldout, settings.classes, _progress(name, "held-out"), settings.task)
    engine = generate_with_vllm if settings.generation.engine == "vllm" else None
    return evaluate_language_model(
        path,
        heldout,
        settings.task,
        settings.generation,
        partial(_progress, name),
        engine,
        settings.trust_remote_code,
        name in settings.generation.with_shots,
    )


def _heldout(store: LogitStore | None, settings: EvaluateSettings) -> HeldoutExamples:
    return HeldoutExamples(store, None if settings.examples is None else str(settings.examples), settings.origins)


def _progress(model: str, stage: str) -> Progress:
    return counter(f"{model} {stage}", "examples")
