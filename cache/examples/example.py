"""Examples before and after tokenisation, and the key that identifies one."""

import hashlib
import json
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.json_values import require_json_value
from cache.lazy_value import lazy_value

# Fields that are stored only if they are not empty.
OPTIONAL_FIELDS = ("label", "tools")
# Kinds of origins: a response of the examples file, or one that the teacher wrote.
ORIGINS = ("scored", "generated")


class Segment(IntEnum):
    """The role of a run of tokens. Values are part of the store format."""

    PROMPT = 0
    RATIONALE = 1
    LABEL = 2
    RESPONSE = 3


def prompt_length(segments: npt.NDArray[np.uint8]) -> int:
    """Number of tokens before the first one of the assistant; all of them if there is none. segments: uint8 [n]."""
    others = np.flatnonzero(segments != Segment.PROMPT)
    return int(others[0]) if len(others) else len(segments)


@dataclass(frozen=True, slots=True)
class Example:
    """One training item, as in the examples file.

    messages: chat turns that form the prompt; the assistant's turn is next. A turn has "role" and "content", may have
    "reasoning_content", "tool_calls" (content may then be None or absent), "name" and "tool_call_id".
    rationale, response: text of the assistant, concatenated without a separator.
    metadata: facts that a task needs to evaluate an answer.
    label: the true answer, if it is known. It is never part of a prompt or a response.
    tools: schemas of the tools for the chat template.
    has_own_id: False if the file gives no id, which is then the number of the line. Such an id is no part of what
        identifies the example, so that a new first line does not make every other example a new one.
    """

    id: str
    messages: tuple[dict[str, Any], ...]
    rationale: str = ""
    response: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    has_own_id: bool = field(default=True, compare=False)

    @property
    def is_trace(self) -> bool:
        """Whether it is a complete chat that ends with the assistant, to be scored unchanged."""
        has_text = bool(self.rationale + self.response)
        return bool(self.messages) and not has_text and self.messages[-1].get("role") == "assistant"

    @property
    def has_response(self) -> bool:
        """Whether it contains the assistant's response: as a text, or as the last turn of a trace."""
        return bool(self.rationale + self.response) or self.is_trace

    def to_document(self) -> dict[str, Any]:
        """Fields for JSON, not copies of them. `label` and `tools` are left out if empty."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        del values["has_own_id"]
        return {name: value for name, value in values.items() if value or name not in OPTIONAL_FIELDS}

    def require_storable(self) -> None:
        """Raise InputError, with the key of the value, if a store would not give a text or a value back as it is."""
        what = f"example {str(self.id).encode(errors='backslashreplace').decode()}"
        texts = {"id": self.id, "rationale": self.rationale, "response": self.response, "label": self.label}
        for name, text in texts.items():
            if not isinstance(text, str):
                raise InputError(f"{what}: {name} must be text, not {type(text).__name__}")
            require_json_value(text, name, what)
        for name, turns in (("messages", self.messages), ("tools", self.tools)):
            if not isinstance(turns, tuple | list):
                raise InputError(f"{what}: {name} must be a sequence, not {type(turns).__name__}")
            for position, turn in enumerate(turns):
                require_json_value(turn, f"{name}[{position}]", what)
        if not isinstance(self.metadata, dict):
            raise InputError(f"{what}: metadata must be a dict, not {type(self.metadata).__name__}")
        require_json_value(self.metadata, "metadata", what)

    @property
    def identity(self) -> str:
        """Hash of everything that is kept of the example, in hexadecimal. Examples with equal hashes are one."""
        self.require_storable()
        values = self.to_document()
        if not self.has_own_id:
            del values["id"]
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=repr).encode()).hexdigest()

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Example":
        """The example that to_document described. Unknown fields are ignored. Raises KeyError for a missing one."""
        return cls(
            document["id"],
            tuple(document["messages"]),
            document["rationale"],
            document["response"],
            document["metadata"],
            document.get("label", ""),
            tuple(document.get("tools", ())),
        )


@dataclass(frozen=True)
class TokenizedExample:
    """Token ids and their segments, both of shape [n].

    origin: "scored" if the response is in the examples file, "generated/<i>" for the i-th response that the teacher
    generates (before the generation the tokens are those of the prompt).
    """

    example: Example
    tokens: npt.NDArray[np.uint32]
    segments: npt.NDArray[np.uint8]
    origin: str = "scored"

    @lazy_value
    def key(self) -> str:
        """32 hexadecimal digits: a hash of origin, the example's identity, token ids and segments."""
        state = hashlib.sha256(f"{self.origin}:{self.example.identity}:{len(self.tokens)}:".encode())
        state.update(np.ascontiguousarray(self.tokens, dtype="<u4").tobytes())
        state.update(np.ascontiguousarray(self.segments, dtype="u1").tobytes())
        return state.hexdigest()[:32]

    @property
    def prompt_length(self) -> int:
        """Number of leading prompt tokens."""
        return prompt_length(self.segments)
