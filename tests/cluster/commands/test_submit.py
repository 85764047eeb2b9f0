"""`logitbank submit`: what is sent, and what a user who stops waiting is told. The Ray head is a stand-in."""

from typing import Any

import pytest

from cluster.commands import ray_jobs
from cluster.commands.main import main

ADDRESS = "http://head:8265"


class FakeClient:
    """A Ray head on which a job runs until someone presses Ctrl-C."""

    submitted: dict[str, Any]

    def __init__(self, address: str) -> None:
        assert address == ADDRESS

    def submit_job(self, **job: Any) -> str:
        FakeClient.submitted = job
        return "job-1"

    def get_job_status(self, job: str) -> Any:
        raise KeyboardInterrupt


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "JobSubmissionClient", FakeClient)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)


@pytest.mark.usefixtures("head")
def test_ctrl_c_says_that_the_job_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch the advice to run the command again, which submits the job twice."""
    assert main(["submit", "--address", ADDRESS, "--", "capture", "job.toml"]) == 130
    printed = capsys.readouterr()
    assert "job-1 goes on" in printed.out and "same command again" not in printed.out + printed.err
    last = printed.out.partition("goes on")[2]
    assert f"ray job logs --address {ADDRESS} --follow job-1" in last
    assert f"ray job stop --address {ADDRESS} job-1" in last
    assert "-m cluster.commands.main --root" in FakeClient.submitted["entrypoint"]


@pytest.mark.usefixtures("head")
def test_commands_for_a_head_with_a_token_use_the_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert main(["submit", "--address", ADDRESS, "--no-wait", "--", "capture", "job.toml"]) == 0
    printed = capsys.readouterr().out
    assert f"RAY_AUTH_MODE=token ray job logs --address {ADDRESS} --follow job-1" in printed
    assert f"RAY_AUTH_MODE=token ray job stop --address {ADDRESS} job-1" in printed


@pytest.mark.usefixtures("head")
def test_a_wrong_command_is_refused_before_it_is_sent() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["submit", "--address", ADDRESS, "--", "captre", "job.toml"])
    assert stop.value.code == 2
