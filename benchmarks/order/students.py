"""Do students learn as much from blocks of neighbours as from a full shuffle? The demo's student, over several seeds.

Every run has one epoch of the demo's store, or of a copy of it in which units are sorted by task and length, so that
the examples of a block are alike. With its default window the store would be shuffled as a whole. So the windows are
smaller, and are given by the number of blocks for each example of a batch; the default has four or more.
Runs that an earlier call has finished are not repeated. Needs the stores of `make demo`.

    python -m benchmarks.order.students --seeds 3 --save
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.common.harness import finish, spread
from cache.rows.record import Record
from cache.store.fill import fill_store
from cache.store.logit_store import LogitStore
from cluster.runtime.job_file import load_job
from cluster.training.driver import run_training
from student.training.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "cluster" / "jobs" / "demo" / "student.toml"
UNIT_EXAMPLES = 512
# Name of a case: whether the store is sorted, and the tokens of a window; None for a full shuffle.
CASES: dict[str, tuple[bool, int | None]] = {
    "full": (False, None),
    "blocks64": (False, 64 << 10),
    "sortedfull": (True, None),
    "sorted256": (True, 256 << 10),
    "sorted64": (True, 64 << 10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=Path, default=Path("runs/demo"), help="folder of 'store' and 'heldout'")
    parser.add_argument("--output", type=Path, default=Path("runs/order"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--cases", default=",".join(CASES), help="default: %(default)s")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    copy = options.output / "sorted"
    if not copy.exists():
        sort_store(options.stores / "store", copy)
    cases: dict[str, Any] = {}
    print(f"{'case':<12}{'held-out loss, median (min to max)':>40}{'waiting':>10}")
    for name in options.cases.split(","):
        is_sorted, window = CASES[name]
        store = copy if is_sorted else options.stores / "store"
        runs = [train(name, store, window, seed, options) for seed in range(options.seeds)]
        losses = [run["best_loss"] for run in runs]
        cases[name] = {
            "sorted": is_sorted,
            "order": runs[0]["order"][0],
            "blocks_of_an_example": None if window is None else window // 1024 / 64,
            "losses": losses,
            "loss": spread(losses),
            "data_wait_share": max(run["data_wait_share"] for run in runs),
        }
        loss = cases[name]["loss"]
        text = f"{loss['median']:.4f} ({loss['min']:.4f} to {loss['max']:.4f})"
        print(f"{name:<12}{text:>40}{cases[name]['data_wait_share']:>10.2%}", flush=True)
    finish("order.students", {"steps": options.steps, "cases": cases}, options.save, "order_students")


def sort_store(source: Path, copy: Path) -> None:
    """A store of the same examples, in units that are sorted by origin, task and length."""
    with LogitStore.open(source) as store:
        records = sorted(store, key=_topic)
        fill_store(str(copy), store.spec, records, len(records), unit_examples=UNIT_EXAMPLES)
    shutil.copy(source / "tokenizer.json", copy)
    shutil.copytree(source / "tokenizers", copy / "tokenizers")


def train(name: str, store: Path, window: int | None, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The result of a run (training.json)."""
    output = options.output.resolve() / f"{name}-{seed}"
    if (output / "training.json").exists():
        return dict(json.loads((output / "training.json").read_text()))
    overrides = [
        f"output={output}",
        f"data.store={store.resolve()}",
        f"heldout.store={(options.stores / 'heldout').resolve()}",
        f"heldout.every={options.steps}",
        "heldout.limit=1000",
        f"run.seed={seed}",
        f"run.steps={options.steps}",
        "run.ranks=1",
        "data.order=full" if window is None else f"data.window_tokens={window}",
    ]
    return run_training(load_job(JOB, overrides, TrainSettings, ROOT), None)


def _topic(record: Record) -> tuple[str, int, int]:
    example = record.tokenized.example
    return record.tokenized.origin, int(str(example.metadata.get("task", 0))), len(record.tokenized.tokens)


if __name__ == "__main__":
    main()
