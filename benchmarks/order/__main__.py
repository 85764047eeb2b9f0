"""What does the order of training examples cost, and how fair a sample of the store is a step?

Compared are a full shuffle, in which each example is read alone, and shuffled blocks of neighbours, the default.
Reading: tokens a CPU second of one core, from stores on disk (k = 64, V = 151,936) of short and long documents, in
steps of 64 examples; and of a rank of eight, which reads its share. The limit is reading in the order of the store.
Finding: CPU time for the examples of a step. Sampling: how much the mean of a step and of a stretch of steps varies,
as a ratio to the full shuffle, where all examples of a block are alike (sorted by length; sorted by topic).

    python -m benchmarks.order --save
"""

import argparse
import sys
from typing import Any

from benchmarks.common.harness import finish
from benchmarks.order.reading import measure_finding, measure_reading
from benchmarks.order.sampling import measure_sampling


def main() -> None:
    options = parse(sys.argv[1:])
    results: dict[str, Any] = {
        "reading": [measure_reading(tokens, options.tokens, options.repeats) for tokens in options.documents],
        "finding": [measure_finding(n, options.repeats) for n in options.sizes],
        "sampling": measure_sampling(options.steps),
    }
    show(results)
    finish("order", results, options.save)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="*", default=[18, 120, 500], help="tokens of a document")
    parser.add_argument("--tokens", type=int, default=600_000, help="of each store")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10**6, 10**7, 10**8], help="examples of data sets")
    parser.add_argument("--steps", type=int, default=2000, help="steps whose means are compared")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    return parser.parse_args(arguments)


def show(results: dict[str, Any]) -> None:
    print(f"{'tokens':>8}{'block':>7}{'full':>10}{'blocks':>10}{'in order':>10}{'1 of 8: full':>14}{'blocks':>10}  M/s")
    for each in results["reading"]:
        rates = [each[name]["median"] / 1e6 for name in ("full", "blocks", "sequence", "full_of_8", "blocks_of_8")]
        print(f"{each['document']:>8}{each['block']:>7}" + "".join(f"{rate:>10.3f}" for rate in rates[:3]), end="")
        print(f"{rates[3]:>14.3f}{rates[4]:>10.3f}")
    print(f"{'examples':>12}{'sorted, s':>12}{'full, s':>12}{'blocks, s':>12}")
    for each in results["finding"]:
        values = "".join(f"{each[name]['median']:>12.6f}" for name in ("sorted", "full", "blocks"))
        print(f"{each['examples']:>12,}{values}")
    print(f"{'store':<22}{'batch':>6}{'window, blocks':>15}{'step':>8}{'16 steps':>10}{'mates':>8}")
    for each in results["sampling"]:
        print(
            f"{each['store']:<22}{each['batch']:>6}{each['window']:>15,}{each['step_ratio']:>8.2f}"
            f"{each['stretch_ratio']:>10.2f}{each['mates']:>8.3f}"
        )


if __name__ == "__main__":
    main()
