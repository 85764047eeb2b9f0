"""What both model runners share: rows of a step are begun, kept until the teacher fetches them, and packed."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.rows.spec import TargetSpec
from teacher_serving.engines.vllm.workers.transport import pack_failure, pack_rows
from teacher_serving.reduction.draws import row_uniforms
from teacher_serving.reduction.reducer import NextTokens, Reducer, ReductionError, select_rows
from teacher_serving.reduction.rows import Rows, concatenate_rows

# Key of SamplingParams.extra_args for a request whose rows are collected.
EXTRA_ARGS_KEY = "logitbank"
# Steps whose rows may still be on the device: vLLM has no more than these in flight with one pipeline stage. The host
# fetches older ones, so that they take no page-locked memory.
STEPS_ON_DEVICE = 3


class RowCollector:
    """Begins the rows of each step, and keeps them until they are fetched. Nothing in a step waits for a GPU.

    An exception in a step would end the engine. It is kept, and the next call of take_rows reports it.
    stores_rows: whether this rank keeps rows. All ranks of a tensor-parallel group compute the same logits.
    """

    def __init__(self, runner: Any, targets: TargetSpec, reducer: Reducer) -> None:
        from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size

        self.runner, self.device, self.targets, self.reducer = runner, runner.device, targets, reducer
        self.stores_rows = get_tensor_model_parallel_rank() == 0
        self._has_other_ranks = get_tensor_model_parallel_world_size() > 1
        head_dtype = getattr(getattr(runner, "model_config", None), "head_dtype", None)
        self._bytes_per_logit = head_dtype.itemsize if head_dtype is not None else None
        self._has_reduced = False
        self._failure = ""
        self._on_device: list[Callable[[], Rows]] = []
        self._rows: list[Rows] = []
        self._requests: list[npt.NDArray[np.int64]] = []
        self._positions: list[npt.NDArray[np.int64]] = []

    def uniforms(self, row_request: Any, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The random numbers of some rows of a request."""
        return row_uniforms(self.targets, row_request["key"], positions)

    def reduce_prompts(self, hidden: Any, wanted: "WantedRows", next_tokens: NextTokens) -> None:
        """Begin the rows of prompts. hidden: [tokens of the step, width]. Every rank must call it."""
        states = select_rows(hidden, np.concatenate(wanted.indices))
        uniforms = np.concatenate(wanted.uniforms)
        rows = self.reducer.start_hidden(states, self._to_logits, next_tokens, uniforms, self._bytes_per_logit)
        self._has_reduced = True
        self._keep(rows, wanted)

    def reduce_drawn(self, logits: Any, wanted: "WantedRows", drawn: Any) -> None:
        """Begin the rows that tokens were drawn from. logits: raw, [n, vocabulary]. drawn: their tokens, int [n]."""
        indices = np.concatenate(wanted.indices)
        tokens = select_rows(drawn, indices).long()
        rows = self.reducer.start(
            select_rows(logits, indices),
            tokens if tokens.is_cuda else tokens.numpy(),
            np.concatenate(wanted.uniforms),
        )
        self._keep(rows, wanted)

    def _to_logits(self, hidden: Any) -> Any:
        """Compute logits. Every rank must take part; ranks that store no rows return None."""
        logits = self.runner.model.compute_logits(hidden)
        return logits if self.stores_rows else None

    def _keep(self, rows: Callable[[], Rows], wanted: "WantedRows") -> None:
        if not self.stores_rows:
            return
        self._on_device.append(rows)
        self._requests += wanted.requests
        self._positions += wanted.positions
        while len(self._on_device) > STEPS_ON_DEVICE:
            self._rows.append(self._on_device.pop(0)())

    def record_failure(self, error: Exception, others_wait: bool) -> None:
        """Keep an exception for take_rows. Ends the process if other ranks may be waiting for this one.

        A version of vLLM that does not fit fails on every rank, in the first step, and no rank waits.
        """
        self._failure = self._failure or describe(error)
        others_wait = others_wait and self._has_other_ranks and self._has_reduced
        if others_wait and not isinstance(error, ReductionError):
            # The others would wait for ever. vLLM notices a process that ends, and reports that the engine is dead.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def take_rows(self) -> bytes:
        """Return and forget the kept rows, or the failure of an earlier step."""
        try:
            if self._failure:
                return pack_failure(self._failure)
            if not self._requests:
                return b""
            rows = concatenate_rows([*self._rows, *(rows() for rows in self._on_device)])
            return pack_rows(rows, np.concatenate(self._requests), np.concatenate(self._positions))
        except Exception as error:  # of the device, which works on after a step
            return pack_failure(describe(error))
        finally:
            self.forget_rows()

    def forget_rows(self) -> None:
        """Forget the kept rows and a failure."""
        self._failure = ""
        self._on_device, self._rows, self._requests, self._positions = [], [], [], []


class WantedRows:
    """The rows that a step makes: for each, its place among the tensors of the step, its request and its position."""

    def __init__(self, collector: RowCollector) -> None:
        self._collector = collector
        self.indices: list[npt.NDArray[np.int64]] = []
        self.requests: list[npt.NDArray[np.int64]] = []
        self.positions: list[npt.NDArray[np.int64]] = []
        self.uniforms: list[npt.NDArray[np.float64]] = []

    def add(self, row_request: Any, positions: npt.NDArray[np.int64], offset: int) -> None:
        """Add rows of a request. offset: what has to be added to a position to get the place of its row."""
        self.indices.append(offset + positions)
        self.requests.append(np.full(len(positions), row_request["index"], np.int64))
        self.positions.append(positions)
        self.uniforms.append(self._collector.uniforms(row_request, positions))

    def __bool__(self) -> bool:
        return bool(self.indices)


def row_request_of(params: Any, kind: str | None = None) -> Any:
    """Return what the teacher put into extra_args of a request ("score" or "generate"); None for other requests."""
    row_request = (getattr(params, "extra_args", None) or {}).get(EXTRA_ARGS_KEY)
    return row_request if row_request and kind in (None, row_request["kind"]) else None


def positions_within(runs: list[int], start: int, stop: int) -> npt.NDArray[np.int64]:
    """Return the positions of the ranges [first, end, first, end, ...] that lie in start:stop."""
    parts = [np.arange(max(first, start), min(end, stop)) for first, end in zip(runs[::2], runs[1::2], strict=True)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def describe(error: Exception) -> str:
    """An exception in one line."""
    return str(error) if isinstance(error, ReductionError) else f"{type(error).__name__}: {error}"
