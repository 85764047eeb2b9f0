"""TransformersTeacher: runs every causal and encoder-decoder model, one sequence at a time. Simple and slow.

The tests compare the other engines with it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig

from cache.errors import InputError
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.asking.requests import build_scored, continuation_request
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.transformers.settings import TransformersSettings
from teacher_serving.reduction.draws import row_uniforms, sampling_seed
from teacher_serving.reduction.reducer import Reducer, select_rows
from teacher_serving.reduction.rows import Rows, concatenate_rows
from teacher_serving.teacher import Generated, Request, Scored

SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


class TransformersTeacher:
    """Scores and generates with AutoModelForCausalLM, or AutoModelForSeq2SeqLM if the model has an encoder.

    answered: requests that were answered since the start. tokenizer: to find the stop texts of requests; without one
    responses go on after them.
    """

    def __init__(
        self,
        folder: str,
        teacher: TeacherSettings,
        engine: TransformersSettings,
        spec: StoreSpec,
        tokenizer: Any = None,
    ) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = load_model(folder, teacher).to(self._device).eval()
        self._targets, self._tokenizer = spec.targets, tokenizer
        self.answered = 0
        self._reducer = Reducer(spec.targets, spec.vocab_size, engine.threads, engine.logits_mib)
        if self._device.type == "cuda":
            self._reducer.check_kernels(self._device)
        config = self._model.generation_config
        self._eos_ids = set(config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id])
        # Use only the special tokens of the model's generation settings. Beams and penalties change the distribution.
        self._model.generation_config = GenerationConfig(**{name: getattr(config, name) for name in SPECIAL_TOKENS})

    @property
    def rows_from(self) -> str:
        """See NamesRowSource."""
        return self._reducer.rows_from(self._device)

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """See Teacher.score."""
        scored = []
        for request in requests:
            scored.append(build_scored(request, self._make_rows(request)))
            self.answered += 1
        return scored

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        """See Teacher.generate."""
        generated = []
        for request in requests:
            torch.manual_seed(sampling_seed(request.key, sampling.seed))
            sampled = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
            prompt = self._to_tensor(request.tokens)
            ids = self._model.generate(
                prompt,
                # Without a mask the padding token is masked wherever the prompt contains it.
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=sampling.max_tokens,
                **self._stop_options(request),
                **(sampled if sampling.temperature > 0 else {"do_sample": False}),
            )
            # The output of an encoder-decoder model is its decoder's input, which begins with a start token.
            start = 1 if self._model.config.is_encoder_decoder else len(request.tokens)
            tokens = ids[0, start:].cpu().numpy().astype(np.uint32)
            rows = self._make_rows(continuation_request(request, tokens))
            finished = 0 < len(tokens) < sampling.max_tokens or (len(tokens) > 0 and int(tokens[-1]) in self._eos_ids)
            self.answered += 1
            generated.append(Generated(tokens, rows.targets, rows.token_logprobs, finished))
        return generated

    def _stop_options(self, request: Request) -> dict[str, Any]:
        """Options of `generate` that end a response at the request's stop text."""
        if not request.stop or self._tokenizer is None:
            return {}
        return {"stop_strings": request.stop_texts, "tokenizer": self._tokenizer}

    def _make_rows(self, request: Request) -> Rows:
        if len(request.rows) == 0:
            return concatenate_rows([])
        next_tokens = request.tokens[request.rows + 1].astype(np.int64)
        uniforms = row_uniforms(self._targets, request.key, request.rows)
        return self._reducer.reduce(self._compute_logits(request), next_tokens, uniforms)

    def _compute_logits(self, request: Request) -> torch.Tensor:
        """Compute the logits [requested rows, vocabulary] in the model's dtype."""
        first = int(request.rows[0])
        if not self._model.config.is_encoder_decoder:
            output = self._model(self._to_tensor(request.tokens), use_cache=False)
            return torch.as_tensor(select_rows(output.logits[0], request.rows))
        start = np.array([self._model.config.decoder_start_token_id], np.uint32)
        decoder_ids = np.concatenate([start, request.tokens[first + 1 : -1]])
        output = self._model(
            input_ids=self._to_tensor(request.tokens[: first + 1]),
            decoder_input_ids=self._to_tensor(decoder_ids),
            use_cache=False,
        )
        return torch.as_tensor(select_rows(output.logits[0], request.rows - first))

    def _to_tensor(self, tokens: npt.NDArray[np.uint32]) -> torch.Tensor:
        return torch.from_numpy(tokens.astype(np.int64))[None].to(self._device)


def load_model(folder: str, teacher: TeacherSettings) -> Any:
    """Load the model in its dtype, and merge the LoRA adapter if there is one.

    Raises InputError if teacher.quantization is set.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if teacher.quantization:
        raise InputError(
            'teacher.quantization is for engine.kind = "vllm"; leave it out, and give a model with quantised weights'
        )
    options: dict[str, Any] = {"trust_remote_code": teacher.trust_remote_code}
    config = AutoConfig.from_pretrained(folder, **options)
    model_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if getattr(config.get_text_config(), "attn_logit_softcapping", None):
        options["attn_implementation"] = "eager"  # other implementations silently ignore the cap
    model = model_class.from_pretrained(folder, dtype=teacher.dtype, **options)
    if teacher.lora_path:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, teacher.lora_path).merge_and_unload()
    return model
