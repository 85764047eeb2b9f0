"""Held-out evaluation of a language model: losses, and the metrics of a task."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from cache.examples.example import Example
from cache.examples.files.jsonl import read_examples
from cache.examples.tokenizers import load_tokenizer
from cache.progress import Progress
from cache.rendering.prompt_form import PromptForm, today, writes_date
from cache.rendering.render import prompt_tokens
from cache.store.logit_store import LogitStore
from student.data.sequence_lengths import require_positions
from student.evaluation.heldout_examples import HeldoutExamples, Tokens, assistant_bytes
from student.evaluation.heldout_metrics import evaluate_targets
from student.evaluation.rounds import Answer, answer_in_rounds, metrics_by_round
from student.evaluation.settings import AnswerSettings
from student.models.build import load_student
from student.models.generation import fits_positions, generate_texts
from student.models.registry import kind_of, read_config
from student.tasks import Task

# Generates answers: (model path, tokens of the prompts, settings, progress) -> texts.
AnswerEngine = Callable[[str, Sequence[Tokens], AnswerSettings, Progress], list[str]]
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


@dataclass(frozen=True, slots=True)
class _Answering:
    """What one model needs to answer prompts. shots: worked examples that it sees before each prompt."""

    path: str
    model: PreTrainedModel
    tokenizer: Any
    form: PromptForm
    settings: AnswerSettings
    engine: AnswerEngine | None
    shots: tuple[Example, ...] = ()

    def answer(self, prompts: Sequence[Tokens], progress: Progress) -> list[str | None]:
        """Answers to prompts; None where prompt and the longest answer need more positions than the model has."""
        fits = [fits_positions(self.model.config, len(prompt), self.settings.max_new_tokens) for prompt in prompts]
        asked = [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]
        texts = iter(self._generate(asked, progress) if asked else [])
        return [next(texts) if fit else None for fit in fits]

    def _generate(self, prompts: Sequence[Tokens], progress: Progress) -> list[str]:
        if self.engine is not None:
            return self.engine(self.path, prompts, self.settings, progress)
        settings = self.settings
        return generate_texts(
            self.model, self.tokenizer, prompts, settings.max_new_tokens, settings.batch_size, progress
        )

    def answer_examples(self, progress: Progress, examples: Sequence[Example]) -> list[str | None]:
        """Answers to the texts of prompts; see `answer`."""
        return self.answer([prompt_tokens(example, self.tokenizer, self.form) for example in examples], progress)

    def with_shots(self, example: Example) -> Example:
        turns: list[dict[str, Any]] = []
        for shot in self.shots:
            turns += [*shot.messages, {"role": "assistant", "content": shot.rationale + shot.response}]
        return replace(example, messages=(*turns, *example.messages), rationale="", response="")


def evaluate_language_model(
    path: str,
    heldout: HeldoutExamples | LogitStore,
    task: Task | None,
    settings: AnswerSettings,
    progress: Callable[[str], Progress],
    engine: AnswerEngine | None = None,
    trust_remote_code: bool = False,
    with_shots: bool = False,
) -> dict[str, Any]:
    """Compute all metrics of one model. With a task it also generates answers, which the task judges.

    A model with another tokenizer than the store is compared on the rows that can be aligned by bytes
    (student.tokenizers.alignment), and answers the texts of the prompts. Losses a token are comparable between models
    of one tokenizer only; bits_per_byte are between all.

    engine: generates the answers; None: Transformers.
    trust_remote_code: run code that the model's folder contains. progress: called with the name of each stage.
    with_shots: the model sees settings.shots before each prompt, and only its answers are judged.
    Raises InputError if the tokenizers cannot be aligned, or the examples belong to another task.
    """
    heldout = HeldoutExamples(heldout) if isinstance(heldout, LogitStore) else heldout
    tokenizer = load_tokenizer(path, trust_remote_code)
    has_encoder = not kind_of(read_config(path, trust_remote_code)).learns_prompts
    form = PromptForm(template_date=today() if writes_date(tokenizer) else "", has_encoder=has_encoder)
    own = heldout.store is not None and heldout.has_tokenizer(tokenizer)
    size = heldout.store.spec.vocab_size if own and heldout.store is not None else len(tokenizer)
    model = load_student(path, size, trust_remote_code)
    answering = _Answering(path, model, tokenizer, form, settings, engine)
    if task is None or not with_shots:
        metrics = _compare(answering, heldout, task, progress("held-out"))
    else:
        answering = replace(answering, shots=tuple(read_examples(settings.shots)[: settings.shown]))  # type: ignore[arg-type]
        metrics = {"parameters": model.num_parameters()}
    return metrics if task is None else metrics | _judge_answers(answering, heldout, task, progress)


def _compare(answering: _Answering, heldout: HeldoutExamples, task: Task | None, progress: Progress) -> dict[str, Any]:
    """Losses, and the agreement with the teacher if there is one. Prompts alone have neither."""
    model, tokenizer = answering.model, answering.tokenizer
    if not heldout.has_responses:
        return {"parameters": model.num_parameters()}
    source = heldout.source(tokenizer, answering.form)
    if task is not None:
        task.judge(source.texts(0), "")  # examples of another task raise here, before the long work
    require_positions(model.config, source, "stored", "evaluate it on a store of shorter examples")
    metrics = evaluate_targets(model, source, BATCH, progress)
    text_bytes = assistant_bytes(source, tokenizer)
    return {
        **asdict(metrics),
        "bits_per_byte": metrics.heldout_loss * metrics.rows / math.log(2) / text_bytes if text_bytes else None,
        "examples": len(source),
        "examples_left_out": source.left_out.total(),
        "left_out": dict(source.left_out),
        "parameters": model.num_parameters(),
    }


def _judge_answers(
    answering: _Answering, heldout: HeldoutExamples, task: Task, progress: Callable[[str], Progress]
) -> dict[str, Any]:
    """The task's metrics, and each answer with its scores; with settings.rounds also the later answers."""
    prompts = heldout.prompts(answering.settings.prompts, answering.tokenizer, answering.form)
    examples = [prompt.example for prompt in prompts]
    if answering.shots:
        examples = [answering.with_shots(example) for example in examples]
        found = answering.answer_examples(progress("answers"), examples)
    else:
        found = answering.answer([prompt.tokens for prompt in prompts], progress("answers"))
    first = [text or "" for text in found]
    # They have an empty answer. Other models may have room for them, so they are not left out.
    too_long = found.count(None)
    again = partial(answering.answer_examples, progress("answers after feedback"))
    history = answer_in_rounds(task, examples, first, answering.settings.rounds, again)
    return {
        **metrics_by_round(task, history),
        **({"prompts_too_long": too_long} if too_long else {}),
        "answers": [_as_document(example, [answers[i] for answers in history]) for i, example in enumerate(examples)],
    }


def _as_document(example: Example, answers: Sequence[Answer]) -> dict[str, Any]:
    """An answer as the evaluation file has it: that of round 0, and the answers after feedback in `rounds`."""
    document = {"id": example.id, "text": answers[0].text, "scores": answers[0].scores, "metadata": example.metadata}
    later = [
        {"feedback": answer.turns[-1]["content"], "text": answer.text, "scores": answer.scores}
        for before, answer in pairwise(answers)
        if answer.turns != before.turns
    ]
    return document | ({"rounds": later} if later else {})
