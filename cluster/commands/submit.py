"""Run a command as a Ray job on a cluster: the code travels, the data stays on the file system that all nodes share."""

import shlex
import time
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from cache.errors import InputError
from cluster.job.ray_session import CODE


def entrypoint(arguments: list[str], root: Path, python: str) -> str:
    """The shell command that a node runs: relative paths of the job keep meaning what they mean here."""
    return shlex.join([python, "-m", "cluster.commands.main", "--root", str(root), *arguments])


def submit(address: str, arguments: list[str], root: Path, python: str, wait: bool) -> int:
    """Submit and, with `wait`, follow the log to the end. Returns the exit code for the shell."""
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=entrypoint(arguments, root, python),
            runtime_env=dict(CODE),
        )
    except AuthenticationError as error:
        raise InputError(
            f"the Ray head at {address!r} wants its token: set RAY_AUTH_TOKEN or ~/.ray/auth_token"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray head takes jobs at {address!r}: {error}; give its dashboard address") from error
    print(f"submitted {job} to {address}; follow it with: ray job logs --address {address} --follow {job}", flush=True)
    if not wait:
        return 0
    shown = 0
    while True:
        status = client.get_job_status(job)
        logs = client.get_job_logs(job)
        print(logs[shown:], end="", flush=True)
        shown = len(logs)
        if status.is_terminal():
            print(f"{job}: {status}", flush=True)
            return 0 if status == JobStatus.SUCCEEDED else 1
        time.sleep(1)
