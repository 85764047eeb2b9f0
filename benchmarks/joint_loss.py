"""What faults in a joint loss do: the distillation term of a published distiller of dialogues, one fault at a time.

    python -m benchmarks.joint_loss

The faults: the student is its own teacher; probabilities in place of log-probabilities go into KLDivLoss; the softmax
is over the positions of the sequence; the factor T^2 is missing. Free logits are trained with each term alone, so a
right term ends at a KL near 0. The last column is the length of the term's first gradient, divided by that of the right
term. Deterministic, less than half a minute on one core; needs no data.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, softmax

BATCH, LENGTH, VOCAB, STEPS = 4, 24, 60, 1500
# The distillation term of student and teacher logits, [B, L, V], at a temperature.
Term = Callable[[Tensor, Tensor, float], Tensor]


def right(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) over the vocabulary, a mean over positions."""
    return temperature**2 * without_factor(student, teacher, temperature)


def without_factor(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_q, p = log_softmax(student / temperature, -1), softmax(teacher / temperature, -1)
    return kl_div(log_q, p, reduction="none").sum(-1).mean()


def own_teacher(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The published call gives the student's logits as those of the teacher, so both arguments depend on it."""
    return right(student, student, temperature)


def probabilities(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    q, p = softmax(student / temperature, -1), softmax(teacher / temperature, -1)
    return temperature**2 * kl_div(q, p, reduction="none").sum(-1).mean()


def over_positions(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_q, p = log_softmax(student / temperature, 1), softmax(teacher / temperature, 1)
    return temperature**2 * kl_div(log_q, p, reduction="none").sum(1).mean()


TERMS: dict[str, Term] = {
    "T² KL over the vocabulary": right,
    "the student is its own teacher": own_teacher,
    "probabilities into KLDivLoss": probabilities,
    "softmax over the positions": over_positions,
    "without T²": without_factor,
}


def kl(student: Tensor, teacher: Tensor) -> float:
    """KL(teacher || student) in nats at T = 1, a mean over positions."""
    return float(without_factor(student, teacher, 1.0))


def final_kl(term: Term, temperature: float) -> tuple[float, float]:
    """KL after training with a term, and the length of its first gradient."""
    generator = torch.Generator().manual_seed(0)
    teacher = 3 * torch.randn(BATCH, LENGTH, VOCAB, generator=generator)
    student = torch.randn(BATCH, LENGTH, VOCAB, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    length = None
    for _ in range(STEPS):
        optimizer.zero_grad()
        term(student, teacher, temperature).backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        length = float(student.grad.norm()) if length is None else length
        optimizer.step()
    return kl(student.detach(), teacher), length or 0.0


def rows(temperature: float) -> dict[str, tuple[float, float]]:
    """By the name of the term: KL after training, and the first gradient as a share of that of the right term."""
    ends = {name: final_kl(term, temperature) for name, term in TERMS.items()}
    scale = ends[next(iter(TERMS))][1]
    return {name: (end, length / scale) for name, (end, length) in ends.items()}


def main() -> None:
    for temperature in (2.0, 0.4):
        print(f"\nT = {temperature}{'':<28}{'KL at the end':>16}{'gradient':>12}")
        for name, (end, share) in rows(temperature).items():
            print(f"{name:<35}{end:>16.4f}{share:>12.3f}")


if __name__ == "__main__":
    main()
