"""The verbs for jobs on a Ray cluster: submit, jobs, logs, stop."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from cluster.commands.verbs import Result, Verbs

if TYPE_CHECKING:
    from cluster.commands.ray_jobs import JobState, RayJobs


def add_ray_job_verbs(verbs: Verbs, build_parser: Callable[[], argparse.ArgumentParser]) -> None:
    """build_parser: parser of the whole command line, which checks a command before it is sent."""
    submit = verbs.add(
        "submit",
        partial(_submit, build_parser),
        "run a command as a job on a Ray cluster",
        "logitbank submit --address http://head:8265 -- capture cluster/jobs/demo/capture.toml",
        has_json=False,
    )
    _add_address(submit)
    submit.add_argument("--python", default="python", help="Python of the cluster's environment (default: python)")
    submit.add_argument("--no-wait", action="store_true", help="return when the job is accepted")
    submit.add_argument("command", nargs=argparse.REMAINDER, help="a logitbank command, after --")
    jobs = verbs.add("jobs", _jobs, "list the jobs of a Ray cluster", "logitbank jobs --address http://head:8265")
    _add_address(jobs)
    logs = verbs.add(
        "logs",
        _logs,
        "print what a job on a Ray cluster has printed",
        "logitbank logs --follow --address http://head:8265 raysubmit_1",
        has_json=False,
    )
    _add_address(logs)
    logs.add_argument("--follow", action="store_true", help="go on until the job ends, with its exit code")
    logs.add_argument("job", help="name of the job")
    stop = verbs.add(
        "stop",
        _stop,
        "stop a job on a Ray cluster; it finishes what it has in hand, and the same command continues it later",
        "logitbank stop --address http://head:8265 raysubmit_1",
    )
    _add_address(stop)
    stop.add_argument("job", help="name of the job")


def _add_address(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--address", help="dashboard address of the Ray head (default: the variable RAY_API_SERVER_ADDRESS)"
    )


def _submit(build_parser: Callable[[], argparse.ArgumentParser], arguments: argparse.Namespace) -> Result:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    build_parser().parse_args(command)  # a mistake is reported here rather than on the cluster
    jobs = _connected(arguments)
    job = jobs.submit(command, arguments.root.resolve(), arguments.python)
    print(f"submitted {job} to {jobs.address}\n{jobs.how_to_go_on(job)}", flush=True)
    return Result() if arguments.no_wait else _follow(jobs, job)


def _jobs(arguments: argparse.Namespace) -> Result:
    jobs = _connected(arguments)
    states = jobs.states()
    lines = [_line(state) for state in states]
    text = "\n".join(lines) or f"jobs: none at {jobs.address}"
    return Result(text, {"address": jobs.address, "jobs": [asdict(state) for state in states]})


def _logs(arguments: argparse.Namespace) -> Result:
    jobs = _connected(arguments)
    return _follow(jobs, arguments.job) if arguments.follow else Result(jobs.log(arguments.job).rstrip("\n"))


def _stop(arguments: argparse.Namespace) -> Result:
    status = _connected(arguments).stop(arguments.job)
    text = f"{arguments.job}: {status}"
    return Result(text, {"job": arguments.job, "status": str(status)}, 0 if status.is_terminal() else 1)


def _follow(jobs: "RayJobs", job: str) -> Result:
    """Print the log of a job until it ends. Ctrl-C ends this command and not the job."""
    try:
        return Result(exit_code=jobs.follow(job))
    except KeyboardInterrupt:
        print(f"\nlogitbank: {job} goes on; only this command was stopped\n{jobs.how_to_go_on(job)}", flush=True)
        return Result(exit_code=130)


def _line(state: "JobState") -> str:
    seconds = "" if state.seconds is None else f"{state.seconds:,.0f} s"
    reason = f"  ({state.message})" if state.status == "FAILED" else ""
    return f"{state.job}  {state.status:<9}  {seconds:>9}  {state.command}{reason}"


def _connected(arguments: argparse.Namespace) -> "RayJobs":
    from cluster.commands.ray_jobs import RayJobs

    return RayJobs(arguments.address)
