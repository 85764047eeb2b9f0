"""The verb that runs another command on a cluster: submit."""

import argparse
from collections.abc import Callable
from functools import partial

from cluster.commands.verbs import Result, Verbs


def add_submit_verb(verbs: Verbs, build_parser: Callable[[], argparse.ArgumentParser]) -> None:
    """build_parser: parser of the whole command line, which checks the command before it is sent."""
    submit = verbs.add(
        "submit",
        partial(_submit, build_parser),
        "run a command as a job on a Ray cluster",
        "logitbank submit --address http://head:8265 -- capture cluster/jobs/demo/capture.toml",
        has_json=False,
    )
    submit.add_argument("--address", required=True, help="dashboard address of the Ray head")
    submit.add_argument("--python", default="python", help="Python of the cluster's environment (default: python)")
    submit.add_argument("--no-wait", action="store_true", help="return when the job is accepted")
    submit.add_argument("command", nargs=argparse.REMAINDER, help="a logitbank command, after --")


def _submit(build_parser: Callable[[], argparse.ArgumentParser], arguments: argparse.Namespace) -> Result:
    from cluster.commands.ray_jobs import submit

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    build_parser().parse_args(command)  # a mistake is reported here rather than on the cluster
    root = arguments.root.resolve()
    return Result(exit_code=submit(arguments.address, command, root, arguments.python, not arguments.no_wait))
