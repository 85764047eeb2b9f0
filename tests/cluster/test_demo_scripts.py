"""The scripts cluster/jobs/*/demo.sh, with a stand-in for Python that only checks what it is called with."""

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOMS = ("drug_editing", "medical_conversation", "science_scoring", "recipe_dialogue", "step_by_step")
# A job that is not there ends with code 9, and one that reads data from a folder "wrong" with code 2.
PYTHON = """#!/bin/sh
case $4 in *.toml) [ -e "$4" ] || exit 9 ;; esac
case $* in *wrong*) exit 2 ;; esac
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(Path(__file__).parents[2] / "cluster/jobs", tmp_path / "cluster/jobs")
    for name in ("bin", "wrong"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin/python").write_text(PYTHON)
    (tmp_path / "bin/python").chmod(0o755)
    return tmp_path


def demo(
    root: Path, room: str, *options: str, folder: Path | None = None, seeds: str = "0", **variables: str
) -> subprocess.CompletedProcess[str]:
    folder = folder or root
    script = os.path.relpath(root / f"cluster/jobs/{room}/demo.sh", folder)
    environment = os.environ | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "SEEDS": seeds} | variables
    return subprocess.run(
        ["sh", script, *options], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("room", ROOMS)
def test_a_demo_runs_all_its_jobs_from_any_folder(root: Path, room: str) -> None:
    for folder in (root / "cluster/jobs" / room, root / "wrong"):
        result = demo(root, room, folder=folder)
        assert result.returncode == 0, result.stdout[-300:] + result.stderr
        assert "logitbank report cluster/jobs/" in result.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_every_seed_is_trained_evaluated_and_reported(root: Path, room: str) -> None:
    """What is evaluated and in the tables of the report is what was trained, and each group has all seeds."""
    printed = demo(root, room, seeds="3 14").stdout
    outputs = set(re.findall(r"output=(runs/[^ ]*_(?:3|14))(?= )", printed))
    report = next(line for line in printed.splitlines() if "logitbank report" in line)
    evaluated = " ".join(line for line in printed.splitlines() if "logitbank evaluate" in line)
    assert len(outputs) >= 4
    for output in outputs - {path for path in outputs if path.count("seeds_")}:
        assert f'"{output}"' in report and f'"{output}/model"' in evaluated
    groups = re.findall(r"(\w+) = \[([^\]]*)\]", report)
    assert groups and all(members == f'"{name}_3", "{name}_14"' for name, members in groups)


def test_a_tuned_teacher_is_captured_as_it_is(root: Path) -> None:
    printed = demo(root, "science_scoring", "--teacher", "tuned", TUNE="0", LIMIT="4000").stdout
    captures = [line for line in printed.splitlines() if "logitbank capture" in line]
    assert "teacher.toml" not in printed
    assert len(captures) == 3 and all("teacher.model=tuned" in line for line in captures)
    assert sum("limit=4000" in line for line in captures) == 1
    assert 'teacher = "tuned"' in printed
    other = demo(root, "science_scoring", "--teacher", "tuned")
    assert other.returncode == 2 and "(teacher=tuned data= tune=0 limit=4000)" in other.stderr


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "medical_conversation"])
def test_after_a_wrong_path_the_right_one_is_accepted(root: Path, room: str) -> None:
    assert demo(root, room, "--data", "wrong").returncode == 2
    assert demo(root, room).returncode == 0
    other = demo(root, room, "--teacher", "another")
    assert other.returncode == 2 and "has the work of another run (teacher= data=)" in other.stderr


def test_a_wrong_path_does_not_give_away_the_work_of_a_demo(root: Path) -> None:
    assert demo(root, "science_scoring").returncode == 0
    (root / "runs/science/demo.options").write_text(f"teacher= data={root / 'wrong'}\n")
    assert "no file train.tsv" in demo(root, "science_scoring", "--data", "wrong").stderr
    assert "has the work of another run" in demo(root, "science_scoring").stderr


def test_a_relative_path_is_one_of_the_folder_of_the_caller(root: Path) -> None:
    (root / "elsewhere/data").mkdir(parents=True)
    result = demo(root, "step_by_step", "--data", "data", folder=root / "elsewhere")
    assert result.returncode == 0 and f'data="{root}/elsewhere/data"' in result.stdout


@pytest.mark.parametrize("tune", ["", "7"])
def test_mts_dialog_trains_two_kinds_of_students_beside_their_baselines(root: Path, tune: str) -> None:
    """Would catch options of a longer tuning that reach no job, and a report of other students than were trained."""
    result = demo(root, "medical_conversation", "--data", str(root), seeds="3 14", **({"TUNE": tune} if tune else {}))
    assert result.returncode == 0, result.stderr
    printed = result.stdout
    jobs = {
        job: [line for line in printed.splitlines() if f"mts_dialog/{job}" in line]
        for job in (
            "teacher.toml",
            "capture.toml",
            "header.toml",
            "header_evaluate.toml",
            "header_report.toml",
            "report.toml",
        )
    }
    assert ("run.steps=7" in jobs["teacher.toml"][0]) == ("limit=1200" in jobs["capture.toml"][0]) == bool(tune)
    assert len(jobs["header.toml"]) == 4
    for name in ("header_kd_3", "header_ce_14"):
        assert all(f"runs/medical/mts/{name}" in jobs[job][0] for job in ("header_evaluate.toml", "header_report.toml"))
        assert name not in jobs["report.toml"][-1]
    assert 'header_kd = ["header_kd_3", "header_kd_14"]' in jobs["header_report.toml"][0]
    assert 'kd = ["kd_3", "kd_14"]' in jobs["report.toml"][-1]


# Python that says when it begins and ends; a job of the text "slow" takes a minute, and one of "broken" fails.
SLOW = """#!/bin/sh
echo "begin $$" >> "{log}"
case $* in *broken*) echo "what is wrong"; exit 3 ;; esac
case $* in *slow*) sleep 60 & trap 'kill $!; echo "ended $$" >> "{log}"; exit 1' TERM; wait ;; esac
"""
BESIDE = """set -eu; folder={folder}; . {steps}
beside other "one of two" train a.toml --set name={first}
step "the other" train b.toml --set name={second} --set "$half"
beside_done
echo "all done"
"""


def beside(root: Path, first: str, second: str) -> subprocess.Popen[str]:
    (root / "bin/python").write_text(SLOW.format(log=root / "log"))
    script = root / "cluster/jobs/drug_editing/two.sh"
    script.write_text(
        BESIDE.format(folder="runs/two", steps=root / "cluster/jobs/steps.sh", first=first, second=second)
    )
    environment = os.environ | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}"}
    return subprocess.Popen(["sh", str(script)], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("first", "second"), [("broken", "fine"), ("slow", "broken")])
def test_of_two_trainings_side_by_side_each_can_fail(root: Path, first: str, second: str) -> None:
    """Would catch a demo that goes on without a student, and a training that goes on without its demo."""
    process = beside(root, first, second)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 3 and "all done" not in printed and "what is wrong" in printed
    lines = wait_for(root / "log", 3 if first == "slow" else 2)
    assert sum(line.startswith("ended") for line in lines) == (first == "slow")


def test_ctrl_c_stops_both_trainings(root: Path) -> None:
    process = beside(root, "slow", "slow")
    assert len(wait_for(root / "log", 2)) == 2
    process.send_signal(signal.SIGTERM)
    for line in (root / "log").read_text().splitlines():  # as a terminal signals the one in the foreground
        with suppress(ProcessLookupError):
            os.kill(int(line.split()[1]), signal.SIGTERM)
    assert process.wait(timeout=30) != 0
    assert sum(line.startswith("ended") for line in wait_for(root / "log", 4)) == 2


def test_two_trainings_share_the_cores(root: Path) -> None:
    process = beside(root, "fine", "fine")
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "all done" in printed
    half = max(1, (os.cpu_count() or 2) // 2)
    assert f"run.cpu_threads={half}" in printed


def wait_for(path: Path, count: int) -> list[str]:
    """The lines of a file once it has so many, or after ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.05)
    return lines
