"""The interface of a kind of student: all that depends on the architecture of a model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig

from cache.rows.record import Window
from student.losses.head.transform import LogitTransform
from student.models.rows.layout import Layout


class StudentKind(ABC):
    """A kind of student. It has no state.

    name: unique name. pipeline_tag: its task on model hubs, such as "text-generation".
    can_be_packed: whether several examples may share a row of its inputs.
    needs_classes: whether it is a classifier, which a job describes in [classes].
    learns_prompts: whether it predicts the tokens of prompts. False for a model that reads prompts with an encoder.
    is_general: whether it handles a whole family of models; a kind for particular models then takes precedence.
    pads_prompts_left: whether all prompts of a batch must end at the same position to be continued.
    """

    name: ClassVar[str]
    pipeline_tag: ClassVar[str] = "text-generation"
    can_be_packed: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    learns_prompts: ClassVar[bool] = True
    is_general: ClassVar[bool] = False
    pads_prompts_left: ClassVar[bool] = True

    @abstractmethod
    def handles(self, config: PreTrainedConfig) -> bool:
        """Whether models with this configuration are of this kind."""

    @abstractmethod
    def auto_class(self) -> Any:
        """The auto class of Transformers that builds and loads such a model."""

    def unused_keys(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Keys of [model.config] that have no effect beside the others, each with the reason. Without building it."""
        return {}

    def head(self, model: Any) -> nn.Module | None:
        """The module that computes logits from hidden states; None if there is none."""
        head: nn.Module | None = model.get_output_embeddings()
        return head

    @abstractmethod
    def hidden_states(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """What the head reads, [rows, d]. Rows are in the order of the positions that the layout gives."""

    def logit_transform(self, config: PreTrainedConfig) -> LogitTransform:
        """What the model does to the product of hidden states and head."""
        config = config.get_text_config()
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        return LogitTransform(scale, getattr(config, "final_logit_softcapping", None))

    def probe_inputs(self, ids: Tensor) -> dict[str, Tensor]:
        """Arguments of the model that use these ids, int64 [1, L], to compare its logits with ours."""
        return {"input_ids": ids}

    @abstractmethod
    def layout(self, config: PreTrainedConfig, pack_to: int | None) -> Layout:
        """How examples lie in its inputs. pack_to: tokens of a packed row; None unless it can be packed."""

    def longest_sequence(self, window: Window) -> int:
        """Tokens of the longest sequence in which the model reads or writes an example."""
        return len(window)

    def answer_start(self, prompt_length: int) -> int:
        """How many tokens `generate` returns before the answer to a prompt of this padded length."""
        return prompt_length


class ClassifierKind(StudentKind):
    """A kind with one row of logits for a whole text. student.classification makes its batches."""

    pipeline_tag = "text-classification"
    can_be_packed = False
    needs_classes = True
    learns_prompts = False

    def auto_class(self) -> Any:
        return AutoModelForSequenceClassification

    def layout(self, config: PreTrainedConfig, pack_to: int | None) -> Layout:
        raise NotImplementedError("a classifier reads texts, not windows: use student.classification.batches")
