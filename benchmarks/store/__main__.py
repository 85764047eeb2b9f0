"""How small is a store, how fast is it written and read, and how do other formats do on the same rows?

The limit of reading is a raw memory map of the same rows (ids and half-precision log-probabilities), copied out; the
limit of size is the zero-order entropy of ids plus the entropy of a gap given its rank. Documents are read one by one
in random order; in windows, runs of neighbours that are shuffled inside; and in the order of training, blocks of
neighbours from all over the store. Records are read one after the other, with their texts. Seconds are CPU seconds of
one process, median of --repeats; files are in the page cache. Bytes, of whole parts, and the rate of writing are those
of the units after the last codebook was learned.

    python -m benchmarks.store --k 64 --vocab 151936 --tokens 500000
    python -m benchmarks.store --npz rows.npz --peers zarr_python,parquet
    python -m benchmarks.store.table --rows runs/rows --save
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.harness import finish, spread
from benchmarks.common.rows import Rows, entropy_bytes, rows_from_npz, simulated_rows
from benchmarks.store.peer_protocol import Peer
from benchmarks.store.peers import PEERS, open_peer
from benchmarks.store.records import UNIT_TOKENS, WINDOW, as_records, unlearned, write_units
from cache.errors import InputError, LogitbankError
from cache.examples.example_order import Shuffle, default_window, examples_at
from cache.parts.layout import PROFILES
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.reading.blocks import token_blocks
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit

# Examples of a step, which decide how many blocks a window of the training order has.
TRAINING_BATCH = 64


@dataclass(frozen=True, slots=True)
class Measured:
    """One store or peer. Rates in tokens a CPU second; bytes a token, of all files."""

    bytes_per_token: float | None
    write: float | None
    random: dict[str, float]
    windowed: dict[str, float]
    training: dict[str, float] | None = None
    records: dict[str, float] | None = None
    kl: float | None = None
    max_abs_error: float | None = None


def main() -> None:
    options = parse(sys.argv[1:])
    try:
        rows = (
            rows_from_npz(options.npz, options.k, options.vocab)
            if options.npz
            else simulated_rows(options.tokens, options.k or 64, options.vocab or 151936)
        )
        run(rows.cut(options.document_tokens) if options.document_tokens else rows, options)
    except LogitbankError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        sys.exit(2)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, help="entries of a row (default 64, or all that a file has)")
    parser.add_argument("--vocab", type=int, help="vocabulary (default 151936, or what a file shows)")
    parser.add_argument("--tokens", type=int, default=500_000, help="simulated rows (default: %(default)s)")
    parser.add_argument("--npz", type=Path, help="rows of a teacher: ids [N, K], logprobs [N, K], optional doc_offsets")
    parser.add_argument("--document-tokens", type=int, help="cut the rows into documents of so many tokens")
    parser.add_argument("--step", type=float, default=TargetSpec().step)
    parser.add_argument("--tail-step", type=float, default=TargetSpec().tail_step)
    parser.add_argument("--profile", choices=PROFILES, default="compact", help="default: %(default)s")
    parser.add_argument("--peers", help=f"of {', '.join(PEERS)} (default: those that are installed)")
    parser.add_argument("--mds-python", help="Python of an environment that has mosaicml-streaming")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    options = parser.parse_args(arguments)
    for name in ("k", "vocab", "tokens", "document_tokens", "repeats"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return options


def run(rows: Rows, options: argparse.Namespace) -> None:
    n, k = rows.ids.shape
    targets = TargetSpec("topk", k, options.step, options.tail_step)
    id_entropy, gap_entropy = entropy_bytes(rows, targets)
    documents = len(rows.offsets) - 1
    print(f"{n:,} rows of {k} in {documents:,} documents, vocabulary {rows.vocab:,}")
    print(f"zero-order entropy {id_entropy + gap_entropy:.1f} B/token: ids {id_entropy:.1f}, gaps {gap_entropy:.1f}\n")
    titles = ("write", "random", "windowed", "training", "records")
    print(f"{'':<16}{'B/token':>9}{''.join(f'{t:>12}' for t in titles)}{'KL':>10}{'error':>8}", flush=True)
    with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
        store, ours = measure_store(rows, targets, Path(folder) / "store", options)
        show("logitbank", ours)
        measured = {"logitbank": ours}
        for name in chosen_peers(options):
            try:
                with open_peer(name, Path(folder) / name, rows, store, options) as peer:
                    measured[name] = measure_peer(peer, rows, options.repeats)
            except ImportError as error:
                print(f"{name:<16}not run: {error}", flush=True)
                continue
            show(name, measured[name])
        sizes = {name: size / n for name, size in store.bytes_by_array().items()}
        codebook = codebook_bytes(store)
    print("\nB/token by array: " + ", ".join(f"{name} {size:.2f}" for name, size in sizes.items() if size > 0.05))
    results = {
        "k": k,
        "vocab": rows.vocab,
        "tokens": n,
        "documents": documents,
        "profile": options.profile,
        "bytes_per_token": ours.bytes_per_token,
        "entropy_bytes_per_token": id_entropy + gap_entropy,
        "id_entropy_bytes_per_token": id_entropy,
        "codebook_bytes": codebook,
        "max_abs_error": ours.max_abs_error,
        "kl": ours.kl,
        "write_tokens_per_cpu_s": ours.write,
        "random_tokens_per_cpu_s": ours.random["median"],
        "windowed_tokens_per_cpu_s": ours.windowed["median"],
        "training_tokens_per_cpu_s": ours.training["median"] if ours.training else None,
        "records_tokens_per_cpu_s": ours.records["median"] if ours.records else None,
        "bytes_by_array": sizes,
        "measured": {name: asdict(each) for name, each in measured.items()},
    }
    for name, each in measured.items():
        if name != "logitbank":
            results[f"{name}_bytes_per_token"] = each.bytes_per_token
            results[f"{name}_random_tokens_per_cpu_s"] = each.random["median"]
            results[f"{name}_windowed_tokens_per_cpu_s"] = each.windowed["median"]
    finish("store", results, bool(options.save), options.save)


def measure_store(
    rows: Rows, targets: TargetSpec, folder: Path, options: argparse.Namespace
) -> tuple[LogitStore, Measured]:
    """Write the rows as a store, and read it."""
    storage = LocalStorage(folder)
    spec = StoreSpec("benchmark", "none", "none", "none", rows.vocab, rows.vocab, "float32", targets, None)
    create_store(storage, spec)
    records = as_records(rows)
    write_unit(LocalStorage(folder.with_name("warm")), spec, records[:1], options.profile)  # compiles the kernels
    unit_tokens = min(UNIT_TOKENS, -(-len(rows.ids) // 8))
    units = write_units(storage, spec, records, options.profile, unit_tokens)
    counted = unlearned(units)
    take_snapshot(storage)
    store = LogitStore.open(str(folder), expect=spec)
    info = store.info()
    positions = {store.key(i): i for i in range(len(store))}
    order = np.array([positions[record.key] for record in records])  # of documents, in the store
    random_rates, windowed_rates = read_rates(
        lambda documents: store.windows([(int(order[d]), 0, None) for d in documents]), rows, options.repeats
    )
    ours = Measured(
        sum(unit.bytes for unit in counted) / sum(unit.tokens for unit in counted),
        sum(unit.tokens for unit in counted) / sum(unit.seconds for unit in counted),
        random_rates,
        windowed_rates,
        rate(lambda: read_for_training(store), options.repeats),
        rate(lambda: sum(len(record.targets) for record in store), options.repeats),
        info.kl,
        info.max_abs_error,
    )
    return store, ours


def read_for_training(store: LogitStore) -> int:
    """Read an epoch in the order of training, as its reader requests it. Returns the number of tokens.

    This is reading alone; benchmarks.order measures all that training does with it.
    """
    n, position, tokens = len(store), 0, 0
    shuffle = Shuffle.of(store.tokens, default_window(TRAINING_BATCH))
    while position < n:
        end = min(shuffle.window_end(position, n), n)
        examples = np.sort(examples_at(position, end - position, n, 0, shuffle))
        for block in token_blocks(store.tokens[examples]):
            tokens += sum(map(len, store.read(examples[block.start : block.stop].tolist())))
        position = end
    return tokens


def rate(read: Callable[[], int], repeats: int) -> dict[str, float]:
    """Tokens a CPU second of a function that returns how many it has read; the first call warms up."""
    rates = []
    for _ in range(repeats + 1):
        started = time.process_time()
        tokens = read()
        rates.append(tokens / (time.process_time() - started))
    return spread(rates[1:])


def measure_peer(peer: Peer, rows: Rows, repeats: int) -> Measured:
    """Size and rates of a peer that has written its file already."""
    if peer.rates is not None:
        random_rates, windowed_rates = (spread(rates) for rates in peer.rates)
    else:
        random_rates, windowed_rates = read_rates(peer.read, rows, repeats, peer.share)
    size = peer.size / len(rows.ids) if peer.size is not None else None
    write = len(rows.ids) / peer.write_seconds if peer.write_seconds is not None else None
    kl, max_abs_error = peer.accuracy()
    return Measured(size, write, random_rates, windowed_rates, kl=kl, max_abs_error=max_abs_error)


def read_rates(
    read: Callable[[list[int]], Any], rows: Rows, repeats: int, share: float = 1.0
) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens a CPU second of reading documents one by one in random order, and window by window.

    share: part of the documents that is read, for readers too slow to read them all.
    """
    rng = np.random.default_rng(1)
    lengths = np.diff(rows.offsets)
    documents = len(lengths)
    random_rates, windowed_rates = [], []
    for _ in range(repeats + 1):
        order = rng.permutation(documents)[: max(1, int(documents * share))].tolist()
        started = time.process_time()
        for document in order:
            read([document])
        random_rates.append(lengths[order].sum() / (time.process_time() - started))
        starts = rng.permutation(range(0, documents, WINDOW))
        windows = [rng.permutation(range(s, min(s + WINDOW, documents))).tolist() for s in starts]
        windows = windows[: max(1, int(len(windows) * share))]
        started = time.process_time()
        for window in windows:
            read(window)
        windowed_rates.append(sum(lengths[w].sum() for w in windows) / (time.process_time() - started))
    return spread(random_rates[1:]), spread(windowed_rates[1:])  # the first round warms up


def chosen_peers(options: argparse.Namespace) -> list[str]:
    if options.peers is None:
        return list(PEERS)
    names = [name for name in options.peers.split(",") if name]
    if unknown := sorted(set(names) - set(PEERS)):
        raise InputError(f"--peers: unknown peer {unknown[0]!r}; choose from {', '.join(PEERS)}")
    return names


def codebook_bytes(store: LogitStore) -> int:
    """Bytes of the store's codebook on disk: once a store, whatever its size."""
    return sum(store.storage.size(name) or 0 for name in store.storage.walk("codebooks"))


def show(name: str, each: Measured) -> None:
    def cell(value: float | None, form: str, width: int) -> str:
        return f"{format(value, form) if value is not None else '':>{width}}"

    spreads = (each.random, each.windowed, each.training, each.records)
    rates = (each.write, *(each["median"] if each else None for each in spreads))
    line = cell(each.bytes_per_token, ".1f", 9) + "".join(cell(rate, ",.0f", 12) for rate in rates)
    print(f"{name:<16}{line}{cell(each.kl, '.1e', 10)}{cell(each.max_abs_error, '.3f', 8)}", flush=True)


if __name__ == "__main__":
    main()
