"""DeepSpeed ranks that are started once for many tiny jobs, because a start costs as much as dozens of jobs."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cache.examples.example import Segment
from cache.examples.tokenizers import tokenizer_digest
from cache.rows.record import Record
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.training.settings import TrainSettings
from tests.cache.rows.rows import VOCAB, random_record

ROOT = Path(__file__).resolve().parents[3]
# Trains one job after the other. Blocks of a few rows, so that the ranks' numbers of blocks differ. Before a job comes
# the file that it has to wait for, or "-".
RANKS = """
import sys, time, traceback
from pathlib import Path
import student.losses.head.fused_loss
student.losses.head.fused_loss.BLOCK_ELEMENTS = 500 * 5
from student.training.settings import TrainSettings
from student.training.train import train
for before, job in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    deadline = time.monotonic() + 300
    while before != "-" and not Path(before).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        train(TrainSettings.model_validate_json(Path(job).read_text()))
    except Exception:
        (Path(job).parent / "error").write_text(traceback.format_exc())
    print("finished", job, flush=True)
"""
LLAMA = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA |= {"num_key_value_heads": 2, "intermediate_size": 48, "tie_word_embeddings": True, "initializer_range": 0.1}
SEGMENTS = {"prompt": 0.0, "rationale": 0.5, "label": 2.0, "response": 1.0}
MIX = {
    "segments": SEGMENTS,
    "terms": [
        {"objective": "forward_kl", "temperature": 2.0, "weight": 0.5},
        {"objective": "hard_label", "weight": 0.2, "segments": {"response": 1.0, "rationale": 0.0, "label": 0.3}},
        {"objective": "reverse_kl", "weight": 0.3},
    ],
}
TOPK = TargetSpec("topk", 16, temperatures=(2.0,))
THRESHOLD = TargetSpec("threshold", threshold=0.05, entropy=True)


@dataclass(frozen=True)
class Job:
    """One run. after: a run that must have finished before this one continues it, or reads from it."""

    settings: TrainSettings
    after: Path | None = None


def start(jobs: Sequence[Job], ranks: int, log: Path) -> "subprocess.Popen[bytes]":
    """The ranks, which train the jobs in order; a job that fails leaves its traceback in `error`."""
    arguments = []
    for number, job in enumerate(jobs):
        output = job.settings.output
        output.mkdir(parents=True, exist_ok=True)
        path = output / f"job-{ranks}-{number}.json"
        path.write_text(job.settings.model_dump_json())
        arguments += [str(job.after / "training.json") if job.after else "-", str(path)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.Popen(
        [*launcher, "--no-python", sys.executable, "-c", RANKS, *arguments],
        cwd=ROOT,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def make_record(rng: np.random.Generator, name: str, prompt: int, response: int, targets: TargetSpec) -> Record:
    """Prompt, rationale, label and response, each of random tokens."""
    record = random_record(rng, name, prompt, response, targets)
    segments = record.tokenized.segments.copy()
    spoken = np.array([Segment.RATIONALE, Segment.LABEL, *[Segment.RESPONSE] * (response - 2)], np.uint8)
    segments[prompt:] = np.sort(spoken)
    tokenized = replace(record.tokenized, segments=segments)
    return replace(record, key=tokenized.key, tokenized=tokenized)


def make_store(
    folder: Path, tiny_model: Path, targets: TargetSpec, count: int, seed: int = 0, longest_response: int = 9
) -> Path:
    """A store of `count` random examples of 7 to 16 tokens: prompts of 4 to 7, responses of 3 to `longest_response`."""
    rng = np.random.default_rng(seed)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer_digest(tokenizer)
    spec = StoreSpec(str(tiny_model), "w", ids, "c", VOCAB, len(tokenizer), "float32", targets, None)
    storage = LocalStorage(folder)
    create_store(storage, spec)
    sizes = rng.integers([4, 3], [8, longest_response + 1], (count, 2)).tolist()
    write_unit(storage, spec, [make_record(rng, f"{seed}-{i}", *size, targets) for i, size in enumerate(sizes)])
    take_snapshot(storage)
    return storage.root


def add_unit(store: Path, count: int) -> None:
    """Let a store grow by a unit and a snapshot."""
    rng, spec = np.random.default_rng(9), LogitStore.open(str(store)).spec
    storage = LocalStorage(store)
    write_unit(storage, spec, [make_record(rng, f"more-{i}", 5, 5, TOPK) for i in range(count)])
    take_snapshot(storage)


def make_pretrained(folder: Path, tiny_model: Path) -> Path:
    """A random Llama that knows every id of the stores, with an LM head of its own."""
    torch.manual_seed(1)
    fields = {name: value for name, value in LLAMA.items() if name not in ("model_type", "tie_word_embeddings")}
    LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, tie_word_embeddings=False, **fields)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(str(folder))
    return folder


def settings_of(output: Path, store: Path, **sections: Any) -> TrainSettings:
    """Four steps of eight examples, a constant rate: so a run of more steps continues one of fewer."""
    run = {"steps": 4, "batch_size": 8, "micro_batch_size": 4, "checkpoint_every": 4, "seed": 3}
    given = {
        "output": output,
        "data": {"store": store, **sections.pop("data", {})},
        "model": {"config": LLAMA, **sections.pop("model", {})},
        "optimizer": {"lr": 0.003, "warmup_steps": 2, "schedule": "constant", **sections.pop("optimizer", {})},
        "run": {**run, **sections.pop("run", {})},
        **sections,
    }
    if "pretrained" in given["model"]:
        given["model"].pop("config")
    if given["data"].get("mixture") or given["data"].get("union"):
        given["data"].pop("store")
    return TrainSettings.model_validate(given)


def metrics(output: Path) -> list[dict[str, Any]]:
    """A line a step."""
    if (output / "error").exists():
        raise AssertionError((output / "error").read_text())
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def curve(output: Path) -> list[list[float | None]]:
    """Objective, each of its terms, and the norm of the gradient, by step."""
    other = {"step", "lr", "tokens", "real_token_share", "skipped_steps", "seconds", "data_wait_seconds"}
    other |= {"tokens_per_s", "memory_mib", "mfu"}
    return [[value for name, value in line.items() if name not in other] for line in metrics(output)]
