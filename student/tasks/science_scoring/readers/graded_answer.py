"""One graded answer of a student, as every reader gives it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GradedAnswer:
    """An answer and its grade.

    question: "" if the data do not contain it. reference: the reference answer, "" if there is none. grade: as the data
    name it; "" if nobody graded the answer. place: file and line. max_points: the best grade of the question, where
    grades are points and the data say so.
    """

    id: str
    question_id: str
    question: str
    reference: str
    answer: str
    grade: str
    place: str
    max_points: int | None = None
