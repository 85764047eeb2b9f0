"""Students: everything that learns from a store, or is measured with one.

Rooms, from the lowest to the highest; an import goes only downward:

    tasks/                  domains: how examples are built, and how answers are judged
    losses/                 objectives, computed from hidden states in blocks
    models/                 students: built, loaded, and their logits
    tokenizers/             tokenizers of students, and stores in the tokens of another tokenizer
    data/                   examples of stores and files as batches
    classification/         texts with classes, for classifiers
    training/  evaluation/  a run under DeepSpeed, from its plan to the saved student; metrics of a student

Never imports teacher_serving or Ray. The names below are the public face; each is imported at first use.
"""

from typing import TYPE_CHECKING

from cache.lazy_names import lazy_names

if TYPE_CHECKING:
    from student.classification.settings import ClassSettings
    from student.data.settings import DataSettings
    from student.data.torch_dataset import StoreDataset
    from student.evaluation.classifier import evaluate_classifier
    from student.evaluation.language_model import evaluate_language_model
    from student.losses.objective import Objective
    from student.losses.registry import OBJECTIVES
    from student.losses.settings import LossSettings
    from student.models.registry import STUDENT_KINDS
    from student.models.student_kind import StudentKind
    from student.tasks import TASKS, Built, Chart, Panel, Question, Task, TaskKind
    from student.training.hf_trainer import DistillationCollator, DistillationLoss, fused_student, objectives_for
    from student.training.settings import TrainSettings
    from student.training.train import train

__all__ = [
    "OBJECTIVES",
    "STUDENT_KINDS",
    "TASKS",
    "Built",
    "Chart",
    "ClassSettings",
    "DataSettings",
    "DistillationCollator",
    "DistillationLoss",
    "LossSettings",
    "Objective",
    "Panel",
    "Question",
    "StoreDataset",
    "StudentKind",
    "Task",
    "TaskKind",
    "TrainSettings",
    "evaluate_classifier",
    "evaluate_language_model",
    "fused_student",
    "objectives_for",
    "train",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "student.classification.settings": ("ClassSettings",),
            "student.data.settings": ("DataSettings",),
            "student.data.torch_dataset": ("StoreDataset",),
            "student.evaluation.classifier": ("evaluate_classifier",),
            "student.evaluation.language_model": ("evaluate_language_model",),
            "student.losses.objective": ("Objective",),
            "student.losses.registry": ("OBJECTIVES",),
            "student.losses.settings": ("LossSettings",),
            "student.models.registry": ("STUDENT_KINDS",),
            "student.models.student_kind": ("StudentKind",),
            "student.tasks": ("TASKS", "Built", "Chart", "Panel", "Question", "Task", "TaskKind"),
            "student.training.hf_trainer": (
                "DistillationCollator",
                "DistillationLoss",
                "fused_student",
                "objectives_for",
            ),
            "student.training.settings": ("TrainSettings",),
            "student.training.train": ("train",),
        },
    )
