"""Forward KL: KL(p || q) = sum p (log p - log q) (Hinton et al. 2015, arXiv 1503.02531).

The student covers all of the teacher's mass. Its part that depends on the student is the cross-entropy -sum p log q.
"""

from typing import TYPE_CHECKING

from student.losses.divergence import kl_divergence
from student.losses.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor


def derivative(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """d KL(p || q) / d log q = -p, [R, B]."""
    return -log_p.exp()


OBJECTIVE = Objective(
    "forward_kl",
    kl_divergence,
    derivative=derivative,
    is_linear_in_teacher=True,
    allows_renormalised=True,
)
