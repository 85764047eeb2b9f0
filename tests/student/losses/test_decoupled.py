"""The decoupled forward KL against autograd on whole logits."""

import numpy as np
import pytest
import torch
from torch import Tensor

from student.losses.loss_terms import make_loss_terms
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm, require_supported
from tests.student.losses.conftest import R, V
from tests.student.losses.dense import found, random_law, sparse_term, top_k
from tests.student.losses.test_row_losses import batch_of, objectives_of


def decoupled(log_p: Tensor, leaf: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """The definition, from whole laws: the kept mass as a coin, and the stored ids among themselves at T."""
    log_q = leaf.log_softmax(-1)
    values, log_q_of_ids = log_p.gather(-1, ids), log_q.gather(-1, ids)
    mass_p, mass_q = values.exp().sum(-1), log_q_of_ids.exp().sum(-1)
    coin = mass_p * (mass_p / mass_q).log() + (1 - mass_p) * ((1 - mass_p) / (1 - mass_q)).log()
    share_p = (values / temperature).softmax(-1)
    share_q = (log_q_of_ids / temperature).log_softmax(-1)
    return (coin + mass_p * temperature**2 * (share_p * (share_p.log() - share_q)).sum(-1)).sum()


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("padded", [0, 3])
def test_a_decoupled_teacher_has_any_temperature(
    temperature: float, padded: int, log_p: Tensor, logits: Tensor
) -> None:
    """Against autograd on whole logits; padding at a high temperature would have a share. At T = 1 it is the bucket."""
    k = 6
    ids, values, tail = top_k(log_p, k)
    form = TargetForm("exact")
    loss = {"tail": "decoupled", "temperature": temperature}
    require_supported(LossSettings.model_validate(loss), form, "store")
    objectives = objectives_of(form, **loss)
    assert objectives.temperatures == (1.0,)
    held = torch.nn.functional.pad(values, (0, padded), value=-torch.inf)
    batch = batch_of(log_p, torch.nn.functional.pad(ids, (0, padded)), [held.float().numpy()], [tail.float().numpy()])
    sums, gradient = found(logits, *make_loss_terms(batch, objectives, torch.tensor([temperature**2])))
    leaf = logits.clone().requires_grad_()
    wanted = decoupled(log_p, leaf, ids, temperature)
    (wanted_gradient,) = torch.autograd.grad(wanted, leaf)
    assert float(sums) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert torch.allclose(gradient, wanted_gradient, atol=2e-5 * temperature**2)
    if temperature == 1:
        bucket, of_bucket = found(logits, sparse_term("forward_kl", 0.5, log_p, k))
        assert float(sums) == pytest.approx(float(bucket), rel=1e-5)
        assert torch.allclose(gradient, of_bucket, atol=1e-5)


def test_a_decoupled_student_that_equals_the_teacher_has_no_loss_and_no_gradient(log_p: Tensor) -> None:
    ids, values, tail = top_k(log_p, 6)
    objectives = objectives_of(TargetForm("exact"), tail="decoupled", temperature=3.0)
    batch = batch_of(log_p, ids, [values.float().numpy()], [tail.float().numpy()])
    sums, gradient = found(log_p + 1.0, *make_loss_terms(batch, objectives, torch.tensor([9.0])))
    assert abs(float(sums)) < 1e-5 and gradient.abs().max() < 1e-5


@pytest.mark.parametrize("kept", ["everything", "nothing"])
def test_a_decoupled_teacher_at_its_edges_stays_finite(kept: str, logits: Tensor) -> None:
    """A row that holds the whole mass has no tail, and a padded row holds nothing and has no weight."""
    ids = torch.arange(4).expand(R, 4)
    held = torch.log_softmax(torch.randn(R, 4, generator=torch.Generator().manual_seed(0)), -1)
    tail = np.full(R, -np.inf if kept == "everything" else 0.0, np.float32)
    if kept == "nothing":
        held = torch.full_like(held, -torch.inf)
    batch = batch_of(random_law(R, V, 0), ids, [held.numpy()], [tail])
    objectives = objectives_of(TargetForm("exact"), tail="decoupled", temperature=2.0)
    sums, gradient = found(logits, *make_loss_terms(batch, objectives, torch.tensor([4.0])))
    assert torch.isfinite(sums).all() and torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    "loss, form, message",
    [
        ({"objective": "jsd", "tail": "decoupled"}, None, "divides forward_kl into two parts, and not jsd"),
        ({"tail": "decoupled"}, TargetForm("estimated"), "no tail to decouple; leave out loss.tail"),
        ({"tail": "decoupled"}, TargetForm("complete"), "no tail to decouple; leave out loss.tail"),
        ({"temperature": 2.0}, TargetForm("exact"), 'or use forward_kl with tail = "decoupled", which needs none'),
    ],
)
def test_where_decoupling_means_nothing_it_is_refused(
    loss: dict[str, object], form: TargetForm | None, message: str
) -> None:
    with pytest.raises(Exception, match=message):
        require_supported(LossSettings.model_validate(loss), form or TargetForm("exact"), "store")
