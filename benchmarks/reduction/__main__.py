"""What does it cost to reduce logits to rows, where they are?

The floor is one read of the logits: bytes over the bandwidth of a plain read, measured beside it. The peers: the same
reduction in plain torch; for the k largest, log_softmax and torch.topk; and the matrix product that made the logits.
Each result is compared with float64 before it is timed.

    python -m benchmarks.reduction --device cuda --save
    python -m benchmarks.reduction --device cpu --vocab 32000 --rows 256 --save
"""

import argparse
import sys
import time
from typing import Any

import torch

from benchmarks.common.harness import finish
from benchmarks.reduction.cases import DTYPES, TARGETS, Case, make_case, random_block
from benchmarks.reduction.oracle import Truth, problems
from benchmarks.reduction.timing import QUEUED, bandwidth, kernel_seconds, matrix_product, queued_seconds, seconds
from benchmarks.reduction.ways import arrays_of, ways_of
from teacher_serving.reduction.triton_backend import Plan

HIDDEN = 4096


def main() -> int:
    options = parse(sys.argv[1:])
    started = time.monotonic()
    on_gpu = options.device == "cuda"
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "bandwidth": bandwidth(options.device, 2048 if on_gpu else 256),
        "rows": options.rows,
        "cases": [],
    }
    print(f"{results['device']}: copy {results['bandwidth']['copy'] / 1e9:.0f} GB/s, "
          f"read {results['bandwidth']['read'] / 1e9:.0f} GB/s")  # fmt: skip
    wrong = 0
    for vocab in options.vocab:
        for dtype in options.dtype:
            wrong += measure_block(options, vocab, dtype, results)
    results["wrong"] = wrong
    results["seconds"] = time.monotonic() - started
    finish("reduction", results, options.save, f"reduction_{options.device}")
    return int(wrong > 0)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--vocab", type=int, nargs="+", default=[32_000, 151_936])
    parser.add_argument("--dtype", choices=list(DTYPES), nargs="+", default=list(DTYPES))
    parser.add_argument("--mode", choices=list(TARGETS), nargs="+", default=list(TARGETS))
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--budget", type=float, default=0.1, help="seconds for each measurement, after its warm-up")
    parser.add_argument("--kernels", action="store_true", help="also the time of each kernel")
    parser.add_argument("--save", action="store_true")
    return parser.parse_args(arguments)


def measure_block(options: argparse.Namespace, vocab: int, dtype: str, results: dict[str, Any]) -> int:
    """Measure all modes on one block of logits; the number of ways that gave wrong rows."""
    logits = random_block(options.rows, vocab, DTYPES[dtype], options.device)
    size = logits.numel() * logits.element_size()
    floor = size / results["bandwidth"]["read"]
    product = matrix_product(options.rows, vocab, HIDDEN, DTYPES[dtype], options.device, options.budget)
    print(f"\nV = {vocab}, {dtype}, {options.rows} rows, {size / 2**20:.0f} MiB: one read {floor * 1e3:.3f} ms, "
          f"product with a {HIDDEN} wide head {product * 1e3:.3f} ms")  # fmt: skip
    wrong, truth = 0, Truth.of(logits)
    for mode in options.mode:
        case = make_case(mode, logits)
        for way, run in ways_of(case).items():
            found = check(case, run, truth)
            wrong += bool(found)
            taken = seconds(run, options.device, options.budget)
            entry = {
                "vocab": vocab, "dtype": dtype, "mode": mode, "way": way, "seconds": taken,
                "read_floor": floor, "matrix_product": product, "share_of_read": floor / taken["median"],
                "bytes_per_logit": bytes_per_logit(case, way), "wrong": found[:3],
            }  # fmt: skip
            if way == "triton":
                entry["queued"] = queued_seconds(run, options.device)
            if options.kernels and options.device == "cuda" and way == "triton":
                entry["kernels"] = kernel_seconds(run)
            results["cases"].append(entry)
            show(entry)
    return wrong


def check(case: Case, run: Any, truth: Truth) -> list[str]:
    """What is wrong with the result, and whether a second run gives other bits."""
    arrays, again = arrays_of(run()), arrays_of(run())
    if arrays is None or again is None:
        return []
    found = problems(case, arrays, truth)
    if any(arrays[name].tobytes() != again[name].tobytes() for name in ("counts", "log_tail", "token_logprobs")):
        found.append("a second run gives other bits")
    for row in range(len(case.logits)):
        n = arrays["counts"][row]
        if any(arrays[name][row, :n].tobytes() != again[name][row, :n].tobytes() for name in ("ids", "logprobs")):
            return [*found, f"row {row}: a second run gives other entries"]
    return found


def bytes_per_logit(case: Case, way: str) -> float | None:
    """Bytes by count that the kernels move for each logit; None for ways whose bytes are not counted."""
    if way != "triton":
        return None
    vocab = case.logits.shape[1]
    return Plan.of(case.targets, vocab).bytes_per_logit(case.targets, vocab, case.logits.element_size())


def show(entry: dict[str, Any]) -> None:
    """Print one line, and one for each kernel."""
    taken = entry["seconds"]
    count = f"{entry['bytes_per_logit']:.2f} B a logit" if entry["bytes_per_logit"] else ""
    print(f"  {entry['mode']:33} {entry['way']:27} {taken['median'] * 1e3:9.3f} ms ({taken['min'] * 1e3:.3f} to "
          f"{taken['max'] * 1e3:.3f}), {entry['share_of_read']:6.1%} of a read {count} "
          f"{'WRONG: ' + '; '.join(entry['wrong']) if entry['wrong'] else ''}", flush=True)  # fmt: skip
    if "queued" in entry:
        print(f"      one of {QUEUED} in the queue {entry['queued']['median'] * 1e6:20.1f} us, "
              f"{entry['read_floor'] / entry['queued']['median']:.1%} of a read")  # fmt: skip
    for name, value in entry.get("kernels", {}).items():
        print(f"      {name[:40]:40} {value * 1e6:9.1f} us")


if __name__ == "__main__":
    sys.exit(main())
