"""Held-out evaluation of students against a store: language-model losses, and the task's own metrics."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cache.errors import SpecMismatchError
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest
from cache.progress import Progress
from cache.rows.record import Record
from cache.store.logit_store import LogitStore
from student.data.settings import DataSettings
from student.data.sources import StoreSource
from student.evaluation.generation import answer, distinct_prompts
from student.evaluation.heldout_metrics import evaluate_targets
from student.evaluation.settings import GenerationEvaluation
from student.losses.settings import LossSettings
from student.models.build import load_student
from student.tasks import Task

# Texts by which a model at a path continues prompts.
Answers = Callable[[str, Sequence[Record], GenerationEvaluation, Progress], list[str]]


def teacher_loss(store: LogitStore) -> float:
    """The teacher's own mean -log p of the tokens that really come, from the store, in nats."""
    total, tokens = 0.0, 0
    scored = np.flatnonzero(store.has_origin(["scored"]))
    for start in range(0, len(scored), 256):
        for window in store.read(scored[start : start + 256].tolist()):
            total -= float(np.nansum(window.token_logprobs))
            tokens += int(np.count_nonzero(~np.isnan(window.token_logprobs)))
    return total / tokens if tokens else float("nan")


def evaluate_model(
    path: str,
    store: LogitStore,
    task: Task | None,
    settings: GenerationEvaluation,
    progress: Callable[[str], Progress],
    other_engine: Answers | None = None,
) -> dict[str, Any]:
    """All metrics of one model, with its answers: by Transformers, or by another engine that is given."""
    tokenizer = load_tokenizer(path)
    if tokenizer_digest(tokenizer) != store.spec.tokenizer:
        raise SpecMismatchError(
            f"model {path!r} has another tokenizer than the store {store.storage} was captured with"
        )
    model = load_student(path, store.spec.vocab_size)
    longest = int(store.tokens.max(initial=2))
    data = DataSettings(store=str(store.storage), origins=("scored",), max_tokens=longest)
    source = StoreSource(store, data, LossSettings(objective="hard_label"))
    if task is not None:
        task.judge(source.texts(0), "")  # an example of another task is told now rather than at the end
    heldout = evaluate_targets(model, source, 64, progress("held-out"))
    metrics = {**asdict(heldout), "parameters": model.num_parameters()}
    if task is None:
        return metrics
    prompts = distinct_prompts(store, settings.prompts)
    if other_engine is not None:
        texts = other_engine(path, prompts, settings, progress("answers"))
    else:
        texts = answer(model, tokenizer, prompts, settings, progress("answers"))
    scores = [task.judge(record.tokenized.example, text) for record, text in zip(prompts, texts, strict=True)]
    return {
        **metrics,
        **task.summarise(scores),
        "answers": [
            {
                "id": record.tokenized.example.id,
                "text": text,
                "scores": score,
                "metadata": record.tokenized.example.metadata,
            }
            for record, text, score in zip(prompts, texts, scores, strict=True)
        ],
    }
