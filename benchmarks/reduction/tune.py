"""Find the sizes of the Triton kernels that are fastest on this GPU; `--write` puts them into triton_backend.py.

Each kernel has sizes of its own, so they are tried kernel by kernel.

    python -m benchmarks.reduction.tune --rows 2048
"""

import argparse
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch

from benchmarks.reduction.cases import Case, make_case, random_block
from benchmarks.reduction.timing import kernel_seconds
from teacher_serving.reduction import triton_backend

VOCABULARIES = (32_000, 151_936)
# The kernel, the names of its sizes, and the values to try.
SIZES: tuple[tuple[str, str, dict[str, Sequence[int]]], ...] = (
    ("sum_chunks", "topk 64", {"TILES_PER_PROGRAM": (2, 4, 8), "SUM_WARPS": (4, 8)}),
    ("choose_chunks", "topk 64", {"CHUNKS_PER_WARP": (256, 512, 1024)}),
    ("collect_keys", "topk 64", {"COLLECTED_TILE": (512, 1024), "COLLECT_WARPS": (1, 2)}),
    ("locate_draws", "sampled 64", {"DRAWS_PER_PROGRAM": (8, 16), "LOCATE_WARPS": (1, 2)}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    blocks = [random_block(options.rows, vocab, torch.bfloat16, "cuda") for vocab in VOCABULARIES]
    for kernel, mode, sizes in SIZES:
        cases = [make_case(mode, block) for block in blocks]
        best = min(product(*sizes.values()), key=lambda values: time_of(kernel, cases, list(sizes), values))
        apply(list(sizes), best)
        print(f"{kernel}: best {dict(zip(sizes, best, strict=True))}", flush=True)
        if options.write:
            write(list(sizes), best)


def apply(names: list[str], values: Sequence[int]) -> None:
    """Use these sizes from now on."""
    for name, value in zip(names, values, strict=True):
        setattr(triton_backend, name, value)
    triton_backend.forget_memory()


def time_of(kernel: str, cases: list[Case], names: list[str], values: Sequence[int]) -> float:
    """The kernel's time for a logit, summed over the vocabularies."""
    apply(names, values)
    taken = []
    for case in cases:

        def run(case: Case = case) -> object:
            return triton_backend.reduce_packed(case.logits, case.next_tokens, case.uniforms, case.targets)

        times = [value for name, value in kernel_seconds(run).items() if kernel in name]
        taken.append(sum(times) or float("inf"))
    print(f"  {kernel} {dict(zip(names, values, strict=True))}: "
          f"{', '.join(f'{value * 1e6:.1f} us' for value in taken)}", flush=True)  # fmt: skip
    return sum(value / case.logits.numel() for value, case in zip(taken, cases, strict=True))


def write(names: list[str], values: Sequence[int]) -> None:
    """Put the sizes into the file of the backend."""
    path = Path(triton_backend.__file__)
    text = path.read_text()
    for name, value in zip(names, values, strict=True):
        text = re.sub(rf"^{name} = \d+$", f"{name} = {value}", text, flags=re.MULTILINE)
    path.write_text(text)


if __name__ == "__main__":
    main()
