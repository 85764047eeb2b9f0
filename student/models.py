"""Build a student and give it a forward pass that ends in a loss."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from cache.errors import InputError
from student.config import LossSettings, ModelSettings
from student.data import Batch
from student.losses import forward_kl_loss, hard_label_loss

# Logits held at a time, in elements: 64 MiB of float32.
BLOCK_ELEMENTS = 1 << 24


def build_model(
    settings: ModelSettings, vocab_size: int, tokenizer: PreTrainedTokenizerBase, seed: int
) -> PreTrainedModel:
    """The student with `vocab_size` logits, in float32, without dropout: its draws would differ after a restart.

    Raises InputError where the model cannot have so many logits.
    """
    if settings.pretrained is not None:
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(settings.pretrained, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"model {settings.pretrained!r}: cannot be loaded: {error}") from error
        check_head(model, settings.pretrained)
        width = model.get_output_embeddings().weight.shape[0]
        if len(tokenizer) <= width < vocab_size:
            # Models of one family share a tokenizer and pad their vocabularies to different widths.
            model.resize_token_embeddings(vocab_size)
            width = vocab_size
        if width < vocab_size:
            raise InputError(
                f"model {settings.pretrained!r} has {width} logits, the targets need {vocab_size}; "
                "a student must share the teacher's vocabulary"
            )
        return model.eval()
    fields = dict(settings.config or {})
    model_type = fields.pop("model_type")
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    try:
        config = AutoConfig.for_model(model_type, vocab_size=vocab_size, **ids, **fields)
        torch.manual_seed(seed)
        built: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"model.config: {model_type!r} cannot be built from it: {error}") from error
    check_head(built, model_type)
    return built.eval()


def check_head(model: PreTrainedModel, name: str) -> None:
    """Raise InputError where logits are more than hidden states times the output embedding."""
    config = model.config.get_text_config()
    for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, key, None) not in (None, 1, 1.0):
            raise InputError(f"model {name!r} changes its logits by {key} = {getattr(config, key)}; not supported yet")


def block_rows(model: PreTrainedModel) -> int:
    """Rows whose logits may be held at a time."""
    return max(1, BLOCK_ELEMENTS // int(model.config.get_text_config().vocab_size))


class LossSums(NamedTuple):
    """Sums over the R rows of a micro-batch: the objective (with gradient) and -log q(label), in nats.

    A tuple, because ZeRO-3 looks for the tensors in what a module returns.
    """

    objective: Tensor
    hard_label: Tensor


class LossModel(nn.Module):
    """A causal language model whose forward returns the loss of a batch.

    The LM head runs only on rows that carry a loss, block by block; where there are several blocks, each is computed
    anew in the backward pass, so the [tokens, vocabulary] matrix never exists. Being inside forward, the head is
    gathered by ZeRO-3 like any other weight.
    """

    def __init__(self, model: PreTrainedModel, settings: LossSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(self, batch: Batch) -> LossSums:
        hidden = self.model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        picked = hidden.flatten(0, 1).index_select(0, batch.rows)
        head = self.model.get_output_embeddings()
        size = block_rows(self.model)
        columns = (picked, batch.labels, batch.ids, batch.log_p, batch.log_tail)
        if len(picked) <= size:  # one block may keep its logits: computing them twice would save nothing
            return LossSums(*self._block(head, *columns))
        sums = [torch.zeros((), device=hidden.device), torch.zeros((), device=hidden.device)]
        for block in zip(*(column.split(size) for column in columns), strict=True):
            losses = checkpoint(self._block, head, *block, use_reentrant=False)
            sums = [total + part for total, part in zip(sums, losses, strict=True)]
        return LossSums(*sums)

    def _block(
        self, head: nn.Module, hidden: Tensor, labels: Tensor, ids: Tensor, log_p: Tensor, log_tail: Tensor
    ) -> tuple[Tensor, Tensor]:
        log_q = functional.log_softmax(head(hidden).float(), dim=-1)
        hard = hard_label_loss(log_q, labels).sum()
        if self.settings.objective == "hard_label":
            return hard, hard.detach()
        share = self.settings.hard_label_weight
        objective = (1 - share) * forward_kl_loss(log_q, ids, log_p, log_tail).sum()
        return objective + share * hard if share else objective, hard.detach()
