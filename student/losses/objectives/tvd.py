"""Total variation distance: half the sum of |p - q|, between 0 and 1 (Wen et al. 2023, arXiv 2307.15190)."""

from typing import TYPE_CHECKING

from student.losses.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor


def total_variation(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """The distance of each row. log_p, log_q: [R, B]. Returns [R]."""
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)


OBJECTIVE = Objective("tvd", total_variation)
