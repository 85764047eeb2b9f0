"""The text that a chat template makes of an example. What the template cannot express is refused, never dropped."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cache.answers.reasoning import END_THINK
from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.tokenizers import Tokenizer
from cache.rendering.prompt_form import PromptForm

Messages = Sequence[Mapping[str, Any]]
# Roles that chat templates know under these names. Any other role must occur in the template.
ROLES = {"system", "developer", "user", "assistant", "tool", "function", "ipython"}
# Names that a template may ignore: they link a result to its call, which the order of the turns shows as well.
LINKS = {"name", "tool_call_id"}
PART_FORMS = ("'type':'text'", '"type":"text"')
# Two characters for private use, which no text of a template or of an example is expected to contain.
PROBE = "\ue37a\ue9c1"


class ChatText:
    """Renders chats of one example by the chat template of a tokenizer. Raises InputError with the id of the example.

    source: the template, one of several if the tokenizer has them.
    """

    def __init__(self, example: Example, tokenizer: Tokenizer, form: PromptForm) -> None:
        self._example, self._tokenizer = example, tokenizer
        self._variables = form.template_variables | ({"tools": list(example.tools)} if example.tools else {})
        self.source = self._choose_template()
        self._takes_parts = False
        self._require_known_roles(example.messages)

    def render(self, messages: Messages, prompts: bool) -> str:
        """The text of some messages. prompts: add the header of the assistant's next turn."""
        return str(self._apply(messages, tokenize=False, add_generation_prompt=prompts))

    def mask(self, messages: Messages) -> list[bool]:
        """Whether each token of the messages is marked by {% generation %}, bool [n]."""
        options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
        return [bool(mark) for mark in self._apply(messages, **options)["assistant_masks"]]

    def render_complete(self, messages: Messages, prompts: bool) -> str:
        """The text of some messages. Raises InputError if the template leaves out a part of them.

        Templates of vision models read a content as a list of parts. They get one if they lose a content of text.
        """
        text = self.render(messages, prompts)
        lost = self._find_lost(messages, text)
        if lost and not self._takes_parts:
            self._takes_parts = True
            with_parts = self._try_render(messages, prompts)
            # A template that expects text may write the list itself.
            lists_parts = with_parts is None or any(form in squeeze(with_parts) for form in PART_FORMS)
            if with_parts is not None and not lists_parts and not self._find_lost(messages, with_parts):
                return with_parts
            self._takes_parts = False
        if lost:
            raise InputError(
                f"example {self._example.id}: the chat template leaves out {lost}; use a template that writes it, or "
                "remove it from the example"
            )
        return text

    def _choose_template(self) -> str:
        try:
            return self._tokenizer.get_chat_template(tools=self._example.tools or None)
        except Exception as error:
            raise self._error(error) from error

    def _writes_tools(self, messages: Messages) -> bool:
        """Whether the template writes the names of tools. Their own names may be words of the chat."""
        tools = [
            {**tool, "function": {**tool["function"], "name": PROBE}} if "function" in tool else {**tool, "name": PROBE}
            for tool in self._example.tools
        ]
        variables, self._variables = self._variables, self._variables | {"tools": tools}
        try:
            return self.render(messages, prompts=True).count(PROBE) >= len(tools)
        finally:
            self._variables = variables

    def _try_render(self, messages: Messages, prompts: bool) -> str | None:
        try:
            return self.render(messages, prompts)
        except InputError:
            return None

    def _apply(self, messages: Messages, **options: Any) -> Any:
        turns = [self._with_parts(turn) if self._takes_parts else dict(turn) for turn in messages]
        first: Exception | None = None
        for form in _forms(turns):
            try:
                return self._tokenizer.apply_chat_template(form, **options, **self._variables)
            except Exception as error:  # templates raise exceptions of many types
                first = first or error
        assert first is not None
        raise self._error(first) from first

    def _error(self, error: Exception) -> InputError:
        return InputError(f"example {self._example.id}: the chat template cannot render its messages: {error}")

    @staticmethod
    def _with_parts(turn: Mapping[str, Any]) -> dict[str, Any]:
        content = turn.get("content")
        return {**turn, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else dict(turn)

    def _require_known_roles(self, messages: Messages) -> None:
        for i, turn in enumerate(messages, start=1):
            role = turn["role"]
            if role not in ROLES and not re.search(rf"['\"]{re.escape(role)}['\"]", self.source):
                raise InputError(
                    f"example {self._example.id}: turn {i} has the role {role!r}, which the chat template does not "
                    "know; use 'system', 'user', 'assistant' or 'tool'"
                )

    def _find_lost(self, messages: Messages, text: str) -> str:
        """Name the first part of the messages or tools that is not in the text; "" if there is none."""
        present = _Words(text)
        if self._example.tools and not self._writes_tools(messages):
            return "the tools"
        # Templates of thinking models leave out the thoughts of earlier turns, as the model was trained.
        words = [_words_of(turn) for turn in messages]
        for i, turn in enumerate(messages, start=1):
            if not present.has(words[i - 1], words.count(words[i - 1])):
                return f"the content of turn {i} ({turn['role']!r})"
            if not all(_has_call(present, call) for call in turn.get("tool_calls") or ()):
                return f"a tool call of turn {i}"
            for key in turn.keys() - {"role", "content", "tool_calls"} - LINKS:
                if turn[key] and key not in self.source:
                    return f"{key!r} of turn {i}"
        reasoning = messages[-1].get("reasoning_content") if messages else None
        if isinstance(reasoning, str) and not present.has(reasoning):
            return f"'reasoning_content' of turn {len(messages)}"
        return ""


def squeeze(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())


class _Words:
    """A text in which parts are looked up without regard to white space."""

    def __init__(self, text: str) -> None:
        self._text = squeeze(text)

    def has(self, part: str, times: int = 1) -> bool:
        """Whether the text contains the part so many times, as it is or as JSON text. Any text contains white space."""
        forms = {squeeze(form) for form in (part, *_json_forms(part))}
        return "" in forms or any(self._text.count(form) >= times for form in forms)


def _words_of(turn: Mapping[str, Any]) -> str:
    """The content of a turn, of the assistant's without its thoughts."""
    content = turn.get("content") or ""
    return content.rpartition(END_THINK)[2] if turn["role"] == "assistant" else content


def _json_forms(part: str) -> list[str]:
    try:
        return [json.dumps(part, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True)]
    except ValueError:
        return []


def _function(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function of a tool or of a call, with or without the wrapper of OpenAI's API."""
    inner = value.get("function")
    return inner if isinstance(inner, Mapping) else value


def _has_call(present: _Words, call: Mapping[str, Any]) -> bool:
    function = _function(call)
    return present.has(str(function.get("name") or "")) and all(
        present.has(text) for text in _leaves(function.get("arguments"))
    )


def _leaves(value: Any) -> list[str]:
    """The texts and numbers in the arguments of a call."""
    if isinstance(value, Mapping):
        return [text for name, item in value.items() for text in [str(name), *_leaves(item)]]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _leaves(item)]
    return [value] if isinstance(value, str) else [json.dumps(value)] if isinstance(value, int | float) else []


def _forms(turns: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The same turns as templates may expect them, most common first.

    Some templates join the arguments of a call to text, so they need them as JSON text. Some look into a content
    without a test for null.
    """
    texts = [_with_arguments_as_text(turn) for turn in turns]
    filled = [{key: value for key, value in turn.items() if value is not None} for turn in turns]
    yield turns
    if texts != turns:
        yield texts
    if filled != turns:
        yield filled
        if texts != turns:
            yield [{key: value for key, value in turn.items() if value is not None} for turn in texts]


def _with_arguments_as_text(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn with the arguments of its calls as JSON text."""
    if not turn.get("tool_calls"):
        return turn
    calls = []
    for call in turn["tool_calls"]:
        function = dict(_function(call))
        if isinstance(function.get("arguments"), Mapping):
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
        calls.append({**call, "function": function} if "function" in call else function)
    return {**turn, "tool_calls": calls}
