"""Metrics of a language model on every target of a store: losses, agreement and calibration, block by block."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from cache.progress import Progress
from cache.rows.spec import TargetSpec
from student.data.batches import LanguageBatches
from student.data.sources import FileSource, StoreSource
from student.evaluation.calibration import CalibrationBins
from student.losses.batch import Batch
from student.losses.head.fused_loss import block_rows
from student.losses.loss_terms import make_loss_terms
from student.losses.row_losses import LossTerm, loss_and_gradient
from student.losses.settings import LossSettings
from student.losses.weighted_objectives import WeightedObjectives
from student.models.model_parts import hidden_states, layout_of, logits_of, logits_width


@dataclass(frozen=True, slots=True)
class HeldoutMetrics:
    """Means over the target rows of held-out examples, in nats. None: the store's targets do not determine the value.

    heldout_loss: -log q(the token that follows). kl_to_teacher: forward KL, the tail as one bucket; of threshold and
        sampled targets the unbiased estimate, which needs their entropies.
    top1_agreement: share of rows where student and teacher have the same most likely token.
    ece: expected calibration error of the most likely token (student.evaluation.calibration).
    support_mass: the student's probability of all stored ids.
    rows: those of heldout_loss and ece. target_rows: those of the others, which have a target of the teacher.
    """

    heldout_loss: float
    kl_to_teacher: float | None
    top1_agreement: float | None
    ece: float
    support_mass: float | None
    rows: int
    target_rows: int


class _Sums:
    """Sums over rows: loss, KL, agreement and support mass, and the bins of the calibration error."""

    def __init__(self) -> None:
        self.sums, self.calibration, self.rows, self.target_rows = np.zeros(4), CalibrationBins(), 0, 0

    def add(self, logits: Tensor, batch: Batch, block: slice, terms: list[LossTerm]) -> None:
        """Add the rows `block` of a batch. logits: float32 [rows, V]."""
        maximum, predicted = logits.max(-1)
        ids = batch.ids[block]
        agreement = mass = 0.0
        if ids.shape[1]:
            is_stored = ~torch.isneginf(batch.log_p[0][block])
            log_q = logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)
            mass = float((log_q.exp() * is_stored).sum())
            agreement = float(((predicted == ids[:, 0]) & is_stored[:, 0]).sum())
        confidence = (maximum - logits.logsumexp(-1)).exp().double().cpu().numpy()
        self.calibration.add(confidence, (predicted == batch.labels[block]).cpu().numpy())
        parts, _ = loss_and_gradient(logits, terms, with_gradient=False)
        self.sums += [float(parts[0]), float(parts[1]) if len(parts) > 1 else 0.0, agreement, mass]
        self.rows += len(logits)
        if len(terms) > 1:
            self.target_rows += int((terms[1].weights > 0).sum())


@torch.inference_mode()
def evaluate_targets(
    model: PreTrainedModel, source: StoreSource | FileSource, batch_size: int, progress: Progress
) -> HeldoutMetrics:
    """Compare a model with the examples of a source. Texts alone have no teacher to compare with."""
    has_teacher = source.form.kind != "none"
    objectives = [{"objective": "hard_label"}] + ([{"objective": "forward_kl"}] if has_teacher else [])
    loss = LossSettings.model_validate({"terms": objectives})
    batches = LanguageBatches(source, WeightedObjectives.of(loss, source.form), layout_of(model, None))
    sums = _Sums()
    order = np.argsort(source.tokens, kind="stable")
    size = block_rows(logits_width(model), model.device)
    for start in range(0, len(order), batch_size):
        batch = batches.batch(order[start : start + batch_size].tolist()).to(model.device)
        hidden = hidden_states(model, batch.inputs).index_select(0, batch.rows)
        terms = make_loss_terms(batch, batches.objectives, torch.ones(len(objectives), device=model.device))
        for first in range(0, len(hidden), size):
            block = slice(first, first + size)
            logits = logits_of(model, hidden[block])
            sums.add(logits, batch, block, [term.rows(first, first + size) for term in terms])
        progress(min(start + batch_size, len(order)), len(order))
    return _metrics(sums, source)


def unknown_metrics(spec: TargetSpec) -> str:
    """In words, which metrics such targets do not determine, and which targets do; "" if there are none."""
    if not spec.has_sampled:
        return ""
    names = [] if spec.entropy else ["kl_to_teacher"]
    names += [] if spec.has_exact else ["top1_agreement"]
    if not names:
        return ""
    is_are = "is" if len(names) == 1 else "are"
    entropy = "" if spec.entropy else ", or with targets.entropy = true for the KL alone"
    return (
        f"{' and '.join(names)} {is_are} not known, because the store has draws ({spec}); to get "
        f'{"it" if len(names) == 1 else "them"}, capture the held-out examples with targets.mode = "topk"{entropy}'
    )


def _metrics(sums: _Sums, source: StoreSource | FileSource) -> HeldoutMetrics:
    """The means, and None for those that the targets do not determine."""
    form = source.form
    has_teacher = form.kind != "none" and sums.target_rows > 0
    has_kl = form.kind == "exact" or (form.kind == "estimated" and form.entropy)
    has_exact = isinstance(source, StoreSource) and source.store.spec.targets.has_exact
    loss = float(sums.sums[0]) / max(sums.rows, 1)
    kl, agreement, mass = (float(mean) for mean in sums.sums[1:] / max(sums.target_rows, 1))
    return HeldoutMetrics(
        loss,
        kl if has_teacher and has_kl else None,
        agreement if has_teacher and has_exact else None,
        sums.calibration.error,
        mass if has_teacher else None,
        sums.rows,
        sums.target_rows,
    )
