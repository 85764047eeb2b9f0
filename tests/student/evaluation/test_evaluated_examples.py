"""An evaluation says how many examples it is of, and refuses a model that cannot read them."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration, GPT2Config, GPT2LMHeadModel

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cache.progress import no_progress
from cache.store.logit_store import LogitStore
from student.evaluation.heldout_examples import HeldoutExamples
from student.evaluation.language_model import evaluate_language_model
from student.evaluation.settings import AnswerSettings
from tests.student.evaluation.test_rounds import Count
from tests.student.training.ranks import TOPK, make_pretrained, make_store


def test_an_evaluation_is_of_all_examples_or_of_none(tmp_path: Path, tiny_model: Path) -> None:
    """Would catch examples beyond the positions of the model, which are no measure of it."""
    store = LogitStore.open(make_store(tmp_path / "store", tiny_model, TOPK, 40))
    model = make_pretrained(tmp_path / "model", tiny_model)
    metrics = evaluate_language_model(str(model), store, None, AnswerSettings(), lambda stage: no_progress)
    assert (metrics["examples"], metrics["examples_left_out"]) == (40, 0)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 12}))
    message = r"of 40 stored examples are longer than the 12 positions .* evaluate it on a store of shorter examples"
    with pytest.raises(InputError, match=message):
        evaluate_language_model(str(model), store, None, AnswerSettings(), lambda stage: no_progress)


def test_a_prompt_without_room_for_an_answer_has_none_and_is_counted(tmp_path: Path, tiny_model: Path) -> None:
    """Of a model with learned positions, which ends at the first token beyond them."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    sizes = {"n_positions": 40, "n_embd": 32, "n_layer": 1, "n_head": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(str(tmp_path / "gpt2"))
    texts = ["one", "two " * 60, "three"]
    prompts = [
        Example(str(i), ({"role": "user", "content": text},), metadata={"number": "2"}) for i, text in enumerate(texts)
    ]
    write_examples(tmp_path / "prompts.jsonl", prompts)
    heldout = HeldoutExamples(path=str(tmp_path / "prompts.jsonl"))
    settings = AnswerSettings(max_new_tokens=8, prompts=3)
    metrics = evaluate_language_model(str(tmp_path / "gpt2"), heldout, Count(), settings, lambda stage: no_progress)
    assert metrics["prompts_too_long"] == 1 and len(metrics["answers"]) == 3
    assert [bool(answer["text"]) for answer in metrics["answers"]][1] is False


def test_prompt_and_answer_of_an_encoder_decoder_have_positions_of_their_own(tmp_path: Path, tiny_model: Path) -> None:
    """Would catch empty answers to prompts that the encoder can read, beside an answer that the decoder can write."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    layers = {f"{part}_{what}": 1 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        max_position_embeddings=40,
        **layers,
        **ends,
        pad_token_id=0,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
    )
    BartForConditionalGeneration(config).save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(str(tmp_path / "bart"))
    texts = ["two " * count for count in (1, 15, 60)]
    prompts = [
        Example(str(i), ({"role": "user", "content": text},), metadata={"number": "2"}) for i, text in enumerate(texts)
    ]
    write_examples(tmp_path / "prompts.jsonl", prompts)
    heldout = HeldoutExamples(path=str(tmp_path / "prompts.jsonl"))
    settings = AnswerSettings(max_new_tokens=32, prompts=3)
    metrics = evaluate_language_model(str(tmp_path / "bart"), heldout, Count(), settings, lambda stage: no_progress)
    assert metrics["prompts_too_long"] == 1  # the one with more tokens than positions
