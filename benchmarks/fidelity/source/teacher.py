"""The teacher of benchmarks.fidelity: a causal model at a temperature. Logits are made a block of rows at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from student.models.model_parts import head_of, hidden_states, logits_width, transform_of

# Logits that exist at a time, in elements: 256 MiB of float32 on a CPU, 1 GiB on a GPU.
BLOCK_ELEMENTS = {"cpu": 1 << 26, "cuda": 1 << 28}
# Sequences that the teacher's body reads at a time.
READ = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True, slots=True)
class Sequences:
    """tokens: int64 [N, L], on the CPU. hidden: float32 [N, L - 1, d], what the teacher's head reads at each token but
    the last, on the teacher's device. kinds: int64 [N], which of several texts a sequence is from.
    """

    tokens: Tensor
    hidden: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, start: int, stop: int) -> "Sequences":
        return Sequences(self.tokens[start:stop], self.hidden[start:stop], self.kinds[start:stop])

    def blocks(self, size: int) -> Iterator["Sequences"]:
        return (self.part(start, start + size) for start in range(0, len(self), size))


@dataclass(frozen=True, slots=True)
class Teacher:
    """A causal model whose logits are divided by `temperature`: targets, full laws and evaluation all take these."""

    model: Any
    temperature: float = 1.0

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Teacher":
        """Any causal model of a Transformers folder, in float32."""
        from transformers import AutoModelForCausalLM

        return cls(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(device))

    @property
    def vocab_size(self) -> int:
        return logits_width(self.model)

    @property
    def device(self) -> torch.device:
        return head_of(self.model).weight.device  # type: ignore[return-value]

    def block(self, length: int) -> int:
        """Sequences of `length` tokens whose logits may exist at a time."""
        return max(1, BLOCK_ELEMENTS[self.device.type] // (self.vocab_size * length))

    @torch.no_grad()
    def read(self, tokens: Tensor, kinds: Tensor | None = None) -> Sequences:
        """Run the body once; logits are made from what it leaves whenever they are needed."""
        result = [
            hidden_states(self.model, {"input_ids": block.to(self.device)}).view(*block.shape, -1)[:, :-1].float()
            for block in torch.split(tokens, READ[self.device.type])
        ]
        return Sequences(
            tokens, torch.cat(result), torch.zeros(len(tokens), dtype=torch.int64) if kinds is None else kinds
        )

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 [R, V] of hidden states [..., d]."""
        states = hidden.flatten(0, -2).to(head_dtype(self.model))
        return transform_of(self.model).apply_(head_of(self.model)(states).float()).div_(self.temperature)

    def at_entropy(self, entropy: float, sequences: Sequences) -> "Teacher":
        """The teacher at the temperature where its mean entropy over the sequences is `entropy` nats."""
        low, high = math.log(0.02), math.log(20.0)
        for _ in range(20):
            middle = (low + high) / 2
            reached = replace(self, temperature=math.exp(middle)).mean_entropy(sequences)
            low, high = (middle, high) if reached < entropy else (low, middle)
        return replace(self, temperature=math.exp((low + high) / 2))

    def mean_entropy(self, sequences: Sequences) -> float:
        """In nats, over rows."""
        total = rows = 0.0
        for part in sequences.blocks(self.block(sequences.tokens.shape[1])):
            log_p = torch.log_softmax(self.logits(part.hidden), -1)
            total -= float((log_p.exp() * log_p).sum())
            rows += len(log_p)
        return total / rows


def head_dtype(model: Any) -> torch.dtype:
    return head_of(model).weight.dtype  # type: ignore[return-value]
