"""An objective outside the packages works like one inside: job files select it, and its gradient is the dense one."""

import subprocess
import sys
from pathlib import Path

import pytest

from cache.errors import InputError
from cache.registry import PLUGINS_VARIABLE
from student.losses.registry import OBJECTIVES

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = '''
"""Squared Hellinger distance: 1 - sum p^s q^(1 - s), s = 1/2 by default."""
from student.losses.objective import Objective

def hellinger(log_p, log_q, share):
    return 1 - (share * log_p + (1 - share) * log_q).exp().sum(-1)

OBJECTIVE = Objective("hellinger", hellinger, default_parameter=0.5)
'''
# Runs in a process of its own: the registry of this one is loaded already. All ids are stored, so buckets are ids.
RUN = """
import torch
from student.losses.batch import Batch
from student.losses.head.fused_loss import fused_loss
from student.losses.head.transform import LogitTransform
from student.losses.loss_terms import make_loss_terms
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm, require_supported
from student.losses.weighted_objectives import WeightedObjectives

rows, vocabulary, width = 5, 11, 4
generator = torch.Generator().manual_seed(0)
def random(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
log_p = random(rows, vocabulary).log_softmax(-1)
hidden, head = random(rows, width).requires_grad_(), random(vocabulary, width).requires_grad_()
form = TargetForm("complete")
loss = LossSettings(objective="hellinger", beta=0.3)
require_supported(loss, form, "store")
objectives = WeightedObjectives.of(loss, form)
ids = torch.arange(vocabulary).expand(rows, vocabulary)
nothing = torch.full((rows,), -torch.inf)
batch = Batch({}, torch.arange(rows), torch.zeros(rows, dtype=torch.int64), ids, (log_p,), (nothing,), nothing,
              torch.ones(1, rows, dtype=torch.float64))
terms = make_loss_terms(batch, objectives, torch.ones(1))
total, _ = fused_loss(hidden, head, None, LogitTransform(), terms, 2)
gradients = torch.autograd.grad(total, [hidden, head])
q = (hidden @ head.T).softmax(-1)
dense = (1 - (log_p.exp() ** 0.3 * q ** 0.7).sum(-1)).sum()
dense_gradients = torch.autograd.grad(dense, [hidden, head])
assert torch.allclose(total, dense, atol=1e-12), (total, dense)
assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(gradients, dense_gradients))
for _ in range(200):
    step, _ = fused_loss(hidden, head, None, LogitTransform(), terms, 2)
    for weight, gradient in zip([hidden, head], torch.autograd.grad(step, [hidden, head])):
        weight.data -= 2.0 * gradient
print(float(total) > 5 * float(step) > 0, LossSettings(objective="hellinger").all_terms[0].parameter)
"""


def test_an_objective_in_a_plugin_is_selected_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hellinger_plugin.py").write_text(PLUGIN)
    monkeypatch.setenv(PLUGINS_VARIABLE, "hellinger_plugin")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    run = subprocess.run([sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["True", "0.5"]


def test_an_unknown_objective_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match="unknown objective 'kl'; valid names: forward_kl, hard_label, jsd, "):
        OBJECTIVES["kl"]


def test_job_files_load_no_torch() -> None:
    code = "import sys, student.training.settings; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]


def test_forward_kl_alone_is_linear_in_the_teacher() -> None:
    assert [objective.name for objective in OBJECTIVES if objective.is_linear_in_teacher] == ["forward_kl"]
    assert [objective.name for objective in OBJECTIVES if not objective.needs_teacher] == ["hard_label"]
