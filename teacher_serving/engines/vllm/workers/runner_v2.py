"""Model runner V2, the one that vLLM takes on a GPU: where its steps see logits, and what is wrapped there.

It keeps the state of a request in a numbered slot. Nothing here waits for the GPU: tokens stay there, and vLLM may
prepare the next step meanwhile. These are private names of vLLM. `missing_for` checks that they exist before anything
is wrapped.
"""

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.rows.spec import TargetSpec
from teacher_serving.engines.vllm.workers.collector import RowCollector, WantedRows, positions_within, row_request_of
from teacher_serving.reduction.reducer import Reducer

NAMES = ("prompt_logprobs_worker", "sampler", "model", "device", "req_states", "batch_sharder", "is_last_pp_rank")
SIGNATURES = {
    "prompt_logprobs_worker.add_request": ["req_id", "req_idx", "sampling_params"],
    "prompt_logprobs_worker.compute_prompt_logprobs": [
        "logits_fn",
        "hidden_states",
        "input_batch",
        "all_token_ids",
        "num_computed_tokens",
        "prompt_lens",
    ],
    "sampler.__call__": ["logits", "input_batch"],
}
# Of an input batch, which exists in a step alone. tests/teacher_serving/engines/test_contracts.py looks for them.
BATCH_NAMES = (
    "idx_mapping_np",
    "num_scheduled_tokens",
    "query_start_loc_np",
    "prefill_len_np",
    "num_computed_prefill_tokens_np",
    "num_computed_tokens_np",
    "cu_num_logits_np",
)


def is_v2(runner: Any) -> bool:
    """Whether a model runner is V2."""
    return hasattr(runner, "prompt_logprobs_worker")


def missing_for(runner: Any) -> str:
    """Why this runner cannot be wrapped; "" if it can."""
    if missing := [name for name in NAMES if not hasattr(runner, name)]:
        return f"this vLLM's model runner has no {', '.join(missing)}"
    if not runner.is_last_pp_rank:  # it has no logits
        return ""
    if runner.batch_sharder is not None:
        return "each of its ranks samples for some requests only"
    for path, expected in SIGNATURES.items():
        owner, name = path.split(".")
        method = getattr(getattr(runner, owner), name, None)
        if method is None:
            return f"this vLLM's model runner has no {path}"
        parameters = list(inspect.signature(method).parameters)
        if parameters != expected:
            return f"this vLLM's {path} takes {', '.join(parameters)}"
    return ""


def install(runner: Any, targets: TargetSpec, reducer: Reducer) -> RowCollector:
    """Wrap the runner's sampler and its worker for prompt log-probabilities."""
    collector = RowCollector(runner, targets, reducer)
    if runner.is_last_pp_rank:
        _Hooks(collector)
    return collector


class _Hooks:
    def __init__(self, collector: RowCollector) -> None:
        self._collector, self._runner = collector, collector.runner
        # What the teacher wants of the request in a slot.
        self._slots: dict[int, Any] = {}
        self._worker = self._runner.prompt_logprobs_worker
        self._add_request = self._worker.add_request
        self._compute = self._worker.compute_prompt_logprobs
        self._worker.add_request = self._remember
        self._worker.compute_prompt_logprobs = self._prompt_step
        self._wrap_sampler()

    def _wrap_sampler(self) -> None:
        """vLLM calls its sampler as a function, and that finds a method of the class alone."""
        sampler, after_sampling = self._runner.sampler, self._after_sampling
        plain = type(sampler)

        def call(self: Any, logits: Any, input_batch: Any) -> Any:
            output = plain.__call__(self, logits, input_batch)
            after_sampling(logits, input_batch, output)
            return output

        sampler.__class__ = type(plain.__name__, (plain,), {"__call__": call})

    def _remember(self, req_id: str, req_idx: int, sampling_params: Any) -> None:
        """Note what a new request wants. vLLM's own log-probabilities are left out for prompts that we score."""
        self._add_request(req_id, req_idx, sampling_params)
        row_request = row_request_of(sampling_params)
        self._slots.pop(req_idx, None)
        if row_request is None:
            return
        self._slots[req_idx] = row_request
        if row_request["kind"] == "score":
            self._worker.uses_prompt_logprobs[req_idx] = False

    def _prompt_step(
        self,
        logits_fn: Any,
        hidden_states: Any,
        input_batch: Any,
        all_token_ids: Any,
        num_computed_tokens: Any,
        prompt_lens: Any,
    ) -> Any:
        """Begin the rows of our prompts in this step, and let vLLM process all other requests."""
        try:
            self._reduce_prompts(hidden_states, input_batch, all_token_ids, prompt_lens)
        except Exception as error:  # another version of vLLM may have other names and shapes
            self._collector.record_failure(error, others_wait=True)
        return self._compute(logits_fn, hidden_states, input_batch, all_token_ids, num_computed_tokens, prompt_lens)

    def _reduce_prompts(self, hidden_states: Any, batch: Any, all_token_ids: Any, prompt_lens: Any) -> None:
        wanted, slots = WantedRows(self._collector), []
        for i, slot in enumerate(batch.idx_mapping_np.tolist()):
            row_request = self._slots.get(slot)
            if row_request is None or row_request["kind"] != "score":
                continue
            start, n = int(batch.num_computed_prefill_tokens_np[i]), int(prompt_lens[slot])
            stop = min(start + int(batch.num_scheduled_tokens[i]), n - 1)
            positions = positions_within(row_request["runs"], start, stop)
            # A request that goes on after its prompt has all rows already.
            if len(positions) and n >= int(batch.prefill_len_np[i]):
                wanted.add(row_request, positions, int(batch.query_start_loc_np[i]) - start)
                slots.append(np.full(len(positions), slot))
        if wanted:
            place = np.stack([np.concatenate(slots), np.concatenate(wanted.positions) + 1])
            self._collector.reduce_prompts(hidden_states, wanted, _gathered(all_token_ids, place))

    def _after_sampling(self, logits: Any, batch: Any, output: Any) -> None:
        """Begin the rows that the tokens of this step were drawn from. vLLM samples from a copy of raw logits."""
        if not self._slots or not self._collector.stores_rows:
            return
        try:
            self._reduce_drawn(logits, batch, output)
        except Exception as error:
            self._collector.record_failure(error, others_wait=False)

    def _reduce_drawn(self, logits: Any, batch: Any, output: Any) -> None:
        wanted = WantedRows(self._collector)
        for i, slot in enumerate(batch.idx_mapping_np.tolist()):
            row_request = self._slots.get(slot)
            if row_request is None or row_request["kind"] != "generate":
                continue
            position = int(batch.num_computed_tokens_np[i]) + int(batch.num_scheduled_tokens[i]) - 1
            # vLLM also draws a token after each part of a split prompt, and discards it.
            if position + 1 >= int(batch.prefill_len_np[i]):
                wanted.add(row_request, np.array([position]), int(batch.cu_num_logits_np[i]) - position)
        if wanted:
            self._collector.reduce_drawn(logits, wanted, output.sampled_token_ids[:, 0])


def _gathered(all_token_ids: Any, place: npt.NDArray[np.int64]) -> Any:
    """Tokens [n] at place [slot or position, n], on the device. The copy does not wait for it."""
    import torch

    slots, positions = torch.from_numpy(place).pin_memory().to(all_token_ids.device, non_blocking=True)
    return all_token_ids[slots, positions].long()
