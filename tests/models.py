"""A tiny model with a tokenizer of its own, made once a session, and molecules for the task of the demo."""

from pathlib import Path

import pytest

from cache.examples.example import Example

SMALL_MOLECULES = [
    *("CCO", "CCN", "CCCO", "CCCN", "CCCC", "CCCCO", "CCCCN", "OCCO", "NCCN", "OCCCO"),
    *("c1ccccc1", "c1ccccc1O", "c1ccccc1N", "c1ccccc1C", "Cc1ccccc1O"),
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a learned tokenizer, saved in Hugging Face form."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from student.tokenizers.bpe import learn_tokenizer, save_tokenizer

    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "red",
        "green",
        "blue",
        "left",
        "right",
        "up",
        "down",
    ]
    examples = [
        Example(str(i), ({"role": "user", "content": f"say {a} {b}"},), response=f"{a} and {b}")
        for i, (a, b) in enumerate((a, b) for a in words for b in words)
    ]
    tokenizer = learn_tokenizer(examples, 320)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 5,  # wider than the tokenizer, as many published models are
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=128,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    folder = tmp_path_factory.mktemp("model") / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder
