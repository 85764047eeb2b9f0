"""What the head's product costs and loses in bfloat16 runs: logits that are rounded to bfloat16, or float32 logits.

Hidden states and head are bfloat16 in both cases, and sums within a product are float32 in both. The first case rounds
each logit to bfloat16 before the softmax, as a model in bfloat16 does. The second one is the product's fused loss. The
reference is float64, from the same bfloat16 numbers. The student's logits have a spread of 3 and a mean of 9, as
SmolLM2-135M-Instruct has on English text; the teacher's are the same plus noise, of a size that gives the KL asked for.
Time and memory are of loss and gradients, without a model. Memory is the peak of CUDA's allocator, or the peak resident
set of a separate process, without what both had before.

It needs only PyTorch (2.10 or later), Python 3.11 to 3.13, and this repository as the working folder: no vLLM, Ray,
DeepSpeed, Transformers, numba or pydantic. It runs on a CPU and on one GPU:

    python -m benchmarks.head_precision --device cpu
    python -m benchmarks.head_precision --device cuda --vocab 151936 --width 2048 --rows 8192
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.common.harness import finish, peak_resident, spread
from student.losses.head import fused_loss as head_losses
from student.losses.head.product import has_mixed_product
from student.losses.head.transform import LogitTransform
from student.losses.objectives.forward_kl import OBJECTIVE
from student.losses.row_losses import LossTerm

SPREAD, MEAN = 3.0, 9.0
CASES = ("bfloat16 logits", "float32 logits")
# Rows in a block of the float64 reference.
REFERENCE_ROWS = 256


@dataclass(frozen=True, slots=True)
class Problem:
    """A student's hidden states and head, and how far its teacher's logits are from its own.

    hidden: bfloat16 [R, d]. weight: bfloat16 [V, d]. noise: its standard deviation. k: stored ids of a row.
    """

    hidden: Tensor
    weight: Tensor
    noise: float
    k: int
    seed: int

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Blocks of rows: their place, the student's logits and the teacher's log-probabilities, float64 [rows, V]."""
        weight = self.weight.double()
        for start in range(0, len(self.hidden), REFERENCE_ROWS):
            block = slice(start, start + REFERENCE_ROWS)
            logits = self.hidden[block].double() @ weight.t()
            generator = torch.Generator(logits.device).manual_seed(self.seed + start)
            noise = torch.randn(logits.shape, generator=generator, device=logits.device, dtype=torch.float64)
            yield block, logits, (logits + self.noise * noise).log_softmax(-1)


def main() -> None:
    options = parse(sys.argv[1:])
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(resident_mib(options)))
        return
    results: dict[str, Any] = {"torch": torch.__version__, "options": shown(options), "errors": {}, "cost": {}}
    hidden, weight = head(options)
    for kl in options.kl:
        results["errors"][f"{kl:g}"] = errors(with_kl(Problem(hidden, weight, 0.0, options.k, 1), kl))
    term = exact(with_kl(Problem(hidden, weight, 0.0, options.k, 1), options.kl[0])).term
    for case in CASES:
        results["cost"][case] = {"seconds": spread(seconds(case, hidden, weight, term, options))}
    for case in CASES:
        results["cost"][case]["peak_mib"] = peak_mib(case, hidden, weight, term, options)
    show(results)
    finish("head_precision", results, options.save, f"head_precision_{options.device}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--rows", type=int, default=1024, help="rows with a loss of a micro-batch")
    parser.add_argument("--k", type=int, default=64, help="stored ids of a row")
    parser.add_argument("--kl", type=float, nargs="+", default=[0.15, 0.0026], help="of student and teacher, in nats")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--memory-of", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU; use --device cpu")
    return options


def shown(options: argparse.Namespace) -> dict[str, Any]:
    """The sizes, and the device."""
    names = ("device", "vocab", "width", "rows", "k", "threads")
    return {name: getattr(options, name) for name in names}


def head(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Hidden states and head, bfloat16. All rows of the head share a direction, which gives logits their mean."""
    generator = torch.Generator(options.device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=options.device)

    common = torch.full((options.width,), options.width**-0.5, device=options.device)
    hidden = normal(options.rows, options.width) * SPREAD
    hidden += (MEAN - hidden @ common)[:, None] * common
    weight = normal(options.vocab, options.width).mul_(options.width**-0.5).add_(common)
    return hidden.bfloat16(), weight.bfloat16()


def with_kl(problem: Problem, kl: float) -> Problem:
    """The same problem with noise that gives this mean KL(teacher || student) over the vocabulary, in nats."""
    low, high = 0.0, 4.0
    for _ in range(12):
        middle = Problem(problem.hidden[:64], problem.weight, (low + high) / 2, problem.k, problem.seed)
        values = [(log_p.exp() * (log_p - logits.log_softmax(-1))).sum(-1) for _, logits, log_p in middle.blocks()]
        low, high = (middle.noise, high) if float(torch.cat(values).mean()) < kl else (low, middle.noise)
    return Problem(problem.hidden, problem.weight, (low + high) / 2, problem.k, problem.seed)


@dataclass(frozen=True, slots=True)
class Exact:
    """A term of the k largest ids with the tail as a bucket, and its loss and gradients in float64."""

    term: LossTerm
    loss: float
    of_hidden: Tensor
    of_weight: Tensor


def exact(problem: Problem) -> Exact:
    """The targets of a problem, and the mean loss over its rows with its gradients, by the formula in float64."""
    rows, device = len(problem.hidden), problem.hidden.device
    ids, log_p, tails = [], [], []
    of_hidden = torch.empty(problem.hidden.shape, dtype=torch.float64, device=device)
    of_weight = torch.zeros(problem.weight.shape, dtype=torch.float64, device=device)
    loss = 0.0
    for block, logits, teacher in problem.blocks():
        values, indices = teacher.topk(problem.k, -1)
        # The targets as a store has them: float32.
        values, tail = values.float(), teacher.scatter(-1, indices, -torch.inf).logsumexp(-1).float()
        log_q = logits.log_softmax(-1)
        rest = log_q.scatter(-1, indices, -torch.inf).logsumexp(-1)
        p, p_tail = values.double().exp(), tail.double().exp()
        loss += float((p * (values.double() - log_q.gather(-1, indices))).sum())
        loss += float((p_tail * (tail.double() - rest)).sum())
        # dL / dz = (mass of all buckets) q - p on the ids, and less p_tail q / q_tail off them.
        q = log_q.exp()
        gradient = q * (p.sum(-1) + p_tail)[:, None] - q * (p_tail / rest.exp())[:, None]
        gradient.scatter_(-1, indices, q.gather(-1, indices) * (p.sum(-1) + p_tail)[:, None] - p)
        gradient /= rows
        of_hidden[block] = gradient @ problem.weight.double()
        of_weight += gradient.t() @ problem.hidden[block].double()
        ids.append(indices)
        log_p.append(values)
        tails.append(tail)
    weights = torch.full((rows,), 1 / rows, device=device)
    term = LossTerm(weights, torch.cat(ids), torch.cat(log_p), OBJECTIVE, log_tail=torch.cat(tails))
    return Exact(term, loss / rows, of_hidden, of_weight)


def errors(problem: Problem) -> dict[str, Any]:
    """The loss, and the relative errors of each case in loss and gradients. "least": the exact gradient in bfloat16."""
    wanted = exact(problem)
    result: dict[str, Any] = {"loss": wanted.loss}
    for case in CASES:
        loss, of_hidden, of_weight = step(case, problem.hidden, problem.weight, wanted.term)
        result[case] = {
            "loss": abs(float(loss) - wanted.loss) / wanted.loss,
            "hidden": relative(of_hidden, wanted.of_hidden),
            "weight": relative(of_weight, wanted.of_weight),
        }
    result["least"] = {"hidden": relative(wanted.of_hidden.bfloat16(), wanted.of_hidden)}
    return result


def relative(value: Tensor, wanted: Tensor) -> float:
    return float((value.double() - wanted).norm() / wanted.norm())


def step(case: str, hidden: Tensor, weight: Tensor, term: LossTerm) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, and gradients of hidden states and head."""
    leaves = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    with product_of(case):
        total, _ = head_losses.fused_loss(*leaves, None, LogitTransform(), [term])
    of_hidden, of_weight = torch.autograd.grad(total, leaves)
    return total.detach(), of_hidden, of_weight


def product_of(case: str) -> AbstractContextManager[Any]:
    """While it is open, the fused loss uses the product of this case."""
    if case == CASES[1]:
        return nullcontext()
    return mock.patch.object(head_losses, "precise_product", lambda left, right: (left @ right).float())


def seconds(case: str, hidden: Tensor, weight: Tensor, term: LossTerm, options: argparse.Namespace) -> list[float]:
    """Seconds of each repetition, after two that warm up."""
    times = []
    for _ in range(options.repeats + 2):
        synchronise(options.device)
        started = time.perf_counter()
        step(case, hidden, weight, term)
        synchronise(options.device)
        times.append(time.perf_counter() - started)
    return times[2:]


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_mib(case: str, hidden: Tensor, weight: Tensor, term: LossTerm, options: argparse.Namespace) -> float:
    """Peak memory of loss and gradients, in MiB, without their inputs."""
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(case, hidden, weight, term)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    sizes = [f"--{name}={getattr(options, name)}" for name in ("vocab", "width", "rows", "k", "threads")]
    command = [sys.executable, "-m", "benchmarks.head_precision", *sizes, "--memory-of", case]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(process.stdout))


def resident_mib(options: argparse.Namespace) -> float:
    """The same of this process. The targets are random: their values do not change the memory."""
    hidden, weight = head(options)
    ids = torch.randint(options.vocab, (options.rows, options.k))
    log_p = torch.randn(options.rows, 2 * options.k).log_softmax(-1)
    tail = log_p[:, options.k :].logsumexp(-1)
    term = LossTerm(torch.ones(options.rows), ids, log_p[:, : options.k], OBJECTIVE, log_tail=tail)
    # Libraries and threads are set up before the measurement.
    step(options.memory_of, hidden[:1], weight[:64], LossTerm(*first_row(term), OBJECTIVE, log_tail=tail[:1]))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is resident now
    before = peak_resident()
    step(options.memory_of, hidden, weight, term)
    return peak_resident() - before


def first_row(term: LossTerm) -> tuple[Tensor, Tensor, Tensor]:
    return term.weights[:1], term.ids[:1] % 64, term.log_p[:1]


def show(results: dict[str, Any]) -> None:
    print(f"{'':24s}{'loss':>10s}{'hidden gradient':>18s}{'head gradient':>16s}    relative errors against float64")
    for kl, measured in results["errors"].items():
        least = measured["least"]["hidden"]
        print(f"KL {kl}, loss {measured['loss']:.5f}; the exact hidden gradient, rounded to bfloat16: {least:.2e}")
        for case in CASES:
            each = measured[case]
            print(f"  {case:22s}{each['loss']:10.1e}{each['hidden']:18.2e}{each['weight']:16.2e}")
    base = results["cost"][CASES[0]]
    for case in CASES:
        cost = results["cost"][case]
        ratio = cost["seconds"]["median"] / base["seconds"]["median"]
        print(f"  {case:22s}{1e3 * cost['seconds']['median']:10.1f} ms ({ratio:.2f}){cost['peak_mib']:12.0f} MiB")
    kernel = has_mixed_product(torch.device(results["options"]["device"]))
    print(f"float32 results of bfloat16 factors by {'one kernel' if kernel else 'conversion in pieces'}")


if __name__ == "__main__":
    main()
