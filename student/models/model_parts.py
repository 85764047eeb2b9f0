"""The parts of a model that a fused loss needs: hidden states, head, and the transform of their product.

Model families differ in the transform. `require_known_head` compares the resulting logits with the model's own once: a
family with another transform is refused, because it would be trained on logits that it does not have later.
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from cache.errors import InputError
from student.losses.head.logits import precise_logits
from student.losses.head.transform import LogitTransform
from student.models.registry import kind_of
from student.models.rows.layout import Layout

# Largest difference from the model's own logits, as a share of their standard deviation.
MAX_DIFFERENCE = 1e-3
PROBE_TOKENS = 12


def head_of(model: Any) -> nn.Module:
    """The module that computes logits from hidden states. Raises InputError if there is none."""
    head = kind_of(model.config).head(model)
    if head is None:
        raise InputError(f"model of type {model.config.model_type!r} has no LM head, so it cannot be a student")
    return head


def logits_width(model: Any) -> int:
    """Number of logits: the outputs of the head. The tokenizer may have fewer ids."""
    return int(head_of(model).out_features)  # type: ignore[arg-type]


def transform_of(model: Any) -> LogitTransform:
    """What the model does to the product of hidden states and head."""
    return kind_of(model.config).logit_transform(model.config)


def hidden_states(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What the head reads, [B * L, d]: of the decoder if there is one, of a classifier [B, d]."""
    return kind_of(model.config).hidden_states(model, inputs)


def logits_of(model: Any, hidden: Tensor) -> Tensor:
    """Logits of hidden states, float32 [R, V] whatever the dtype of the model. hidden: [R, d]."""
    return precise_logits(head_of(model), hidden, transform_of(model))


def layout_of(model: Any, pack_to: int | None) -> Layout:
    """How examples lie in the model's inputs. Raises InputError if rows shall be packed and it cannot read them."""
    kind = kind_of(model.config)
    if pack_to is not None and not kind.can_be_packed:
        raise InputError(
            f"data.pack_to: {model.config.model_type!r} is of the kind {kind.name}, which cannot be packed; "
            "leave it out"
        )
    return kind.layout(model.config, pack_to)


def is_one_matrix(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a head is only hidden @ weight.T + bias, without adapters."""
    return type(head) is nn.Linear


@torch.no_grad()
def require_known_head(model: Any, name: str) -> None:
    """Raise InputError if the model's own logits differ from the transformed product of hidden states and head.

    name: of the model, for the message.
    """
    width = logits_width(model)
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    ids = torch.randint(0, width, (1, PROBE_TOKENS), generator=generator).to(device)
    inputs = kind_of(model.config).probe_inputs(ids)
    expected = model(**inputs, use_cache=False).logits.flatten(0, -2).float()
    computed = logits_of(model, hidden_states(model, inputs))
    difference = float((expected - computed).abs().max())
    if not difference <= MAX_DIFFERENCE * float(expected.std()):
        raise InputError(
            f"model {name!r} of type {model.config.model_type!r} computes its logits in an unknown way: they "
            f"differ by up to {difference:.3g} from hidden states times head; use another model"
        )
