"""Tokenizers: a new tokenizer for a student, and targets for a student whose tokenizer is not the teacher's.

In: examples, or a store and two tokenizers. Out: a byte-level BPE tokenizer (`bpe.learn_tokenizer`), or the store's
examples with targets over the student's tokens (`cross_tokenizer_store.CrossTokenizerStore`).
`alignment` states the rules and aligns one example; `teacher_turn` computes the distribution of the student's next
token at any byte of the teacher's text; `target_rows` builds sparse rows from it; `vocabulary_map` compares two
vocabularies by their bytes; `settings` reads the [tokenizer] table of a job file.
Knows nothing of losses, models or training. To use another teacher or student: any fast tokenizer whose tokens have
bytes (byte-level BPE, sentence pieces) works; `vocabulary_map.map_vocabularies` raises InputError for others.
"""

from student.tokenizers.settings import TokenizerSettings

__all__ = ["TokenizerSettings"]
