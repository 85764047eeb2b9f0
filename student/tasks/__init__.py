"""Tasks: domains with examples to learn from and a judge for answers.

In: the [task] table of a job file. Out: examples by split, scores of one answer, metrics over all answers, and
what a report shows of them.
A task knows nothing of stores, models or training.

To add one, make a folder student/tasks/NAME/ whose `__init__.py` binds TASK = TaskKind(NAME, its subclass of Task). A
module outside this package works too, if the environment variable LOGITBANK_PLUGINS names it. Import heavy libraries
inside the functions that use them: reading a job file imports every task.
"""

from student.tasks.registry import TASKS
from student.tasks.task import Built, Chart, Panel, Question, Task, TaskKind, unused_judge_keys, unused_task_keys

__all__ = ["TASKS", "Built", "Chart", "Panel", "Question", "Task", "TaskKind", "unused_judge_keys", "unused_task_keys"]
