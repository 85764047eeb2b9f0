"""Build a student: pretrained or from a configuration, with adapters where asked, without dropout."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from cache.errors import InputError
from student.models.compact import MODEL_TYPE
from student.models.model_parts import logits_width, require_known_head
from student.models.settings import LoraSettings, ModelSettings


def build_model(
    settings: ModelSettings,
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    classes: Sequence[str] = (),
    test_head: bool = True,
) -> PreTrainedModel:
    """The student, in float32, with at least `vocab_size` logits or with those of `classes`.

    Without dropout: its draws would differ after a restart. Raises InputError where the model cannot have so many
    logits, or makes them in an unknown way. test_head: False leaves out that last test, a forward pass.
    """
    if settings.pretrained is not None:
        model = _pretrained(settings.pretrained, vocab_size, tokenizer)
        name = settings.pretrained
    else:
        model = _from_config(dict(settings.config or {}), vocab_size, tokenizer, seed, classes)
        name = model.config.model_type
    model.eval()
    if test_head and not classes:  # the head of a classifier is this project's own
        require_known_head(model, name)
    if settings.lora is not None:
        torch.manual_seed(seed)
        model = add_adapters(model, settings.lora, name)
    if settings.gradient_checkpointing:
        _checkpoint_activations(model, name)
    return model


def load_student(path: str, vocab_size: int) -> PreTrainedModel:
    """A model ready to evaluate, in float32. Raises InputError where it has fewer logits than `vocab_size`."""
    model = _load(path)
    if logits_width(model) < vocab_size:
        raise InputError(f"model {path!r} has {logits_width(model)} logits, the store {vocab_size}: another vocabulary")
    require_known_head(model.eval(), path)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def add_adapters(model: PreTrainedModel, settings: LoraSettings, name: str) -> PreTrainedModel:
    """The model with low-rank adapters in place and everything else frozen; it stays the model that it was."""
    from peft import LoraConfig, inject_adapter_in_model

    targets = settings.target_modules
    modules = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=modules, lora_dropout=0.0)
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
    """Why the adapter of a module could not be added to its weight in the end; empty where it can, or is none."""
    from peft.tuners.lora import LoraLayer

    if not isinstance(module, LoraLayer):
        return ""
    base = module.get_base_layer()
    if not isinstance(base, nn.Linear | Conv1D):
        return f"is a {type(base).__name__}, whose adapters are not merged; choose linear layers"
    embedding = model.get_input_embeddings()
    if module is model.get_output_embeddings() and base.weight is getattr(embedding, "weight", None):
        return "is tied to the embeddings, which an adapter of one of both would untie; leave it out"
    return ""


def _pretrained(path: str, vocab_size: int, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    model = _load(path)
    width = logits_width(model)
    if len(tokenizer) <= width < vocab_size:
        # Models of one family share a tokenizer and pad their vocabularies to different widths.
        model.resize_token_embeddings(vocab_size)
        width = vocab_size
    if width < vocab_size:
        raise InputError(
            f"model {path!r} has {width} logits, the targets need {vocab_size}; a student must share the teacher's "
            'vocabulary, or learn with data.align = "cross_tokenizer"'
        )
    return model


def _load(path: str) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(path)
        _without_dropout(config)
        model: PreTrainedModel = kind_of(config).from_pretrained(path, config=config, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model {path!r}: cannot be loaded: {error}") from error
    return model


def _from_config(
    fields: dict[str, Any],
    vocab_size: int,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    classes: Sequence[str],
) -> PreTrainedModel:
    model_type = fields.pop("model_type")
    if bool(classes) != (model_type == MODEL_TYPE):
        raise InputError(f"model.config.model_type = {model_type!r}: {MODEL_TYPE!r} and [classes] belong together")
    if classes:
        fields["id2label"] = dict(enumerate(classes))
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    try:
        config = AutoConfig.for_model(model_type, **{"vocab_size": vocab_size, **ids, **fields})
        if config.is_encoder_decoder and config.decoder_start_token_id is None:
            config.decoder_start_token_id = config.pad_token_id
        _without_dropout(config)
        torch.manual_seed(seed)
        model: PreTrainedModel = kind_of(config).from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"model.config: {model_type!r} cannot be built from it: {error}") from error
    return model


def kind_of(config: PreTrainedConfig) -> Any:
    """The auto class that builds and loads such a model."""
    if config.model_type == MODEL_TYPE:
        return AutoModelForSequenceClassification
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _without_dropout(config: PreTrainedConfig) -> None:
    """Every probability of dropping something, by the names that Transformers gives them."""
    own = config.get_text_config()
    for name, value in vars(own).items():
        if ("drop" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(own, name, 0.0)


def _checkpoint_activations(model: PreTrainedModel, name: str) -> None:
    try:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise InputError(f"model.gradient_checkpointing: {name!r} does not support it ({error})") from error
    # It only works in training mode, which changes nothing else in a model without dropout.
    model.train()
