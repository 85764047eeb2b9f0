"""Skewed reverse KL: KL(q || (1 - alpha) p + alpha q) (DistiLLM, Ko et al. 2024, arXiv 2402.03898).

alpha is the share of the student in the second distribution.
"""

from typing import TYPE_CHECKING

from student.losses.divergence import kl_divergence, log_mixture
from student.losses.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor


def skewed_reverse_kl(log_p: "Tensor", log_q: "Tensor", alpha: float) -> "Tensor":
    """The divergence of each row. log_p, log_q: [R, B]. Returns [R]."""
    return kl_divergence(log_q, log_mixture(log_q, log_p, alpha))


OBJECTIVE = Objective("skewed_reverse_kl", skewed_reverse_kl, default_parameter=0.1)
