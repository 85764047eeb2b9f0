"""Rows of a trained teacher for benchmarks.store: its k largest log-probabilities over held-out examples, as .npz.

Holds ids and logprobs [N, K], tokens and token_logprobs [N], doc_offsets, and prior [vocabulary, 1024]: what the
teacher expects after each single token.

    python -m benchmarks.store.teacher_rows runs/demo/teacher/model runs/demo/examples/heldout.jsonl rows.npz
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache.examples.jsonl import read_examples
from cache.examples.tokenizers import load_tokenizer
from cache.rendering.render import render

LONGEST = 512
PRIOR = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder or hub name")
    parser.add_argument("examples", type=Path, help="JSON Lines of examples, or of objects with a 'text'")
    parser.add_argument("output", type=Path)
    parser.add_argument("--k", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=40_000)
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(options.model)
    rows: dict[str, list[npt.NDArray[Any]]] = {"ids": [], "logprobs": [], "tokens": [], "token_logprobs": []}
    offsets = [0]
    with torch.inference_mode():
        for sequence, first in documents(options.examples, tokenizer):
            tokens = torch.from_numpy(sequence[:LONGEST])
            log_p = torch.log_softmax(model(tokens[None]).logits[0].float(), dim=-1)[first:-1]
            if not len(log_p):
                continue
            values, ids = log_p.topk(min(options.k, log_p.shape[1]))
            own = log_p.gather(1, tokens[first + 1 :, None])[:, 0]
            rows["ids"].append(ids.numpy().astype(np.uint32))
            rows["logprobs"].append(values.numpy())
            rows["tokens"].append(tokens[first:-1].numpy().astype(np.uint32))
            rows["token_logprobs"].append(own.numpy())
            offsets.append(offsets[-1] + len(ids))
            if offsets[-1] >= options.tokens:
                break
        vocab = model.config.vocab_size
        prior = [
            model(torch.arange(start, min(start + 256, vocab))[:, None]).logits[:, 0].topk(min(PRIOR, vocab)).indices
            for start in range(0, vocab, 256)
        ]
    columns = {name: np.concatenate(values) for name, values in rows.items()}
    table = torch.cat(prior).numpy().astype(np.uint32)
    np.savez(options.output, doc_offsets=np.array(offsets), prior=table, **columns)
    print(f"{offsets[-1]:,} rows, vocabulary {vocab:,}, mean log p {columns['token_logprobs'].mean():.3f}")


def documents(path: Path, tokenizer: Any) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """Token ids of each example, and the row of its first response token."""
    with path.open() as file:
        plain = "text" in json.loads(file.readline())
    if plain:
        for line in path.read_text().splitlines():
            yield np.array(tokenizer(json.loads(line)["text"])["input_ids"], np.int64), 0
        return
    for example in read_examples(path):
        rendered = render(example, tokenizer)
        yield rendered.tokens.astype(np.int64), max(rendered.prompt_length - 1, 0)


if __name__ == "__main__":
    main()
