"""Traces: whole chats, of which every turn of the assistant is a target."""

from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import InputError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.rendering.assistant_turns import marks_turns
from cache.rendering.render import render, render_prompt
from tests.cache.examples.chats import (
    AGENT,
    FORGETFUL,
    FORGETFUL_MARKED,
    MARKED,
    PLAIN,
    SAID,
    TOOLS,
    chat_tokenizer,
    turn,
)

PLAIN_TOKENIZER, MARKED_TOKENIZER = chat_tokenizer(PLAIN), chat_tokenizer(MARKED)


def text_of(tokens: Any, tokenizer: Any) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=False))


def runs(tokenized: TokenizedExample, tokenizer: Any) -> list[tuple[int, str]]:
    """Segment and text of each run of tokens of one segment."""
    pairs = zip(tokenized.segments.tolist(), tokenized.tokens.tolist(), strict=True)
    return [(k, text_of([t for _, t in run], tokenizer)) for k, run in groupby(pairs, key=lambda pair: pair[0])]


def whole(example: Example, tokenizer: Any) -> str:
    return str(tokenizer.apply_chat_template(list(example.messages), tools=list(example.tools) or None, tokenize=False))


@pytest.mark.parametrize("tokenizer", [PLAIN_TOKENIZER, MARKED_TOKENIZER], ids=["prefixes", "marks"])
def test_every_token_of_the_assistant_is_a_target(tokenizer: Any) -> None:
    rendered = render(AGENT, tokenizer)
    found = runs(rendered, tokenizer)
    assert [text for segment, text in found if segment == Segment.RESPONSE] == SAID
    assert {segment for segment, _ in found} == {Segment.PROMPT, Segment.RESPONSE}
    assert found[0][1].startswith('<|im_start|>system\n[{"type"') and found[0][1].endswith("<|im_start|>assistant\n")
    assert found[2][1] == "\n<|im_start|>tool\n4<|im_end|>\n<|im_start|>assistant\n"
    assert found[-1] == (Segment.PROMPT, "\n")  # nothing is added to what the template ended
    assert "".join(text for _, text in found) == whole(AGENT, tokenizer)
    assert rendered.example is AGENT and rendered.origin == "scored"


CONTENTS = st.text(max_size=8) | st.sampled_from(["two and two", " it is\n", "\n\n", "🙂", "<|im_end|>", "4"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "tool"]), CONTENTS), max_size=5), CONTENTS)
def test_marks_and_prefixes_agree_on_any_chat(turns: list[tuple[str, str]], last: str) -> None:
    messages = (turn("user", "hi"), *(turn(*each) for each in turns), turn("assistant", last))
    example = Example("1", messages)
    rendered = render(example, PLAIN_TOKENIZER)
    assert text_of(rendered.tokens, PLAIN_TOKENIZER) == whole(example, PLAIN_TOKENIZER)
    said = [f"{m['content']}<|im_end|>" for m in messages if m["role"] == "assistant"]
    assert [text for segment, text in runs(rendered, PLAIN_TOKENIZER) if segment == Segment.RESPONSE] == said
    marked = render(example, MARKED_TOKENIZER)
    assert np.array_equal(marked.tokens, rendered.tokens) and np.array_equal(marked.segments, rendered.segments)


def test_a_trace_is_prompted_with_the_ids_of_its_prompt() -> None:
    for count in (3, 5, 7):
        example = replace(AGENT, messages=AGENT.messages[:count])
        rendered, prompt = render(example, PLAIN_TOKENIZER), render_prompt(example, PLAIN_TOKENIZER)
        start = np.flatnonzero(np.diff((rendered.segments == Segment.RESPONSE).astype(int)) == 1)[-1] + 1
        assert np.array_equal(rendered.tokens[:start], prompt.tokens)
        assert prompt.example.messages == example.messages[:-1]


@pytest.mark.parametrize("template", [FORGETFUL, FORGETFUL_MARKED], ids=["probes", "marks"])
def test_a_template_may_forget_the_reasoning_of_earlier_turns(template: str) -> None:
    tokenizer = chat_tokenizer(template)
    found = runs(render(AGENT, tokenizer), tokenizer)
    said = [SAID[0].removeprefix("<think>must add</think>"), *SAID[1:]]
    assert [text for segment, text in found if segment == Segment.RESPONSE] == said
    alone = replace(AGENT, messages=AGENT.messages[:3])
    found = runs(render(alone, tokenizer), tokenizer)
    assert [text for segment, text in found if segment == Segment.RESPONSE] == SAID[:1]


def test_a_prompt_that_opens_thoughts_does_not_move_the_turns() -> None:
    """Templates of thinking models prompt with more than a chat without thoughts contains."""
    tokenizer = chat_tokenizer(
        PLAIN.replace("assistant{{ '\\n' }}{% endif %}", "assistant{{ '\\n' }}<think>{% endif %}")
    )
    found = runs(render(AGENT, tokenizer), tokenizer)
    said = [SAID[0].removeprefix("<think>"), *SAID[1:]]
    assert [text for segment, text in found if segment == Segment.RESPONSE] == said


@pytest.mark.parametrize(
    "template, message",
    [
        (PLAIN.replace("in messages %}", "in messages[-1:] %}"), r"leaves out the content of turn 1 \('system'\)"),
        (PLAIN.replace("{{ tools | tojson }}", "tools"), "leaves out the tools"),
        (PLAIN.replace("{{ call | tojson }}", "None"), "leaves out a tool call of turn 3"),
        (PLAIN.replace("{{ call | tojson }}", "{{ call.function.name }}"), "leaves out a tool call of turn 3"),
        (PLAIN.replace("m.reasoning_content", "m.thinking"), "leaves out 'reasoning_content' of turn 3"),
        (PLAIN.replace("{{ m.content }}", "{{ m.content[:2] }}"), r"leaves out the content of turn 1 \('system'\)"),
        (PLAIN.replace("{{ m.content or '' }}", "{{ loop.index }}"), "leaves out the content of turn 5"),
    ],
)
def test_a_template_that_drops_a_part_is_refused(template: str, message: str) -> None:
    with pytest.raises(InputError, match=f"example agent: the chat template {message}"):
        render(AGENT, chat_tokenizer(template))


def test_a_chat_may_begin_with_the_assistant() -> None:
    example = Example("1", (turn("assistant", "it is"), turn("user", "thanks"), turn("assistant", "4")))
    for tokenizer in (PLAIN_TOKENIZER, MARKED_TOKENIZER):
        found = runs(render(example, tokenizer), tokenizer)
        assert [text for segment, text in found if segment] == ["it is<|im_end|>", "4<|im_end|>"]


def test_marks_end_with_the_last_byte_of_a_character() -> None:
    """A character of several tokens at the end of what is marked is a target as a whole."""
    tokenizer = chat_tokenizer(MARKED.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>"))
    assert len(tokenizer("🙂", add_special_tokens=False)["input_ids"]) > 1
    found = runs(render(AGENT, tokenizer), tokenizer)
    assert [text for segment, text in found if segment] == [text.removesuffix("<|im_end|>") for text in SAID]


def test_white_space_after_a_turn_belongs_to_what_follows() -> None:
    tokenizer = chat_tokenizer(PLAIN.replace("<|im_end|>", " \n"))
    example = Example("1", (turn("user", "hi"), turn("assistant", "it is "), turn("user", "4"), turn("assistant", " ")))
    found = runs(render(example, tokenizer), tokenizer)
    assert [text for _, text in found] == [
        "<|im_start|>user\nhi \n\n<|im_start|>assistant\n",
        "it is",
        "  \n\n<|im_start|>user\n4 \n\n<|im_start|>assistant\n  \n\n",
    ]


def test_without_a_template_the_last_turn_is_the_response() -> None:
    tokenizer = chat_tokenizer(None, adds_bos=True)
    example = Example("1", (turn("user", "two"), turn("assistant", "and"), turn("user", "is"), turn("assistant", "4")))
    rendered = render(example, tokenizer)
    assert runs(rendered, tokenizer) == [(Segment.PROMPT, "<|begin|>two\nand\nis\n"), (Segment.RESPONSE, "4<|end|>")]
    prompt = render_prompt(example, tokenizer)
    assert np.array_equal(rendered.tokens[: rendered.prompt_length], prompt.tokens)
    alone = render(Example("1", (turn("assistant", "it is 4"),)), tokenizer)
    assert runs(alone, tokenizer) == [(Segment.PROMPT, "<|begin|>"), (Segment.RESPONSE, "it is 4<|end|>")]


@pytest.mark.parametrize(
    "example, lost", [(AGENT, "reasoning_content"), (replace(AGENT, messages=AGENT.messages[:2]), "tools")]
)
def test_chats_that_need_a_template_are_refused_without_one(example: Example, lost: str) -> None:
    with pytest.raises(InputError, match=f"example agent: has '{lost}', which is lost without a chat template"):
        render(example, chat_tokenizer(None))


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_a_tokenizer_that_adds_a_beginning_adds_none_to_a_chat(template: str) -> None:
    tokenizer = chat_tokenizer(template, adds_bos=True)
    assert tokenizer("4")["input_ids"][0] == tokenizer.bos_token_id
    assert text_of(render(AGENT, tokenizer).tokens, tokenizer) == whole(AGENT, tokenizer)
    tokenizer.chat_template = "{{ bos_token }}" + template
    assert render(AGENT, tokenizer).tokens.tolist().count(tokenizer.bos_token_id) == 1


def test_a_chat_without_assistant_turns_needs_targets_of_all_tokens() -> None:
    tokenizer = chat_tokenizer(MARKED.replace("m.role == 'assistant'", "m.role == 'nobody'"))
    example = Example("plain", AGENT.messages[4:])
    with pytest.raises(InputError, match="example plain: no token of its chat is the assistant's"):
        render(example, tokenizer)
    rendered = render(example, tokenizer, targets_of="all")
    assert rendered.prompt_length == len(rendered.tokens) > 0


def test_all_targets_change_no_segment() -> None:
    for tokenizer in (PLAIN_TOKENIZER, MARKED_TOKENIZER):
        assert render(AGENT, tokenizer, targets_of="all").key == render(AGENT, tokenizer).key


def test_the_first_requested_row_is_the_last_of_the_prompt() -> None:
    rendered = render(AGENT, PLAIN_TOKENIZER)
    row = rendered.prompt_length - 1
    assert rendered.segments[row] == Segment.PROMPT and rendered.segments[row + 1] == Segment.RESPONSE


def test_a_template_of_several_is_judged_by_the_one_in_use() -> None:
    tokenizer = chat_tokenizer(None)
    tokenizer.chat_template = {"default": FORGETFUL, "tool_use": FORGETFUL_MARKED}
    tokenizer.chat_template["default"] = PLAIN.replace("<|im_end|>", "</s>")
    assert "<|im_end|>" in text_of(render(AGENT, tokenizer).tokens, tokenizer)
    assert "</s>" in text_of(render(replace(AGENT, tools=()), tokenizer).tokens, tokenizer)
    tokenizer.chat_template = {"other": PLAIN}
    with pytest.raises(InputError, match="example agent: the chat template cannot render its messages"):
        render(AGENT, tokenizer)


def test_marks_are_seen_however_they_are_spelled() -> None:
    assert all(marks_turns(mark) for mark in ("{% generation %}", "{%- generation -%}", "{%generation%}"))
    assert not any(marks_turns(text) for text in (PLAIN, "{% if add_generation_prompt %}", "generation"))


def test_only_a_chat_that_ends_with_the_assistant_is_a_trace() -> None:
    assert AGENT.is_trace
    assert not replace(AGENT, response="and").is_trace and not replace(AGENT, rationale="and").is_trace
    assert not replace(AGENT, messages=AGENT.messages[:-1]).is_trace and not replace(AGENT, messages=()).is_trace


def test_earlier_turns_of_an_ordinary_example_are_prompt() -> None:
    example = replace(AGENT, messages=AGENT.messages[:-1], rationale="must add", response=" 4")
    found = runs(render(example, PLAIN_TOKENIZER), PLAIN_TOKENIZER)
    prompt = PLAIN_TOKENIZER.apply_chat_template(
        list(example.messages), tools=list(TOOLS), tokenize=False, add_generation_prompt=True
    )
    said = [(Segment.RATIONALE, "must add"), (Segment.RESPONSE, " 4<|im_end|>"), (Segment.PROMPT, "\n")]
    assert found == [(Segment.PROMPT, prompt), *said]
