"""Capture: the teacher's rates beside its forward pass."""

from docs.generate.measurements.results import origin, read, spread, table

FILES = (
    "capture_topk_64_v32000_float32",
    "capture_topk_64_v151936_float32",
    "capture_topk_128_v32000_float32",
    "capture_topk_128_v151936_float32",
    "capture_threshold_64_v32000_float32",
    "capture_sampled_64_v32000_float32",
)
NAMES = {"threshold": "threshold, 0.05", "sampled": "sampled, 50 draws"}

TEXT = """\
One thread and float32, because this machine has no bfloat16 instructions. The teacher is a random Llama of 4 layers and
width 128, with prompts of 512 tokens. Every row is kept. The *floor* is prefill, the product with the LM head, and
`torch.topk` of the raw logits. *Stock dicts* are vLLM's `prompt_logprobs` with the default memory allocator. *Flat,
tuned* are its flat log-probabilities with the allocator settings of a capture. All stages use one engine and take turns.
A ratio above 1 means that logitbank is faster. "Writing adds" is the time that encoding and writing add while the next
unit is computed. "Generation" is generation with rows over generation without.

Rows include the normaliser, the exact tail mass and the log-probability of the text itself. They still cost less than
`torch.topk` alone. The aim was 0.85 of prefill + GEMM. Most of the time goes into that product, and its own speed varies
by about a tenth from run to run on this machine. This benchmark was not run on a GPU.
"""


def section() -> str:
    head = (
        "targets",
        "vocabulary",
        "tokens/s",
        "÷ floor",
        "÷ prefill + GEMM",
        "÷ stock dicts",
        "÷ flat, tuned",
        "writing adds",
        "generation",
    )
    rows = []
    for result in map(read, FILES):
        ratios = ("ratio_to_floor", "ratio_to_prefill_gemm", "ratio_to_stock_dict", "ratio_to_tuned_flat")
        rows.append(
            (
                NAMES.get(result["mode"], f"topk, k = {result['k']}"),
                f"{result['vocab']:,}",
                spread(result["rates"]["ours"], ",.0f"),
                *(f"{result[name]:.2f}" for name in ratios),
                f"{result['writing_cost']:+.1%}",
                f"{result['generation_ratio']:.2f}",
            )
        )
    return f"## Capture beside the forward pass\n\n{TEXT}\n{table(head, rows)}\n\n{origin(FILES)}\n"
