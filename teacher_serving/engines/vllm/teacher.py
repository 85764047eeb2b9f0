"""VllmTeacher: scores and generates with one vLLM engine. vLLM is imported when the engine starts.

Rows are made inside vLLM's workers. If this version of vLLM does not allow that, they are made from the
log-probabilities of its public interface.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import LogitbankError
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.asking.requests import build_scored, continuation_request
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm.answer_counter import AnswerCounter
from teacher_serving.engines.vllm.comparison import FLOAT32, HALF_PRECISION, differ_by, entry_differences
from teacher_serving.engines.vllm.llm_options import llm_options
from teacher_serving.engines.vllm.process import hidden_unsafe_modules, process_environment
from teacher_serving.engines.vllm.public_logprobs import needs_top_k_only, prompt_rows, response_rows
from teacher_serving.engines.vllm.settings import VllmSettings
from teacher_serving.engines.vllm.workers.collector import EXTRA_ARGS_KEY
from teacher_serving.engines.vllm.workers.transport import group_rows_by_request
from teacher_serving.reduction.draws import sampling_seed
from teacher_serving.reduction.row_arrays import take_rows
from teacher_serving.reduction.rows import Rows
from teacher_serving.teacher import Generated, Request, Scored, TeacherDiedError

TRIAL_KEY = "0" * 32
TRIAL_TOKENS = 33
# Most probable tokens of each row that are compared.
TRIAL_ENTRIES = 8
GUIDED = "a JSON schema guides the decoding, and the rows are those without it"
# Responses of the first call whose rows are compared with those of scoring.
CHECKED_RESPONSES = 4


class VllmTeacher:
    """A teacher on one vLLM engine. The outputs of a call stay in memory until it returns: keep the batches small.

    answered: requests that were answered since the start. fallback_reason: why rows come from the public interface; ""
    if they come from the workers.
    """

    def __init__(
        self, folder: str, teacher: TeacherSettings, engine: VllmSettings, spec: StoreSpec, on_gpu: bool
    ) -> None:
        for name, value in process_environment(engine.threads, on_gpu).items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        self._targets, self._vocab_size = spec.targets, spec.vocab_size
        self.answered = 0
        self.fallback_reason = ""
        self._tolerance = FLOAT32 if spec.dtype == "float32" else HALF_PRECISION
        options = llm_options(folder, teacher, engine, spec, on_gpu)
        with hidden_unsafe_modules():
            self._llm = LLM(**options)
        self._lora = None
        if teacher.lora_path:
            from vllm.lora.request import LoRARequest

            self._lora = LoRARequest("teacher", 1, teacher.lora_path)
        self.fallback_reason = self._install_reduction(engine)
        if self.fallback_reason and not needs_top_k_only(spec.targets):
            raise LogitbankError(
                f"targets of mode {spec.targets.mode!r}, with entropy or with temperatures need full logits, which "
                f'this vLLM\'s workers do not provide ({self.fallback_reason}); use targets.mode = "topk" or '
                'engine.kind = "transformers"'
            )
        # How the workers reduce logits, if not in the usual way.
        self._workers_rows_from = "" if self.fallback_reason else self._ask_how_workers_reduce()
        # Why the rows of responses come from scoring them; "" if they come from generation.
        self._rescoring_reason = ""
        self._has_checked_responses = False

    @property
    def rows_from(self) -> str:
        """See NamesRowSource."""
        if self.fallback_reason:
            return f"vLLM's public interface ({self.fallback_reason})"
        ways = [f"a second pass over each response ({self._rescoring_reason})"] if self._rescoring_reason else []
        return " and ".join([*ways, *filter(None, [self._workers_rows_from])])

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """See Teacher.score."""
        if self.fallback_reason:
            return self._score_with_public_logprobs(requests)
        return self._score_in_workers(requests)

    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        """See Teacher.generate."""
        if sampling.json_schema:
            # The schema masks logits before they can be read, so the rows come from scoring the responses.
            self._rescoring_reason = GUIDED
        outputs = self._run(requests, self._sampling_params(requests, sampling))
        responses = [output.outputs[0] for output in outputs]
        tokens = [np.asarray(response.token_ids, dtype=np.uint32) for response in responses]
        if sampling.json_schema:
            rows = self._score_responses(requests, tokens)
        elif self.fallback_reason:
            rows = [
                response_rows(response.logprobs, len(response_tokens), self._targets, self._vocab_size)
                for response, response_tokens in zip(responses, tokens, strict=True)
            ]
        elif self._rescoring_reason:
            rows = self._score_responses(requests, tokens)
        else:
            positions = [
                continuation_request(request, response_tokens).rows
                for request, response_tokens in zip(requests, tokens, strict=True)
            ]
            rows = self._check_first_responses(requests, tokens, self._fetch_rows(positions))
        return [
            Generated(response_tokens, row.targets, row.token_logprobs, response.finish_reason == "stop")
            for response, response_tokens, row in zip(responses, tokens, rows, strict=True)
        ]

    def _sampling_params(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Any]:
        """Build vLLM's SamplingParams of each request for a response."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        is_public = bool(self.fallback_reason) and not sampling.json_schema
        reduces_in_workers = not is_public and not self._rescoring_reason
        return [
            SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=sampling_seed(request.key, sampling.seed),
                logprobs=self._targets.k if is_public else None,
                flat_logprobs=is_public,
                stop=request.stop_texts,
                detokenize=bool(request.stop),
                extra_args=_extra_args("generate", i, request) if reduces_in_workers else None,
                structured_outputs=StructuredOutputsParams(json=sampling.json_schema) if sampling.json_schema else None,
            )
            for i, request in enumerate(requests)
        ]

    def _install_reduction(self, engine: VllmSettings) -> str:
        """Install the reduction in the workers and try it. Returns why it cannot be used, or ""."""
        if engine.reduction == "public":
            return 'engine.reduction = "public"'
        arguments = (asdict(self._targets), self._vocab_size, engine.threads, engine.logits_mib)
        reasons = self._llm.collective_rpc("logitbank_install", args=arguments)
        if reason := next((reason for reason in reasons if reason), ""):
            return str(reason)
        ways = self._llm.collective_rpc("logitbank_why_plain_torch")
        if any(ways) and not all(ways):
            self._llm.collective_rpc("logitbank_use_torch", args=(next(way for way in ways if way),))
        return self._compare_with_public_logprobs()

    def _ask_how_workers_reduce(self) -> str:
        return next((str(way) for way in self._llm.collective_rpc("logitbank_rows_from") if way), "")

    def _compare_with_public_logprobs(self) -> str:
        """Score a few tokens in the workers and through the public interface. Returns how they differ, or ""."""
        from vllm import SamplingParams

        n = min(TRIAL_TOKENS, int(self._llm.llm_engine.model_config.max_model_len) - 1)
        request = Request(TRIAL_KEY, (np.arange(1, n + 1) % self._vocab_size).astype(np.uint32), np.arange(n - 1))
        try:
            scored = self._score_in_workers([request])[0]
        except TeacherDiedError:
            raise
        except LogitbankError as error:
            return str(error)
        width = min(TRIAL_ENTRIES, self._vocab_size)
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=width, detokenize=False)
        entries = self._run([request], [params])[0].prompt_logprobs[1:]
        public = [{token: entry.logprob for token, entry in row.items()} for row in entries]
        own = [row[int(token)] for row, token in zip(public, request.tokens[1:], strict=True)]
        has_all = self._targets.mode == "topk" and self._targets.k > width
        differences = entry_differences(scored.targets, public, has_all)
        reason = differ_by(np.concatenate([scored.token_logprobs[1:] - np.asarray(own), differences]), self._tolerance)
        return f"its log-probabilities differ from the public ones by {reason}" if reason else ""

    def _score_in_workers(self, requests: Sequence[Request]) -> list[Scored]:
        from vllm import SamplingParams

        params = [
            SamplingParams(
                max_tokens=1,
                temperature=0.0,
                prompt_logprobs=0,
                detokenize=False,
                extra_args=_extra_args("score", i, request),
            )
            for i, request in enumerate(requests)
        ]
        self._run(requests, params)
        rows = self._fetch_rows([request.rows for request in requests])
        return [build_scored(request, row) for request, row in zip(requests, rows, strict=True)]

    def _fetch_rows(self, positions: Sequence[npt.NDArray[np.int64]]) -> list[Rows]:
        """Fetch the rows at these positions of each request from the workers."""
        return group_rows_by_request(self._llm.collective_rpc("logitbank_take_rows"), positions)

    def _check_first_responses(
        self, requests: Sequence[Request], tokens: Sequence[npt.NDArray[np.uint32]], rows: list[Rows]
    ) -> list[Rows]:
        """Compare the rows of the first responses with those of scoring them.

        If they differ, these and all later rows of responses come from scoring.
        """
        if self._has_checked_responses or not requests:
            return rows
        self._has_checked_responses = True
        checked = range(min(CHECKED_RESPONSES, len(requests)))
        scored = self._score_responses([requests[i] for i in checked], [tokens[i] for i in checked])
        differences = [rows[i].token_logprobs - scored[i].token_logprobs for i in checked]
        reason = differ_by(np.concatenate(differences), self._tolerance)
        if not reason:
            return rows
        self._rescoring_reason = f"log-probabilities of generation and of scoring differ by {reason}"
        return self._score_responses(requests, tokens)

    def _score_responses(self, requests: Sequence[Request], tokens: Sequence[npt.NDArray[np.uint32]]) -> list[Rows]:
        """Make the rows of responses by scoring each together with its prompt."""
        continuations = [
            continuation_request(request, response_tokens)
            for request, response_tokens in zip(requests, tokens, strict=True)
        ]
        return [
            Rows(take_rows(scored.targets, request.rows), scored.token_logprobs[request.rows + 1])
            for request, scored in zip(continuations, self.score(continuations), strict=True)
        ]

    def _score_with_public_logprobs(self, requests: Sequence[Request]) -> list[Scored]:
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=self._targets.k, flat_logprobs=True, detokenize=False
        )
        outputs = self._run(requests, [params] * len(requests))
        return [
            build_scored(request, prompt_rows(output.prompt_logprobs, request, self._targets, self._vocab_size))
            for request, output in zip(requests, outputs, strict=True)
        ]

    def _run(self, requests: Sequence[Request], params: list[Any]) -> list[Any]:
        """Send the requests to vLLM. Returns its outputs in the order of the requests.

        Raises LogitbankError if vLLM rejects a request, and TeacherDiedError if the engine fails and cannot be used any
        more. After any other exception the engine has no requests.
        """
        from vllm.exceptions import VLLMClientError

        prompts: list[Mapping[str, Any]] = [{"prompt_token_ids": request.tokens.tolist()} for request in requests]
        try:
            return list(self._llm.generate(prompts, params, use_tqdm=self._make_counter, lora_request=self._lora))
        except (ValueError, VLLMClientError) as error:
            self._abort_requests()
            raise LogitbankError(f"vLLM rejected a request: {error}") from error
        except KeyboardInterrupt:
            self._abort_requests()
            raise
        except Exception as error:
            raise TeacherDiedError(f"vLLM's engine failed: {type(error).__name__}: {error}") from error

    def _abort_requests(self) -> None:
        """Remove all requests, and forget the rows that the workers made for them."""
        engine = self._llm.llm_engine
        engine.abort_request(list(engine.output_processor.request_states), internal=True)
        if not self.fallback_reason:
            self._llm.collective_rpc("logitbank_forget_rows")

    def _make_counter(self, *arguments: Any, **options: Any) -> AnswerCounter:
        """Make the counter of answered requests, which vLLM uses as a progress bar."""
        return AnswerCounter(self._count_answers, *arguments, **options)

    def _count_answers(self, count: int) -> None:
        self.answered += count


def _extra_args(kind: str, index: int, request: Request) -> dict[str, Any]:
    """Build the extra_args of a request whose rows the workers collect.

    kind: "score" or "generate". runs: the rows of the request as consecutive ranges [first, end, first, end, ...].
    """
    edges = np.flatnonzero(np.diff(request.rows) != 1) + 1
    runs = [edge for part in np.split(request.rows, edges) if len(part) for edge in (int(part[0]), int(part[-1]) + 1)]
    return {EXTRA_ARGS_KEY: {"kind": kind, "index": index, "key": request.key, "runs": runs}}
