"""PromptForm: everything beside tokenizer and example that decides how a prompt is rendered."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from cache.errors import InputError
from cache.examples.tokenizers import Tokenizer, chat_templates

# Templates call this function of Transformers to write the date of today.
CLOCK = "strftime_now"
# Arguments that rendering sets itself.
RESERVED = {
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "tokenize",
    "return_dict",
    "chat_template",
    CLOCK,
}


@dataclass(frozen=True, slots=True)
class PromptForm:
    """How the chat template is called, and whether an encoder reads the prompt.

    chat_template_kwargs: variables of the template beside the messages, such as {"enable_thinking": False}.
    template_date: the day, YYYY-MM-DD, that the template writes as today; "" if it writes none. Prompts with the date
        of the run would be other prompts on the next day.
    has_encoder: an encoder reads the prompt, and the end token that its tokenizer adds stays.
    """

    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    template_date: str = ""
    has_encoder: bool = False

    @property
    def template_variables(self) -> dict[str, Any]:
        """All variables for the chat template."""
        variables = dict(self.chat_template_kwargs)
        if self.template_date:
            variables[CLOCK] = datetime.combine(parse_date(self.template_date), datetime.min.time()).strftime
        return variables


# Of a template without other variables.
DEFAULT_FORM = PromptForm()


def parse_date(text: str) -> date:
    """Parse YYYY-MM-DD. Raises ValueError for any other text."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise ValueError(f"{text!r} is not a date of the form YYYY-MM-DD")
    return date.fromisoformat(text)


def today() -> str:
    """The date of today in UTC, YYYY-MM-DD, so that all machines of a cluster agree."""
    return datetime.now(UTC).date().isoformat()


def writes_date(tokenizer: Tokenizer) -> bool:
    """Whether a chat template of the tokenizer reads the clock."""
    return any(CLOCK in text for text in chat_templates(tokenizer).values())


def require_template_variables(tokenizer: Tokenizer, variables: Mapping[str, Any], setting: str) -> None:
    """Raise InputError, naming the setting, for a variable that the chat template does not use."""
    texts = chat_templates(tokenizer).values()
    for name in variables:
        if name in RESERVED:
            raise InputError(f"{setting}.{name}: is set by this program; leave it out")
        if not any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts):
            raise InputError(f"{setting}.{name}: the chat template does not use this variable; leave it out")
