"""The teacher of benchmarks.fidelity: a small Llama that is trained here, or any causal model, at a chosen entropy."""

import math
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common.library_teacher import HELD_OUT_EVERY, library_examples
from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.jsonl import read_examples
from cache.examples.tokenizers import load_tokenizer
from cache.rendering.render import render
from student.models.model_parts import head_of, hidden_states, logits_width, transform_of
from student.tokenizers.bpe import learn_tokenizer
from student.training.engine.schedule import rate_factor
from student.training.settings import OptimizerSettings

VOCAB, WIDTH, LAYERS, HEADS = 8192, 128, 4, 4
STEPS, BATCH = 300, 8
# Sequences whose logits are made at a time.
BLOCK = 8


@dataclass(frozen=True, slots=True)
class Sequences:
    """tokens: int64 [N, L]. hidden: float32 [N, L - 1, d], what the teacher's head reads at each token but the last."""

    tokens: Tensor
    hidden: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def first(self, count: int) -> "Sequences":
        return Sequences(self.tokens[:count], self.hidden[:count])


@dataclass(frozen=True, slots=True)
class Teacher:
    """A causal model whose logits are divided by `temperature`: targets, full laws and evaluation all take these."""

    model: Any
    temperature: float = 1.0

    @property
    def vocab_size(self) -> int:
        return logits_width(self.model)

    @torch.no_grad()
    def read(self, tokens: Tensor) -> Sequences:
        """Run the body once; logits are made from what it leaves whenever they are needed."""
        result = [
            hidden_states(self.model, {"input_ids": block}).view(*block.shape, -1)[:, :-1].float()
            for block in tokens.split(BLOCK)
        ]
        return Sequences(tokens, torch.cat(result))

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 [R, V] of hidden states [..., d]."""
        states = hidden.flatten(0, -2).to(head_dtype(self.model))
        return transform_of(self.model).apply_(head_of(self.model)(states).float()).div_(self.temperature)

    def at_entropy(self, entropy: float, sequences: Sequences) -> "Teacher":
        """The teacher at the temperature where its mean entropy over the sequences is `entropy` nats."""
        plain = torch.cat([replace(self, temperature=1.0).logits(block) for block in sequences.hidden.split(BLOCK)])
        low, high = math.log(0.02), math.log(20.0)
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if mean_entropy(plain, math.exp(middle)) < entropy else (low, middle)
        return replace(self, temperature=math.exp((low + high) / 2))


def mean_entropy(logits: Tensor, temperature: float) -> float:
    """In nats, over rows."""
    total = 0.0
    for block in logits.split(1024):
        log_p = torch.log_softmax(block / temperature, -1)
        total -= float((log_p.exp() * log_p).sum())
    return total / len(logits)


def head_dtype(model: Any) -> torch.dtype:
    return head_of(model).weight.dtype  # type: ignore[return-value]


def load_teacher(folder: Path, examples: Path, length: int) -> tuple[Teacher, Tensor, Tensor]:
    """Any causal model, and its examples: training and held-out tokens, int64 [N, length]."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return Teacher(model), *split_tokens(read_examples(examples), load_tokenizer(str(folder)), length)


def library_teacher(folder: Path, length: int) -> tuple[Teacher, Tensor, Tensor]:
    """The teacher of this benchmark, trained if `folder` has none, with training and held-out text of the library."""
    examples = list(library_examples())
    if not (folder / "config.json").is_file():
        train_teacher(folder, examples, length)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return Teacher(model), *split_tokens(examples, load_tokenizer(str(folder)), length)


def split_tokens(examples: Sequence[Example], tokenizer: Any, length: int) -> tuple[Tensor, Tensor]:
    """First tokens of the rendered examples that are long enough, shuffled: training part and held-out part."""
    held_out = first_tokens(examples[::HELD_OUT_EVERY], tokenizer, length)
    train = first_tokens((e for i, e in enumerate(examples) if i % HELD_OUT_EVERY), tokenizer, length)
    return train[torch.from_numpy(np.random.default_rng(0).permutation(len(train)))], held_out


def first_tokens(examples: Iterable[Example], tokenizer: Any, length: int) -> Tensor:
    """Int64 [N, length]. Every sequence is full, so that all modes, batches and seeds see as many tokens."""
    rendered = (render(example, tokenizer).tokens for example in examples)
    kept = [tokens[:length].astype(np.int64) for tokens in rendered if len(tokens) >= length]
    if not kept:
        raise InputError(f"no example has {length} tokens; give a smaller --length")
    return torch.from_numpy(np.stack(kept))


def train_teacher(folder: Path, examples: Sequence[Example], length: int) -> None:
    """Learn a tokenizer and a small Llama from the training part, and save both."""
    started = time.perf_counter()
    print(f"no teacher in {folder} yet: training one, {STEPS} steps of {BATCH * length:,} tokens", flush=True)
    train = [example for i, example in enumerate(examples) if i % HELD_OUT_EVERY]
    tokenizer = learn_tokenizer(train, VOCAB)
    rendered = [render(example, tokenizer).tokens.astype(np.int64) for example in train]
    # Whole texts one after another: a teacher should know what comes later in them, too.
    pieces = [piece for tokens in rendered for piece in np.split(tokens, range(length, len(tokens), length))]
    tokens = torch.from_numpy(np.stack([piece for piece in pieces if len(piece) == length]))
    torch.manual_seed(0)
    model = small_llama(VOCAB, WIDTH, LAYERS, HEADS, tied=True)
    order = endless_order(len(tokens), STEPS * BATCH, seed=0)
    optimizer = Optimizer(model, OptimizerSettings(lr=3e-3, warmup_steps=50), STEPS)
    for step in range(STEPS):
        batch = tokens[order[step * BATCH : (step + 1) * BATCH]]
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.step(loss)
        if step % 50 == 49:
            print(f"  step {step + 1}: loss {loss.item():.3f}, {time.perf_counter() - started:.0f} s", flush=True)
    draft = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def small_llama(vocab: int, width: int, layers: int, heads: int, tied: bool) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

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


def endless_order(count: int, length: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
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
