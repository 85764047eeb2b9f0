"""Losses and gradients of rows against dense float64."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cache.rows.spec import TargetSpec
from student.losses.batch import Batch
from student.losses.loss_terms import make_loss_terms
from student.losses.normalisation import sum_coefficients, sum_row_weights
from student.losses.row_losses import LossTerm
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm, require_supported
from student.losses.temperature import sparse_at_temperature
from student.losses.weighted_objectives import WeightedObjectives
from tests.student.losses.conftest import R, V
from tests.student.losses.dense import (
    OBJECTIVES,
    autograd,
    coarse,
    dense_loss,
    found,
    random_law,
    random_logits,
    sparse_term,
    top_k,
)
from tests.teacher_serving.reduction.dense import reduced

EACH_OBJECTIVE = pytest.mark.parametrize("objective", OBJECTIVES)
EXACT = {"atol": 1e-10, "rtol": 1e-8}


def batch_of(log_p: Tensor, ids: Tensor, held: list[np.ndarray], tail: list[np.ndarray], terms: int = 1) -> Batch:
    """A micro-batch of rows alone; its labels are the ids 0, 1, 2, ..."""
    rows = len(ids)
    entropy = -(log_p.exp() * log_p).sum(-1).float()
    return Batch(
        {},
        torch.arange(rows),
        torch.arange(rows),
        ids,
        tuple(torch.from_numpy(values) for values in held),
        tuple(torch.from_numpy(values) for values in tail),
        entropy,
        torch.ones(terms, rows),
    )


def objectives_of(form: TargetForm, **loss: object) -> WeightedObjectives:
    return WeightedObjectives.of(LossSettings.model_validate(loss), form)


@EACH_OBJECTIVE
@pytest.mark.parametrize("k", [1, 5, V])
def test_a_student_that_equals_the_teacher_has_no_loss_and_no_gradient(objective: str, k: int, log_p: Tensor) -> None:
    """Would catch a missing constant, a tail on one side only, and a gradient that pulls away from the optimum."""
    sums, gradient = found(log_p + 3.0, sparse_term(objective, 0.3, log_p, k))
    assert abs(float(sums)) < 1e-9
    # The gradient of |p - q| at its kink is whatever autograd takes for it.
    assert objective == "tvd" or gradient.abs().max() < 1e-7


@given(
    st.sampled_from(OBJECTIVES),
    st.floats(0.05, 0.95),
    st.integers(1, 5),
    st.integers(2, 30),
    st.integers(0, 1 << 30),
    st.floats(0.1, 6.0),
)
@settings(max_examples=60, deadline=None)
def test_rows_with_every_id_give_the_dense_loss_and_gradient(
    objective: str, shape: float, rows: int, vocabulary: int, seed: int, spread: float
) -> None:
    """k = V. Would catch a wrong divergence, a swapped pair, a wrong share, and a gradient that is not the loss's."""
    log_p, logits = random_law(rows, vocabulary, seed, spread), random_logits(rows, vocabulary, seed + 1, spread)
    sums, gradient = found(logits, sparse_term(objective, shape, log_p, vocabulary))
    ids = torch.arange(vocabulary).expand(rows, vocabulary)
    wanted, wanted_gradient = autograd(logits, [(objective, shape, log_p, ids)])
    assert torch.allclose(sums, wanted, **EXACT)
    assert torch.allclose(gradient, wanted_gradient, **EXACT)


@given(st.sampled_from(OBJECTIVES), st.floats(0.05, 0.95), st.integers(1, 19), st.integers(0, 1 << 30))
@settings(max_examples=50, deadline=None)
def test_the_tail_is_one_more_outcome(objective: str, shape: float, k: int, seed: int) -> None:
    """Against autograd on laws whose tails were added up. Would catch a tail of stored ids, or one without gradient."""
    log_p, logits = random_law(4, 20, seed), random_logits(4, 20, seed + 1)
    ids, *_ = top_k(log_p, k)
    sums, gradient = found(logits, sparse_term(objective, shape, log_p, k))
    wanted, wanted_gradient = autograd(logits, [(objective, shape, coarse(log_p, ids), ids)])
    assert torch.allclose(sums, wanted, **EXACT)
    assert torch.allclose(gradient, wanted_gradient, **EXACT)


def test_gradient_of_the_tail_bucket_is_the_formula(log_p: Tensor, logits: Tensor) -> None:
    """q_j - p_j on the support; q_j (1 - (1 - m) / (1 - q_S)) off it."""
    ids, values, log_tail = top_k(log_p, 6)
    _, gradient = found(logits, sparse_term("forward_kl", 0.5, log_p, 6))
    q = logits.softmax(-1)
    q_s = q.gather(-1, ids).sum(-1, keepdim=True)
    wanted = q * (1 - log_tail.exp()[:, None] / (1 - q_s))
    wanted = wanted.scatter(-1, ids, q.gather(-1, ids) - values.exp())
    assert torch.allclose(gradient, wanted, atol=1e-12)


def test_gradient_of_the_renormalised_teacher_is_the_formula(log_p: Tensor, logits: Tensor) -> None:
    """q_j - (p_j / m) [j in S]. Would catch a truncated teacher left unnormalised: its gradient is m q_j - p_j."""
    ids, values, log_tail = top_k(log_p, 6)
    form = TargetForm("exact")
    batch = batch_of(log_p, ids, [values.float().numpy()], [log_tail.float().numpy()])
    terms = make_loss_terms(batch, objectives_of(form, tail="renormalise"), torch.ones(1))
    sums, gradient = found(logits, *terms)
    share = (values - values.logsumexp(-1, keepdim=True)).exp()
    q = logits.softmax(-1)
    assert torch.allclose(gradient, q.scatter_add(-1, ids, -share), atol=1e-6)
    loss = (share * (share.log() - logits.log_softmax(-1).gather(-1, ids))).sum()
    assert float(sums) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.25, 0.7, 2.0, 10.0])
def test_a_renormalised_teacher_has_any_temperature(temperature: float, log_p: Tensor, logits: Tensor) -> None:
    """The normaliser over the vocabulary cancels, so none is stored. Beside a term with a bucket and a store's grid.

    Would catch a refusal, a teacher that stays at 1, and columns of one term that another one takes.
    """
    k, grid = 6, 4.0
    ids, values, tail = top_k(log_p, k)
    normalizer = (log_p / grid).logsumexp(-1).float().numpy()
    held, tails = sparse_at_temperature(values.float().numpy(), normalizer, grid)
    form = TargetForm("exact", (grid,))
    renormalised = {"objective": "forward_kl", "tail": "renormalise", "temperature": temperature}
    bucket = {"objective": "forward_kl", "temperature": grid}
    loss = LossSettings.model_validate({"terms": [bucket, renormalised]})
    require_supported(loss, form, "store")
    objectives = WeightedObjectives.of(loss, form)
    assert objectives.temperatures == (grid, 1.0)
    batch = batch_of(log_p, ids, [held, values.float().numpy()], [tails, tail.float().numpy()], terms=2)
    sums, gradient = found(logits, *make_loss_terms(batch, objectives, torch.tensor([grid**2, temperature**2])))

    leaf = logits.clone().requires_grad_()
    share = (values / temperature).log_softmax(-1)
    log_q = (leaf / temperature).log_softmax(-1).gather(-1, ids)
    with_bucket = dense_loss(
        "forward_kl",
        0.0,
        coarse((log_p / grid).log_softmax(-1), ids),
        coarse((leaf / grid).log_softmax(-1), ids),
    )
    wanted = torch.stack([grid**2 * with_bucket.sum(), temperature**2 * (share.exp() * (share - log_q)).sum()])
    (wanted_gradient,) = torch.autograd.grad(wanted.sum(), leaf)
    assert torch.allclose(sums, wanted.detach(), rtol=1e-5)
    assert torch.allclose(gradient, wanted_gradient, atol=1e-5 * float(wanted_gradient.abs().max()))


@EACH_OBJECTIVE
def test_it_is_a_lower_bound_that_rises_with_k(objective: str, log_p: Tensor, logits: Tensor) -> None:
    """Putting outcomes together cannot raise a divergence. Would catch a tail that is not a bucket."""
    losses = [float(found(logits, sparse_term(objective, 0.3, log_p, k))[0]) for k in (1, 2, 4, 8, 16, V)]
    assert all(0 <= low <= high + 1e-12 for low, high in itertools.pairwise(losses))
    assert losses[-1] == pytest.approx(float(dense_loss(objective, 0.3, log_p, logits.log_softmax(-1)).sum()))


@EACH_OBJECTIVE
@pytest.mark.parametrize("k", [5, V])
@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_a_temperature_of_the_grid_matches_autograd_on_dense_logits(
    objective: str, k: int, temperature: float, log_p: Tensor, logits: Tensor
) -> None:
    """T^2 D(p^T, q^T) from log-probabilities at 1 and log-normalisers. Would catch a normaliser of the ids alone."""
    ids, values, _ = top_k(log_p, k)
    normalizer = (log_p / temperature).logsumexp(-1).float().numpy()
    held, tail = sparse_at_temperature(values.float().numpy(), normalizer, temperature)
    form = TargetForm("exact", (temperature,))
    objectives = objectives_of(form, objective=objective, temperature=temperature)
    batch = batch_of(log_p, ids, [held], [tail])
    terms = make_loss_terms(batch, objectives, sum_coefficients(objectives, sum_row_weights([batch])))
    sums, gradient = found(logits, *terms)

    leaf = logits.clone().requires_grad_()
    p_t, q_t = (log_p / temperature).log_softmax(-1), (leaf / temperature).log_softmax(-1)
    shape = LossSettings.model_validate({"objective": objective}).all_terms[0].parameter or 0.0
    wanted = temperature**2 * dense_loss(objective, shape, coarse(p_t, ids), coarse(q_t, ids)).mean()
    (wanted_gradient,) = torch.autograd.grad(wanted, leaf)
    assert float(sums) == pytest.approx(float(wanted), rel=2e-4, abs=2e-5)
    assert torch.allclose(gradient, wanted_gradient, atol=2e-5, rtol=2e-4)
    if objective == "forward_kl" and k == V:
        assert torch.allclose(gradient, temperature * (q_t - p_t).detach().exp().sub(1).mul(p_t.exp()) / R, atol=2e-5)


DRAWS = 6_000


@pytest.mark.parametrize(
    "targets",
    [TargetSpec("threshold", threshold=0.08, entropy=True), TargetSpec("sampled", draws=12, entropy=True)],
    ids=lambda targets: targets.mode,
)
def test_estimates_average_to_the_dense_gradient_and_truncated_ones_do_not(targets: TargetSpec) -> None:
    """Would catch draws that stand for the wrong mass. The same check fails for ids kept without their tail."""
    teacher, logits = random_logits(1, 30, 5, 1.5), random_logits(1, 30, 6, 1.5)
    rows = reduced("loops", teacher.float().expand(DRAWS, -1).contiguous(), targets).targets
    width = int(rows.counts.max())
    ids, held = np.zeros((DRAWS, width), np.int64), np.full((DRAWS, width), -np.inf, np.float32)
    ids[rows.row_of_entry, rows.rank_of_entry] = rows.ids
    held[rows.row_of_entry, rows.rank_of_entry] = rows.logprobs
    assert rows.entropy is not None
    form, log_p = TargetForm("estimated", entropy=True), teacher.log_softmax(-1)
    batch = batch_of(log_p.expand(DRAWS, -1), torch.from_numpy(ids), [held], [rows.log_tail])
    batch = replace(batch, entropy=torch.from_numpy(rows.entropy))
    (term,) = make_loss_terms(batch, objectives_of(form), torch.ones(1))
    every = logits.expand(DRAWS, -1)

    wanted, wanted_gradient = autograd(logits, [("forward_kl", 0.5, log_p, torch.arange(30)[None])])
    losses = torch.stack([found(logits, term.rows(i, i + 1))[0][0] for i in range(1000)])
    error = losses.std() / len(losses) ** 0.5
    assert abs(losses.mean() - wanted[0]) < 4 * error

    def deviation(estimates: LossTerm) -> float:
        """Greatest difference from the dense gradient, in standard errors of the unbiased estimates."""
        return float(((found(every, estimates)[1].mean(0) - wanted_gradient[0]).abs() / standard).max())

    standard = found(every, term)[1].std(0) / DRAWS**0.5
    assert deviation(term) < 4.5
    # What a threshold keeps exactly; of draws, the ids that came more than once.
    kept = np.log(targets.threshold * 1.0001) if targets.mode == "threshold" else np.log(1.5 / targets.draws)
    truncated = replace(term, log_p=term.log_p.masked_fill(term.log_p < kept, -torch.inf))
    assert deviation(truncated) > 20
    part = truncated.log_p - truncated.log_p.logsumexp(-1, keepdim=True).clamp(min=-50)
    assert deviation(replace(truncated, log_p=part)) > 20, "renormalised ones are as biased"


@EACH_OBJECTIVE
def test_padding_changes_nothing(objective: str, log_p: Tensor, logits: Tensor) -> None:
    """Padding names id 0, which rows also hold for real. Would catch padding that hides or doubles it."""
    log_p = torch.cat([log_p[:, :1] + 4, log_p[:, 1:]], -1).log_softmax(-1)  # id 0 is among the largest
    term = sparse_term(objective, 0.3, log_p, 5)
    assert (term.ids == 0).any()
    padded = replace(
        term,
        ids=torch.cat([term.ids, torch.zeros(R, 3, dtype=torch.int64)], -1),
        log_p=torch.cat([term.log_p, torch.full((R, 3), -torch.inf, dtype=torch.float64)], -1),
    )
    for given_term, with_padding in [
        (term, padded),
        (replace(term, objective=None, log_tail=None), replace(padded, objective=None, log_tail=None)),
    ]:
        for ours, wanted in zip(found(logits, with_padding), found(logits, given_term), strict=True):
            assert torch.allclose(ours, wanted, atol=1e-14, rtol=1e-12)


@EACH_OBJECTIVE
def test_a_row_without_entries_and_weight_changes_nothing(objective: str, log_p: Tensor, logits: Tensor) -> None:
    """Rows of hard labels have no teacher. Would catch a NaN that a weight of 0 does not take away."""
    term = sparse_term(objective, 0.3, log_p, 5)
    nothing = replace(
        term,
        log_p=torch.full_like(term.log_p, -torch.inf),
        log_tail=torch.zeros(R, dtype=torch.float64),
        weights=torch.zeros(R, dtype=torch.float64),
        ids=torch.zeros_like(term.ids),
    )
    sums, gradient = found(logits, nothing)
    assert float(sums) == 0 and not gradient.any()


EXTREME = {
    "a student without a tail": lambda ids: torch.full((R, V), -200.0).scatter(-1, ids, 10.0),
    "a student without a support": lambda ids: torch.full((R, V), 10.0).scatter(-1, ids, -200.0),
    "huge logits": lambda ids: torch.randn(R, V, generator=torch.Generator().manual_seed(0)) * 3e4,
    "one certain id": lambda ids: torch.full((R, V), -1e4).scatter(-1, ids[:, :1], 1e4),
}


@EACH_OBJECTIVE
@pytest.mark.parametrize("case", list(EXTREME))
@pytest.mark.parametrize("teacher", ["with a tail", "tail of exactly 0", "whole vocabulary"])
def test_extreme_logits_stay_finite(objective: str, case: str, teacher: str, log_p: Tensor) -> None:
    """In float32. Would catch log 0, 0 x inf, and a division by a tail that rounded to nothing."""
    k = V if teacher == "whole vocabulary" else 5
    ids, values, tail = top_k(log_p, k)
    if teacher == "tail of exactly 0":
        values, tail = values - values.logsumexp(-1, keepdim=True), torch.full_like(tail, -torch.inf)
    term = replace(sparse_term(objective, 0.3, log_p.float(), k), ids=ids, log_p=values.float(), log_tail=tail.float())
    sums, gradient = found(EXTREME[case](ids), term)
    assert torch.isfinite(sums).all() and torch.isfinite(gradient).all()
    assert float(sums) > -1e-2
    if teacher == "tail of exactly 0" and objective in ("reverse_kl", "skewed_reverse_kl") and case != "huge logits":
        assert float(sums) < 17 * R, "a tail that rounded to nothing counts as one of float32's epsilon"


@EACH_OBJECTIVE
@pytest.mark.parametrize("confidence", [0.0, 6.0, 12.0])
def test_float32_is_close_to_float64(objective: str, confidence: float, log_p: Tensor, logits: Tensor) -> None:
    """Also where the student leaves far less to the tail than the teacher. Would catch cancellation on the support."""
    term = sparse_term(objective, 0.3, log_p, 5)
    sharp = logits.scatter_add(-1, term.ids, torch.full((R, 5), confidence, dtype=torch.float64)).float()
    single = replace(
        term,
        log_p=term.log_p.float(),
        log_tail=term.log_tail.float(),
        weights=term.weights.float(),  # type: ignore[union-attr]
    )
    sums, gradient = found(sharp, single)
    wanted, wanted_gradient = found(sharp.double(), term)
    assert float(sums) == pytest.approx(float(wanted), rel=1e-3)
    assert (gradient - wanted_gradient).abs().max() < 2e-3 * wanted_gradient.abs().max()


def test_hard_labels_are_cross_entropy(logits: Tensor, log_p: Tensor) -> None:
    objectives = objectives_of(TargetForm("none"), objective="hard_label")
    batch = batch_of(log_p, torch.zeros(R, 0, dtype=torch.int64), [], [])
    sums, gradient = found(logits, *make_loss_terms(batch, objectives, torch.ones(1)))
    leaf = logits.clone().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(leaf, torch.arange(R), reduction="sum")
    (wanted_gradient,) = torch.autograd.grad(wanted, leaf)
    assert float(sums) == pytest.approx(float(wanted))
    assert torch.allclose(gradient, wanted_gradient)


@EACH_OBJECTIVE
def test_a_class_of_probability_0_is_not_padding(objective: str) -> None:
    """Whole laws over classes may hold zeros. Would catch that a student's mass there costs nothing."""
    law = torch.tensor([[0.7, 0.3, 0.0]]).log()
    batch = batch_of(law.double(), torch.arange(3)[None], [law.numpy()], [np.full(1, -np.inf, np.float32)])
    objectives = objectives_of(TargetForm("complete"), objective=objective)
    there, away = torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[5.0, 5.0, 0.0]])
    losses = [float(found(q, *make_loss_terms(batch, objectives, torch.ones(1)))[0]) for q in (there, away)]
    assert losses[0] > losses[1] + 0.1 and losses[1] > 0
    if objective == "tvd":
        q = there.softmax(-1)
        assert losses[0] == pytest.approx(float((law.exp() - q).abs().sum() / 2), rel=1e-4)
    _, gradient = found(there, *make_loss_terms(batch, objectives, torch.ones(1)))
    assert gradient[0, 2] > 0


def test_terms_are_means_over_their_own_rows_and_coefficients_sum_up() -> None:
    """Would catch one N for all terms: hard labels and distillation count different tokens."""
    objectives = objectives_of(
        TargetForm("exact", (2.0,)),
        terms=[{"objective": "forward_kl", "temperature": 2.0, "weight": 0.25}, {"objective": "hard_label"}],
    )
    law = random_law(3, 8, 0)
    ids, values, tail = top_k(law, 8)
    batch = batch_of(law, ids, [values.float().numpy()], [tail.float().numpy()], terms=2)
    batch = replace(batch, weights=torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.5, 0.0]]))
    counts = sum_row_weights([batch, batch])
    assert counts.tolist() == [4.0, 1.0]
    assert sum_coefficients(objectives, counts).tolist() == [0.25 * 4 / 4, 1.0]
    assert sum_coefficients(objectives, torch.tensor([0.0, 2.0])).tolist() == [0.0, 0.5], "a term without rows counts 0"
