"""A run is the same sum whatever ranks, ZeRO stage, micro-batches, packing and interruptions; and it keeps its best.

All jobs but those that are killed are trained by two launches, of one and of two ranks, which run side by side.
"""

import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event
from transformers import AutoTokenizer

from student.data.batches import LanguageBatches
from student.losses.normalisation import objective_weights, sum_row_weights
from student.losses.weighted_objectives import WeightedObjectives
from student.models.build import load_student
from student.models.loss_model import LossModel
from student.models.rows.layout import PADDED
from student.training.engine.schedule import rate_factor
from student.training.planning.examples import open_examples
from student.training.planning.stores import OpenStores
from student.training.planning.vocabulary import Vocabulary
from student.training.settings import HeldoutSettings, TrainSettings
from tests.student.training.fleet import LIMIT, NARROWED, PACKED, STAGES, WIDENED, Fleet, agree, jobs_of, weights
from tests.student.training.ranks import (
    MIX,
    VOCAB,
    Job,
    settings_of,
    start,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Fleet]:
    root = tmp_path_factory.mktemp("fleet")
    one, two = jobs_of(root, tiny_model)
    launches = {ranks: start(jobs, ranks, root / f"log-{ranks}") for ranks, jobs in ((1, one), (2, two))}
    try:
        codes = {ranks: launch.wait(LIMIT) for ranks, launch in launches.items()}
        for ranks, code in codes.items():
            assert code == 0, (root / f"log-{ranks}").read_text()[-3000:]
        yield Fleet(root, root / "heldout")
    finally:
        for launch in launches.values():
            if launch.poll() is None:
                os.killpg(launch.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "name",
    [
        *(f"{kind}-{stage}" for kind in ("mix", "packed") for stage in STAGES),
        "packed-rows",
        "packed-offload",
        "checkpointing",
    ],
)
def test_a_step_is_one_sum(fleet: Fleet, name: str) -> None:
    """Would catch an average over ranks or micro-batches of unlike size, and one N for terms that count differently."""
    agree(fleet.curve(name), fleet.curve("one-mix"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_rank_without_examples_changes_nothing(fleet: Fleet, stage: int) -> None:
    """Would catch a stand-in that has a loss, a mean that counts it, and a rank that waits for the others for ever."""
    agree(fleet.curve(f"tiny-{stage}"), fleet.curve("one-tiny"))
    tokens = [line["tokens"] for line in fleet.metrics(f"tiny-{stage}")]
    assert tokens == [line["tokens"] for line in fleet.metrics("one-tiny")]


def test_a_run_that_is_evaluated_at_its_start_is_the_same_run(fleet: Fleet) -> None:
    """Its line of step 0 has the held-out loss of the untrained student, which is not the best one."""
    first, *lines = fleet.metrics("at-start")
    assert (first["step"], first["objective"]) == (0, None) and first["heldout_objective"] > 0
    for name in ("objective", "heldout_objective"):
        expected = [line[name] for line in fleet.metrics("two-heldout") if name in line]
        assert [line[name] for line in lines if name in line] == pytest.approx(expected, rel=1e-6)
    assert json.loads((fleet.root / "at-start" / "training.json").read_text())["best_step"] in (2, 4)


def test_packed_rows_give_the_same_heldout_loss(fleet: Fleet) -> None:
    agree(fleet.curve("packed-heldout"), fleet.curve("one-heldout"))


def test_the_share_of_real_tokens_is_in_the_metrics(fleet: Fleet) -> None:
    """Would catch padding that counts as real, and a share of the last step in place of the run's."""
    for name, lowest in (("packed-2", 1.0), ("packed-rows", 0.9), ("mix-2", 0.8)):
        shares = [line["real_token_share"] for line in fleet.metrics(name)]
        result = json.loads((fleet.root / name / "training.json").read_text())
        assert min(shares) >= lowest and min(shares) <= result["real_token_share"] <= max(shares) <= 1
    assert max(line["real_token_share"] for line in fleet.metrics("mix-2")) < 1


@pytest.mark.parametrize(
    "name", ["threshold", "weighted", "tf32", "lora", "lora-head", "dora", "qlora", "t5", "gpt2", "mixture", "heldout"]
)
def test_two_ranks_agree_with_one(fleet: Fleet, name: str) -> None:
    """At ZeRO-3 but for stores of estimates and mixtures. Would catch weights that a rank never gathers or updates."""
    agree(fleet.curve(f"two-{name}"), fleet.curve(f"one-{name}"))
    assert len({line[0] for line in fleet.curve(f"one-{name}")}) == 4, "nothing was learned"
    ours, theirs = (weights(fleet.root / f"{ranks}-{name}") for ranks in ("two", "one"))
    assert ours.keys() == theirs.keys()
    for key, weight in ours.items():
        # No gradient reaches the bias of keys but rounding, which Adam blows up.
        assert "c_attn.bias" in key or torch.allclose(weight, theirs[key], atol=2e-5), key


@pytest.mark.parametrize("name, plain", [("offload-optimizer", "mix-2"), ("offload-all", "mix-3")])
def test_offloading_changes_nothing(fleet: Fleet, name: str, plain: str) -> None:
    agree(fleet.curve(name), fleet.curve(plain), 1e-6)
    ours, theirs = weights(fleet.root / name), weights(fleet.root / plain)
    assert all(torch.allclose(weight, theirs[key], atol=1e-6) for key, weight in ours.items())


def test_bf16_learns(fleet: Fleet) -> None:
    """Would catch gradients that round to nothing."""
    objectives = [line[0] for line in fleet.curve("bf16")]
    assert len(objectives) == 30 and objectives[-1] is not None and objectives[0] is not None
    assert objectives[-1] < 0.85 * objectives[0]
    assert objectives[0] == pytest.approx(fleet.curve("one-mix")[0][0], rel=0.01)


@pytest.mark.parametrize(
    "kind, stage", [*(("bf16", stage) for stage in (0, 1, 2, 3)), *(("qlora", stage) for stage in (0, 1, 2))]
)
def test_bf16_continues_bit_exactly(fleet: Fleet, kind: str, stage: int) -> None:
    """From a checkpoint after step 4. Would catch float32 originals that are rounded there."""
    assert fleet.curve(f"{kind}-cut-{stage}") == fleet.curve(f"{kind}-whole-{stage}")
    agree(fleet.curve(f"{kind}-whole-{stage}"), fleet.curve(f"{kind}-whole-0"), 0.02)
    cut, whole = (weights(fleet.root / f"{kind}-{way}-{stage}") for way in ("cut", "whole"))
    assert all(torch.equal(weight, whole[key]) for key, weight in cut.items())
    config = json.loads((fleet.root / f"{kind}-cut-{stage}" / "model" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


def test_adapters_learn_and_the_rest_stays(fleet: Fleet) -> None:
    """Would catch adapters that are not merged, and full fine-tuning under another name."""
    before = weights(fleet.root, "pretrained")
    for name, adapted in (("lora", "mlp.up_proj"), ("lora-head", "lm_head")):
        after = weights(fleet.root / f"two-{name}")
        moved = {key for key, weight in after.items() if not torch.equal(weight, before[key])}
        assert any(adapted in key for key in moved)
        assert not any("embed" in key or "norm" in key for key in moved)
        assert ("lm_head.weight" in moved) == (name == "lora-head")
        result = json.loads((fleet.root / f"two-{name}" / "training.json").read_text())
        assert 0 < result["trained_parameters"] < result["parameters"] / 4
        assert (fleet.root / f"two-{name}" / "model" / "adapter" / "adapter_config.json").is_file()


def test_a_student_is_saved_in_the_dtype_of_the_job(fleet: Fleet) -> None:
    """Would catch a run that is trained in it."""
    assert fleet.curve("saved-bf16") == fleet.curve("one-mix")
    whole = weights(fleet.root / "one-mix")
    for key, weight in weights(fleet.root / "saved-bf16").items():
        assert weight.dtype == torch.bfloat16 and torch.equal(weight, whole[key].bfloat16()), key


def test_weights_in_4_bits_are_saved_as_weights(fleet: Fleet) -> None:
    """The student has the rounded weights that it was trained with, and their number. Would catch the packed bytes."""
    result = json.loads((fleet.root / "two-qlora" / "training.json").read_text())
    before, after = weights(fleet.root, "pretrained"), weights(fleet.root / "two-qlora")
    assert result["parameters"] == sum(weight.numel() for weight in before.values())
    assert {key for key, weight in after.items() if torch.equal(weight, before[key])} == {
        key for key in before if "proj" not in key
    }
    agree(fleet.curve("two-qlora"), fleet.curve("two-lora"), 0.2)


@pytest.mark.parametrize(
    "way, stage", [*(("narrowed", stage) for stage in NARROWED), *(("widened", stage) for stage in WIDENED)]
)
def test_other_ranks_continue_a_run(fleet: Fleet, way: str, stage: int) -> None:
    """2 to 1 and 1 to 2 after step 4. Would catch lost optimizer states, rates, and examples seen twice or never."""
    agree(fleet.curve(f"{way}-{stage}"), fleet.curve("eight"), 1e-3)
    rates = [line["lr"] for line in fleet.metrics(f"{way}-{stage}")]
    assert rates == pytest.approx([line["lr"] for line in fleet.metrics("eight")])
    tokens = [line["tokens"] for line in fleet.metrics(f"{way}-{stage}")]
    assert tokens == [line["tokens"] for line in fleet.metrics("eight")]


def test_other_micro_batches_continue_a_run(fleet: Fleet) -> None:
    """Would catch a checkpoint that counts micro-batches."""
    agree(fleet.curve("regrouped"), fleet.curve("eight"), 1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_rates_follow_the_schedule(fleet: Fleet, schedule: str) -> None:
    """Would catch a schedule of another length, one that counts micro-batches, and a rate told for another step."""
    lines = fleet.metrics(f"schedule-{schedule}")
    optimizer = settings_of(fleet.root, fleet.root, optimizer={"schedule": schedule}).optimizer
    wanted = [0.003 * rate_factor(step, optimizer, 7) for step in range(7)]
    assert [line["lr"] for line in lines] == pytest.approx(wanted)
    assert lines[0]["lr"] == 0.0015 and wanted[-1] < 0.001


def test_the_best_student_is_kept(fleet: Fleet) -> None:
    """Would catch a model of the last step, a best one that is told wrongly, and patience that has no end."""
    output = fleet.root / "patient"
    lines, result = fleet.metrics("patient"), json.loads((output / "training.json").read_text())
    losses = {line["step"]: line["heldout_objective"] for line in lines if "heldout_objective" in line}
    assert list(losses) == list(range(2, len(lines) + 1, 2))
    best = min(losses, key=lambda step: losses[step])
    assert (result["best_step"], result["best_loss"]) == (best, losses[best])
    assert len(lines) == best + 2 * 2 < 60, "two evaluations without a better one"
    assert heldout_loss(output / "model", settings_of(output, fleet.root / "store", loss=MIX), fleet.heldout) == (
        pytest.approx(losses[best], rel=1e-4)
    )
    assert heldout_loss(output / "model", settings_of(output, fleet.root / "store", loss=MIX), fleet.heldout) != (
        pytest.approx(losses[len(lines)], rel=1e-2)
    )
    assert f"step {best}" in (output / "model" / "README.md").read_text()
    assert not (output / "best").exists()


def test_a_run_that_diverges_ends_and_keeps_its_checkpoint(fleet: Fleet) -> None:
    """Would catch a run that goes on with NaN, or writes checkpoints and a student of it."""
    output = fleet.root / "diverging"
    error = (output / "error").read_text()
    assert re.search(r"DivergenceError: steps 2 to 6: .*last good checkpoint is \S*step-1;", error), error[-500:]
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped_steps"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert lines[0]["objective"] is not None and {line["gradient_norm"] for line in lines[1:]} == {None}
    assert [path.name for path in (output / "checkpoints").glob("step-*")] == ["step-1"]
    assert not (output / "model").exists() and not (output / "training.json").exists()


def test_metrics_reach_tensorboard(fleet: Fleet) -> None:
    """Would catch a scalar under another step or name; metrics.jsonl holds one line a step."""
    lines = fleet.metrics("patient")
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    names = {"objective", "forward_kl_T2", "hard_label", "reverse_kl", "lr", "gradient_norm", "tokens", "seconds"}
    assert names < set(lines[0])
    board = scalars(fleet.root / "patient" / "tensorboard")
    for line in lines:
        for name, value in line.items():
            if name != "step" and value is not None:
                assert board[name][line["step"]] == pytest.approx(value, rel=1e-6)


def test_a_killed_run_continues_bit_exactly(fleet: Fleet, tiny_model: Path) -> None:
    """Two kills at random moments. Would catch state that a checkpoint does not hold, and a checkpoint that is torn."""
    whole = settings_of(
        fleet.root / "killed",
        fleet.root / "store",
        loss=MIX,
        data=PACKED,
        run={"ranks": 2, "micro_batch_size": 1, "steps": 60, "checkpoint_every": 2},
    )
    progress, chance = whole.output / "checkpoints" / "progress.json", random.Random(0)
    for least in (2, 10):
        process = start([Job(whole)], 2, fleet.root / "log-killed")
        while process.poll() is None and not (progress.exists() and json.loads(progress.read_text())["step"] >= least):
            time.sleep(0.02)
        time.sleep(chance.uniform(0.0, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (whole.output / "training.json").exists(), "the kill came too late to test anything"
    assert start([Job(whole)], 2, fleet.root / "log-killed").wait(LIMIT) == 0
    assert fleet.curve("killed") == fleet.curve("whole-60")


def heldout_loss(folder: Path, settings: TrainSettings, store: Path) -> float:
    """Of a saved student on the first 9 examples, at once and in one process."""
    student = load_student(str(folder), VOCAB)
    held = HeldoutSettings(store=str(store)).as_data(settings.data)
    source = open_examples(held, settings, Vocabulary(AutoTokenizer.from_pretrained(folder), VOCAB), OpenStores())
    objectives = WeightedObjectives.of(settings.loss, source.form)
    batch = LanguageBatches(source, objectives, PADDED).batch(range(9))
    with torch.no_grad():
        parts = LossModel(student, objectives)(batch, torch.ones(3)).parts
    return float((parts.double() / sum_row_weights([batch]) * objective_weights(objectives)).sum())


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Values by name and step of TensorBoard's event files: records of length, its checksum, bytes, their checksum."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            length = int(np.frombuffer(content, "<u8", 1, at)[0])
            event = Event.FromString(content[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            at += 16 + length
    return found
