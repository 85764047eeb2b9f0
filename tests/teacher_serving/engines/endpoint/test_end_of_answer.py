"""An answer of a service ends with the token by which the model ends its turn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from cache.rendering.end_of_turn import end_of_turn
from cache.rendering.prompt_form import PromptForm
from tests.cache.rendering.published_templates import ALTERNATING
from tests.teacher_serving.engines.endpoint.endpoint_server import Reply, completion, failing_service, message
from tests.teacher_serving.engines.endpoint.test_endpoint_failures import KEY, SAMPLING, VARIABLE, ask, make

# Ends a turn with another token if a variable says so.
BY_VARIABLE = (
    "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}"
    "{{ '<end_of_turn>' if formal is defined else '<eos>' }}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)


@pytest.mark.parametrize("api", ["openai", "anthropic"])
@pytest.mark.parametrize(
    "template, variables, end",
    [
        (ALTERNATING, {}, "<end_of_turn>"),
        (BY_VARIABLE, {}, "<eos>"),
        (BY_VARIABLE, {"formal": True}, "<end_of_turn>"),
        (None, {}, "<eos>"),
    ],
)
def test_an_answer_ends_as_the_template_ends_a_turn(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    api: str,
    template: str | None,
    variables: dict[str, Any],
    end: str,
) -> None:
    """Would catch the end token of the tokenizer, after which a student would not stop in a chat."""
    monkeypatch.setenv(VARIABLE, KEY)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["<start_of_turn>", "<end_of_turn>", "<eos>"], special_tokens=True)
    tokenizer.eos_token, tokenizer.chat_template = "<eos>", template
    replies = {"openai": completion("one two"), "anthropic": message("one two", "end_turn")}

    def reply(_: Any) -> Reply:
        return replies[api]

    with failing_service(reply) as (address, _):
        teacher = make(address, tokenizer, api, template_variables=variables)
        tokens = teacher.generate(ask("say one two"), SAMPLING)[0].tokens
    wanted = [*tokenizer("one two", add_special_tokens=False)["input_ids"], tokenizer.convert_tokens_to_ids(end)]
    assert tokens.tolist() == wanted
    assert np.uint32(end_of_turn(tokenizer, PromptForm(variables)) or 0) == tokens[-1]


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_a_chat_service_gets_no_stop_text(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, api: str) -> None:
    """Its answers leave the stop text out: nobody could see that one ended in reasoning, or before any text."""
    monkeypatch.setenv(VARIABLE, KEY)
    replies = {"openai": completion("one two"), "anthropic": message("one two", "end_turn")}
    with failing_service(lambda _: replies[api]) as (address, calls):
        teacher = make(address, AutoTokenizer.from_pretrained(tiny_model), api)
        teacher.generate([replace(request, stop="Q:") for request in ask("say one two")], SAMPLING)
        assert not {"stop", "stop_sequences"} & set(calls[-1].body)
