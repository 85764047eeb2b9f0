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
by about a tenth from run to run on this machine. *Sampled* was measured with independent draws; the command makes systematic ones,
the default of a capture, since then.
"""
GPU_FILES = ("capture_topk_64_v151936_bfloat16_cuda",)
GPU_TEXT = """\
The same stages on a GPU, in bfloat16: a random Llama of {layers} layers and width {hidden} with a vocabulary of {vocab:,}, 32 prompts
of 1,024 tokens, passes of 8,192 tokens. Model runner {runner} of vLLM. {note}.

With rows the call takes {floor} of the time of the floor, and {gemm} of that of prefill + GEMM: {extra:.0f} ms more for {rows:,} rows.
The kernels need some 4 ms of them (0.269 ms for 2,048 rows, next section). Much of the rest was the host, which unpacked and sent
rows after the last pass; it takes {host:.0f} ms for as many rows now (`host.json`, on a slower machine), and this table was not
measured again since. One thread that encodes and writes does not keep up with this rate.
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
    return f"## Capture beside the forward pass\n\n{TEXT}\n{table(head, rows)}\n\n{origin(FILES)}\n\n{_on_gpu()}"


def _on_gpu() -> str:
    """Rates of the stages on a GPU."""
    names = {
        "prefill": "prefill",
        "prefill_gemm": "prefill + GEMM",
        "floor": "floor (+ `torch.topk`)",
        "stock_dict": "vLLM's `prompt_logprobs`",
        "tuned_flat": "the same, flat",
        "ours": "**ours**",
    }
    result = read(GPU_FILES[0])
    rates, rows_of_call = result["rates"], 32 * 1023
    rows = []
    for stage, rate in result["rates"].items():
        ratio = "" if stage == "ours" else f"{result[f'ratio_to_{stage}']:.2f}"
        rows.append((names[stage], spread(rate, ",.0f"), ratio))
    text = GPU_TEXT.format(
        **{name: result[name] for name in ("layers", "hidden", "vocab", "runner", "note")},
        floor=f"{1 / result['ratio_to_floor']:.2f}",
        gemm=f"{1 / result['ratio_to_prefill_gemm']:.2f}",
        rows=rows_of_call,
        extra=1e3 * rows_of_call * (1 / rates["ours"]["median"] - 1 / rates["prefill_gemm"]["median"]),
        host=1e3 * read("host")["total"],
    )
    more = (
        f"Encoding and writing with one thread add {result['writing_cost']:+.0%}. Generation with rows runs at "
        f"{result['generation_ratio']:.2f} of generation without."
    )
    head = ("stage", "tokens/s", "ours ÷ it")
    return f"### On a GPU\n\n{text}\n{table(head, rows)}\n\n{more}\n\n{origin([*GPU_FILES, 'host'])}\n"
