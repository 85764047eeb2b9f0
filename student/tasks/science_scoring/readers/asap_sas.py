"""ASAP-SAS (Hewlett Foundation, 2012): answers to the prompts of ten essay sets, 0 to 2 or 0 to 3 points.

The TSV files contain no questions: they are in documents of their own. A table of them may lie beside the file, as
`prompts.tsv` with the columns EssaySet, Question, Reference.
"""

from pathlib import Path

from cache.errors import InputError
from student.tasks.science_scoring.grades import ASAP_SAS_POINTS
from student.tasks.science_scoring.readers.graded_answer import GradedAnswer
from student.tasks.table_rows import read_rows, require_fields

COLUMNS = ("Id", "EssaySet", "EssayText")
GRADE = "Score1"
PROMPTS = "prompts.tsv"
# The essay sets whose best grade is 2 points, as the contest describes its data.
TWO_POINTS = frozenset({"3", "4", "7", "8", "9", "10"})


def read_asap_sas(path: Path) -> list[GradedAnswer]:
    """Read a TSV file with the columns Id, EssaySet, Score1, EssayText. Score1 is the resolved score.

    A file without Score1, such as that of the leaderboard, has answers that nobody graded.
    """
    prompts = _prompts(path.parent / PROMPTS)
    answers = []
    for place, row in read_rows(path, COLUMNS, "\t", quoted=False, optional=(GRADE,)):
        require_fields(place, row, ("Id", "EssaySet"))
        if prompts and row["EssaySet"] not in prompts:
            raise InputError(
                f"{place}: EssaySet {row['EssaySet']!r} has no line in {path.parent / PROMPTS}; add its question"
            )
        essay_set = row["EssaySet"]
        most = 2 if essay_set in TWO_POINTS else ASAP_SAS_POINTS
        if row[GRADE] and not (row[GRADE].isascii() and row[GRADE].isdigit() and int(row[GRADE]) <= most):
            raise InputError(
                f"{place}: {GRADE} {row[GRADE]!r} is not a number of points from 0 to {most}, the scale of EssaySet "
                f"{essay_set}"
            )
        question, reference = prompts.get(essay_set, ("", ""))
        answers.append(
            GradedAnswer(row["Id"], essay_set, question, reference, row["EssayText"], row[GRADE], place, most)
        )
    return answers


def _prompts(path: Path) -> dict[str, tuple[str, str]]:
    """Question and reference answer by essay set; empty if there is no such file."""
    if not path.is_file():
        return {}
    prompts: dict[str, tuple[str, str]] = {}
    for place, row in read_rows(path, ("EssaySet", "Question"), "\t", quoted=False, optional=("Reference",)):
        require_fields(place, row, ("EssaySet", "Question"))
        if row["EssaySet"] in prompts:
            raise InputError(f"{place}: EssaySet {row['EssaySet']!r} has a line already; keep one of them")
        prompts[row["EssaySet"]] = row["Question"], row["Reference"]
    return prompts
