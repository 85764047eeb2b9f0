"""Tokens and segments of an example, with a real tokenizer."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from cache.errors import InputError
from cache.example import Example, Segment
from cache.rendering import decode, render, render_prompt, split_response

EXAMPLE = Example("1", ({"role": "user", "content": "say one two"},), "first one,", " then two")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path):  # type: ignore[no-untyped-def]
    return AutoTokenizer.from_pretrained(tiny_model)


def test_segments_follow_the_text(tokenizer) -> None:  # type: ignore[no-untyped-def]
    rendered = render(EXAMPLE, tokenizer)
    texts = {segment: tokenizer.decode(rendered.tokens[rendered.segments == segment]) for segment in Segment}
    assert texts[Segment.PROMPT] == "<|begin|><|user|>say one two<|assistant|>"
    assert texts[Segment.RATIONALE].strip() == "first one,"
    assert texts[Segment.RESPONSE].strip() == "then two<|end|>"


def test_a_model_is_prompted_with_the_ids_it_learned(tokenizer) -> None:  # type: ignore[no-untyped-def]
    rendered = render(EXAMPLE, tokenizer)
    prompt = render_prompt(EXAMPLE, tokenizer)
    assert np.array_equal(rendered.tokens[: rendered.prompt_length], prompt.tokens)


def test_key_depends_on_tokens_segments_and_origin(tokenizer) -> None:  # type: ignore[no-untyped-def]
    rendered = render(EXAMPLE, tokenizer)
    moved = render(Example("2", EXAMPLE.messages, "first one, then", " two"), tokenizer)
    assert np.array_equal(moved.tokens, rendered.tokens)
    assert moved.key != rendered.key
    assert (
        render(Example("other id", EXAMPLE.messages, EXAMPLE.rationale, EXAMPLE.response), tokenizer).key
        == rendered.key
    )


def test_a_written_response_is_split_at_the_marker(tokenizer) -> None:  # type: ignore[no-untyped-def]
    tokens = np.array(tokenizer("one and two then red", add_special_tokens=False)["input_ids"], np.uint32)
    segments = split_response(tokens, tokenizer, " then")
    assert decode(tokens[segments == Segment.RATIONALE], tokenizer).strip() == "one and two"
    assert decode(tokens[segments == Segment.RESPONSE], tokenizer).strip() == "then red"
    assert (split_response(tokens, tokenizer, "absent") == Segment.RESPONSE).all()


def test_a_template_that_refuses_names_the_example(tokenizer) -> None:  # type: ignore[no-untyped-def]
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match=r"example 1: .*roles must alternate"):
        render_prompt(EXAMPLE, tokenizer)
