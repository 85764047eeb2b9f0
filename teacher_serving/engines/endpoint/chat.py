"""ChatService: what all chat APIs have in common. They take chat turns and return text; none can score."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.answers.reasoning import END_THINK, THINK
from cache.errors import InputError, LogitbankError
from cache.examples.tokenizers import Tokenizer, decode
from cache.rendering.end_of_turn import end_of_turn
from cache.rendering.prompt_form import PromptForm
from cache.rows.sparse_targets import empty_targets
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.engines.endpoint.client import Service
from teacher_serving.engines.endpoint.failures import FormError, RefusedError
from teacher_serving.engines.endpoint.rows import PARSE_ERRORS, require_valid
from teacher_serving.reduction.rows import Rows, concatenate_rows
from teacher_serving.teacher import Generated, Request, Scored

TRIAL_KEY = "0" * 32
TRIAL_REQUEST = Request(TRIAL_KEY, np.zeros(0, np.uint32), messages=({"role": "user", "content": "Say yes."},))
# Services that write any JSON object refuse a prompt without this word.
JSON_TRIAL = Request(TRIAL_KEY, np.zeros(0, np.uint32), messages=({"role": "user", "content": "Say yes in JSON."},))
TRIAL_TOKENS = 16


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A parsed answer. finished: the model ended the text itself, rather than at the limit of tokens.

    logprobs: the log-probabilities of its tokens in the form of the API; None if the service returned none.
    reasoning: text that the service returned beside the answer, from before it.
    """

    text: str
    finished: bool
    logprobs: Any
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """Token ids of an answer, uint32 [n], and their rows. reasoning: number of leading tokens of the reasoning."""

    tokens: npt.NDArray[np.uint32]
    rows: Rows
    reasoning: int = 0


class ChatService:
    """A chat API. Subclasses define `path`, `_build_body` and `_parse`, and may define `_make_rows`."""

    path: str

    def __init__(self, service: Service, model: str, spec: StoreSpec, tokenizer: Tokenizer) -> None:
        self._service, self._model, self._spec, self._tokenizer = service, model, spec, tokenizer
        self._end = end_of_turn(tokenizer, PromptForm(spec.chat_template_kwargs, spec.template_date))
        self._answered_trial = False  # with text

    def check(self) -> None:
        """Send a short trial request with the settings of the job.

        Raises RefusedError if the service refuses it, InputError if it returns no log-probabilities.
        """
        sampling = self._spec.sampling
        if sampling is None:
            return
        trial = JSON_TRIAL if sampling.json_schema else TRIAL_REQUEST
        answer = self._complete(trial, sampling, min(TRIAL_TOKENS, sampling.max_tokens))
        if answer.logprobs is None and self._spec.targets.k and not answer.text:
            # A model that reasons first needs more tokens to come to an answer.
            answer = self._complete(trial, sampling, sampling.max_tokens)
        self._find_rows(answer)
        self._answered_trial = bool(answer.text.strip())
        if answer.logprobs is None and self._spec.targets.k:
            raise InputError(
                f"{self._service.name}: returns no log-probabilities; set engine.endpoint.top_logprobs = 0"
            )

    def probe(self) -> None:
        """Send the short trial request again. Raises RefusedError or ServiceFailedError if it has no good answer."""
        if (sampling := self._spec.sampling) is not None:
            trial = JSON_TRIAL if sampling.json_schema else TRIAL_REQUEST
            answer = self._complete(trial, sampling, min(TRIAL_TOKENS, sampling.max_tokens))
            self._find_rows(answer)
            if self._answered_trial and answer.finished and not answer.text.strip():
                raise FormError("the service returned no text")

    def score(self, request: Request) -> Scored:
        """Raise LogitbankError: no chat API can score."""
        raise LogitbankError("this service cannot score given responses; set score = false")

    def generate(self, request: Request, sampling: SamplingSpec) -> Generated:
        """Generate one response. Raises RefusedError if the service returns none."""
        answer = self._complete(request, sampling, sampling.max_tokens)
        if not answer.text.strip():
            raise RefusedError(_explain_silence(answer, sampling.max_tokens), is_certain=not answer.finished)
        found = self._find_rows(answer) or self._tokenize_without_rows(answer.text)
        if answer.reasoning and not found.reasoning:
            before = self._tokenize_without_rows(self._write_reasoning(request, answer.reasoning))
            tokens = np.concatenate([before.tokens, found.tokens])
            found = AnswerTokens(tokens, concatenate_rows([before.rows, found.rows]), len(before.tokens))
        tokens, rows = found.tokens, found.rows
        # Few services return the token that ended a response. It is assumed to be that of the chat template.
        if answer.finished and self._end is not None and decode(tokens[-1:], self._tokenizer):
            tokens = np.append(tokens, np.uint32(self._end))
            rows = concatenate_rows([rows, Rows(empty_targets(1), np.full(1, np.nan, np.float32))])
        return Generated(tokens, rows.targets, rows.token_logprobs, answer.finished, reasoning=found.reasoning)

    def _build_body(self, request: Request, sampling: SamplingSpec, max_tokens: int) -> dict[str, Any]:
        """Build the JSON body of a call, without the model's name."""
        raise NotImplementedError

    def _parse(self, answer: Mapping[str, Any]) -> ChatAnswer:
        """Parse an answer. Raises one of PARSE_ERRORS if it has another form, RefusedError if it is a refusal."""
        raise NotImplementedError

    def _make_rows(self, answer: ChatAnswer) -> AnswerTokens | None:
        """Return token ids and their rows; None if the service's tokens are not the tokenizer's."""
        return None

    def _complete(self, request: Request, sampling: SamplingSpec, max_tokens: int) -> ChatAnswer:
        """Send one request and parse the answer. Raises RefusedError if it is a refusal or has another form."""
        body = {"model": self._model, **self._build_body(request, sampling, max_tokens)}
        answer = self._service.post(self.path, body)
        try:
            parsed = self._parse(answer)
        except PARSE_ERRORS:
            raise FormError("the service's answer does not have the form of its API") from None
        try:
            (parsed.text + parsed.reasoning).encode()
        except UnicodeEncodeError:
            raise FormError("the service's text has half of a surrogate pair, which is no Unicode text") from None
        return parsed

    def _find_rows(self, answer: ChatAnswer) -> AnswerTokens | None:
        """Return token ids and rows of an answer, None without log-probabilities. Raises FormError for wrong ones."""
        if answer.logprobs is None:
            return None
        try:
            found = self._make_rows(answer)
        except PARSE_ERRORS:
            raise FormError("the service's log-probabilities do not have the form of its API") from None
        if found is not None:
            require_valid(found.rows, self._spec.vocab_size)
        return found

    def _write_reasoning(self, request: Request, reasoning: str) -> str:
        """Write reasoning as the model does: in <think> tags if its tokenizer has them, else before an empty line."""
        tokenizer: Any = self._tokenizer
        vocabulary = tokenizer.get_vocab()
        if THINK in vocabulary and END_THINK in vocabulary:
            prompt = str(tokenizer.decode(request.tokens.tolist(), skip_special_tokens=False))
            opening = "" if prompt.rstrip().endswith(THINK) else f"{THINK}\n"
            text = reasoning.strip("\n")
            return f"{opening}{text}\n{END_THINK}\n\n"
        return reasoning if reasoning.endswith("\n") else f"{reasoning}\n\n"

    def _tokenize_without_rows(self, text: str) -> AnswerTokens:
        tokens = np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], np.uint32)
        return AnswerTokens(tokens, Rows(empty_targets(len(tokens)), np.full(len(tokens), np.nan, np.float32)))


def _explain_silence(answer: ChatAnswer, max_tokens: int) -> str:
    """Say why an answer without text has none."""
    if answer.finished:
        return "the service returned no text" + (" after its reasoning" if answer.reasoning else "")
    what = "only reasoning" if answer.reasoning else "no text"
    return f"the service returned {what} within generation.max_new_tokens = {max_tokens}; raise it"
