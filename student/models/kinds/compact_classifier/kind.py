"""The compact classifier as a kind of student."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig

from student.models.kinds.compact_classifier.model import MODEL_TYPE
from student.models.student_kind import ClassifierKind

# Keys of a configuration that one kind of compact classifier has.
OWN_KEYS = {"transformer": ("layers", "heads"), "cnn": ("kernel_sizes",)}


class CompactClassifierKind(ClassifierKind):
    """A classifier of this project, of a few thousand parameters."""

    name = "compact_classifier"

    def handles(self, config: PreTrainedConfig) -> bool:
        return bool(config.model_type == MODEL_TYPE)

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


STUDENT_KIND = CompactClassifierKind()
