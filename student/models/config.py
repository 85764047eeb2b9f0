"""The configuration of a student: of a new one, from [model.config] and its tokenizer, or changed by [model.options].

Names that the model type does not have are refused. Special tokens come from the tokenizer: the defaults of a
configuration class are ids in the vocabulary of the model that the class was made for.
"""

import dataclasses
import difflib
import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cache.errors import InputError
from student.models.registry import STUDENT_KINDS, kind_of, make_config

# Special tokens that any language model may have, by the tokenizer's attribute.
TOKEN_IDS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "pad_token_id",
    "sep_token_id": "sep_token_id",
    "cls_token_id": "cls_token_id",
    "mask_token_id": "mask_token_id",
    "unk_token_id": "unk_token_id",
    "forced_eos_token_id": "eos_token_id",
}
# Keys that every configuration reads, beside the fields of its class.
COMMON = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "num_labels", "tie_word_embeddings"),
    *("attn_implementation", "experts_implementation", "name_or_path", "_name_or_path", "torch_dtype"),
)
# Keys that the weights or another key of the job determine, by the common name of Transformers.
DECIDED = MappingProxyType(
    {
        "model_type": "the weights are of one type",
        "architectures": "the weights are of one type",
        "vocab_size": "the weights and the targets determine it",
        "tie_word_embeddings": "the weights determine it",
        "is_encoder_decoder": "the weights are of one type",
        "num_hidden_layers": "use model.layers",
        "num_layers": "use model.layers",
        "num_decoder_layers": "use model.layers",
        "decoder_layers": "use model.layers",
        "encoder_layers": "use model.layers",
        "dtype": "use run.precision",
        "torch_dtype": "use run.precision",
        "quantization_config": "use model.lora.quantise",
        "attn_implementation": "use model.attn_implementation",
        "use_cache": "training has no cache, and generation needs one",
    }
)
# Earlier and present names of the parameters of rotary positions, which are one table now.
ROPE, ROPE_BEFORE = "rope_parameters", "rope_scaling"
# Keys from which a configuration derives the kind of attention of each layer.
OF_LAYER_TYPES = ("sliding_window", "use_sliding_window", "max_window_layers", "sliding_window_pattern")
SHOWN_NAMES = 3


def new_config(
    fields: Mapping[str, Any], vocab_size: int, tokenizer: PreTrainedTokenizerBase, classes: Sequence[str] = ()
) -> PreTrainedConfig:
    """The configuration that [model.config] describes, complete for this tokenizer.

    Raises InputError for a key that the model type does not have or that has no effect, for a special token that is
    no id of the vocabulary, and for one that is needed and that neither the table nor the tokenizer has.
    """
    model_type = str(fields["model_type"])
    given = {name: value for name, value in fields.items() if name != "model_type"}
    own = {"id2label": dict(enumerate(classes))} if classes else {}
    config = _make(model_type, {"vocab_size": vocab_size, **given, **own})
    _require_known_keys(model_type, given, config)
    kind = kind_of(config)
    if bool(classes) != kind.needs_classes:
        classifiers = ", ".join(each.name for each in STUDENT_KINDS if each.needs_classes)
        raise InputError(
            f"model.config.model_type = {model_type!r} is of the kind {kind.name}; a student of the kind "
            f"{classifiers} needs [classes], and no other student has them"
        )
    if type(config) not in getattr(kind.auto_class(), "_model_mapping", {type(config): None}):
        raise InputError(
            f"model.config.model_type = {model_type!r}: Transformers has no model of this type that can be a student "
            f"({kind.auto_class().__name__} does not build it); choose another, such as 'llama' or 't5'"
        )
    for name, reason in kind.unused_keys(given).items():
        raise InputError(f"model.config.{name} has no effect: {reason}")
    _set_special_tokens(config, given, tokenizer)
    return config


def change_config(config: PreTrainedConfig, options: Mapping[str, Any], name: str) -> PreTrainedConfig:
    """The configuration of a saved model with other values. name: of the model, for messages.

    Options of a model with several parts are those of the part that reads text. A table is added to the one that the
    configuration has, but that other kinds of rotary positions keep nothing of the old kind except rope_theta.
    Raises InputError for a key that the job decides elsewhere, one that the configuration does not have, one without an
    effect, and a value that it refuses.
    """
    options = deepcopy(dict(options))  # Transformers completes the tables that it gets
    text = config.get_text_config()
    aliases = {alias: common for common, alias in text.attribute_map.items()}
    for key in options:
        if reason := DECIDED.get(key) or DECIDED.get(aliases.get(key, "")):
            raise InputError(f"model.options.{key}: {reason}; leave it out")
    wanted = _with_rope(text, options)
    before = text.to_dict()
    if any(key in options for key in OF_LAYER_TYPES) and "layer_types" not in options:
        before.pop("layer_types", None)
    try:
        whole = {**before, **wanted}
        part = next((key for key, each in vars(config).items() if each is text), None)
        changed = type(config).from_dict(whole if part is None else {**config.to_dict(), part: whole})
    except Exception as error:  # the code of a configuration may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"model.options: the configuration of {name!r} refuses them: {reason}") from error
    result = changed.get_text_config()
    named = {key: each for key, each in options.items() if key != "rope_theta"}
    _require_known_keys(text.model_type, named, result, table="model.options")
    for key, value in wanted.items():
        found = getattr(result, key, None)
        is_there = all(found.get(k) == v for k, v in value.items()) if isinstance(found, dict) else found == value
        if not is_there:
            raise InputError(f"model.options.{key} = {value!r}: has no effect on {name!r}, which has {found!r} then")
    return changed


def _with_rope(text: PreTrainedConfig, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those of rotary positions as one table, as a configuration has them. text: what there is."""
    wanted = {key: value for key, value in options.items() if key not in (ROPE, ROPE_BEFORE, "rope_theta")}
    given = options.get(ROPE, options.get(ROPE_BEFORE))
    old = getattr(text, ROPE, None)
    if given is None and "rope_theta" not in options:
        return wanted
    if not isinstance(old, dict) or not isinstance(given, dict | None):
        return dict(options)
    given = dict(given or {})
    if any(isinstance(each, dict) for each in old.values()):  # a table for each kind of layer
        if "rope_theta" in options or not all(isinstance(each, dict) for each in given.values()):
            raise InputError(f"model.options.{ROPE}: this model has a table for each of {', '.join(old)}; name them")
        return {**wanted, ROPE: {**old, **{key: _rope(old.get(key, {}), each) for key, each in given.items()}}}
    if "rope_theta" in options:
        given.setdefault("rope_theta", options["rope_theta"])
    return {**wanted, ROPE: _rope(old, given)}


def _rope(old: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("rope_theta", "partial_rotary_factor")
    return {**{key: value for key, value in old.items() if "rope_type" not in given or key in kept}, **given}


def _make(model_type: str, fields: dict[str, Any]) -> PreTrainedConfig:
    try:
        return make_config(model_type, **fields)
    except Exception as error:  # the code of a model may raise anything
        if model_type not in (known := _model_types()):
            similar = _similar(model_type, known)
            raise InputError(f"model.config.model_type = {model_type!r} is unknown to Transformers{similar}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"model.config: {model_type!r} cannot be built from it: {reason}") from error


def _model_types() -> list[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return list(CONFIG_MAPPING.keys())


def _require_known_keys(
    model_type: str, given: Mapping[str, Any], config: PreTrainedConfig, path: str = "", table: str = "model.config"
) -> None:
    """Raise InputError for the first key that does nothing but become an attribute which no code reads.

    path: of the keys, within `table` of the job.
    """
    known = _known_keys(type(config))
    known |= _attributes(type(config), {name: value for name, value in given.items() if name in known})
    for name, value in given.items():
        if name not in known and not _changes_others(config, given, name) and not _is_read(config, name):
            raise InputError(
                f"{table}.{path}{name}: a configuration of model_type {model_type!r} has no such key"
                f"{_similar(name, known)}"
            )
        part = getattr(config, name, None)
        if isinstance(value, dict) and isinstance(part, PreTrainedConfig):
            inner = {key: each for key, each in value.items() if key != "model_type"}
            _require_known_keys(part.model_type or model_type, inner, part, f"{path}{name}.", table)


def _known_keys(config_class: type[PreTrainedConfig]) -> set[str]:
    parameters = {name for base in config_class.__mro__ if base is not object for name in _parameters(base)}
    fields = (
        {field.name for field in dataclasses.fields(config_class)} if dataclasses.is_dataclass(config_class) else set()
    )
    names = {name for name in parameters | fields if not name.startswith("_")}
    return names | set(config_class.attribute_map) | set(COMMON)


def _attributes(config_class: type[PreTrainedConfig], fields: Mapping[str, Any]) -> set[str]:
    """Attributes that a configuration derives from others, as a saved config.json has them."""
    try:
        return set(config_class(**fields).to_dict())
    except Exception:  # some classes cannot be built without the rest
        return set()


def _parameters(base: type) -> list[str]:
    own = base.__dict__.get("__init__")
    if own is None:
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, each in inspect.signature(own).parameters.items() if each.kind in kinds and name != "self"]


def _changes_others(config: PreTrainedConfig, given: Mapping[str, Any], name: str) -> bool:
    """Whether a key changes anything but the attribute of its own name, such as rope_theta does."""
    try:
        without = type(config)(**{key: value for key, value in given.items() if key != name})
        full = type(config)(**given)
    except Exception:  # it cannot be built without the key, so the key matters
        return True
    ignored = (name, "transformers_version")
    before, after = ({k: v for k, v in each.to_dict().items() if k not in ignored} for each in (without, full))
    return before != after


def _is_read(config: PreTrainedConfig, name: str) -> bool:
    """Whether the code of the model reads the key, though its configuration class does not name it."""
    try:
        module = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
        source = inspect.getsource(module)
    except (ImportError, OSError, TypeError):
        return False
    return (
        re.search(rf"config\.{re.escape(name)}\b|\(\s*(?:self\.)?config,\s*[\"\']{re.escape(name)}[\"\']", source)
        is not None
    )


def _similar(name: str, names: Sequence[str] | set[str]) -> str:
    similar = difflib.get_close_matches(name, sorted(names), n=SHOWN_NAMES)
    return f"; did you mean {' or '.join(similar)}?" if similar else "; see the documentation of its configuration"


def _set_special_tokens(config: PreTrainedConfig, given: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Set every special token that the table leaves out, from the tokenizer, and check those that it has."""
    text = config.get_text_config(decoder=True)
    given = {name: value for name, value in given.items() if value is not None}
    for name in (*TOKEN_IDS, "decoder_start_token_id", "forced_bos_token_id"):
        if name in given:
            _require_id(name, given[name], int(text.vocab_size))
    for name, attribute in TOKEN_IDS.items():
        is_basic = name in ("bos_token_id", "eos_token_id", "pad_token_id")
        if name not in given and (is_basic or hasattr(config, name)):
            value = getattr(tokenizer, attribute, None)
            for each in {id(part): part for part in (config, text)}.values():
                setattr(each, name, value)
    if "forced_bos_token_id" not in given and hasattr(config, "forced_bos_token_id"):
        config.forced_bos_token_id = None
    if config.is_encoder_decoder and "decoder_start_token_id" not in given:
        start = config.pad_token_id if config.pad_token_id is not None else config.bos_token_id
        if start is None:
            raise InputError(
                "model.config.decoder_start_token_id: the tokenizer has neither a pad token nor a bos token, and the "
                f"decoder of a {config.model_type!r} needs a first token; give the id of one"
            )
        config.decoder_start_token_id = start


def _require_id(name: str, value: Any, vocab_size: int) -> None:
    values = value if isinstance(value, list) else [value]
    for each in values:
        if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each < vocab_size:
            raise InputError(
                f"model.config.{name} = {value!r}: must be an id of the student's vocabulary of {vocab_size}"
            )
