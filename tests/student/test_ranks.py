"""The sum over a step does not depend on ranks, ZeRO stage or micro-batches; a kill changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from cache.commits import create_store
from cache.record import Record
from cache.rendering import tokenizer_digest
from cache.snapshots import take_snapshot
from cache.spec import StoreSpec, TargetSpec
from cache.storage import LocalStorage
from cache.writer import write_unit
from student.config import TrainSettings
from tests.conftest import VOCAB

ROOT = Path(__file__).resolve().parents[2]
RANK = "import sys; from student.config import TrainSettings; from student.train import train; "
RANK += "train(TrainSettings.model_validate_json(open(sys.argv[1]).read()))"


@pytest.fixture
def store(tmp_path: Path, tiny_model: Path, make_records: Callable[..., list[Record]]) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids, targets = tokenizer_digest(tokenizer), TargetSpec("topk", 16)
    spec = StoreSpec(str(tiny_model), "w", ids, "c", VOCAB, len(tokenizer), "float32", targets, None)
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    write_unit(storage, spec, [*make_records(10), *make_records(9, seed=1, prompt=7, response=3)])
    take_snapshot(storage)
    return storage.root


def settings(store: Path, output: Path, **run: Any) -> TrainSettings:
    model = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model |= {"num_key_value_heads": 2, "intermediate_size": 48, "tie_word_embeddings": True}
    return TrainSettings.model_validate(
        {
            "output": output,
            "data": {"store": store},
            "model": {"config": model},
            "optimizer": {"lr": 0.003, "warmup_steps": 2},
            "run": {"steps": 4, "batch_size": 8, "checkpoint_every": 2, **run},
        }
    )


def start(job: TrainSettings) -> "subprocess.Popen[bytes]":
    job.output.mkdir(parents=True, exist_ok=True)
    (job.output / "job.json").write_text(job.model_dump_json())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.run.ranks}"]
    return subprocess.Popen(
        [*launcher, "--no-python", sys.executable, "-c", RANK, str(job.output / "job.json")],
        cwd=ROOT,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=(job.output / "log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def curve(output: Path) -> list[tuple[float, float, float | None]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [(line["objective"], line["hard_label"], line["gradient_norm"]) for line in lines]


def test_ranks_stages_and_micro_batches_agree(store: Path, tmp_path: Path) -> None:
    assert start(settings(store, tmp_path / "one", ranks=1, micro_batch_size=8, zero_stage=1)).wait() == 0
    reference = curve(tmp_path / "one")
    assert len(reference) == 4
    for stage in (0, 2, 3):
        output = tmp_path / f"two-{stage}"
        assert start(settings(store, output, ranks=2, micro_batch_size=2, zero_stage=stage)).wait() == 0
        for ours, wanted in zip(curve(output), reference, strict=True):
            told = 2 if stage == 0 else 3  # no gradient norm there
            assert ours[:told] == pytest.approx(wanted[:told], rel=2e-4)
        model = AutoModelForCausalLM.from_pretrained(output / "model")
        assert model.num_parameters() == json.loads((output / "training.json").read_text())["parameters"]


def test_a_killed_run_continues_bit_exactly(store: Path, tmp_path: Path) -> None:
    undisturbed = settings(store, tmp_path / "whole", ranks=2, micro_batch_size=4, steps=60)
    assert start(undisturbed).wait() == 0
    killed = settings(store, tmp_path / "killed", ranks=2, micro_batch_size=4, steps=60)
    process = start(killed)
    progress = killed.output / "checkpoints" / "progress.json"
    while process.poll() is None and not progress.exists():
        time.sleep(0.02)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed.output / "training.json").exists(), "the kill came too late to test anything"
    assert start(killed).wait() == 0
    assert curve(killed.output) == curve(undisturbed.output)
