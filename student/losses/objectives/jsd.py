"""Generalised Jensen-Shannon divergence: beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q.

Source: GKD, Agarwal et al. 2024, arXiv 2306.13649. beta is the share of the teacher in the mean m.
"""

from typing import TYPE_CHECKING

from student.losses.divergence import kl_divergence, log_mixture
from student.losses.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor


def jensen_shannon(log_p: "Tensor", log_q: "Tensor", beta: float) -> "Tensor":
    """The divergence of each row. log_p, log_q: [R, B]. Returns [R]."""
    log_m = log_mixture(log_p, log_q, beta)
    return beta * kl_divergence(log_p, log_m) + (1 - beta) * kl_divergence(log_q, log_m)


OBJECTIVE = Objective("jsd", jensen_shannon, default_parameter=0.5)
