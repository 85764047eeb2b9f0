"""Models: students, from random or pretrained weights, and the parts of them that a loss needs.

In: the [model] table of a job file and a tokenizer. Out: a Transformers model without dropout (`build`), or one whose
forward pass ends in a loss (`loss_model.LossModel`). `kinds/` has the kinds of student, one a file: causal,
encoder-decoder, compact classifier; `rows/` says how examples lie in a model's inputs, several of them in a
row too; `layer_selection` keeps some layers; `model_parts` finds head, hidden states and transform.
Knows nothing of stores, and nothing of how it is trained. To add a kind: see `kinds/__init__.py`.
"""

from student.models.settings import LoraSettings, ModelSettings

__all__ = ["LoraSettings", "ModelSettings"]
