"""Train students of one size on each kind of target, and compare them with real text and with the whole teacher."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common.harness import spread
from benchmarks.fidelity.source.teacher import Sequences, Teacher
from benchmarks.fidelity.targets import FULL, Target
from benchmarks.fidelity.training import Optimizer, StudentShape, endless_order
from cache.rows.record import Window
from student.data.collate import collate
from student.evaluation.calibration import CalibrationBins
from student.losses.normalisation import sum_coefficients, sum_row_weights
from student.models.loss_model import LossModel
from student.training.run_settings import OptimizerSettings


@dataclass(frozen=True, slots=True)
class Course:
    """How a student is trained: its shape, `steps` of `batch` sequences, again and again over the first `count`."""

    shape: StudentShape
    steps: int
    batch: int
    count: int


@dataclass(frozen=True, slots=True)
class Judged:
    """Of the student of a seed, on held-out text.

    loss: -log q of the real token. kl: KL(teacher || student), dense. Both in nats a token.
    ece: calibration error. top1: share of tokens where student and teacher have the same most likely token.
    kl_by_text: the KL on each of several texts.
    """

    seed: int
    loss: float
    kl: float
    ece: float
    top1: float
    kl_by_text: tuple[float, ...]


def trained_student(
    target: Target, windows: Sequence[Window], teacher: Teacher, hidden: Tensor | None, course: Course, seed: int
) -> Any:
    """A student of the windows. seed: of its first weights and of the order of the windows.

    hidden: what the teacher's head reads, [windows, L - 1, d]; for full distillation alone.
    """
    student = course.shape.make(teacher.model, teacher.vocab_size, seed)
    objectives = target.objectives
    loss_model = LossModel(student, objectives)
    optimizer = Optimizer(student, OptimizerSettings(lr=course.shape.lr), course.steps)
    order = endless_order(course.count, course.steps * course.batch, seed)
    for step in range(course.steps):
        selected = order[step * course.batch : (step + 1) * course.batch]
        batch = collate([windows[i] for i in selected], objectives)
        coefficients = sum_coefficients(objectives, sum_row_weights([batch])).to(student.device)
        batch = batch.to(student.device)
        if target == FULL:
            assert hidden is not None
            p = teacher.logits(hidden[torch.from_numpy(selected).to(hidden.device)]).softmax(-1)
            logits = student(**batch.inputs, use_cache=False).logits[:, :-1]
            optimizer.step(nn.functional.cross_entropy(logits.flatten(0, 1), p))
        else:
            optimizer.step(loss_model(batch, coefficients).objective)
    return student.eval()


@torch.no_grad()
def judge(student: Any, teacher: Teacher, heldout: Sequences, seed: int) -> Judged:
    """Compare the student of a seed with the whole distribution of the teacher."""
    length = heldout.tokens.shape[1]
    sums, bins, kls = np.zeros(2), CalibrationBins(), []
    for part in heldout.blocks(max(1, teacher.block(length) // 4)):
        labels = part.tokens[:, 1:].flatten().to(teacher.device)
        logits = student(input_ids=part.tokens[:, :-1].to(teacher.device), use_cache=False).logits.flatten(0, 1)
        log_q, log_p = logits.float().log_softmax(-1), teacher.logits(part.hidden).log_softmax(-1)
        real = log_q.gather(1, labels[:, None]).double().sum()
        agreed = (log_q.argmax(-1) == log_p.argmax(-1)).double().sum()
        kl = nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
        kls.append(kl.double().view(len(part), -1).mean(-1).cpu().numpy())
        sums += -float(real), float(agreed)
        add_confidences(bins, log_q, labels)
    kl_of_sequence, kinds = np.concatenate(kls), heldout.kinds.numpy()
    by_text = tuple(float(kl_of_sequence[kinds == kind].mean()) for kind in range(int(kinds.max()) + 1))
    rows = len(heldout) * (length - 1)
    return Judged(seed, float(sums[0] / rows), float(kl_of_sequence.mean()), bins.error, float(sums[1] / rows), by_text)


@torch.no_grad()
def judge_teacher(teacher: Teacher, heldout: Sequences) -> dict[str, float]:
    """Loss, calibration error and mean entropy of the teacher itself: what full distillation goes towards."""
    sums, bins, rows = np.zeros(2), CalibrationBins(), 0
    for part in heldout.blocks(teacher.block(heldout.tokens.shape[1])):
        labels = part.tokens[:, 1:].flatten().to(teacher.device)
        log_p = teacher.logits(part.hidden).log_softmax(-1)
        real = log_p.gather(1, labels[:, None]).double().sum()
        sums -= float(real), float((log_p.exp() * log_p).sum())
        add_confidences(bins, log_p, labels)
        rows += len(labels)
    loss, entropy = (sums / rows).tolist()
    return {"loss": loss, "entropy": entropy, "ece": bins.error}


def add_confidences(bins: CalibrationBins, log_q: Tensor, labels: Tensor) -> None:
    """Add the confidence in the most likely tokens, and whether they are right."""
    best, token = log_q.max(-1)
    bins.add(best.exp().double().cpu().numpy(), (token == labels).cpu().numpy())


def summary(judged: Sequence[Judged], full: Sequence[Judged]) -> dict[str, Any]:
    """Median and range over seeds of each measure, and of its difference to full distillation with the same seed."""
    result: dict[str, Any] = {}
    for name in ("loss", "kl", "ece", "top1"):
        result[name] = spread([getattr(each, name) for each in judged])
        if gaps := [getattr(a, name) - getattr(b, name) for a in judged for b in full if a.seed == b.seed]:
            result[f"{name}_less_full"] = spread(gaps)
    return {**result, "seeds": [asdict(each) for each in judged]}
