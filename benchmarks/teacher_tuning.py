"""How the teacher of science scoring learns to grade: the kind of its weights, batch, passes and rate, side by side.

A variant is WEIGHTS:BATCH:EPOCHS:LR; WEIGHTS is full, lora (all layers) or upper (adapters in the upper 12 layers).
The examples are those of a demo, after its first step. Minutes a variant on a GPU, ten on 2 cores.

    python -m benchmarks.teacher_tuning --variants full:8:2:2e-4 lora:16:4:1e-3 --save
    python -m benchmarks.teacher_tuning --examples EXAMPLES --file beetle_teachers --variants lora:16:8:1e-3 --save
"""

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common.harness import finish
from cluster.evaluation.settings import EvaluateSettings
from cluster.report.groups import group_models, table_values
from cluster.report.metrics_table import metrics_table
from cluster.runtime.job_file import load_job
from cluster.runtime.outputs import read_json
from cluster.runtime.progress_bars import counter

ROOT = Path(__file__).resolve().parent.parent
JOBS = ROOT / "cluster" / "jobs" / "science_scoring"
RUNS = ROOT / "runs" / "science"
METRICS = ("accuracy", "macro_f1", "qwk", "ece")
# Upper layers of the 30 of SmolLM2-135M.
ADAPTERS = {"full": None, "lora": "all-linear", "upper": r".*layers\.(1[89]|2[0-9])\..*_proj"}


class Variant(NamedTuple):
    """One way to tune. weights: a key of ADAPTERS. lr: the learning rate."""

    weights: str
    batch: int
    epochs: float
    lr: float

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Read WEIGHTS:BATCH:EPOCHS:LR. Raises argparse.ArgumentTypeError if it is none."""
        try:
            weights, batch, epochs, lr = text.split(":")
            variant = cls(weights, int(batch), float(epochs), float(lr))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: give WEIGHTS:BATCH:EPOCHS:LR, as full:8:2:2e-4") from None
        if variant.weights not in ADAPTERS:
            raise argparse.ArgumentTypeError(f"{text!r}: WEIGHTS is one of {', '.join(ADAPTERS)}")
        return variant

    @property
    def name(self) -> str:
        """Of its column and folder."""
        return f"{self.weights}_{self.batch}_{self.epochs:g}_{self.lr:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", type=Variant.parse, required=True)
    parser.add_argument("--examples", type=Path, default=RUNS / "examples", help="folder of a demo's examples")
    parser.add_argument("--teacher", type=Path, default=ROOT / "runs" / "teachers" / "SmolLM2-135M-Instruct")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--file", help="name of the result file in benchmarks/results/tasks/")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/tasks/")
    options = parser.parse_args()
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "29532")
    splits = sorted(path.stem for path in options.examples.glob("*.jsonl") if path.stem.startswith(("dev", "test")))
    models = {variant.name: _tuned(options, variant, splits) for variant in options.variants}
    tables = {}
    for split in splits:
        graded = {metric: {name: each[split][metric] for name, each in models.items()} for metric in METRICS}
        columns = group_models(graded, {})
        tables[split] = table_values(columns)
        print(f"{split}\n{metrics_table(columns)}\n", flush=True)
    seconds = {name: each["seconds"] for name, each in models.items()}
    results = {"tables": tables, "seconds_in_steps": seconds, "precision": options.precision}
    finish("teacher_tuning", results, options.save, f"tasks/{options.file or 'science_teachers'}")


def _tuned(options: argparse.Namespace, variant: Variant, splits: list[str]) -> dict[str, Any]:
    """Tune one teacher, unless that was done before, and let it grade: {split: {metric: value}}, and its "seconds"."""
    from student.evaluation.classifier import evaluate_classifier
    from student.evaluation.heldout_examples import HeldoutExamples
    from student.training.settings import TrainSettings
    from student.training.train import train

    output = options.examples.parent / "tuned" / f"{variant.name}_{options.precision}"
    overrides = [
        f"output={output}",
        f"data.examples={options.examples / 'train.jsonl'}",
        f"run.batch_size={variant.batch}",
        f"run.micro_batch_size={min(variant.batch, 16)}",
        f"run.precision={options.precision}",
        f"optimizer.lr={variant.lr}",
        f'model={{pretrained="{options.teacher.resolve()}"{_adapters(variant)}}}',
        f"run.epochs={variant.epochs}",
    ]
    settings = load_job(JOBS / "teacher.toml", overrides, TrainSettings, ROOT)
    if not (output / "training.json").exists():
        train(settings)
    job = load_job(JOBS / "evaluate.toml", [], EvaluateSettings, ROOT)
    assert job.classes is not None
    tuned: dict[str, Any] = {"seconds": read_json(output / "training.json")["seconds"]}
    for split in splits:
        heldout = HeldoutExamples(path=str(options.examples / f"{split}.jsonl"))
        progress = counter(f"{variant.name} {split}", "examples")
        metrics = evaluate_classifier(str(output / "model"), heldout, job.classes, progress)
        tuned[split] = {metric: metrics[metric] for metric in METRICS}
    return tuned


def _adapters(variant: Variant) -> str:
    modules = ADAPTERS[variant.weights]
    return "" if modules is None else f", lora={{rank=16, alpha=32, target_modules='{modules}'}}"


if __name__ == "__main__":
    main()
