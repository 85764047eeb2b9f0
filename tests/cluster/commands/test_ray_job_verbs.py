"""`logitbank submit`, `jobs`, `logs` and `stop`, with a stand-in for the Ray head. test_ray_head.py has a real one."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from cluster.commands import ray_jobs
from cluster.commands.main import main

ADDRESS = "http://head:8265"
COMMAND = "python -m cluster.commands.main --root '/a b' capture job.toml"


class FakeClient:
    """A Ray head with one job. `states` are what it answers, one after the other; the last one again and again."""

    submitted: dict[str, Any]
    states: list[JobStatus]
    stopped: list[str]
    error: Exception | None
    refusals = 0

    def __init__(self, address: str) -> None:
        assert address == ADDRESS
        if FakeClient.error is not None:
            raise FakeClient.error

    def submit_job(self, **job: Any) -> str:
        if FakeClient.refusals:
            FakeClient.refusals -= 1
            raise RuntimeError("Request failed with status code 500: No available agent to submit job")
        FakeClient.submitted = job
        return "job-1"

    def get_job_status(self, job: str) -> JobStatus:
        if job != "job-1":
            raise RuntimeError(f"Request failed with status code 404: Job {job} does not exist.")
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def get_job_info(self, job: str) -> Any:
        return SimpleNamespace(message=f"Job entrypoint command failed with exit code 2, last lines of {job}:")

    def get_job_logs(self, job: str) -> str:
        return f"log of {job}\n"

    async def tail_job_logs(self, job: str) -> Any:
        if FakeClient.states[0] == JobStatus.PENDING:
            raise KeyboardInterrupt
        for text in ("one ", "two\n"):
            yield text

    def stop_job(self, job: str) -> None:
        self.stopped.append(job)

    def list_jobs(self) -> list[Any]:
        job = {"status": JobStatus.RUNNING, "entrypoint": COMMAND, "message": "Job is\n running", "end_time": None}
        old = job | {"status": JobStatus.SUCCEEDED, "end_time": 61_500}
        return [
            SimpleNamespace(submission_id="job-0", start_time=1_000, **old),
            SimpleNamespace(submission_id=None, start_time=2_000, **old),
            SimpleNamespace(submission_id="job-1", start_time=70_000, **job),
        ]


@pytest.fixture(autouse=True)
def head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "JobSubmissionClient", FakeClient)
    monkeypatch.setattr(ray_jobs, "POLL_S", 0.0)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", ADDRESS)
    FakeClient.states, FakeClient.stopped, FakeClient.error = [JobStatus.RUNNING, JobStatus.SUCCEEDED], [], None


def test_ctrl_c_says_that_the_job_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch the advice to run the command again, which submits the job twice."""
    FakeClient.states = [JobStatus.PENDING]
    assert main(["submit", "--address", ADDRESS, "--", "capture", "job.toml"]) == 130
    printed = capsys.readouterr()
    assert "job-1 goes on" in printed.out and "same command again" not in printed.out + printed.err
    last = printed.out.partition("goes on")[2]
    assert f"logitbank logs --follow --address {ADDRESS} job-1" in last
    assert f"logitbank stop --address {ADDRESS} job-1" in last
    assert "-m cluster.commands.main --root" in FakeClient.submitted["entrypoint"]


def test_a_job_that_is_stopped_has_time_to_finish_its_units() -> None:
    assert main(["submit", "--no-wait", "--", "capture", "job.toml"]) == 0
    assert int(FakeClient.submitted["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 60


def test_a_head_that_cannot_run_jobs_yet_is_asked_again() -> None:
    FakeClient.refusals = 3
    assert main(["submit", "--no-wait", "--", "capture", "job.toml"]) == 0
    assert FakeClient.refusals == 0 and FakeClient.submitted


def test_a_head_that_never_runs_jobs_is_told_how_to_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_jobs, "AGENT_WAIT_S", -1)
    FakeClient.refusals = 1
    assert main(["submit", "--no-wait", "--", "capture", "job.toml"]) == 2
    message = capsys.readouterr().err
    assert ADDRESS in message and "--dashboard-agent-listen-port" in message


def test_a_wrong_command_is_refused_before_it_is_sent() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["submit", "--address", ADDRESS, "--", "captre", "job.toml"])
    assert stop.value.code == 2


@pytest.mark.parametrize(("last", "code"), [(JobStatus.SUCCEEDED, 0), (JobStatus.FAILED, 2), (JobStatus.STOPPED, 143)])
def test_following_a_job_ends_with_its_exit_code(
    last: JobStatus, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeClient.states = [JobStatus.RUNNING, JobStatus.RUNNING, last]
    assert main(["logs", "--follow", "job-1"]) == code
    assert capsys.readouterr().out == f"one two\njob-1: {last}\n"


def test_the_log_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "job-1"]) == 0
    assert capsys.readouterr().out == "log of job-1\n"


def test_jobs_are_listed_newest_first_with_their_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "--json"]) == 0
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert [job["job"] for job in jobs] == ["job-1", "job-0"]
    assert jobs[1] | {"message": ""} == {
        "job": "job-0",
        "status": "SUCCEEDED",
        "command": "logitbank capture job.toml",
        "started": 1.0,
        "seconds": 60.5,
        "message": "",
    }
    assert main(["jobs"]) == 0
    assert "job-0  SUCCEEDED       60 s  logitbank capture job.toml" in capsys.readouterr().out.replace("61 s", "60 s")


def test_stop_waits_for_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    FakeClient.states = [JobStatus.RUNNING, JobStatus.RUNNING, JobStatus.STOPPED]
    assert main(["stop", "job-1"]) == 0
    assert FakeClient.stopped == ["job-1"] and capsys.readouterr().out == "job-1: STOPPED\n"


def test_a_job_that_has_ended_is_not_stopped_again(capsys: pytest.CaptureFixture[str]) -> None:
    FakeClient.states = [JobStatus.SUCCEEDED]
    assert main(["stop", "job-1"]) == 0
    assert FakeClient.stopped == [] and "SUCCEEDED" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [["logs"], ["logs", "--follow"], ["stop"]])
def test_a_job_that_is_not_there(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb, "job-7"]) == 2
    assert capsys.readouterr().err == f"logitbank: 'job-7': no such job at {ADDRESS}; 'logitbank jobs' lists them\n"


def test_without_an_address(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    assert main(["jobs"]) == 2
    assert "give --address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "says"),
    [(AuthenticationError("401"), "needs its token"), (ConnectionError("refused"), "no Ray head answers")],
)
def test_a_head_that_does_not_answer(error: Exception, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    FakeClient.error = error
    assert main(["jobs"]) == 2
    printed = capsys.readouterr().err
    assert says in printed and ADDRESS in printed and printed.count("\n") == 1
