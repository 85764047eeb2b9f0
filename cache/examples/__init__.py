"""Examples: what a JSON Lines file contains, and what it becomes.

In: a JSON Lines file of prompts or chats. Out: Examples; TokenizedExample, whose key identifies it in a store, is made
by cache/rendering.

    files/            reads and writes files of Examples, in windows or whole
    example           Example, TokenizedExample, Segment (the role of a token)
    json_values       which values of an example can be stored
    truncation        examples that are longer than a limit
    tokenizers        load_tokenizer, and a digest to compare tokenizers; token_bytes: the bytes of each id
    example_order     which example comes when, in any number of epochs; mixture_order: of several sources
    permutation       the permutations behind both, computed where they are needed

It knows nothing of targets, files of a store, or models.
"""

from cache.examples.example import Example, Segment, TokenizedExample
from cache.examples.files.jsonl import read_examples, write_examples
from cache.examples.tokenizers import Tokenizer, load_tokenizer, tokenizer_digest
from cache.examples.truncation import truncate

__all__ = [
    "Example",
    "Segment",
    "TokenizedExample",
    "Tokenizer",
    "load_tokenizer",
    "read_examples",
    "tokenizer_digest",
    "truncate",
    "write_examples",
]
