"""Does the teacher's distribution teach more than its examples do? The demo's two students, over several seeds.

Both objectives start from the same weights and see the same examples in the same order; a seed changes both.
Needs the stores of `make demo`. The limit is the teacher's own held-out loss.

    python -m benchmarks.demo_seeds --seeds 3
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common.harness import finish, spread
from cache.store.logit_store import LogitStore
from cluster.evaluation.settings import EvaluateSettings
from cluster.runtime.job_file import load_job
from cluster.runtime.progress_bars import counter
from cluster.training.driver import run_training
from student.evaluation.language_model import evaluate_language_model
from student.training.settings import TrainSettings

ROOT = Path(__file__).resolve().parent.parent
JOBS = ROOT / "cluster" / "jobs" / "demo"
OBJECTIVES = {"kd": "forward_kl", "ce": "hard_label"}
METRICS = ("heldout_loss", "kl_to_teacher", "top1_agreement", "validity", "hit_ratio_all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="steps of each student (default: the demo's)")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    job = load_job(JOBS / "evaluate.toml", [], EvaluateSettings, ROOT)
    store = LogitStore.open(str(job.store))
    result: dict[str, list[dict[str, Any]]] = {name: [] for name in OBJECTIVES}
    for seed in range(options.seeds):
        for name, objective in OBJECTIVES.items():
            label = f"{name}-{seed}"
            overrides = [f"output=runs/demo/seeds/{label}", f"loss.objective={objective}", f"run.seed={seed}"]
            overrides += [f"run.steps={options.steps}"] if options.steps else []
            training = load_job(JOBS / "student.toml", overrides, TrainSettings, ROOT)
            run_training(training, None)
            model = str(training.output / "model")
            metrics = evaluate_language_model(model, store, job.task, job.generation, partial(_progress, label))
            result[name].append({metric: metrics[metric] for metric in METRICS})
    print(f"\n{'':<18}" + "".join(f"{name + ' median (min to max)':>34}" for name in OBJECTIVES) + f"{'kd better':>12}")
    results: dict[str, Any] = {
        "seeds": options.seeds,
        "snapshot": store.snapshot,
        "fingerprint": store.spec.fingerprint,
    }
    for metric in METRICS:
        columns = {name: [metrics[metric] for metrics in runs] for name, runs in result.items()}
        lower = metric in ("heldout_loss", "kl_to_teacher")
        wins = sum((kd < ce) == lower and kd != ce for kd, ce in zip(columns["kd"], columns["ce"], strict=True))
        cells = [spread(values) for values in columns.values()]
        line = "".join(f"{c['median']:>16.4f} ({c['min']:.4f} to {c['max']:.4f})" for c in cells)
        print(f"{metric:<18}{line}{wins:>7} of {options.seeds}")
        results[metric] = {name: spread(values) for name, values in columns.items()} | {"kd_better": wins}
    finish("demo_seeds", results, options.save)


def _progress(model: str, what: str) -> Any:
    return counter(f"{model} {what}", "examples")


if __name__ == "__main__":
    main()
