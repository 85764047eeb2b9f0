"""Labels alone against labels and rationales, true labels against those of the LLM, over shares of the data and seeds.

All students are the T5 of the demo. They start from random weights; a seed changes weights and order, and all see the
same items. Each share of the items is a part of the larger ones. Needs the tokenizer, and without --data the teacher's
answers, of `make demo-step`; SVAMP needs its published files, with PaLM's outputs.

    python -m benchmarks.step_by_step --seeds 3 --shares 25 50 100 --save
    python -m benchmarks.step_by_step --data datasets --seeds 3 --shares 100 --save
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common.harness import finish
from cache.json_documents import write_json
from cluster.evaluation.settings import EvaluateSettings, ExamplesSettings
from cluster.evaluation.task_examples import run_examples
from cluster.report.groups import group_models, table_values
from cluster.report.metrics_table import metrics_table
from cluster.runtime.job_file import load_job
from cluster.runtime.outputs import read_json
from cluster.runtime.progress_bars import counter

ROOT = Path(__file__).resolve().parent.parent
JOBS = ROOT / "cluster" / "jobs" / "step_by_step"
RUNS = ROOT / "runs" / "step"
# The share of the items that the demo's teacher answered.
ANSWERED = 0.25
# Ids of the tokenizer of SVAMP's students, as many as the demo's.
VOCABULARY = 800
METRICS = (
    *("label_accuracy", "malformed_labels", "rationale_parse_rate", "rationale_steps_right"),
    *("rationale_reaches_answer", "rationale_rouge_l"),
)
VARIANTS = ("standard_gt", "task_prefix_gt", "standard_llm", "task_prefix_llm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with svamp/ (default: the demo's synthetic problems)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[100.0], help="percent of the training items")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--own", action="store_true", help="the grammar's rationales in place of the teacher's")
    parser.add_argument("--pretrained", type=Path, help="weights of the students (default: random ones)")
    parser.add_argument("--lr", type=float, help="learning rate (default: the demo's)")
    parser.add_argument("--steps", type=int, help="steps of each student (default: the demo's)")
    parser.add_argument("--file", help="name of the result file in benchmarks/results/tasks/ (default: by the data)")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/tasks/")
    options = parser.parse_args()
    _one_rank()
    tables = {}
    for share in options.shares:
        models = {
            f"{variant}_{seed}": _student(options, share, variant, seed)
            for variant in options.variants
            for seed in range(options.seeds)
        }
        groups = {variant: [f"{variant}_{seed}" for seed in range(options.seeds)] for variant in options.variants}
        columns = group_models(
            {name: {metric: each[metric] for metric in METRICS if metric in each} for name, each in models.items()},
            groups,
        )
        title = f"{share:g}% of the training items, {options.seeds} seeds"
        tables[title] = table_values(columns)
        print(f"{title}\n{metrics_table(columns)}\n", flush=True)
    results = {"tables": tables, "seeds": options.seeds, "steps": options.steps}
    finish("step_by_step", results, options.save, f"tasks/{options.file or f'step_{_name(options)}'}")


def _name(options: argparse.Namespace) -> str:
    """Which comparison this is, for its folder and its result file."""
    name = "svamp" if options.data else "grammar" if options.own else "synthetic"
    return f"{name}_pretrained" if options.pretrained else name


def _student(options: argparse.Namespace, share: float, variant: str, seed: int) -> dict[str, Any]:
    """Train and evaluate one student, unless that was done before."""
    from student.evaluation.heldout_examples import HeldoutExamples
    from student.evaluation.language_model import evaluate_language_model
    from student.training.settings import TrainSettings
    from student.training.train import train

    model_type, label_type = variant.rsplit("_", 1)
    data = _name(options)
    folder = RUNS / "seeds" / data / f"items_{label_type}_{share:g}"
    examples = _examples(options.data, share, label_type, folder, options.own)
    steps = f"_{options.steps}_steps" if options.steps else ""
    output = RUNS / "seeds" / data / f"{variant}_{share:g}_{seed}{steps}"
    overrides = [
        f"output={output}",
        f"data.examples={examples / 'train.jsonl'}",
        f"run.seed={seed}",
        "run.ranks=1",
        "run.zero_stage=0",
    ]
    overrides += [f"run.steps={options.steps}"] if options.steps else []
    overrides += [f"optimizer.lr={options.lr}"] if options.lr else []
    if options.pretrained:
        overrides += [f'model={{pretrained="{options.pretrained.resolve()}"}}', "tokenizer={}"]
    elif options.data or options.own:
        overrides.append(f"tokenizer.path={_tokenizer(examples, RUNS / 'seeds' / data / 'tokenizer')}")
    if model_type == "standard":
        overrides += ['data.where={task="predict"}', 'loss={objective="hard_label"}']
        overrides += ["run.batch_size=32", "run.micro_batch_size=32"]
    result = output / "metrics.json"
    if not result.exists():
        settings = load_job(JOBS / "student.toml", overrides, TrainSettings, ROOT)
        if not (output / "training.json").exists():
            train(settings)
        job = load_job(JOBS / "evaluate.toml", [], EvaluateSettings, ROOT)
        heldout = HeldoutExamples(path=str(examples / f"{'test_labels' if model_type == 'standard' else 'test'}.jsonl"))
        model = str(output / "model")
        progress = partial(_progress, output.name)
        write_json(result, evaluate_language_model(model, heldout, job.task, job.generation, progress))
    return dict(read_json(result))


def _examples(data: Path | None, share: float, label_type: str, output: Path, own: bool = False) -> Path:
    """The items of a share, with true labels or those of the LLM."""
    if data is not None:
        task = f'dataset="svamp", data="{data.resolve()}", llm="palm", subsample={share / 100}'
    else:
        llm = 'llm="own"' if own else f'llm="captured", answers="{RUNS / "explained.jsonl"}"'
        task = f"{llm}, problems=[4000, 100, 200], subsample={ANSWERED * share / 100}"
    overrides = [f'task={{name="step_by_step", label_type="{label_type}", {task}}}', f"output={output}"]
    run_examples(load_job(JOBS / "examples.toml", overrides, ExamplesSettings, ROOT))
    return output


def _tokenizer(examples: Path, folder: Path) -> Path:
    """A tokenizer that is learned once, from the first items, for the students of all variants."""
    from cache.examples.files.jsonl import read_examples
    from student.tokenizers.bpe import learn_tokenizer, save_tokenizer

    if not folder.exists():
        save_tokenizer(learn_tokenizer(read_examples(examples / "train.jsonl"), VOCABULARY), folder)
    return folder


def _one_rank() -> None:
    """This process is the only rank of every training: starting Ray for each would take longer than the training."""
    defaults = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531"}
    for name, value in {**defaults, "DS_ACCELERATOR": "cpu"}.items():
        os.environ.setdefault(name, value)


def _progress(model: str, what: str) -> Any:
    return counter(f"{model} {what}", "examples")


if __name__ == "__main__":
    main()
