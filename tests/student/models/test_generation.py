"""Greedy answers end where the model ends them."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from cache.store.logit_store import LogitStore
from student.models.build import build_model
from student.models.generation import generate_texts
from student.models.settings import ModelSettings
from tests.student.models.test_generation_settings import CHATML
from tests.student.training.ranks import LLAMA, TOPK, VOCAB, make_store


@pytest.mark.parametrize("end", ["turn", "own", "eos"])
def test_an_answer_ends_at_every_end_token(end: str, tiny_model: Path, tmp_path: Path) -> None:
    """The model can only say one token. Would catch answers that go on to the limit, and end tokens in their text."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    store = LogitStore.open(str(make_store(tmp_path / "store", tiny_model, TOPK, 5)))
    prompts = [record.tokenized.tokens[: record.tokenized.prompt_length] for record in store[list(range(5))]]
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])  # not called special
    tokenizer.chat_template = CHATML
    width = max(VOCAB, len(tokenizer))
    model = build_model(ModelSettings(config=LLAMA), width, tokenizer, 0)
    turn, eos, own = tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id, 77
    model.generation_config.eos_token_id = own
    only = {"turn": turn, "own": own, "eos": eos}[end]
    model.generation_config.suppress_tokens = [each for each in range(width) if each != only]
    calls = 0

    def count(*arguments: Any) -> None:
        nonlocal calls
        calls += 1

    model.register_forward_hook(count)
    with torch.no_grad():
        texts = generate_texts(model, tokenizer, prompts, max_new_tokens=20, batch_size=5)
    assert texts == [""] * 5
    assert calls == 1


@pytest.mark.parametrize(
    "own",
    [
        {"return_dict_in_generate": True, "output_scores": True},
        {"stop_strings": ["a"]},
        {"num_return_sequences": 2, "do_sample": True, "num_beams": 2},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "max_length": 3},
    ],
)
def test_settings_of_a_published_model_do_not_change_greedy_texts(own: dict[str, Any], tiny_model: Path) -> None:
    """Would catch penalties and samples in a text that is called greedy, and results that are no tensor."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    model = build_model(ModelSettings(config=LLAMA), VOCAB, tokenizer, 0)
    prompts = [np.array([5, 9, 11], np.uint32), np.array([7, 30], np.uint32)]
    plain = generate_texts(model, tokenizer, prompts, 12, 2)
    before = copy.deepcopy(model.generation_config)
    for name, value in own.items():
        setattr(before, name, value)
    model.generation_config = before
    assert generate_texts(model, tokenizer, prompts, 12, 2) == plain
    assert model.generation_config is before
