"""The jobs of tests.student.training.test_training: many tiny ones, which two launches of ranks train."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tests.student.training.ranks import (
    LLAMA,
    MIX,
    THRESHOLD,
    TOPK,
    Job,
    curve,
    make_pretrained,
    make_store,
    metrics,
    settings_of,
)

T5 = {"model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
T5 |= {"decoder_start_token_id": 0, "initializer_factor": 0.5}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.1}
MORE = ["q_proj", "v_proj", "lm_head"]
STAGES = (0, 1, 2, 3)
PACKED = {"pack_to": 20}
TINY = {"batch_size": 1, "micro_batch_size": 1}
# Stages of runs that go from two ranks to one, and back. A conversion takes seconds, but for stage 0.
NARROWED, WIDENED = (2, 3), (0, 1, 3)
LIMIT = 400


@dataclass(frozen=True)
class Fleet:
    """Where the jobs' outputs and inputs are."""

    root: Path
    heldout: Path

    def curve(self, name: str) -> list[list[float | None]]:
        return curve(self.root / name)

    def metrics(self, name: str) -> list[dict[str, Any]]:
        return metrics(self.root / name)


def jobs_of(root: Path, tiny_model: Path) -> tuple[list[Job], list[Job]]:
    """Those of one rank, and those of two."""
    store, other = make_store(root / "store", tiny_model, TOPK, 19), make_store(root / "other", tiny_model, TOPK, 7, 1)
    estimates = make_store(root / "estimates", tiny_model, THRESHOLD, 12, 2)
    make_store(root / "heldout", tiny_model, TOPK, 11, 3)
    pretrained = str(make_pretrained(root / "pretrained", tiny_model))
    heldout = {"store": str(root / "heldout"), "every": 2, "limit": 9}
    mixture = {"mixture": [{"store": str(store), "weight": 3.0}, {"store": str(other), "weight": 1.0}]}

    def job(name: str, ranks: int, after: str | None = None, of: Path = store, **sections: Any) -> Job:
        sections.setdefault("loss", MIX)
        sections["run"] = {"ranks": ranks, "micro_batch_size": 4 if ranks == 1 else 2, **sections.get("run", {})}
        return Job(settings_of(root / name, of, **sections), None if after is None else root / after)

    def lora(modules: Any) -> dict[str, Any]:
        return {"pretrained": pretrained, "lora": {"rank": 3, "target_modules": modules}}

    kinds: dict[str, dict[str, Any]] = {
        "mix": {},
        "threshold": {"of": estimates, "loss": {}},
        "weighted": {"of": estimates, "loss": {"perplexity_power": -0.5, "min_student_entropy": 4.0}},
        "tf32": {"precision": "tf32"},
        "lora": {"model": lora("all-linear")},
        "lora-head": {"model": lora(MORE)},
        "dora": {"model": lora("all-linear") | {"lora": {"rank": 3, "dora": True}}},
        "qlora": {"model": lora("all-linear") | {"lora": {"rank": 3, "quantise": "nf4"}}},
        "t5": {"model": {"config": T5}},
        "gpt2": {"model": {"config": GPT2}},
        "mixture": {"data": mixture},
        "heldout": {"heldout": heldout},
    }
    saved = job("saved-bf16", 1, run={"zero_stage": 1, "save_dtype": "bf16"})
    runs = {name: {"precision": kind.pop("precision", "fp32")} for name, kind in kinds.items()}
    one = [saved] + [job(f"one-{name}", 1, run={**runs[name], "zero_stage": 1}, **kinds[name]) for name in kinds]
    two = [job(f"mix-{stage}", 2, run={"zero_stage": stage}) for stage in STAGES]
    stages = {
        "threshold": 2,
        "weighted": 3,
        "tf32": 0,
        "lora": 3,
        "lora-head": 3,
        "dora": 2,
        "qlora": 2,
        "t5": 3,
        "gpt2": 3,
        "mixture": 2,
        "heldout": 3,
    }
    two += [
        job(f"two-{name}", 2, run={**runs[name], "zero_stage": stage}, **kinds[name]) for name, stage in stages.items()
    ]
    two += [
        # Steps of two and of three micro-batches of one row, and of one whose second rank has no example.
        *(job(f"packed-{stage}", 2, data=PACKED, run={"zero_stage": stage, "micro_batch_size": 1}) for stage in STAGES),
        *(job(f"tiny-{stage}", 2, data=PACKED, run=TINY | {"zero_stage": stage}) for stage in STAGES),
        job("packed-rows", 2, data={"pack_to": 40}),
        job("packed-heldout", 2, data=PACKED, heldout=heldout, run={"zero_stage": 3, "micro_batch_size": 1}),
        job("at-start", 2, heldout={**heldout, "at_start": True}, run={"zero_stage": 3}),
        job("packed-offload", 2, data=PACKED, run={"zero_stage": 2, "offload": "optimizer"}),
        job("checkpointing", 2, model={"config": LLAMA, "gradient_checkpointing": True}),
        job("offload-optimizer", 2, run={"zero_stage": 2, "offload": "optimizer"}),
        job("offload-all", 2, run={"zero_stage": 3, "offload": "all"}),
        job("bf16", 2, run={"zero_stage": 1, "precision": "bf16", "steps": 30}, optimizer={"lr": 0.01}),
        job("whole-60", 2, data=PACKED, run={"steps": 60, "checkpoint_every": 2, "micro_batch_size": 1}),
    ]
    for stage in (0, 1, 2, 3):
        half = {"zero_stage": stage, "precision": "bf16"}
        two += [job(f"bf16-whole-{stage}", 2, run={**half, "steps": 8})]
        two += [job(f"bf16-cut-{stage}", 2, run={**half, "steps": steps}) for steps in (4, 8)]
        if stage < 3:
            two += [job(f"qlora-whole-{stage}", 2, run={**half, "steps": 8}, **kinds["qlora"])]
            two += [job(f"qlora-cut-{stage}", 2, run={**half, "steps": steps}, **kinds["qlora"]) for steps in (4, 8)]
    # Overfits: the held-out loss of random tokens rises soon.
    patient = {"heldout": {**heldout, "patience": 2}, "optimizer": {"lr": 0.02}}
    # Started again at its end, it finds nothing left to do.
    one += [job("patient", 1, run={"steps": 60, "checkpoint_every": 3}, **patient)] * 2
    one += [
        job(f"schedule-{schedule}", 1, optimizer={"schedule": schedule, "warmup_steps": 2}, run={"steps": 7})
        for schedule in ("cosine", "linear")
    ]
    # The first half, in the way of the other launch where its ranks change.
    # The weights of the first step are too large for a forward pass.
    huge = {"lr": 1e37, "warmup_steps": 0, "weight_decay": 0.0}
    one += [job("diverging", 1, optimizer=huge, run={"steps": 30, "checkpoint_every": 1, "zero_stage": 0})]
    for stage in WIDENED:
        one = [job(f"widened-{stage}", 1, run={"zero_stage": stage}), *one]
    for stage in NARROWED:
        two = [job(f"narrowed-{stage}", 2, run={"zero_stage": stage}), *two]
    one += [job("one-tiny", 1, run=TINY)]
    one += [job("regrouped", 1, run={"micro_batch_size": 4}), job("eight", 1, run={"steps": 8})]
    one += [job("regrouped", 1, run={"steps": 8, "micro_batch_size": 2})]
    for name, stages_of, jobs, ranks in (("narrowed", NARROWED, one, 1), ("widened", WIDENED, two, 2)):
        for stage in stages_of:
            jobs += [job(f"{name}-{stage}", ranks, f"{name}-{stage}", run={"steps": 8, "zero_stage": stage})]
    return one, two


def agree(ours: list[list[float | None]], wanted: list[list[float | None]], rel: float = 2e-4) -> None:
    """The same curves; DeepSpeed tells no norm at stage 0."""
    assert len(ours) == len(wanted) > 0
    for mine, theirs in zip(ours, wanted, strict=True):
        told = len(mine) - (mine[-1] is None or theirs[-1] is None)
        assert mine[:told] == pytest.approx(theirs[:told], rel=rel)


def weights(output: Path, folder: str = "model") -> dict[str, torch.Tensor]:
    """Of the student that a run left, as Transformers loads it."""
    if (output / "error").exists():
        raise AssertionError((output / "error").read_text())
    config = json.loads((output / folder / "config.json").read_text())
    kind = AutoModelForSeq2SeqLM if config["model_type"] == "t5" else AutoModelForCausalLM
    state: dict[str, torch.Tensor] = kind.from_pretrained(output / folder).state_dict()
    return state
