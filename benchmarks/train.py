"""What distillation costs beside ordinary training: step time and memory of each loss, the same student and head.

The limit is hard-label training with the same fused head, on texts alone (no targets are read or decoded). A step is
forward pass, loss, backward pass and AdamW; its batch comes from a store on disk through the product's loader.
Peers: hard labels and the same KL from whole logits by autograd, and Liger's fused linear cross-entropy (CUDA alone).
Losses take turns step by step, so that a slow phase of the machine affects all of them. Memory is the peak resident
set of a separate process, without what it had before the model was built; on a GPU the peak of CUDA's allocator.

    python -m benchmarks.train --vocab 32000
    python -m benchmarks.train --vocab 151936 --save
    python -m benchmarks.train --device cuda --vocab 151936 --hidden 2048 --layers 16 --batch 8 --length 2048
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common.harness import finish, peak_resident, spread

# As `logitbank train` starts its ranks.
from cluster.training.rank_environment import rank_on_cpu

LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "hard_label": ("text", {"objective": "hard_label"}),
    "forward_kl": ("topk", {"objective": "forward_kl"}),
    "forward_kl, T = 2": ("topk", {"objective": "forward_kl", "temperature": 2.0}),
    "forward_kl + hard_label": ("topk", {"objective": "forward_kl", "hard_label_weight": 0.1}),
    "reverse_kl": ("topk", {"objective": "reverse_kl"}),
    "jsd": ("topk", {"objective": "jsd"}),
    "skewed_kl": ("topk", {"objective": "skewed_kl"}),
    "tvd": ("topk", {"objective": "tvd"}),
    "threshold forward_kl": ("threshold", {"objective": "forward_kl"}),
}
DENSE = ("dense hard_label", "dense forward_kl", "liger hard_label")


def main() -> None:
    options = parse(sys.argv[1:])
    missing = rank_on_cpu(options.threads).items() - os.environ.items()
    if missing and options.device == "cpu":  # glibc reads its settings once, when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.train", *sys.argv[1:]], os.environ | dict(missing))
    if options.memory_of:
        print(json.dumps(memory_of(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        stores = write_stores(Path(folder), options)
        results = measure(options, stores)
        for name in results["losses"]:
            if options.device == "cpu":  # a GPU counts its own
                results["losses"][name]["peak_mib"] = peak(name, options, folder)
    summarise(results)
    show(results)
    device = "" if options.device == "cpu" else f"_{options.device}"
    finish("train", results, options.save, f"train_v{options.vocab}{device}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: in bfloat16")
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--hidden", type=int, default=256, help="width of the random Llama")
    parser.add_argument("--layers", type=int, default=4, help="of the random Llama")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8, help="examples of a step")
    parser.add_argument("--length", type=int, default=128, help="tokens of an example")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--stores", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def student_of(options: argparse.Namespace) -> tuple[Any, Any]:
    """A random student on the device, and its AdamW. On a GPU its weights are bfloat16."""
    import torch

    from benchmarks.common.random_student import random_student

    model = random_student(options.vocab, options.hidden, options.layers)
    if options.device == "cuda":
        model = model.to("cuda", torch.bfloat16)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=options.device == "cuda")


def write_stores(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.common.random_student import simulated_store

    count = options.batch * (options.repeats + 2)
    return {
        mode: simulated_store(folder, options.vocab, options.k, count, options.length, mode)
        for mode in ("text", "topk", "threshold")
    }


def steps_of(name: str, model: Any, optimizer: Any, stores: dict[str, Any], options: argparse.Namespace) -> Any:
    """Endless steps of one loss: a generator that yields seconds waited so far. None where it cannot run."""
    import torch

    from benchmarks.common.random_student import Course, update
    from student.losses.settings import LossSettings
    from student.models.loss_model import LossModel

    device = torch.device(options.device)
    kind, fields = LOSSES.get(name) or LOSSES[name.removeprefix("dense ").removeprefix("liger ")]
    course = Course.over(stores[kind], LossSettings.model_validate(fields), options.batch)
    loss = LossModel(model, course.batches.objectives)
    step: Callable[[Any], Any] = lambda batch: update(loss, optimizer, batch)  # noqa: E731
    if name.startswith("dense"):
        step = dense_step(model, optimizer, course.batches.objectives)
    elif name.startswith("liger"):
        liger = liger_step(model, optimizer)
        if liger is None:
            return None
        step = liger

    def run() -> Any:
        for batch in course.steps(options.repeats + 2):
            step(batch.to(device))
            yield course.waited

    return run()


def dense_step(model: Any, optimizer: Any, objectives: Any) -> Callable[[Any], None]:
    """The same loss in plain PyTorch: logits of all rows, log-softmax, gather, autograd."""
    import torch
    from torch.nn import functional

    def step(batch: Any) -> None:
        hidden = model.base_model(**batch.inputs, use_cache=False).last_hidden_state.flatten(0, 1)[batch.rows]
        log_q = functional.log_softmax(model.lm_head(hidden).float(), -1)
        if not objectives.needs_teacher[0]:
            loss = functional.nll_loss(log_q, batch.labels)
        else:
            held, p, tail = log_q.gather(-1, batch.ids), batch.log_p[0].exp(), batch.log_tail[0]
            rest = torch.log1p(-held.exp().sum(-1).clamp(max=1 - 1e-6))
            loss = ((p * (batch.log_p[0] - held)).sum(-1) + tail.exp() * (tail - rest)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def liger_step(model: Any, optimizer: Any) -> Callable[[Any], None] | None:
    """A step with Liger's fused linear cross-entropy, which is written in Triton. None without Liger or a GPU."""
    import torch

    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # type: ignore[import-not-found]
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    fused = LigerFusedLinearCrossEntropyLoss()

    def step(batch: Any) -> None:
        hidden = model.base_model(**batch.inputs, use_cache=False).last_hidden_state.flatten(0, 1)[batch.rows]
        fused(model.lm_head.weight, hidden, batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(options: argparse.Namespace, stores: dict[str, Any]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(options.threads)
    model, optimizer = student_of(options)
    on_gpu = options.device == "cuda"
    running = {}
    for name in (*LOSSES, *DENSE):
        steps = steps_of(name, model, optimizer, stores, options)
        if steps is None:
            print(f"note: {name} is not measured: it needs Liger and a GPU")
        else:
            running[name] = steps
    seconds: dict[str, list[float]] = {name: [] for name in running}
    waits: dict[str, list[float]] = {name: [0.0] for name in running}
    peaks: dict[str, float] = {}
    for turn in range(options.repeats + 1):
        for name, steps in running.items():
            if on_gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            waited = next(steps)
            if on_gpu:
                torch.cuda.synchronize()
                peaks[name] = torch.cuda.max_memory_allocated() / (1 << 20)
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
                waits[name].append(waited)
            else:
                waits[name][0] = waited
    base = seconds["hard_label"]
    losses: dict[str, Any] = {}
    for name, taken in seconds.items():
        turns = sorted(own / other for own, other in zip(taken, base, strict=True))
        losses[name] = {
            "step_seconds": spread(taken),
            "ratio_to_ce": spread(turns),
            "data_wait_share": (waits[name][-1] - waits[name][0]) / sum(taken),
            **({"peak_mib": peaks[name]} if on_gpu else {}),
        }
    return {
        "device": options.device,
        "layers": options.layers,
        "vocab": options.vocab,
        "k": options.k,
        "hidden": options.hidden,
        "tokens": options.batch * options.length,
        "threads": options.threads,
        "parameters": sum(p.numel() for p in model.parameters()),
        "losses": losses,
    }


def peak(name: str, options: argparse.Namespace, folder: str) -> float:
    """Peak of a process that trains with one loss alone."""
    own = ["--vocab", options.vocab, "--hidden", options.hidden, "--k", options.k, "--batch", options.batch]
    own += ["--layers", options.layers]
    own += ["--length", options.length, "--repeats", 2, "--threads", options.threads]
    command = [sys.executable, "-m", "benchmarks.train", *map(str, own), "--memory-of", name, "--stores", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mib"])


def memory_of(options: argparse.Namespace) -> dict[str, float]:
    import torch

    from cache.store.logit_store import LogitStore

    torch.set_num_threads(options.threads)
    stores = {path.name: LogitStore.open(str(path)) for path in options.stores.iterdir()}
    before = peak_resident()
    model, optimizer = student_of(options)
    steps = steps_of(options.memory_of, model, optimizer, stores, options)
    for _ in steps:
        pass
    return {"peak_mib": peak_resident() - before}


def summarise(results: dict[str, Any]) -> None:
    """Add the figures that have a target value: those of forward KL."""
    losses = results["losses"]
    for each in losses.values():
        each["peak_ratio_to_ce"] = each["peak_mib"] / losses["hard_label"]["peak_mib"]
    main_loss = losses["forward_kl"]
    results["step_time_ratio_to_ce"] = main_loss["ratio_to_ce"]["median"]
    results["peak_memory_ratio_to_ce"] = main_loss["peak_ratio_to_ce"]
    results["data_wait_share"] = main_loss["data_wait_share"]


def show(results: dict[str, Any]) -> None:
    print(
        f"vocabulary {results['vocab']:,}, k = {results['k']}, {results['parameters'] / 1e6:.1f} M parameters, "
        f"{results['tokens']:,} tokens a step, {results['device']}, {results['threads']} thread(s)"
    )
    print(f"{'':<26}{'s a step':>10}{'/ hard labels (min to max)':>30}{'peak MiB':>10}{'/ them':>8}{'waiting':>9}")
    for name, each in results["losses"].items():
        ratio = each["ratio_to_ce"]
        cell = f"{ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})"
        print(
            f"{name:<26}{each['step_seconds']['median']:>10.3f}{cell:>30}{each['peak_mib']:>10,.0f}"
            f"{each['peak_ratio_to_ce']:>8.2f}{each['data_wait_share']:>9.2%}"
        )


if __name__ == "__main__":
    main()
