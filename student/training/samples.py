"""Texts that a student writes while it learns, for people to read."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch.distributed as dist
from transformers import PreTrainedModel

from student.models.attention.sequence_parallel import alone
from student.models.generation import generate_texts
from student.training.engine.deepspeed_engine import Engine
from student.training.planning.sample_prompts import SamplePrompt
from student.training.settings import SampleSettings
from student.training.tracking.services import Sample

# Prompts at a time. They are few, and their caches need memory beside gradients and moments.
BATCH = 8


class SampleWriter:
    """Continues the same prompts again and again, with the weights of the moment."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        prompts: Sequence[SamplePrompt],
        settings: SampleSettings,
        attention: str | None = None,
    ) -> None:
        """attention: the model's own, where ranks share sequences; None where it attends by itself anyway."""
        self._attention = attention
        self._model, self._tokenizer, self._prompts, self._settings = model, tokenizer, prompts, settings

    def is_due(self, step: int, is_last: bool) -> bool:
        """Whether there are samples of a step. Step 0 comes before the first update."""
        return is_last or step % self._settings.every == 0

    def write(self, engine: Engine) -> list[Sample]:
        """Greedy continuations, in the order of the prompts. Every rank must call it; each writes a part of them."""
        rank, ranks = dist.get_rank(), dist.get_world_size()
        own = list(self._prompts[rank::ranks])
        # Under ZeRO-3 all ranks take part in gathering the weights, so they have the same number of prompts.
        most = -(-len(self._prompts) // ranks) if engine.gathers_weights else len(own)
        asked = own + [self._prompts[0]] * (most - len(own))
        was_training = self._model.training
        self._model.eval()  # checkpointing of activations, which has no cache of keys and values, ends with it
        try:
            with nullcontext() if self._attention is None else alone(self._model, self._attention):
                texts = generate_texts(
                    self._model,
                    self._tokenizer,
                    [prompt.tokens for prompt in asked],
                    self._settings.max_new_tokens,
                    BATCH,
                    device=engine.device,
                    in_step=engine.gathers_weights,
                )
        finally:
            self._model.train(was_training)
        parts: list[list[str]] = [[] for _ in range(ranks)]
        dist.all_gather_object(parts, texts[: len(own)])
        # Prompts as the student reads them: special tokens show whose words they are.
        shown = [self._tokenizer.decode(prompt.tokens.tolist()) for prompt in self._prompts]
        return [
            Sample(shown[number], parts[number % ranks][number // ranks], prompt.reference)
            for number, prompt in enumerate(self._prompts)
        ]
