"""What the engine does at every stage and precision, on two ranks. Run as a program: its argument is a folder.

Rank 0 writes results.json: what happened, by the name of a case ("bf16-2", "bf16-2-optimizer" with offload, and
"bf16-2-muon").
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from deepspeed.runtime.zero.muon import original_muon
from deepspeed.utils import safe_get_full_grad
from torch import Tensor, nn

from student.training.engine.deepspeed_engine import Engine, start_ranks
from student.training.run_settings import OptimizerSettings, RunSettings

VALUES = 1000
# bitsandbytes keeps fewer than 4,096 values in 32 bits.
WIDTH, WIDE = 6, 67
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"lr": 0.01},
    "adamw_8bit": {"name": "adamw_8bit", "lr": 0.01},
    "muon": {"name": "muon", "lr": 0.02, "adam_lr": 0.01},
}


class Case(NamedTuple):
    """What a result is about."""

    precision: str
    stage: int
    offload: str = "none"
    optimizer: str = "adamw"

    @property
    def width(self) -> int:
        return WIDE if self.optimizer == "adamw_8bit" else WIDTH

    @property
    def name(self) -> str:
        parts = [self.precision, str(self.stage)]
        parts += [self.offload] * (self.offload != "none") + [self.optimizer] * (self.optimizer != "adamw")
        return "-".join(parts)


CASES = [Case(precision, stage) for precision in ("fp32", "bf16") for stage in (0, 1, 2, 3)]
CASES += [Case("bf16", 1, "optimizer"), Case("bf16", 2, "optimizer"), Case("bf16", 3, "all")]
# Optimizers that are not PyTorch's.
OTHERS = [
    Case(precision, stage, optimizer=name)
    for name in ("adamw_8bit", "muon")
    for precision in ("fp32", "bf16")
    for stage in (0, 1, 2, 3)
]
OTHERS += [Case("bf16", 2, "optimizer", "muon"), Case("bf16", 3, "all", "muon")]


class Summands(nn.Module):
    """Its gradient is its input."""

    def __init__(self, rows: int = 1) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(VALUES if rows == 1 else (rows, VALUES // rows)))

    def forward(self, gradient: Tensor) -> Tensor:
        return (self.w.float().flatten() * gradient).sum()


class Network(nn.Module):
    """Layers with a norm and biases, of which the first may be frozen."""

    def __init__(self, frozen: bool = False, width: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, width)
        self.first.requires_grad_(not frozen)

    def forward(self, states: Tensor) -> Tensor:
        states = states.to(self.last.weight.dtype)
        out: Tensor = self.last(self.norm(torch.tanh(self.first(states)))).float().square().sum()
        return out


def engine(model: nn.Module, folder: Path, case: Case, **optimizer: Any) -> Engine:
    run = {"steps": 20, "batch_size": 4, "zero_stage": case.stage, "precision": case.precision, "offload": case.offload}
    settings = {"warmup_steps": 0, "schedule": "linear", **OPTIMIZERS[case.optimizer], **optimizer}
    return Engine(model, OptimizerSettings(**settings), RunSettings.model_validate(run), folder)


def step(subject: Engine, inputs: list[Tensor]) -> None:
    """A step with these micro-batches."""
    for number, each in enumerate(inputs, start=1):
        subject.begin_micro_batch(ends_step=number == len(inputs))
        subject.backward(subject.forward(each))
        subject.step()


def inputs_of(number: int, is_bad: bool = False, width: int = WIDTH) -> list[Tensor]:
    """Two micro-batches of a step. A bad step has one value that is infinite, on one rank, in the first of them."""
    generator = torch.Generator().manual_seed(100 * number + dist.get_rank())
    first, second = (torch.randn(3, width, generator=generator) for _ in range(2))
    if is_bad and dist.get_rank() == 1:
        first[0, 0] = torch.inf
    return [first, second]


def accumulated(case: Case, folder: Path, count: int) -> float:
    """Relative error of the sum of a step's gradients over micro-batches and ranks, against float64."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    generator = torch.Generator().manual_seed(0)
    # Each is exact in bfloat16, so that only sums can lose anything.
    summands = ((torch.randn(count * ranks, VALUES, generator=generator) * 0.3 + 1) / count).bfloat16().float()
    is_muon = case.optimizer == "muon"
    model = Summands(20 if is_muon else 1)
    subject = engine(model, folder, case, **({} if is_muon else {"clip": 1e9}))
    total: Tensor | None = None
    with gradients_of_muon() as seen:
        for i in range(count):
            subject.begin_micro_batch(ends_step=i == count - 1)
            subject.backward(subject.forward(summands[i * ranks + rank]))
            if i == count - 1 and not is_muon:
                total = safe_get_full_grad(model.w)
            subject.step()
        if is_muon:
            if not seen:  # the other rank has the matrix, and rank 0 is the one that reports
                return 0.0
            total = seen[-1]
    assert total is not None
    exact = summands.double().sum(0)
    scale = ranks if is_muon and total.norm() < 0.9 * exact.norm() else 1  # Muon takes a mean for a sum
    return float((scale * total.double().flatten().cpu() - exact).norm() / exact.norm())


@contextmanager
def gradients_of_muon() -> Iterator[list[Tensor]]:
    """The gradients that Muon makes updates of, while the block runs."""
    original, seen = original_muon.muon_update, list[Tensor]()

    def spy(gradient: Tensor, *args: Any, **options: Any) -> Any:
        seen.append(gradient.detach().clone())
        return original(gradient, *args, **options)

    original_muon.muon_update = spy
    try:
        yield seen
    finally:
        original_muon.muon_update = original


def weights_after(case: Case, folder: Path, bad: set[int], skip: set[int]) -> dict[str, Any]:
    """Six steps, some of them bad, and some left out altogether, at a constant rate."""
    subject = engine(Network(width=case.width), folder, case, schedule="constant", weight_decay=0.1)
    applied, norms = [], []
    for number in range(6):
        if number not in skip:
            step(subject, inputs_of(number, number in bad, case.width))
            applied.append(subject.step_was_applied)
            norms.append(subject.gradient_norm)
    weights, finite = flat(subject.full_weights()), [subject.weights_are_finite()]
    if dist.get_rank() == 1:
        last = list(subject.model.parameters())[-1]
        getattr(last, "ds_tensor", last).data.view(-1)[0] = torch.inf
    finite.append(subject.weights_are_finite())
    return {"weights": weights, "applied": applied, "norms": norms, "finite": finite}


def rates(case: Case, folder: Path, bad: set[int]) -> list[float]:
    """The learning rate of each step of a schedule."""
    subject, values = engine(Network(), folder, case), []
    for number in range(6):
        values.append(subject.learning_rate)
        step(subject, inputs_of(number, number in bad))
    return values


def decayed(case: Case, folder: Path) -> dict[str, float]:
    """Size of each weight after a step without a gradient, as a share of that before."""
    model = Network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    subject = engine(model, folder, case, weight_decay=10.0, schedule="constant")
    subject.begin_micro_batch(ends_step=True)
    subject.backward(subject.forward(inputs_of(0)[0]) * 0.0)
    subject.step()
    return {name: float(weight.mean()) for name, weight in subject.full_weights().items()}


def continued(case: Case, folder: Path, frozen: bool) -> dict[str, Any]:
    """Three steps, a checkpoint after each, a new engine that continues it, and three more steps of both."""
    subject = engine(Network(frozen, case.width), folder, case)
    for number in range(3):
        step(subject, inputs_of(number, width=case.width))
        subject.save(number + 1, {})
    saved = flat(subject.full_weights())
    again = engine(Network(frozen, case.width), folder, case)
    loaded = flat(again.full_weights())
    ends = []
    for each in (subject, again):
        for number in range(3, 6):
            step(each, inputs_of(number, width=case.width))
        ends.append(flat(each.full_weights()))
    files = sorted((folder / "step-3").glob("*.pt"))
    names = sorted({name for path in files for name in module_names(path)})
    kept = sorted(path.name for path in folder.iterdir())
    return {"saved": saved, "loaded": loaded, "ends": ends, "names": names, "kept": kept}


def module_names(path: Path) -> list[str]:
    """The weights of the model that a file of a checkpoint has."""
    content = torch.load(path, weights_only=False)
    saved = {**(content.get("module") or {}), **(content.get("frozen_param_fragments") or {})}
    return [name for name, value in saved.items() if value.numel()]


def flat(weights: dict[str, Tensor]) -> list[float]:
    return [value for name in sorted(weights) for value in weights[name].flatten().tolist()]


def main() -> None:
    root = Path(sys.argv[1])
    start_ranks()
    results: dict[str, dict[str, Any]] = {}
    for case in [*CASES, *OTHERS]:
        folder = root / case.name
        result: dict[str, Any] = {}
        if case.precision == "bf16" and case.optimizer != "adamw_8bit":
            result["accumulated"] = [accumulated(case, folder / f"sum-{count}", count) for count in (8, 64)]
        if case.offload != "all" or case in OTHERS:
            result["bad"] = weights_after(case, folder / "bad", {2, 3}, set())
            result["left_out"] = weights_after(case, folder / "left-out", set(), {2, 3})
        if case.offload == "none" or case in OTHERS:
            result["continued"] = continued(case, folder / "continued", frozen=False)
            result["adapters"] = continued(case, folder / "adapters", frozen=True)
        if case.precision == "fp32" and case.stage in (0, 2):
            result["rates"] = rates(case, folder / "rates", {1, 2}), rates(case, folder / "good-rates", set())
            result["decayed"] = decayed(case, folder / "decayed")
        results[case.name] = result
    if dist.get_rank() == 0:
        (root / "results.json").write_text(json.dumps(results))
    dist.barrier()


if __name__ == "__main__":
    main()
