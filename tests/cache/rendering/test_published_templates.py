"""Templates of the kinds that people use: the ids are those of the whole text, and the targets are the assistant's."""

import json
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from cache.errors import InputError
from cache.examples.example import Example, Segment
from cache.rendering.prompt_form import PromptForm, require_template_variables, writes_date
from cache.rendering.render import render, render_prompt
from tests.cache.examples.chats import AGENT, CALL, PLAIN, chat_tokenizer, turn
from tests.cache.rendering import published_templates as published

WORDS = "two and two is it 4 must add thanks Answer why because gern geschehen"
QUESTION = (turn("user", "two and two"),)
ANSWERED = Example("1", QUESTION, "must add", " 4")


def sentence_pieces(template: str | None, adds: str = "bos") -> Any:
    """A tokenizer of sentence pieces with bytes to fall back on. adds: what is added to a text, "bos" or "eos"."""
    learned = Tokenizer(models.BPE(unk_token="<unk>"))
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    learned.train_from_iterator([WORDS] * 3, trainers.BpeTrainer(vocab_size=200))
    model = json.loads(learned.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocab, merges = {name: i for i, name in enumerate(names)}, [tuple(pair) for pair in model["merges"]]
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.add_special_tokens(["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    mark = ("<s>", 1) if adds == "bos" else ("</s>", 2)
    single = f"{mark[0]} $A" if adds == "bos" else f"$A {mark[0]}"
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[mark])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = template
    return tokenizer


def texts(example: Example, tokenizer: Any, form: PromptForm | None = None) -> list[tuple[int, str]]:
    """Segment and text of each run of tokens of one segment, of the rendered example."""
    rendered = render(example, tokenizer, form=form) if form else render(example, tokenizer)
    pairs = zip(rendered.segments.tolist(), rendered.tokens.tolist(), strict=True)
    runs = groupby(pairs, key=lambda pair: pair[0])
    return [(segment, tokenizer.decode([token for _, token in run])) for segment, run in runs]


def said(example: Example, tokenizer: Any, form: PromptForm | None = None) -> list[str]:
    return [text for segment, text in texts(example, tokenizer, form) if segment != Segment.PROMPT]


ALL = ["THINKING", "OPENED_THOUGHTS", "ALTERNATING", "INSTRUCTIONS", "TOOLS_LAST", "LAST_END", "PARTS", "DATED"]
CONTENTS = st.sampled_from(["4", " it is", "is it\n", "why?\n\nbecause", "gern geschehen 🙂", "<b>two</b>", "  "])


@pytest.mark.parametrize("pieces", [False, True], ids=["bytes", "pieces"])
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_ids_are_those_of_the_whole_text(name: str, pieces: bool, data: st.DataObject) -> None:
    """A response and the same chat as a trace give the ids that the template gives for the whole."""
    template = getattr(published, name)
    tokenizer = sentence_pieces(template) if pieces else chat_tokenizer(template)
    turns = data.draw(st.lists(st.tuples(CONTENTS, CONTENTS), max_size=2))
    rationale, response = data.draw(CONTENTS), data.draw(CONTENTS.filter(str.strip))
    earlier = [turn(role, text) for pair in turns for role, text in zip(("user", "assistant"), pair, strict=True)]
    messages = (*earlier, turn("user", data.draw(CONTENTS)))
    form = PromptForm({}, "2024-02-03") if name == "DATED" else PromptForm()
    trace = Example("1", (*messages, turn("assistant", rationale + response)))
    whole = [
        {**each, "content": [{"type": "text", "text": each["content"]}]} if name == "PARTS" else each
        for each in trace.messages
    ]
    expected = tokenizer.apply_chat_template(whole, return_dict=True, **form.template_variables)["input_ids"]
    as_trace, as_response = (
        render(trace, tokenizer, form=form),
        render(Example("1", messages, rationale, response), tokenizer, form=form),
    )
    assert as_trace.tokens.tolist() == as_response.tokens.tolist() == expected
    # The last run of targets is the same, and all of it is the assistant's in both.
    last = as_response.segments != Segment.PROMPT
    assert last.any() and not (last & (as_trace.segments == Segment.PROMPT)).any()
    decoded = tokenizer.decode(as_response.tokens[last]).replace(" ", "").replace("\n", "")
    assert "".join(response.split()) in decoded


def test_thoughts_stay_with_the_turns_that_have_them() -> None:
    tokenizer = chat_tokenizer(published.THINKING)
    assert texts(ANSWERED, tokenizer)[1:] == [
        (Segment.RATIONALE, "<think>\n\n</think>\n\nmust add"),
        (Segment.RESPONSE, " 4<|im_end|>"),
        (Segment.PROMPT, "\n"),
    ]
    silent = PromptForm({"enable_thinking": False})
    found = texts(ANSWERED, tokenizer, silent)
    assert found[0][1].endswith("assistant\n<think>\n\n</think>\n\n") and found[1] == (Segment.RATIONALE, "must add")
    prompt = render_prompt(ANSWERED, tokenizer, silent)
    assert tokenizer.decode(prompt.tokens) == found[0][1]
    call = turn("assistant", None, reasoning_content="must add", tool_calls=[CALL])
    agent = (*QUESTION, call, turn("tool", "4"), turn("assistant", "it is 4", reasoning_content="is it"))
    block = '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|im_end|>'
    assert said(Example("1", agent), tokenizer) == [
        f"<think>\nmust add\n</think>\n\n{block}",
        "<think>\nis it\n</think>\n\nit is 4<|im_end|>",
    ]
    later = Example("1", (*agent[:3], turn("assistant", "it is 4"), turn("user", "why"), turn("assistant", "because")))
    assert said(later, tokenizer) == [block, "it is 4<|im_end|>", "<think>\n\n</think>\n\nbecause<|im_end|>"]


@pytest.mark.parametrize("template", [published.THINKING, published.OPENED_THOUGHTS], ids=["written", "dropped"])
@pytest.mark.parametrize("thoughts", ["<think>\nmust add\n</think>\n\n", "<think>must add</think>"])
def test_thoughts_of_a_response_are_targets(template: str, thoughts: str) -> None:
    """Whether the template writes them, rewrites them, or drops what its own prompt has opened."""
    tokenizer = chat_tokenizer(template)
    forms = [
        Example("1", QUESTION, response=thoughts + "4"),
        Example("1", QUESTION, thoughts, "4"),
        Example("1", (*QUESTION, turn("assistant", thoughts + "4"))),
    ]
    for example in forms:
        rendered = render(example, tokenizer)
        assert "<think>" in tokenizer.decode(rendered.tokens) and "<think>\n<think>" not in tokenizer.decode(
            rendered.tokens
        )
        (spoken,) = ["".join(said(example, tokenizer))]
        assert "must add" in spoken and spoken.endswith("4<|im_end|>")
    found = texts(forms[1], tokenizer)
    assert (Segment.RESPONSE, "4<|im_end|>") in found


def test_an_answer_without_thoughts_follows_no_open_thoughts() -> None:
    tokenizer = chat_tokenizer(published.OPENED_THOUGHTS)
    assert texts(ANSWERED, tokenizer) == [
        (Segment.PROMPT, "<|begin|><|User|>two and two<|Assistant|>"),
        (Segment.RATIONALE, "must add"),
        (Segment.RESPONSE, " 4<|im_end|>"),
    ]
    assert tokenizer.decode(render_prompt(ANSWERED, tokenizer).tokens).endswith("<|Assistant|><think>\n")


def test_every_turn_ends_as_the_template_ends_it() -> None:
    chat = Example("1", (*QUESTION, turn("assistant", "it is"), turn("user", "why"), turn("assistant", "because")))
    for template, ends in (
        (published.LAST_END, ["<|im_end|>", "<|return|>"]),
        (published.ALTERNATING, ["<end_of_turn>", "<end_of_turn>"]),
        (published.ENDLESS, ["", ""]),
    ):
        tokenizer = chat_tokenizer(template)
        tokenizer.add_tokens(["<|return|>", "<end_of_turn>"], special_tokens=True)
        assert said(chat, tokenizer) == ["it is" + ends[0], "because" + ends[1]]
    # Without an end of the template's own, a response ends with the end token: a model must learn to stop.
    assert texts(ANSWERED, tokenizer)[1:] == [(Segment.RATIONALE, "must add"), (Segment.RESPONSE, " 4<|end|>")]


def test_a_prompt_may_begin_the_answer() -> None:
    tokenizer = chat_tokenizer(PLAIN)
    example = Example("1", (*QUESTION, turn("assistant", "it is")), response=" 4")
    header = "<|im_start|>user\ntwo and two<|im_end|>\n<|im_start|>assistant\n"
    assert texts(example, tokenizer) == [
        (Segment.PROMPT, header + "it is"),
        (Segment.RESPONSE, " 4<|im_end|>"),
        (Segment.PROMPT, "\n"),
    ]
    assert tokenizer.decode(render_prompt(example, tokenizer).tokens) == header + "it is"


def test_tools_may_stand_before_the_last_question() -> None:
    tokenizer = chat_tokenizer(published.TOOLS_LAST)
    chat = replace(
        AGENT, messages=tuple({k: v for k, v in m.items() if k != "reasoning_content"} for m in AGENT.messages[1:])
    )
    assert said(chat, tokenizer) == [
        '[CALL]{"name": "add", "arguments": {"a": 2}}<|end|>',
        "it is 4<|end|>",
        " gern geschehen 🙂<|end|>",
    ]


def test_what_a_template_refuses_names_the_example() -> None:
    tokenizer = chat_tokenizer(published.ALTERNATING)
    for messages, message in (
        ((turn("system", "be brief"), *QUESTION), "System role not supported"),
        ((*QUESTION, *QUESTION), "roles must alternate"),
        ((turn("human", "two"),), "turn 1 has the role 'human', which the chat template does not know"),
        (({**QUESTION[0], "weight": 1},), "leaves out 'weight' of turn 1"),
    ):
        with pytest.raises(InputError, match=f"^example 1: .*{message}"):
            render(replace(ANSWERED, messages=messages), tokenizer)
    with pytest.raises(InputError, match=r"^example 1: turn 1 has the role 'human'"):
        render(replace(ANSWERED, messages=(turn("human", "two"),)), chat_tokenizer(None))


def test_a_date_is_fixed() -> None:
    tokenizer = chat_tokenizer(published.DATED)
    assert writes_date(tokenizer) and not writes_date(chat_tokenizer(PLAIN)) and not writes_date(chat_tokenizer(None))
    first, again, other = (
        render(ANSWERED, tokenizer, form=PromptForm({}, day)) for day in ("2024-02-03", "2024-02-03", "2024-02-04")
    )
    assert "Today is 03 Feb 2024" in tokenizer.decode(first.tokens)
    assert first.key == again.key != other.key


def test_variables_that_a_template_does_not_use_are_refused() -> None:
    tokenizer = chat_tokenizer(published.THINKING)
    require_template_variables(tokenizer, {"enable_thinking": False}, "teacher.chat_template_kwargs")
    for name, message in (("enable_thinkin", "does not use this variable"), ("messages", "is set by this program")):
        with pytest.raises(InputError, match=rf"^teacher.chat_template_kwargs.{name}: .*{message}"):
            require_template_variables(tokenizer, {name: 1}, "teacher.chat_template_kwargs")


@pytest.mark.parametrize("as_text", [False, True])
def test_arguments_of_calls_reach_templates_that_join_them_to_text(as_text: bool) -> None:
    template = PLAIN.replace("{{ call | tojson }}", "{{ call.function.name + '|' + call.function.arguments }}")
    (first, *_) = said(AGENT, chat_tokenizer(template if as_text else PLAIN))
    assert ('add|{"a": 2}' if as_text else '"arguments": {"a": 2}') in first


@pytest.mark.parametrize("adds", ["bos", "eos"])
def test_a_base_model_continues_its_prompt(adds: str) -> None:
    """No end token before the response, no space that the text does not have, one beginning and one end."""
    tokenizer = sentence_pieces(None, adds)
    beginning = "<s>" if adds == "bos" else ""
    for prompt, response in (("two and two is", " it 4"), ("two and two is ", "it"), ("two\n", "and"), ("two", "4")):
        example = Example("1", (turn("user", prompt),), response=response)
        rendered, asked = render(example, tokenizer), render_prompt(example, tokenizer)
        assert tokenizer.decode(rendered.tokens).removeprefix(beginning).lstrip() == f"{prompt}{response}</s>"
        assert rendered.tokens.tolist()[: len(asked.tokens)] == asked.tokens.tolist()
        assert (asked.tokens != 2).all() and (rendered.segments[len(asked.tokens) :] == Segment.RESPONSE).all()
    # An encoder reads a whole text, with its end.
    encoder = PromptForm(has_encoder=True)
    ends_itself = render_prompt(Example("1", QUESTION), tokenizer, encoder).tokens[-1] == 2
    assert ends_itself == (adds == "eos")


def test_text_that_is_the_end_token_stays() -> None:
    tokenizer = sentence_pieces(None, "eos")
    prompt = render_prompt(Example("1", (turn("user", "two</s>"),)), tokenizer)
    assert prompt.tokens.tolist().count(2) == 1


@pytest.mark.parametrize(
    "example",
    [
        Example("1", QUESTION, "<think>\nmust add\n</think>\n\n", "4"),
        Example("1", QUESTION, response="<think>\nmust add\n</think>\n\n4"),
        Example("1", (*QUESTION, turn("assistant", "<think>\nmust")), " add\n</think>\n\n", "4"),
        Example("1", (*QUESTION, turn("assistant", "<think>\nmust add\n</think>\n\n4"))),
    ],
    ids=["rationale", "response", "begun", "trace"],
)
@pytest.mark.parametrize("name", ["OPENED_WRITTEN", "OPENED_THOUGHTS", "THINKING"])
def test_thoughts_are_written_once_whoever_opens_them(name: str, example: Example) -> None:
    tokenizer = chat_tokenizer(getattr(published, name))
    rendered = render(example, tokenizer)
    text = tokenizer.decode(rendered.tokens)
    assert text.count("<think>") == text.count("</think>") == 1 and "<think>\nmust add\n</think>\n\n4<|im_end|>" in text
    spoken = "".join(said(example, tokenizer))
    assert spoken.endswith("add\n</think>\n\n4<|im_end|>")


@pytest.mark.parametrize("thoughts", ["", "two and two"])
def test_thoughts_that_say_nothing_new_are_kept_where_a_template_drops_them(thoughts: str) -> None:
    """Looked for in the whole chat they would seem to be there."""
    tokenizer = chat_tokenizer(published.OPENED_THOUGHTS)
    words = f"<think>\n{thoughts}\n</think>\n\n4"
    for example in (Example("1", QUESTION, response=words), Example("1", (*QUESTION, turn("assistant", words)))):
        assert "".join(said(example, tokenizer)).endswith("</think>\n\n4<|im_end|>")


def test_calls_are_found_where_a_template_checks_the_order() -> None:
    tokenizer = chat_tokenizer(published.STRICT)
    call = turn("assistant", None, tool_calls=[CALL])
    chat = Example(
        "1", (*QUESTION, call, turn("tool", "4"), turn("assistant", "it is 4"), *QUESTION, turn("assistant", "4"))
    )
    assert said(chat, tokenizer) == [
        '[CALL]{"name": "add", "arguments": {"a": 2}}<|end|>',
        "it is 4<|end|>",
        "4<|end|>",
    ]


def test_a_response_follows_its_prompt_where_the_chat_loses_the_system_turn() -> None:
    tokenizer = chat_tokenizer(published.STRICT)
    example = Example("1", (turn("system", "be brief"), *QUESTION), response="4")
    (prompt, response) = texts(example, tokenizer)
    assert prompt[1] == "<|begin|>[INST] be brief\n\ntwo and two[/INST]" and response == (Segment.RESPONSE, "4<|end|>")
    assert tokenizer.decode(render_prompt(example, tokenizer).tokens) == prompt[1]
