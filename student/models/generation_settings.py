"""Settings of generation that a student inherits: without contradictions, and with every token that ends an answer."""

from copy import deepcopy
from typing import Any

from transformers import GenerationConfig

from cache.rendering.end_of_turn import end_of_turn

# Settings that decide which others have an effect. They are taken over first.
DECIDING = ("do_sample", "num_beams", "return_dict_in_generate", "use_cache")


def complete_generation_config(config: GenerationConfig, tokenizer: Any) -> tuple[GenerationConfig, list[str]]:
    """A copy that Transformers saves, whose end tokens are `stop_ids`; and the settings that were left out, in words.

    Transformers reads a configuration with contradictions, such as a temperature where nothing is sampled, and ignores
    what has no effect. But it refuses to save one.
    """
    complete, left_out = without_contradictions(config)
    if ids := stop_ids(config, tokenizer):
        complete.eos_token_id = ids if len(ids) > 1 else ids[0]
    return complete, left_out


def without_contradictions(config: GenerationConfig) -> tuple[GenerationConfig, list[str]]:
    """A copy without the settings that have no effect, or that contradict others; and those settings, in words."""
    if _is_valid(config):
        return deepcopy(config), []
    plain = GenerationConfig()
    names = [name for name in vars(config) if getattr(config, name) != getattr(plain, name, None)]
    left_out = []
    for name in sorted(names, key=lambda name: name not in DECIDING):
        before = getattr(plain, name, None)
        setattr(plain, name, deepcopy(getattr(config, name)))
        if not _is_valid(plain):
            setattr(plain, name, before)
            left_out.append(f"{name} = {getattr(config, name)!r}")
    return plain, left_out


def contradictions_of(path: str | None) -> list[str]:
    """The generation settings of a pretrained model that a student does not take over, in words."""
    if path is None:
        return []
    try:
        return without_contradictions(GenerationConfig.from_pretrained(path))[1]
    except (OSError, ValueError):  # it has none
        return []


def stop_ids(config: GenerationConfig | None, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the model's own, the tokenizer's, and that which ends a turn of its template."""
    own = getattr(config, "eos_token_id", None)
    ids = [*(own if isinstance(own, list | tuple) else [own]), tokenizer.eos_token_id, end_of_turn(tokenizer)]
    return list(dict.fromkeys(int(each) for each in ids if each is not None))


def _is_valid(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except (ValueError, TypeError):
        return False
    return True
