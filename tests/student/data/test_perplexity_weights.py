"""Tokens weigh a power of the teacher's perplexity: against weights and losses worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cache.errors import StoreError
from cache.rows.record import Window
from cache.rows.spec import TargetSpec
from student.data.collate import collate, row_weights
from student.losses.head.fused_loss import loss_of_logits
from student.losses.loss_terms import make_loss_terms
from student.losses.normalisation import sum_coefficients, sum_row_weights
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm, require_supported
from student.losses.weighted_objectives import WeightedObjectives
from tests.cache.rows.rows import VOCAB
from tests.student.training.ranks import make_record

ENTROPIES = TargetSpec("topk", 16, entropy=True)


def windows() -> list[Window]:
    rng = np.random.default_rng(0)
    return [make_record(rng, str(number), *size, ENTROPIES).window for number, size in enumerate([(3, 5), (4, 2)])]


def objectives(**fields: Any) -> WeightedObjectives:
    return WeightedObjectives.of(LossSettings.model_validate(fields), TargetForm.of(ENTROPIES))


@pytest.mark.parametrize("power", [-1.0, 0.5])
def test_a_token_weighs_a_power_of_the_perplexity(power: float) -> None:
    window = windows()[0]
    plain, weighted = (row_weights(window, objectives(**each)) for each in ({}, {"perplexity_power": power}))
    assert window.targets.entropy is not None
    for row in range(len(window) - 1):
        has_target = window.targets.counts[row] > 0
        factor = math.exp(power * float(window.targets.entropy[row])) if has_target else 1.0
        assert weighted[0, row] == pytest.approx(plain[0, row] * factor, rel=1e-6)
    assert (weighted > 0).sum() >= 5 and not np.allclose(weighted, plain)


def test_no_example_counts_more_than_another_in_a_mean_over_examples() -> None:
    for window in windows():
        weights = row_weights(window, objectives(perplexity_power=1.0, average="examples"))
        assert weights.sum() == pytest.approx(1.0) and len(set(weights[weights > 0].tolist())) > 1


def test_terms_have_powers_of_their_own() -> None:
    terms = [{"objective": "forward_kl", "perplexity_power": -1.0}, {"objective": "hard_label"}]
    window = windows()[0]
    own, labels = row_weights(window, objectives(terms=terms))
    assert np.array_equal(own, row_weights(window, objectives(perplexity_power=-1.0))[0])
    assert set(labels.tolist()) == {0.0, 1.0}
    mixed = objectives(perplexity_power=-1.0, hard_label_weight=0.2)
    assert mixed.perplexity_powers == (-1.0, -1.0)


def test_a_loss_is_the_weighted_mean_of_its_rows() -> None:
    """Of two micro-batches, whose sums are divided by the weights of the whole step."""
    batches = [collate([each], objectives(perplexity_power=-0.7)) for each in windows()]
    factors = sum_coefficients(objectives(perplexity_power=-0.7), sum_row_weights(batches))
    total, by_hand, weight = 0.0, 0.0, 0.0
    torch.manual_seed(0)
    for batch in batches:
        logits = torch.randn(len(batch.rows), VOCAB)
        found, _ = loss_of_logits(logits, make_loss_terms(batch, objectives(perplexity_power=-0.7), factors))
        total += float(found)
        log_q, p = logits.log_softmax(-1).double(), batch.log_p[0].double().exp()
        for row in range(len(batch.rows)):
            tail_p = math.exp(float(batch.log_tail[0][row]))
            q = log_q[row, batch.ids[row]]
            inside = sum(float(p[row, j] * (batch.log_p[0][row, j] - q[j])) for j in range(len(q)) if p[row, j] > 0)
            kl = inside + tail_p * (math.log(tail_p) - math.log(1 - float(q.exp().sum())))
            factor = math.exp(-0.7 * float(batch.entropy[row]))
            by_hand, weight = by_hand + factor * kl, weight + factor
    assert total == pytest.approx(by_hand / weight, rel=1e-4)


def test_rows_without_entropies_are_refused() -> None:
    loss = LossSettings.model_validate({"perplexity_power": -1.0})
    with pytest.raises(StoreError, match=r"no entropies.*targets.entropy = true, or leave it out"):
        require_supported(loss, TargetForm.of(TargetSpec("topk", 16)), "runs/store")
    require_supported(loss, TargetForm.of(ENTROPIES), "runs/store")
    require_supported(LossSettings.model_validate({"perplexity_power": 0.0}), TargetForm("exact"), "runs/store")


def test_powers_have_limits_and_places() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 4"):
        LossSettings.model_validate({"perplexity_power": 5.0})
    with pytest.raises(ValidationError, match="'terms' replaces perplexity_power"):
        LossSettings.model_validate({"perplexity_power": 1.0, "terms": [{"objective": "forward_kl"}]})
