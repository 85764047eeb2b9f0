"""Causal language models: prompt and response in one row. Any model that no other kind handles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig

from cache.errors import InputError
from cache.rows.record import Window
from student.models.rows.layout import PADDED, PADDING, ArrangedExamples, Layout
from student.models.rows.packing import pack, place, positions
from student.models.student_kind import StudentKind


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Several examples a row of at most `row_length` tokens; the rows of a micro-batch are as long as the fullest one.

    Positions that start again keep examples apart in the attention.
    """

    row_length: int
    learns_prompts: bool = True

    def arrange(
        self, windows: Sequence[Window], rows: Sequence[npt.NDArray[np.int64]], row_of: Sequence[int] | None = None
    ) -> ArrangedExamples:
        lengths = [len(window) for window in windows]
        # Another search among these examples alone can need more rows than the plan of the whole step.
        packing = (
            pack(lengths, self.row_length)
            if row_of is None
            else place(lengths, np.asarray(row_of, np.int64), max(row_of) + 1)
        )
        input_ids = np.full((packing.rows, packing.width), PADDING, np.int64)
        starts = packing.row * packing.width + packing.offset
        for start, window in zip(starts, windows, strict=True):
            input_ids.reshape(-1)[start : start + len(window)] = window.tokens
        inputs = {"input_ids": input_ids, "position_ids": positions(packing)}
        return ArrangedExamples(inputs, [start + row for start, row in zip(starts, rows, strict=True)])


class Causal(StudentKind):
    """Any causal language model of Transformers."""

    name = "causal"
    is_general = True

    def handles(self, config: PreTrainedConfig) -> bool:
        return not config.is_encoder_decoder

    def auto_class(self) -> Any:
        return AutoModelForCausalLM

    def hidden_states(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        if model.base_model is model:
            raise InputError(
                f"model type {model.config.model_type!r}: Transformers does not give its hidden states without its "
                "head, so it cannot be a student; use another model"
            )
        states: Tensor = model.base_model(**inputs, use_cache=False).last_hidden_state
        return states.flatten(0, 1)

    def layout(self, config: PreTrainedConfig, pack_to: int | None) -> Layout:
        return PADDED if pack_to is None else PackedLayout(pack_to)


STUDENT_KIND = Causal()
