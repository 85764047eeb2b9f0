"""Another tokenizer: what an alignment at every read costs, and what a store that was aligned once saves."""

from docs.generate.measurements.results import origin, read, spread, table


def section() -> str:
    result = read("alignment")
    seconds, tokens, rates = result["seconds"], result["tokens"], result["read_tokens_per_s"]
    work = [
        (name, f"{seconds[key]:.0f}", f"{tokens / seconds[key]:,.0f}")
        for name, key in (
            ("the plan of a run that aligns at every read", "plan"),
            ("`logitbank align`, 1 worker", "one"),
            (f"{result['workers']} workers, with the start of Ray", "many"),
        )
    ]
    limit = rates["store"]["median"]
    reads = [
        (name, spread(rates[key], ",.0f"), f"{rates[key]['median'] / limit:.2f}")
        for name, key in (
            ("the store, without an alignment", "store"),
            ("the aligned store", "aligned"),
            ("an alignment at every read", "on_the_fly"),
        )
    ]
    sizes = result["bytes_a_token"]
    return (
        "## Another tokenizer\n\n"
        f"{result['examples']:,} medical conversations with their records, in the tokens of SmolLM2, read in those of a tokenizer "
        f"that was learned from them: {tokens:,} tokens of the student, k = {result['k']}; {result['shares']}. The rows are "
        "simulated, each with the token that follows.\n\n"
        f"{table(('aligning all of it', 's', 'tokens/s'), work)}\n\n"
        f"{table(('reading, one process', 'tokens/s', 'of the limit'), reads)}\n\n"
        f"The store takes {sizes['store']:.0f} bytes a token with a target, the aligned one {sizes['aligned']:.0f}.\n\n"
        f"{origin(['alignment'])}\n"
    )
