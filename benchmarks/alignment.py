"""Reading in another tokenizer: an alignment at every read, beside a store that `logitbank align` wrote once.

    python -m benchmarks.alignment --examples runs/medical/examples/train.jsonl

Real texts, two real tokenizers (that of the teacher, and one learned from the texts), and simulated rows, each with the
token that follows among its entries. Rates are tokens of the student a second, in one process. Named limit: reading the
store without an alignment. Before its first step, a run with data.align = "cross_tokenizer" aligns the whole store once
(`plan`); with an aligned store it does not.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.harness import finish, spread
from benchmarks.common.rows import simulated_rows
from cache.examples.example import Segment
from cache.examples.files.jsonl import read_examples
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest, tokenizer_files
from cache.rendering.prompt_form import PromptForm
from cache.rendering.render import render
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.claims.tokenizer_files import claim_tokenizer
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cluster.alignment.driver import run_alignment
from student.tokenizers.bpe import learn_tokenizer
from student.tokenizers.cross_tokenizer_store import CrossTokenizerStore

UNIT = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", required=True, help="JSON Lines file with responses")
    parser.add_argument("--teacher", default="runs/teachers/SmolLM2-135M-Instruct", help="(default: %(default)s)")
    parser.add_argument("--ids", type=int, default=4096, help="of the student's tokenizer (default: %(default)s)")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--count", type=int, default=2000, help="examples (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
        finish("alignment", measure(Path(folder), options), options.save)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    examples = [example for example in read_examples(options.examples) if example.has_response][: options.count]
    teacher, student = load_tokenizer(options.teacher), learn_tokenizer(examples, options.ids)
    store = make_store(folder / "store", examples, teacher, options.k)
    seconds: dict[str, float] = {}
    view = timed(seconds, "plan", lambda: CrossTokenizerStore(store, teacher, student))
    timed(seconds, "one", lambda: write(store, folder / "one", student, 1))
    timed(seconds, "many", lambda: write(store, folder / "many", student, options.workers))
    aligned = LogitStore.open(str(folder / "one"))
    rng = np.random.default_rng(0)
    ways: dict[str, Any] = {"store": store, "aligned": aligned, "on_the_fly": view}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, source in ways.items():
            chosen = rng.permutation(len(source))[: 4 * UNIT].tolist()
            started = time.perf_counter()
            source.read(chosen)
            rates[name].append(float(source.tokens[chosen].sum()) / (time.perf_counter() - started))
    tokens = int(view.tokens.sum())
    print(f"{len(store):,} examples, {int(store.tokens.sum()):,} tokens of the teacher, {tokens:,} of the student")
    print(f"{view.shares}")
    for name, label in (
        ("plan", "plan of a run"),
        ("one", "align, 1 worker"),
        ("many", f"{options.workers} workers, with the start of Ray"),
    ):
        print(f"{label:<34}{seconds[name]:>8.1f} s{tokens / seconds[name]:>12,.0f} tokens/s")
    for name, values in rates.items():
        ratio = np.median(values) / np.median(rates["store"])
        print(f"read: {name:<28}{np.median(values):>12,.0f} tokens/s   {ratio:.2f} of the limit")
    return {
        "examples": len(store),
        "tokens": tokens,
        "k": options.k,
        "seconds": seconds,
        "workers": options.workers,
        "read_tokens_per_s": {name: spread(values) for name, values in rates.items()},
        "bytes_a_token": {"store": store.info().bytes_per_token, "aligned": aligned.info().bytes_per_token},
        "shares": str(view.shares),
    }


def write(store: LogitStore, target: Path, student: Any, workers: int) -> None:
    run_alignment(str(store.storage), str(target), student, PromptForm(), workers=workers)


def timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    result = work()
    seconds[name] = time.perf_counter() - started
    return result


def make_store(folder: Path, examples: list[Any], teacher: Any, k: int) -> LogitStore:
    """A store of the texts with simulated rows."""
    targets = TargetSpec("topk", k)
    ids = len(teacher)
    spec = StoreSpec("simulated", "none", tokenizer_digest(teacher), "none", ids, ids, "float32", targets, None)
    storage = LocalStorage(folder)
    create_store(storage, spec)
    claim_tokenizer(storage, spec, tokenizer_files(teacher))
    for start in range(0, len(examples), UNIT):
        unit = [render(example, teacher) for example in examples[start : start + UNIT]]
        write_unit(storage, spec, [_record(each, k, ids, start + i) for i, each in enumerate(unit)])
    take_snapshot(storage)
    return LogitStore.open(str(folder))


def _record(tokenized: Any, k: int, vocab: int, seed: int) -> Record:
    """Simulated rows before each token of the assistant, which is the largest entry where it was none."""
    n = len(tokenized.tokens)
    spoken = np.flatnonzero(tokenized.segments != Segment.PROMPT)
    rows = simulated_rows(len(spoken), k, vocab, seed)
    following = tokenized.tokens[spoken]
    is_missing = ~(rows.ids == following[:, None]).any(1)
    rows.ids[is_missing, 0] = following[is_missing]
    drawn = rows.targets(0, len(spoken))
    counts = np.zeros(n, np.int64)
    counts[spoken - 1] = k
    log_tail = np.zeros(n, np.float32)
    log_tail[spoken - 1] = drawn.log_tail
    logprobs = np.full(n, np.nan, np.float32)
    place = np.argmax(rows.ids == following[:, None], 1)
    logprobs[spoken] = np.minimum(rows.logprobs[np.arange(len(spoken)), place], 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return Record(tokenized.key, tokenized, SparseTargets(offsets, drawn.ids, drawn.logprobs, log_tail), logprobs)


if __name__ == "__main__":
    main()
