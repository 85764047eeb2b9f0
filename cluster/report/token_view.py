"""One example of a store, token by token, for a terminal."""

import numpy as np

from cache.examples.example import Segment
from cache.examples.tokenizers import load_tokenizer
from cache.store.logit_store import LogitStore


def token_view(store: LogitStore, key: str, width: int = 5, tokenizer_name: str | None = None) -> str:
    """A line for each token: its segment, text and probability, and the teacher's `width` most probable tokens.

    key: the first digits of an example's key. tokenizer_name: folder or hub name, in place of the store's own
    tokenizer. Raises StoreError unless there is one such example, and InputError if there is no tokenizer.
    """
    record = store[store.find(key)]
    tokenizer = load_tokenizer(tokenizer_name, what="--tokenizer") if tokenizer_name else store.load_tokenizer()

    def text(token: int) -> str:
        return repr(tokenizer.decode([token]))

    tokens, segments, targets = record.tokenized.tokens, record.tokenized.segments, record.targets
    lines = [f"{record.key}  {record.tokenized.origin}  example {record.tokenized.example.id}"]
    for t, token in enumerate(tokens):
        line = f"{t:>5} {Segment(int(segments[t])).name.lower():<9} {text(int(token)):<16}"
        if t and targets.counts[t - 1]:
            row = targets.rows(t - 1, t)
            top = [
                f"{text(int(i))} {np.exp(p):.3f}" for i, p in zip(row.ids[:width], row.logprobs[:width], strict=True)
            ]
            line += f" p {np.exp(record.token_logprobs[t]):.3f}   {'  '.join(top)}  rest {np.exp(row.log_tail[0]):.3f}"
        lines.append(line)
    return "\n".join(lines)
