"""Compact classifiers in Hugging Face form, from a thousand parameters up: embedding bag, convolutions, small encoder.

No dropout, so that a resumed run repeats an unbroken one. Weights are touched only in the forward of the module that
owns them, as ZeRO-3 needs. Importing this module registers the classes with Transformers, which is how its Auto classes
find what save_pretrained wrote.
"""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from student.models.kinds.compact_classifier.matching import DecomposableAttention

Kind = Literal["embedding_bag", "cnn", "transformer", "decomposable_attention"]
MODEL_TYPE = "logitbank_compact"


class CompactConfig(PreTrainedConfig):  # type: ignore[misc]  # Transformers is untyped here
    """Shape of a compact classifier. Raises ValueError for one that cannot be.

    kind: "embedding_bag", mean of the embeddings; "cnn", the maximum over time of convolutions (Kim 2014,
        https://arxiv.org/abs/1408.5882); "transformer", mean of a bidirectional pre-norm encoder's states;
        "decomposable_attention", the last segment of a text compared with the segments before it (matching.py).
    width: of embeddings and states, and channels of each convolution. hidden: units of a ReLU layer before the output
        head, 0 for none; of "decomposable_attention" also units of the comparison, `width` if 0. layers, heads: of
        "transformer" alone. kernel_sizes: tokens each convolution of "cnn" sees.
    max_tokens: longest input. sep_token_id: what separates segments; "decomposable_attention" needs it. pad_token_id:
        what collation pads with; the model itself looks at the mask alone.
    others: those of PreTrainedConfig; id2label or num_labels sets the classes.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        kind: Kind = "embedding_bag",
        vocab_size: int = 512,
        width: int = 32,
        hidden: int = 0,
        layers: int = 2,
        heads: int = 2,
        kernel_sizes: tuple[int, ...] = (2, 3, 4),
        max_tokens: int = 256,
        pad_token_id: int = 0,
        sep_token_id: int | None = None,
        **others: Any,
    ) -> None:
        sizes = {"vocab_size": vocab_size, "width": width, "layers": layers, "heads": heads, "max_tokens": max_tokens}
        if kind not in get_args(Kind):
            raise ValueError(f"kind {kind!r} is not known; choose one of {', '.join(get_args(Kind))}")
        if bad := [f"{name} = {size}" for name, size in sizes.items() if size < 1] + ["hidden < 0"] * (hidden < 0):
            raise ValueError(f"{bad[0]}: a size must be at least 1 (hidden: 0)")
        if kind == "transformer" and width % heads:
            raise ValueError(f"width {width} must be a multiple of heads = {heads}")
        if kind == "cnn" and (not kernel_sizes or min(kernel_sizes) < 1):
            raise ValueError(f"kernel_sizes {tuple(kernel_sizes)} must be one or more sizes of at least 1")
        self.kind = kind
        self.vocab_size = vocab_size
        self.width = width
        self.hidden = hidden
        self.layers = layers
        self.heads = heads
        self.kernel_sizes = list(kernel_sizes)
        self.max_tokens = max_tokens
        super().__init__(**others)
        self.sep_token_id = sep_token_id
        self.pad_token_id = pad_token_id  # after the base, which has a default of its own


class CompactClassifier(PreTrainedModel):  # type: ignore[misc]
    """A classifier in two steps, pooled states and a linear head: losses may then compute the head's logits themselves.

    Mask int or bool [B, L], 0 where padded: padding changes nothing, on either side. A text of no tokens is allowed.
    """

    config_class = CompactConfig
    _input_embed_layer = "embedding"

    def __init__(self, config: CompactConfig) -> None:
        super().__init__(config)
        if config.kind == "decomposable_attention" and config.sep_token_id is None:
            raise ValueError(
                f"kind {config.kind!r} needs a tokenizer with a separator; learn one with tokenizer.algorithm = "
                '"wordpiece", or give tokenizer.path'
            )
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.body = _body(config)
        size = self.body.size
        self.hidden = nn.Sequential(nn.Linear(size, config.hidden), nn.ReLU()) if config.hidden else nn.Identity()
        self.classifier = nn.Linear(config.hidden or size, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # PyTorch's own: the 0.02 of Transformers leaves embeddings of few dimensions next to nothing.
        if isinstance(module, nn.Embedding | nn.Linear | nn.Conv1d | nn.LayerNorm):
            module.reset_parameters()

    def get_output_embeddings(self) -> nn.Module:
        """The head: linear, from d to the classes."""
        return self.classifier

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """State of each text, [B, d]. input_ids int64 [B, L]. Raises ValueError where L is above max_tokens."""
        if input_ids.shape[1] > self.config.max_tokens:
            raise ValueError(f"{input_ids.shape[1]} tokens are more than max_tokens = {self.config.max_tokens}")
        x, mask = self.embedding(input_ids), attention_mask.bool()
        if isinstance(self.body, DecomposableAttention):
            x = self.body(x, mask, mask & (input_ids == self.config.sep_token_id))
        else:
            x = self.body(x, mask)
        state: Tensor = self.hidden(x)
        return state

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """logits [B, classes]; loss: mean cross-entropy in nats where labels int64 [B] are given, -100 ignored."""
        logits = self.classifier(self.pooled(input_ids, attention_mask))
        loss = None if labels is None else functional.cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class MeanPool(nn.Module):
    """Mean of x [B, L, width] where the mask [B, L] is set; 0 where it is nowhere."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.size = config.width

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


class Convolutions(nn.Module):
    """The greatest value over the text of each channel after a ReLU, [B, channels of all convolutions]."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.sizes = tuple(config.kernel_sizes)
        self.size = config.width * len(self.sizes)
        self.convolutions = nn.ModuleList(nn.Conv1d(config.width, config.width, size) for size in config.kernel_sizes)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        # Beyond its end, a text looks the same whether a batch pads it or the convolution does: zeros.
        x = x.masked_fill(~mask.unsqueeze(-1), 0.0).transpose(1, 2)
        states = []
        for size, convolution in zip(self.sizes, self.convolutions, strict=True):
            state = functional.relu(convolution(functional.pad(x, ((size - 1) // 2, size // 2))))
            states.append(state.masked_fill(~mask.unsqueeze(1), 0.0).amax(-1))
        return torch.cat(states, -1)


class Encoder(nn.Module):
    """Learned positions, bidirectional blocks, and the mean over the text, [B, width]."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.size = config.width
        self.positions = nn.Embedding(config.max_tokens, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.pool = MeanPool(config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.positions((mask.cumsum(1) - 1).clamp(min=0))
        for block in self.blocks:
            x = block(x, mask)
        pooled: Tensor = self.pool(self.norm(x), mask)
        return pooled


class Block(nn.Module):
    """Pre-norm self-attention and GELU layer on x [B, L, width].

    Not torch.nn.MultiheadAttention: it reads its output layer's weight outside that layer's forward.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Written out: backward passes of the fused kernels need not give the same bits twice.
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        # Not -inf: a text of no tokens would be NaN.
        scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))
        states: Tensor = x + self.mlp(self.mlp_norm(x))
        return states


def _body(config: CompactConfig) -> MeanPool | Convolutions | Encoder | DecomposableAttention:
    """What makes one state [B, size] of a text's embeddings."""
    if config.kind == "decomposable_attention":
        return DecomposableAttention(config.width, config.hidden or config.width)
    if config.kind == "cnn":
        return Convolutions(config)
    return Encoder(config) if config.kind == "transformer" else MeanPool(config)


AutoConfig.register(MODEL_TYPE, CompactConfig, exist_ok=True)
AutoModelForSequenceClassification.register(CompactConfig, CompactClassifier, exist_ok=True)
