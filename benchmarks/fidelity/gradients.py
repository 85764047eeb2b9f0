"""Gradients of the product's losses on stored targets, beside those of the teacher's whole distribution."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common.harness import spread
from benchmarks.fidelity.rows import reduced
from benchmarks.fidelity.source.teacher import Sequences, Teacher
from benchmarks.fidelity.targets import Rows, Target, sampled, threshold
from cache.rows.record import Window
from cache.rows.spec import TargetSpec
from student.data.collate import collate
from student.losses.normalisation import sum_coefficients, sum_row_weights
from student.losses.weighted_objectives import WeightedObjectives
from student.models.loss_model import LossModel
from student.models.model_parts import head_of

# Redraws by which the means of unbiased targets are judged, and sequences of each.
REDRAWS, CHECKED = 24, 4


@dataclass(frozen=True, slots=True)
class Gradients:
    """Gradients of a mean loss over groups of tokens: of the LM head [groups, V * d], of all parameters [groups, P]."""

    head: Tensor
    all: Tensor

    def joined(self, groups: int) -> "Gradients":
        """Means over so many neighbouring groups, all of which have as many tokens."""
        return Gradients(*(x.view(-1, groups, x.shape[1]).mean(1) for x in (self.head, self.all)))

    def against(self, full: "Gradients") -> dict[str, dict[str, float]]:
        """Angles in degrees and ratios of norms, median and range over groups."""
        result: dict[str, dict[str, float]] = {}
        for name in ("head", "all"):
            ours, theirs = getattr(self, name), getattr(full, name)
            result[f"angle_{name}"] = spread([angle(a, b) for a, b in zip(ours, theirs, strict=True)])
            result[f"norm_{name}"] = spread((ours.norm(dim=1) / theirs.norm(dim=1)).tolist())
        return result


def angle(a: Tensor, b: Tensor) -> float:
    """In degrees, also where it is so small that a cosine could not tell."""
    a, b = a / a.norm(), b / b.norm()
    return math.degrees(2 * math.atan2(float((a - b).norm()), float((a + b).norm())))


def stored_gradients(student: Any, objectives: WeightedObjectives, windows: Sequence[Window], group: int) -> Gradients:
    """By the product's loss in float32, `group` sequences at a time."""
    loss_model = LossModel(student, objectives)

    def backward(start: int) -> None:
        batch = collate(windows[start : start + group], objectives)
        coefficients = sum_coefficients(objectives, sum_row_weights([batch])).to(student.device)
        loss_model(batch.to(student.device), coefficients).objective.backward()

    return gradients(student, backward, range(0, len(windows), group))


def full_gradients(student: Any, teacher: Teacher, sequences: Sequences, group: int) -> Gradients:
    """Cross-entropy to the teacher's whole distribution: dense, float64, autograd, without code of the product."""
    precise = copy.deepcopy(student).double()
    rows = group * (sequences.tokens.shape[1] - 1)
    # Dense float64 values and their gradients take many times the memory of the logits.
    size = max(1, teacher.block(sequences.tokens.shape[1]) // 8)

    def backward(start: int) -> None:
        for part in sequences.part(start, start + group).blocks(size):
            p = teacher.logits(part.hidden).double().softmax(-1)
            logits = precise(input_ids=part.tokens[:, :-1].to(teacher.device), use_cache=False).logits
            (-(p * logits.flatten(0, 1).log_softmax(-1)).sum() / rows).backward()

    return gradients(precise, backward, range(0, len(sequences), group))


def gradients(model: nn.Module, backward: Callable[[int], None], starts: range) -> Gradients:
    """Those that `backward` leaves at each start, kept in float32: at a large vocabulary they are large."""
    head, everything = [], []
    for start in starts:
        model.zero_grad()
        backward(start)
        result = [p.grad.float().flatten() for p in model.parameters() if p.grad is not None]
        weight: Any = head_of(model).weight
        head.append(weight.grad.float().flatten())
        everything.append(torch.cat(result))
    model.zero_grad()
    return Gradients(torch.stack(head), torch.stack(everything))


def redraw_bias(student: Any, teacher: Teacher, sequences: Sequences, target: Target) -> float:
    """How far the mean of REDRAWS gradients at the head lies from the full one, as a multiple of what chance explains.

    Squared distance over its expectation without bias, the variance of one redraw over REDRAWS: 1 but for chance.
    """
    assert target.rows is not None
    full = full_gradients(student, teacher, sequences, len(sequences)).head[0]
    drawn = torch.stack([head_gradient(student, teacher, sequences, target, n + 1) for n in range(REDRAWS)])
    mean = drawn.mean(0)
    variance = (drawn - mean).square().sum() / (REDRAWS - 1)
    return float((mean - full).square().sum() * REDRAWS / variance)


def head_gradient(student: Any, teacher: Teacher, sequences: Sequences, target: Target, redraw: int = 0) -> Tensor:
    """Of targets straight from the reduction, without a store."""
    assert target.rows is not None
    windows = [
        record.window for block in reduced(teacher, sequences, [target.rows], redraw) for record in block[target.rows]
    ]
    return stored_gradients(student, target.objectives, windows, len(windows)).head[0]


def checks(student: Any, teacher: Teacher, sequences: Sequences) -> dict[str, float]:
    """What must hold before any figure is believed.

    complete_angle: top-k of the whole vocabulary with a tail, in degrees: 0. sampled_bias, threshold_bias: 1.
    shifted_angle: targets one row late: far from 0.
    """
    few = sequences.part(0, CHECKED)
    full = full_gradients(student, teacher, few, len(few)).head[0]
    complete = Target("complete", Rows(TargetSpec("topk", teacher.vocab_size)))
    late = replace(few, hidden=few.hidden.roll(1, dims=1))
    return {
        "complete_angle": angle(head_gradient(student, teacher, few, complete), full),
        "shifted_angle": angle(full_gradients(student, teacher, late, len(few)).head[0], full),
        "sampled_bias": redraw_bias(student, teacher, few, sampled(50)),
        "threshold_bias": redraw_bias(student, teacher, few, threshold(0.05)),
    }


def bytes_at(angle_wanted: float, curve: Sequence[tuple[float, float]]) -> float:
    """Bytes at an angle by interpolation of (bytes, angle) pairs, linear in the logarithms of both.

    The variance of an unbiased target falls as a power of its size. NaN outside the curve: nothing is extrapolated.
    """
    points = sorted((math.log(a), math.log(b)) for b, a in curve)
    if not points or not points[0][0] <= math.log(angle_wanted) <= points[-1][0]:
        return math.nan
    return math.exp(np.interp(math.log(angle_wanted), [a for a, _ in points], [b for _, b in points]))
