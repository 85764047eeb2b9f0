"""Train students of one size on each kind of target, and compare them with real text and with the whole teacher."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common.harness import spread
from benchmarks.fidelity.targets import FULL, Target
from benchmarks.fidelity.teacher import Optimizer, Sequences, Teacher, endless_order, small_llama
from cache.rows.record import Window
from student.data.collate import collate
from student.evaluation.calibration import CalibrationBins
from student.losses.normalisation import sum_coefficients, sum_row_weights
from student.models.loss_model import LossModel
from student.training.settings import OptimizerSettings

WIDTH, LAYERS, HEADS = 64, 2, 2
BATCH = 4
OPTIMIZER = OptimizerSettings(lr=6e-3)


@dataclass(frozen=True, slots=True)
class Judged:
    """On held-out text. loss: -log q of the real token. kl: KL(teacher || student), dense. Both in nats a token."""

    loss: float
    kl: float
    ece: float


def new_student(vocab: int, seed: int) -> Any:
    """Weights by seed. The head is a matrix of its own, so that its gradient is that of the logits alone."""
    torch.manual_seed(seed)
    return small_llama(vocab, WIDTH, LAYERS, HEADS, tied=False)


def trained_student(
    target: Target, windows: Sequence[Window], teacher: Teacher, hidden: Tensor | None, steps: int, seed: int
) -> Any:
    """A student after `steps` of BATCH windows. seed: of its first weights and of the order of the windows.

    hidden: what the teacher's head reads, [windows, L - 1, d]; for full distillation alone.
    """
    student = new_student(teacher.vocab_size, seed)
    objectives = target.objectives
    loss_model = LossModel(student, objectives)
    optimizer = Optimizer(student, OPTIMIZER, steps)
    order = endless_order(len(windows), steps * BATCH, seed)
    for step in range(steps):
        selected = order[step * BATCH : (step + 1) * BATCH]
        batch = collate([windows[i] for i in selected], objectives)
        if target == FULL:
            assert hidden is not None
            p = teacher.logits(hidden[selected]).softmax(-1)
            logits = student(**batch.inputs, use_cache=False).logits[:, :-1]
            optimizer.step(nn.functional.cross_entropy(logits.flatten(0, 1), p))
        else:
            optimizer.step(loss_model(batch, sum_coefficients(objectives, sum_row_weights([batch]))).objective)
    return student.eval()


@torch.no_grad()
def judge(student: Any, teacher: Teacher, heldout: Sequences) -> Judged:
    """Compare a student with the whole distribution of the teacher."""
    sums, bins, rows = np.zeros(2), CalibrationBins(), 0
    for start in range(0, len(heldout), BATCH):
        block = slice(start, start + BATCH)
        labels = heldout.tokens[block, 1:].flatten()
        logits = student(input_ids=heldout.tokens[block, :-1], use_cache=False).logits.flatten(0, 1)
        log_q, log_p = logits.log_softmax(-1), teacher.logits(heldout.hidden[block]).log_softmax(-1)
        real = log_q.gather(1, labels[:, None]).double().sum()
        kl = nn.functional.kl_div(log_q, log_p, reduction="sum", log_target=True)
        sums += -float(real), float(kl)
        add_confidences(bins, log_q, labels)
        rows += len(labels)
    return Judged(float(sums[0] / rows), float(sums[1] / rows), bins.error)


def judge_teacher(teacher: Teacher, heldout: Sequences) -> dict[str, float]:
    """Loss, calibration error and mean entropy of the teacher itself: what full distillation goes towards."""
    sums, bins, rows = np.zeros(2), CalibrationBins(), 0
    for start in range(0, len(heldout), BATCH):
        block = slice(start, start + BATCH)
        labels = heldout.tokens[block, 1:].flatten()
        log_p = teacher.logits(heldout.hidden[block]).log_softmax(-1)
        real = log_p.gather(1, labels[:, None]).double().sum()
        sums -= float(real), float((log_p.exp() * log_p).sum())
        add_confidences(bins, log_p, labels)
        rows += len(labels)
    loss, entropy = (sums / rows).tolist()
    return {"loss": loss, "entropy": entropy, "ece": bins.error}


def add_confidences(bins: CalibrationBins, log_q: Tensor, labels: Tensor) -> None:
    """Add the confidence in the most likely tokens, and whether they are right."""
    best, token = log_q.max(-1)
    bins.add(best.exp().double().numpy(), (token == labels).numpy())


def summary(judged: Sequence[Judged], full: Sequence[Judged]) -> dict[str, Any]:
    """Median and range over seeds of each measure, and of its difference to full distillation with the same seed."""
    result: dict[str, Any] = {}
    for name in ("loss", "kl", "ece"):
        own = [getattr(each, name) for each in judged]
        result[name] = spread(own)
        if full:
            result[f"{name}_less_full"] = spread([a - getattr(b, name) for a, b in zip(own, full, strict=True)])
    return {**result, "seeds": [asdict(each) for each in judged]}
