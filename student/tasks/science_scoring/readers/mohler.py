"""Mohler et al. 2011: answers of computer science students, graded with 0 to 5 points by two graders.

The file is the CSV form in which the set is exchanged; `id` is the number of the question.
"""

from collections import Counter
from pathlib import Path

from cache.errors import InputError
from student.tasks.science_scoring.grades import MOHLER_POINTS, rounded_points
from student.tasks.science_scoring.readers.graded_answer import GradedAnswer
from student.tasks.table_rows import read_rows, require_fields

COLUMNS = ("id", "question", "desired_answer", "student_answer", "score_avg")


def read_mohler(path: Path) -> list[GradedAnswer]:
    """Read a CSV file with the columns id, question, desired_answer, student_answer, score_avg; others are not read.

    The grade is the average of the graders, rounded to whole points, halves up.
    """
    answers = []
    seen = Counter[str]()
    for place, row in read_rows(path, COLUMNS, ",", quoted=True):
        require_fields(place, row, ("id", "question", "score_avg"))
        try:
            grade = rounded_points(row["score_avg"], MOHLER_POINTS)
        except ValueError as error:
            raise InputError(f"{place}: score_avg: {error}; give the average of the graders") from error
        number = seen[row["id"]]
        seen[row["id"]] += 1
        answers.append(
            GradedAnswer(
                f"{row['id']}/{number}",
                row["id"],
                row["question"],
                row["desired_answer"],
                row["student_answer"],
                grade,
                place,
                MOHLER_POINTS,
            )
        )
    return answers
