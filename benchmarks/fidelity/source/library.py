"""The small teacher of benchmarks.fidelity: a Llama that is trained here, once, on the sources of Python's library."""

import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common.library_teacher import HELD_OUT_EVERY, library_examples
from benchmarks.fidelity.source.teacher import Teacher
from benchmarks.fidelity.training import Optimizer, endless_order, small_llama
from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.tokenizers import load_tokenizer
from cache.rendering.render import render
from student.tokenizers.bpe import learn_tokenizer
from student.training.run_settings import OptimizerSettings

VOCAB, WIDTH, LAYERS = 8192, 128, 4
STEPS, BATCH = 300, 8


def library_teacher(folder: Path, length: int) -> tuple[Teacher, Tensor, Tensor]:
    """The teacher, trained if `folder` has none, with training and held-out text of the library."""
    examples = list(library_examples())
    if not (folder / "config.json").is_file():
        train_teacher(folder, examples, length)
    return Teacher.load(folder), *split_tokens(examples, load_tokenizer(str(folder)), length)


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
    model = small_llama(VOCAB, WIDTH, LAYERS, tied=True)
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
