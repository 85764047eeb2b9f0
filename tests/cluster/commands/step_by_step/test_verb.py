"""`logitbank step-by-step` takes the published command line, and writes job files that are valid and mean the same."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cluster.commands.main import build_parser, main
from cluster.commands.step_by_step.files import restored_if_refused
from cluster.commands.step_by_step.jobs import make_jobs, run_folder, write_toml
from cluster.evaluation.settings import EvaluateSettings, ExamplesSettings
from cluster.runtime.job_file import load_job
from cluster.runtime.job_messages import read_toml
from cluster.runtime.outputs import write_job
from student.training.settings import TrainSettings

# The options of run.py of google-research/distilling-step-by-step, and of its fork.
PUBLISHED = {
    *("--dataset", "--subsample", "--alpha", "--max_steps", "--eval_steps", "--batch_size", "--optimizer_name", "--lr"),
    *("--run", "--from_pretrained", "--label_type", "--llm", "--max_input_length", "--grad_steps", "--local_rank"),
    *("--gen_max_len", "--parallelize", "--model_type", "--bf16", "--no_log", "--output_rationale", "--output_dir"),
}
README = "--from_pretrained google/t5-v1_1-base --dataset cqa --model_type task_prefix --label_type llm --llm palm"
KINDS: dict[str, Any] = {"examples": ExamplesSettings, "train": TrainSettings, "evaluate": EvaluateSettings}


def parse(text: str) -> argparse.Namespace:
    return build_parser().parse_args(["step-by-step", *text.split()])


def jobs_of(text: str) -> dict[str, Any]:
    arguments = parse(text)
    return make_jobs(arguments, run_folder(arguments))


def test_every_published_option_has_its_name() -> None:
    verbs = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    options = {option for action in verbs["step-by-step"]._actions for option in action.option_strings}  # type: ignore[index, call-overload]
    assert options >= PUBLISHED


@pytest.mark.parametrize(
    "text",
    [
        README,
        "--dataset synthetic --from_scratch --output_rationale --bf16 --parallelize --no_log",
        "--dataset anli1 --model_type standard --label_type gt --subsample 0.125 --run 3",
        "--dataset generic --llm generic --alpha 1",
        "--dataset svamp --llm captured --answers answers.jsonl --alpha 0 --grad_steps 4",
    ],
)
def test_the_files_are_valid_jobs(tmp_path: Path, text: str) -> None:
    """Would catch a key that a job does not have or that has no effect, and text that TOML reads as another value."""
    for name, job in jobs_of(text).items():
        path = tmp_path / f"{name}.toml"
        write_toml(path, job, "comment")
        assert read_toml(path) == job
        load_job(path, [], KINDS[name], tmp_path)


def test_options_become_keys() -> None:
    jobs = jobs_of(
        f"{README} --alpha 0.3 --batch_size 8 --grad_steps 4 --max_input_length 100 --lr 0.001 --max_steps 7"
    )
    train = jobs["train"]
    assert train["loss"]["terms"] == [
        {"objective": "hard_label", "weight": 0.3, "where": {"task": "predict"}},
        {"objective": "hard_label", "weight": 0.7, "where": {"task": "explain"}},
    ]
    assert (train["run"]["batch_size"], train["run"]["steps"], train["optimizer"]["lr"]) == (64, 7, 0.001)
    assert train["data"]["max_tokens"] == 356 and train["model"] == {"pretrained": "google/t5-v1_1-base"}
    assert jobs["examples"]["task"]["llm"] == "palm" and jobs["examples"]["task"]["label_type"] == "llm"
    assert jobs["evaluate"]["examples"].endswith("test_labels.jsonl")
    assert jobs_of(f"{README} --output_rationale")["evaluate"]["examples"].endswith("test.jsonl")
    assert jobs_of(f"{README} --parallelize")["train"]["run"]["zero_stage"] == 3
    standard = jobs_of("--dataset cqa --model_type standard --batch_size 8")
    assert standard["train"]["loss"] == {"objective": "hard_label"} and standard["train"]["run"]["batch_size"] == 8
    assert "llm" not in standard["examples"]["task"]


def test_the_help_says_what_the_length_of_an_input_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a help that promises a bound of the input alone, which no training has."""
    with pytest.raises(SystemExit):
        parse("--help")
    assert "with 256 added: tokens of input and answer together" in " ".join(capsys.readouterr().out.split())


def test_each_combination_of_options_has_a_folder_of_its_own() -> None:
    texts = [
        README,
        *(f"{README} {option}" for option in ("--alpha 0.1", "--run 1", "--lr 1", "--batch_size 2", "--subsample 0.5")),
    ]
    assert len({run_folder(parse(text)) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    "option, message",
    [
        ("--optimizer_name SGD", "AdamW is the only optimizer"),
        ("--alpha 1.5", "a number from 0 to 1"),
        ("--local_rank 2", "Ray starts the ranks"),
        ("--llm captured", "belong together"),
        ("--batch_size 0", "--batch_size 0: give a whole number of at least 1"),
        ("--max_steps -3", "--max_steps -3"),
        ("--eval_steps 0", "--eval_steps 0"),
        ("--gen_max_len 0", "--gen_max_len 0"),
        ("--grad_steps 0", "--grad_steps 0"),
        ("--lr -1", "--lr -1.0: the learning rate"),
        ("--lr nan", "--lr nan"),
        ("--subsample 0", "--subsample 0.0"),
        ("--subsample 20", "--subsample 20.0"),
        ("--run -1", "--run -1"),
        ("--from_pretrained t5-small --from_scratch", "give one of them"),
        ("--dataset generic --llm palm", "no published outputs for generic"),
        ("--dataset svamp --llm own", "svamp has no rationales of its own"),
    ],
)
def test_what_cannot_be_had_is_refused(option: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        jobs_of(f"{README.replace('--from_pretrained google/t5-v1_1-base ', '')} {option}")


@pytest.mark.parametrize(
    "options",
    [
        "--dataset svamp --data nowhere",
        "--dataset synthetic --llm captured --answers nowhere",
        "--dataset synthetic --lr 0",
    ],
)
def test_nothing_is_written_for_a_wrong_option(
    tmp_path: Path, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tmp_path), "step-by-step", *options.split(), "--from_scratch", "--dry-run"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("logitbank: --") and printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_published_option_without_effect_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--dataset synthetic --from_scratch --model_type standard --alpha 0.3 --output_rationale --dry-run"
    assert main(["--root", str(tmp_path), "step-by-step", *options.split()]) == 0
    printed = capsys.readouterr().out
    assert "--alpha has no effect with --model_type standard" in printed and "--output_rationale has no" in printed


def test_a_dry_run_writes_the_files_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "step-by-step --dataset synthetic --from_scratch --max_steps 2 --dry-run"
    assert main(["--root", str(tmp_path), *command.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["examples", "train", "evaluate"]
    assert all(Path(line.split()[3]).is_file() for line in lines)


TINY = "step-by-step --dataset synthetic --from_scratch --max_steps 2"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The job file of a training that has ended."""
    assert main(["--root", str(tmp_path), *TINY.split(), "--dry-run"]) == 0
    (path,) = tmp_path.rglob("jobs/train.toml")
    job = load_job(path, [], TrainSettings, tmp_path.resolve())
    job.output.mkdir()
    write_job(job.output, job)
    (job.output / "training.json").write_text("{}")
    return path


@pytest.mark.parametrize(
    "option, message",
    [
        ("", "contains the work of a job with other settings (run.precision: was 'fp32', now 'bf16')"),
        ("--dry-run", "train.toml: is the job file of the work in outputs"),
    ],
)
def test_a_refused_rerun_leaves_the_job_files(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    """Would catch a job file that no longer says how the student beside it was trained."""
    before = trained.read_bytes()
    assert main(["--root", str(tmp_path), *TINY.split(), "--bf16", *option.split()]) == 2
    assert message in capsys.readouterr().err
    assert trained.read_bytes() == before
    assert main(["--root", str(tmp_path), *TINY.split(), "--dry-run"]) == 0


def test_another_evaluation_is_refused_before_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a training of hours whose answers are then not compared."""
    assert main(["--root", str(tmp_path), *TINY.split(), "--dry-run"]) == 0
    (path,) = tmp_path.rglob("jobs/evaluate.toml")
    job = load_job(path, [], EvaluateSettings, tmp_path.resolve())
    job.output.mkdir()
    write_job(job.output, job)
    (job.output / "student.json").write_text("{}")
    assert main(["--root", str(tmp_path), *TINY.split(), "--gen_max_len", "9"]) == 2
    assert "(generation.max_new_tokens: was 64, now 9)" in capsys.readouterr().err
    assert not (job.output.parent / "examples").exists() and read_toml(path)["generation"]["max_new_tokens"] == 64


def test_an_accepted_job_keeps_its_file_when_it_fails_later(trained: Path, tmp_path: Path) -> None:
    """Would catch a run of more steps whose file says the earlier number."""
    job = read_toml(trained)
    with pytest.raises(KeyboardInterrupt), restored_if_refused({"train": trained}, {"train": job}, tmp_path):
        write_toml(trained, job | {"run": job["run"] | {"steps": 9}}, "comment")
        longer = load_job(trained, [], TrainSettings, tmp_path.resolve())
        write_job(longer.output, longer)
        raise KeyboardInterrupt
    assert read_toml(trained)["run"]["steps"] == 9


def test_a_dry_run_replaces_the_files_of_a_dry_run(tmp_path: Path) -> None:
    for option in ("--dry-run", "--dry-run --bf16"):
        assert main(["--root", str(tmp_path), *TINY.split(), *option.split()]) == 0
    (path,) = tmp_path.rglob("jobs/train.toml")
    assert read_toml(path)["run"]["precision"] == "bf16"
