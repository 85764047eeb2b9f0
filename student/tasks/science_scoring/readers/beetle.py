"""Beetle as one table: a line an answer, fields separated by tabs, without quotation."""

from pathlib import Path

from student.tasks.science_scoring.readers.graded_answer import GradedAnswer
from student.tasks.table_rows import read_rows, require_fields

COLUMNS = ("id", "question_id", "question", "reference_answer", "student_answer")
GRADE = "label_5way"


def read_beetle(path: Path) -> list[GradedAnswer]:
    """Read a TSV file with the columns id, question_id, question, reference_answer, student_answer, label_5way.

    Without a grade, or without the column of the grades, an answer is one that nobody graded. An empty answer is one.
    """
    answers = []
    for place, row in read_rows(path, COLUMNS, "\t", quoted=False, optional=(GRADE,)):
        require_fields(place, row, ("id", "question_id", "question"))
        answers.append(
            GradedAnswer(
                row["id"],
                row["question_id"],
                row["question"],
                row["reference_answer"],
                row["student_answer"],
                row[GRADE],
                place,
            )
        )
    return answers
