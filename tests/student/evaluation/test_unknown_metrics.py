"""An evaluation says which metrics the targets of its store do not determine, and which targets do."""

import pytest

from cache.rows.spec import TargetSpec
from student.evaluation.heldout_metrics import unknown_metrics

DRAWS = TargetSpec("sampled", draws=50, systematic=True)


@pytest.mark.parametrize(
    "spec, words",
    [
        (DRAWS, ["kl_to_teacher and top1_agreement are not known", 'targets.mode = "topk"', "targets.entropy = true"]),
        (TargetSpec("sampled", draws=9, entropy=True), ["top1_agreement is not known", "capture the held-out"]),
        (TargetSpec("threshold", threshold=0.1), ["kl_to_teacher is not known", "targets.entropy = true"]),
    ],
)
def test_what_is_not_known_is_named(spec: TargetSpec, words: list[str]) -> None:
    """Would catch a table with empty cells and no reason for them."""
    assert all(each in unknown_metrics(spec) for each in words)


@pytest.mark.parametrize(
    "spec",
    [TargetSpec("topk", 4), TargetSpec("nucleus", 4, mass=0.9), TargetSpec("threshold", threshold=0.1, entropy=True)],
)
def test_nothing_is_said_where_all_is_known(spec: TargetSpec) -> None:
    assert unknown_metrics(spec) == ""
