"""Code that runs inside vLLM's workers: it reduces logits to sparse rows, so that only rows are sent to the teacher.

vLLM mixes the methods of `RowsExtension` into its worker class (`worker_extension_cls`). `LLM.collective_rpc` calls
them by name on every rank. The reduction uses private names of vLLM's model runner (V1). `logitbank_install` checks
that they exist before it wraps anything; if one is missing, it changes nothing and returns the reason.
"""

import inspect
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from teacher_serving.reduction.rows import Rows

# Key of SamplingParams.extra_args for a request whose rows are collected.
EXTRA_ARGS_KEY = "logitbank"
_PROMPT_STEP = "_get_prompt_logprobs_dict"
_RUNNER_NAMES = ("requests", "input_batch", "query_start_loc", "num_prompt_logprobs", "sampler", "model", "device")


class RowsExtension:
    """Methods that vLLM adds to its workers. Nothing is imported or wrapped before logitbank_install is called."""

    def logitbank_install(self, targets: dict[str, Any], vocab_size: int, threads: int, memory_mib: int) -> str:
        """Wrap the runner's sampler and its step for prompt log-probabilities. Returns why it could not, or ""."""
        runner: Any = getattr(self, "model_runner", None)
        if missing := [name for name in (_PROMPT_STEP, *_RUNNER_NAMES) if not hasattr(runner, name)]:
            return f"this vLLM's model runner has no {', '.join(missing)}"
        parameters = list(inspect.signature(getattr(runner, _PROMPT_STEP)).parameters)
        if parameters != ["hidden_states", "num_scheduled_tokens"]:
            return f"this vLLM's {_PROMPT_STEP} takes {', '.join(parameters)}"
        self._logitbank_collector = _RowCollector(runner, targets, vocab_size, threads, memory_mib)
        try:
            return self._logitbank_collector.reducer.check_kernels(runner.device)
        except Exception as error:  # a kernel that cannot be compiled, for example
            return _describe(error)

    def logitbank_rows_from(self) -> str:
        """Return how this rank reduces logits, if not in the usual way; see Reducer.rows_from."""
        collector = self._logitbank_collector
        return collector.reducer.rows_from(collector.device)

    def logitbank_take_rows(self) -> bytes:
        """Return the rows since the last call, see worker_rows.py; b"" from a rank without rows."""
        return self._logitbank_collector.take_rows()

    def logitbank_forget_rows(self) -> None:
        """Forget the rows since the last call, and a failure."""
        self._logitbank_collector.forget_rows()


class _RowCollector:
    """Wraps a model runner, and stores the rows of its steps until they are fetched."""

    def __init__(self, runner: Any, targets: dict[str, Any], vocab_size: int, threads: int, memory_mib: int) -> None:
        from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size

        from cache.rows.spec import TargetSpec
        from teacher_serving.reduction.reducer import Reducer

        spec = TargetSpec(**{**targets, "temperatures": tuple(targets["temperatures"])})
        self._runner, self.device = runner, runner.device
        self.reducer = Reducer(spec, vocab_size, threads, memory_mib)
        self._targets = spec
        # All ranks of a tensor-parallel group compute the same logits. One of them stores the rows.
        self._stores_rows = get_tensor_model_parallel_rank() == 0
        self._has_other_ranks = get_tensor_model_parallel_world_size() > 1
        self._blocks: list[Rows] = []
        self._requests: list[npt.NDArray[np.int64]] = []
        self._positions: list[npt.NDArray[np.int64]] = []
        self._raw_logits: Any = None
        self._has_reduced = False
        self._failure = ""
        self._original_prompt_step = getattr(runner, _PROMPT_STEP)
        setattr(runner, _PROMPT_STEP, self._prompt_step)
        runner.sampler.register_forward_pre_hook(self._before_sampling, with_kwargs=True)
        runner.sampler.register_forward_hook(self._after_sampling, with_kwargs=True)

    def _prompt_step(self, hidden_states: Any, num_scheduled_tokens: dict[str, int]) -> Any:
        """Reduce our prompts in this step, and let vLLM's own step process all other requests.

        An exception in a step would end the engine. It is stored, and the next call of take_rows reports it.
        """
        pending = self._runner.num_prompt_logprobs
        our_requests: list[str] = []
        try:
            our_requests += [name for name in pending if self._row_request(name) is not None]
            self._reduce_prompts(our_requests, hidden_states, num_scheduled_tokens)
        except Exception as error:  # another version of vLLM may have other names and shapes
            self._record_failure(error)
        unfinished = {name: pending.pop(name) for name in our_requests if name in pending}
        result = self._original_prompt_step(hidden_states, num_scheduled_tokens)
        pending.update(unfinished)
        return result

    def _record_failure(self, error: Exception) -> None:
        """Store an exception for take_rows. Ends the process if other ranks may be waiting for this one.

        A version of vLLM that does not fit fails on every rank, in the first step, and no rank waits.
        """
        from teacher_serving.reduction.reducer import ReductionError

        self._failure = self._failure or _describe(error)
        if self._has_other_ranks and self._has_reduced and not isinstance(error, ReductionError):
            # The others would wait for ever. vLLM notices a process that ends, and reports that the engine is dead.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def _reduce_prompts(self, names: list[str], hidden_states: Any, num_scheduled_tokens: dict[str, int]) -> None:
        """Make the requested rows of this step, and remove finished prompts from the runner's pending ones.

        names: vLLM's names of our requests.
        """
        index_in_batch = self._runner.input_batch.req_id_to_index
        scheduled_names = [name for name in names if name in num_scheduled_tokens]  # others are preempted
        hidden_rows, row_positions, next_tokens, uniforms = [], [], [], []
        # In the order of the batch, because consecutive rows need no copy. The order of the requests is another one.
        for name in sorted(scheduled_names, key=index_in_batch.__getitem__):
            row_request = self._row_request(name)
            scheduled = num_scheduled_tokens[name]
            request = self._runner.requests[name]
            start, n = request.num_computed_tokens, len(request.prompt_token_ids)
            stop = min(start + scheduled, n - 1)
            if start + scheduled >= n:
                del self._runner.num_prompt_logprobs[name]
            positions = _positions_within(row_request["runs"], start, stop)
            if len(positions) == 0:
                continue
            offset = int(self._runner.query_start_loc.np[index_in_batch[name]]) - start
            hidden_rows.append(offset + positions)
            row_positions.append((row_request["index"], positions))
            next_tokens.append(np.asarray(request.prompt_token_ids, np.int64)[positions + 1])
            uniforms.append(self._uniforms(row_request, positions))
        if hidden_rows:
            from teacher_serving.reduction.reducer import select_rows

            hidden = select_rows(hidden_states, np.concatenate(hidden_rows))
            rows = self.reducer.reduce_hidden(
                hidden, self._to_logits, np.concatenate(next_tokens), np.concatenate(uniforms)
            )
            self._has_reduced = True
            self._store(rows, row_positions)

    def _before_sampling(self, sampler: Any, args: Any, kwargs: Any) -> None:
        """Keep the model's raw logits. Sampling scales and masks float32 logits in place, so these are copied."""
        self._raw_logits = None
        if not self._stores_rows:
            return
        try:
            logits = kwargs.get("logits", args[0] if args else None)
            if any(self._row_request(name, "generate") for name in self._runner.input_batch.req_ids):
                self._raw_logits = logits.clone() if str(logits.dtype) == "torch.float32" else logits
        except Exception as error:  # no rank waits for this one here
            self._failure = self._failure or _describe(error)

    def _after_sampling(self, sampler: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Make the rows that the tokens of this step were drawn from. A failure is stored, as in _prompt_step."""
        raw_logits, self._raw_logits = self._raw_logits, None
        if raw_logits is None:
            return
        try:
            self._reduce_drawn(raw_logits, output)
        except Exception as error:  # no rank waits for this one here
            self._failure = self._failure or _describe(error)

    def _reduce_drawn(self, raw_logits: Any, output: Any) -> None:
        batch_rows, row_positions, uniforms = [], [], []
        for i, name in enumerate(self._runner.input_batch.req_ids[: len(raw_logits)]):
            row_request = self._row_request(name, "generate")
            if row_request:
                request = self._runner.requests[name]
                # vLLM also draws a token after each part of a split prompt, and discards it. The row of the last part
                # has the same position and replaces the earlier ones.
                position = np.array([request.num_prompt_tokens + len(request.output_token_ids) - 1])
                batch_rows.append(i)
                row_positions.append((row_request["index"], position))
                uniforms.append(self._uniforms(row_request, position))
        from teacher_serving.reduction.reducer import select_rows

        indices = np.asarray(batch_rows, np.int64)
        logits = select_rows(raw_logits, indices)
        next_tokens = output.sampled_token_ids[:, 0].cpu().numpy().astype(np.int64)[indices]
        self._store(self.reducer.reduce(logits, next_tokens, np.concatenate(uniforms)), row_positions)

    def _row_request(self, name: str, kind: str = "score") -> Any:
        """Return what the teacher put into extra_args of a request of this kind; None for other requests."""
        request = self._runner.requests.get(name)
        params = request.sampling_params if request else None
        row_request = (params.extra_args or {}).get(EXTRA_ARGS_KEY) if params else None
        return row_request if row_request and row_request["kind"] == kind else None

    def _uniforms(self, row_request: Any, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        from teacher_serving.reduction.draws import row_uniforms

        return row_uniforms(self._targets, row_request["key"], positions)

    def _to_logits(self, hidden: Any) -> Any:
        """Compute logits. Every rank must take part; ranks that store no rows return None."""
        logits = self._runner.model.compute_logits(hidden)
        return logits if self._stores_rows else None

    def _store(self, rows: "Rows", row_positions: list[tuple[int, npt.NDArray[np.int64]]]) -> None:
        """Store rows until they are fetched. row_positions: pairs of a request index and its positions."""
        if self._stores_rows:
            self._blocks.append(rows)
            self._requests += [np.full(len(positions), index) for index, positions in row_positions]
            self._positions += [positions for _, positions in row_positions]

    def take_rows(self) -> bytes:
        """Return and forget the stored rows, or the failure of an earlier step."""
        from teacher_serving.engines.vllm.worker_rows import pack_failure, pack_rows
        from teacher_serving.reduction.rows import concatenate_rows

        try:
            if self._failure:
                return pack_failure(self._failure)
            if not self._blocks:
                return b""
            rows = concatenate_rows(self._blocks)
            return pack_rows(rows, np.concatenate(self._requests), np.concatenate(self._positions))
        finally:
            self.forget_rows()

    def forget_rows(self) -> None:
        """Forget the stored rows and a failure."""
        self._failure = ""
        self._blocks, self._requests, self._positions = [], [], []


def _describe(error: Exception) -> str:
    from teacher_serving.reduction.reducer import ReductionError

    return str(error) if isinstance(error, ReductionError) else f"{type(error).__name__}: {error}"


def _positions_within(runs: list[int], start: int, stop: int) -> npt.NDArray[np.int64]:
    """Return the positions of the ranges [first, end, first, end, ...] that lie in start:stop."""
    parts = [np.arange(max(first, start), min(end, stop)) for first, end in zip(runs[::2], runs[1::2], strict=True)]
    return np.concatenate([np.zeros(0, np.int64), *parts])
