"""Tokenizers: those that are learned for a student, and targets in the tokens of another tokenizer.

In: examples, or a store and two tokenizers. Out: a byte-level BPE (`bpe`), or the store's windows in the student's
tokens (`cross_tokenizer_store`). `alignment` states the rules and applies them; `teacher_span` computes what the
student's next token may be at any byte of the teacher's text; `vocabulary_map` compares vocabularies by their bytes.
Knows nothing of losses, models or training.
"""

from student.tokenizers.settings import TokenizerSettings

__all__ = ["TokenizerSettings"]
