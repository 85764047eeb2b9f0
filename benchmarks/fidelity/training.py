"""Small students and their optimizer: weights by a seed, or the first layers of the teacher."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache.errors import InputError
from student.training.engine.schedule import rate_factor
from student.training.run_settings import OptimizerSettings

HEAD_WIDTH = 32


@dataclass(frozen=True, slots=True)
class StudentShape:
    """`width` x `layers` with random weights; or, of width 0, the teacher's first layers, embeddings and head."""

    width: int
    layers: int
    lr: float

    @classmethod
    def parse(cls, text: str) -> "StudentShape":
        """From WIDTHxLAYERS@RATE or first:LAYERS@RATE. Raises InputError."""
        shape, _, rate = text.partition("@")
        try:
            if shape.startswith("first:"):
                return cls(0, int(shape.removeprefix("first:")), float(rate))
            width, layers = shape.split("x")
            return cls(int(width), int(layers), float(rate))
        except ValueError:
            raise InputError(
                f"--student {text!r}: give WIDTHxLAYERS@RATE or first:LAYERS@RATE, such as 64x2@6e-3 or first:6@5e-4"
            ) from None

    def __str__(self) -> str:
        return f"{self.width}x{self.layers}@{self.lr:g}" if self.width else f"first:{self.layers}@{self.lr:g}"

    @property
    def name(self) -> str:
        """For keys of results."""
        return str(self).partition("@")[0].replace(":", "_")

    def make(self, teacher: Any, vocab: int, seed: int) -> Any:
        """A new student on the teacher's device. The seed determines random weights.

        The head of a random student is a matrix of its own, so that its gradient is that of the logits alone.
        """
        torch.manual_seed(seed)
        if self.width:
            return small_llama(vocab, self.width, self.layers, tied=False).to(teacher.device)
        student = copy.deepcopy(teacher).train()
        student.model.layers = student.model.layers[: self.layers]
        student.config.num_hidden_layers = self.layers
        return student


def small_llama(vocab: int, width: int, layers: int, tied: bool) -> Any:
    """A Llama with random weights and heads of width 32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = max(1, width // HEAD_WIDTH)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            intermediate_size=width * 8 // 3,
            max_position_embeddings=1024,
            tie_word_embeddings=tied,
        )
    )


def endless_order(count: int, length: int, seed: int) -> npt.NDArray[np.int64]:
    """The first `length` positions of repeated passes over `count` sequences. Each pass has another order."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(count) for _ in range(-(-length // count))])[:length]


class Optimizer:
    """AdamW with warm-up and cosine, as the product's settings say, without its engine."""

    def __init__(self, model: nn.Module, settings: OptimizerSettings, steps: int) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        options = {"lr": settings.lr, "betas": settings.betas, "weight_decay": settings.weight_decay}
        self._adamw = torch.optim.AdamW(self._parameters, **options)  # type: ignore[arg-type]
        self._settings, self._steps, self._done = settings, steps, 0

    def step(self, loss: Tensor) -> None:
        """One update by the gradient of `loss`."""
        self._adamw.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, self._settings.clip)
        for group in self._adamw.param_groups:
            group["lr"] = self._settings.lr * rate_factor(self._done, self._settings, self._steps)
        self._adamw.step()
        self._done += 1
