"""A small random Llama for benchmarks of speed: no model hub needed, and any vocabulary."""

from pathlib import Path


def random_teacher(folder: Path, vocab: int, hidden: int, layers: int = 4) -> Path:
    """Save one of width `hidden`, with a tokenizer, and return its folder."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        num_key_value_heads=max(1, hidden // 64),
        intermediate_size=3 * hidden,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        # Flat logits would make every token as likely as the others; trained teachers are not so.
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(vocab)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token="w2").save_pretrained(folder)
    return folder
