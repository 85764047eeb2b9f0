"""Run a command as a Ray job. The code travels to the cluster; the data stays on a file system that all nodes share."""

import os
import shlex
import time
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from cache.errors import InputError
from cluster.runtime.ray_session import code_environment

POLL_S = 1.0


def entrypoint(arguments: list[str], root: Path, python: str) -> str:
    """The shell command that a node runs. --root gives relative paths of the job the same meaning there as here."""
    return shlex.join([python, "-m", "cluster.commands.main", "--root", str(root), *arguments])


def submit(address: str, arguments: list[str], root: Path, python: str, wait: bool) -> int:
    """Submit a job. With `wait`, print its log until it ends. Returns the exit code of the command.

    Raises InputError if no Ray head accepts the job at the address.
    """
    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(entrypoint=entrypoint(arguments, root, python), runtime_env=code_environment())
    except AuthenticationError as error:
        raise InputError(
            f"the Ray head at {address!r} needs its token: set RAY_AUTH_TOKEN, or write it to ~/.ray/auth_token"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray head accepts jobs at {address!r}: {error}; give its dashboard address") from error
    print(f"submitted {job} to {address}\n{_how_to_go_on(address, job)}", flush=True)
    if not wait:
        return 0
    try:
        return _follow(client, job)
    except KeyboardInterrupt:
        print(f"\nlogitbank: {job} goes on; only this command was stopped\n{_how_to_go_on(address, job)}", flush=True)
        return 130


def _follow(client: JobSubmissionClient, job: str) -> int:
    """Print the log of a job until it ends."""
    printed = 0
    while True:
        status = client.get_job_status(job)
        log = client.get_job_logs(job)
        print(log[printed:], end="", flush=True)
        printed = len(log)
        if status.is_terminal():
            print(f"{job}: {status}", flush=True)
            return 0 if status == JobStatus.SUCCEEDED else 1
        time.sleep(POLL_S)


def _how_to_go_on(address: str, job: str) -> str:
    """Commands that follow and stop a job. Ray's own commands use a token only with RAY_AUTH_MODE=token."""
    ray = "RAY_AUTH_MODE=token ray" if os.environ.get("RAY_AUTH_MODE") == "token" else "ray"
    return (
        f"  follow it: {ray} job logs --address {address} --follow {job}\n"
        f"  stop it:   {ray} job stop --address {address} {job}"
    )
