"""A small copy of a large model, with random weights: what a plan tests where the model itself would not fit."""

import copy

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from student.models.build import build_model, build_structure, require_working_head
from student.models.layer_selection import lists_by_layer
from student.models.registry import kind_of
from student.models.settings import ModelSettings

# Parameters from which a plan does not load the model: 4 GiB in float32.
LARGE = 1 << 30
LAYERS, VOCABULARY, INNER_WIDTH = 2, 512, 512
# Widths between the layers of a block, by the names of Transformers.
INNER_WIDTHS = (
    *("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "n_inner", "d_ff", "ffn_dim"),
    *("encoder_ffn_dim", "decoder_ffn_dim"),
)
# Kinds of layers that some configurations compute from other keys; and numbers of layers of other names.
DERIVED_KINDS = ("layer_types", "layers_block_type")
OTHER_STACKS = ("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")


def model_to_plan(
    settings: ModelSettings, vocab_size: int, tokenizer: PreTrainedTokenizerBase, seed: int
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A language model to plan with, whose forward pass and head were tested; and that of which tests can be made.

    Both are the model itself. If it is large, the first has parameters on the meta device, and the second is a small
    copy. Raises InputError as build_model does; but files of weights of a large model are not read.
    """
    what = (settings, vocab_size, tokenizer, seed)
    structure = build_structure(*what)
    if structure is not None and sum(parameter.numel() for parameter in structure.parameters()) > LARGE:
        small = small_copy(structure)
        if small is not None:
            require_working_head(small, settings.pretrained or small.config.model_type)
            return structure, small
    model = build_model(*what)
    return model, model


def small_copy(model: PreTrainedModel) -> PreTrainedModel | None:
    """A model of the same class, width and attention in float32, with few layers and token ids, and without adapters.

    model: may be on the meta device. The copy has each kind of layer that the configuration names, and few experts and
    narrow layers between them if the code of the model allows it. None if it allows no copy.
    """
    state = torch.get_rng_state()
    try:
        return _copy(model, is_narrow=True) or _copy(model, is_narrow=False)
    finally:
        torch.set_rng_state(state)


def _copy(model: PreTrainedModel, is_narrow: bool) -> PreTrainedModel | None:
    """The copy; None if it cannot be built or run."""
    torch.manual_seed(0)
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    try:
        _cut_layers(text)
        text.vocab_size = min(text.vocab_size, VOCABULARY)
        for part in {id(each): each for each in (config, text)}.values():
            _cut_token_ids(part, text.vocab_size)
        if is_narrow:
            _cut_experts(text)
        small: PreTrainedModel = type(model)._from_config(config, dtype=torch.float32)
        with torch.no_grad():
            small.eval()(**kind_of(small.config).probe_inputs(torch.zeros((1, 2), dtype=torch.int64)))
        return small
    except Exception:  # the code of a model may raise anything
        return None


def _cut_layers(text: PreTrainedConfig) -> None:
    kinds = lists_by_layer(text)
    derived = [getattr(text, name, None) for name in DERIVED_KINDS]
    lists = [*kinds.values(), *(value for value in derived if isinstance(value, list | tuple) and value)]
    count = max([LAYERS, *map(_until_all_kinds, lists)])
    for key, value in kinds.items():
        setattr(text, key, value[:count])
    for key in ("num_hidden_layers", *OTHER_STACKS):
        total = getattr(text, key, None)
        if isinstance(total, int):
            setattr(text, key, min(total, count))


def _cut_experts(text: PreTrainedConfig) -> None:
    """Few experts, which the routing by groups still finds, in every layer; and narrow layers between the others."""
    for key in ("num_experts", "num_local_experts", "n_routed_experts"):
        if isinstance(total := getattr(text, key, None), int):
            groups, chosen = (getattr(text, name, None) or 1 for name in ("n_group", "topk_group"))
            of_token = getattr(text, "num_experts_per_tok", None) or 1
            setattr(text, key, min(total, groups * max(2, -(-of_token // chosen))))
    for key in INNER_WIDTHS:
        if isinstance(width := getattr(text, key, None), int):
            setattr(text, key, min(width, INNER_WIDTH))
    if isinstance(dense := getattr(text, "first_k_dense_replace", None), int):
        text.first_k_dense_replace = min(dense, text.num_hidden_layers - 1)
    if isinstance(getattr(text, "mlp_only_layers", None), list):
        text.mlp_only_layers = []
    for key in ("decoder_sparse_step", "encoder_sparse_step"):
        if isinstance(getattr(text, key, None), int):
            setattr(text, key, 1)


def _until_all_kinds(values: list[object] | tuple[object, ...]) -> int:
    """How many of the first values have all kinds of them."""
    names = [str(value) for value in values]
    return max(names.index(name) for name in names) + 1


def _cut_token_ids(config: PreTrainedConfig, vocab_size: int) -> None:
    """Special tokens must be ids of the vocabulary."""
    for key, value in list(vars(config).items()):
        if not key.endswith(("_token_id", "_token_index")):
            continue
        if isinstance(value, int):
            setattr(config, key, min(value, vocab_size - 1))
        elif isinstance(value, list):
            setattr(config, key, [min(each, vocab_size - 1) for each in value])
