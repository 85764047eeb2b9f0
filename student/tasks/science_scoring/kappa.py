"""Agreement of predicted with true grades, weighted by the square of their distance (QWK; Cohen, 1968)."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

# Where arctanh is cut, so that one question with perfect agreement does not decide the mean.
MOST = 0.999


def qwk(scores: Sequence[Mapping[str, float]], grades: int) -> float:
    """QWK of scores with the places "true" and "predicted" in a scale of so many grades. NaN where it is undefined.

    A prediction that is no grade (-1) counts as the grade farthest from the true one: silence must not pay.
    """
    from sklearn.metrics import cohen_kappa_score

    pairs = [(int(score["true"]), _place(score, grades)) for score in scores]
    if len({place for pair in pairs for place in pair}) < 2:
        return float("nan")
    true, predicted = zip(*pairs, strict=True)
    return float(cohen_kappa_score(true, predicted, labels=range(grades), weights="quadratic"))


def _place(score: Mapping[str, float], grades: int) -> int:
    true, predicted = int(score["true"]), int(score["predicted"])
    if predicted >= 0:
        return predicted
    return 0 if 2 * true >= grades - 1 else grades - 1


def mean_qwk_of_questions(scores: Sequence[Mapping[str, float]], grades: int) -> float:
    """Mean QWK of the questions, through Fisher's z, as the contest of ASAP-SAS took it of its essay sets.

    Questions whose QWK is undefined, because all grades are the same, are left out. NaN if all of them are.
    """
    by_question: dict[float, list[Mapping[str, float]]] = defaultdict(list)
    for score in scores:
        by_question[score["question"]].append(score)
    values = [value for each in by_question.values() if not math.isnan(value := qwk(each, grades))]
    if not values:
        return float("nan")
    mean = sum(math.atanh(max(-MOST, min(MOST, value))) for value in values) / len(values)
    return math.tanh(mean)
