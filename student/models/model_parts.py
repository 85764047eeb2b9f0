"""The parts of a language model that a fused loss needs: hidden states, LM head, and what happens to the product.

Models differ in the last step. What is found here is held against the model's own logits once (`require_known_head`):
a family that does something else is refused rather than trained on other logits than it will have.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from cache.errors import InputError
from student.losses.fused_loss import LogitTransform

# Greatest difference to the model's own logits, against their standard deviation.
TOLERANCE = 1e-3
PROBE_TOKENS = 12


def head_of(model: Any) -> nn.Module:
    """The module that makes logits of hidden states."""
    head: nn.Module | None = model.get_output_embeddings()
    if head is None:
        raise InputError(f"model of type {model.config.model_type!r} has no LM head, so it cannot be a student")
    return head


def logits_width(model: Any) -> int:
    """Logits of a model, as its head's weight says; its tokenizer may have fewer ids."""
    return int(head_of(model).out_features)  # type: ignore[arg-type]


def transform_of(model: Any) -> LogitTransform:
    """What the model does to the product of hidden states and head."""
    config = model.config.get_text_config()
    if model.config.is_encoder_decoder and getattr(config, "scale_decoder_outputs", False):
        return LogitTransform(config.d_model**-0.5)  # T5 scales the hidden states instead, which is the same
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    return LogitTransform(scale, getattr(config, "final_logit_softcapping", None))


def hidden_states(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What the head reads, [B * L, d]; of the decoder where there is one. Of a classifier [B, d]."""
    if hasattr(model, "pooled"):
        return model.pooled(**inputs)  # type: ignore[no-any-return]
    if model.config.is_encoder_decoder:
        mask = inputs["attention_mask"]
        read = model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
        written = model.get_decoder()(
            input_ids=inputs["decoder_input_ids"],
            encoder_hidden_states=read,
            encoder_attention_mask=mask,
            use_cache=False,
        )
        return written.last_hidden_state.flatten(0, 1)  # type: ignore[no-any-return]
    return model.base_model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)  # type: ignore[no-any-return]


def is_one_matrix(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a head is hidden @ weight.T + bias and nothing else."""
    return type(head) is nn.Linear


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[nn.Module]:
    """The module with another forward: calling it runs its hooks, by which ZeRO-3 gathers its weights."""
    # As an attribute of the instance; DeepSpeed may have put one there already.
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield module
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@torch.no_grad()
def require_known_head(model: Any, name: str) -> None:
    """Raise InputError where the model's own logits are not what hidden states, head and transform give."""
    width = logits_width(model)
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    ids = torch.randint(0, width, (1, PROBE_TOKENS), generator=generator).to(device)
    inputs = {"input_ids": ids}
    if model.config.is_encoder_decoder:
        inputs |= {"attention_mask": torch.ones_like(ids), "decoder_input_ids": ids.flip(1)}
    own = model(**inputs, use_cache=False).logits.flatten(0, -2).float()
    product = head_of(model)(hidden_states(model, inputs))
    ours = transform_of(model).apply_(product.float())
    difference = float((own - ours).abs().max())
    if not difference <= TOLERANCE * float(own.std()):
        raise InputError(
            f"model {name!r} of type {model.config.model_type!r} makes its logits in a way that is not known here: "
            f"they differ by up to {difference:.3g} from hidden states times head; these losses cannot train it"
        )
