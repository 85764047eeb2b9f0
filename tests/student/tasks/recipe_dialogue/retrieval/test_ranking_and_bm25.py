"""Measures of rankings and BM25 against values worked out by hand."""

import math

import pytest

from student.tasks.recipe_dialogue.retrieval.bm25 import Bm25
from student.tasks.recipe_dialogue.retrieval.ranking import ranks_of, recall_at, reciprocal_rank


def test_ranks_recall_and_reciprocal_rank() -> None:
    ranks = ranks_of(["c", "x", "a"], ["a", "b", "c", "d"])
    assert ranks == [3, 0, 1]
    assert [recall_at(k, ranks) for k in (1, 2, 3)] == [
        pytest.approx(1 / 3),
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    ]
    assert reciprocal_rank(ranks) == 1.0
    assert reciprocal_rank([4, 2]) == 0.5
    assert reciprocal_rank([0, 0]) == 0.0
    with pytest.raises(ValueError, match="at least one"):
        recall_at(1, [])


def test_bm25_by_hand() -> None:
    # Lengths 2, 4 and 3, so 3 on average. "egg" is in 1 of 3 texts twice, "salt" in 2 of 3.
    scores = Bm25(["Salt, water", "egg egg flour salt", "milk and butter"]).scores("Egg SALT egg")
    rare, frequent = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    long, short = 1.5 * (0.25 + 0.75 * 4 / 3), 1.5 * (0.25 + 0.75 * 2 / 3)
    egg, salt = rare * 2 * 2.5 / (2 + long), frequent * 2.5 / (1 + long)
    assert scores == [pytest.approx(frequent * 2.5 / (1 + short)), pytest.approx(2 * egg + salt), 0.0]
