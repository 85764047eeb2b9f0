"""Tokens and segments of an example, with a real tokenizer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cache.errors import InputError
from cache.examples.example import Example, Segment
from cache.rendering.render import render, render_prompt
from tests.cache.examples.chats import AGENT, MARKED, PLAIN, chat_tokenizer, turn

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


def test_key_depends_on_everything_that_is_kept(tokenizer) -> None:  # type: ignore[no-untyped-def]
    rendered = render(EXAMPLE, tokenizer)
    moved = render(Example("1", EXAMPLE.messages, "first one, then", " two"), tokenizer)
    assert np.array_equal(moved.tokens, rendered.tokens)
    others = [replace(EXAMPLE, id="2"), replace(EXAMPLE, label="two"), replace(EXAMPLE, metadata={"context": 1})]
    keys = {moved.key, rendered.key, replace(rendered, origin="generated/0").key}
    keys |= {render(other, tokenizer).key for other in others}
    assert len(keys) == 6


def test_the_number_of_a_line_is_no_part_of_its_key(tokenizer) -> None:  # type: ignore[no-untyped-def]
    """Otherwise a new first line would make every example a new one."""
    first, second = (replace(EXAMPLE, id=name, has_own_id=False) for name in "12")
    assert render(first, tokenizer).key == render(second, tokenizer).key != render(EXAMPLE, tokenizer).key


def test_a_template_that_refuses_names_the_example(tokenizer) -> None:  # type: ignore[no-untyped-def]
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match=r"example 1: .*roles must alternate"):
        render_prompt(EXAMPLE, tokenizer)


@pytest.mark.parametrize("template", [None, PLAIN, MARKED], ids=["none", "prefixes", "marks"])
@pytest.mark.parametrize(
    "example",
    [
        Example("7", (turn("user", "half \ud83d"),), response="fine"),
        Example("7", (turn("user", "fine"),), response="half \ud83d"),
        Example("7", (turn("user", "half \ud83d"), turn("assistant", "fine"))),
        Example("7", (turn("user", "fine"), turn("assistant", "half \ud83d"))),
    ],
    ids=["prompt", "response", "turn", "last turn"],
)
def test_text_that_is_none_names_the_example(template: str | None, example: Example) -> None:
    with pytest.raises(InputError, match=r"^example 7: the tokenizer cannot encode its text: .*surrogates not allowed"):
        render(example, chat_tokenizer(template))


def word_tokenizer(**options: Any) -> Any:
    """Knows <s>, "a" and, where `unk_token` is given, what is none of them."""
    vocab = {"<s>": 0, "a": 1, **({"<unk>": 2} if options else {})}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocab, "<unk>")), bos_token="<s>", **options
    )


def test_text_without_tokens_names_the_example() -> None:
    known, unknown = Example("7", (turn("user", "a"),), response="a"), Example("7", (turn("user", "a"),), response="b")
    for tokenizer in (word_tokenizer(), word_tokenizer(unk_token="<unk>")):
        assert render(known, tokenizer).tokens.tolist() == [1, 1]
    with pytest.raises(InputError, match="example 7: the tokenizer cannot encode its text"):
        render(unknown, word_tokenizer())
    with pytest.raises(InputError, match="example 7: the tokenizer has no tokens for 'b'"):
        render(unknown, word_tokenizer(unk_token="<unk>"))
    with pytest.raises(InputError, match="example 7: the tokenizer has no tokens for 'b'"):
        render_prompt(replace(known, messages=(turn("user", "b"),)), word_tokenizer(unk_token="<unk>"))


def test_an_id_that_is_none_names_the_example() -> None:
    class Forgetful:
        chat_template = bos_token_id = eos_token_id = unk_token_id = None

        def __call__(self, text: str, **options: Any) -> Any:
            return {"input_ids": [3, None], "offset_mapping": [(0, 1), (1, 2)]}

    with pytest.raises(InputError, match="example 7: the tokenizer has no tokens for 'ab'"):
        render_prompt(Example("7", (turn("user", "ab"),)), Forgetful())  # type: ignore[arg-type]


def test_the_token_for_the_unknown_may_be_that_for_the_end() -> None:
    """As in GPT-2, where all three are one."""
    tokenizer = chat_tokenizer(PLAIN.replace("<|im_end|>", "<|end|>"))
    tokenizer.unk_token = tokenizer.eos_token
    assert tokenizer.unk_token_id == tokenizer.eos_token_id
    rendered = render(Example("7", (turn("user", "hi"), turn("assistant", ""))), tokenizer)
    assert rendered.tokens[rendered.segments == Segment.RESPONSE].tolist() == [tokenizer.eos_token_id]


def test_empty_text_is_left_to_the_caller() -> None:
    assert len(render(Example("7", (turn("user", ""),)), word_tokenizer()).tokens) == 0


def test_tools_reach_the_template() -> None:
    tokenizer = chat_tokenizer(PLAIN)
    asked = replace(AGENT, messages=AGENT.messages[:2])
    with_tools, without = (render_prompt(each, tokenizer) for each in (asked, replace(asked, tools=())))
    assert '"name": "add"' in tokenizer.decode(with_tools.tokens) and len(without.tokens) < len(with_tools.tokens)


def test_the_teacher_answers_a_trace_from_its_last_turn_on() -> None:
    tokenizer = chat_tokenizer(PLAIN)
    asked = replace(AGENT, messages=AGENT.messages[:-1])
    assert render_prompt(AGENT, tokenizer).key == render_prompt(asked, tokenizer).key
