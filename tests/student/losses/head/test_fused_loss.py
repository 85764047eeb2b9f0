"""Losses from hidden states equal those of dense logits, in blocks of any size, without the full logits matrix."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from student.losses.head.fused_loss import checkpointed_loss, fused_loss, loss_of_logits
from student.losses.head.transform import LogitTransform
from student.losses.row_losses import LossTerm
from tests.student.losses.dense import OBJECTIVES, coarse, dense_loss, random_law, random_logits, sparse_term, top_k

R, D, V = 13, 8, 50
# Where each family's logits come from: Llama and Qwen, GPT-J, Gemma 2, Cohere (and Granite), and all of it at once.
HEADS = {
    "plain": (LogitTransform(), False),
    "biased": (LogitTransform(), True),
    "capped": (LogitTransform(cap=1.5), False),
    "scaled": (LogitTransform(scale=0.25), False),
    "biased, scaled and capped": (LogitTransform(scale=3.0, cap=2.0), True),
}
Grads = tuple[Tensor, ...]


def parts(seed: int = 0, rows: int = R, biased: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
    """Hidden states, weight and bias of a head, float64 leaves."""
    numbers = [random_logits(rows, D, seed, 1.0), random_logits(V, D, seed + 1, 0.5), random_logits(1, V, seed + 2)[0]]
    hidden, weight, bias = (x.requires_grad_() for x in numbers)
    return hidden, weight, bias if biased else None


def mix(rows: int = R, seed: int = 9) -> tuple[list[LossTerm], Callable[[Tensor], Tensor]]:
    """Terms of several divergences, supports and temperatures with weights of their own; and their sums by autograd."""
    chosen = [("forward_kl", 5, 1.0), ("reverse_kl", 8, 2.0), ("jsd", 5, 1.0), ("tvd", 3, 4.0), ("forward_kl", V, 2.0)]
    terms, references = [], []
    for number, (objective, k, temperature) in enumerate(chosen):
        law = random_law(rows, V, seed + number)
        weights = torch.rand(rows, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        weights[: rows // 4] = 0
        terms.append(sparse_term(objective, 0.3, law, k, weights=weights, temperature=temperature))
        references.append((objective, temperature, weights, coarse(law, top_k(law, k)[0]), top_k(law, k)[0]))
    labels = torch.arange(rows)[:, None] % V
    terms.append(LossTerm(torch.ones(rows, dtype=torch.float64), labels, torch.zeros(rows, 1, dtype=torch.float64)))

    def reference(logits: Tensor) -> Tensor:
        sums = []
        for objective, temperature, weights, log_p, ids in references:
            log_q = coarse((logits / temperature).log_softmax(-1), ids)
            sums.append((weights * dense_loss(objective, 0.3, log_p, log_q)).sum())
        return torch.stack([*sums, -logits.log_softmax(-1).gather(-1, labels).sum()])

    return terms, reference


def gradients(total: Tensor, *leaves: Tensor | None) -> Grads:
    return torch.autograd.grad(total, [leaf for leaf in leaves if leaf is not None])


def same(ours: Grads, wanted: Grads, **tolerance: float) -> bool:
    return all(torch.allclose(a, b, **({"atol": 1e-10} | tolerance)) for a, b in zip(ours, wanted, strict=True))


def dense_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, transform: LogitTransform) -> Tensor:
    logits = transform.scale * torch.nn.functional.linear(hidden, weight, bias)
    return logits if transform.cap is None else transform.cap * torch.tanh(logits / transform.cap)


@pytest.mark.parametrize("name", list(HEADS))
def test_sums_and_gradients_are_those_of_dense_logits(name: str) -> None:
    """Objectives at three temperatures. Would catch a cap or scale that the gradient misses, and shared buffers."""
    transform, biased = HEADS[name]
    leaves = parts(biased=biased)
    terms, reference = mix()
    total, sums = fused_loss(*leaves, transform, terms, rows=4)
    wanted = reference(dense_logits(*leaves, transform))
    assert torch.allclose(sums, wanted, atol=1e-10) and torch.allclose(total, wanted.sum())
    assert not sums.requires_grad
    # A factor comes from gradient accumulation and the average over ranks.
    assert same(gradients(total * 3.5, *leaves), gradients(wanted.sum() * 3.5, *leaves))


@given(st.integers(0, 12), st.integers(1, 15), st.sampled_from(list(HEADS)), st.integers(0, 1 << 20))
@settings(max_examples=25, deadline=None)
def test_any_block_size_gives_the_same(rows: int, block: int, name: str, seed: int) -> None:
    """Also no rows at all, as of a micro-batch without a loss. Would catch a last block that is dropped or doubled."""
    transform, biased = HEADS[name]
    leaves = parts(seed, rows, biased)
    terms, _ = mix(rows, seed)
    total, sums = fused_loss(*leaves, transform, terms, rows=block)
    whole, whole_sums = fused_loss(*leaves, transform, terms, rows=1000)
    assert sums.shape == (len(terms),) and torch.allclose(sums, whole_sums, atol=1e-10)
    assert same(gradients(total, *leaves), gradients(whole, *leaves))


def test_objectives_may_come_in_any_number() -> None:
    """The last temperature works in the logits' own memory. Would catch that an earlier one had spoilt them."""
    hidden, weight, _ = parts()
    terms, _ = mix()
    together = gradients(fused_loss(hidden, weight, None, LogitTransform(), terms)[0], hidden, weight)
    alone = [gradients(fused_loss(hidden, weight, None, LogitTransform(), [t])[0], hidden, weight) for t in terms]
    assert same(together, tuple(sum(column, torch.zeros(())) for column in zip(*alone, strict=True)))


def test_a_frozen_head_gets_no_gradient_and_changes_none() -> None:
    """As with adapters. Would catch a gradient of [V, d] that is computed for nothing, or one that is missing."""
    hidden, weight, _ = parts()
    terms, _ = mix()
    wanted = gradients(fused_loss(hidden, weight, None, LogitTransform(), terms)[0], hidden)
    frozen = weight.detach()
    assert same(gradients(fused_loss(hidden, frozen, None, LogitTransform(), terms)[0], hidden), wanted)
    total, _ = fused_loss(hidden.detach(), weight, None, LogitTransform(), terms)
    assert same(
        gradients(total, weight), gradients(fused_loss(hidden, weight, None, LogitTransform(), terms)[0], weight)
    )


def test_without_gradients_there_is_a_loss_and_no_graph() -> None:
    hidden, weight, _ = parts()
    terms, reference = mix()
    with torch.no_grad():
        total, sums = fused_loss(hidden, weight, None, LogitTransform(), terms, rows=5)
    assert not total.requires_grad
    assert torch.allclose(sums, reference(hidden @ weight.T).detach())


def test_a_tied_head_sums_both_gradients() -> None:
    """One matrix that embeds and scores. Would catch a head's gradient that takes the place of the embedding's."""
    weight, mixer = random_logits(V, D, 1, 0.5).requires_grad_(), random_logits(D, D, 2, 0.5)
    terms, reference = mix()
    hidden = torch.tanh(weight[torch.arange(R)] @ mixer)
    total, _ = fused_loss(hidden, weight, None, LogitTransform(), terms, rows=4)
    wanted = reference(torch.tanh(weight[torch.arange(R)] @ mixer) @ weight.T)
    assert same(gradients(total, weight), gradients(wanted.sum(), weight))


@pytest.mark.parametrize("name", ["plain", "biased, scaled and capped"])
def test_dense_logits_and_checkpointed_heads_agree(name: str) -> None:
    """Would catch a path that forgets the transform, or a recomputed block with other terms."""
    transform, biased = HEADS[name]
    leaves = parts(biased=biased)
    terms, _ = mix()
    wanted, wanted_sums = fused_loss(*leaves, transform, terms, rows=4)
    of_logits, sums = loss_of_logits(dense_logits(*leaves, transform), terms)
    assert torch.allclose(sums, wanted_sums)
    assert same(gradients(of_logits, *leaves), gradients(wanted, *leaves))
    head = nn.Linear(D, V, bias=biased, dtype=torch.float64)
    with torch.no_grad():
        for parameter, leaf in zip(head.parameters(), leaves[1:], strict=False):
            assert leaf is not None
            parameter.copy_(leaf)
    total, sums = checkpointed_loss(head, leaves[0], transform, terms, rows=4)
    assert torch.allclose(sums, wanted_sums)
    assert same(
        gradients(total, leaves[0], *head.parameters()), gradients(fused_loss(*leaves, transform, terms)[0], *leaves)
    )


def test_a_checkpointed_head_takes_no_rows() -> None:
    """A micro-batch whose examples weigh 0. Would catch a loss without a graph, on which backward() fails."""
    head = nn.Linear(D, V)
    hidden = torch.zeros(0, D, requires_grad=True)
    terms = [LossTerm(torch.zeros(0), torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 1))]
    total, sums = checkpointed_loss(head, hidden, LogitTransform(), terms, rows=4)
    total.backward()  # type: ignore[no-untyped-call]
    assert float(total.detach()) == 0 and sums.tolist() == [0.0]
    assert hidden.grad is not None


def test_bfloat16_is_close_to_float32() -> None:
    """Many rows in small blocks. Would catch sums over blocks that are kept in bfloat16, which loses the small ones."""
    rows = 1200
    hidden, weight, _ = parts(rows=rows)
    law = random_law(rows, V, 3)
    term = sparse_term("forward_kl", 0.5, law.float(), 6)
    half = [hidden.detach().bfloat16().requires_grad_(), weight.detach().bfloat16().requires_grad_()]
    full = [leaf.detach().float().requires_grad_() for leaf in half]
    total, sums = fused_loss(half[0], half[1], None, LogitTransform(), [term], rows=8)
    wanted, wanted_sums = fused_loss(full[0], full[1], None, LogitTransform(), [term], rows=8)
    assert sums.dtype == torch.float32 and sums[0] == pytest.approx(float(wanted_sums[0]), rel=2e-3)
    for ours, exact in zip(gradients(total, *half), gradients(wanted, *full), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - exact).norm() < 6e-3 * exact.norm()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_ids_beyond_a_teacher_are_only_tail(objective: str) -> None:
    """A head padded beyond the teacher's vocabulary. Would catch a tail that ends where the teacher's ids do."""
    hidden, weight, _ = parts()
    law = random_law(R, V - 10, 4)
    ids, values, tail = top_k(law, 6)
    term = sparse_term(objective, 0.3, law, 6)
    log_q = (hidden @ weight.T).log_softmax(-1)
    wanted = dense_loss(objective, 0.3, torch.cat([values, tail[:, None]], -1), coarse(log_q, ids)).sum()
    total, _ = fused_loss(hidden, weight, None, LogitTransform(), [term])
    assert same(gradients(total, hidden, weight), gradients(wanted, hidden, weight))


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives, and how many of at least `limit` it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(x.numel() for x in tree_leaves(out) if isinstance(x, Tensor))])
        return out


@pytest.mark.parametrize("name", ["biased", "capped"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_matrix_of_all_logits_never_exists(name: str, dtype: torch.dtype) -> None:
    """Would catch logits, or a gradient of them, of all rows at once: 512 rows of a 152k vocabulary are 300 MB."""
    transform, biased = HEADS[name]
    rows, block = 64, 8
    hidden, weight, bias = (
        None if x is None else x.detach().to(dtype).requires_grad_() for x in parts(rows=rows, biased=biased)
    )
    assert hidden is not None and weight is not None
    law = random_law(rows, V, 3).float()
    terms = [
        sparse_term("forward_kl", 0.5, law, 6),
        sparse_term("jsd", 0.5, law, 6),
        sparse_term("tvd", 0.5, law, 6, temperature=2.0),
    ]
    with Largest() as largest:
        total, _ = fused_loss(hidden, weight, bias, transform, terms, rows=block)
        total.backward()  # type: ignore[no-untyped-call]
    allowed = max(block * V, rows * D, V * D)
    assert largest.elements <= allowed < rows * V
    with Largest() as whole:
        loss_of_logits(dense_logits(hidden, weight, bias, transform), terms)
    assert whole.elements >= rows * V, "the recorder does not see what it shall"
