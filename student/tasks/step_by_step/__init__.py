"""Distilling step-by-step (Hsieh et al. 2023): a student predicts labels, and learns more by explaining them too.

In: a data set in the files of the published code, generic {input, label, rationale} files, or synthetic word problems,
with rationales and labels of a large model. Out: examples of the two tasks; scores of labels and rationales.
"""

from student.tasks.step_by_step.task import StepByStep
from student.tasks.task import TaskKind

TASK = TaskKind("step_by_step", StepByStep)
