"""The interface of an objective."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from student.losses.divergence import ABSENT, DivergenceFunction

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Objective:
    """What a term of a loss minimises. Job files select it by `name`.

    divergence: function of (log_p, log_q) or (log_p, log_q, parameter), as student.losses.divergence describes it.
        None: the cross-entropy of the label of each row.
    default_parameter: value of the parameter that job files call `beta`; None: the objective has no parameter.
    derivative: d divergence / d log_q, [R, B], with the arguments of `divergence`; None: autograd computes it.
    needs_teacher: whether it compares with the teacher's distribution. False: it learns from labels alone.
    is_linear_in_teacher: whether it is the cross-entropy -sum p log q, but for a term that depends on the teacher
        alone. The cross-entropy is linear in p. So unbiased estimates of p (threshold and sampled targets) give an
        unbiased loss and gradient, and a bucket without teacher mass adds nothing.
    allows_renormalised: whether it is defined for a teacher that has no mass outside the stored ids
        (tail = "renormalise").
    """

    name: str
    divergence: DivergenceFunction | None
    default_parameter: float | None = None
    derivative: DivergenceFunction | None = None
    needs_teacher: bool = True
    is_linear_in_teacher: bool = False
    allows_renormalised: bool = False

    def value(self, log_p: "Tensor", log_q: "Tensor", parameter: float | None) -> "Tensor":
        """The divergence of each row, [R]. parameter: None for an objective without one."""
        assert self.divergence is not None, self.name
        return self.divergence(log_p, log_q) if parameter is None else self.divergence(log_p, log_q, parameter)

    def min_log_p(self, dtype: "torch.dtype") -> float:
        """The smallest log-probability of the teacher that a bucket may have.

        A mass may round to 0. A divergence that is large where p is small and q is not would then be infinite.
        """
        import math

        import torch

        return ABSENT if self.is_linear_in_teacher else math.log(torch.finfo(dtype).eps)
