"""The `logitbank` command: plain verbs over TOML jobs. Exit code 2 and one line for anything a user can mend."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cache.errors import LogitbankError
from cluster.commands.store import add_store_verbs


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        arguments = parser().parse_args(argv)
        return int(arguments.run(arguments) or 0)
    except LogitbankError as error:
        print(f"logitbank: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"logitbank: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("logitbank: interrupted; run the same command again to continue", file=sys.stderr)
        return 130


def _set_environment() -> None:
    """What libraries read while they are imported, so before any is."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # As Ray's own commands do: where the user has a token, clusters are asked with it.
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if "RAY_AUTH_TOKEN" in os.environ or token.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def entry_point() -> None:
    """The process of a command: nothing heavy is imported yet."""
    _set_environment()
    sys.exit(main())


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="logitbank",
        description="Offline distillation: run a big teacher once, train any number of students from what it said.",
    )
    top.add_argument("--root", type=Path, default=Path.cwd(), help="relative paths start here (default: this folder)")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def job_verb(name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
        verb = _verb(verbs, name, run, summary, example)
        verb.add_argument("job", type=Path, help="TOML file of the job")
        verb.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change a key of the job"
        )
        verb.add_argument("--dry-run", action="store_true", help="print the resolved job and what it would do")
        return verb

    jobs = "cluster/jobs/demo"
    job_verb("examples", _examples, "build the examples of a task", f"logitbank examples {jobs}/examples.toml")
    capture = job_verb("capture", _capture, "fill a store with a teacher", f"logitbank capture {jobs}/capture.toml")
    train = job_verb("train", _train, "train a model", f"logitbank train {jobs}/student.toml --set run.seed=1")
    for verb in (capture, train):
        verb.add_argument("--address", help="Ray head to join (default: RAY_ADDRESS, or an embedded Ray)")
    job_verb("evaluate", _evaluate, "hold models against a store", f"logitbank evaluate {jobs}/evaluate.toml")
    job_verb("report", _report, "gather results into one page", f"logitbank report {jobs}/report.toml")

    add_store_verbs(partial(_verb, verbs))

    submit = _verb(
        verbs,
        "submit",
        _submit,
        "run a command as a job on a Ray cluster",
        f"logitbank submit --address http://head:8265 -- capture {jobs}/capture.toml",
    )
    submit.add_argument("--address", required=True, help="dashboard address of the Ray head")
    submit.add_argument("--python", default="python", help="Python of the cluster's environment (default: python)")
    submit.add_argument("--no-wait", action="store_true", help="return when the job is accepted")
    submit.add_argument("command", nargs=argparse.REMAINDER, help="a logitbank command, after --")
    return top


def _verb(verbs: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary.capitalize() + ".", epilog=f"example: {example}"
    )
    verb.set_defaults(run=run)
    return verb


def _load(arguments: argparse.Namespace, kind: Any) -> Any:
    from cluster.job.files import load_job

    path = arguments.job if arguments.job.is_absolute() or arguments.job.exists() else arguments.root / arguments.job
    return load_job(path, arguments.overrides, kind, arguments.root.resolve())


def _dry_run(arguments: argparse.Namespace, job: Any) -> bool:
    if arguments.dry_run:
        print(json.dumps(job.model_dump(mode="json"), indent=1))
    return bool(arguments.dry_run)


def _examples(arguments: argparse.Namespace) -> None:
    from cluster.evaluation.examples import run_examples
    from cluster.evaluation.settings import ExamplesSettings

    job = _load(arguments, ExamplesSettings)
    if not _dry_run(arguments, job):
        counts = run_examples(job)["examples"]
        print(f"examples: {', '.join(f'{count:,} {name}' for name, count in counts.items())} in {job.output}")


def _capture(arguments: argparse.Namespace) -> None:
    from cluster.capture.driver import preview, run_capture
    from cluster.capture.settings import CaptureSettings

    job = _load(arguments, CaptureSettings)
    if arguments.address:
        job = job.model_copy(update={"address": arguments.address})
    if _dry_run(arguments, job):
        print(preview(job))
        return
    outcome = run_capture(job)
    rate = f", {outcome.rows / outcome.seconds:,.0f} tokens/s" if outcome.seconds else ""
    cost = f"; cost {outcome.cost:,.4f}" if outcome.cost else ""
    print(
        f"capture: {outcome.captured:,} examples and {outcome.rows:,} tokens captured now{rate}; "
        f"{outcome.examples:,} in {job.store}, snapshot {outcome.snapshot}; "
        f"{outcome.refused:,} in quarantine, {outcome.truncated:,} truncated{cost}"
    )


def _train(arguments: argparse.Namespace) -> None:
    from cluster.training.driver import run_training, summary
    from student.training.settings import TrainSettings

    job = _load(arguments, TrainSettings)
    if not _dry_run(arguments, job):
        print(f"train: {summary(run_training(job, arguments.address))}; model in {job.output / 'model'}")


def _evaluate(arguments: argparse.Namespace) -> None:
    from cluster.evaluation.driver import run_evaluation
    from cluster.evaluation.settings import EvaluateSettings
    from cluster.report.tables import metrics_table

    job = _load(arguments, EvaluateSettings)
    if not _dry_run(arguments, job):
        print(metrics_table(run_evaluation(job)["models"]))


def _report(arguments: argparse.Namespace) -> None:
    from cluster.report.report import run_report
    from cluster.report.settings import ReportSettings

    job = _load(arguments, ReportSettings)
    if not _dry_run(arguments, job):
        print(run_report(job))


def _submit(arguments: argparse.Namespace) -> int:
    from cluster.commands.submit import submit

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    parser().parse_args(command)  # a mistake is told here rather than on the cluster
    return submit(arguments.address, command, arguments.root.resolve(), arguments.python, not arguments.no_wait)


if __name__ == "__main__":
    entry_point()
