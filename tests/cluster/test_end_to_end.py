"""The whole system, nothing faked: molecules -> teacher -> two vLLM engines in Ray -> store -> two DeepSpeed ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache.store.logit_store import LogitStore
from student.evaluation.language_model import teacher_loss
from tests.models import SMALL_MOLECULES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "cluster" / "jobs" / "demo"
SMALL = ["hidden_size=64", "num_hidden_layers=2", "num_attention_heads=2", "num_key_value_heads=2"]
MODEL = [f"model.config.{field}" for field in [*SMALL, "intermediate_size=96"]]
RUN = ["run.steps=6", "run.batch_size=8", "run.micro_batch_size=4", "run.checkpoint_every=2"]


def command(root: Path, *arguments: str, overrides: list[str] | None = None) -> list[str]:
    sets = [part for override in overrides or [] for part in ("--set", override)]
    return [sys.executable, "-m", "cluster.commands.main", "--root", str(root), *arguments, *sets]


def logitbank(root: Path, *arguments: str, overrides: list[str] | None = None) -> str:
    run = subprocess.run(
        command(root, *arguments, overrides=overrides), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples and a teacher, by the same commands as in the demo."""
    root = tmp_path_factory.mktemp("run")
    (root / "molecules.smi").write_text("\n".join(SMALL_MOLECULES))
    task = [f"task.molecules={root / 'molecules.smi'}", "task.similarity=0.2", "task.heldout_share=0.3"]
    logitbank(root, "examples", str(JOBS / "examples.toml"), overrides=task)
    logitbank(root, "train", str(JOBS / "teacher.toml"), overrides=[*MODEL, *RUN, "tokenizer.vocab_size=320"])
    return root


@pytest.mark.parametrize("step", ["capture", "students", "evaluation"])
def test_demo_in_small(place: Path, step: str) -> None:
    """Three acts of one run, in order."""
    {"capture": capture_act, "students": student_act, "evaluation": evaluation_act}[step](place)


def capture_act(place: Path) -> None:
    overrides = ["limit=24", "unit_size=4", "targets.k=16", "generation.examples=6", "generation.max_new_tokens=12"]
    # Killed as soon as something is committed: the second run does the rest, and only the rest.
    first = subprocess.Popen(
        command(place, "capture", str(JOBS / "capture.toml"), overrides=overrides),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    commits = place / "runs/demo/store/commits"
    while first.poll() is None and not (commits.is_dir() and list(commits.glob("*.json"))):
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    told = logitbank(place, "capture", str(JOBS / "capture.toml"), overrides=overrides)
    assert "quarantine" in told
    again = logitbank(place, "capture", str(JOBS / "capture.toml"), overrides=overrides)
    assert "0 examples and 0 tokens captured now" in again
    logitbank(place, "capture", str(JOBS / "heldout.toml"), overrides=["limit=8", "targets.k=16", "actors=1"])
    store = LogitStore.open(str(place / "runs/demo/store"))
    origins = store.info().origins
    assert origins["scored"] == 24
    assert 1 <= origins["generated"] <= 6
    for record in store:
        spoken = record.tokenized.prompt_length
        counts = record.targets.counts
        assert not counts[: spoken - 1].any() and (counts[spoken - 1 : -1] == 16).all() and counts[-1] == 0
        assert (record.token_logprobs[spoken:] <= 0).all()
    assert "sound" in logitbank(place, "verify", "runs/demo/store")


def student_act(place: Path) -> None:
    student = [str(JOBS / "student.toml")]
    told = logitbank(place, "train", *student, overrides=[*MODEL, *RUN])
    assert "6 steps" in told
    hard = ["output=runs/demo/ce", "loss.objective=hard_label"]
    logitbank(place, "train", *student, overrides=[*MODEL, *RUN, *hard])
    curves = {}
    for name in ("kd", "ce"):
        lines = (place / f"runs/demo/{name}/metrics.jsonl").read_text().splitlines()
        curves[name] = [json.loads(line) for line in lines]
    assert [line["tokens"] for line in curves["kd"]] == [line["tokens"] for line in curves["ce"]]
    # The same weights see the same batches: only what they are asked for differs.
    assert "forward_kl" in curves["kd"][0] and "hard_label" in curves["ce"][0]
    assert curves["kd"][-1]["objective"] < curves["kd"][0]["objective"]
    changed = subprocess.run(
        command(place, "train", *student, overrides=[*MODEL, *RUN, "run.seed=5"]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert changed.returncode == 2 and "run.seed: was 0, now 5" in changed.stderr


def evaluation_act(place: Path) -> None:
    logitbank(
        place,
        "evaluate",
        str(JOBS / "evaluate.toml"),
        overrides=["generation.prompts=4", "generation.max_new_tokens=16"],
    )
    told = logitbank(place, "report", str(JOBS / "report.toml"))
    assert "heldout_loss" in told and "bytes/token" in told
    results = json.loads((place / "runs/demo/results.json").read_text())
    for model in ("teacher", "kd", "ce"):
        for metric in ("heldout_loss", "kl_to_teacher", "top1_agreement", "validity", "hit_ratio_all"):
            assert f"{model}_{metric}" in results
    assert results["captured_tokens"] > 0 and results["stage_seconds"]["train kd"] > 0
    # The teacher, held against its own targets through another engine: only rounding is left.
    assert results["teacher_kl_to_teacher"] < 2e-3
    assert results["teacher_top1_agreement"] > 0.99
    heldout = LogitStore.open(str(place / "runs/demo/heldout"))
    assert results["teacher_heldout_loss"] == pytest.approx(teacher_loss(heldout), abs=4e-3)
    page = (place / "runs/demo/report.html").read_text()
    assert page.count("<svg") >= 6 and page.count("after 6 steps") == 3 * 2  # prompts and runs
    assert "src=" not in page and "<link" not in page and "@import" not in page, "the page must need no other file"
