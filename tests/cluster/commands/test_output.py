"""What commands print: the version, completion scripts, and one JSON document on standard output with --json."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.commands.main import build_parser, main
from cluster.commands.verbs import Result

JOBS = Path(__file__).resolve().parents[3] / "cluster" / "jobs" / "demo"
HEAVY = ("numpy", "torch", "ray", "transformers", "vllm", "zarr", "pydantic", "rdkit", "matplotlib")


def test_the_command_line_imports_nothing_heavy() -> None:
    """Would catch a library at the top of a module that makes --help slow."""
    code = f"import sys, cluster.commands.main as m; m.build_parser(); print([n for n in {HEAVY} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.split()[0] == "logitbank"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_scripts_know_the_verbs(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    assert stop.value.code == 0
    script = capsys.readouterr().out
    assert "export" in script and "inspect" in script


def test_every_verb_that_reports_has_json() -> None:
    for verb in ("examples", "capture", "train", "evaluate", "report"):
        assert build_parser().parse_args([verb, "job.toml", "--json"]).json
    for verb in ("status", "inspect", "verify", "snapshot", "gc"):
        assert build_parser().parse_args([verb, "store", "--json"]).json
    assert build_parser().parse_args(["export", "store", "out", "--json"]).json
    assert build_parser().parse_args(["import", "parquet", "in", "store", "--json"]).json
    assert build_parser().parse_args(["list", "--json"]).json


def test_json_stands_alone_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Would catch a line for people in front of the JSON, which breaks every program that reads it."""

    def run_examples(job: object) -> dict[str, object]:
        print("a line for people")
        return {"examples": {"train": 3}, "seconds": float("nan")}

    monkeypatch.setattr("cluster.evaluation.task_examples.run_examples", run_examples)
    command = ["--root", str(tmp_path), "examples", str(JOBS / "examples.toml")]
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    output = str(tmp_path / "runs" / "demo" / "examples")
    assert json.loads(printed.out) == {"examples": {"train": 3}, "seconds": None, "output": output}
    assert "a line for people" in printed.err
    assert main(command) == 0
    assert "examples: 3 train in" in capsys.readouterr().out


def test_a_dry_run_prints_the_resolved_job(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["--root", str(tmp_path), "train", str(JOBS / "student.toml"), "--dry-run"]
    assert main(command) == 0
    job = json.loads(capsys.readouterr().out)
    assert job["data"]["store"] == str(tmp_path / "runs" / "demo" / "store")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"job": job, "preview": None}


@pytest.mark.parametrize("name", ["jobs/deep/own.toml", "../outside.toml"])
def test_job_files_may_be_in_any_folder(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "jobs" / "deep").mkdir(parents=True)
    (root / name).write_text('output = "runs/x"\n[task]\nname = "drug_editing"\n')
    assert main(["--root", str(root), "examples", name, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["output"] == str(root / "runs" / "x")


def test_values_that_json_lacks_become_null_or_text() -> None:
    data = {"a": float("nan"), "b": [1.5, float("nan")], "c": Path("x"), "d": {"e": (1,)}}
    assert json.loads(Result(data=data).to_json()) == {"a": None, "b": [1.5, None], "c": "x", "d": {"e": [1]}}
