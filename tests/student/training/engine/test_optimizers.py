"""Optimizers by name: which parameters they update and how, against PyTorch's own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GPT2Config, LlamaConfig, T5Config

from cache.errors import InputError
from student.models.model_parts import head_of
from student.training.engine.optimizers import make_optimizer, require_optimizer
from student.training.engine.parameter_groups import muon_groups, parameter_groups
from student.training.run_settings import OptimizerSettings
from student.training.settings import TrainSettings
from tests.student.training.ranks import TOPK, Job, curve, make_store, settings_of, start

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
MUON = {"name": "muon", "lr": 0.02, "adam_lr": 0.003}


def student(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        return AutoModelForCausalLM.from_config(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2))
    if kind == "t5":
        return AutoModelForSeq2SeqLM.from_config(
            T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
        )
    config = LlamaConfig(vocab_size=40, num_key_value_heads=2, tie_word_embeddings=kind == "tied", **SMALL)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind, per_layer", [("tied", 7), ("untied", 7), ("t5", None)])
def test_muon_updates_hidden_matrices_alone(kind: str, per_layer: int | None) -> None:
    """Would catch embeddings, heads and position tables among them, and a parameter in two groups or none."""
    model = student(kind)
    hidden, others = muon_groups(model, 0.1, list(head_of(model).parameters()))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = sorted(names[id(parameter)] for parameter in hidden["params"])
    everything = [id(parameter) for group in (hidden, *others) for parameter in group["params"]]
    assert sorted(everything) == sorted(names)
    outer = ("embed", "lm_head", "wte", "wpe", "shared", "norm", "bias", "ln_")
    assert not [name for name in found if any(part in name for part in outer)]
    left = [names[id(p)] for group in others for p in group["params"] if p.ndim == 2]
    assert all(any(part in name for part in (*outer, "relative_attention_bias")) for name in left)
    if per_layer:
        assert len(found) == 2 * per_layer
    decay = {id(parameter): group["weight_decay"] for group in (hidden, *others) for parameter in group["params"]}
    wanted = {id(p): group["weight_decay"] for group in parameter_groups(model, 0.1) for p in group["params"]}
    assert decay == wanted


def test_adapters_of_embeddings_are_left_to_adamw() -> None:
    model = get_peft_model(student("tied"), LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(parameter)] for parameter in muon_groups(model, 0.1)[0]["params"]}
    assert len(found) == 4 and all("q_proj.lora_" in name for name in found)


def test_muon_is_that_of_pytorch() -> None:
    """Five steps of matrices of three shapes. Would catch another scale, momentum or decay.

    Newton-Schulz is in bfloat16 in both, and agrees where the singular values of a gradient are alike.
    """
    torch.manual_seed(1)
    ours = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 24, bias=False), nn.Linear(24, 8, bias=False))
    theirs = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 24, bias=False), nn.Linear(24, 8, bias=False))
    theirs.load_state_dict(ours.state_dict())
    before = {name: weight.clone() for name, weight in ours.state_dict().items()}
    settings = OptimizerSettings.model_validate({**MUON, "weight_decay": 0.1, "momentum": 0.9})
    mine = make_optimizer(ours, settings)
    reference = torch.optim.Muon(theirs.parameters(), lr=0.02, weight_decay=0.1, momentum=0.9)
    with torch.compiler.set_stance("force_eager"):
        for _ in range(5):
            for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                one.grad = nn.init.orthogonal_(torch.empty_like(one)) + 0.01 * torch.randn_like(one)
                other.grad = one.grad.clone()
            mine.step()
            reference.step()
    for name, weight in theirs.state_dict().items():
        moved = (weight - before[name]).norm()
        assert (ours.state_dict()[name] - weight).norm() < 0.03 * moved, name


def test_fused_adamw_is_adamw() -> None:
    """On a CPU the passes over memory are one. Would catch groups that lose their decay."""
    ours, theirs = student("tied"), student("tied")
    mine = make_optimizer(ours, OptimizerSettings(lr=0.01, weight_decay=0.1))
    reference = torch.optim.AdamW(parameter_groups(theirs, 0.1), lr=0.01, betas=(0.9, 0.95))
    ids = torch.arange(12)[None]
    for _ in range(3):
        for model, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
    for mine_, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine_, other, atol=1e-5)


def test_settings_of_optimizers() -> None:
    with pytest.raises(ValueError, match=r'"muon" needs adam_lr'):
        OptimizerSettings(name="muon", lr=0.02)
    with pytest.raises(ValueError, match="the rate of adamw is lr"):
        OptimizerSettings(lr=0.02, adam_lr=0.01)
    assert OptimizerSettings.model_validate(MUON).unused_keys() == {
        "clip": "an update of Muon has the same norm whatever the gradient has"
    }
    assert "momentum" in OptimizerSettings(lr=0.1).unused_keys()
    job = {"output": "o", "data": {"store": "s"}, "model": {"pretrained": "m"}, "run": {"steps": 1}, "optimizer": MUON}
    TrainSettings.model_validate(job)
    with pytest.raises(ValueError, match="needs the whole gradient of a matrix"):
        TrainSettings.model_validate({**job, "deepspeed": {"zero_optimization": {"reduce_scatter": True}}})


def test_what_an_optimizer_needs_is_checked_before_ranks_start(monkeypatch: pytest.MonkeyPatch) -> None:
    muon = OptimizerSettings.model_validate(MUON)
    require_optimizer(student("tied"), muon)
    with pytest.raises(InputError, match="no hidden matrix"):  # its matrices have inputs as rows
        require_optimizer(student("gpt2"), muon)
    with pytest.raises(InputError, match="no hidden matrix"):
        require_optimizer(nn.Sequential(nn.Embedding(4, 4), nn.LayerNorm(4)), muon)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install \"logitbank\[quantised\]\""):
        require_optimizer(student("tied"), OptimizerSettings(name="adamw_8bit", lr=0.1))


@pytest.mark.slow
def test_runs_with_other_optimizers(tmp_path: Path, tiny_model: Path) -> None:
    """On one and two ranks, continued, and with another number of ranks, which only AdamW's checkpoints allow."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 19)
    optimizers = {"muon": MUON, "eight": {"name": "adamw_8bit", "lr": 0.003}}

    def job(name: str, ranks: int, steps: int = 6, after: str | None = None, stage: int = 1) -> Job:
        run = {"ranks": ranks, "micro_batch_size": 4 if ranks == 1 else 2, "steps": steps, "zero_stage": stage}
        optimizer = optimizers[name.split("-", maxsplit=1)[0]]
        settings = settings_of(tmp_path / name, store, run=run, optimizer=optimizer)
        return Job(settings, None if after is None else tmp_path / after)

    one = [job(f"{name}-one", 1) for name in optimizers] + [job(f"{name}-moved", 1, 4) for name in optimizers]
    two = [job(f"{name}-two", 2, stage=3) for name in optimizers]
    two += [job(f"{name}-cut", 2, 4) for name in optimizers] + [job(f"{name}-cut", 2) for name in optimizers]
    two += [job(f"{name}-moved", 2, 6, f"{name}-moved") for name in optimizers]
    processes = [start(jobs, ranks, tmp_path / f"{ranks}.log") for ranks, jobs in ((1, one), (2, two))]
    assert [process.wait(300) for process in processes] == [0, 0], (tmp_path / "2.log").read_text()[-3000:]
    for name in optimizers:
        error = (tmp_path / f"{name}-moved" / "error").read_text()
        assert "continues with the number of ranks that it had, 1, and not with 2; set run.ranks = 1" in error
        for other in ("two", "cut"):
            for mine, whole in zip(curve(tmp_path / f"{name}-{other}"), curve(tmp_path / f"{name}-one"), strict=True):
                assert mine[:1] == pytest.approx(whole[:1], rel=2e-3)
