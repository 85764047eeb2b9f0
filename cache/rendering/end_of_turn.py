"""The token by which a model ends its turn: that of the chat template, which is often not the tokenizer's end token."""

from typing import Any

import numpy as np

from cache.errors import InputError
from cache.examples.example import Example, Segment
from cache.rendering.prompt_form import DEFAULT_FORM, PromptForm
from cache.rendering.render import render

_PROBE = Example("end of turn", ({"role": "user", "content": "two"},), response="two")


def end_of_turn(tokenizer: Any, form: PromptForm = DEFAULT_FORM) -> int | None:
    """Id of the token that ends a response; None if the tokenizer has none."""
    end: int | None = tokenizer.eos_token_id
    if tokenizer.chat_template is None:
        return end
    try:
        rendered = render(_PROBE, tokenizer, form=form)
    except InputError:  # a template that cannot render this chat
        return end
    last = int(rendered.tokens[np.flatnonzero(rendered.segments != Segment.PROMPT)[-1]])
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    return last if last in special else end
