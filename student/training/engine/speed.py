"""How fast a run is: tokens a second, memory, and the share of a GPU's arithmetic that the model uses (MFU)."""

import re
import resource
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from student.models.model_parts import head_of
from student.models.quantised import weight_count
from student.models.registry import kind_of

# Dense bfloat16 products of one GPU in 10^12 operations a second, by a part of its name; of the makers' data sheets.
# The first that fits counts.
PEAK_TFLOPS = {
    "B200": 2250,
    "GB200": 2250,
    "GH200": 989,
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "H20": 148,
    "H800": 989,
    "A100": 312,
    "A800": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "A10G": 70,
    "A10": 125,
    "A40": 150,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "MI300X": 1307,
    "MI250X": 191,
}
# Fields of configurations whose experts do not all read each token.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Operations of the matrix products with weights, forwards and backwards, for each token. Attention is left out.

    body: of a token that the model reads. head: of a token with a loss. Both 0 where that says little: an
    encoder-decoder reads prompt and response with different weights, and experts or towers for images do not read each
    token.
    """

    body: float = 0.0
    head: float = 0.0

    @classmethod
    def of(cls, model: Any) -> "Arithmetic":
        """Call it before weights are divided among ranks."""
        config = model.config.get_text_config()
        kind = kind_of(model.config)
        has_experts = any(getattr(config, name, None) for name in EXPERTS)
        has_parts = config is not model.config  # such as a tower for images, which text does not read
        if not kind.learns_prompts or kind.needs_classes or has_experts or has_parts:
            return cls()
        head = head_of(model)
        looked_up = [module for module in model.modules() if isinstance(module, nn.Embedding)]
        outside = {id(weight) for module in (head, *looked_up) for weight in module.parameters()}
        body = [weight for weight in model.parameters() if id(weight) not in outside]
        return cls(_operations(body), _operations(list(head.parameters())))


def _operations(weights: list[nn.Parameter]) -> float:
    """2 for each weight forwards, 2 for the gradient of what it reads, 2 more for its own gradient if it is trained."""
    matrices = [weight for weight in weights if weight.ndim > 1]
    return float(sum(weight_count(weight) * (6 if weight.requires_grad else 4) for weight in matrices))


class SpeedMeter:
    """Metrics of speed of a rank's steps."""

    def __init__(self, arithmetic: Arithmetic, ranks: int, device: torch.device) -> None:
        self._arithmetic, self._device = arithmetic, device
        self._peak = ranks * peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else 0.0

    def metrics(self, tokens: int, real: int, seconds: float) -> dict[str, float]:
        """Of one step of all ranks. tokens: those with a loss. real: all of the examples. seconds: with waiting.

        memory_mib is the peak of this rank: of its GPU, or of its process.
        """
        found = {"tokens_per_s": round(tokens / seconds, 1), "memory_mib": round(self._memory())}
        operations = self._arithmetic.body * real + self._arithmetic.head * tokens
        if self._peak and operations:
            found["mfu"] = round(operations / seconds / self._peak, 4)
        return found

    def _memory(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / (1 << 20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_of(name: str) -> float:
    """Operations a second of a GPU with this name; 0 if it is unknown. A part of a name counts as a whole word."""
    return next((1e12 * peak for part, peak in PEAK_TFLOPS.items() if re.search(rf"\b{part}\b", name)), 0.0)
