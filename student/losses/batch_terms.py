"""A batch and its objectives as the terms of a loss."""

from collections.abc import Sequence

import torch
from torch import Tensor

from student.losses.batch import Batch
from student.losses.divergences import divergence, floor
from student.losses.objectives import Objectives
from student.losses.row_losses import Term
from student.losses.settings import TermSettings


def terms_of(batch: Batch, objectives: Objectives, coefficients: Tensor) -> list[Term]:
    """One Term for each objective. coefficients: float32 [terms], by which its rows' weights are multiplied."""
    return [
        _term(batch, objectives, term, batch.weights[number] * coefficients[number])
        for number, term in enumerate(objectives.terms)
    ]


def _term(batch: Batch, objectives: Objectives, term: TermSettings, weights: Tensor) -> Term:
    if term.objective == "hard_label":
        labels = batch.labels.clamp(min=0).unsqueeze(-1)
        return Term(weights, labels, torch.zeros_like(labels, dtype=torch.float32))
    column = objectives.temperatures.index(term.temperature)
    log_p, log_tail = batch.log_p[column], batch.log_tail[column]
    if objectives.form.kind == "estimated":
        return Term(weights, batch.ids, log_p, entropy=batch.entropy.nan_to_num(0.0))
    if term.tail == "renormalise":
        log_p = log_p - log_p.logsumexp(-1, keepdim=True).nan_to_num(neginf=0.0)
        entropy = -(log_p.exp() * log_p.masked_fill(torch.isneginf(log_p), 0.0)).sum(-1)
        return Term(weights, batch.ids, log_p, temperature=term.temperature, entropy=entropy)
    chosen = divergence(term.objective, term.shape)
    if objectives.form.kind == "complete":
        # An outcome that the teacher rules out is no padding: a student's mass on it counts.
        return Term(weights, batch.ids, log_p.clamp(min=floor(chosen, log_p.dtype)), chosen, None, term.temperature)
    return Term(weights, batch.ids, log_p, chosen, log_tail, term.temperature)


def counts_of(batches: Sequence[Batch]) -> Tensor:
    """Sum of the weights of each term over micro-batches, float64 [terms]: each term is a mean over its own rows."""
    return torch.stack([batch.weights.double().sum(1) for batch in batches]).sum(0)


def objective_weights(objectives: Objectives) -> Tensor:
    """What the mean of each term counts in the objective, float64 [terms]: its weight times T^2.

    The gradient of a loss at temperature T is smaller by T^2 (Hinton et al., arXiv 1503.02531).
    """
    return torch.tensor([term.weight * term.temperature**2 for term in objectives.terms], dtype=torch.float64)


def coefficients(objectives: Objectives, counts: Tensor) -> Tensor:
    """What the sum of each term over a whole step counts in the objective, float32 [terms]; 0 for a term without rows.

    counts: float64 [terms], over all ranks and micro-batches of the step.
    """
    weights = objective_weights(objectives).to(counts.device)
    return torch.where(counts > 0, weights / counts.clamp(min=1e-30), 0.0).float()


def term_names(objectives: Objectives) -> list[str]:
    """A name for each term in metrics, no two the same."""
    names: list[str] = []
    for term in objectives.terms:
        name = term.objective + (f"_T{term.temperature:g}" if term.temperature != 1 else "")
        names.append(name if name not in names else f"{name}_{len(names) + 1}")
    return names
