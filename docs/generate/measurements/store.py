"""The store beside other formats, and as it grows."""

from typing import Any

from docs.generate.measurements.results import origin, read, spread, table

FILES = {
    "store_smollm2_k64": "SmolLM2-135M-Instruct, three kinds of text",
    "store_smollm2_k128": "SmolLM2-135M-Instruct, three kinds of text",
    "store_stories_k64": "stories260K",
    "store_stories_k128": "stories260K",
    "store_demo_k64": "molecules (the demo)",
    "store_demo_k128": "molecules (the demo)",
    "store_k64_v32000": "simulated",
    "store_k64_v151936": "simulated",
    "store_k128_v32000": "simulated",
    "store_k128_v151936": "simulated",
}
LENGTHS = (18, 120, 500)
PEERS = {
    "logitbank": "**logitbank**",
    "memmap": "raw memory map",
    "zarr_python": "zarr-python, the same files",
    "tensorstore": "tensorstore, our portable profile",
    "parquet": "Parquet (pyarrow), 8 documents a group",
    "mds": "MDS (mosaicml-streaming)",
    "distillkit": "DistillKit, recommended",
    "distillkit_bf16": "DistillKit, bf16",
}

TEXT = """\
Rates are in million tokens a second of one core, with checksums verified and files in the page cache. "Random" reads one
document at a time, "windowed" 64 neighbours at a time in any order, "training" the blocks of neighbours of the default
order of training, and "records" goes through the store with all texts. Entropy is that of the ids plus that of a gap
given its rank, on the same grid. Our bytes are those of all files (tokens, segments and metadata too), of units from
which no codebook was learned. MDS keeps raw rows of 384 or 768 bytes after the first read. DistillKit is its codec alone,
in memory: the recommended setting with `normalize_t`, and raw bf16.
"""


def section() -> str:
    head = (
        "rows of",
        "vocabulary",
        "k",
        "entropy",
        "B/token",
        "ids + gaps ÷ entropy",
        "KL",
        "random",
        "windowed",
        "training",
        "records",
        "× zarr-python",
        "tensorstore",
        "Parquet",
        "MDS",
        "DistillKit, bf16",
    )
    results = {name: read(name) for name in FILES}
    rows = [_row(label, results[name]) for name, label in FILES.items()]
    simulated = [_share(result) for name, result in results.items() if FILES[name] == "simulated"]
    real = [_share(result) for name, result in results.items() if FILES[name] != "simulated"]
    return (
        f"## The store beside others\n\n{TEXT}\n{table(head, rows)}\n\n"
        "On simulated rows, whose ids depend on nothing, the store takes "
        f"{min(simulated):.2f} to {max(simulated):.2f} of the entropy with everything in it; on trained teachers "
        f"{min(real):.2f} to {max(real):.2f}.\n\n"
        f"### Short and long documents\n\n{_lengths()}\n\n"
        f"### One case in full\n\n{_rates()}\n\n{origin((*FILES, *_length_files()))}\n\n{_codes()}\n\n{_scale()}"
    )


def _share(result: dict[str, Any]) -> float:
    return float(result["bytes_per_token"] / result["entropy_bytes_per_token"])


def _entry_share(result: dict[str, Any]) -> float:
    """Bytes of codes and gaps, over their entropy."""
    entries = sum(size for name, size in result["bytes_by_array"].items() if name.startswith("rank"))
    return float(entries / result["entropy_bytes_per_token"])


def _row(label: str, result: dict[str, Any]) -> tuple[str, ...]:
    zarr = result.get("zarr_python_random_tokens_per_cpu_s")
    return (
        label,
        f"{result['vocab']:,}",
        str(result["k"]),
        f"{result['entropy_bytes_per_token']:.1f}",
        f"**{result['bytes_per_token']:.1f}**",
        f"{_entry_share(result):.2f}",
        f"{result['kl']:.1e}",
        *(f"{result[f'{way}_tokens_per_cpu_s'] / 1e6:.2f}" for way in ("random", "windowed", "training", "records")),
        f"{result['random_tokens_per_cpu_s'] / zarr:.0f}" if zarr else "not run",
        *(_peer_bytes(result, peer) for peer in ("tensorstore", "parquet", "mds")),
        ", ".join(_peer_bytes(result, peer) for peer in ("distillkit", "distillkit_bf16")),
    )


def _peer_bytes(result: dict[str, Any], peer: str) -> str:
    size = result.get(f"{peer}_bytes_per_token")
    return f"{size:.0f}" if size else "not run"


def _length_files() -> tuple[str, ...]:
    return tuple(f"store_documents_{length}" for length in LENGTHS)


def _lengths() -> str:
    results = [read(name) for name in _length_files()]
    ways = ("random", "windowed", "training", "records")
    rows = [
        (
            str(length),
            f"{result['bytes_per_token']:.1f}",
            f"{result['write_tokens_per_cpu_s'] / 1e3:,.0f}",
            *(spread({k: v / 1e3 for k, v in result["measured"]["logitbank"][way].items()}, ",.0f") for way in ways),
        )
        for length, result in zip(LENGTHS, results, strict=True)
    ]
    return (
        "Simulated rows, k = 64, a vocabulary of 151,936, in documents of one length; thousand tokens a CPU second:\n\n"
        f"{table(('tokens a document', 'B/token', 'write', *ways), rows)}"
    )


def _rates() -> str:
    measured = read("store_k64_v151936")["measured"]
    rows = []
    for name, label in PEERS.items():
        peer = measured.get(name)
        if peer is None:
            rows.append((label, "not run", "", "", ""))
            continue
        size, write = peer["bytes_per_token"], peer["write"]
        rows.append(
            (
                label,
                f"{size:.1f}" if size else "",
                f"{write / 1e3:,.0f}" if write else "",
                *(spread({k: v / 1e3 for k, v in peer[way].items()}, ",.0f") for way in ("random", "windowed")),
            )
        )
    ours, limit = measured["logitbank"], measured["memmap"]
    share = ours["random"]["median"] / limit["random"]["median"]
    return (
        "k = 64 and a vocabulary of 151,936, in thousand tokens a CPU second:\n\n"
        f"{table(('', 'B/token', 'write', 'random', 'windowed'), rows)}\n\n"
        "A memory map is the limit of reading: it copies 384 bytes a token and decodes nothing. The store reads at "
        f"{share:.0%} of its rate, with checksums and a third of the bytes. The aims for k = 64 were 2.5 million windowed "
        "tokens a second, 1 million in the order of training for documents of any length, 250 thousand written in "
        "documents of 500 tokens and 150 thousand in documents of 18, and half of the rate of block reads for records."
    )


def _codes() -> str:
    teachers = read("store_codes")["teachers"]
    labels = {
        "id_entropy_bytes_per_token": "zero-order entropy",
        "plain": "plain ids",
        "frequency": "by frequency",
        "token": "lists by the token",
        "first": "lists by the first entry",
    }
    rows = [(label, *(f"{each[name]:.1f}" for each in teachers.values())) for name, label in labels.items()]
    return (
        "### Codebooks\n\nBytes a token that the ids take at k = 64, on rows that the codebook has not seen.\n\n"
        f"{table(('coding of ids', *teachers), rows)}\n\n{origin(['store_codes'])}"
    )


def _scale() -> str:
    result = read("store_scale")
    tokens = [(f"{e['tokens']:,}", f"{e['write_s']:.2f}", f"{e['read_s']['median']:.3f}") for e in result["by_tokens"]]
    units = [
        (
            f"{e['units']:,}",
            f"{e['examples']:,}",
            f"{e['snapshot_s']:.1f}",
            f"{e['new_unit_ms']:.2f}",
            f"{e['new_bytes'] / 1e6:.1f}",
            f"{e['open_s']['median']:.3f}",
        )
        for e in result["by_units"]
    ]
    return (
        "### As it grows\n\nCost grows with the tokens and hardly with the units. CPU seconds to write, and to read all "
        f"tokens at random:\n\n{table(('tokens', 'write s', 'read s'), tokens)}\n\n"
        "CPU seconds to take the first snapshot of that many commits; of the next one, CPU milliseconds a new unit and "
        "megabytes "
        "of memory; seconds to open the store:\n\n"
        f"{table(('units', 'examples', 'first s', 'new ms', 'new MB', 'open s'), units)}\n\n{origin(['store_scale'])}\n"
    )
