"""An engine without a model: every distribution is made from the tokens before it. A plugin (`LOGITBANK_PLUGINS`).

It takes as long as an accelerator would, without a core, and can fail as engines do.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from cache.rows.sparse_targets import SparseTargets
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.local_model import describe_local_model
from teacher_serving.engines.settings import EngineSettings, TeacherSettings
from teacher_serving.teacher import Request, Scored, Teacher


class StandInSettings(EngineSettings):
    """The stand-in for a teacher (`[engine] kind = "stand_in"`)."""

    kind: Literal["stand_in"] = "stand_in"
    tokens_per_s: float = Field(0.0, ge=0, description="of the accelerator; 0: it takes no time")
    deadly: int | None = Field(None, description="a request with this token kills the process")

    @property
    def gpus(self) -> int:
        return 0


class StandInTeacher:
    """Rows from a hash of position and token: equal for equal requests, whoever answers."""

    def __init__(self, description: TeacherDescription, engine: StandInSettings) -> None:
        self._spec, self._engine = description.spec, engine

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """See Teacher."""
        for request in requests:
            if self._engine.deadly is not None and self._engine.deadly in request.tokens:
                os._exit(1)
        if self._engine.tokens_per_s:
            time.sleep(sum(len(request.tokens) for request in requests) / self._engine.tokens_per_s)
        return [self._scored(request) for request in requests]

    def generate(self, requests: Sequence[Request], sampling: Any) -> Any:
        """See Teacher. This teacher writes nothing."""
        raise NotImplementedError("the stand-in teacher only scores")

    def _scored(self, request: Request) -> Scored:
        n, k, size = len(request.tokens), self._spec.targets.k or 1, self._spec.vocab_size
        counts = np.zeros(n, np.int64)
        counts[request.rows] = k
        rows = len(request.rows)
        start = (request.tokens[request.rows].astype(np.int64) * 31 + request.rows) % (size - k)
        ids = (start[:, None] + np.arange(k)).astype(np.uint32).reshape(-1)
        # Geometric, with a mass of 1 - 2 ** -k in the k tokens.
        log_probs = np.tile(-np.log(2.0) * np.arange(1, k + 1), rows).astype(np.float32)
        log_tail, token_logprobs = np.zeros(n, np.float32), np.full(n, np.nan, np.float32)
        log_tail[request.rows] = -np.log(2.0) * k
        token_logprobs[request.rows + 1] = -np.log(size)
        return Scored(SparseTargets(np.concatenate([[0], np.cumsum(counts)]), ids, log_probs, log_tail), token_logprobs)


class StandInEngine:
    """See Engine."""

    name = "stand_in"
    settings = StandInSettings

    def describe(
        self, teacher: TeacherSettings, engine: EngineSettings, targets: Any, generation: Any, score: bool
    ) -> TeacherDescription:
        """See Engine.describe."""
        return describe_local_model(teacher, targets, generation, runs_encoders=False)

    def start(
        self, description: TeacherDescription, teacher: TeacherSettings, engine: EngineSettings, on_gpu: bool
    ) -> Teacher:
        """See Engine.start."""
        assert isinstance(engine, StandInSettings)
        return StandInTeacher(description, engine)

    def environment(self, engine: EngineSettings, on_gpu: bool) -> Mapping[str, str]:
        """See Engine.environment."""
        return {}


ENGINE = StandInEngine()
