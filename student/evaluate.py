"""Held-out evaluation of students against a store: language-model losses, and the task's own metrics."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from cache.errors import InputError, SpecMismatchError
from cache.reader import LogitStore
from cache.record import Record
from cache.rendering import decode, tokenizer_digest
from student.config import DataSettings, GenerationEvaluation
from student.data import collate
from student.losses import forward_kl_loss, hard_label_loss
from student.models import block_rows, check_head
from student.sources import StoreSource, require_exact_targets
from student.tasks.task import Task
from student.tokenizer import load_tokenizer

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class HeldoutMetrics:
    """Means over the target rows of held-out examples, in nats.

    heldout_loss: -log q(the token that really comes). kl_to_teacher: forward KL with the tail as one bucket.
    top1_agreement: share of rows where student and teacher rate the same token highest.
    """

    heldout_loss: float
    kl_to_teacher: float
    top1_agreement: float
    rows: int


def load_student(path: str, vocab_size: int) -> PreTrainedModel:
    """A model ready to evaluate, in float32. Raises where its vocabulary is not the store's."""
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model {path!r}: cannot be loaded: {error}") from error
    check_head(model, path)
    width = model.get_output_embeddings().weight.shape[0]
    if width < vocab_size:
        raise SpecMismatchError(
            f"model {path!r} has {width} logits, the store {vocab_size}; it is of another vocabulary"
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


@torch.inference_mode()
def evaluate_targets(
    model: PreTrainedModel, source: StoreSource, batch_size: int, progress: Progress
) -> HeldoutMetrics:
    """Hold a model against every target of a store."""
    require_exact_targets(source.store)
    sums = np.zeros(3)
    rows = 0
    order = np.argsort(source.tokens, kind="stable")
    for start in range(0, len(order), batch_size):
        batch = collate(
            source.read(order[start : start + batch_size].tolist()), with_targets=True, on_prompt=source.on_prompt
        ).to(model.device)
        hidden = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        picked = hidden.flatten(0, 1).index_select(0, batch.rows)
        columns = (picked, batch.labels, batch.ids, batch.log_p, batch.log_tail)
        size = block_rows(model)
        for states, labels, ids, log_p, log_tail in zip(*(column.split(size) for column in columns), strict=True):
            log_q = functional.log_softmax(model.get_output_embeddings()(states).float(), dim=-1)
            sums += [
                float(hard_label_loss(log_q, labels).sum()),
                float(forward_kl_loss(log_q, ids, log_p, log_tail).sum()),
                float((log_q.argmax(-1) == ids[:, 0]).sum()),
            ]
        rows += len(batch.rows)
        progress(min(start + batch_size, len(order)), len(order))
    loss, divergence, agreement = (float(total) for total in sums / rows)
    return HeldoutMetrics(loss, divergence, agreement, rows)


def teacher_loss(store: LogitStore) -> float:
    """The teacher's own mean -log p of the tokens that really come, from the store, in nats."""
    total, tokens = 0.0, 0
    scored = np.flatnonzero(store.has_origin(["scored"]))
    for start in range(0, len(scored), 256):
        for window in store.read(scored[start : start + 256].tolist()):
            total -= float(np.nansum(window.token_logprobs))
            tokens += int(np.count_nonzero(~np.isnan(window.token_logprobs)))
    return total / tokens if tokens else float("nan")


@torch.inference_mode()
def answer(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[Record],
    settings: GenerationEvaluation,
    progress: Progress,
) -> list[str]:
    """Greedy continuations of the prompts, as text."""
    texts: list[str] = []
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    for chunk in _chunks(prompts, settings.batch_size):
        tokens = [record.tokenized.tokens[: record.tokenized.prompt_length].astype(np.int64) for record in chunk]
        longest = max(map(len, tokens))
        ids = torch.full((len(chunk), longest), pad)
        mask = torch.zeros(len(chunk), longest, dtype=torch.int64)
        for row, prompt in enumerate(tokens):  # on the left, so that all prompts end where the answers start
            ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, longest - len(prompt) :] = 1
        written = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
        )
        texts += [decode(row[longest:].cpu().numpy().astype(np.uint32), tokenizer) for row in written]
        progress(len(texts), len(prompts))
    return texts


def distinct_prompts(store: LogitStore, count: int) -> list[Record]:
    """The first records of given (not generated) responses with different prompts."""
    picked: dict[bytes, Record] = {}
    for i in np.flatnonzero(store.has_origin(["scored"])):
        if len(picked) == count:
            break
        record = store[int(i)]
        picked.setdefault(record.tokenized.tokens[: record.tokenized.prompt_length].tobytes(), record)
    return list(picked.values())


def evaluate_model(
    path: str,
    store: LogitStore,
    task: Task,
    settings: GenerationEvaluation,
    progress: Callable[[str], Progress],
) -> dict[str, Any]:
    """All metrics of one model, with its answers."""
    tokenizer = load_tokenizer(path)
    if tokenizer_digest(tokenizer) != store.spec.tokenizer:
        raise SpecMismatchError(
            f"model {path!r} has another tokenizer than the store {store.storage} was captured with"
        )
    model = load_student(path, store.spec.vocab_size)
    longest = int(store.tokens.max(initial=2))
    source = StoreSource(store, DataSettings(store=str(store.storage), origins=("scored",), max_tokens=longest))
    task.judge(source.record(0).tokenized.example, "")  # an example of another task is told now rather than at the end
    heldout = evaluate_targets(model, source, 64, progress("held-out"))
    prompts = distinct_prompts(store, settings.prompts)
    texts = answer(model, tokenizer, prompts, settings, progress("answers"))
    scores = [task.judge(record.tokenized.example, text) for record, text in zip(prompts, texts, strict=True)]
    return {
        "heldout_loss": heldout.heldout_loss,
        "kl_to_teacher": heldout.kl_to_teacher,
        "top1_agreement": heldout.top1_agreement,
        "rows": heldout.rows,
        "parameters": model.num_parameters(),
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


def _chunks(items: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    return (items[start : start + size] for start in range(0, len(items), size))
