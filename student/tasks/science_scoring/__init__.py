"""Science scoring: grade short answers of students to questions of science, beside a reference answer.

    readers/      graded answers in their public formats: Beetle (TSV), SemEval-2013 (XML), Mohler (CSV), ASAP-SAS (TSV)
    synthetic.py  made answers from a grammar of facts, for a machine without data
    grades.py     the scales (5-, 3- and 2-way, points) and the word of each grade
    prompts.py    a graded answer as an example
    transfer.py   answers without a grade, for the teacher alone
    charts.py     confusion matrices, metrics a question, published claims

In: files of graded answers. Out: prompts whose answer is one word; scores of predicted grades.
"""

from student.tasks.science_scoring.task import ScienceScoring
from student.tasks.task import TaskKind

TASK = TaskKind("science_scoring", ScienceScoring)
