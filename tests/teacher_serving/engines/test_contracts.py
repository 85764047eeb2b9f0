"""The private names of vLLM that the reduction in its workers uses exist in the pinned version, for both model runners.

Runner V2 needs a GPU, so here its sources are held against what is wrapped, and hooks run on stand-ins of its objects.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cache.rows.spec import TargetSpec
from teacher_serving.engines.vllm.workers import runner_v1, runner_v2
from teacher_serving.engines.vllm.workers.collector import EXTRA_ARGS_KEY, STEPS_ON_DEVICE, RowCollector
from teacher_serving.engines.vllm.workers.transport import group_rows_by_request, unpack_rows
from teacher_serving.reduction.reducer import Reducer

VOCABULARY, WIDTH = 50, 8
TARGETS = TargetSpec(k=4)


def attributes_of(function: Callable[..., Any]) -> set[str]:
    """Names that a class or function reads or sets on `self`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }


@pytest.mark.slow
def test_the_names_of_runner_v1_exist() -> None:
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    assert {*runner_v1.NAMES, runner_v1.PROMPT_STEP} <= attributes_of(GPUModelRunner)
    step = getattr(GPUModelRunner, runner_v1.PROMPT_STEP)
    assert list(inspect.signature(step).parameters) == ["self", *runner_v1.PARAMETERS]


@pytest.mark.slow
def test_the_names_of_runner_v2_exist() -> None:
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner
    from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker
    from vllm.v1.worker.gpu.sample.sampler import Sampler

    assert set(runner_v2.NAMES) <= attributes_of(GPUModelRunner)
    assert set(runner_v2.BATCH_NAMES) <= {field.name for field in fields(InputBatch)}
    classes = {"prompt_logprobs_worker": PromptLogprobsWorker, "sampler": Sampler}
    for path, parameters in runner_v2.SIGNATURES.items():
        owner, name = path.split(".")
        assert list(inspect.signature(getattr(classes[owner], name)).parameters) == ["self", *parameters]
    assert "uses_prompt_logprobs" in attributes_of(PromptLogprobsWorker)
    # Tokens are sampled from raw logits, or from a copy: what is read after sampling is what the model gave.
    assert "torch.empty_like(logits, dtype=torch.float32).copy_(logits)" in inspect.getsource(
        Sampler.apply_sampling_params
    )
    assert "self.sampler(logits, input_batch)" in inspect.getsource(GPUModelRunner.sample)


class Worker:
    """As vLLM's PromptLogprobsWorker."""

    def __init__(self) -> None:
        self.uses_prompt_logprobs = np.zeros(4, bool)
        self.computed = 0

    def add_request(self, req_id: str, req_idx: int, sampling_params: Any) -> None:
        self.uses_prompt_logprobs[req_idx] = sampling_params.prompt_logprobs is not None

    def compute_prompt_logprobs(
        self,
        logits_fn: Any,
        hidden_states: Any,
        input_batch: Any,
        all_token_ids: Any,
        num_computed_tokens: Any,
        prompt_lens: Any,
    ) -> dict[str, Any]:
        self.computed += 1
        return {}


class Sampler:
    """As vLLM's: a class that is called, not a module of torch. It takes the largest logit."""

    def __call__(self, logits: torch.Tensor, input_batch: Any) -> Any:
        return SimpleNamespace(sampled_token_ids=logits.argmax(-1)[:, None])


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    from vllm import distributed

    monkeypatch.setattr(distributed, "get_tensor_model_parallel_rank", lambda: 0)
    monkeypatch.setattr(distributed, "get_tensor_model_parallel_world_size", lambda: 1)
    monkeypatch.setattr(runner_v2, "_gathered", lambda tokens, place: tokens[place[0], place[1]].long().numpy())
    head = torch.randn(WIDTH, VOCABULARY, generator=torch.Generator().manual_seed(0))
    return SimpleNamespace(
        prompt_logprobs_worker=Worker(),
        sampler=Sampler(),
        model=SimpleNamespace(compute_logits=lambda hidden: hidden @ head),
        device=torch.device("cpu"),
        req_states=None,
        batch_sharder=None,
        is_last_pp_rank=True,
    )


def installed(runner: Any) -> RowCollector:
    assert runner_v2.is_v2(runner) and runner_v2.missing_for(runner) == ""
    return runner_v2.install(runner, TARGETS, Reducer(TARGETS, VOCABULARY))


def wants(kind: str, index: int, runs: list[int]) -> Any:
    asked = {EXTRA_ARGS_KEY: {"kind": kind, "index": index, "key": f"{index:032x}", "runs": runs}}
    return SimpleNamespace(prompt_logprobs=0 if kind == "score" else None, extra_args=asked)


def batch(slots: list[int], scheduled: list[int], computed: list[int], prefill: list[int]) -> Any:
    ends = np.cumsum([0, *scheduled])
    return SimpleNamespace(
        idx_mapping_np=np.array(slots),
        num_scheduled_tokens=np.array(scheduled),
        query_start_loc_np=ends,
        prefill_len_np=np.array(prefill),
        num_computed_prefill_tokens_np=np.minimum(computed, prefill),
        num_computed_tokens_np=np.array(computed),
        cu_num_logits_np=np.arange(len(slots) + 1),
    )


def states(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
def test_prompts_in_several_parts_get_their_own_rows(runner: Any) -> None:
    """Two prompts of 7 and 5 tokens in slots 3 and 1, the first one in two parts, and one request that is not ours."""
    collector = installed(runner)
    worker, tokens = runner.prompt_logprobs_worker, torch.arange(40).reshape(4, 10)
    worker.add_request("a", 3, wants("score", 0, [1, 4, 5, 6]))
    worker.add_request("b", 1, wants("score", 1, [0, 4]))
    worker.add_request("c", 0, SimpleNamespace(prompt_logprobs=2, extra_args=None))
    assert worker.uses_prompt_logprobs.tolist() == [True, False, False, False]
    lengths = np.array([6, 5, 0, 7])
    whole = {0: states(7, 10), 1: states(5, 11)}
    first = torch.cat([whole[0][:4], whole[1], states(6, 12)])
    worker.compute_prompt_logprobs(
        None, first, batch([3, 1, 0], [4, 5, 6], [0, 0, 0], [7, 5, 6]), tokens, None, lengths
    )
    worker.compute_prompt_logprobs(None, whole[0][4:], batch([3], [3], [4], [7]), tokens, None, lengths)
    assert worker.computed == 2
    asked = [np.array([1, 2, 3, 5]), np.arange(4)]
    for i, rows in enumerate(group_rows_by_request([collector.take_rows()], asked)):
        log_p = runner.model.compute_logits(whole[i]).log_softmax(-1)[asked[i]]
        assert np.allclose(np.sort(rows.targets.logprobs.reshape(-1, 4))[:, ::-1], log_p.topk(4).values, atol=1e-5)
        following = tokens[[3, 1][i]][asked[i] + 1]
        assert np.allclose(rows.token_logprobs, log_p[torch.arange(len(log_p)), following], atol=1e-5)
    assert collector.take_rows() == b""


@pytest.mark.slow
def test_drawn_tokens_get_the_rows_that_they_were_drawn_from(runner: Any) -> None:
    """A token that vLLM draws after a part of a prompt, and discards, gets none; nor do others' requests."""
    collector = installed(runner)
    worker = runner.prompt_logprobs_worker
    worker.add_request("a", 2, wants("generate", 0, []))
    worker.add_request("b", 0, SimpleNamespace(prompt_logprobs=None, extra_args=None))
    logits = [torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    # The prompt of 6 tokens in two parts, then one step of decoding.
    for step, (scheduled, computed) in enumerate([(4, 0), (2, 4), (1, 6)]):
        runner.sampler(logits[step], batch([0, 2], [1, scheduled], [9, computed], [3, 6]))
    rows, requests, positions = unpack_rows(collector.take_rows())
    assert requests.tolist() == [0, 0] and positions.tolist() == [5, 6]
    assert np.allclose(rows.token_logprobs, [float(each[1].log_softmax(-1).max()) for each in logits[1:]], atol=1e-6)


@pytest.mark.slow
def test_a_slot_belongs_to_its_newest_request(runner: Any) -> None:
    collector = installed(runner)
    worker = runner.prompt_logprobs_worker
    worker.add_request("a", 2, wants("generate", 0, []))
    worker.add_request("b", 2, SimpleNamespace(prompt_logprobs=None, extra_args=None))
    runner.sampler(states(1, 0) @ torch.ones(WIDTH, VOCABULARY), batch([2], [3], [0], [3]))
    assert collector.take_rows() == b""


@pytest.mark.slow
def test_rows_of_many_steps_stay_in_order_and_few_of_them_on_the_device(runner: Any) -> None:
    collector = installed(runner)
    runner.prompt_logprobs_worker.add_request("a", 1, wants("generate", 0, []))
    steps = 3 * STEPS_ON_DEVICE
    logits = torch.randn(steps, 1, VOCABULARY, generator=torch.Generator().manual_seed(1))
    for i in range(steps):
        runner.sampler(logits[i], batch([1], [1], [i], [1]))
        assert len(collector._on_device) <= STEPS_ON_DEVICE
    rows = group_rows_by_request([collector.take_rows()], [np.arange(steps)])[0]
    assert np.allclose(rows.token_logprobs, logits[:, 0].log_softmax(-1).max(-1).values, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["prompt", "drawn"])
def test_a_failure_in_a_step_is_reported_once(runner: Any, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = installed(runner)
    worker = runner.prompt_logprobs_worker
    worker.add_request("a", 0, wants("score" if where == "prompt" else "generate", 0, [0, 3]))
    broken = SimpleNamespace(idx_mapping_np=np.array([0]))  # another version of vLLM
    if where == "prompt":
        assert worker.compute_prompt_logprobs(None, states(4, 0), broken, None, None, np.array([4])) == {}
    else:
        assert runner.sampler(torch.zeros(1, VOCABULARY), broken).sampled_token_ids.tolist() == [[0]]
    assert b"AttributeError" in collector.take_rows()
    assert collector.take_rows() == b""


@pytest.mark.slow
def test_another_version_is_refused_with_what_it_lacks(runner: Any) -> None:
    del runner.batch_sharder
    assert "has no batch_sharder" in runner_v2.missing_for(runner)
    runner.batch_sharder = object()
    assert "samples for some requests only" in runner_v2.missing_for(runner)
    runner.batch_sharder = None
    runner.prompt_logprobs_worker.add_request = lambda request, params: None
    assert "add_request takes request, params" in runner_v2.missing_for(runner)
    runner.is_last_pp_rank = False
    assert runner_v2.missing_for(runner) == ""
