"""What a student inherits of a base model's generation settings, and which tokens end its answers."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from cache.rendering.end_of_turn import end_of_turn
from student.models.build import build_model
from student.models.generation_settings import stop_ids, without_contradictions
from student.models.settings import ModelSettings
from student.tokenizers.bpe import learn_tokenizer
from tests.student.training.ranks import LLAMA, make_pretrained

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "fields, left_out",
    [
        ({"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1}, {"temperature", "top_p", "top_k", "min_p"}),
        ({"typical_p": 0.5, "epsilon_cutoff": 1e-3, "eta_cutoff": 1e-3}, {"typical_p", "epsilon_cutoff", "eta_cutoff"}),
        ({"temperature": 0.6, "do_sample": False, "repetition_penalty": 1.1}, {"temperature"}),
        ({"early_stopping": True, "length_penalty": 2.0}, {"early_stopping", "length_penalty"}),
        ({"num_return_sequences": 3}, {"num_return_sequences"}),
        ({"num_return_sequences": 3, "num_beams": 2}, {"num_return_sequences"}),
        ({"output_scores": True}, {"output_scores"}),
        ({"pad_token_id": -1}, {"pad_token_id"}),
        ({"use_cache": False, "cache_implementation": "static"}, {"cache_implementation"}),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, set()),
        ({"num_beams": 4, "early_stopping": True}, set()),
        ({"eos_token_id": [3, 5], "bos_token_id": 1}, set()),
    ],
)
def test_settings_without_effect_are_left_out(fields: dict[str, Any], left_out: set[str], tmp_path: Path) -> None:
    """Would catch a student that cannot be saved at the end of its training, and settings that are lost with others."""
    config = GenerationConfig()
    for name, value in fields.items():
        setattr(config, name, value)
    clean, names = without_contradictions(config)
    assert {name.partition(" ")[0] for name in names} == left_out
    clean.save_pretrained(tmp_path)
    again = GenerationConfig.from_pretrained(tmp_path)
    for name, value in fields.items():
        assert (getattr(again, name) == value) == (name not in left_out), name
    if left_out:
        with pytest.raises(ValueError, match=r"invalid|has to be|do not support"):
            config.save_pretrained(tmp_path)


def test_answers_end_at_every_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """The model's own, the tokenizer's and that of a turn; each once. Would catch a chat student that never stops."""
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])  # not called special
    tokenizer.chat_template = CHATML
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_of_turn(tokenizer) == turn
    eos = tokenizer.eos_token_id
    assert stop_ids(GenerationConfig(eos_token_id=[7, eos]), tokenizer) == [7, eos, turn]
    assert stop_ids(GenerationConfig(eos_token_id=turn), tokenizer) == [turn, eos]
    assert stop_ids(None, tokenizer) == [eos, turn]


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}",
        "{{ raise_exception('system first') }}",
        "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}",
    ],
)
def test_ordinary_text_ends_no_turn(template: str | None, tokenizer: PreTrainedTokenizerBase) -> None:
    """Would catch a line break that ends every answer."""
    tokenizer.chat_template = template
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id


def test_a_learned_tokenizer_ends_turns_with_its_eos() -> None:
    tokenizer = learn_tokenizer([], 300)
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_student_has_them(
    pretrained: bool, tokenizer: PreTrainedTokenizerBase, tiny_model: Path, tmp_path: Path
) -> None:
    """As it is built, so as it is saved. A base model's contradictions are gone, its own end token stays."""
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHATML
    settings = ModelSettings(config=LLAMA)
    if pretrained:
        base = make_pretrained(tmp_path / "base", tiny_model)
        (base / "generation_config.json").write_text('{"temperature": 0.6, "eos_token_id": 9}')
        settings = ModelSettings(pretrained=str(base))
    model = build_model(settings, len(tokenizer), tokenizer, 0)
    ends = [*([9] if pretrained else []), tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert model.generation_config.eos_token_id == ends
    model.generation_config.save_pretrained(tmp_path / "saved")
