"""Operations of a model, beside those that PyTorch counts while it computes; and what a line of metrics says."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from student.models.build import add_adapters
from student.models.registry import kind_of
from student.models.settings import LoraSettings
from student.training.engine.speed import PEAK_TFLOPS, Arithmetic, SpeedMeter, peak_of
from tests.student.models.test_models import FAMILIES

TOKENS = 24


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    config = FAMILIES[name]()
    return kind_of(config).auto_class().from_config(config, dtype=torch.float32)


def counted(model: Any) -> float:
    """Operations of products with matrices for each token; those between activations are not among them."""
    ids = torch.arange(TOKENS)[None] % 7
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    found = counter.get_flop_counts()["Global"]
    return float(sum(count for op, count in found.items() if str(op) in ("aten.mm", "aten.addmm"))) / TOKENS


@pytest.mark.parametrize("name", ["plain", "tied embeddings", "gpt2"])
def test_operations_are_those_that_are_computed(name: str) -> None:
    """Would catch a head that counts twice or not at all, embeddings that count, and a backward pass that does not."""
    model = model_of(name)
    arithmetic = Arithmetic.of(model)
    assert arithmetic.body + arithmetic.head == pytest.approx(counted(model), rel=1e-6)
    assert 0 < arithmetic.head < arithmetic.body


def test_frozen_weights_get_no_gradient() -> None:
    """The first layers read embeddings that are frozen, so PyTorch computes a little less."""
    model = add_adapters(model_of("plain"), LoraSettings(rank=2), "plain")
    arithmetic = Arithmetic.of(model)
    assert arithmetic.body + arithmetic.head == pytest.approx(counted(model), rel=0.1)


def test_models_whose_tokens_differ_have_no_figure() -> None:
    assert Arithmetic.of(model_of("t5, tied")) == Arithmetic() == Arithmetic(0.0, 0.0)


def test_a_step_is_measured_against_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 << 20)
    meter = SpeedMeter(Arithmetic(6e9, 1e9), 4, torch.device("cuda", 0))
    found = meter.metrics(tokens=1000, real=4000, seconds=0.5)
    assert found == {"tokens_per_s": 2000.0, "memory_mib": 3, "mfu": round(25e12 / 0.5 / (4 * 989e12), 4)}
    on_cpu = SpeedMeter(Arithmetic(6e9, 1e9), 4, torch.device("cpu")).metrics(1000, 4000, 0.5)
    assert on_cpu.keys() == {"tokens_per_s", "memory_mib"} and on_cpu["memory_mib"] > 50


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H20", 148),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA A10", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("AMD Instinct MI300X", 1307),
        ("NVIDIA GB200", 2250),
        ("Tesla T4", 0),
        ("NVIDIA RTX A1000 Laptop GPU", 0),
        ("NVIDIA RTX A4000", 0),
    ],
)
def test_names_of_gpus(name: str, tflops: float) -> None:
    """Would catch a name that is a part of another one."""
    assert peak_of(name) == 1e12 * tflops
    assert len(PEAK_TFLOPS) > 15
