"""The gates of the losses, against dense float64."""

import itertools

import pytest
import torch

from student.losses import forward_kl_loss, hard_label_loss

V, R = 40, 12


@pytest.fixture
def log_p() -> torch.Tensor:
    torch.manual_seed(0)
    return (torch.randn(R, V, dtype=torch.float64) * 2).log_softmax(-1)


@pytest.fixture
def student_logits() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(R, V, dtype=torch.float64, requires_grad=True)


def top_k(log_p: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    values, ids = log_p.topk(k, dim=-1)
    tail = (1 - values.exp().sum(-1)).clamp(min=0) if k < V else torch.zeros(R, dtype=log_p.dtype)
    return ids, values, tail.log()


def dense_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def test_a_student_that_equals_the_teacher_has_no_loss(log_p: torch.Tensor) -> None:
    for k in (1, 5, V):
        assert forward_kl_loss(log_p, *top_k(log_p, k)).abs().max() < 1e-6


def test_the_whole_vocabulary_gives_the_dense_loss_and_gradient(
    log_p: torch.Tensor, student_logits: torch.Tensor
) -> None:
    dense = dense_kl(log_p, student_logits.log_softmax(-1))
    (wanted,) = torch.autograd.grad(dense.sum(), student_logits)
    sparse = forward_kl_loss(student_logits.log_softmax(-1), *top_k(log_p, V))
    (gradient,) = torch.autograd.grad(sparse.sum(), student_logits)
    assert torch.allclose(sparse, dense, atol=1e-9)
    assert torch.allclose(gradient, wanted, atol=1e-9)


def test_gradient_of_the_tail_bucket_is_the_formula(log_p: torch.Tensor, student_logits: torch.Tensor) -> None:
    """q_j - p_j on the support; q_j (1 - (1 - m) / (1 - q_S)) off it."""
    ids, values, log_tail = top_k(log_p, 6)
    (gradient,) = torch.autograd.grad(
        forward_kl_loss(student_logits.log_softmax(-1), ids, values, log_tail).sum(), student_logits
    )
    q = student_logits.softmax(-1).detach()
    q_s = q.gather(-1, ids).sum(-1, keepdim=True)
    wanted = q * (1 - log_tail.exp()[:, None] / (1 - q_s))
    wanted = wanted.scatter(-1, ids, q.gather(-1, ids) - values.exp())
    assert torch.allclose(gradient, wanted, atol=1e-9)


def test_it_is_a_lower_bound_that_rises_with_k(log_p: torch.Tensor, student_logits: torch.Tensor) -> None:
    log_q = student_logits.detach().log_softmax(-1)
    losses = [forward_kl_loss(log_q, *top_k(log_p, k)).sum() for k in (1, 2, 4, 8, 16, V)]
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(losses))
    assert losses[-1] == pytest.approx(dense_kl(log_p, log_q).sum().item())


def test_padding_changes_nothing(log_p: torch.Tensor, student_logits: torch.Tensor) -> None:
    ids, values, log_tail = top_k(log_p, 5)
    log_q = student_logits.log_softmax(-1)
    padded = forward_kl_loss(
        log_q,
        torch.cat([ids, torch.zeros(R, 3, dtype=torch.int64)], -1),
        torch.cat([values, torch.full((R, 3), -torch.inf, dtype=values.dtype)], -1),
        log_tail,
    )
    (gradient,) = torch.autograd.grad(padded.sum(), student_logits)
    assert torch.allclose(padded, forward_kl_loss(log_q, ids, values, log_tail))
    assert torch.isfinite(gradient).all()


def test_a_student_without_a_tail_stays_finite(log_p: torch.Tensor) -> None:
    ids, values, log_tail = top_k(log_p, 5)
    logits = torch.full((R, V), -200.0).scatter(-1, ids, 10.0).requires_grad_()
    loss = forward_kl_loss(logits.log_softmax(-1), ids, values.float(), log_tail.float())
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()


def test_hard_labels_are_cross_entropy(student_logits: torch.Tensor) -> None:
    labels = torch.arange(R)
    wanted = torch.nn.functional.cross_entropy(student_logits, labels, reduction="none")
    assert torch.allclose(hard_label_loss(student_logits.log_softmax(-1), labels), wanted)
