"""How full the micro-batches of a training step are, and what it costs to divide a step among ranks.

Every position of a row is computed, whether it holds a token of an example or padding. The limit of the share of real
tokens is 1. Compared are: one example a row, examples sorted by length, with a number of rows a micro-batch
(`run.micro_batch_size`) and with a number of positions (`run.micro_batch_tokens`: as many as such rows of mean length
have); the former packing, which packed the few examples of each micro-batch into rows of fixed length; packing as it is
now, the examples of a whole step over all ranks; and the same in steps of a number of tokens (`run.batch_tokens`: those
that the examples of a step have on average). The busiest rank has more tokens than the mean: the others wait for it at
the end of a step.

The sizes of examples are those of a store, or log-normal with a median of 245 tokens, as in instruction data: the job
of docs/students.md, a batch of 256 examples and rows of 4,096 tokens.

    python -m benchmarks.batches --store runs/recipe/store --save
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
from student.data.settings import StepSize
from student.training.steps.micro_batches import MicroBatchLimit, divide
from student.training.steps.step_stream import StepStream

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
        jobs[f"{options.store}, batches of 16"] = (stored(options.store, 2048), 16, 1024)
        jobs[f"{options.store}, batches of 64"] = (stored(options.store, 2048), 64, 2048)
    results: dict[str, Any] = {
        "steps": options.steps,
        "jobs": {name: measure(*job, options.steps) for name, job in jobs.items()},
    }
    show(results)
    finish("batches", results, options.save)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store whose sizes are measured too, such as runs/recipe/store")
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
            rows, positions = MicroBatchLimit(micro, None), MicroBatchLimit(None, round(micro * sizes.mean()))
            padded = divided(sizes, StepSize(batch), rows, ranks, None, steps)
            fewer = divided(sizes, StepSize(batch), positions, ranks, None, steps)
            packed = divided(sizes, StepSize(batch), rows, ranks, row, steps)
            even = divided(sizes, StepSize(None, round(batch * sizes.mean())), rows, ranks, row, steps)
            cases.append(
                {
                    "ranks": ranks,
                    "micro_batch": micro,
                    "padded": real_share(padded, sizes, None),
                    "padded_by_positions": real_share(fewer, sizes, None),
                    "micro_batches_by_rows": count_micro_batches(padded),
                    "micro_batches_by_positions": count_micro_batches(fewer),
                    "packed_in_micro_batches": real_share(padded, sizes, row, fixed=True),
                    "packed": real_share(packed, sizes, row),
                    "packed_by_tokens": real_share(even, sizes, row),
                    "mean_to_busiest_rank": statistics.mean(balance(step, sizes) for step in packed),
                    "tokens_of_steps": {"examples": deviation(packed, sizes), "tokens": deviation(even, sizes)},
                }
            )
    tokens = sizes.mean() * batch
    return {"batch": batch, "row": row, "examples": len(sizes), "tokens_of_a_step": float(tokens), "cases": cases}


def divided(
    sizes: npt.NDArray[np.int64], step: StepSize, limit: MicroBatchLimit, ranks: int, row: int | None, steps: int
) -> list[list[list[list[int]]]]:
    """The examples of the micro-batches of each rank of each step."""
    source: Any = Sizes(sizes)
    stream = StepStream(source, step, 0)
    used = [stream.examples(number) for number in range(steps)]
    return [
        [[group.examples for group in divide(i, sizes[i], limit, rank, ranks, row)] for rank in range(ranks)]
        for i in used
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


def count_micro_batches(steps: list[list[list[list[int]]]]) -> float:
    """Micro-batches of a rank in a step, on average."""
    return statistics.mean(len(rank) for step in steps for rank in step)


def deviation(steps: list[list[list[list[int]]]], sizes: npt.NDArray[np.int64]) -> float:
    """Standard deviation of the tokens of a step, by their mean."""
    tokens = [sum(int(sizes[group].sum()) for rank in step for group in rank) for step in steps]
    return statistics.pstdev(tokens) / statistics.mean(tokens)


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
        print(
            f"{'ranks':>6}{'micro-batch':>13}{'padded':>9}{'positions':>11}{'packed before':>15}{'packed':>9}"
            f"{'by tokens':>11}{'mean / busiest':>16}"
        )
        for case in job["cases"]:
            print(
                f"{case['ranks']:>6}{case['micro_batch']:>13}{case['padded']:>9.1%}{case['padded_by_positions']:>11.1%}"
                f"{case['packed_in_micro_batches']:>15.1%}{case['packed']:>9.1%}{case['packed_by_tokens']:>11.1%}"
                f"{case['mean_to_busiest_rank']:>16.1%}"
            )


if __name__ == "__main__":
    main()
