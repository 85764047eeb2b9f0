"""Examples before and after tokenisation, and the key that identifies one."""

import hashlib
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt


class Segment(IntEnum):
    """The role of a run of tokens. Values are part of the store format."""

    PROMPT = 0
    RATIONALE = 1
    LABEL = 2
    RESPONSE = 3


@dataclass(frozen=True, slots=True)
class Example:
    """One training item as its author wrote it.

    messages: chat turns that make the prompt; the assistant speaks next. A turn has "role" and "content", and may have
    "reasoning_content", "tool_calls" (content may then be None or absent), "name" and "tool_call_id".
    rationale, response: what the assistant says, concatenated as they are.
    metadata: anything a task needs to judge an answer.
    label: the true answer, where one is known. No model sees it.
    tools: schemas of the tools that the chat template tells the model of.
    """

    id: str
    messages: tuple[dict[str, Any], ...]
    rationale: str = ""
    response: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def is_trace(self) -> bool:
        """Whether it is a whole chat that ends with the assistant, to be scored as it is."""
        spoken = bool(self.rationale + self.response)
        return bool(self.messages) and not spoken and self.messages[-1].get("role") == "assistant"

    def to_document(self) -> dict[str, Any]:
        """Fields for JSON. Those that came later are left out where empty: older stores hold the same bytes."""
        fields = asdict(self)
        return {name: value for name, value in fields.items() if value or name not in ("label", "tools")}

    @classmethod
    def from_document(cls, fields: dict[str, Any]) -> "Example":
        """What to_document gave, after JSON. Raises TypeError for fields that an example does not have."""
        turns = {"messages": tuple(fields["messages"]), "tools": tuple(fields.get("tools", ()))}
        return cls(**{**fields, **turns})


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """Token ids and their segments, both of shape [n].

    origin: "scored" where the text is given, "generated/<i>" for the i-th response that the teacher writes itself
    (tokens then end with the prompt until it has written).
    """

    example: Example
    tokens: npt.NDArray[np.uint32]
    segments: npt.NDArray[np.uint8]
    origin: str = "scored"

    @property
    def key(self) -> str:
        """32 hexadecimal digits: a hash of origin, token ids and segments."""
        state = hashlib.sha256(f"{self.origin}:{len(self.tokens)}:".encode())
        state.update(np.ascontiguousarray(self.tokens, dtype="<u4").tobytes())
        state.update(np.ascontiguousarray(self.segments, dtype="u1").tobytes())
        return state.hexdigest()[:32]

    @property
    def prompt_length(self) -> int:
        """Number of leading prompt tokens."""
        spoken = np.flatnonzero(self.segments != Segment.PROMPT)
        return int(spoken[0]) if len(spoken) else len(self.tokens)
