"""Agreement of predicted with true grades, weighted by the square of their distance (QWK; Cohen, 1968)."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

# Where arctanh is cut, so that one question with perfect agreement does not decide the mean.
MOST = 0.999


def qwk(scores: Sequence[Mapping[str, float]], best: int | None = None) -> float:
    """QWK of scores with the places "true" and "predicted" in a scale. NaN where it is undefined.

    A prediction that is no grade of the scale (-1, or above its best grade) counts as the grade farthest from the true
    one: silence must not pay. The best grade is "best" of a score where it has one, else `best`, else the best true
    grade of these scores; then every prediction that is a number is a grade.
    """
    from sklearn.metrics import cohen_kappa_score

    if best is None:
        best = max((int(score["true"]) for score in scores), default=0)
    pairs = [(int(score["true"]), _place(score, best)) for score in scores]
    if len({place for pair in pairs for place in pair}) < 2:
        return float("nan")
    true, predicted = zip(*pairs, strict=True)
    # All places between count as grades too: a grade that nobody has keeps its distance from the others.
    return float(cohen_kappa_score(true, predicted, labels=range(max(*true, *predicted) + 1), weights="quadratic"))


def _place(score: Mapping[str, float], best: int) -> int:
    true, predicted = int(score["true"]), int(score["predicted"])
    if 0 <= predicted <= score.get("best", predicted):
        return predicted
    best = int(score.get("best", best))
    return 0 if 2 * true >= best else best


def mean_qwk_of_questions(scores: Sequence[Mapping[str, float]]) -> float:
    """Mean QWK of the questions, through Fisher's z, as the contest of ASAP-SAS took it of its essay sets.

    Each question has a scale of its own, up to its own best grade.
    Questions whose QWK is undefined, because all grades are the same, are left out. NaN if all of them are.
    """
    by_question: dict[float, list[Mapping[str, float]]] = defaultdict(list)
    for score in scores:
        by_question[score["question"]].append(score)
    values = [value for each in by_question.values() if not math.isnan(value := qwk(each))]
    if not values:
        return float("nan")
    mean = sum(math.atanh(max(-MOST, min(MOST, value))) for value in values) / len(values)
    return math.tanh(mean)
