"""The terms of a loss over one micro-batch."""

from dataclasses import replace

import torch
from torch import Tensor

from student.losses.batch import Batch
from student.losses.divergence import decoupled_kl
from student.losses.objective import Objective
from student.losses.registry import OBJECTIVES
from student.losses.row_losses import LossTerm
from student.losses.settings import TermSettings
from student.losses.weighted_objectives import WeightedObjectives, row_temperature

# Of tail = "decoupled". Its parameter is the temperature of the second part.
DECOUPLED = Objective("decoupled forward_kl", decoupled_kl, is_linear_in_teacher=True)


def make_loss_terms(
    batch: Batch, objectives: WeightedObjectives, coefficients: Tensor, learned: Tensor | None = None
) -> list[LossTerm]:
    """One LossTerm for each objective. coefficients: float32 [terms], factors of the row weights of each term.

    learned: float32 [2], to which the rows that `min_student_entropy` keeps, and all that it decides about, are added.
    Without gradients it leaves out none: a held-out loss is one of all tokens.
    """
    terms = []
    for i, term in enumerate(objectives.terms):
        made = _make_term(batch, objectives, term, batch.weights[i] * coefficients[i])
        selects = term.min_student_entropy is not None and torch.is_grad_enabled()
        terms.append(replace(made, min_entropy=term.min_student_entropy, kept=learned) if selects else made)
    return terms


def _make_term(batch: Batch, objectives: WeightedObjectives, term: TermSettings, weights: Tensor) -> LossTerm:
    objective = OBJECTIVES[term.objective]
    if not objective.needs_teacher:
        labels = batch.labels.clamp(min=0).unsqueeze(-1)
        return LossTerm(weights, labels, torch.zeros_like(labels, dtype=torch.float32))
    column = objectives.temperatures.index(row_temperature(term))
    log_p, log_tail = batch.log_p[column], batch.log_tail[column]
    if objectives.form.kind == "estimated":
        return LossTerm(weights, batch.ids, log_p, entropy=batch.entropy.nan_to_num(0.0))
    if term.tail == "renormalise":
        log_p = log_p / term.temperature
        log_p = log_p - log_p.logsumexp(-1, keepdim=True).nan_to_num(neginf=0.0)
        entropy = -(log_p.exp() * log_p.masked_fill(torch.isneginf(log_p), 0.0)).sum(-1)
        return LossTerm(weights, batch.ids, log_p, temperature=term.temperature, entropy=entropy)
    if term.tail == "decoupled":
        return LossTerm(weights, batch.ids, log_p, DECOUPLED, term.temperature, log_tail)
    if objectives.form.kind == "complete":
        # An outcome without teacher mass is no padding: a student's mass on it counts.
        log_p = log_p.clamp(min=objective.min_log_p(log_p.dtype))
        return LossTerm(weights, batch.ids, log_p, objective, term.parameter, temperature=term.temperature)
    return LossTerm(weights, batch.ids, log_p, objective, term.parameter, log_tail, term.temperature)
