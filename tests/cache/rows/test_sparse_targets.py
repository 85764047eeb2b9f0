"""Rows that cannot be part of a distribution are refused."""

from dataclasses import replace

import numpy as np
import pytest

from cache.errors import InputError
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from tests.records import VOCAB, random_targets


@pytest.fixture
def targets() -> SparseTargets:
    return random_targets(np.random.default_rng(0), 4)


def test_valid_rows_pass(targets: SparseTargets) -> None:
    concatenate([empty_targets(2), targets]).validate(VOCAB, "these")


@pytest.mark.parametrize(
    "field, position, value, message",
    [
        ("ids", 3, VOCAB, "outside the vocabulary"),
        ("logprobs", 3, np.nan, "finite"),
        ("logprobs", 63, -np.inf, "finite"),
        ("logprobs", 0, 0.5, "not above 0"),
        ("logprobs", 17, -0.001, "must descend"),
        ("log_tail", 0, np.nan, "tail"),
        ("log_tail", 1, 0.0, "must be below 1"),
        ("offsets", 1, 70, "offsets"),
    ],
)
def test_impossible_rows_are_refused(
    targets: SparseTargets, field: str, position: int, value: float, message: str
) -> None:
    array = getattr(targets, field).copy()
    array[position] = value
    with pytest.raises(InputError, match=message):
        replace(targets, **{field: array}).validate(VOCAB, "these")


def test_an_id_twice_in_a_row_is_refused(targets: SparseTargets) -> None:
    ids = targets.ids.copy()
    ids[20] = ids[25]
    with pytest.raises(InputError, match="twice"):
        replace(targets, ids=ids).validate(VOCAB, "these")


def test_slices_and_concatenation_are_inverse(targets: SparseTargets) -> None:
    joined = concatenate([targets.rows(0, 1), targets.rows(1, 4)])
    assert np.array_equal(joined.offsets, targets.offsets)
    assert np.array_equal(joined.ids, targets.ids)


def test_retained_mass_grows_with_k_up_to_the_tail(targets: SparseTargets) -> None:
    masses = [targets.retained_mass(k).mean() for k in (1, 4, 16)]
    assert masses == sorted(masses)
    assert np.allclose(1 - targets.retained_mass(16), np.exp(targets.log_tail), atol=1e-5)
