"""The token by which a model ends its turn: that of the chat template, which is often not the tokenizer's end token."""

from typing import Any

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
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    spoken = rendered.tokens[rendered.segments != Segment.PROMPT].tolist()
    # Some templates write the end of the text, or white space, behind the end of the last turn.
    words = [i for i, token in enumerate(spoken) if token not in special and tokenizer.decode([token]).strip()]
    behind = [token for token in spoken[words[-1] + 1 if words else 0 :] if token in special]
    return behind[0] if behind else end
