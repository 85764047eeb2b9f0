"""Held-out evaluation of a language model on a store: losses, and the metrics of a task."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cache.errors import SpecMismatchError
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest
from cache.progress import Progress
from cache.rows.record import Record
from cache.store.logit_store import LogitStore
from student.data.sequence_lengths import require_positions
from student.data.settings import DataSettings
from student.data.sources import StoreSource
from student.evaluation.generation import distinct_prompts, generate_answers
from student.evaluation.heldout_metrics import evaluate_targets
from student.evaluation.settings import AnswerSettings
from student.losses.settings import LossSettings
from student.models.build import load_student
from student.tasks import Task

# Generates answers: (model path, prompts, settings, progress) -> texts.
AnswerEngine = Callable[[str, Sequence[Record], AnswerSettings, Progress], list[str]]
BATCH = 64


def teacher_loss(store: LogitStore) -> float:
    """The teacher's mean -log p of the tokens of scored examples, from the store, in nats; NaN if there are none."""
    total, tokens = 0.0, 0
    scored = np.flatnonzero(store.has_origin(["scored"]))
    for start in range(0, len(scored), 256):
        for window in store.read(scored[start : start + 256].tolist()):
            total -= float(np.nansum(window.token_logprobs))
            tokens += int(np.count_nonzero(~np.isnan(window.token_logprobs)))
    return total / tokens if tokens else float("nan")


def evaluate_language_model(
    path: str,
    store: LogitStore,
    task: Task | None,
    settings: AnswerSettings,
    progress: Callable[[str], Progress],
    engine: AnswerEngine | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Compute all metrics of one model. With a task it also generates answers, which the task judges.

    engine: generates the answers; None: Transformers.
    trust_remote_code: run code that the model's folder contains. progress: called with the name of each stage.
    Raises SpecMismatchError if the model has another tokenizer than the store, InputError if the examples of the store
    belong to another task.
    """
    tokenizer = load_tokenizer(path, trust_remote_code)
    if tokenizer_digest(tokenizer) != store.spec.tokenizer:
        raise SpecMismatchError(
            f"model {path!r} has another tokenizer than the store {store.storage} was captured with"
        )
    model = load_student(path, store.spec.vocab_size, trust_remote_code)
    max_tokens = int(store.tokens.max(initial=2))
    data = DataSettings(store=str(store.storage), origins=("scored",), max_tokens=max_tokens)
    source = StoreSource(store, data, LossSettings(objective="hard_label"))
    if task is not None:
        task.judge(source.texts(0), "")  # examples of another task raise here, before the long work
    require_positions(model.config, source, "stored", "evaluate it on a store of shorter examples")
    heldout = evaluate_targets(model, source, BATCH, progress("held-out"))
    metrics = {
        **asdict(heldout),
        "examples": len(source),
        "examples_left_out": source.left_out.total(),
        "parameters": model.num_parameters(),
    }
    if task is None:
        return metrics
    prompts = distinct_prompts(store, settings.prompts)
    if engine is not None:
        texts = engine(path, prompts, settings, progress("answers"))
    else:
        texts = generate_answers(model, tokenizer, prompts, settings, progress("answers"))
    return metrics | _judge_answers(task, prompts, texts)


def _judge_answers(task: Task, prompts: Sequence[Record], texts: Sequence[str]) -> dict[str, Any]:
    """The task's metrics, and each answer with its scores."""
    examples = [record.tokenized.example for record in prompts]
    scores = [task.judge(example, text) for example, text in zip(examples, texts, strict=True)]
    return {
        **task.summarise(scores),
        "answers": [
            {"id": example.id, "text": text, "scores": score, "metadata": example.metadata}
            for example, text, score in zip(examples, texts, scores, strict=True)
        ],
    }
