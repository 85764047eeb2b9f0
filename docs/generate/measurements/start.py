"""The start of a student on several ranks: memory and seconds."""

from docs.generate.measurements.results import RESULTS, origin, read, spread, table

WAYS = {
    "one_reader": "rank 0 alone reads, in bfloat16",
    "every_rank": "every rank loads it in float32",
    "transformers": "Transformers' own loading",
}


def section() -> str:
    """Empty without a result file."""
    if not (RESULTS / "start.json").exists():
        return ""
    result = read("start")
    head = ("", "rank 0", "of it no file's", "largest other rank", "of it no file's", "seconds")
    rows = [
        (
            words,
            *(
                spread(result[way][name], ".2f")
                for name in ("first_peak", "first_anonymous", "other_peak", "other_anonymous")
            ),
            spread(result[way]["seconds"], ".1f"),
        )
        for way, words in WAYS.items()
    ]
    return (
        "## The start of several ranks\n\n"
        f"A random Llama of {result['parameters']:,} parameters, saved in bfloat16, is started for a bfloat16 run under ZeRO-3 on "
        f"{result['ranks']} ranks of one machine. Memory is the highest of a rank above what it had before, as a multiple of the "
        f"{result['mib']:,.0f} MiB of the weights, which some process has to read. On a CPU the share that a rank keeps counts too "
        f"({1 / result['ranks']:.2f}); a GPU would take it away.\n\n"
        f"{table(head, rows)}\n\n{origin(['start'])}\n"
    )
