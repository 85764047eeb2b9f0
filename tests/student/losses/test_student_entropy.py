"""Rows of which the student is sure are left out of a loss, in blocks and at any temperature, as by autograd."""

import math

import pytest
import torch
from torch import Tensor, nn

from cache.errors import InputError
from student.losses import row_losses
from student.losses.head.fused_loss import checkpointed_loss, fused_loss, loss_of_logits
from student.losses.head.transform import LogitTransform
from student.losses.loss_terms import make_loss_terms
from student.losses.row_losses import LossTerm, entropies
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm, require_reachable
from tests.student.losses.dense import coarse, dense_loss, random_law, random_logits, sparse_term, top_k
from tests.student.losses.test_row_losses import batch_of, objectives_of

R, D, V, K = 24, 8, 50, 5
# Objective, temperature, and the least entropy of the student; None selects nothing.
TERMS = [("forward_kl", 1.0, 3.0), ("reverse_kl", 2.0, 3.7), ("jsd", 1.0, 3.4), ("tvd", 2.0, None)]


@pytest.fixture(autouse=True)
def _few_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entropies are summed over several parts of a row."""
    monkeypatch.setattr(row_losses, "ENTROPY_COLUMNS", 7)


def terms_and_reference(hidden: Tensor, weight: Tensor) -> tuple[list[LossTerm], Tensor, list[int]]:
    """The terms, their sums by dense float64 with autograd, and how many rows each selects."""
    terms, sums, selected = [], [], []
    logits = hidden @ weight.T
    for number, (objective, temperature, least) in enumerate(TERMS):
        law = random_law(R, V, 10 + number)
        weights = torch.rand(R, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        term = sparse_term(objective, 0.3, law, K, weights=weights, temperature=temperature)
        terms.append(term if least is None else LossTerm(**{**fields(term), "min_entropy": least}))
        log_q = (logits / temperature).log_softmax(-1)
        entropy = -(log_q.exp() * log_q).sum(-1).detach()
        kept = torch.ones(R, dtype=torch.bool) if least is None else entropy >= least
        ids = top_k(law, K)[0]
        sums.append((weights * kept * dense_loss(objective, 0.3, coarse(law, ids), coarse(log_q, ids))).sum())
        selected.append(int(kept.sum()))
    return terms, torch.stack(sums), selected


def fields(term: LossTerm) -> dict[str, object]:
    return {name: getattr(term, name) for name in LossTerm.__dataclass_fields__}


@pytest.mark.parametrize("rows", [R, 5, 1])
@pytest.mark.parametrize("way", ["fused", "checkpointed", "logits"])
def test_loss_and_gradients_are_those_of_the_selected_rows(way: str, rows: int) -> None:
    hidden, weight = (random_logits(*shape).requires_grad_() for shape in ((R, D, 0, 1.0), (V, D, 1, 0.6)))
    terms, wanted, selected = terms_and_reference(hidden, weight)
    assert all(0 < count < R for count in selected[:3]) and selected[3] == R
    wanted_gradients = torch.autograd.grad(wanted.sum(), (hidden, weight))
    if way == "fused":
        total, sums = fused_loss(hidden, weight, None, LogitTransform(), terms, rows)
    elif way == "checkpointed":
        head = nn.Linear(D, V, bias=False, dtype=torch.float64)
        head.weight = nn.Parameter(weight.detach())
        total, sums = checkpointed_loss(head, hidden, LogitTransform(), terms, rows)
        total.backward()
        gradients = (hidden.grad, head.weight.grad)
    else:
        total, sums = loss_of_logits(hidden @ weight.T, terms)
    if way != "checkpointed":
        gradients = torch.autograd.grad(total, (hidden, weight))
    assert torch.allclose(sums.double(), wanted.detach(), rtol=1e-5)
    for found, each in zip(gradients, wanted_gradients, strict=True):
        assert found is not None and torch.allclose(found, each, atol=1e-9)


def test_entropies_of_rows() -> None:
    """Of a uniform, a certain and a random row."""
    p = torch.stack([torch.full((V,), 1 / V), torch.eye(V)[3], random_logits(1, V, 0)[0].softmax(-1).float()])
    log_p = p[2].double().log()
    wanted = [float(torch.log(torch.tensor(float(V)))), 0.0, -float((p[2].double() * log_p).sum())]
    assert entropies(p).tolist() == pytest.approx(wanted, rel=1e-5)


def test_a_job_selects_by_its_key() -> None:
    """A mean over all rows, of which those that are left out count 0."""
    law, logits = random_law(R, V, 0), random_logits(R, V, 1, 2.0)
    ids, held, tail = top_k(law, K)
    batch = batch_of(law, ids, [held.float().numpy()], [tail.float().numpy()])
    found = []
    for loss in ({}, {"min_student_entropy": 2.6}):
        objectives = objectives_of(TargetForm("exact"), **loss)
        sums = loss_of_logits(logits, make_loss_terms(batch, objectives, torch.full((1,), 1 / R)))[1]
        found.append(float(sums[0]))
    log_q = logits.log_softmax(-1)
    kept = -(log_q.exp() * log_q).sum(-1) >= 2.6
    each = dense_loss("forward_kl", 0.3, coarse(law, ids), coarse(log_q, ids))
    assert 0 < int(kept.sum()) < R
    assert found == pytest.approx([float(each.mean()), float((each * kept).sum() / R)], rel=1e-5)


def test_what_is_kept_is_counted_and_a_heldout_loss_leaves_out_nothing() -> None:
    law, logits = random_law(R, V, 0), random_logits(R, V, 1, 2.0).requires_grad_()
    ids, held, tail = top_k(law, K)
    batch = batch_of(law, ids, [held.float().numpy()], [tail.float().numpy()])
    objectives = objectives_of(TargetForm("exact"), min_student_entropy=2.6)
    log_q = logits.detach().log_softmax(-1)
    kept = int((-(log_q.exp() * log_q).sum(-1) >= 2.6).sum())
    learned = torch.zeros(2)
    loss_of_logits(logits, make_loss_terms(batch, objectives, torch.ones(1), learned))
    assert learned.tolist() == [kept, R]
    plain = make_loss_terms(batch, objectives_of(TargetForm("exact")), torch.ones(1))
    with torch.no_grad():
        sums = loss_of_logits(logits, make_loss_terms(batch, objectives, torch.ones(1), learned))[1]
        assert torch.equal(sums, loss_of_logits(logits, plain)[1])
    assert learned.tolist() == [kept, R]


def test_a_threshold_that_nothing_reaches_is_refused() -> None:
    """Would catch a run that ends well and has learned nothing."""
    for least in (math.log(V), 7.0):
        with pytest.raises(InputError, match=r"50 ids have at most 3.91 nats, so no token would be learned"):
            require_reachable(LossSettings.model_validate({"min_student_entropy": least}), V)
    require_reachable(LossSettings.model_validate({"min_student_entropy": 3.9}), V)
