"""A teacher on Transformers: every causal and encoder-decoder model, one sequence at a time, plain and slow.

It is also the oracle that other engines are held against.
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
from teacher_serving.reduction.reducer import Reducer, Rows, concatenate_rows, select_rows
from teacher_serving.teacher import Generated, Request, Scored

SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


class TransformersTeacher:
    """Scores and generates with AutoModelForCausalLM, or AutoModelForSeq2SeqLM where the model has an encoder."""

    def __init__(self, folder: str, teacher: TeacherSettings, engine: TransformersSettings, spec: StoreSpec) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = load_model(folder, teacher).to(self._device).eval()
        self._targets = spec.targets
        self.answered = 0
        self._reducer = Reducer(spec.targets, spec.vocab_size, engine.cpu_threads, engine.logits_mib)
        own = self._model.generation_config
        self._ends = set(own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id])
        # Of the model's own settings only its special tokens: beams and penalties would draw from another law.
        self._model.generation_config = GenerationConfig(**{name: getattr(own, name) for name in SPECIAL_TOKENS})

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> list[Scored]:
        scored = []
        for request in requests:
            scored.append(build_scored(request, self._rows(request)))
            self.answered += 1
        return scored

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        generated = []
        for request in requests:
            torch.manual_seed(sampling_seed(request.key, sampling.seed))
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
            ids = self._model.generate(
                self._ids(request.tokens),
                max_new_tokens=sampling.max_tokens,
                **(drawn if sampling.temperature > 0 else {"do_sample": False}),
            )
            # An encoder-decoder gives what its decoder read, which starts with a token that nobody wrote.
            start = 1 if self._model.config.is_encoder_decoder else len(request.tokens)
            written = ids[0, start:].cpu().numpy().astype(np.uint32)
            rows = self._rows(continuation_request(request, written))
            ended = len(written) > 0 and int(written[-1]) in self._ends
            self.answered += 1
            generated.append(Generated(written, rows.targets, rows.token_logprobs, ended))
        return generated

    def _rows(self, request: Request) -> Rows:
        wanted = request.rows
        if len(wanted) == 0:
            return concatenate_rows([])
        following = request.tokens[wanted + 1].astype(np.int64)
        uniforms = row_uniforms(self._targets, request.key, wanted)
        return self._reducer.reduce(self._logits(request), following, uniforms)

    def _logits(self, request: Request) -> torch.Tensor:
        """Logits [wanted rows, vocabulary] in the model's dtype."""
        first = int(request.rows[0])
        if not self._model.config.is_encoder_decoder:
            output = self._model(self._ids(request.tokens), use_cache=False)
            return torch.as_tensor(select_rows(output.logits[0], request.rows))
        start = np.array([self._model.config.decoder_start_token_id], np.uint32)
        decoder_ids = np.concatenate([start, request.tokens[first + 1 : -1]])
        output = self._model(
            input_ids=self._ids(request.tokens[: first + 1]), decoder_input_ids=self._ids(decoder_ids), use_cache=False
        )
        return torch.as_tensor(select_rows(output.logits[0], request.rows - first))

    def _ids(self, tokens: npt.NDArray[np.uint32]) -> torch.Tensor:
        return torch.from_numpy(tokens.astype(np.int64))[None].to(self._device)


def load_model(folder: str, teacher: TeacherSettings) -> Any:
    """The model in its dtype, with its adapter merged where the settings name one."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if teacher.quantization:
        raise InputError('teacher.quantization is vLLM\'s; with engine.kind = "transformers" give quantised files')
    options: dict[str, Any] = {"trust_remote_code": teacher.trust_remote_code}
    config = AutoConfig.from_pretrained(folder, **options)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if getattr(config.get_text_config(), "attn_logit_softcapping", None):
        options["attn_implementation"] = "eager"  # the others leave the cap out without a word
    model = kind.from_pretrained(folder, dtype=teacher.dtype, **options)
    if teacher.lora_path:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, teacher.lora_path).merge_and_unload()
    return model
