"""Generate the tables of docs/sizing.md: what a capture of so many tokens takes, from the measured costs of its parts."""

from pathlib import Path

from docs.generate import student_sizing
from docs.generate.demo_table import between
from docs.generate.measurements.results import origin, read, table

BEGIN = "<!-- plans: begin (written by `python -m docs.generate`) -->"
END = "<!-- plans: end -->"
# Tokens with a target, and the shape of the plans.
SIZES = (10**9, 10**11, 10**13)
TOKENS_OF_EXAMPLE, EXAMPLES_OF_UNIT = 500, 256
# Bytes that a reader keeps in memory (LogitStore), and a driver (cluster/capture/input/key_set.py).
EXAMPLE_BYTES, UNIT_BYTES, KEY_BYTES = 35, 450, 16
# Files that a driver and an engine write for a unit: its part and its commit.
FILES_OF_UNIT = 2
# Given, not measured: what one GPU reads in a second while it scores.
GIVEN_RATES = (5_000, 20_000)
CLUSTER = 64
STORES = ("store_smollm2_k64", "store_k64_v151936", "store_scale")


def page(root: Path) -> str:
    """docs/sizing.md with the current tables."""
    text = between((root / "docs/sizing.md").read_text(), BEGIN, END, tables())
    return between(text, student_sizing.BEGIN, student_sizing.END, student_sizing.tables())


def tables() -> str:
    """The plans as Markdown, and the files that their figures come from."""
    low, high = (read(name)["bytes_per_token"] for name in STORES[:2])
    units = {size: size // (TOKENS_OF_EXAMPLE * EXAMPLES_OF_UNIT) for size in SIZES}
    examples = {size: size // TOKENS_OF_EXAMPLE for size in SIZES}
    largest = read("store_scale")["by_units"][-1]
    rates = read(STORES[0])["training_tokens_per_cpu_s"], read(STORES[1])["training_tokens_per_cpu_s"]
    rows = [
        ("examples", *(f"{examples[size]:,}" for size in SIZES)),
        ("units, each a part", *(f"{units[size]:,}" for size in SIZES)),
        (
            f"bytes, {low:.0f} to {high:.0f} a token",
            *(f"{_bytes(size * low)} to {_bytes(size * high)}" for size in SIZES),
        ),
        ("files or write requests", *(f"{units[size] * FILES_OF_UNIT:,}" for size in SIZES)),
        *(
            (
                f"hours of {CLUSTER} GPUs at {rate:,} tokens/s each (given)",
                *(_hours(size / rate / CLUSTER) for size in SIZES),
            )
            for rate in GIVEN_RATES
        ),
        ("memory of the driver for keys", *(_bytes(examples[size] * KEY_BYTES) for size in SIZES)),
        (
            "memory of a reader for the index",
            *(_bytes(examples[size] * EXAMPLE_BYTES + units[size] * UNIT_BYTES) for size in SIZES),
        ),
        (
            f"CPU time of the snapshots, {largest['new_unit_ms']:.2f} ms a unit",
            *(_hours(units[size] * largest["new_unit_ms"] / 1e3) for size in SIZES),
        ),
        (
            f"CPU time of a student's pass, {min(rates) / 1e6:.1f} to {max(rates) / 1e6:.1f} M tokens/s a core",
            *(f"{_hours(size / max(rates))} to {_hours(size / min(rates))}" for size in SIZES),
        ),
    ]
    return table(("", *(f"10^{len(str(size)) - 1} tokens" for size in SIZES)), rows) + "\n\n" + origin(STORES)


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:,.3g} h" if seconds < 3.6e6 else f"{seconds / 3600:,.0f} h"
