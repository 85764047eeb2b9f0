"""Class probabilities of a row equal those of the full distribution; the error of absent ids is bounded."""

from typing import Any

import numpy as np
import pytest

from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import TargetSpec
from student.classification.probabilities import class_log_probs
from tests.cache.rows.rows import log_softmax, sparse
from tests.student.classification.judge_teacher import VOCAB, given_ids, row


@pytest.mark.parametrize("temperature", [1.0, 6.0])
def test_rows_with_every_id_give_the_class_probabilities_of_the_logits(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, VOCAB)) * temperature
    classes = ((3, 70, 400), (5,), (71, 6))
    p = np.exp(log_softmax(logits))
    mass = np.stack([p[:, list(ids)].sum(1) for ids in classes], 1)
    found = class_log_probs(sparse(rng, log_softmax(logits), TargetSpec("topk", VOCAB)), given_ids(*classes))
    assert found.has_class.all()
    expected = np.log(mass / mass.sum(1, keepdims=True))
    assert np.allclose(found.log_probs, expected, atol=1e-5)
    assert np.allclose(found.label_mass, mass.sum(1), atol=1e-6)
    assert (found.max_missing_mass <= 1e-6).all()
    assert np.allclose(np.exp(found.log_probs.astype(np.float64)).sum(1), 1)


def test_variants_of_a_label_are_summed() -> None:
    found = class_log_probs(row({9: 0.4, 7: 0.2, 8: 0.1, 50: 0.05}), given_ids((7, 8), (9, 50)))
    assert np.allclose(np.exp(found.log_probs), [[0.3 / 0.75, 0.45 / 0.75]])
    assert found.label_mass == pytest.approx(0.75)


def test_absent_ids_count_as_0_and_their_mass_is_bounded() -> None:
    targets = concatenate([row({9: 0.5, 7: 0.3, 40: 0.15}), row({9: 0.5, 40: 0.01}), row({9: 0.5, 40: 0.1, 41: 0.05})])
    found = class_log_probs(targets, given_ids((7, 8), (9, 10)))
    assert np.allclose(np.exp(found.log_probs), [[0.3 / 0.8, 0.5 / 0.8], [0, 1], [0, 1]])
    assert np.isneginf(found.log_probs[1, 0])
    # Absent: 8 and 10, at most all of the tail; then 7, 8 and 10, at most 0.01 and 0.05 each.
    assert np.allclose(found.max_missing_mass, [0.05, 0.03, 0.15])


@pytest.mark.parametrize("mode", ["topk", "nucleus", "threshold"])
def test_the_bound_is_valid_for_every_target_mode(mode: Any) -> None:
    spec = {
        "topk": TargetSpec("topk", 8),
        "nucleus": TargetSpec("nucleus", 30, mass=0.7),
        "threshold": TargetSpec("threshold", threshold=0.02),
    }[mode]
    rng = np.random.default_rng(1)
    log_p = log_softmax(rng.normal(size=(400, 40)) * 2)
    ids = given_ids((1, 2, 3), (4, 5), (6,))
    found = class_log_probs(sparse(rng, log_p, spec), ids)
    whole = np.exp(log_p)[:, ids.ids].sum(1)
    assert (found.label_mass <= whole + 1e-6).all()
    assert (whole <= found.label_mass + found.max_missing_mass + 1e-6).all()
    assert (found.max_missing_mass[found.label_mass < whole - 1e-3] > 0).all() and (
        found.label_mass < whole - 1e-3
    ).any()


def test_rows_without_any_class_are_unknown() -> None:
    found = class_log_probs(concatenate([row({40: 0.5}), row({7: 0.1}), empty_targets(1)]), given_ids((7,), (9,)))
    assert found.has_class.tolist() == [False, True, False]
    assert np.isnan(found.log_probs[[0, 2]]).all() and found.label_mass.tolist()[::2] == [0, 0]
    assert np.isfinite(found.max_missing_mass).all()
    taken = found.take(found.has_class)
    assert len(taken) == 1 and taken.log_probs.tolist() == [[0.0, -np.inf]]


def test_sampled_entries_are_ignored() -> None:
    """Id 7 was drawn below the threshold: the row reads as if it had not been."""
    ids = given_ids((7,), (9,), (11,))
    drawn = class_log_probs(row({9: 0.5, 11: 0.25, 7: 0.02}, exact=2), ids)
    not_drawn = class_log_probs(row({9: 0.5, 11: 0.25}, exact=2), ids)
    assert np.array_equal(drawn.log_probs, not_drawn.log_probs)
    assert np.allclose(np.exp(drawn.log_probs), [[0, 2 / 3, 1 / 3]])
    assert drawn.max_missing_mass == not_drawn.max_missing_mass == pytest.approx(0.25)
    assert not class_log_probs(row({7: 0.02, 9: 0.02}, exact=0), ids).has_class.any()


def test_the_ends_of_the_ids_are_found_and_their_neighbours_are_not() -> None:
    targets = row({0: 0.3, 499: 0.2, 498: 0.1, 1: 0.1})
    found = class_log_probs(targets, given_ids((0,), (498,)))
    assert np.allclose(np.exp(found.log_probs), [[0.75, 0.25]])
