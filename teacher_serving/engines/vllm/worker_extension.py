"""Inside vLLM's workers: reduce logits to rows where they are made, so that nothing as wide as a vocabulary leaves.

vLLM mixes the methods of `RowsExtension` into its worker class (`worker_extension_cls`). They are called by name, on
every rank, through `LLM.collective_rpc`. What is used of vLLM's model runner (V1) is checked by name before anything is
wrapped: where it is missing, `logitbank_install` says so and changes nothing.
"""

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from teacher_serving.reduction.reducer import Rows

# Key of SamplingParams.extra_args under which a request says whose rows it wants.
WANTED = "logitbank"
_PROMPT_STEP = "_get_prompt_logprobs_dict"
_RUNNER_NAMES = ("requests", "input_batch", "query_start_loc", "num_prompt_logprobs", "sampler", "model")


class RowsExtension:
    """Methods that a worker gains. Nothing of them runs, and nothing is imported, before logitbank_install."""

    def logitbank_install(self, targets: dict[str, Any], vocab_size: int, threads: int, memory_mib: int) -> str:
        """Wrap the runner's step for prompt log-probabilities and its sampler. Returns why not, "" where it did."""
        runner = getattr(self, "model_runner", None)
        if missing := [name for name in (_PROMPT_STEP, *_RUNNER_NAMES) if not hasattr(runner, name)]:
            return f"this vLLM's model runner has no {', '.join(missing)}"
        parameters = list(inspect.signature(getattr(runner, _PROMPT_STEP)).parameters)
        if parameters != ["hidden_states", "num_scheduled_tokens"]:
            return f"this vLLM's {_PROMPT_STEP} takes {', '.join(parameters)}"
        self._logitbank_rows = _Installed(runner, targets, vocab_size, threads, memory_mib)
        return ""

    def logitbank_drain(self) -> bytes:
        """Rows of the requests since the last call; b"" from a rank that holds none. See worker_rows.py."""
        return self._logitbank_rows.drain()


class _Installed:
    """The wrapped runner and the rows that wait to be fetched."""

    def __init__(self, runner: Any, targets: dict[str, Any], vocab_size: int, threads: int, memory_mib: int) -> None:
        from vllm.distributed import get_tensor_model_parallel_rank

        from cache.rows.spec import TargetSpec
        from teacher_serving.reduction.reducer import Reducer

        spec = TargetSpec(**{**targets, "temperatures": tuple(targets["temperatures"])})
        self._runner = runner
        self._reducer = Reducer(spec, vocab_size, threads, memory_mib)
        self._targets = spec
        self._holds_rows = get_tensor_model_parallel_rank() == 0
        self._blocks: list[Rows] = []
        self._requests: list[npt.NDArray[np.int64]] = []
        self._positions: list[npt.NDArray[np.int64]] = []
        self._raw_logits: Any = None
        self._failure = ""
        self._original = getattr(runner, _PROMPT_STEP)
        setattr(runner, _PROMPT_STEP, self._prompt_step)
        runner.sampler.register_forward_pre_hook(self._before_sampling, with_kwargs=True)
        runner.sampler.register_forward_hook(self._after_sampling, with_kwargs=True)

    def _prompt_step(self, hidden_states: Any, num_scheduled_tokens: dict[str, int]) -> Any:
        """Rows of our prompts in this step; the other requests go the way they always went.

        An engine does not outlive an error inside it: what goes wrong here is told by the next drain.
        """
        try:
            ours = self._our_prompts(hidden_states, num_scheduled_tokens)
        except Exception as error:  # names and shapes of another version
            self._failure = f"{type(error).__name__}: {error}"
            ours = {}
        pending = self._runner.num_prompt_logprobs
        unfinished = {name: pending.pop(name) for name in ours if name in pending}
        result = self._original(hidden_states, num_scheduled_tokens)
        pending.update(unfinished)
        return result

    def _our_prompts(self, hidden_states: Any, num_scheduled_tokens: dict[str, int]) -> dict[str, Any]:
        """Make the rows; returns our requests by name, those that are through taken off the runner's list."""
        pending = self._runner.num_prompt_logprobs
        ours = {name: wanted for name in pending if (wanted := self._wanted(name)) is not None}
        hidden_rows, places, following, uniforms = [], [], [], []
        for name, wanted in ours.items():
            scheduled = num_scheduled_tokens.get(name)
            if scheduled is None:  # it was preempted
                continue
            request = self._runner.requests[name]
            start, n = request.num_computed_tokens, len(request.prompt_token_ids)
            stop = min(start + scheduled, n - 1)
            if start + scheduled >= n:
                del pending[name]
            picked = _rows_within(wanted["runs"], start, stop)
            if len(picked) == 0:
                continue
            offset = int(self._runner.query_start_loc.np[self._runner.input_batch.req_id_to_index[name]]) - start
            hidden_rows.append(offset + picked)
            places.append((wanted["index"], picked))
            following.append(np.asarray(request.prompt_token_ids, np.int64)[picked + 1])
            uniforms.append(self._uniforms(wanted, picked))
        if hidden_rows:
            from teacher_serving.reduction.reducer import select_rows

            hidden = select_rows(hidden_states, np.concatenate(hidden_rows))
            rows = self._reducer.reduce_hidden(
                hidden, self._to_logits, np.concatenate(following), np.concatenate(uniforms)
            )
            self._keep(rows, places)
        return ours

    def _before_sampling(self, sampler: Any, args: Any, kwargs: Any) -> None:
        """Keep the logits as the model made them: sampling scales and masks them in place, if they are float32."""
        self._raw_logits = None
        logits = kwargs.get("logits", args[0] if args else None)
        if self._holds_rows and any(self._wanted(name, "generate") for name in self._runner.input_batch.req_ids):
            self._raw_logits = logits.clone() if str(logits.dtype) == "torch.float32" else logits

    def _after_sampling(self, sampler: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Rows that the tokens of this step were drawn from."""
        if self._raw_logits is None:
            return
        picked, places, uniforms = [], [], []
        for i, name in enumerate(self._runner.input_batch.req_ids[: len(self._raw_logits)]):
            wanted = self._wanted(name, "generate")
            if wanted:
                request = self._runner.requests[name]
                # A prompt that is not through yet draws a token that is thrown away: the later row takes its place.
                position = request.num_prompt_tokens + len(request.output_token_ids) - 1
                picked.append(i)
                places.append((wanted["index"], np.array([position])))
                uniforms.append(self._uniforms(wanted, np.array([position])))
        from teacher_serving.reduction.reducer import select_rows

        rows = np.asarray(picked, np.int64)
        logits = select_rows(self._raw_logits, rows)
        following = output.sampled_token_ids[:, 0].cpu().numpy().astype(np.int64)[rows]
        self._raw_logits = None
        self._keep(self._reducer.reduce(logits, following, np.concatenate(uniforms)), places)

    def _wanted(self, name: str, kind: str = "score") -> Any:
        """What a request of ours says of itself, or None."""
        request = self._runner.requests.get(name)
        params = request.sampling_params if request else None
        wanted = (params.extra_args or {}).get(WANTED) if params else None
        return wanted if wanted and wanted["kind"] == kind else None

    def _uniforms(self, wanted: Any, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        from teacher_serving.reduction.draws import row_uniforms

        return row_uniforms(self._targets, wanted["key"], rows)

    def _to_logits(self, hidden: Any) -> Any:
        logits = self._runner.model.compute_logits(hidden)
        return logits if self._holds_rows else None

    def _keep(self, rows: "Rows", places: list[tuple[int, npt.NDArray[np.int64]]]) -> None:
        if self._holds_rows:
            self._blocks.append(rows)
            self._requests += [np.full(len(positions), index) for index, positions in places]
            self._positions += [positions for _, positions in places]

    def drain(self) -> bytes:
        from teacher_serving.engines.vllm.worker_rows import pack_failure, pack_rows
        from teacher_serving.reduction.reducer import concatenate_rows

        if self._failure:
            failure, self._failure = self._failure, ""
            return pack_failure(failure)
        if not self._blocks:
            return b""
        rows = concatenate_rows(self._blocks)
        packed = pack_rows(rows, np.concatenate(self._requests), np.concatenate(self._positions))
        self._blocks, self._requests, self._positions = [], [], []
        return packed


def _rows_within(runs: list[int], start: int, stop: int) -> npt.NDArray[np.int64]:
    """Rows of the runs [first, one past the last, ...] that lie in start:stop."""
    parts = [np.arange(max(first, start), min(last, stop)) for first, last in zip(runs[::2], runs[1::2], strict=True)]
    return np.concatenate([np.zeros(0, np.int64), *parts])
