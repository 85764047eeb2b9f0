"""Examples before and after tokenisation, and the key that identifies one."""

import hashlib
from dataclasses import dataclass, field
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

    messages: chat turns ({"role", "content"}) that make the prompt; the assistant speaks next.
    rationale, response: what the assistant says, concatenated as they are.
    metadata: anything a task needs to judge an answer.
    """

    id: str
    messages: tuple[dict[str, str], ...]
    rationale: str = ""
    response: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


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
