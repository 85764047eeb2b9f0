"""Ranks that share the tokens of each example: the same sums, losses and students as one rank."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from cache.errors import InputError
from student.models.attention.sequence_parallel import SequenceGroup, share_sequences
from student.models.build import build_model
from student.models.settings import ModelSettings
from student.training.planning.planner import plan_training
from student.training.planning.stores import OpenStores
from tests.student.training.fleet import PACKED, agree, weights
from tests.student.training.ranks import (
    LLAMA,
    MIX,
    TOPK,
    VOCAB,
    Job,
    curve,
    make_pretrained,
    make_store,
    settings_of,
    start,
)

pytestmark = pytest.mark.slow
STAGES = (0, 1, 2, 3)
FOUR_HEADS = {**LLAMA, "num_attention_heads": 4, "num_key_value_heads": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    """Jobs on one, two and four ranks. Names without a number of ranks are of one."""
    root = tmp_path_factory.mktemp("sequences")
    store = make_store(root / "store", tiny_model, TOPK, 19)
    held = {"store": str(make_store(root / "heldout", tiny_model, TOPK, 11, 3)), "every": 2, "limit": 9}
    pretrained = str(make_pretrained(root / "pretrained", tiny_model))
    jobs: dict[int, list[Job]] = {1: [], 2: [], 4: []}

    def add(name: str, ranks: int, shared: int, **sections: Any) -> None:
        run = {"ranks": ranks, "micro_batch_size": 2, "sequence_parallel": shared, **sections.pop("run", {})}
        jobs[ranks].append(Job(settings_of(root / name, store, loss=MIX, run=run, **sections)))

    kinds: dict[str, dict[str, Any]] = {
        "plain": {"heldout": held, "samples": {"every": 2, "count": 3, "max_new_tokens": 8}},
        "packed": {"data": PACKED, "run": {"micro_batch_size": 1}},
        "lora": {"model": {"pretrained": pretrained, "lora": {"rank": 3}}},
        "checkpointing": {"model": {"config": LLAMA, "gradient_checkpointing": True}},
        "grouped": {"model": {"config": FOUR_HEADS}},
        "bf16": {"run": {"precision": "bf16"}},
    }
    for name, kind in kinds.items():
        add(name, 1, 1, **kind)
        add(f"{name}-2", 2, 2, **kind)
    for stage in STAGES:
        add(f"stage-{stage}", 2, 2, **{**kinds["plain"], "run": {"zero_stage": stage}})
    # Two groups of two ranks, and one group of four.
    add("plain-4", 4, 2, **kinds["plain"])
    add("grouped-4", 4, 4, **kinds["grouped"])
    launches = {ranks: start(each, ranks, root / f"log-{ranks}") for ranks, each in jobs.items()}
    try:
        for ranks, launch in launches.items():
            assert launch.wait(400) == 0, (root / f"log-{ranks}").read_text()[-3000:]
        yield root
    finally:
        for launch in launches.values():
            if launch.poll() is None:
                os.killpg(launch.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        *((f"stage-{stage}", "plain") for stage in STAGES),
        *((f"{kind}-2", kind) for kind in ("plain", "packed", "lora", "checkpointing", "grouped")),
        ("plain-4", "plain"),
        ("grouped-4", "grouped"),
    ],
)
def test_parts_of_examples_are_one_sum(runs: Path, name: str, alone: str) -> None:
    """Would catch tokens that see only their own part, positions that start again, and losses that count twice."""
    agree(curve(runs / name), curve(runs / alone))
    ours, theirs = weights(runs / name), weights(runs / alone)
    for key, weight in ours.items():
        assert (weight - theirs[key]).abs().max() < 5e-5, key


def test_bfloat16_differs_by_its_rounding(runs: Path) -> None:
    agree(curve(runs / "bf16-2"), curve(runs / "bf16"), 0.02)


@pytest.mark.parametrize("name", ["plain-2", "plain-4", "stage-3"])
def test_counts_and_samples_are_those_of_one_rank(runs: Path, name: str) -> None:
    """Would catch examples that count once for each of their parts, and texts of a model that sees a part."""
    ours, theirs = (json.loads((runs / each / "training.json").read_text()) for each in (name, "plain"))
    for key in ("tokens", "examples_without_loss", "best_step", "parameters"):
        assert ours[key] == theirs[key], key
    # Padding to a multiple of the ranks.
    assert 0.7 * theirs["real_token_share"] < ours["real_token_share"] <= theirs["real_token_share"] + 0.15
    texts = [(runs / each / "samples.jsonl").read_text() for each in (name, "plain")]
    assert texts[0] == texts[1]


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"config": {**LLAMA, "num_attention_heads": 1, "num_key_value_heads": 1}}, "1 attention heads"),
        (
            {"config": {"model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2}},
            "'t5'",
        ),
        ({"config": {**LLAMA, "model_type": "mistral", "sliding_window": 8}}, "has windows"),
        # Their factors depend on the highest position, and a rank knows that of its part.
        ({"config": {**LLAMA, "rope_parameters": DYNAMIC}}, "rotary positions of type 'dynamic'"),
    ],
)
def test_models_that_cannot_be_shared_are_refused_before_the_run(
    model: dict[str, Any], message: str, tmp_path: Path, tiny_model: Path
) -> None:
    store = make_store(tmp_path / "store", tiny_model, TOPK, 8)
    settings = settings_of(tmp_path / "run", store, model=model, run={"ranks": 2, "sequence_parallel": 2})
    with pytest.raises(InputError, match=f"run.sequence_parallel = 2.*{message}"):
        plan_training(settings, OpenStores())


def test_settings_that_contradict(tmp_path: Path) -> None:
    for run, more, message in (
        ({"ranks": 3, "sequence_parallel": 2}, {}, "ranks 3 must be a multiple of sequence_parallel = 2"),
        ({"sequence_parallel": 2, "micro_batch_size": 2}, {"data": PACKED}, "in a micro-batch of one row only"),
        ({"sequence_parallel": 2}, {"classes": {"labels": ["a", "b"]}}, "not for .classes."),
    ):
        with pytest.raises(ValidationError, match=message):
            settings_of(tmp_path / "run", tmp_path / "store", run={"batch_size": 12, **run}, **more)


def test_ranks_are_a_multiple_of_those_that_share() -> None:
    run = settings_of(
        Path("run"), Path("store"), run={"sequence_parallel": 4, "batch_size": 6, "micro_batch_size": 1}
    ).run
    assert [run.ranks_for(gpus) for gpus in (0, 1, 4, 7, 8, 12)] == [4, 4, 4, 4, 8, 12]
    assert run.fits_ranks(12) and not run.fits_ranks(6) and not run.fits_ranks(2)
    assert run.micro_batch_of(8) == 1


def test_attention_that_cannot_be_replaced_is_named(tiny_model: Path) -> None:
    fields = {"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2}
    model = build_model(ModelSettings(config=fields), VOCAB, AutoTokenizer.from_pretrained(tiny_model), 0)
    with pytest.raises(InputError, match=r"run.sequence_parallel = 2: the attention of model type 'bloom' cannot be"):
        share_sequences(model, SequenceGroup(None, 0, 2, 0, 1))
