"""What a sweep trains: the trials of its space, their folders, and what is refused before any starts."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cache.errors import InputError
from cache.store.logit_store import LogitStore
from cluster.commands.main import main
from cluster.runtime.job_file import load_job
from cluster.runtime.outputs import locked
from cluster.sweep.comparison import rows_of
from cluster.sweep.driver import preview_sweep
from cluster.sweep.settings import SweepSettings
from cluster.sweep.trial_run import run_trial
from cluster.sweep.trials import Trial, make_trials
from tests.cluster.sweep.jobs import write_jobs
from tests.student.training.ranks import ROOT, TOPK, add_unit, make_store


@pytest.fixture
def root(tmp_path: Path, tiny_model: Path) -> Path:
    make_store(tmp_path / "store", tiny_model, TOPK, 19)
    write_jobs(tmp_path)
    return tmp_path


def sweep_of(root: Path, text: str, *overrides: str) -> SweepSettings:
    (root / "sweep.toml").write_text(f'output = "sweep"\ntrain = "train.toml"\n{text}')
    return load_job(root / "sweep.toml", overrides, SweepSettings, root)


def changes_of(root: Path, text: str) -> list[Any]:
    return [dict(trial.changes) for trial in make_trials(sweep_of(root, text), root, {})[1]]


def test_lists_are_a_grid_in_the_order_of_the_file(root: Path) -> None:
    grid = changes_of(root, '[space]\n"optimizer.lr" = [1e-3, 2e-3]\n"run.seed" = [0, 1]\n')
    assert grid == [{"optimizer.lr": lr, "run.seed": seed} for lr in (1e-3, 2e-3) for seed in (0, 1)]


def test_ranges_are_drawn_with_the_whole_grid_and_again_the_same(root: Path) -> None:
    text = (
        'samples = 5\nseed = 7\n[space]\n"optimizer.lr" = { min = 1e-5, max = 1e-1, log = true }\n'
        '"run.seed" = [0, 1]\n"optimizer.warmup_steps" = { min = 1, max = 4, integer = true }\n'
    )
    trials = changes_of(root, text)
    assert trials == changes_of(root, text) != changes_of(root, text.replace("seed = 7", "seed = 8"))
    rates = [trial["optimizer.lr"] for trial in trials]
    assert len(trials) == 10 and rates[0::2] == rates[1::2] and len(set(rates)) == 5
    assert all(1e-5 <= rate <= 1e-1 for rate in rates) and min(map(math.log10, rates)) < -3
    assert {trial["optimizer.warmup_steps"] for trial in trials} <= {1, 2, 3, 4}
    assert [trial["run.seed"] for trial in trials] == [0, 1] * 5


def test_the_folder_of_a_trial_depends_on_its_changes_alone(root: Path) -> None:
    """So a sweep that grows keeps what was trained."""
    few = make_trials(sweep_of(root, '[space]\n"run.seed" = [1]\n'), root, {})[1]
    many = make_trials(sweep_of(root, 'trials = [{ "optimizer.lr" = 0.1 }, { "run.seed" = 1 }]'), root, {})[1]
    assert few[0].name == many[1].name != many[0].name
    assert few[0].settings.output == root / "sweep/trials" / few[0].name
    assert (few[0].settings.run.seed, many[0].settings.optimizer.lr) == (1, 0.1)


def test_each_trial_has_a_mirror_of_its_own(root: Path) -> None:
    job = root / "train.toml"
    job.write_text(f'mirror = "s3://bucket/sweep/"\n{job.read_text()}')
    trials = make_trials(sweep_of(root, '[space]\n"run.seed" = [0, 1]\n'), root, {})[1]
    assert [trial.settings.mirror for trial in trials] == [f"s3://bucket/sweep/{trial.name}" for trial in trials]


def test_whole_tables_may_be_tried(root: Path) -> None:
    text = '[space]\n"loss" = [{ objective = "forward_kl" }, { objective = "hard_label" }]\n'
    trials = make_trials(sweep_of(root, f'metric = "training_loss"\n{text}'), root, {})[1]
    assert [trial.settings.loss.objective for trial in trials] == ["forward_kl", "hard_label"]


def test_all_trials_read_the_snapshot_of_the_start(root: Path) -> None:
    sweep = sweep_of(root, '[space]\n"run.seed" = [0, 1]\n')
    store = str(root / "store")
    add_unit(root / "store", 5)
    assert LogitStore.open(store).snapshot == 2
    trials = make_trials(sweep, root, {store: 1})[1]
    assert [trial.settings.data.stores[0].snapshot for trial in trials] == [1, 1]
    assert make_trials(sweep, root, {})[1][0].settings.data.stores[0].snapshot == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[space]\n"optimizer.lr" = [1e-3, -1.0]\n', r"train.toml with lr = -1: optimizer.lr: .*greater than 0"),
        ('[space]\n"optimizer.rl" = [1e-3]\n', "unknown key 'optimizer.rl'; valid keys: .*lr"),
        ('[space]\n"run.seed" = []\n', "space.run.seed: has no values"),
        ('[space]\n"run.seed" = { min = 3, max = 3 }\n', "max must be greater than min"),
        ('[space]\n"output" = ["a"]\n', "each has a folder of its own"),
        ('trials = [{ "run.seed" = 1 }, { "run.seed" = 1 }]', r"two trials have the same changes \(seed = 1\)"),
        ("", "give exactly one of 'space' and 'trials'"),
        ('samples = 3\n[space]\n"run.seed" = [0]\n', "samples has no effect"),
        ('metric = "accuracy"\n[space]\n"run.seed" = [0]\n', "metric 'accuracy': without 'evaluate' it is one of"),
        ('early_stopping = "pbt"\n[space]\n"run.seed" = [0]\n', "early_stopping"),
        ('early_stopping_options = { a = 1 }\n[space]\n"run.seed" = [0]\n', "there is no 'early_stopping'"),
        ('search = "grid"\n[space]\n"run.seed" = [0]\n', "unknown algorithm 'grid'; valid values: .*optuna"),
        (
            'early_stopping = "asha"\nearly_stopping_options = { grace = 1 }\n[space]\n"run.seed" = [0]\n',
            "early_stopping_options.grace: is unknown; valid keys: .*grace_period",
        ),
        ('[space]\n"run" = [1]\n"run.seed" = [0]\n', "sweep, key 'run.seed': 'run' is a value, not a table"),
        (
            '[space]\n"loss" = [{ objective = "forward_kl" }, { objective = "hard_label" }]\n',
            "the trials have different losses, so their losses cannot be compared",
        ),
        (
            'trials = [{ "data.max_tokens" = 10 }, { "data.max_tokens" = 20 }]',
            "the trials have different held-out examples",
        ),
        (
            'trials = [{ "run.seed" = 1 }, { "model.config.num_attention_heads" = 7 }]',
            "sweep: trial with num_attention_heads = 7: ",
        ),
        ('[space]\n"run.ranks" = [1, 2]\n', "run.ranks: all trials of a sweep take the same"),
        ('metric = "training_loss"\ntrials = [{ "data.max_tokens" = 2 }]', "sweep: trial with max_tokens = 2: "),
        ('[space]\n"optimizer.lr" = { min = 1, max = nan }\n', "space: optimizer.lr.max: "),
        ('[space]\n"optimizer.lr" = 3\n', r"space: optimizer.lr: give a list, or a table \{ min, max \} \(given 3\)"),
        (
            'early_stopping = "asha"\nearly_stopping_options = { grace_period = 40, max_t = 4 }\n'
            'trials = [{ "run.seed" = 1 }]',
            "early_stopping_options: grace_period must be <= max_t",
        ),
        ('evaluate = "nothing.toml"\n[space]\n"run.seed" = [0]\n', "nothing.toml: no such file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    root: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ([], ["--dry-run"]):
        (root / "sweep.toml").write_text(f'output = "sweep"\ntrain = "train.toml"\n{text}')
        assert main(["--root", str(root), "sweep", str(root / "sweep.toml"), *options]) == 2
        assert re.search(message, error := capsys.readouterr().err), error
        assert error.count("\n") == 1 and not (root / "sweep").exists()


def test_equal_draws_are_one_trial(root: Path) -> None:
    text = 'samples = 9\n[space]\n"optimizer.warmup_steps" = { min = 1, max = 3, integer = true }\n'
    assert sorted(trial["optimizer.warmup_steps"] for trial in changes_of(root, text)) == [1, 2, 3]


def test_rows_are_of_equal_changes_and_not_of_equal_labels() -> None:
    rates = (0.00123410, 0.0012341000001)
    trials = [
        Trial({"optimizer.lr": rate, "run.seed": 0}, settings=SimpleNamespace(output=Path(str(rate)))) for rate in rates
    ]  # type: ignore[arg-type]
    metrics = {trial.name: {"heldout_loss": float(number)} for number, trial in enumerate(trials)}
    rows = rows_of(trials, metrics, {})
    assert [row.metrics["heldout_loss"] for row in rows] == [0.0, 1.0]


def test_a_folder_is_of_one_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cluster.runtime.outputs import locked\n"
        "with locked(Path(sys.argv[1])): pass"
    )
    with locked(tmp_path / "sweep"):
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "sweep")], cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert other.returncode and f"process {os.getpid()} on " in other.stderr and "works in it; wait" in other.stderr
    with locked(tmp_path / "sweep"):
        pass


def test_a_training_without_heldout_examples_has_nothing_to_be_ordered_by(root: Path) -> None:
    job = (root / "train.toml").read_text()
    (root / "train.toml").write_text(job[: job.index("[heldout]")])
    with pytest.raises(InputError, match=r"the training has no \[heldout\]"):
        preview_sweep(sweep_of(root, '[space]\n"run.seed" = [0]\n'), root)
    assert "1 trials, 1 to run" in preview_sweep(
        sweep_of(root, 'metric = "training_loss"\n[space]\n"run.seed" = [0]\n'), root
    )


def test_a_dry_run_lists_the_trials(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep_of(root, '[space]\n"optimizer.lr" = [1e-3, 2e-3]\n"run.seed" = [0, 1]\n')
    assert main(["--root", str(root), "sweep", str(root / "sweep.toml"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "4 trials, 4 to run:\nlr = 0.001, seed = 0\n" in printed and "steps of 8 examples on 1 rank" in printed
    assert not (root / "sweep").exists()


def test_every_size_of_a_step_is_checked(root: Path) -> None:
    """Would catch trials that are planned once because their data are the same."""
    job = (root / "train.toml").read_text()
    (root / "train.toml").write_text(job.replace("batch_size = 8", "batch_tokens = 90", 1))
    sweep = sweep_of(root, '[space]\n"run.batch_tokens" = [2000, 3]\n')
    with pytest.raises(InputError, match=r"batch_tokens = 3.*the longest example has"):
        preview_sweep(sweep, root)


def test_a_student_without_a_finite_loss_is_the_worst(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker, trials = make_trials(sweep_of(root, '[space]\n"run.seed" = [0]\n'), root, {})
    monkeypatch.setattr("cluster.sweep.trial_run.run_training", lambda *_: {"steps": 12, "best_loss": None})
    assert run_trial({"number": 0}, maker, [dict(trials[0].changes)]) == {"step": 12, "heldout_loss": math.inf}
