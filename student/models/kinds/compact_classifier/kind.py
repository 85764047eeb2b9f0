"""The compact classifier as a kind of student."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedConfig

from student.models.kinds.compact_classifier.model import MODEL_TYPE
from student.models.layout import Layout
from student.models.student_kind import StudentKind

# Keys of a configuration that one kind of compact classifier has.
OWN_KEYS = {"transformer": ("layers", "heads"), "cnn": ("kernel_sizes",)}


class CompactClassifierKind(StudentKind):
    """A small classifier: one row of logits a text. student.classification makes its batches."""

    name = "compact_classifier"
    pipeline_tag = "text-classification"
    can_be_packed = False
    needs_classes = True
    learns_prompts = False

    def handles(self, config: PreTrainedConfig) -> bool:
        return bool(config.model_type == MODEL_TYPE)

    def auto_class(self) -> Any:
        return AutoModelForSequenceClassification

    def hidden_states(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        states: Tensor = model.pooled(**inputs)
        return states

    def unused_keys(self, fields: Mapping[str, Any]) -> dict[str, str]:
        kind = fields.get("kind", "embedding_bag")
        return {
            name: f'it belongs to kind = "{owner}", and the model has kind = {kind!r}'
            for owner, names in OWN_KEYS.items()
            for name in names
            if owner != kind and name in fields
        }

    def layout(self, config: PreTrainedConfig, pack_to: int | None) -> Layout:
        raise NotImplementedError("a classifier reads texts, not windows: use student.classification.batches")


STUDENT_KIND = CompactClassifierKind()
