"""Rows of a trained teacher for benchmarks.store: its k largest log-probabilities over texts, as .npz.

Holds ids and logprobs [N, K], tokens and token_logprobs [N], doc_offsets. Documents of several files are mixed, as in a
capture of one file that has them all.

    python -m benchmarks.store.teacher_rows runs/demo/teacher/model runs/demo/examples/heldout.jsonl --output rows.npz
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache.examples.files.jsonl import read_examples
from cache.examples.tokenizers import load_tokenizer
from cache.rendering.render import render

LONGEST = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder or hub name")
    parser.add_argument("examples", type=Path, nargs="+", help="JSON Lines of examples, or of objects with a 'text'")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--k", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=40_000, help="rows of each file (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval().to(options.device)
    tokenizer = load_tokenizer(options.model)
    rows = [
        document
        for path in options.examples
        for document in rows_of_file(model, documents(path, tokenizer), options.k, options.tokens, options.device)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    columns = {name: np.concatenate([rows[i][name] for i in order]) for name in rows[0]}
    offsets = np.cumsum([0, *(len(rows[i]["tokens"]) for i in order)])
    np.savez(options.output, doc_offsets=offsets, vocab=model.config.vocab_size, **columns)
    mean = columns["token_logprobs"].mean()
    print(f"{offsets[-1]:,} rows, vocabulary {model.config.vocab_size:,}, mean log p {mean:.3f}")


def rows_of_file(
    model: Any, sequences: Iterator[tuple[npt.NDArray[np.int64], int]], k: int, most: int, device: str
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The rows of each document, up to `most` rows together."""
    count = 0
    with torch.inference_mode():
        for sequence, first in sequences:
            tokens = torch.from_numpy(sequence[:LONGEST]).to(device)
            hidden = model.get_decoder()(tokens[None]).last_hidden_state[0, first:-1]
            if not len(hidden):
                continue
            log_p = torch.log_softmax(model.get_output_embeddings()(hidden).float(), dim=-1)
            values, ids = log_p.topk(min(k, log_p.shape[1]))
            yield {
                "ids": ids.cpu().numpy().astype(np.uint32),
                "logprobs": values.cpu().numpy(),
                "tokens": tokens[first:-1].cpu().numpy().astype(np.uint32),
                "token_logprobs": log_p.gather(1, tokens[first + 1 :, None])[:, 0].cpu().numpy(),
            }
            count += len(ids)
            if count >= most:
                return


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
