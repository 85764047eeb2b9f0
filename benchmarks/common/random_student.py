"""What the benchmarks of students share: a small random student, stores of simulated rows, and a step."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.rows import Rows, simulated_rows
from cache.examples.example import Example, Segment, TokenizedExample
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.data.batches import LanguageBatches
from student.data.prefetch import Prefetcher
from student.data.settings import DataSettings
from student.data.sources import StoreSource
from student.losses.batch import Batch
from student.losses.normalisation import sum_coefficients, sum_row_weights
from student.losses.settings import LossSettings
from student.losses.weighted_objectives import WeightedObjectives
from student.models.loss_model import LossModel
from student.models.rows.layout import PADDED

TEMPERATURE = 2.0


def random_student(vocab: int, hidden: int, layers: int = 4) -> Any:
    """A Llama with tied embeddings, from a fixed seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        num_key_value_heads=max(1, hidden // 64),
        intermediate_size=3 * hidden,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def simulated_store(folder: Path, vocab: int, k: int, examples: int, length: int, mode: str) -> LogitStore:
    """A store of `examples` responses of `length` tokens, each with a target. mode: topk, threshold, or text."""
    spec = {
        "topk": TargetSpec("topk", k, temperatures=(TEMPERATURE,)),
        "threshold": TargetSpec("threshold", threshold=0.05),
        "text": TargetSpec("topk", 0),
    }[mode]
    rows = simulated_rows(examples * length, k, vocab)
    storage = LocalStorage(folder / mode)
    store_spec = StoreSpec("simulated", "", "", "", vocab, vocab, "float32", spec, None)
    create_store(storage, store_spec)
    for first in range(0, examples, 256):
        records = [_record(rows, i, length, mode, spec) for i in range(first, min(first + 256, examples))]
        write_unit(storage, store_spec, records)
    take_snapshot(storage)
    return LogitStore.open(str(storage.root))


def _record(rows: Rows, i: int, length: int, mode: str, spec: TargetSpec) -> Record:
    start, stop = i * length, (i + 1) * length
    tokens = np.append(rows.tokens[start : start + 1], rows.tokens[start:stop]).astype(np.uint32)
    segments = np.full(length + 1, Segment.RESPONSE, np.uint8)
    segments[0] = Segment.PROMPT
    example = Example(str(i), ({"role": "user", "content": ""},))
    tokenized = TokenizedExample(example, tokens, segments, f"generated/{i}")
    logprobs = np.full(length + 1, np.nan, np.float32)
    return Record(tokenized.key, tokenized, _with_last(_targets(rows, start, stop, mode, spec)), logprobs)


def _targets(rows: Rows, start: int, stop: int, mode: str, spec: TargetSpec) -> SparseTargets:
    targets = rows.targets(start, stop)
    if mode == "text":
        return SparseTargets(
            np.zeros(stop - start + 1, np.int64), targets.ids[:0], targets.logprobs[:0], targets.log_tail * 0
        )
    k = rows.ids.shape[1]
    if mode == "topk":
        # What lies outside is as if spread over as many ids again.
        log_z = np.log(
            np.exp(targets.logprobs.reshape(-1, k) / TEMPERATURE).sum(1)
            + k * np.exp((targets.log_tail - np.log(k)) / TEMPERATURE)
        )
        return replace(targets, log_normalizers=log_z[:, None].astype(np.float32))
    return _sampled_below(rows, start, stop, spec.threshold)


def _sampled_below(rows: Rows, start: int, stop: int, threshold: float) -> SparseTargets:
    """Threshold sampling of the rows: exact at and above the threshold; below it a systematic draw."""
    rng = np.random.default_rng(start)
    ids, logprobs, counts, exact, tails = [], [], [], [], []
    for row_ids, row in zip(rows.ids[start:stop], np.exp(rows.logprobs[start:stop].astype(np.float64)), strict=True):
        above = row >= threshold
        edges = np.concatenate([[0.0], np.cumsum(row[~above]) / threshold]) + rng.random()
        drawn = np.diff(np.floor(edges)) > 0
        ids += [row_ids[above], row_ids[~above][drawn]]
        logprobs += [np.log(row[above]), np.full(drawn.sum(), np.log(threshold))]
        counts.append(above.sum() + drawn.sum())
        exact.append(above.sum())
        tails.append(np.log(min(1.0, max(1 - row[above].sum(), 1e-30))) if above.any() else 0.0)
    return SparseTargets(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate(ids).astype(np.uint32),
        np.concatenate(logprobs).astype(np.float32),
        np.array(tails, np.float32),
        np.array(exact, np.int64),
    )


def _with_last(targets: SparseTargets) -> SparseTargets:
    """One row more, for the last token, that holds nothing."""
    extra = None
    if targets.log_normalizers is not None:
        extra = np.concatenate([targets.log_normalizers, np.zeros((1, targets.log_normalizers.shape[1]), np.float32)])
    return replace(
        targets,
        offsets=np.append(targets.offsets, targets.offsets[-1]),
        log_tail=np.append(targets.log_tail, np.float32(0)),
        exact=None if targets.exact is None else np.append(targets.exact, 0),
        log_normalizers=extra,
    )


@dataclass
class Course:
    """A student's way through a store: batches made ahead by a thread, and what each costs.

    waited: seconds of the steps so far in which no batch was ready.
    """

    batches: LanguageBatches
    size: int
    waited: float = 0.0

    @classmethod
    def over(cls, store: LogitStore, loss: LossSettings, size: int) -> "Course":
        data = DataSettings(store=str(store.storage), max_tokens=1 << 20)
        source = StoreSource(store, data, loss)
        return cls(LanguageBatches(source, WeightedObjectives.of(loss, source.form), PADDED), size)

    def steps(self, count: int) -> Iterator[Batch]:
        """Batches of the first `count` steps."""
        loader = Prefetcher(self._batch, 0, count, 4, 1)
        try:
            for batch in loader:
                self.waited = loader.waited
                yield batch
        finally:
            loader.close()

    def _batch(self, step: int) -> Batch:
        return self.batches.batch(self.batches.order(step * self.size, self.size, 0).tolist())


def update(model: LossModel, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """One step of training; returns the objective."""
    objective = model(batch, sum_coefficients(model.objectives, sum_row_weights([batch]))).objective
    objective.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(objective.detach())


def timed(steps: Any) -> tuple[Any, float]:
    """The next of some steps, and the seconds it took."""
    started = time.perf_counter()
    value = next(steps)
    return value, time.perf_counter() - started
