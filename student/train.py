"""The training loop of one rank. Needs RANK, WORLD_SIZE and MASTER_ADDR set; who starts the ranks is no matter here."""

import json
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.distributed as dist

from cache.documents import write_json
from cache.order import examples_at
from student.config import TrainSettings
from student.data import Batch, collate
from student.engine import Engine, start_ranks
from student.models import LossModel, build_model
from student.run_files import CHECKPOINTS, METRICS, MODEL, RESULT, continue_metrics
from student.sources import ExampleSource, StoreSource, open_source
from student.tokenizer import save_tokenizer


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished run reports. tokens: those that carried a loss; seconds: time in the loop, over all restarts."""

    steps: int
    examples: int
    examples_left_out: int
    tokens: int
    seconds: float
    tokens_per_s: float
    parameters: int
    snapshot: int | None
    fingerprint: str | None


def train(settings: TrainSettings) -> TrainResult:
    """Train, or continue, and leave the student in Hugging Face form in `output`/model. Call it on every rank."""
    start_ranks()
    source, tokenizer, vocab_size = open_source(settings)
    model = build_model(settings.model, vocab_size, tokenizer, settings.run.seed)
    parameters = model.num_parameters()
    engine = Engine(LossModel(model, settings.loss), settings.optimizer, settings.run)
    tokens, seconds = _loop(engine, source, settings)
    store = source.store if isinstance(source, StoreSource) else None
    result = TrainResult(
        steps=settings.run.steps,
        examples=len(source),
        examples_left_out=source.left_out,
        tokens=tokens,
        seconds=seconds,
        tokens_per_s=tokens / seconds,
        parameters=parameters,
        snapshot=store.snapshot if store else None,
        fingerprint=store.spec.fingerprint if store else None,
    )
    weights = engine.full_weights()
    if dist.get_rank() == 0:
        folder = settings.output / MODEL
        tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
        model.to(torch.float32).save_pretrained(
            folder, state_dict={n: w for n, w in weights.items() if not (tied and n == "lm_head.weight")}
        )
        save_tokenizer(tokenizer, folder)
        write_json(settings.output / RESULT, asdict(result))
    dist.barrier()
    return result


def _loop(engine: Engine, source: ExampleSource, settings: TrainSettings) -> tuple[int, float]:
    """Run the steps that are left. Returns tokens and seconds over the whole run."""
    run = settings.run
    checkpoints = settings.output / CHECKPOINTS
    progress = engine.load(checkpoints) or {"step": 0, "tokens": 0, "seconds": 0.0}
    first, tokens, seconds = progress["step"], progress["tokens"], progress["seconds"]
    log = continue_metrics(settings.output / METRICS, first) if dist.get_rank() == 0 else None
    started = time.monotonic()
    for step in range(first, run.steps):
        micro_batches, window_rows = _window(source, settings, step)
        sums = torch.zeros(2, device=engine.device)
        for batch in micro_batches:
            losses = engine.forward(batch.to(engine.device))
            engine.backward(losses.objective, window_rows)
            engine.step()
            sums += torch.stack([losses.objective.detach().float(), losses.hard_label.float()])
        tokens += window_rows
        elapsed = seconds + time.monotonic() - started
        dist.all_reduce(sums)
        if log:
            objective, hard_label = (sums / window_rows).tolist()
            values = {"step": step + 1, "objective": objective, "hard_label": hard_label, "lr": engine.learning_rate}
            values |= {"gradient_norm": engine.gradient_norm, "tokens": tokens, "seconds": round(elapsed, 3)}
            log.write(json.dumps(values) + "\n")
            log.flush()
        if (step + 1) % run.checkpoint_every == 0 or step + 1 == run.steps:
            engine.save(checkpoints, step + 1, {"tokens": tokens, "seconds": elapsed})
    if log:
        log.close()
    return tokens, seconds + time.monotonic() - started


def _window(source: ExampleSource, settings: TrainSettings, step: int) -> tuple[list[Batch], int]:
    """This rank's micro-batches of a step, and the rows of the whole step. The same examples for any world size.

    A step is a sum over its examples, so they may be grouped freely: by length, which saves most of the padding, and so
    that all ranks get like lengths at the same time.
    """
    run = settings.run
    picked = examples_at(step * run.batch_size, run.batch_size, len(source), run.seed)
    by_length = picked[np.argsort(source.tokens[picked], kind="stable")]
    rank, ranks = dist.get_rank(), dist.get_world_size()
    options = (settings.loss.objective != "hard_label", source.on_prompt)
    together = ranks * run.micro_batch_size
    micro_batches = [
        collate(source.read(by_length[start : start + together][rank::ranks].tolist()), *options)
        for start in range(0, run.batch_size, together)
    ]
    return micro_batches, int(source.rows[picked].sum())
