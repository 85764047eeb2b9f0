"""A teacher on vLLM. Logits become rows inside its workers; where that step does not fit this vLLM, through its
public interface. Import of vllm is left to the moment an engine starts.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, LogitbankError
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.asking.requests import build_scored, continuation_request
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm.answer_counter import AnswerCounter
from teacher_serving.engines.vllm.process import hidden_unsafe_modules, process_environment
from teacher_serving.engines.vllm.public_logprobs import only_largest, scored_rows, written_rows
from teacher_serving.engines.vllm.settings import VllmSettings
from teacher_serving.engines.vllm.worker_extension import WANTED
from teacher_serving.engines.vllm.worker_rows import rows_by_request
from teacher_serving.reduction.draws import sampling_seed
from teacher_serving.reduction.reducer import Rows
from teacher_serving.reduction.row_arrays import take_rows
from teacher_serving.teacher import Generated, Request, Scored

EXTENSION = "teacher_serving.engines.vllm.worker_extension.RowsExtension"
# Greatest difference, in nats, between the two ways to rows of the same forward pass in float32; and in half precision,
# where another split of the batch rounds elsewhere.
SAME, SAME_IN_HALF = 1e-4, 0.15
PROBE_KEY = "0" * 32


class VllmTeacher:
    """Scores and generates with one engine. Give it bounded batches: outputs of a call are held until it returns.

    step: "in the workers" or "public interface"; why_public: what the first one lacked, "" where it is used.
    """

    def __init__(
        self, folder: str, teacher: TeacherSettings, engine: VllmSettings, spec: StoreSpec, on_gpu: bool
    ) -> None:
        for name, value in process_environment(engine.cpu_threads, on_gpu).items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        self._targets, self._vocab_size = spec.targets, spec.vocab_size
        self.answered = 0
        self._same = SAME if spec.dtype == "float32" else SAME_IN_HALF
        longest = teacher.max_tokens + 1  # scoring still generates the one token that vLLM insists on
        options: dict[str, Any] = {
            "max_num_batched_tokens": engine.batched_tokens,
            "gpu_memory_utilization": engine.gpu_memory_utilization,
        }
        if not on_gpu:
            options |= {"distributed_executor_backend": "uni", "enforce_eager": True}
            if spec.sampling:
                # A prompt cut in two rewinds its seeded generator, which a CPU's cannot do: prompts stay whole.
                options |= {"max_num_batched_tokens": max(engine.batched_tokens, longest)}
                options |= {"enable_chunked_prefill": False}
        if engine.tensor_parallel * engine.pipeline_parallel > 1:
            options |= {
                "tensor_parallel_size": engine.tensor_parallel,
                "pipeline_parallel_size": engine.pipeline_parallel,
                "distributed_executor_backend": "mp",
            }
        if teacher.quantization:
            options["quantization"] = teacher.quantization
        self._lora = None
        if teacher.lora_path:
            options |= lora_options(Path(teacher.lora_path))
        with hidden_unsafe_modules():
            self._llm = LLM(
                model=folder,
                dtype=teacher.dtype,
                max_model_len=longest,
                max_logprobs=-1,  # as many as are asked for
                trust_remote_code=teacher.trust_remote_code,
                disable_log_stats=True,
                worker_extension_cls=EXTENSION,
                **options,
            )
        if teacher.lora_path:
            from vllm.lora.request import LoRARequest

            self._lora = LoRARequest("teacher", 1, teacher.lora_path)
        self.why_public = self._install(engine)
        if self.why_public and not only_largest(spec.targets):
            raise LogitbankError(
                f"targets of mode {spec.targets.mode!r}, entropies and log-normalisers need the logits themselves, and "
                f'vLLM\'s workers do not hand them over here ({self.why_public}); use engine.kind = "transformers"'
            )
        self._rescores = False
        self._has_generated = False

    @property
    def step(self) -> str:
        return "public interface" if self.why_public else "in the workers"

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        if self.why_public:
            return self._score_publicly(requests)
        return self._score_in_workers(requests)

    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        from vllm import SamplingParams

        public = bool(self.why_public)
        params = [
            SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=sampling_seed(request.key, sampling.seed),
                logprobs=self._targets.k if public else None,
                flat_logprobs=public,
                detokenize=False,
                extra_args=None if public or self._rescores else _wanted("generate", i, request),
            )
            for i, request in enumerate(requests)
        ]
        outputs = self._run(requests, params)
        tokens = [np.asarray(output.outputs[0].token_ids, dtype=np.uint32) for output in outputs]
        finished = [output.outputs[0].finish_reason == "stop" for output in outputs]
        if public:
            rows = [
                written_rows(output.outputs[0].logprobs, len(written), self._targets, self._vocab_size)
                for output, written in zip(outputs, tokens, strict=True)
            ]
        elif self._rescores:
            rows = self._rescore(requests, tokens)
        else:
            wanted = [
                continuation_request(request, written).rows for request, written in zip(requests, tokens, strict=True)
            ]
            rows = self._distrust(requests, tokens, self._drain(wanted))
        return [
            Generated(written, row.targets, row.token_logprobs, ended)
            for written, row, ended in zip(tokens, rows, finished, strict=True)
        ]

    def _install(self, engine: VllmSettings) -> str:
        """Put the reduction into the workers and try it. Returns why it cannot be used, "" where it can."""
        if engine.reduction == "public":
            return 'engine.reduction = "public"'
        arguments = (asdict(self._targets), self._vocab_size, engine.cpu_threads, engine.logits_mib)
        reasons = self._llm.collective_rpc("logitbank_install", args=arguments)
        if reason := next((reason for reason in reasons if reason), ""):
            return str(reason)
        return self._probe()

    def _probe(self) -> str:
        """Score a few tokens both ways and compare. Returns what differed, "" where nothing did."""
        from vllm import SamplingParams

        n = min(8, int(self._llm.llm_engine.model_config.max_model_len) - 1)
        request = Request(PROBE_KEY, (np.arange(1, n + 1) % self._vocab_size).astype(np.uint32), np.arange(n - 1))
        try:
            own = self._score_in_workers([request])[0].token_logprobs[1:]
        except LogitbankError as error:
            return str(error)
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        stock = self._run([request], [params])[0].prompt_logprobs[1:]
        theirs = [entry[int(token)].logprob for entry, token in zip(stock, request.tokens[1:], strict=True)]
        worst = float(np.abs(own - np.asarray(theirs)).max(initial=0))
        return "" if worst <= self._same else f"its log-probabilities differ from the public ones by {worst:.2g}"

    def _score_in_workers(self, requests: Sequence[Request]) -> list[Scored]:
        from vllm import SamplingParams

        params = [
            SamplingParams(
                max_tokens=1,
                temperature=0.0,
                prompt_logprobs=0,
                detokenize=False,
                extra_args=_wanted("score", i, request),
            )
            for i, request in enumerate(requests)
        ]
        self._run(requests, params)
        rows = self._drain([request.rows for request in requests])
        return [build_scored(request, row) for request, row in zip(requests, rows, strict=True)]

    def _drain(self, wanted: Sequence[npt.NDArray[np.int64]]) -> list[Rows]:
        """The wanted rows of each request, from whichever rank holds them."""
        return rows_by_request(self._llm.collective_rpc("logitbank_drain"), wanted)

    def _distrust(
        self, requests: Sequence[Request], tokens: Sequence[npt.NDArray[np.uint32]], rows: list[Rows]
    ) -> list[Rows]:
        """Hold the rows of the first responses against scored ones; where they differ, rescore from now on."""
        if self._has_generated or not requests:
            return rows
        self._has_generated = True
        few = range(min(4, len(requests)))
        again = self._rescore([requests[i] for i in few], [tokens[i] for i in few])
        worst = max(float(np.abs(rows[i].token_logprobs - again[i].token_logprobs).max(initial=0)) for i in few)
        if worst <= self._same:
            return rows
        self._rescores = True
        return self._rescore(requests, tokens)

    def _rescore(self, requests: Sequence[Request], tokens: Sequence[npt.NDArray[np.uint32]]) -> list[Rows]:
        """Rows of written tokens from scoring prompt and response together."""
        whole = [continuation_request(request, written) for request, written in zip(requests, tokens, strict=True)]
        return [
            Rows(take_rows(scored.targets, request.rows), scored.token_logprobs[request.rows + 1])
            for request, scored in zip(whole, self.score(whole), strict=True)
        ]

    def _score_publicly(self, requests: Sequence[Request]) -> list[Scored]:
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=self._targets.k, flat_logprobs=True, detokenize=False
        )
        outputs = self._run(requests, [params] * len(requests))
        return [
            build_scored(request, scored_rows(output.prompt_logprobs, request, self._targets, self._vocab_size))
            for request, output in zip(requests, outputs, strict=True)
        ]

    def _run(self, requests: Sequence[Request], params: list[Any]) -> list[Any]:
        prompts: list[Mapping[str, Any]] = [{"prompt_token_ids": request.tokens.tolist()} for request in requests]
        return list(self._llm.generate(prompts, params, use_tqdm=self._counting_bar, lora_request=self._lora))

    def _counting_bar(self, *arguments: Any, **options: Any) -> AnswerCounter:
        """What vLLM takes for a progress bar: it counts the requests that are answered."""
        return AnswerCounter(self._count_answers, *arguments, **options)

    def _count_answers(self, count: int) -> None:
        self.answered += count


def lora_options(adapter: Path) -> dict[str, Any]:
    """What vLLM must be told of a LoRA adapter. Raises InputError where the folder is none that it can score with.

    The modules are named because vLLM would wrap the LM head for any adapter, and for one row a sequence alone.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text())
        rank = int(config["r"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"teacher.lora_path {adapter}: not a LoRA adapter: {error}") from None
    modules = {
        name.partition(".lora_")[0].rpartition(".")[2]
        for path in sorted(adapter.glob("*.safetensors"))
        for name in _tensor_names(path)
        if ".lora_" in name
    } or set(config.get("target_modules") or ())
    if "lm_head" in modules:
        raise InputError(
            f"teacher.lora_path {adapter}: it changes lm_head, which vLLM does not apply to prompts; merge it into the "
            'model, or use engine.kind = "transformers"'
        )
    size = next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if rank <= size), rank)
    return {"enable_lora": True, "max_lora_rank": size, "lora_target_modules": sorted(modules)}


def _tensor_names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return list(file.keys())


def _wanted(kind: str, index: int, request: Request) -> dict[str, Any]:
    """extra_args of a request whose rows the workers are to keep."""
    # Rows as runs: first, one past the last, first, ...
    edges = np.flatnonzero(np.diff(request.rows) != 1) + 1
    runs = [run for part in np.split(request.rows, edges) if len(part) for run in (int(part[0]), int(part[-1]) + 1)]
    return {WANTED: {"kind": kind, "index": index, "key": request.key, "runs": runs}}
