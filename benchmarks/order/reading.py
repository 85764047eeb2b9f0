"""What reading in an order costs, and what finding the examples of a step costs."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.harness import spread
from benchmarks.common.rows import simulated_rows
from benchmarks.store.records import as_records
from cache.examples.example_order import FULL, Shuffle, default_window, examples_at
from cache.examples.permutation import sorted_permutation
from cache.rows.spec import StoreSpec, TargetSpec
from cache.store.fill import fill_store
from cache.store.logit_store import LogitStore
from student.data.batches import LanguageBatches
from student.data.settings import DataSettings, StepSize
from student.data.sources import StoreSource
from student.data.window_reader import WindowReader
from student.losses.settings import LossSettings
from student.losses.weighted_objectives import WeightedObjectives
from student.models.rows.layout import PADDED

BATCH, K, VOCAB, UNIT_TOKENS = 64, 64, 151_936, 1 << 16
# A store that is large beside a step and a window has few neighbours in either by chance. Some windows are read.
WINDOWS_OF_STORE, WINDOWS_READ = 8, 2
MOST_SORTED = 10**7


def measure_reading(document: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Tokens a CPU second, for documents of `document` tokens: of all examples, and of a rank of eight."""
    rows = simulated_rows(tokens, K, VOCAB)
    records = as_records(replace(rows, offsets=np.append(np.arange(0, tokens, document), tokens)))
    spec = StoreSpec("benchmark", "none", "none", "none", VOCAB, VOCAB, "float32", TargetSpec("topk", K), None)
    result: dict[str, Any] = {"document": document}
    with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
        path = str(Path(folder) / "store")
        fill_store(path, spec, records, len(records), unit_examples=max(1, UNIT_TOKENS // document))
        with LogitStore.open(path) as store:
            for order in ("full", "blocks"):
                for ranks in (1, 8):
                    rates = [_rate(store, order, ranks, most_held := []) for _ in range(repeats + 1)][1:]
                    name = order if ranks == 1 else f"{order}_of_{ranks}"
                    result[name] = spread(rates)
                    result[f"{name}_most_held_tokens"] = max(most_held)
            result["sequence"] = spread([_sequence_rate(store) for _ in range(repeats + 1)][1:])
            result["block"] = _source(store, "blocks").shuffle.block
    return result


def measure_finding(n: int, repeats: int) -> dict[str, Any]:
    """Seconds of CPU time to find the 64 examples of a step among n: sorted anew, and computed alone."""
    blocks = Shuffle.of(np.array([18]), default_window(BATCH))
    sorts = repeats if n <= MOST_SORTED else 1  # a sort of 10^8 takes half a minute
    return {
        "examples": n,
        "sorted": spread([_seconds(lambda: sorted_permutation(n, 0, 0), 1) for _ in range(sorts)]),
        "full": spread([_seconds(lambda: examples_at(5000 * BATCH, BATCH, n, 0, FULL), 100) for _ in range(repeats)]),
        "blocks": spread(
            [_seconds(lambda: examples_at(5000 * BATCH, BATCH, n, 0, blocks), 100) for _ in range(repeats)]
        ),
    }


def _seconds(find: Callable[[], Any], times: int) -> float:
    """Seconds of CPU time of a call."""
    started = time.process_time()
    for _ in range(times):
        find()
    return (time.process_time() - started) / times


def _source(store: LogitStore, order: str) -> StoreSource:
    window = {"window_tokens": int(store.tokens.sum()) // WINDOWS_OF_STORE} if order == "blocks" else {}
    data = DataSettings.model_validate({"store": str(store.storage), "order": order, **window})
    return StoreSource(store, data, LossSettings(), StepSize(BATCH))


def _rate(store: LogitStore, order: str, ranks: int, most_held: list[int]) -> float:
    """Tokens of rank 0 a CPU second over some windows, as a run reads them; without making tensors."""
    source = _source(store, order)
    batches = LanguageBatches(source, WeightedObjectives.of(LossSettings(), source.form), PADDED)
    steps = max(1, len(source) * WINDOWS_READ // WINDOWS_OF_STORE // BATCH)

    def examples_of(step: int) -> list[int]:
        return source.order(step * BATCH, BATCH, 0)[::ranks].tolist()

    started, tokens, held = time.process_time(), 0, 0
    reader = WindowReader(batches, examples_of, lambda step: step * BATCH, 0, steps)
    for step in range(steps):
        reader.prepare(step)
        held = max(held, len(batches.held) * int(source.tokens[0]))
        tokens += sum(map(len, batches.held.take(examples_of(step))))
    most_held.append(held)
    return tokens / (time.process_time() - started)


def _sequence_rate(store: LogitStore) -> float:
    """Tokens a CPU second in the order of the store, 16,384 tokens at a time."""
    examples = max(1, (1 << 14) // int(store.tokens[0]))
    started, tokens = time.process_time(), 0
    for start in range(0, len(store), examples):
        tokens += sum(map(len, store.read(range(start, min(start + examples, len(store))))))
    return tokens / (time.process_time() - started)
