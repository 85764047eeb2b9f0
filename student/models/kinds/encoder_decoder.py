"""Encoder-decoders such as T5: the encoder reads the prompt, the decoder writes the response."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig

from cache.examples.example import prompt_length
from cache.rows.record import Window
from student.losses.head.transform import LogitTransform
from student.models.rows.layout import ArrangedExamples, Layout, side_by_side
from student.models.student_kind import StudentKind


@dataclass(frozen=True, slots=True)
class EncoderDecoderLayout:
    """Prompts for the encoder. For the decoder, the token `decoder_start` and what follows the prompt."""

    decoder_start: int = 0
    learns_prompts: bool = False

    def arrange(
        self, windows: Sequence[Window], rows: Sequence[npt.NDArray[np.int64]], row_of: Sequence[int] | None = None
    ) -> ArrangedExamples:
        prompts = [prompt_length(window.segments) for window in windows]
        longest = max(prompts)
        input_ids = side_by_side([w.tokens[:n] for w, n in zip(windows, prompts, strict=True)], longest)
        mask = (np.arange(longest) < np.array(prompts)[:, None]).astype(np.int64)
        length = max(len(window) - n for window, n in zip(windows, prompts, strict=True))
        start = np.array([self.decoder_start], np.uint32)
        decoded = [np.concatenate([start, window.tokens[n:-1]]) for window, n in zip(windows, prompts, strict=True)]
        inputs = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "decoder_input_ids": side_by_side(decoded, length),
        }
        # Target row n - 1 of an example, that of its first token after the prompt, is the decoder's first position.
        pairs = zip(rows, prompts, strict=True)
        return ArrangedExamples(inputs, [b * length + row + 1 - n for b, (row, n) in enumerate(pairs)])


class EncoderDecoder(StudentKind):
    """Any encoder-decoder of Transformers with an LM head."""

    name = "encoder_decoder"
    is_general = True
    pipeline_tag = "text2text-generation"
    can_be_packed = False
    learns_prompts = False
    pads_prompts_left = False

    def handles(self, config: PreTrainedConfig) -> bool:
        return bool(config.is_encoder_decoder)

    def auto_class(self) -> Any:
        return AutoModelForSeq2SeqLM

    def hidden_states(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        mask = inputs["attention_mask"]
        encoded = model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
        decoded = model.get_decoder()(
            input_ids=inputs["decoder_input_ids"],
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
        )
        states: Tensor = decoded.last_hidden_state
        return states.flatten(0, 1)

    def logit_transform(self, config: PreTrainedConfig) -> LogitTransform:
        text_config = config.get_text_config()
        if getattr(text_config, "scale_decoder_outputs", False):
            return LogitTransform(text_config.d_model**-0.5)  # T5 scales the hidden states instead, which is the same
        return super().logit_transform(config)

    def probe_inputs(self, ids: Tensor) -> dict[str, Tensor]:
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids.flip(1)}

    def layout(self, config: PreTrainedConfig, pack_to: int | None) -> Layout:
        start = getattr(config, "decoder_start_token_id", None)
        return EncoderDecoderLayout(config.pad_token_id if start is None else start)

    def longest_sequence(self, window: Window) -> int:
        prompt = prompt_length(window.segments)
        return max(prompt, len(window) - prompt)

    def answer_start(self, prompt_length: int) -> int:
        return 1  # the decoder's start token


STUDENT_KIND = EncoderDecoder()
