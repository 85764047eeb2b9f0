"""A student gives the same answers with vLLM and with Transformers."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from transformers import AutoTokenizer

from cache.errors import LogitbankError
from cache.examples.example import Example
from cache.rendering.render import prompt_tokens
from cluster.evaluation.vllm_answers import generate_with_vllm
from student.evaluation.settings import AnswerSettings
from student.models.build import load_student
from student.models.generation import generate_texts

pytestmark = pytest.mark.slow


def prompts(model: Path) -> list[npt.NDArray[np.uint32]]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = ("say one two", "say red", "say seven left right up")
    return [prompt_tokens(Example(words, ({"role": "user", "content": words},)), tokenizer) for words in texts]


def test_both_engines_answer_the_same(tiny_model: Path) -> None:
    asked, settings = prompts(tiny_model), AnswerSettings(max_new_tokens=12)
    seen: list[tuple[int, int]] = []
    theirs = generate_with_vllm(str(tiny_model), asked, settings, lambda done, total: seen.append((done, total)))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ours = generate_texts(load_student(str(tiny_model), 1), tokenizer, asked, settings.max_new_tokens, 3)
    assert theirs == ours and any(ours)
    assert seen == [(3, 3)]


def test_a_model_that_vllm_cannot_load_is_reported(tmp_path: Path, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["NoSuchModel"]}')
    with pytest.raises(LogitbankError, match=r"generation\.engine = .transformers"):
        generate_with_vllm(str(tmp_path), prompts(tiny_model), AnswerSettings(), lambda done, total: None)
