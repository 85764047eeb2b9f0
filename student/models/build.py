"""Build a student: pretrained or from a configuration, optionally with adapters, always without dropout."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from cache.errors import InputError
from cache.examples.tokenizers import one_line
from student.models import quantised
from student.models.config import change_config, new_config
from student.models.generation_settings import complete_generation_config
from student.models.layer_selection import keep_layers
from student.models.model_parts import logits_width, require_known_head
from student.models.registry import kind_of, read_config
from student.models.settings import LoraSettings, ModelSettings


def build_model(
    settings: ModelSettings,
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    classes: Sequence[str] = (),
    test_head: bool = True,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """Build the student, with at least `vocab_size` logits or with one for each of `classes`.

    Without dropout: its random draws would differ after a restart. Its generation ends at every token that ends an
    answer (student.models.generation_settings). test_head: whether a forward pass tests how the
    model computes its logits. dtype: that the run computes in. Weights that are stored in it keep it, all others are
    float32. Raises InputError if the model cannot have so many logits, or fails this test.
    """
    return _build(settings, vocab_size, tokenizer, seed, classes, test_head, dtype)


def build_structure(
    settings: ModelSettings,
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    classes: Sequence[str] = (),
) -> PreTrainedModel | None:
    """The model that build_model returns, but on the meta device: names and shapes without values.

    No weights are read, so files of weights are not checked. Weights that the configuration ties are one. None if the
    code of the model needs values. Raises InputError as build_model does.
    """
    try:
        with init_empty_weights(include_buffers=True):
            model = _build(settings, vocab_size, tokenizer, seed, classes, test_head=False, dtype=None)
        model.tie_weights()  # within that context, each name of a shared weight gets a parameter of its own
    except InputError:
        raise
    except Exception:  # the code of a model may raise anything
        return None
    return model


def _build(
    settings: ModelSettings,
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    classes: Sequence[str],
    test_head: bool,
    dtype: torch.dtype | None,
) -> PreTrainedModel:
    """As build_model. dtype: None for a structure without weights."""
    if settings.pretrained is not None:
        model = (
            _pretrained_classifier(settings, tokenizer, seed, classes, dtype)
            if classes
            else _pretrained(settings, vocab_size, tokenizer, seed, dtype)
        )
        name = settings.pretrained
    else:
        model = _from_config(dict(settings.config or {}), vocab_size, tokenizer, seed, classes)
        name = model.config.model_type
    _refuse_router_loss(model.config, name)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config, _ = complete_generation_config(model.generation_config, tokenizer)
    model.eval()
    if test_head and not kind_of(model.config).needs_classes:  # a classifier has no sequence of token ids to test
        require_working_head(model, name)
    if settings.lora is not None:
        torch.manual_seed(seed)
        model = add_adapters(model, settings.lora, name)
    if settings.gradient_checkpointing:
        _checkpoint_activations(model, name)
    return model


def require_working_head(model: PreTrainedModel, name: str) -> None:
    """Raise InputError unless a forward pass works, and the logits are the known function of hidden states and head.

    name: of the model, for messages.
    """
    try:
        require_known_head(model, name)
    except InputError:
        raise
    except Exception as error:  # the code of a model may raise anything
        raise InputError(
            f"model {name!r} of type {model.config.model_type!r}: its forward pass fails ({_reason(error)}); "
            "check model.config, or use another model"
        ) from error


def load_student(path: str, vocab_size: int, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a model to evaluate, in float32. Raises InputError if it has fewer logits than `vocab_size`."""
    model = _load(ModelSettings(pretrained=path, trust_remote_code=trust_remote_code), torch.float32)
    if logits_width(model) < vocab_size:
        raise InputError(
            f"model {path!r} has {logits_width(model)} logits, but the store's vocabulary {vocab_size} ids; "
            "give a student that was trained from this store"
        )
    require_working_head(model.eval(), path)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def add_adapters(model: PreTrainedModel, settings: LoraSettings, name: str) -> PreTrainedModel:
    """Add low-rank adapters to the model, in place, and freeze all other parameters. Returns the same model.

    Raises InputError if a target module does not exist, or its adapter cannot be merged in the end.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = settings.target_modules
    modules = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=modules,
        lora_dropout=0.0,
        use_dora=settings.dora,
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise InputError(f"model.lora.target_modules = {targets!r}: {name!r} has no such modules ({error})") from error
    for module_name, module in model.named_modules():
        if reason := _unmergeable(model, module):
            raise InputError(f"model.lora.target_modules = {targets!r}: {module_name} of {name!r} {reason}")
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in parameter_name)
    return model


def _unmergeable(model: PreTrainedModel, module: nn.Module) -> str:
    """Why the adapter of a module cannot be merged into its weight; empty if it can, or if there is no adapter."""
    from peft.tuners.lora import LoraLayer

    if not isinstance(module, LoraLayer):
        return ""
    base = module.get_base_layer()
    if not isinstance(base, nn.Linear | Conv1D):
        return f"is a {type(base).__name__}, whose adapters cannot be merged; choose linear layers"
    embedding = model.get_input_embeddings()
    if module is model.get_output_embeddings() and base.weight is getattr(embedding, "weight", None):
        return "shares its weight with the embeddings, and an adapter would change only one of them; leave it out"
    return ""


def _pretrained(
    settings: ModelSettings,
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    dtype: torch.dtype | None,
) -> PreTrainedModel:
    path = str(settings.pretrained)
    model = _load(settings, dtype)
    if settings.layers is not None:
        model = keep_layers(model, settings.layers, path)
    width = logits_width(model)
    if len(tokenizer) <= width < vocab_size:
        # Models of one family share a tokenizer and pad their vocabularies to different widths.
        torch.manual_seed(seed)  # of what the new rows begin with
        model.resize_token_embeddings(vocab_size, mean_resizing=dtype is not None)
        width = vocab_size
    if width < vocab_size:
        raise InputError(
            f"model {path!r} has {width} logits, the targets need {vocab_size}; a student must share the teacher's "
            'vocabulary, or learn with data.align = "cross_tokenizer"'
        )
    return model


def _pretrained_classifier(
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    classes: Sequence[str],
    dtype: torch.dtype | None,
) -> PreTrainedModel:
    """A pretrained encoder with a head for the classes. A new head has random weights of this seed."""
    torch.manual_seed(seed)
    path = str(settings.pretrained)
    model = _load(settings, dtype, classes)
    if settings.layers is not None:
        model = keep_layers(model, settings.layers, path)
    if len(tokenizer) > (rows := model.get_input_embeddings().num_embeddings):
        raise InputError(f"model {path!r} has {rows:,} embeddings, its tokenizer {len(tokenizer):,} ids; give its own")
    return model


def _load(settings: ModelSettings, dtype: torch.dtype | None, classes: Sequence[str] = ()) -> PreTrainedModel:
    """The model of `settings.pretrained`, with its options. dtype, classes: as in build_model; no dtype, no weights."""
    path, options, trust_remote_code = str(settings.pretrained), settings.options, settings.trust_remote_code
    in_4_bits = dtype is not None and not classes and settings.lora is not None and settings.lora.quantise is not None
    how = quantised.loading_options() if in_4_bits else {}
    try:
        config = read_config(path, trust_remote_code)
        if options:
            config = change_config(config, options, path)
        if classes:
            _set_classes(config, path, classes)
        _remove_noise(config)
        auto_class = kind_of(config).auto_class()
        model: PreTrainedModel
        if dtype is None:
            model = auto_class.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
            return model
        dtype = torch.float32 if in_4_bits or _stored_dtype(config) is not dtype else dtype
        loading = {"config": config, "dtype": dtype, "trust_remote_code": trust_remote_code, **how}
        model, info = auto_class.from_pretrained(path, output_loading_info=True, **loading)
    except InputError:
        raise
    except Exception as error:  # damaged files, weights of other shapes, and whatever the code of a model raises
        reason = one_line(error)
        if "trust_remote_code" in str(error):
            reason = "contains Python code of its own, which is not run; set trust_remote_code = true, if you trust it"
        raise InputError(f"model {path!r}: cannot be loaded: {reason}") from error
    if options and (strange := sorted(info["missing_keys"]) + sorted(info["unexpected_keys"])):
        raise InputError(f"model.options: {path!r} has other weights than a model with them; the first is {strange[0]}")
    if in_4_bits:
        quantised.finish_loading(model, path)
    return model


def _stored_dtype(config: PreTrainedConfig) -> torch.dtype | None:
    """That of saved weights, as their configuration names it."""
    stored = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    return getattr(torch, stored, None) if isinstance(stored, str) else stored


def _set_classes(config: PreTrainedConfig, path: str, classes: Sequence[str]) -> None:
    if not kind_of(config).needs_classes:
        raise InputError(
            f"model {path!r} of type {config.model_type!r} is a language model, and [classes] needs a classifier or an "
            "encoder such as BERT; leave out [classes], or give another model"
        )
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: i for i, name in enumerate(classes)}


def _from_config(
    fields: dict[str, Any],
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    classes: Sequence[str],
) -> PreTrainedModel:
    config = new_config(fields, vocab_size, tokenizer, classes)
    _remove_noise(config)
    torch.manual_seed(seed)
    try:
        model: PreTrainedModel = kind_of(config).auto_class().from_config(config, dtype=torch.float32)
    except Exception as error:  # the code of a model may raise anything
        raise InputError(f"model.config: {config.model_type!r} cannot be built from it: {_reason(error)}") from error
    _learn_shared_padding(model)
    return model


def _learn_shared_padding(model: PreTrainedModel) -> None:
    """Give the embedding of a padding token that also has a meaning, such as eos, a start value and a gradient.

    Embeddings of padding are zero and are never learned. Many chat models pad with the token that ends a turn.
    """
    config = model.config
    if config.pad_token_id is None or config.pad_token_id not in (config.bos_token_id, config.eos_token_id):
        return
    std = getattr(config, "initializer_range", None) or getattr(config, "init_std", None) or 0.02
    width = model.get_input_embeddings().num_embeddings
    for module in model.modules():
        if not isinstance(module, nn.Embedding) or module.num_embeddings != width:
            continue
        if module.padding_idx == config.pad_token_id:
            module.padding_idx = None
            with torch.no_grad():
                module.weight[config.pad_token_id].normal_(0.0, std)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _remove_noise(config: PreTrainedConfig) -> None:
    """Set every dropout probability, and the jitter of routers, to 0, by the names that Transformers uses."""
    text_config = config.get_text_config()
    for name, value in vars(text_config).items():
        if ("drop" in name or "jitter" in name) and isinstance(value, float):
            setattr(text_config, name, 0.0)


def _refuse_router_loss(config: PreTrainedConfig, name: str) -> None:
    """Raise InputError for a mixture of experts that shall be trained with a router loss, which this project has not.

    That loss is a product of means over all tokens of a batch, so it is no sum over rows, micro-batches and ranks.
    """
    if getattr(config.get_text_config(), "output_router_logits", False):
        raise InputError(
            f"model {name!r} of type {config.model_type!r}: output_router_logits = true asks for the loss that "
            "balances experts, and students are trained without it; set output_router_logits to false in the model's "
            "configuration, or use a model without experts"
        )


def router_note(config: PreTrainedConfig) -> str:
    """What to know of a student that is a mixture of experts; empty for any other."""
    coefficient = getattr(config.get_text_config(), "router_aux_loss_coef", None)
    if not coefficient:
        return ""
    return f"a mixture of experts, trained without a router loss: router_aux_loss_coef = {coefficient} has no effect"


def _checkpoint_activations(model: PreTrainedModel, name: str) -> None:
    try:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise InputError(f"model.gradient_checkpointing: {name!r} does not support it ({error})") from error
    # It works only in training mode, which has no other effect on a model without dropout.
    model.train()
