"""Stores and results as text for a terminal."""

from typing import Any

import numpy as np

from cache.errors import InputError
from cache.examples.example import Segment
from cache.examples.tokenizers import load_tokenizer
from cache.store.logit_store import LogitStore


def example_rows(store: LogitStore, key: str, width: int = 5, tokenizer_name: str | None = None) -> str:
    """One example, token by token: what came next, and what the teacher expected.

    tokenizer_name: folder or hub name, if it is not with the teacher.
    """
    if tokenizer_name is None and store.spec.service:
        raise InputError(f"the teacher {store.spec.teacher!r} is a service's; give its tokenizer with --tokenizer")
    tokenizer = load_tokenizer(tokenizer_name or store.spec.teacher, what="the teacher's tokenizer")

    def text(token: int) -> str:
        return repr(tokenizer.decode([token]))

    record = store[store.find(key)]
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


def metrics_table(models: dict[str, dict[str, Any]]) -> str:
    """Models as columns, metrics as rows."""
    names = list(models)
    keys = [key for key in next(iter(models.values())) if key not in ("answers", "seconds", "rows")]
    lines = [f"{'':<24}" + "".join(f"{name:>12}" for name in names)]
    for key in keys:
        values = [models[name].get(key) for name in names]
        cells = [f"{number(value):>12}" for value in values]
        lines.append(f"{key:<24}" + "".join(cells))
    return "\n".join(lines)


def number(value: float | int | None) -> str:
    """A metric as people read it: counts whole, shares and nats to four places, tiny values by their order."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"
