"""Targets, sizes and random logits of the measurement."""

from dataclasses import dataclass

import numpy as np
import torch

from cache.rows.spec import TargetSpec
from teacher_serving.reduction.draws import row_uniforms

TARGETS = {
    "topk 64": TargetSpec(k=64),
    "topk 128": TargetSpec(k=128),
    "topk 64, entropy, 2 temperatures": TargetSpec(k=64, entropy=True, temperatures=(0.5, 2.0)),
    "nucleus 0.98": TargetSpec("nucleus", k=64, mass=0.98),
    "threshold 0.05": TargetSpec("threshold", threshold=0.05),
    "sampled 64": TargetSpec("sampled", draws=64),
}
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Case:
    """One block of rows. next_tokens: int64 [n]; uniforms: float64 [n, numbers]; all on the device of the logits."""

    name: str
    targets: TargetSpec
    logits: torch.Tensor
    next_tokens: torch.Tensor
    uniforms: torch.Tensor


def random_block(rows: int, vocab: int, dtype: torch.dtype, device: str, seed: int = 0) -> torch.Tensor:
    """Logits of rows from flat to sharp, on the device."""
    generator = torch.Generator(device).manual_seed(seed)
    logits = torch.empty((rows, vocab), dtype=dtype, device=device)
    spreads = torch.linspace(1.0, 4.0, rows, device=device)
    for i in range(0, rows, 256):
        block = torch.randn((min(256, rows - i), vocab), generator=generator, device=device)
        logits[i : i + 256] = block * spreads[i : i + 256, None]
    return logits


def make_case(name: str, logits: torch.Tensor) -> Case:
    """The named targets for these logits."""
    rows, vocab = logits.shape
    targets = TARGETS[name]
    # Few keys with many positions: one key a row would take longer than all measurements.
    uniforms = torch.from_numpy(row_uniforms(targets, "5" * 32, np.arange(rows)))
    next_tokens = torch.from_numpy(np.random.default_rng(0).integers(0, vocab, rows))
    return Case(name, targets, logits, next_tokens.to(logits.device), uniforms.to(logits.device))
