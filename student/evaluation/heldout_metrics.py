"""A language model against every target of a store: losses, agreement and calibration, block by block."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from cache.progress import Progress
from student.data.batches import LanguageBatches
from student.data.sources import StoreSource
from student.losses.batch import Batch
from student.losses.batch_terms import terms_of
from student.losses.fused_loss import block_rows
from student.losses.objectives import Objectives
from student.losses.row_losses import Term, loss_and_gradient
from student.losses.settings import LossSettings
from student.models.layout import layout_of
from student.models.model_parts import head_of, hidden_states, logits_width, transform_of

BINS = 15


@dataclass(frozen=True, slots=True)
class HeldoutMetrics:
    """Means over the target rows of held-out examples, in nats; None where the store's targets cannot tell.

    heldout_loss: -log q(the token that really comes). kl_to_teacher: forward KL, the tail as one bucket; of threshold
        and sampled targets the unbiased estimate, which needs their entropies.
    top1_agreement: share of rows where student and teacher rate the same token highest.
    ece: expected calibration error of the most likely token, 15 bins of equal width (Guo et al., arXiv 1706.04599).
    support_mass: what the student gives the ids that are stored.
    """

    heldout_loss: float
    kl_to_teacher: float | None
    top1_agreement: float | None
    ece: float
    support_mass: float | None
    rows: int


@torch.inference_mode()
def evaluate_targets(
    model: PreTrainedModel, source: StoreSource, batch_size: int, progress: Progress
) -> HeldoutMetrics:
    """Hold a model against the examples of a source; those of a store of texts alone have no teacher."""
    teacher = source.form.kind != "none"
    mix = [{"objective": "hard_label"}] + ([{"objective": "forward_kl"}] if teacher else [])
    loss = LossSettings.model_validate({"terms": mix})
    batches = LanguageBatches(source, Objectives.of(loss, source.form), layout_of(model, None))
    sums, calibration, rows = np.zeros(4), np.zeros((3, BINS)), 0
    order = np.argsort(source.tokens, kind="stable")
    size = block_rows(logits_width(model), model.device)
    for start in range(0, len(order), batch_size):
        batch = batches.batch(order[start : start + batch_size].tolist()).to(model.device)
        hidden = hidden_states(model, batch.inputs).index_select(0, batch.rows)
        terms = terms_of(batch, batches.objectives, torch.ones(len(mix), device=model.device))
        for first in range(0, len(hidden), size):
            block = slice(first, first + size)
            logits = transform_of(model).apply_(head_of(model)(hidden[block]).float())
            found, bins = _block(logits, batch, block, [term.rows(first, first + size) for term in terms])
            sums, calibration = sums + found, calibration + bins
        rows += len(batch.rows)
        progress(min(start + batch_size, len(order)), len(order))
    means = sums / max(rows, 1)
    known_kl = source.form.kind == "exact" or (source.form.kind == "estimated" and source.form.entropy)
    ranked = teacher and source.store.spec.targets.has_exact
    return HeldoutMetrics(
        float(means[0]),
        float(means[1]) if known_kl else None,
        float(means[2]) if ranked else None,
        calibration_error(calibration),
        float(means[3]) if teacher else None,
        rows,
    )


def calibration_error(bins: npt.NDArray[np.float64]) -> float:
    """ECE of float64 [3, bins]: count, sum of confidences and number of hits in each."""
    count, confidence, hits = bins
    return float(np.abs(confidence - hits).sum() / max(count.sum(), 1))


def _block(
    logits: Tensor, batch: Batch, block: slice, terms: list[Term]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums over rows of loss, KL, agreement and support mass; and of calibration, [3, bins]."""
    best, place = logits.max(-1)
    log_q = best - logits.logsumexp(-1)
    ids = batch.ids[block]
    agreement = mass = 0.0
    if ids.shape[1]:
        held = ~torch.isneginf(batch.log_p[0][block])
        on_ids = logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)
        mass = float((on_ids.exp() * held).sum())
        agreement = float(((place == ids[:, 0]) & held[:, 0]).sum())
    confidence = log_q.exp().double().cpu().numpy()
    hits = (place == batch.labels[block]).cpu().numpy()
    which = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    each = (np.ones_like(confidence), confidence, hits.astype(np.float64))
    bins = np.stack([np.bincount(which, weights=values, minlength=BINS).astype(np.float64) for values in each])
    parts, _ = loss_and_gradient(logits, terms, with_gradient=False)
    found = [float(parts[0]), float(parts[1]) if len(parts) > 1 else 0.0, agreement, mass]
    return np.array(found), bins
