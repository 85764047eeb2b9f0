"""How full the micro-batches of a training step are, and what it costs to divide a step among ranks.

Every position of a row is computed, whether it holds a token of an example or padding. The limit of the share of real
tokens is 1. Compared are: one example a row, examples sorted by length (`data.pack_to` is not set); the former packing,
which packed the few examples of each micro-batch into rows of fixed length; and packing as it is now, the examples of a
whole step over all ranks. The busiest rank has more tokens than the mean: the others wait for it at the end of a step.

The sizes of examples are those of a store, or log-normal with a median of 245 tokens, as in instruction data: the job
of docs/students.md, a batch of 256 examples and rows of 4,096 tokens.

    python -m benchmarks.batches --store runs/demo/store --save
"""

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common.harness import finish

# Median and spread of log-normal lengths, and their bounds, in tokens.
MEDIAN, SIGMA, SHORTEST, LONGEST = 245, 0.8, 8, 2048
MICRO, RANKS = (1, 4, 16), (1, 4, 8, 64)


@dataclass(frozen=True)
class Sizes:
    """Examples that are nothing but sizes, as a run's batches know them."""

    sizes: npt.NDArray[np.int64]

    def order(self, start: int, count: int, seed: int) -> npt.NDArray[np.int64]:
        from cache.examples.example_order import examples_at

        return examples_at(start, count, len(self.sizes), seed)


def main() -> None:
    options = parse(sys.argv[1:])
    jobs = {"docs/students.md": (simulated(options.examples), 256, 4096)}
    if options.store:
        jobs["demo"] = (stored(options.store, 384), 64, 384)
        jobs["demo, long rows"] = (stored(options.store, 384), 64, 2048)
    results: dict[str, Any] = {
        "steps": options.steps,
        "jobs": {name: measure(*job, options.steps) for name, job in jobs.items()},
    }
    show(results)
    finish("batches", results, options.save)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store whose sizes are measured too, such as runs/demo/store")
    parser.add_argument("--examples", type=int, default=50_000, help="simulated examples")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save", action="store_true")
    return parser.parse_args(arguments)


def simulated(count: int) -> npt.NDArray[np.int64]:
    lengths = np.random.default_rng(0).lognormal(np.log(MEDIAN), SIGMA, count)
    return np.clip(lengths, SHORTEST, LONGEST).astype(np.int64)


def stored(folder: Path, max_tokens: int) -> npt.NDArray[np.int64]:
    from cache.store.logit_store import LogitStore

    with LogitStore.open(folder) as store:
        tokens = store.tokens.astype(np.int64)
    return tokens[tokens <= max_tokens]


def measure(sizes: npt.NDArray[np.int64], batch: int, row: int, steps: int) -> dict[str, Any]:
    """Shares of real tokens by ranks and micro-batch, of padding, the former packing, and packing a step."""
    cases = []
    for ranks in RANKS:
        for micro in MICRO:
            if batch % (ranks * micro):
                continue
            padded = groups_of(sizes, batch, micro, ranks, None, steps)
            packed = groups_of(sizes, batch, micro, ranks, row, steps)
            cases.append(
                {
                    "ranks": ranks,
                    "micro_batch": micro,
                    "padded": real_share(padded, sizes, None),
                    "packed_in_micro_batches": real_share(padded, sizes, row, fixed=True),
                    "packed": real_share(packed, sizes, row),
                    "mean_to_busiest_rank": statistics.mean(balance(step, sizes) for step in packed),
                }
            )
    tokens = sizes.mean() * batch
    return {"batch": batch, "row": row, "examples": len(sizes), "tokens_of_a_step": float(tokens), "cases": cases}


def groups_of(
    sizes: npt.NDArray[np.int64], batch: int, micro: int, ranks: int, row: int | None, steps: int
) -> list[list[list[list[int]]]]:
    """The micro-batches of each rank of each step."""
    from student.training.micro_batches import micro_batches_of_step
    from student.training.settings import RunSettings

    run = RunSettings(steps=steps, batch_size=batch, micro_batch_size=micro)
    source: Any = Sizes(sizes)
    return [
        [micro_batches_of_step(step, source, run, rank, ranks, row) for rank in range(ranks)] for step in range(steps)
    ]


def real_share(
    steps: list[list[list[list[int]]]], sizes: npt.NDArray[np.int64], row: int | None, fixed: bool = False
) -> float:
    """Real tokens by computed positions. row: length of packed rows; fixed: rows are always that long."""
    from student.models.rows.packing import pack

    real = computed = 0
    for group in (group for step in steps for rank in step for group in rank if group):
        lengths = sizes[group]
        real += int(lengths.sum())
        if row is None:
            computed += len(group) * int(lengths.max())
        else:
            packing = pack(lengths, row)
            computed += packing.rows * (row if fixed else packing.width)
    return real / computed


def balance(step: list[list[list[int]]], sizes: npt.NDArray[np.int64]) -> float:
    """Mean tokens of a rank by those of the busiest rank."""
    loads = [sum(int(sizes[group].sum()) for group in rank) for rank in step]
    return statistics.mean(loads) / max(loads)


def show(results: dict[str, Any]) -> None:
    for name, job in results["jobs"].items():
        print(
            f"{name}: batch of {job['batch']} examples, {job['tokens_of_a_step']:,.0f} tokens a step, rows of "
            f"{job['row']:,} tokens"
        )
        print(f"{'ranks':>6}{'micro-batch':>13}{'padded':>9}{'packed before':>15}{'packed':>9}{'mean / busiest':>16}")
        for case in job["cases"]:
            print(
                f"{case['ranks']:>6}{case['micro_batch']:>13}{case['padded']:>9.1%}"
                f"{case['packed_in_micro_batches']:>15.1%}{case['packed']:>9.1%}{case['mean_to_busiest_rank']:>16.1%}"
            )


if __name__ == "__main__":
    main()
