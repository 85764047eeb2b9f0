"""Encoders such as BERT, MiniLM, TinyBERT, RoBERTa and DeBERTa with a head for classes, pretrained or new."""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from cache.errors import InputError
from student.models.student_kind import ClassifierKind


class SequenceClassifierKind(ClassifierKind):
    """Encoders that read a whole text at once."""

    name = "sequence_classifier"

    def handles(self, config: PreTrainedConfig) -> bool:
        mappings = (MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
        is_encoder = not config.is_encoder_decoder and not getattr(config, "is_decoder", False)
        return is_encoder and all(config.model_type in mapping for mapping in mappings)

    def head(self, model: Any) -> nn.Module | None:
        """The last linear layer with an output for each class: Transformers gives it no common name."""
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        return next((layer for layer in reversed(layers) if layer.out_features == model.config.num_labels), None)

    def hidden_states(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """What the head reads, [B, d]: whatever the family computes between its encoder and its head."""
        head = self.head(model)
        if head is None:
            raise InputError(
                f"model type {model.config.model_type!r}: it has no linear head, so it cannot be a student"
            )
        states: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda module, arguments: states.append(arguments[0]))
        try:
            model(**inputs)
        finally:
            hook.remove()
        return states[-1]


STUDENT_KIND = SequenceClassifierKind()
