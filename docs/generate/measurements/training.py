"""Training: what distillation costs a student, and what one capture saves."""

from docs.generate.measurements.results import RESULTS, origin, read, spread, table

FILES = ("train_v32000", "train_v151936")
GPU_FILE = "train_v151936_cuda"

TEXT = """\
A step is forward pass, loss, backward pass and AdamW, with its batch from a store on disk. It is compared with a step of
hard labels on texts alone, with the same fused head. The student is a random Llama of width 256 with 4 layers: 1,024
tokens a step, k = 64, float32, one thread, no GPU. Losses take turns step by step. Times are medians of the ratios, with
the smallest and the largest. Memory is the peak of a separate process. "Dense" is plain PyTorch from whole logits.
"""


def section() -> str:
    results = [read(name)["losses"] for name in FILES]
    rows = []
    for loss in results[0]:
        cells = []
        for losses in results:
            cells += [spread(losses[loss]["ratio_to_ce"], ".3f", ".2f"), f"{losses[loss]['peak_ratio_to_ce']:.2f}"]
        rows.append((loss, *cells))
    waits = [each["data_wait_share"] for losses in results for each in losses.values()]
    head = ("loss", "time, V = 32,000", "peak memory", "time, V = 151,936", "peak memory")
    return (
        f"## What distillation costs a student\n\n{TEXT}\n{table(head, rows)}\n\n"
        "On a CPU, plain PyTorch from whole logits takes about the same time and two to four times the memory. "
        f"No loss spent more than {max(waits):.0e} of its time waiting for data.\n\n{origin(FILES)}\n\n{_on_gpu()}"
    )


def _on_gpu() -> str:
    """The same on a GPU, with Liger's fused cross-entropy as a peer."""
    result = read(GPU_FILE)
    losses = result["losses"]
    rows = [
        (
            name,
            f"{1e3 * each['step_seconds']['median']:.0f} ms",
            spread(each["ratio_to_ce"], ".3f", ".2f"),
            f"{each['peak_mib']:,.0f}",
            f"{each['peak_ratio_to_ce']:.2f}",
        )
        for name, each in losses.items()
    ]
    liger = losses["liger hard_label"]
    head = ("loss", "step", "÷ hard labels", "peak MiB", "÷ theirs")
    waited = max(each["data_wait_share"] for each in losses.values())
    return (
        "### On a GPU\n\n"
        f"A random Llama of {result['layers']} layers and width {result['hidden']} ({result['parameters'] / 1e9:.1f} G "
        f"parameters) in bfloat16, a vocabulary of {result['vocab']:,}, {result['tokens']:,} tokens a step, k = "
        f"{result['k']}. The batches come from a store on disk, decoded by one thread; no loss waited more than "
        f"{waited:.1%} of its time for them. The peak includes weights, gradients and AdamW.\n\n"
        f"{table(head, rows)}\n\n"
        "Every loss of the store costs what hard labels cost with the same head. Liger's fused cross-entropy of hard labels, "
        f"written in Triton, takes {liger['ratio_to_ce']['median']:.2f} of the time of ours and "
        f"{liger['peak_ratio_to_ce']:.2f} of the memory; it has no loss for sparse distributions.\n\n{origin([GPU_FILE])}\n"
    )


def reuse() -> str:
    result = read("reuse")
    counts = (1, 4, 8)
    capture = result["capture_seconds"]
    rows = [("n online runs ÷ (one capture + n students)", *(f"{result[f'speedup_{n}']:.2f}" for n in counts))]
    return (
        "## What one capture saves\n\n"
        f"A teacher of {result['teacher_parameters'] / 1e6:.0f} M and students of "
        f"{result['student_parameters'] / 1e6:.1f} M parameters, {result['tokens']:,} tokens, one epoch for each student. "
        "Online means the forward pass of a Transformers teacher and the full KL at every step.\n\n"
        f"{table(('students', *map(str, counts)), rows)}\n\n"
        f"A student from the store trains at {spread(result['throughput_ratio_spread'], '.2f')} of the throughput of hard "
        f"labels. The capture takes {sum(capture.values()):.0f} s, of which {capture['start']:.0f} s start the engine. "
        f"It pays for itself after {result['break_even']:.1f} students.\n\n{origin(['reuse'])}\n"
    )


def optimizers() -> str:
    result, job = read("optimizers"), read("optimizers_medical_conversation")
    rows = [
        (name, spread(each["ms"], ".1f", ".1f"), f"{each['state_bytes']:.1f}" if each["state_bytes"] else "")
        for name, each in result["updates"].items()
    ]
    runs = [(name, f"{each['loss']:.4f}", f"{each['seconds']:.0f}") for name, each in job["runs"].items()]
    return (
        "## What an update costs\n\n"
        f"A random Llama of {result['parameters'] / 1e6:.0f} M parameters in float32 on {result['threads']} threads. The last row "
        "reads and writes in one pass what AdamW reads and writes.\n\n"
        f"{table(('optimizer', 'ms an update', 'bytes of state a parameter'), rows)}\n\n"
        f"The same job, {job['job']}, for {job['steps']} steps with each of them; the loss is the mean over the last ten:\n\n"
        f"{table(('optimizer', 'training loss', 'seconds'), runs)}\n\n"
        f"{origin(['optimizers', 'optimizers_medical_conversation'])}\n"
    )


def batches() -> str:
    result = read("batches")
    parts = []
    for name, job in result["jobs"].items():
        rows = [
            (
                str(case["ranks"]),
                str(case["micro_batch"]),
                *(
                    f"{case[key]:.1%}"
                    for key in (
                        "padded",
                        "padded_by_positions",
                        "packed_in_micro_batches",
                        "packed",
                        "packed_by_tokens",
                        "mean_to_busiest_rank",
                    )
                ),
            )
            for case in job["cases"]
        ]
        head = (
            "ranks",
            "rows of a micro-batch",
            "padded",
            "padded, by positions",
            "packed in each micro-batch",
            "packed",
            "packed, steps by tokens",
            "mean / busiest rank",
        )
        parts.append(
            f"{name}: {job['batch']} examples and {job['tokens_of_a_step']:,.0f} tokens a step, rows of at most "
            f"{job['row']:,} tokens.\n\n{table(head, rows)}"
        )
    return (
        "## How full batches are\n\n"
        "The share of computed positions that hold a token of an example. `padded`: an example a row, examples of similar "
        "length together. `packed in each micro-batch`: as it was before, the examples of one micro-batch in rows of fixed "
        "length. `packed`: as it is with `data.pack_to`, the examples of a step over all ranks. The last column is the "
        "mean number of tokens of a rank by that of the busiest rank: with few examples for each rank, the longest example "
        "decides. Sizes are those of a store, or log-normal with a median of 245 tokens.\n\n"
        + "\n\n".join(parts)
        + f"\n\n{origin(['batches'])}\n"
    )


def head_precision() -> str:
    """Errors, time and memory of a bfloat16 head, for each device that has a result file."""
    names = [name for name in ("head_precision_cpu", "head_precision_cuda") if (RESULTS / f"{name}.json").exists()]
    cases = ("bfloat16 logits", "float32 logits")
    rows = []
    for name in names:
        result = read(name)
        device = result["options"]["device"]
        for kl, errors in result["errors"].items():
            values = [f"{errors[case]['loss']:.1e}, {errors[case]['hidden']:.2e}" for case in cases]
            rows.append((f"{device}: relative error of loss and hidden gradient at a KL of {kl}", *values))
        cost = [result["cost"][case] for case in cases]
        rows.append(
            (f"{device}: ms", *(spread({k: 1e3 * v for k, v in each["seconds"].items()}, ".1f") for each in cost))
        )
        rows.append((f"{device}: peak MiB", *(f"{each['peak_mib']:,.0f}" for each in cost)))
    sizes = read(names[0])["options"]
    return (
        "## The head of a bfloat16 student\n\n"
        "Loss and gradients from bfloat16 hidden states and head, against float64. In the first column each logit is rounded "
        "to bfloat16 before the softmax; the second one is what students are trained with. The exact hidden gradient, "
        f"rounded to bfloat16, has an error of 1.7e-3. On the CPU: {sizes['rows']:,} rows, V = {sizes['vocab']:,}, width "
        f"{sizes['width']}, one thread, beside other work.\n\n"
        f"{table(('', *cases), rows)}\n\n{origin(names)}\n"
    )
