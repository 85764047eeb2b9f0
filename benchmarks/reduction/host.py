"""What the host does with rows of a GPU: from what a kernel wrote to the scores of each request, step by step.

python -m benchmarks.reduction.host
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.common.harness import finish, spread
from cache.rows.spec import TargetSpec
from teacher_serving.asking.requests import build_scored
from teacher_serving.engines.vllm.workers.transport import group_rows_by_request, pack_rows
from teacher_serving.reduction.reducer import Reducer
from teacher_serving.reduction.rows import concatenate_rows
from teacher_serving.reduction.triton_backend import PackedBlock
from teacher_serving.teacher import Request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rows", type=int, default=1023, help="of a request")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(sys.argv[1:])
    seconds = measure(options)
    rows = options.requests * options.rows
    total = sum(each["median"] for each in seconds.values())
    for name, each in seconds.items():
        print(f"{name:<12}{1e3 * each['median']:>8.2f} ms ({1e3 * each['min']:.2f} to {1e3 * each['max']:.2f})")
    print(f"{'all':<12}{1e3 * total:>8.2f} ms for {rows:,} rows")
    finish("reduction.host", {"rows": rows, "k": options.k, "seconds": seconds, "total": total}, options.save, "host")


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of each step, for full rows of the k largest."""
    k, n = options.k, options.rows
    rng = np.random.default_rng(0)
    reducer, block = Reducer(TargetSpec("topk", k=k), options.vocab), PackedBlock(torch.zeros(0), k)
    arrays = [kernel_output(rng, n, k, options.vocab) for _ in range(options.requests)]
    requests = [
        Request(f"{i:032x}", rng.integers(0, options.vocab, n + 1).astype(np.uint32), np.arange(n))
        for i in range(options.requests)
    ]
    indices, positions = np.repeat(np.arange(options.requests), n), np.tile(np.arange(n), options.requests)
    seconds = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        step()
        taken = []
        for _ in range(options.repeats):
            started = time.perf_counter()
            result = step()
            taken.append(time.perf_counter() - started)
        seconds[name] = spread(taken)
        return result

    parts = timed("unpack", lambda: [reducer.rows_from_arrays(block.arrays(packed)) for packed in arrays])
    rows = timed("join", lambda: concatenate_rows(parts))
    sent = timed("send", lambda: pack_rows(rows, indices, positions))
    grouped = timed("group", lambda: group_rows_by_request([sent], [request.rows for request in requests]))
    timed("score", lambda: [build_scored(request, of) for request, of in zip(requests, grouped, strict=True)])
    return seconds


def kernel_output(rng: np.random.Generator, n: int, k: int, vocab: int) -> Any:
    """Rows as the kernels write them (PackedBlock): int32 [n, 2k + 5]."""
    packed = rng.integers(0, vocab, (n, 2 * k + 5)).astype(np.int32)
    values = packed.view(np.float32)
    packed[:, 2 * k : 2 * k + 2] = k
    values[:, k : 2 * k] = -rng.random((n, k)).astype(np.float32)
    values[:, 2 * k + 2 :] = -1
    return packed


if __name__ == "__main__":
    main()
