"""Jobs: the command line, Ray, and what comes out. The top floor; the only one that imports Ray.

Rooms, from the lowest to the highest; an import goes only downward:

    runtime/      what all jobs share: job files, output folders, progress bars, joining Ray
    capture/      fill a store: plan, engines in Ray actors, capture log
    training/     train a student: snapshots, ranks under Ray Train
    alignment/    move a store to the tokens of another tokenizer
    evaluation/   build the examples of a task; evaluate models
    report/       results of several jobs as tables and one HTML page; how far a job is
    commands/     the `logitbank` command
    jobs/demo/    job files of the demo

The names below are the public face; each is imported at first use.
"""

from typing import TYPE_CHECKING

from cache.lazy_names import lazy_names

if TYPE_CHECKING:
    from cluster.capture.driver import run_capture
    from cluster.capture.settings import CaptureSettings
    from cluster.evaluation.driver import run_evaluation
    from cluster.evaluation.settings import EvaluateSettings
    from cluster.report.report import run_report
    from cluster.report.settings import ReportSettings
    from cluster.runtime.job_file import load_job
    from cluster.training.driver import run_training

__all__ = [
    "CaptureSettings",
    "EvaluateSettings",
    "ReportSettings",
    "load_job",
    "run_capture",
    "run_evaluation",
    "run_report",
    "run_training",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "cluster.capture.driver": ("run_capture",),
            "cluster.capture.settings": ("CaptureSettings",),
            "cluster.evaluation.driver": ("run_evaluation",),
            "cluster.evaluation.settings": ("EvaluateSettings",),
            "cluster.report.report": ("run_report",),
            "cluster.report.settings": ("ReportSettings",),
            "cluster.runtime.job_file": ("load_job",),
            "cluster.training.driver": ("run_training",),
        },
    )
