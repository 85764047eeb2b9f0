"""Chat templates, chats, and a tokenizer for them."""

from typing import Any

from tokenizers import processors

from cache.examples.example import Example
from student.tokenizers.bpe import learn_tokenizer

BODY = (
    "{% if m.reasoning_content {REASONS} %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call | tojson }}</call>{% endfor %}<|im_end|>"
)
CHATML = (
    "{% if tools %}<|im_start|>system{{ '\\n' }}{{ tools | tojson }}<|im_end|>{{ '\\n' }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}{{ '\\n' }}"
    "{% if m.role == 'assistant' %}{MARK}{BODY}{UNMARK}{% else %}{{ m.content }}<|im_end|>{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}"
)


def chat_template(marked: bool, reasons: str = "") -> str:
    """ChatML, with {% generation %} or without. reasons: when reasoning is written, "" for always."""
    text = CHATML.replace("{BODY}", BODY.replace("{REASONS}", reasons))
    mark, unmark = ("{% generation %}", "{% endgeneration %}") if marked else ("", "")
    return text.replace("{MARK}", mark).replace("{UNMARK}", unmark)


PLAIN, MARKED = chat_template(False), chat_template(True)
# As several published templates do: only the last turn keeps its reasoning.
FORGETFUL, FORGETFUL_MARKED = (chat_template(marked, "and loop.last") for marked in (False, True))

TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {"a": "number"}}},)
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}


def turn(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


AGENT = Example(
    "agent",
    (
        turn("system", "be brief"),
        turn("user", "two and two"),
        turn("assistant", None, reasoning_content="must add", tool_calls=[CALL]),
        turn("tool", "4", name="add", tool_call_id="c1"),
        turn("assistant", "it is 4"),
        turn("user", "thanks"),
        turn("assistant", " gern geschehen 🙂"),
    ),
    tools=TOOLS,
)
# What the assistant says in it, as the templates write it.
CALL_TEXT = '<call>{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}</call>'
SAID = [f"<think>must add</think>{CALL_TEXT}<|im_end|>", "it is 4<|im_end|>", " gern geschehen 🙂<|im_end|>"]


def chat_tokenizer(template: str | None, adds_bos: bool = False) -> Any:
    """A byte-level BPE with the marks of ChatML as special tokens. adds_bos: to what is encoded with special tokens."""
    examples = [Example("1", (turn("user", "two and two is it thanks"),), response="it is 4, must add")]
    silent = Example("2", AGENT.messages[2:3])  # no content to learn from
    tokenizer = learn_tokenizer([*examples, silent], 300)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = template
    if adds_bos:
        bos = (tokenizer.bos_token, tokenizer.bos_token_id)
        processor = processors.TemplateProcessing(single=f"{bos[0]} $A", pair=f"{bos[0]} $A $B", special_tokens=[bos])
        tokenizer.backend_tokenizer.post_processor = processor
    return tokenizer
