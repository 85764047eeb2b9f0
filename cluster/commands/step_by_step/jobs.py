"""The job files of a run of `logitbank step-by-step`, from the options of the published command line.

Hsieh et al. 2023, https://github.com/google-research/distilling-step-by-step (run.py).
"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.errors import InputError

# Tokens of an answer at most, as the published code cuts labels and rationales.
MAX_OUTPUT = 256
# The published optimizer: Transformers' defaults.
OPTIMIZER = {"schedule": "linear", "warmup_steps": 0, "final_lr_share": 0.0, "betas": [0.9, 0.999], "weight_decay": 0.0}
# A T5 with random weights and a tokenizer of its own, for --from_scratch.
SMALL_T5 = {"model_type": "t5", "d_model": 64, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_heads": 2}
SMALL_VOCABULARY = 800
# Data sets without published outputs of a large model.
OWN_DATA = ("generic", "synthetic")
# Defaults of the command line.
PRETRAINED, ALPHA, DATA = "google/t5-v1_1-base", 0.5, Path("datasets")
# Options that count something.
POSITIVE = ("max_steps", "eval_steps", "batch_size", "grad_steps", "max_input_length", "gen_max_len")
# Outputs of --llm by their name in the task.
LLMS = {"palm": "palm", "gpt": "gpt", "generic": "own", "own": "own", "captured": "captured"}
TASKS_OF = {"standard": 1, "task_prefix": 2}

Job = dict[str, Any]


def run_folder(arguments: argparse.Namespace) -> Path:
    """The folder of a run: one for each combination of options, as the published code names it."""
    model = "scratch" if arguments.from_scratch else Path(arguments.from_pretrained).name
    parts = (
        *(arguments.dataset, model, arguments.model_type, _llm(arguments) or "none", arguments.subsample),
        *(arguments.label_type, arguments.alpha, arguments.max_input_length),
        *(arguments.grad_steps * arguments.batch_size, arguments.optimizer_name, arguments.lr, arguments.run_seed),
    )
    return Path(arguments.output_dir, *map(str, parts))


def make_jobs(arguments: argparse.Namespace, output: Path) -> dict[str, Job]:
    """The jobs "examples", "train" and "evaluate". Raises InputError for an option that cannot be had."""
    _require_supported(arguments)
    has_rationales = arguments.model_type == "task_prefix" and arguments.output_rationale
    test = "test" if has_rationales or arguments.model_type == "standard" else "test_labels"
    return {
        "examples": {"output": str(output / "examples"), "task": _task(arguments)},
        "train": _train(arguments, output),
        "evaluate": {
            "output": str(output / "evaluation"),
            "examples": str(output / "examples" / f"{test}.jsonl"),
            "task": {"name": "step_by_step"},
            "models": {"student": str(output / "student" / "model")},
            "generation": {
                "prompts": 1_000_000,
                "max_new_tokens": arguments.gen_max_len,
                "batch_size": arguments.batch_size,
            },
        },
    }


def write_toml(path: Path, job: Mapping[str, Any], comment: str) -> None:
    """Write a job file: values, then tables."""
    plain = {key: value for key, value in job.items() if not isinstance(value, Mapping)}
    lines = [f"# {comment}", *(f"{key} = {_toml(value)}" for key, value in plain.items())]
    for key, table in job.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]", *(f"{name} = {_toml(value)}" for name, value in table.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _llm(arguments: argparse.Namespace) -> str | None:
    """Whose rationales and labels the run needs; None if it learns true labels alone."""
    if arguments.model_type == "standard" and arguments.label_type == "gt":
        return None
    default = "own" if arguments.dataset in OWN_DATA else "palm"
    return LLMS[arguments.llm] if arguments.llm else default


def _task(arguments: argparse.Namespace) -> Job:
    task: Job = {"name": "step_by_step", "dataset": arguments.dataset}
    if arguments.dataset != "synthetic":
        task["data"] = str(arguments.data)
    if llm := _llm(arguments):
        task["llm"] = llm
    if arguments.answers is not None:
        task["answers"] = str(arguments.answers)
    task |= {"label_type": arguments.label_type, "model_type": arguments.model_type}
    if arguments.subsample != 1:
        task |= {"subsample": arguments.subsample, "run": arguments.run_seed}
    return task


def _train(arguments: argparse.Namespace, output: Path) -> Job:
    if arguments.from_scratch:
        model, vocabulary = {"config": SMALL_T5}, {"tokenizer": {"vocab_size": SMALL_VOCABULARY}}
    else:
        model, vocabulary = {"pretrained": arguments.from_pretrained}, {}
    run: Job = {
        "steps": arguments.max_steps,
        "batch_size": arguments.batch_size * arguments.grad_steps * TASKS_OF[arguments.model_type],
        "precision": "bf16" if arguments.bf16 else "fp32",
        "seed": arguments.run_seed,
        "checkpoint_every": arguments.eval_steps,
    }
    if arguments.parallelize:
        run["zero_stage"] = 3
    return {
        "output": str(output / "student"),
        "data": {
            "examples": str(output / "examples" / "train.jsonl"),
            # A training bounds input and answer together: a short answer leaves room for a longer input.
            "max_tokens": arguments.max_input_length + MAX_OUTPUT,
        },
        **vocabulary,
        "model": model,
        "loss": _loss(arguments),
        "optimizer": {"lr": arguments.lr, **OPTIMIZER},
        "run": run,
        "heldout": {"examples": str(output / "examples" / "valid.jsonl"), "every": arguments.eval_steps},
        "tracking": {"tensorboard": not arguments.no_log},
    }


def _loss(arguments: argparse.Namespace) -> Job:
    """alpha * label + (1 - alpha) * rationale, each a mean over its own tokens."""
    if arguments.model_type == "standard":
        return {"objective": "hard_label"}
    weights = {"predict": arguments.alpha, "explain": 1 - arguments.alpha}
    terms = [
        {"objective": "hard_label", "weight": weight, "where": {"task": task}}
        for task, weight in weights.items()
        if weight > 0
    ]
    return {"terms": terms}


def _require_supported(arguments: argparse.Namespace) -> None:
    if arguments.optimizer_name != "AdamW":
        raise InputError(
            f"--optimizer_name {arguments.optimizer_name}: AdamW is the only optimizer (the published code uses the "
            "name for its folder alone); leave it out"
        )
    if not 0 <= arguments.alpha <= 1:
        raise InputError(f"--alpha {arguments.alpha}: the share of the label loss; give a number from 0 to 1")
    if arguments.local_rank != -1:
        raise InputError(
            f"--local_rank {arguments.local_rank}: Ray starts the ranks, so no launcher is needed; leave it out"
        )
    if (arguments.llm == "captured") != (arguments.answers is not None):
        raise InputError("--llm captured and --answers FILE belong together; give both or neither")
    for name in POSITIVE:
        if (value := getattr(arguments, name)) < 1:
            raise InputError(f"--{name} {value}: give a whole number of at least 1")
    if not 0 < arguments.lr < math.inf:
        raise InputError(f"--lr {arguments.lr}: the learning rate; give a number above 0")
    if not 0 < arguments.subsample <= 1:
        raise InputError(
            f"--subsample {arguments.subsample}: the share of the training items; give one above 0, up to 1"
        )
    if arguments.run_seed < 0:
        raise InputError(f"--run {arguments.run_seed}: the random seed; give 0 or more")
    if arguments.from_scratch and arguments.from_pretrained != PRETRAINED:
        raise InputError("--from_scratch and --from_pretrained are two beginnings; give one of them")
    if not arguments.from_pretrained:
        raise InputError("--from_pretrained: give a folder or a hub name")
    if arguments.llm in ("palm", "gpt") and arguments.dataset in OWN_DATA:
        raise InputError(f"--llm {arguments.llm}: there are no published outputs for {arguments.dataset}; leave it out")
    if arguments.llm in ("own", "generic") and arguments.dataset in ("svamp", "asdiv"):
        raise InputError(
            f"--llm {arguments.llm}: {arguments.dataset} has no rationales of its own; give palm, gpt or captured"
        )


def notes(arguments: argparse.Namespace) -> list[str]:
    """Options that have no effect in this combination. The published code accepts them, so they are no errors."""
    found = []
    if arguments.model_type == "standard":
        if arguments.alpha != ALPHA:
            found.append("--alpha has no effect with --model_type standard, which has one loss")
        if arguments.output_rationale:
            found.append("--output_rationale has no effect with --model_type standard, which writes labels alone")
        if arguments.label_type == "gt" and arguments.llm:
            found.append("--llm has no effect with --model_type standard and true labels")
    if arguments.dataset == "synthetic" and arguments.data != DATA:
        found.append("--data has no effect with --dataset synthetic, whose items are made")
    return found


def _toml(value: Any) -> str:
    """A value in TOML. JSON text is TOML text, but for tables and booleans' writing, which is the same."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
