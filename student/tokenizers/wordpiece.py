"""Learn a WordPiece tokenizer from texts, for classifiers with few parameters. It cannot write text back."""

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL_TOKENS = {"pad_token": "<|pad|>", "sep_token": "<|sep|>", "unk_token": "<|unknown|>"}


def learn_wordpiece(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Learn at most `vocab_size` ids: words and parts of words, in lower case, split at spaces and punctuation.

    A word with a character that no text has is one unknown token. Unlike a byte-level BPE it has no id for each byte:
    with a few hundred ids, nearly all of them are words. The result is deterministic.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)
