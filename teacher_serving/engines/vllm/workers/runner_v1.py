"""Model runner V1, the only one of vLLM's CPU build: where its steps see logits, and what is wrapped there.

These are private names of vLLM. `missing_for` checks that they exist before anything is wrapped.
"""

import inspect
from typing import Any

import numpy as np

from cache.rows.spec import TargetSpec
from teacher_serving.engines.vllm.workers.collector import RowCollector, WantedRows, positions_within, row_request_of
from teacher_serving.reduction.reducer import Reducer

PROMPT_STEP = "_get_prompt_logprobs_dict"
PARAMETERS = ["hidden_states", "num_scheduled_tokens"]
NAMES = ("requests", "input_batch", "query_start_loc", "num_prompt_logprobs", "sampler", "model", "device")


def missing_for(runner: Any) -> str:
    """Why this runner cannot be wrapped; "" if it can."""
    if missing := [name for name in (PROMPT_STEP, *NAMES) if not hasattr(runner, name)]:
        return f"this vLLM's model runner has no {', '.join(missing)}"
    parameters = list(inspect.signature(getattr(runner, PROMPT_STEP)).parameters)
    return "" if parameters == PARAMETERS else f"this vLLM's {PROMPT_STEP} takes {', '.join(parameters)}"


def install(runner: Any, targets: TargetSpec, reducer: Reducer) -> RowCollector:
    """Wrap the runner's sampler and its step for prompt log-probabilities."""
    collector = RowCollector(runner, targets, reducer)
    _Hooks(collector)
    return collector


class _Hooks:
    def __init__(self, collector: RowCollector) -> None:
        self._collector, self._runner = collector, collector.runner
        self._raw_logits: Any = None
        self._original_prompt_step = getattr(self._runner, PROMPT_STEP)
        setattr(self._runner, PROMPT_STEP, self._prompt_step)
        self._runner.sampler.register_forward_pre_hook(self._before_sampling, with_kwargs=True)
        self._runner.sampler.register_forward_hook(self._after_sampling, with_kwargs=True)

    def _prompt_step(self, hidden_states: Any, num_scheduled_tokens: dict[str, int]) -> Any:
        """Begin the rows of our prompts in this step, and let vLLM's own step process all other requests."""
        pending = self._runner.num_prompt_logprobs
        our_requests: list[str] = []
        try:
            our_requests += [name for name in pending if self._row_request(name, "score") is not None]
            self._reduce_prompts(our_requests, hidden_states, num_scheduled_tokens)
        except Exception as error:  # another version of vLLM may have other names and shapes
            self._collector.record_failure(error, others_wait=True)
        unfinished = {name: pending.pop(name) for name in our_requests if name in pending}
        result = self._original_prompt_step(hidden_states, num_scheduled_tokens)
        pending.update(unfinished)
        return result

    def _reduce_prompts(self, names: list[str], hidden_states: Any, num_scheduled_tokens: dict[str, int]) -> None:
        """Begin the requested rows of this step, and remove finished prompts from the runner's pending ones.

        names: vLLM's names of our requests.
        """
        index_in_batch = self._runner.input_batch.req_id_to_index
        scheduled_names = [name for name in names if name in num_scheduled_tokens]  # others are preempted
        wanted, next_tokens = WantedRows(self._collector), []
        # In the order of the batch, because consecutive rows need no copy. The order of the requests is another one.
        for name in sorted(scheduled_names, key=index_in_batch.__getitem__):
            row_request = self._row_request(name, "score")
            scheduled = num_scheduled_tokens[name]
            request = self._runner.requests[name]
            start, n = request.num_computed_tokens, len(request.prompt_token_ids)
            if start + scheduled >= n:
                del self._runner.num_prompt_logprobs[name]
            positions = positions_within(row_request["runs"], start, min(start + scheduled, n - 1))
            if len(positions) == 0:
                continue
            offset = int(self._runner.query_start_loc.np[index_in_batch[name]]) - start
            wanted.add(row_request, positions, offset)
            next_tokens.append(np.asarray(request.prompt_token_ids, np.int64)[positions + 1])
        if wanted:
            self._collector.reduce_prompts(hidden_states, wanted, np.concatenate(next_tokens))

    def _before_sampling(self, sampler: Any, args: Any, kwargs: Any) -> None:
        """Keep the model's raw logits. Sampling scales and masks float32 logits in place, so these are copied."""
        self._raw_logits = None
        if not self._collector.stores_rows:
            return
        try:
            logits = kwargs.get("logits", args[0] if args else None)
            if any(self._row_request(name, "generate") for name in self._runner.input_batch.req_ids):
                self._raw_logits = logits.clone() if str(logits.dtype) == "torch.float32" else logits
        except Exception as error:
            self._collector.record_failure(error, others_wait=False)

    def _after_sampling(self, sampler: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Begin the rows that the tokens of this step were drawn from."""
        raw_logits, self._raw_logits = self._raw_logits, None
        if raw_logits is None:
            return
        try:
            self._reduce_drawn(raw_logits, output)
        except Exception as error:
            self._collector.record_failure(error, others_wait=False)

    def _reduce_drawn(self, raw_logits: Any, output: Any) -> None:
        wanted = WantedRows(self._collector)
        for i, name in enumerate(self._runner.input_batch.req_ids[: len(raw_logits)]):
            if row_request := self._row_request(name, "generate"):
                request = self._runner.requests[name]
                # vLLM also draws a token after each part of a split prompt, and discards it. The row of the last part
                # has the same position and replaces the earlier ones.
                position = request.num_prompt_tokens + len(request.output_token_ids) - 1
                wanted.add(row_request, np.array([position]), i - position)
        if wanted:
            self._collector.reduce_drawn(raw_logits, wanted, output.sampled_token_ids[:, 0])

    def _row_request(self, name: str, kind: str) -> Any:
        request = self._runner.requests.get(name)
        return row_request_of(request.sampling_params if request else None, kind)
