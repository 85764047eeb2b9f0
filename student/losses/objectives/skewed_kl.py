"""Skewed KL: KL(p || alpha p + (1 - alpha) q) (DistiLLM, Ko et al. 2024, arXiv 2402.03898).

alpha is the share of the teacher in the second distribution.
"""

from typing import TYPE_CHECKING

from student.losses.divergence import kl_divergence, log_mixture
from student.losses.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor


def skewed_kl(log_p: "Tensor", log_q: "Tensor", alpha: float) -> "Tensor":
    """The divergence of each row. log_p, log_q: [R, B]. Returns [R]."""
    return kl_divergence(log_p, log_mixture(log_p, log_q, alpha))


OBJECTIVE = Objective("skewed_kl", skewed_kl, default_parameter=0.1)
