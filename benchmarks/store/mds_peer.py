"""MDS shards of mosaicml-streaming, written and read by a Python of their own: benchmarks/store_peers.py starts this.

Standalone: imports numpy and streaming, nothing of this project. Prints one JSON line: bytes of the shards, CPU seconds
of writing, and tokens a CPU second of each repeat, of documents in random order and of windows.
"""

import argparse
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

# streaming imports its data sets of images with itself, and so torchvision, which must match torch to the build.
sys.modules["streaming.vision"] = types.ModuleType("streaming.vision")

from streaming import MDSWriter, StreamingDataset  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("npz", help="ids uint32 [N, k], logprobs float16 [N, k], offsets [documents + 1]")
    parser.add_argument("out", type=Path, help="folder of the shards")
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("--window", type=int, required=True)
    options = parser.parse_args()
    with np.load(options.npz, allow_pickle=False) as archive:
        ids, logprobs, offsets = archive["ids"], archive["logprobs"], archive["offsets"]
    started = time.process_time()
    columns = {"ids": "bytes", "logprobs": "bytes"}  # the leanest of its encodings: the reader views the bytes
    with MDSWriter(columns=columns, out=str(options.out), compression="zstd") as writer:
        for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            writer.write({"ids": ids[start:stop].tobytes(), "logprobs": logprobs[start:stop].tobytes()})
    seconds = time.process_time() - started
    # Before reading: at the first touch of a shard the library unpacks it beside the compressed one, and keeps both.
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    dataset = StreamingDataset(local=str(options.out), batch_size=1, shuffle=False)
    random_rates, windowed_rates = read_rates(dataset, ids.shape[1], np.diff(offsets), options)
    print(json.dumps({"bytes": size, "write_seconds": seconds, "random": random_rates, "windowed": windowed_rates}))


def read_document(dataset: Any, document: int, k: int) -> tuple[Any, Any]:
    """Ids and log-probabilities, [tokens, k] each."""
    sample = dataset[document]
    ids = np.frombuffer(sample["ids"], np.uint32).reshape(-1, k)
    return ids, np.frombuffer(sample["logprobs"], np.float16).reshape(-1, k)


def read_rates(dataset: Any, k: int, lengths: Any, options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """As benchmarks.store.read_rates: the same orders of the same documents."""
    rng = np.random.default_rng(1)
    documents, share, window = len(lengths), options.share, options.window
    random_rates, windowed_rates = [], []
    for _ in range(options.repeats + 1):
        order = rng.permutation(documents)[: max(1, int(documents * share))].tolist()
        started = time.process_time()
        for document in order:
            read_document(dataset, document, k)
        random_rates.append(float(lengths[order].sum() / (time.process_time() - started)))
        starts = rng.permutation(range(0, documents, window))
        windows = [rng.permutation(range(s, min(s + window, documents))).tolist() for s in starts]
        windows = windows[: max(1, int(len(windows) * share))]
        started = time.process_time()
        for window in windows:
            _ = [read_document(dataset, document, k) for document in window]
        windowed_rates.append(float(sum(lengths[w].sum() for w in windows) / (time.process_time() - started)))
    return random_rates[1:], windowed_rates[1:]  # the first round warms up


if __name__ == "__main__":
    main()
