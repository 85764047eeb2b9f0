"""The registry of tasks."""

from cache.registry import Registry
from student.tasks.task import TaskKind

TASKS: Registry[TaskKind] = Registry("task", "student.tasks", "TASK")
