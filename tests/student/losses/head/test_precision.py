"""Losses and gradients of bfloat16 students against float64: nothing is rounded to bfloat16 before the softmax."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from student.losses.head.fused_loss import checkpointed_loss, fused_loss
from student.losses.head.logits import precise_logits
from student.losses.head.product import precise_linear, precise_product
from student.losses.head.transform import LogitTransform
from student.losses.registry import OBJECTIVES
from student.losses.row_losses import LossTerm, loss_and_gradient

R, D, V, K = 48, 64, 3000, 32
PLAIN = LogitTransform()
# Of the exact gradient of the hidden states in bfloat16: 1.7e-3. Rounded logits give 6e-2 and more.
ROUNDING = 5e-3
Loss = Callable[[Tensor, Tensor, list[LossTerm]], Tensor]


def head(noise: float) -> tuple[Tensor, Tensor, LossTerm, Tensor]:
    """Hidden states and weight in bfloat16, a teacher of noise around the student, and the exact gradient in float64.

    Logits have a mean of 9 and a spread of 3, as those of trained models have.
    """
    generator = torch.Generator().manual_seed(0)
    common = torch.full((D,), D**-0.5)
    hidden = torch.randn(R, D, generator=generator) * 3
    hidden = (hidden + (9 - hidden @ common)[:, None] * common).bfloat16()
    weight = (torch.randn(V, D, generator=generator) * D**-0.5 + common).bfloat16()
    logits = hidden.double() @ weight.double().t()
    noisy = logits + noise * torch.randn(R, V, generator=generator, dtype=torch.float64)
    log_p, ids = noisy.log_softmax(-1).topk(K, -1)
    tail = torch.log(-torch.expm1(log_p.logsumexp(-1)))
    term = LossTerm(torch.full((R,), 1 / R), ids, log_p.float(), OBJECTIVES["forward_kl"], log_tail=tail.float())
    leaf = hidden.double().requires_grad_()
    total, _ = fused_loss(leaf, weight.double(), None, PLAIN, [term])
    return hidden, weight, term, torch.autograd.grad(total, leaf)[0]


def fused(hidden: Tensor, weight: Tensor, terms: list[LossTerm]) -> Tensor:
    return fused_loss(hidden, weight, None, PLAIN, terms, rows=20)[0]


def with_adapters(hidden: Tensor, weight: Tensor, terms: list[LossTerm]) -> Tensor:
    """The head has adapters that change nothing yet."""
    module = nn.ModuleDict({"head": nn.Linear(D, V, bias=False, dtype=weight.dtype)})
    module["head"].weight.data.copy_(weight)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["head"]), module)
    module.to(weight.dtype)
    return checkpointed_loss(module["head"], hidden, PLAIN, terms, rows=20)[0]


def under_autocast(hidden: Tensor, weight: Tensor, terms: list[LossTerm]) -> Tensor:
    """Weights in float32, as mixed precision of Trainer has them."""
    with torch.autocast("cpu", torch.bfloat16):
        return fused(hidden.float(), weight.float().requires_grad_(), terms)


def adapters_under_autocast(hidden: Tensor, weight: Tensor, terms: list[LossTerm]) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return with_adapters(hidden.float(), weight.float(), terms)


@pytest.mark.parametrize("noise", [0.1, 0.7])
@pytest.mark.parametrize("loss", [fused, with_adapters, under_autocast, adapters_under_autocast])
def test_the_gradient_of_a_bfloat16_student_is_exact_to_the_rounding_of_itself(loss: Loss, noise: float) -> None:
    """Near the teacher, rounded logits are wrong by half of the gradient. Would catch any of them on the way."""
    hidden, weight, term, wanted = head(noise)
    leaf = hidden.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, weight, [term]), leaf)
    assert float((gradient.double() - wanted).norm() / wanted.norm()) < ROUNDING
    rounded = hidden.detach().requires_grad_()
    logits = (rounded @ weight.t()).float()
    error = (logits.double() - hidden.double() @ weight.double().t()).abs().max()
    assert error > 0.01, "these logits cannot show a rounding"


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_linear_layer_gives_float32_and_the_gradients_of_itself(dtype: torch.dtype, biased: bool) -> None:
    """Several hundred columns, of which the last piece is not full. Would catch a piece that is left out."""
    generator = torch.Generator().manual_seed(1)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    states, weight, bias = leaf(2, 3, D), leaf(1100, D), leaf(1100) if biased else None
    leaves = [x for x in (states, weight, bias) if x is not None]
    product = precise_linear(states, weight, bias)
    wanted = states.double() @ weight.double().t() + (0.0 if bias is None else bias.double())
    assert product.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(product.double(), wanted, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(product.shape, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad((product * upstream.to(product.dtype)).sum(), leaves)
    exact = torch.autograd.grad((wanted * upstream).sum(), leaves)
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == dtype
        assert (a.double() - b.double()).norm() <= 6 * torch.finfo(dtype).eps * b.double().norm() + 1e-6


def test_products_of_no_rows_and_of_no_columns() -> None:
    """A micro-batch without a loss."""
    left, right = torch.zeros(0, 4, dtype=torch.bfloat16), torch.zeros(4, 7, dtype=torch.bfloat16)
    assert precise_product(left, right).shape == (0, 7)
    assert precise_product(right.t(), left.t()).shape == (7, 0)


def test_the_head_gets_its_own_forward_pass_back() -> None:
    """Would catch a head that gives float32 to a model's own forward pass later."""
    module = nn.Linear(D, V, dtype=torch.bfloat16)
    states = torch.zeros(2, D, dtype=torch.bfloat16)
    assert precise_logits(module, states, LogitTransform(scale=2.0, cap=3.0)).dtype == torch.float32
    assert module(states).dtype == torch.bfloat16 and "forward" not in vars(module)


@pytest.mark.parametrize("adapters", [False, True])
def test_no_gradient_is_computed_where_none_is_recorded(adapters: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out evaluation. autograd's `needs_input_grad` is true there, and doubles its time."""
    hidden, weight, term, _ = head(0.5)
    with_gradients: list[bool] = []

    def record(logits: Tensor, terms: list[LossTerm], with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        with_gradients.append(with_gradient)
        return loss_and_gradient(logits, terms, with_gradient)

    monkeypatch.setattr("student.losses.head.fused_loss.loss_and_gradient", record)
    loss = with_adapters if adapters else fused
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            loss(hidden, nn.Parameter(weight), [term])
    assert with_gradients == [False] * 6
    loss(hidden.requires_grad_(), nn.Parameter(weight), [term])
    assert with_gradients[6:] == [True] * 3
