"""An evaluation reads the same texts in any tokenizer: of a store, of a file, and across tokenizers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cache.progress import no_progress
from cache.rendering.render import render
from cache.store.logit_store import LogitStore
from student.evaluation.heldout_examples import HeldoutExamples, assistant_bytes
from student.evaluation.language_model import evaluate_language_model
from student.evaluation.settings import AnswerSettings
from student.tokenizers.bpe import learn_tokenizer, save_tokenizer
from tests.cache.rows.rows import VOCAB
from tests.student.evaluation.test_rounds import Count
from tests.student.models.test_special_students import graded, store_of
from tests.student.training.ranks import LLAMA


def small_llama(folder: Path, tokenizer: Any, width: int) -> Path:
    torch.manual_seed(2)
    fields = {name: value for name, value in LLAMA.items() if name != "model_type"}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    LlamaForCausalLM(LlamaConfig(vocab_size=width, **ends, **fields)).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def bits_directly(folder: Path) -> tuple[float, int]:
    """Bits a byte of the responses, one token at a time, and the number of the tokens."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    nats, spoken, count = 0.0, 0, 0
    for example in graded():
        rendered = render(example, tokenizer)
        tokens = torch.tensor(rendered.tokens.astype("int64"))
        with torch.no_grad():
            log_q = model(tokens[None]).logits[0].double().log_softmax(-1)
        for j in range(rendered.prompt_length, len(tokens)):
            nats -= float(log_q[j - 1, tokens[j]])
            count += 1
        spoken += len(example.response)
    return nats / math.log(2) / spoken, count


def evaluate(path: Path, heldout: HeldoutExamples, task: Any = None, **settings: Any) -> dict[str, Any]:
    answers = AnswerSettings(max_new_tokens=4, **settings)
    return evaluate_language_model(str(path), heldout, task, answers, lambda stage: no_progress)


def test_a_loss_a_byte_is_of_the_texts_alone(tmp_path: Path, tiny_model: Path) -> None:
    """Would catch rows without a target that the loss leaves out, and bytes of one tokenizer for tokens of another."""
    store = LogitStore.open(str(store_of(tmp_path / "store", tiny_model, graded(), 0)))
    write_examples(tmp_path / "graded.jsonl", graded())
    file = HeldoutExamples(path=str(tmp_path / "graded.jsonl"))
    own = small_llama(tmp_path / "own", AutoTokenizer.from_pretrained(tiny_model), VOCAB)
    # Tokens of one byte: those within a word of the teacher have few rows.
    other = small_llama(tmp_path / "other", learn_tokenizer([Example("", (), response="z")], 300), 300)
    for model in (own, other):
        bits, rows = bits_directly(model)
        of_file, of_store = evaluate(model, file), evaluate(model, HeldoutExamples(store))
        for metrics in (of_file, of_store):
            assert metrics["rows"] == rows
            assert metrics["bits_per_byte"] == pytest.approx(bits, rel=1e-4)
        assert of_file["kl_to_teacher"] is None and of_file["target_rows"] == 0
        assert of_store["kl_to_teacher"] > 0 and 0 < of_store["target_rows"] <= rows
    assert of_store["target_rows"] < rows, "some rows of the other tokenizer are masked"


def test_texts_that_a_tokenizer_does_not_know_have_no_number_of_bytes(tmp_path: Path) -> None:
    """Would catch the bytes of the known words alone, which made the bits a byte several times too large."""
    words = Tokenizer(WordLevel({"<unk>": 0, "</s>": 1, "hi": 2, "you": 3}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    )
    for response, size in (("hi you", 6), ("hi extraordinary you", 0)):
        prompt = ({"role": "user", "content": "extraordinary"},)
        write_examples(tmp_path / "x.jsonl", [Example("1", prompt, response=response)])
        source = HeldoutExamples(path=str(tmp_path / "x.jsonl")).source(tokenizer)
        assert assistant_bytes(source, tokenizer) == size


def test_a_model_with_another_tokenizer_answers_the_same_prompts(tmp_path: Path, tiny_model: Path) -> None:
    """Would catch the ids of the store given to a model that has other ones."""
    store = LogitStore.open(str(store_of(tmp_path / "store", tiny_model, graded(), 0)))
    tokenizer = learn_tokenizer(graded(), 300)
    prompts = HeldoutExamples(store).prompts(9, tokenizer)
    assert [prompt.example for prompt in prompts] == [store[i].tokenized.example for i in range(9)]
    for prompt in prompts:
        text = tokenizer.decode(prompt.tokens.tolist())
        assert text.endswith(str(prompt.example.messages[0]["content"]) + "<|assistant|>")


def test_shots_come_before_the_prompt_and_only_answers_are_judged(tmp_path: Path, tiny_model: Path) -> None:
    examples = [
        type(example)(example.id, example.messages, response=example.response, metadata={"number": "2"})
        for example in graded()
    ]
    write_examples(tmp_path / "graded.jsonl", examples)
    seen: list[str] = []
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def engine(path: str, prompts: Any, settings: Any, progress: Any) -> list[str]:
        seen.extend(tokenizer.decode(prompt.tolist()) for prompt in prompts)
        return ["2"] * len(prompts)

    metrics = evaluate_language_model(
        str(tiny_model),
        HeldoutExamples(path=str(tmp_path / "graded.jsonl")),
        Count(),
        AnswerSettings(prompts=3, shots=tmp_path / "graded.jsonl", shown=2, with_shots=("few",), rounds=1),
        lambda stage: no_progress,
        engine,
        with_shots=True,
    )
    assert metrics["accuracy"] == metrics["accuracy_c1"] == 1 and "heldout_loss" not in metrics
    assert len(seen) == 3 and all(text.count("<|user|>") == 3 and text.count("<|end|>") == 2 for text in seen)
    assert "red left 0<|assistant|>one<|end|>" in seen[2] and seen[2].endswith("<|assistant|>")
