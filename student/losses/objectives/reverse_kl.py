"""Reverse KL: KL(q || p) = sum q (log q - log p) (MiniLLM, Gu et al. 2024, arXiv 2306.08543).

The student avoids what the teacher finds improbable, and may leave out some of the teacher's mass.
"""

from typing import TYPE_CHECKING

from student.losses.divergence import kl_divergence
from student.losses.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor


def reverse_kl(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """KL(q || p). log_p, log_q: [R, B]. Returns [R]."""
    return kl_divergence(log_q, log_p)


OBJECTIVE = Objective("reverse_kl", reverse_kl)
