"""Two tokenizers: that of the tiny model as the teacher's, and a learned one as the student's."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cache.examples.example import Example
from student.tokenizers.bpe import learn_tokenizer


@pytest.fixture
def teacher(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="session")
def student() -> PreTrainedTokenizerFast:
    words = ["one and two", "three, four", "red or blue", "naïve – 漢字", "and", " and", "eleven twelve"]
    return learn_tokenizer([Example(str(i), (), response=text) for i, text in enumerate(words * 5)], 340)
