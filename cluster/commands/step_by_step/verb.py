"""The verb that runs distilling step-by-step with the options of its published command line: step-by-step."""

import argparse
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cluster.commands.step_by_step.jobs import (
    ALPHA,
    DATA,
    LLMS,
    MAX_OUTPUT,
    PRETRAINED,
    TASKS_OF,
    make_jobs,
    notes,
    run_folder,
    write_toml,
)
from cluster.commands.verbs import Result, Verbs, complete_files, complete_folders

DATA_SETS = ("synthetic", "svamp", "asdiv", "cqa", "esnli", "anli1", "anli2", "anli3", "generic")
COMMENTS = {
    "examples": "Items as examples: logitbank examples",
    "train": "The student: logitbank train",
    "evaluate": "Answers to the test items: logitbank evaluate",
}


def add_step_by_step_verb(verbs: Verbs) -> None:
    """Every option of the published run.py has its name, meaning and default."""
    verb = verbs.add(
        "step-by-step",
        _step_by_step,
        "distil step by step, with the options of the published command line: write its job files and run them",
        "logitbank step-by-step --dataset svamp --data datasets --from_pretrained google/t5-v1_1-small "
        "--model_type task_prefix --label_type llm --llm palm --alpha 0.5 --batch_size 64",
    )
    add = verb.add_argument
    add("--dataset", required=True, choices=DATA_SETS, help="data set; asdiv is SVAMP and ASDiv")
    complete_folders(add("--data", type=Path, default=DATA, help="folder of the data sets (default: datasets)"))
    add("--subsample", type=float, default=1.0, help="share of the training items (default: 1)")
    add("--alpha", type=float, default=ALPHA, help="loss = alpha * label + (1 - alpha) * rationale (default: 0.5)")
    add("--max_steps", type=int, default=10000, help="steps of training (default: 10000)")
    add("--eval_steps", type=int, default=250, help="steps between validations and checkpoints (default: 250)")
    add(
        "--batch_size",
        type=int,
        default=64,
        help="items of a batch; each has two examples with task_prefix (default: 64)",
    )
    add("--optimizer_name", default="AdamW", help="AdamW, the only one")
    add("--lr", type=float, default=5e-5, help="learning rate, with a linear decay to 0 (default: 5e-5)")
    add("--run", type=int, default=0, dest="run_seed", help="random seed (default: 0)")
    add("--from_pretrained", default=PRETRAINED, help="folder or hub name of the student's weights")
    add("--from_scratch", action="store_true", help="a small T5 with random weights instead (not a published option)")
    add("--label_type", choices=("gt", "llm"), default="gt", help="true labels or those of the LLM (default: gt)")
    add(
        "--llm",
        choices=sorted(LLMS),
        help="whose rationales: published outputs (palm, gpt), the data set's (own, generic), or --answers (captured)",
    )
    complete_files(
        add(
            "--answers",
            type=Path,
            help="with --llm captured: answers of a teacher, from 'logitbank export --format texts'",
        )
    )
    add(
        "--max_input_length",
        type=int,
        default=1024,
        help=f"with {MAX_OUTPUT} added: tokens of input and answer together; longer examples are left out and counted "
        "(default: 1024)",
    )
    add("--grad_steps", type=int, default=1, help="batches that are accumulated in a step (default: 1)")
    add("--local_rank", type=int, default=-1, help="not needed: Ray starts the ranks")
    add("--gen_max_len", type=int, default=64, help="tokens of an answer in the evaluation (default: 64)")
    add("--parallelize", action="store_true", help="divide the weights among the ranks (DeepSpeed ZeRO stage 3)")
    add(
        "--model_type",
        choices=tuple(TASKS_OF),
        default="task_prefix",
        help="task_prefix: step by step; standard: labels alone",
    )
    add("--bf16", action="store_true", help="train in bfloat16")
    add("--no_log", action="store_true", help="no files for TensorBoard")
    add("--output_rationale", action="store_true", help="the evaluation also asks for rationales")
    complete_folders(
        add("--output_dir", type=Path, default=Path("outputs"), help="folder of all runs (default: outputs)")
    )
    add("--dry-run", action="store_true", help="write the job files and run nothing")
    add("--address", help="Ray head to join (default: RAY_ADDRESS, or an embedded Ray)")


def _step_by_step(arguments: argparse.Namespace) -> Result:
    from cluster.commands.step_by_step.files import require_no_other_work, restored_if_refused

    output = run_folder(arguments)
    jobs = make_jobs(arguments, output)
    _require_files(arguments)
    _require_valid(jobs)
    files = {name: arguments.root / output / "jobs" / f"{name}.toml" for name in jobs}
    if arguments.dry_run:
        require_no_other_work(files, jobs, arguments.root)
    for note in notes(arguments):
        print(f"step-by-step: {note}", flush=True)
    listed = "\n".join(f"step-by-step: logitbank {name} {path}" for name, path in files.items())
    with restored_if_refused(files, jobs, arguments.root):
        for name, job in jobs.items():
            write_toml(files[name], job, COMMENTS[name])
        if arguments.dry_run:
            return Result(listed, {"jobs": files})
        print(listed, flush=True)
        return _run(files, arguments)


def _require_files(arguments: argparse.Namespace) -> None:
    """Raise InputError if the data are not there, before anything is written."""
    data, answers = arguments.root / arguments.data, arguments.answers
    if arguments.dataset != "synthetic" and not data.is_dir():
        raise InputError(f"--data {arguments.data}: no such folder; give the folder that contains {arguments.dataset}/")
    if answers is not None and not (arguments.root / answers).is_file():
        raise InputError(f"--answers {answers}: no such file; 'logitbank export --format texts' writes one")


def _require_valid(jobs: dict[str, Any]) -> None:
    """Raise InputError if an option makes a job that is not valid, before anything is written."""
    from cluster.evaluation.settings import EvaluateSettings, ExamplesSettings
    from cluster.runtime.job_file import validated
    from student.training.settings import TrainSettings

    kinds: dict[str, type[Any]] = {"examples": ExamplesSettings, "train": TrainSettings, "evaluate": EvaluateSettings}
    for name, job in jobs.items():
        validated(job, kinds[name], f"step-by-step: the job {name!r} of these options")


def _run(files: dict[str, Path], arguments: argparse.Namespace) -> Result:
    """Run the three jobs. Each continues where an earlier run stopped."""
    from cluster.evaluation.driver import require_same_evaluation, run_evaluation
    from cluster.evaluation.settings import EvaluateSettings, ExamplesSettings
    from cluster.evaluation.task_examples import run_examples
    from cluster.report.metrics_table import metrics_table
    from cluster.runtime.job_file import load_job
    from cluster.training.driver import run_training, summary
    from student.training.settings import TrainSettings

    root = arguments.root.resolve()
    evaluation = load_job(files["evaluate"], [], EvaluateSettings, root)
    require_same_evaluation(evaluation)  # before a training of hours
    built = run_examples(load_job(files["examples"], [], ExamplesSettings, root))
    print("\n".join(_explained(built["facts"])), flush=True)
    trained = run_training(load_job(files["train"], [], TrainSettings, root), arguments.address)
    print(f"step-by-step: {summary(trained)}", flush=True)
    evaluated = run_evaluation(evaluation)
    return Result(metrics_table(evaluated["models"]), {**evaluated, "jobs": files})


def _explained(facts: dict[str, Any]) -> list[str]:
    """What was read, and how good the LLM's labels are: the published code prints this too."""
    lines = []
    for split in ("train", "valid", "test"):
        own = facts[split]
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in own["left_out"].items() if count)
        text = f"step-by-step: {split}: {own['items']:,} items" + (f" ({left_out})" if left_out else "")
        if llm := own.get("llm"):
            text += f"; LLM label accuracy {llm['label_accuracy']:.4f}"
            if "label_accuracy_as_published" in llm:
                text += f" (as the published code reads them {llm['label_accuracy_as_published']:.4f})"
        lines.append(text)
    return lines
