"""Scales of grades, and the word that stands for each grade.

Each word begins with a token of its own in common tokenizers, so that a teacher's distribution over the first token of
its answer is a distribution over the grades. The names of grades are those of SemEval-2013 Task 7 (Dzikovska et al.,
https://aclanthology.org/S13-2045).
"""

import math
from typing import Literal

ScaleName = Literal["5way", "3way", "2way", "points"]

# By scale: the name of each grade in the data, and the word for it. From the worst grade to the best.
GRADES: dict[str, dict[str, str]] = {
    "5way": {
        "non_domain": "other",
        "irrelevant": "irrelevant",
        "contradictory": "contradictory",
        "partially_correct_incomplete": "partial",
        "correct": "correct",
    },
    "3way": {"contradictory": "contradictory", "incorrect": "incorrect", "correct": "correct"},
    "2way": {"incorrect": "incorrect", "correct": "correct"},
}
SCALES = (*GRADES, "points")
INSTRUCTIONS = {
    "5way": "Grade the answer: correct, partial, contradictory, irrelevant or other.",
    "3way": "Grade the answer: correct, contradictory or incorrect.",
    "2way": "Grade the answer: correct or incorrect.",
    "points": "Grade the answer with a number of points.",
}
# Points at most: of any set, and of Mohler and ASAP-SAS.
MAX_POINTS, MOHLER_POINTS, ASAP_SAS_POINTS = 9, 5, 3


def scale_words(scale: ScaleName) -> tuple[str, ...]:
    """The words of a scale, from the worst grade to the best."""
    if scale == "points":
        return tuple(str(points) for points in range(MAX_POINTS + 1))
    return tuple(GRADES[scale].values())


def grade_word(grade: str, scale: ScaleName) -> str:
    """The word for a grade of the data. A finer scale of SemEval-2013 is made coarser.

    In 3-way, all that is neither correct nor contradictory is incorrect; in 2-way, all that is not correct. Points are
    whole numbers, which stand for themselves. Raises ValueError with a reason if the grade is not of the scale.
    """
    if scale == "points":
        if not grade.isascii() or not grade.isdigit() or len(grade) != 1:
            raise ValueError(f"{grade!r} is not a number of points from 0 to {MAX_POINTS}")
        return grade
    words = GRADES[scale]
    if grade in words:
        return words[grade]
    finer = SCALES[: SCALES.index(scale)]
    if not any(grade in GRADES[name] for name in finer):
        raise ValueError(f"{grade!r} is not a grade of the scale {scale}: {', '.join(words)}")
    return words["incorrect"]


def rounded_points(average: str, most: int) -> str:
    """An average of several graders as whole points, halves rounded up. Raises ValueError if it is not in 0..most."""
    try:
        points = float(average)
    except ValueError:
        points = math.nan
    if not 0 <= points <= most:
        raise ValueError(f"{average!r} is not a number of points from 0 to {most}")
    return str(int(points + 0.5))
