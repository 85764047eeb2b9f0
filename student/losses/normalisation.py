"""How the sums of a loss's terms become means over the rows of a whole step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from student.losses.batch import Batch
from student.losses.weighted_objectives import WeightedObjectives


def sum_row_weights(batches: Sequence[Batch]) -> Tensor:
    """Sum the row weights of each term over micro-batches, float64 [terms]. Each term is a mean over its rows."""
    return torch.stack([batch.weights.double().sum(1) for batch in batches]).sum(0)


def objective_weights(objectives: WeightedObjectives) -> Tensor:
    """Factor of each term's mean in the objective, float64 [terms]: its weight times T^2.

    The gradient of a loss at temperature T is smaller by T^2 (Hinton et al., arXiv 1503.02531).
    """
    return torch.tensor([term.weight * term.temperature**2 for term in objectives.terms], dtype=torch.float64)


def sum_coefficients(objectives: WeightedObjectives, weight_sums: Tensor) -> Tensor:
    """Factor of each term's sum over a whole step in the objective, float32 [terms]; 0 for a term without rows.

    weight_sums: float64 [terms], `sum_row_weights` over all ranks and micro-batches of the step.
    """
    weights = objective_weights(objectives).to(weight_sums.device)
    return torch.where(weight_sums > 0, weights / weight_sums.clamp(min=1e-30), 0.0).float()


def term_names(objectives: WeightedObjectives) -> list[str]:
    """A distinct name of each term for metrics."""
    names: list[str] = []
    for term in objectives.terms:
        name = term.objective + (f"_T{term.temperature:g}" if term.temperature != 1 else "")
        name = "_".join([name, *(str(value) for value in term.where.values())])
        names.append(name if name not in names else f"{name}_{len(names) + 1}")
    return names
