"""Commands as Ray jobs. The code travels to the cluster; the data stays on a file system that all nodes share."""

import asyncio
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from cache.errors import InputError
from cluster.runtime.ray_session import code_environment

POLL_S = 1.0
# How long a job that is stopped may finish what it has in hand. Ray's own value is 3 s.
STOP_WAIT_S = 120
# A head that has just started answers before it can run jobs.
AGENT_WAIT_S = 60
# Ray's own variable for the address of its dashboard.
ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
MODULE = "cluster.commands.main"


@dataclass(frozen=True, slots=True)
class JobState:
    """A job of a cluster. command: what runs. started: seconds since 1970, or None. seconds: to now or its end."""

    job: str
    status: str
    command: str
    started: float | None
    seconds: float | None
    message: str


class RayJobs:
    """The jobs of one Ray cluster."""

    def __init__(self, address: str | None) -> None:
        """address: of the dashboard of the Ray head, or None for that in RAY_API_SERVER_ADDRESS.

        Raises InputError if there is none, or no Ray head answers there.
        """
        given = address or os.environ.get(ADDRESS_VARIABLE)
        if not given:
            raise InputError(f"give --address, the dashboard of the Ray head, or set {ADDRESS_VARIABLE}")
        self.address = given
        with self._reachable():
            self._client = JobSubmissionClient(given)

    def submit(self, arguments: list[str], root: Path, python: str) -> str:
        """Submit a command. Returns the name of the job."""
        environment = code_environment()
        environment["env_vars"] = {**environment["env_vars"], "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
        command, deadline = entrypoint(arguments, root, python), time.monotonic() + AGENT_WAIT_S
        with self._reachable():
            while True:
                try:
                    return str(self._client.submit_job(entrypoint=command, runtime_env=environment))
                except RuntimeError as error:
                    if "No available agent" not in str(error):
                        raise
                    if time.monotonic() > deadline:
                        raise InputError(
                            f"the Ray head at {self.address!r} has no agent that runs jobs after {AGENT_WAIT_S} s; if "
                            "another Ray of that machine has its port, start the head with "
                            "--dashboard-agent-listen-port and a free port"
                        ) from error
                    time.sleep(POLL_S)

    def states(self) -> list[JobState]:
        """All jobs that the head remembers, the newest first."""
        with self._reachable():
            jobs = self._client.list_jobs()
        # Those without a name were started by a driver on the cluster, and cannot be followed or stopped from outside.
        states = [_state(job) for job in jobs if job.submission_id]
        return sorted(states, key=lambda state: state.started or 0.0, reverse=True)

    def log(self, job: str) -> str:
        """What a job has printed so far. Raises InputError if there is no such job."""
        status = self.status(job)
        with self._reachable():
            text = str(self._client.get_job_logs(job))
            return text or f"{job}: {status}{self._reason(job, status)}"

    def status(self, job: str) -> JobStatus:
        """Raises InputError if there is no such job."""
        with self._reachable():
            try:
                return self._client.get_job_status(job)
            except RuntimeError as error:
                if "does not exist" not in str(error):
                    raise
                raise InputError(f"{job!r}: no such job at {self.address}; 'logitbank jobs' lists them") from error

    def follow(self, job: str) -> int:
        """Print what a job prints until it ends. Returns its exit code. Raises InputError if there is no such job."""
        self.status(job)
        with self._reachable():
            asyncio.run(self._print(job))
        while not (status := self.status(job)).is_terminal():  # the state of a job lags behind its output
            time.sleep(POLL_S)
        print(f"{job}: {status}{self._reason(job, status)}", flush=True)
        if status == JobStatus.STOPPED:
            return 128 + signal.SIGTERM
        return 0 if status == JobStatus.SUCCEEDED else self._exit_code(job)

    def _reason(self, job: str, status: JobStatus) -> str:
        """What Ray says of a job that failed before it could print anything, such as code that did not arrive."""
        message = " ".join((self._client.get_job_info(job).message or "").split())
        return f": {message}" if status == JobStatus.FAILED and "exit code" not in message else ""

    async def _print(self, job: str) -> None:
        async for text in self._client.tail_job_logs(job):
            print(text, end="", flush=True)

    def _exit_code(self, job: str) -> int:
        """That of the command, as Ray's message says it; 1 if it says none."""
        found = re.search(r"exit code (\d+)", self._client.get_job_info(job).message or "")
        return int(found[1]) if found else 1

    def stop(self, job: str) -> JobStatus:
        """Stop a job and wait for its end. It finishes what it has in hand. Returns its last state.

        Raises InputError if there is no such job.
        """
        if (status := self.status(job)).is_terminal():
            return status
        with self._reachable():
            self._client.stop_job(job)
        deadline = time.monotonic() + STOP_WAIT_S + 30
        while not (status := self.status(job)).is_terminal() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return status

    def how_to_go_on(self, job: str) -> str:
        """Commands that follow and stop a job."""
        address = f"--address {shlex.quote(self.address)} {job}"
        return f"  follow it: logitbank logs --follow {address}\n  stop it:   logitbank stop {address}"

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise InputError(
                f"the Ray head at {self.address!r} needs its token: RAY_AUTH_TOKEN, or the file ~/.ray/auth_token"
            ) from error
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise InputError(
                f"no Ray head answers at {self.address!r}: {' '.join(str(error).split())}; give the address of its "
                "dashboard, such as http://head:8265"
            ) from error


def entrypoint(arguments: list[str], root: Path, python: str) -> str:
    """The shell command that a node runs. --root gives relative paths of the job the same meaning there as here."""
    return shlex.join([python, "-m", MODULE, "--root", str(root), *arguments])


def _state(job: JobDetails) -> JobState:
    first = job.start_time / 1000 if job.start_time else None  # Ray counts in milliseconds
    last = job.end_time / 1000 if job.end_time else time.time()
    return JobState(
        job=str(job.submission_id),
        status=str(job.status),
        command=re.sub(rf"^\S+ -m {re.escape(MODULE)} --root (?:'[^']*'|\S+) ", "logitbank ", job.entrypoint),
        started=first,
        seconds=round(last - first, 1) if first else None,
        message=" ".join((job.message or "").split()),
    )
