"""Run all benchmarks, one after the other, each in a process of its own.

    python -m benchmarks --quick             small sizes: does everything run? Its figures mean nothing
    python -m benchmarks                     the sizes of the recorded results; hours, and nothing is saved
    python -m benchmarks --only store,train  some of them

To save a result, run the benchmark itself with --save. Benchmarks of a trained teacher use that of the demo; without
`make demo` they are skipped, and a line says so.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TEACHER, EXAMPLES = Path("runs/demo/teacher/model"), Path("runs/demo/examples/heldout.jsonl")
STUDENTS = Path("runs/demo/store")
MEDICAL = Path("runs/medical/examples/train.jsonl")
SCIENCE, GENERALIST = Path("runs/science/examples/train.jsonl"), Path("runs/teachers/SmolLM2-135M-Instruct")
OF_DEMO = ["--teacher", str(TEACHER), "--examples", str(EXAMPLES)]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A module of benchmarks/ with its arguments. needs: files without which it is skipped.

    ROWS in the arguments stands for a temporary file, which store.teacher_rows writes and store.codes reads.
    """

    name: str
    quick: str
    full: str
    needs: tuple[Path, ...] = ()


BENCHMARKS = (
    Benchmark(
        "store",
        "--k 16 --vocab 2000 --tokens 8000 --repeats 1 --peers memmap,zarr_python,tensorstore,parquet",
        "--k 64 --vocab 151936 --tokens 500000",
    ),
    Benchmark("store.scale", "--tokens 16384 --units 100 --repeats 1", ""),
    Benchmark(
        "store.teacher_rows",
        f"{TEACHER} {EXAMPLES} ROWS --k 64 --tokens 4000",
        f"{TEACHER} {EXAMPLES} ROWS",
        (TEACHER, EXAMPLES),
    ),
    Benchmark("store.codes", "ROWS", "ROWS", (TEACHER, EXAMPLES)),
    Benchmark(
        "capture",
        "--vocab 2000 --k 16 --sequences 2 --length 64 --repeats 1 --generate 2",
        "--k 64 --vocab 151936 --sequences 4",
    ),
    Benchmark("scale", "--examples 3000 --paced 500 --actors 2 --repeats 1", "--examples 100000"),
    Benchmark("reduction", "--device cpu --vocab 2000 --rows 16 --budget 0", "--rows 256"),
    Benchmark("train", "--vocab 2000 --hidden 64 --k 16 --batch 2 --length 32 --repeats 1", "--vocab 151936"),
    Benchmark(
        "alignment", f"--examples {MEDICAL} --count 100 --repeats 1", f"--examples {MEDICAL}", (MEDICAL, GENERALIST)
    ),
    Benchmark("optimizers", "--vocab 2000 --hidden 64 --layers 2 --repeats 1", ""),
    Benchmark("head_precision", "--vocab 2000 --width 64 --rows 64 --k 16 --repeats 1", ""),
    Benchmark("batches", "--examples 2000 --steps 1", ""),
    Benchmark("start", "--hidden 256 --layers 2 --vocab 2000 --repeats 1", "--ranks 4"),
    Benchmark("order", "--documents 18 --tokens 8000 --sizes 1000 --steps 32 --repeats 1", ""),
    Benchmark("order.students", "--seeds 1 --steps 2 --output runs/order/quick", "", (STUDENTS,)),
    Benchmark(
        "reuse",
        "--vocab 2000 --hidden 64 --teacher-hidden 64 --teacher-layers 2 --k 16 --examples 24 --length 32 --slices 2",
        "",
    ),
    Benchmark(
        "fidelity",
        f"{' '.join(OF_DEMO)} --sharpness own --seeds 1 --steps 2 --length 32 --modes hard_label,full,systematic_20",
        "--sharpness sharp --steps 160 --epochs 4",
        (TEACHER, EXAMPLES),
    ),
    Benchmark("step_by_step", "--own --seeds 1 --shares 2 --steps 2", "--own --seeds 3 --shares 25 100"),
    Benchmark("teacher_tuning", "--variants upper:2:0.01:1e-3", "--variants full:8:2:2e-4", (SCIENCE, GENERALIST)),
    Benchmark("demo_seeds", "--seeds 1 --steps 2", "--seeds 3", (TEACHER, STUDENTS)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, only to see that everything runs")
    parser.add_argument("--only", default="", help="names, separated by commas")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name]
    if unknown := sorted(set(names) - {each.name for each in BENCHMARKS}):
        parser.error(f"--only: unknown {unknown[0]!r}; choose from {', '.join(each.name for each in BENCHMARKS)}")
    failed = []
    with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
        for each in BENCHMARKS:
            if (not names or each.name in names) and not run(each, options.quick, Path(folder) / "rows.npz"):
                failed.append(each.name)
    print(f"benchmarks: {f'failed: {chr(44).join(failed)}' if failed else 'all of them ran'}")
    return int(bool(failed))


def run(benchmark: Benchmark, quick: bool, rows: Path) -> bool:
    """Run one benchmark; whether it succeeded, or was skipped for want of the demo."""
    if missing := [str(path) for path in benchmark.needs if not path.exists()]:
        print(
            f"== {benchmark.name}: skipped, {missing[0]} is missing; run `make demo` or the demo of its folder first",
            flush=True,
        )
        return True
    arguments = (benchmark.quick if quick else benchmark.full).replace("ROWS", str(rows)).split()
    command = [sys.executable, "-m", f"benchmarks.{benchmark.name}", *arguments]
    print(f"== python {' '.join(command[1:])}", flush=True)
    started = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    print(f"== {benchmark.name}: {time.monotonic() - started:.0f} s, exit code {status}\n", flush=True)
    return status == 0


if __name__ == "__main__":
    sys.exit(main())
