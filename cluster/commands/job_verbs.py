"""The verbs that run a job file: examples, capture, train, sweep, evaluate, report."""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cache.errors import InputError
from cluster.commands.verbs import Result, VerbFunction, Verbs, complete_files

if TYPE_CHECKING:  # pydantic is heavy
    from cache.settings import Settings
    from cluster.capture.event_log import EventLog
    from cluster.capture.run import CaptureOutcome
    from cluster.capture.settings import CaptureSettings

JOBS = "cluster/jobs/demo"
# Reasons of the quarantine that the summary of a capture names.
SHOWN_REASONS = 3

OTHERS = (
    "of the store are not of this job: of other jobs, or of lines that were changed or removed; training reads them too"
)

Job = TypeVar("Job", bound="Settings")


def add_job_verbs(verbs: Verbs) -> None:
    def add(name: str, run: VerbFunction, summary: str, example: str) -> argparse.ArgumentParser:
        verb = verbs.add(name, run, summary, f"logitbank {name} {JOBS}/{example}")
        add_job(verb)
        verb.add_argument("--dry-run", action="store_true", help="print the resolved job and what it would do")
        return verb

    add("examples", _examples, "build the examples of a task", "examples.toml")
    capture = add("capture", _capture, "fill a store with the distributions of a teacher", "capture.toml")
    capture.add_argument(
        "--probe",
        nargs="?",
        type=_count,
        const=200,
        metavar="N",
        help="a dry run that also captures N responses (200) for a trial: tokens, hours and bytes of the whole job",
    )
    complete_files(
        capture.add_argument(
            "--log",
            type=Path,
            metavar="FILE",
            help="append a line of JSON for every unit, and for every worker and example that is lost, with their keys",
        )
    )
    train = add("train", _train, "train a student", "student.toml --set run.seed=1")
    sweep = add("sweep", _sweep, "train with many settings and compare", "sweep.toml --set samples=20")
    for verb in (capture, train, sweep):
        verb.add_argument("--address", help="Ray head to join (default: RAY_ADDRESS, or an embedded Ray)")
    add("evaluate", _evaluate, "compare models with a store of held-out examples", "evaluate.toml")
    add("report", _report, "collect the results of several jobs in one page", "report.toml")


def add_job(verb: argparse.ArgumentParser) -> None:
    """The arguments that name a job and change its keys."""
    complete_files(verb.add_argument("job", type=Path, help="TOML file of the job, in any folder"))
    verb.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change a key of the job"
    )


def job_path(arguments: argparse.Namespace) -> Path:
    """The job file of a command. A relative path is tried from the working folder first, then from the root."""
    given: Path = arguments.job
    return given if given.is_absolute() or given.exists() else arguments.root / given


def load_job_of(arguments: argparse.Namespace, kind: type[Job]) -> Job:
    """The job of a command."""
    from cluster.runtime.job_file import load_job

    path = job_path(arguments)
    try:
        return load_job(path, arguments.overrides, kind, arguments.root.resolve())
    except InputError:
        if other := _verb_of(path, kind):
            raise InputError(f"job file {path}: is a job of 'logitbank {other}'; run that command") from None
        raise


def _verb_of(path: Path, kind: type["Settings"]) -> str:
    """The verb that a job file is for, if it has all required keys of another kind of job and no unknown key."""
    from cluster.capture.settings import CaptureSettings
    from cluster.evaluation.settings import EvaluateSettings, ExamplesSettings
    from cluster.report.settings import ReportSettings
    from cluster.runtime.job_messages import read_toml
    from cluster.sweep.settings import SweepSettings
    from student.training.settings import TrainSettings

    kinds: dict[str, type[Settings]] = {
        "capture": CaptureSettings,
        "train": TrainSettings,
        "sweep": SweepSettings,
        "evaluate": EvaluateSettings,
        "report": ReportSettings,
        "examples": ExamplesSettings,
    }
    try:
        keys = set(read_toml(path))
    except InputError:
        return ""
    for verb, settings in kinds.items():
        required = {name for name, field in settings.model_fields.items() if field.is_required()}
        if settings is not kind and required <= keys <= set(settings.model_fields):
            return verb
    return ""


def _dry_run(job: "Settings", preview: str = "") -> Result:
    """The resolved job, and what a run would do where that is known without running it."""
    resolved = job.model_dump(mode="json")
    text = json.dumps(resolved, indent=1)
    return Result("\n".join(filter(None, [text, preview])), {"job": resolved, "preview": preview or None})


def _examples(arguments: argparse.Namespace) -> Result:
    from cluster.evaluation.settings import ExamplesSettings
    from cluster.evaluation.task_examples import run_examples

    job = load_job_of(arguments, ExamplesSettings)
    if arguments.dry_run:
        return _dry_run(job)
    result = run_examples(job)
    counts = ", ".join(f"{count:,} {name}" for name, count in result["examples"].items())
    facts = "".join(
        f"\nexamples: {name.replace('_', ' ')}: {_plain(value)}" for name, value in result.get("facts", {}).items()
    )
    return Result(f"examples: {counts} in {job.output}{facts}", {**result, "output": job.output})


def _plain(value: Any) -> str:
    """A fact about a data set on one line."""
    if isinstance(value, dict):
        return "; ".join(f"{name} {_plain(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _capture(arguments: argparse.Namespace) -> Result:
    from cluster.capture.driver import run_capture
    from cluster.capture.planning import FORGOTTEN, preview_job
    from cluster.capture.settings import CaptureSettings
    from cluster.runtime.progress_bars import counter

    job = load_job_of(arguments, CaptureSettings)
    if arguments.address:
        job = job.model_copy(update={"address": arguments.address})
    if arguments.probe is not None:
        return _probe(job, arguments.probe)
    if arguments.dry_run:
        return _dry_run(job, preview_job(job, counter("reading", "B")))
    outcome = _logged(job, arguments.root / arguments.log if arguments.log else None, run_capture)
    rate = f", {outcome.rows / outcome.seconds:,.0f} tokens/s" if outcome.seconds else ""
    cost = f"; cost {outcome.cost:,.4f}" if outcome.cost else ""
    text = (
        f"capture: {outcome.captured:,} examples and {outcome.rows:,} tokens captured now{rate}; "
        f"{outcome.examples:,} of this job in {job.store}, snapshot {outcome.snapshot}; "
        f"{outcome.refused:,} in quarantine, {outcome.truncated:,} truncated{cost}"
        + (f"\ncapture: {outcome.input}" if outcome.input else "")
        + (f"\ncapture: {outcome.forgotten:,} responses {FORGOTTEN}" if outcome.forgotten else "")
        + (f"\ncapture: {outcome.others:,} more records {OTHERS}" if outcome.others else "")
        + "".join(f"\ncapture: rows come from {source}" for source in outcome.rows_from)
        + _without_rows(outcome.without_rows)
        + _quarantine_lines(outcome.reasons, job.store)
    )
    return Result(text, {**asdict(outcome), "store": job.store})


def _logged(
    job: "CaptureSettings", path: Path | None, run: "Callable[[CaptureSettings, EventLog | None], CaptureOutcome]"
) -> "CaptureOutcome":
    """Run a capture that writes its log to a file, if one is given."""
    if path is None:
        return run(job, None)
    from cluster.capture.event_log import EventLog

    try:
        log = EventLog(path)
    except OSError as error:
        raise InputError(f"--log {path}: cannot be written: {error.strerror}") from None
    log.write("start", store=job.store, engines=job.most_actors)
    try:
        outcome = run(job, log)
    except BaseException as error:
        log.write("end", error=f"{type(error).__name__}: {error}")
        raise
    else:
        log.write("end", captured=outcome.captured, rows=outcome.rows, snapshot=outcome.snapshot)
        return outcome
    finally:
        log.close()


def _probe(job: "CaptureSettings", count: int) -> Result:
    """A dry run with a trial."""
    from cluster.capture.planning import preview_job
    from cluster.capture.trial import Sample, run_trial
    from cluster.runtime.progress_bars import counter

    sample = Sample(count)
    preview = preview_job(job, counter("reading", "B"), sample.look)
    estimate = run_trial(job, sample)
    text = "nothing is missing, so there was no trial" if estimate is None else str(estimate)
    result = _dry_run(job, f"{preview}\n{text}")
    return Result(result.text, {**result.data, "estimate": None if estimate is None else asdict(estimate)})


def _count(text: str) -> int:
    """A number of responses. Raises argparse.ArgumentTypeError if it is none."""
    if not text.isascii() or not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of responses, such as 200")
    return int(text)


def _without_rows(count: int) -> str:
    """A line about answers of a service that came without log-probabilities."""
    return f"\ncapture: {count:,} examples have text alone: the service returned no rows for them" if count else ""


def _quarantine_lines(reasons: Mapping[str, int], store: str) -> str:
    """Lines with the most frequent reasons of the quarantine, and the command that lists all."""
    lines = [
        f"\ncapture: in quarantine, {count:,}: {reason}" for reason, count in list(reasons.items())[:SHOWN_REASONS]
    ]
    if lines:
        lines.append(f"\ncapture: 'logitbank quarantine {store}' lists them, and with --retry clears them")
    return "".join(lines)


def _train(arguments: argparse.Namespace) -> Result:
    from cluster.training.driver import run_training, summary
    from student.training.settings import TrainSettings

    job = load_job_of(arguments, TrainSettings)
    if arguments.dry_run:
        from cluster.training.preview import preview_training

        return _dry_run(job, preview_training(job))
    result = run_training(job, arguments.address)
    model = job.output / "model"
    text = f"train: {summary(result)}; model in {model}"
    return Result(text, {**result, "model": model})


def _sweep(arguments: argparse.Namespace) -> Result:
    from cluster.sweep.driver import preview_sweep, run_sweep
    from cluster.sweep.settings import SweepSettings

    job, root = load_job_of(arguments, SweepSettings), arguments.root.resolve()
    if arguments.dry_run:
        return _dry_run(job, preview_sweep(job, root))
    result = run_sweep(job, root, arguments.address)
    failed = "".join(f"\nsweep: {label}: {reason}" for label, reason in result.failed)
    paths = {"results_file": result.path, "page": result.page}
    rows = [row.as_json() for row in result.rows]
    return Result(
        f"{result.text}{failed}\n\n{result.path}\n{result.page}",
        {"rows": rows, "failed": result.failed, **paths},
        exit_code=1 if result.failed else 0,
    )


def _evaluate(arguments: argparse.Namespace) -> Result:
    from cluster.evaluation.driver import run_evaluation
    from cluster.evaluation.settings import EvaluateSettings
    from cluster.report.metrics_table import metrics_table

    job = load_job_of(arguments, EvaluateSettings)
    if arguments.dry_run:
        return _dry_run(job)
    summary = run_evaluation(job)
    return Result(metrics_table(summary["models"]), summary)


def _report(arguments: argparse.Namespace) -> Result:
    from cluster.report.report import run_report
    from cluster.report.settings import ReportSettings

    job = load_job_of(arguments, ReportSettings)
    if arguments.dry_run:
        return _dry_run(job)
    report = run_report(job)
    paths: dict[str, Any] = {"results_file": report.results_path, "page": report.page_path}
    return Result(report.text, {**report.results, **paths})
