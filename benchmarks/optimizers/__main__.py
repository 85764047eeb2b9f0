"""The command. See the package."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import benchmarks.optimizers
from benchmarks.common.harness import finish, spread
from benchmarks.common.random_student import random_student
from student.models.model_parts import head_of
from student.training.engine.optimizers import make_optimizer
from student.training.engine.parameter_groups import parameter_groups
from student.training.run_settings import OptimizerSettings

ROOT = Path(__file__).resolve().parents[2]
PEER, LIMIT = "PyTorch's AdamW as it comes", "one pass over 28 bytes a parameter"
LAST = 10


def main() -> None:
    options = parse(sys.argv[1:])
    settings = {
        "adamw": {"lr": options.lr},
        "adamw_8bit": {"name": "adamw_8bit", "lr": options.lr},
        "muon": {"name": "muon", "lr": options.muon_lr, "adam_lr": options.lr},
    }
    if options.job:
        results = learned(options, settings)
        finish("optimizers", results, options.save, f"optimizers_{Path(options.job).parent.name}")
    else:
        finish("optimizers", updates(options, settings), options.save)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=benchmarks.optimizers.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--job", help="a training job that is run with each optimizer")
    parser.add_argument("--steps", type=int, default=110, help="of the job (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=0.003, help="of AdamW (default: %(default)s)")
    parser.add_argument("--muon-lr", type=float, default=0.02, help="of Muon (default: %(default)s)")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    return parser.parse_args(arguments)


def updates(options: argparse.Namespace, settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Milliseconds of an update and bytes of state a parameter, in turns."""
    model = random_student(options.vocab, options.hidden, options.layers)
    parameters = sum(each.numel() for each in model.parameters())
    made = {
        name: make_optimizer(model, OptimizerSettings.model_validate(each), list(head_of(model).parameters()))
        for name, each in settings.items()
    }
    made[PEER] = torch.optim.AdamW(parameter_groups(model, 0.01), lr=options.lr)
    ways: dict[str, Callable[[], Any]] = {name: each.step for name, each in made.items()}
    values = torch.ones(7 * parameters // 2)  # half of the bytes are read, and half are written
    ways[LIMIT] = values.neg_
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with torch.compiler.set_stance("force_eager"):
        for repeat in range(options.repeats + 1):
            for name, update in ways.items():
                for each in model.parameters():
                    each.grad = torch.randn_like(each)
                started = time.perf_counter()
                update()
                if repeat:  # the first one makes the state
                    seconds[name].append(time.perf_counter() - started)
    found = {
        name: {"ms": spread([1e3 * each for each in times]), "state_bytes": state_bytes(made.get(name)) / parameters}
        for name, times in seconds.items()
    }
    print(f"{parameters:,} parameters, float32, {torch.get_num_threads()} threads")
    for name, each in found.items():
        ms, state = each["ms"], each["state_bytes"]
        print(f"{name:36}{ms['median']:>9.1f} ms ({ms['min']:.1f} to {ms['max']:.1f}){state:>8.1f} B a parameter")
    return {"parameters": parameters, "threads": torch.get_num_threads(), "updates": found}


def state_bytes(optimizer: torch.optim.Optimizer | None) -> int:
    """Bytes of an optimizer's state."""

    def tensors(value: Any) -> Iterator[torch.Tensor]:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, dict):
            for inner in value.values():
                yield from tensors(inner)

    return 0 if optimizer is None else sum(each.nbytes for each in tensors(dict(optimizer.state)))


def learned(options: argparse.Namespace, settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Loss and seconds of a job with each optimizer."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
        for name, each in settings.items():
            output = Path(folder) / name
            table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in each.items())
            command = [sys.executable, "-m", "cluster.commands.main", "train", options.job]
            command += ["--set", f"output={output}", "--set", f"run.steps={options.steps}"]
            command += ["--set", f"optimizer={{ {table} }}"]
            subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
            lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
            found[name] = {"loss": mean(line["objective"] for line in lines[-LAST:]), "seconds": lines[-1]["seconds"]}
            print(
                f"{name:12} loss {found[name]['loss']:.4f} after {options.steps} steps, {found[name]['seconds']:.0f} s"
            )
    return {"job": options.job, "steps": options.steps, "runs": found}


if __name__ == "__main__":
    main()
